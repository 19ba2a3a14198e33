//! Who wants what: selectors, shard groups and deterministic names (contract: loggregator v2 §5.1 to §5.3), in a table that is read
//! without locks. What enters: requests and their end. What leaves: for one batch, the subscriptions that get some of it.
//!
//! A request without a shard is one *direct* entry per source that it names (or one for any source). A request with a shard is a
//! member of one *group* per selector: of a group's members one gets each envelope. Adding or removing a request touches its own
//! selectors' entries and nothing else.

use std::collections::{BTreeSet, HashMap};
use std::iter::Sum;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use crossbeam::sync::ShardedLock;
use diode::fair;
use log_cache::Store;
use lru::LruCache;
use parking_lot::Mutex;
use proto::loss::{Loss, Untold};
use proto::raw::{Batch, Entry};
use proto::reason::Reason;
use proto::selector::{Rule, Selector};
use telemetry::StageMetrics;
use tracing::debug;

pub(crate) use self::routes::Positions;
use self::routes::{Direct, Group, Routes, Span};
use self::sources::Sources;
pub use self::subscription::Subscribed;
pub(crate) use self::subscription::{Mark, Subscription, TOLD_SOURCES};

mod list;
mod routes;
mod sources;
mod subscription;

/// Groups of which it is remembered where they left off.
const GROUPS_LEFT: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Selectors that one subscription may come to want by changes.
pub(crate) const MAX_HELD: usize = 100_000;

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Consumers with the same shard share; empty is a subscription of its own.
    pub shard_id: String,
    /// Orders the members of a group for deterministic placement; empty takes no part in it.
    pub deterministic_name: String,
    /// What to send; [`Subscribed::change`] changes it. An envelope that several selectors admit is sent once.
    pub selectors: Vec<Selector>,
    /// Its consumer wants to be told what its ring dropped: [`Subscribed::gaps`].
    pub markers: bool,
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Table {
    /// Where envelopes are counted whose consumer left without them.
    stage: StageMetrics,
    /// The doppler is stopping: what is left in a ring now was cut off by the deadline, not by its consumer.
    closing: AtomicBool,
    /// Who wants something of any source.
    any: ArcSwap<Routes>,
    /// Who wants something of one source.
    by_source: Sources,
    /// Guards changes, one at a time; publishers never take it.
    change: Mutex<Changes>,
    /// Envelopes that closed rings turned away. Kept here and not taken from the rings: a publisher may come to a ring of which
    /// `Changes` has the counts already.
    rejected: AtomicU64,
    /// Where groups that nobody is in any more left off.
    cache: Option<Store>,
    /// Whoever publishes a batch reads, each processor its own part. Who writes sees no batch half published: in the cache and not yet in
    /// the rings. Taken before `change`.
    pub(crate) gate: ShardedLock<()>,
}

/// What those who change the table know of it.
#[derive(Debug)]
struct Changes {
    /// The next subscription's or group's id.
    next: u64,
    open: HashMap<u64, Arc<Subscription>>,
    groups: HashMap<GroupKey, Arc<Group>>,
    /// The cache's sequence when the last member left a group; the groups longest gone are forgotten.
    left: LruCache<GroupKey, u64>,
    /// What rings counted that are no more; what was left in one is among its evicted.
    counters: fair::Counters,
    /// Envelopes that a consumer was to get and did not, because it had ended.
    lost: u64,
    /// What ended subscriptions lost and nobody has been told yet.
    untold: Untold,
}

/// A change would leave a subscription with so many selectors.
#[derive(Debug, thiserror::Error)]
#[error("{0} selectors; a subscription has {MAX_HELD} at most")]
pub struct TooMany(usize);

/// What is shared out together: the same selector and the same shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    selector: Selector,
    shard_id: Box<str>,
}

/// What all subscriptions, open and ended, have counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// All rings; what was left in ended ones is among the evicted.
    pub(crate) counters: fair::Counters,
    /// Envelopes taken from rings and not yet given out.
    pub(crate) in_hand: u64,
    /// Envelopes that a consumer was to get and did not, because it had ended.
    pub(crate) lost: u64,
    /// Open subscriptions.
    pub(crate) open: usize,
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, more| {
            add(&mut sum.counters, more.counters);
            sum.counters.rejected += more.counters.rejected;
            sum.counters.offered += more.counters.offered;
            sum.in_hand += more.in_hand;
            sum.lost += more.lost;
            sum.open += more.open;
            sum
        })
    }
}

impl Totals {
    /// Envelopes that open subscriptions have still to get.
    pub(crate) fn resident(&self) -> u64 {
        self.counters.envelopes as u64 + self.in_hand
    }
}

impl Table {
    /// An empty table, before `cache` if there is one.
    pub(crate) fn new(stage: StageMetrics, cache: Option<Store>) -> Self {
        let changes = Changes {
            next: 0,
            open: HashMap::new(),
            groups: HashMap::new(),
            left: LruCache::new(GROUPS_LEFT),
            counters: fair::Counters::default(),
            lost: 0,
            untold: Untold::default(),
        };
        Self {
            stage,
            closing: AtomicBool::new(false),
            any: ArcSwap::default(),
            by_source: Sources::default(),
            change: Mutex::new(changes),
            rejected: AtomicU64::new(0),
            cache,
            gate: ShardedLock::new(()),
        }
    }

    /// Adds a subscription. Cost: its selectors, and the members of the groups it joins; besides, a reference count for every 64
    /// subscriptions to the same source, and for every 1 024 sources. Once the table is closed, it ends at once.
    pub(crate) fn subscribe(self: &Arc<Self>, request: Request, bounds: fair::Bounds) -> Subscribed {
        self.open(request, bounds, false).0
    }

    /// The same for a consumer that confirms, and what of its selectors nobody has got before it: each with the sequence of the cache
    /// up to which somebody has.
    pub(crate) fn open(
        self: &Arc<Self>,
        request: Request,
        bounds: fair::Bounds,
        confirms: bool,
    ) -> (Subscribed, Vec<(Selector, u64)>) {
        let mut changes = self.change.lock();
        let id = changes.id();
        let (subscription, selectors) = Subscription::new(id, request, bounds, confirms);
        let subscription = Arc::new(subscription);
        if self.is_closed() {
            subscription.close();
        }
        changes.open.insert(id, Arc::clone(&subscription));
        let count = selectors.len();
        let missed = self.enter(&mut changes, &subscription, selectors);
        drop(changes);
        debug!(id, shard_id = subscription.shard_id(), selectors = count, "Subscription opened");
        (Subscribed::new(self, subscription), missed)
    }

    /// What [`Subscribed::change`] does. One edit per source that it names.
    fn change(
        &self,
        subscription: &Arc<Subscription>,
        added: Vec<Selector>,
        removed: Vec<Selector>,
    ) -> Result<(), TooMany> {
        let nobody_publishes = self.while_nobody_publishes(subscription);
        let mut changes = self.change.lock();
        if subscription.has_ended() {
            return Ok(());
        }
        let held = subscription.selectors().lock();
        let added: BTreeSet<Selector> = added.into_iter().filter(|selector| !held.contains(selector)).collect();
        let is_held = |selector: &Selector| held.contains(selector) || added.contains(selector);
        let removed: BTreeSet<Selector> = removed.into_iter().filter(is_held).collect();
        let after = held.len() + added.len() - removed.len();
        drop(held);
        if after > MAX_HELD {
            return Err(TooMany(after));
        }
        // In this order: what one selector stops to admit and another begins to is never without both.
        let replaces = !added.is_empty() && !removed.is_empty();
        self.enter(&mut changes, subscription, added);
        if replaces && nobody_publishes.is_none() {
            // Also for batches that are half published: they may have passed where `added` now stands.
            drop(changes);
            drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
            changes = self.change.lock();
            if subscription.has_ended() {
                return Ok(());
            }
        }
        self.leave(&mut changes, subscription, &removed);
        Ok(())
    }

    /// Adds selectors that the subscription does not have; what of them nobody has got before, as of [`Table::open`].
    fn enter(
        &self,
        changes: &mut Changes,
        subscription: &Arc<Subscription>,
        new: BTreeSet<Selector>,
    ) -> Vec<(Selector, u64)> {
        let mut missed = Vec::new();
        if subscription.is_shared() {
            for selector in &new {
                let key = GroupKey::of(selector, subscription);
                if let Some(group) = changes.groups.get(&key) {
                    group.join(subscription);
                    continue;
                }
                let group = Arc::new(Group::new(changes.id(), selector.rule.clone()));
                group.join(subscription);
                missed.push((selector.clone(), changes.left.pop(&key).unwrap_or(0)));
                changes.groups.insert(key, Arc::clone(&group));
                self.edit(selector.source_id.as_deref(), |routes| routes.groups.put(group.id, group));
            }
            subscription.selectors().lock().extend(new);
            return missed;
        }
        let named = sources(&new);
        missed.extend(new.iter().map(|selector| (selector.clone(), 0)));
        subscription.selectors().lock().extend(new);
        self.direct(subscription, named);
        missed
    }

    /// Takes out selectors that the subscription has.
    fn leave(&self, changes: &mut Changes, subscription: &Arc<Subscription>, gone: &BTreeSet<Selector>) {
        let mut held = subscription.selectors().lock();
        gone.iter().for_each(|selector| _ = held.remove(selector));
        drop(held);
        if !subscription.is_shared() {
            return self.direct(subscription, sources(gone));
        }
        for selector in gone {
            let key = GroupKey::of(selector, subscription);
            if let Some(group) = changes.groups.get(&key)
                && group.part(subscription.id())
            {
                let id = group.id;
                changes.groups.remove(&key);
                if let Some(cache) = &self.cache {
                    changes.left.put(key, cache.sequence());
                }
                self.edit(selector.source_id.as_deref(), |routes| routes.groups.remove(id));
            }
        }
    }

    /// Writes what a subscription of its own wants now of `named`.
    fn direct(&self, subscription: &Arc<Subscription>, named: Vec<Option<Box<str>>>) {
        let held = subscription.selectors().lock();
        for source in named {
            let first = Selector { source_id: source, rule: Rule::Log };
            let of = |selector: &&Selector| selector.source_id == first.source_id;
            let rules: Vec<&Rule> = held.range(&first..).take_while(of).map(|selector| &selector.rule).collect();
            let id = subscription.id();
            self.edit(first.source_id.as_deref(), |routes| match rules.is_empty() {
                true => routes.direct.remove(id),
                false => routes.direct.put(id, Arc::new(Direct::new(subscription, &rules))),
            });
        }
    }

    /// Where a group leaves off must be where its last member has got everything: held while members may leave.
    fn while_nobody_publishes(&self, subscription: &Subscription) -> Option<impl Drop> {
        let gate = || self.gate.write().unwrap_or_else(PoisonError::into_inner);
        subscription.is_shared().then(gate)
    }

    /// Changes who wants something of `source`. The caller holds the lock of changes.
    fn edit(&self, source: Option<&str>, change: impl FnOnce(&mut Routes)) {
        let Some(source) = source else {
            let mut routes = Routes::clone(&self.any.load());
            change(&mut routes);
            self.any.store(Arc::new(routes));
            return;
        };
        self.by_source.edit(source, change);
    }

    /// Calls `pick` with every subscription that gets some of `batch`, and the positions it gets. A subscription may come up more than
    /// once, with overlapping positions. `scratch` is room to work in.
    pub(crate) fn matches(
        &self,
        batch: &Batch,
        scratch: &mut Vec<u32>,
        mut pick: impl FnMut(&Arc<Subscription>, Positions<'_>),
    ) {
        let all = Span { batch, from: 0, to: batch.len() };
        self.any.load().matches(all, scratch, &mut pick);
        if self.by_source.is_empty() {
            return;
        }
        let entries = batch.entries();
        let mut from = 0;
        while let Some(first) = entries.get(from) {
            let id = batch.source_id(first);
            let same = |entry: &&Entry| entry.source == first.source && batch.source_id(entry) == id;
            let to = from + entries[from..].iter().take_while(same).count();
            self.by_source.with(first.source, id, |routes| {
                routes.matches(Span { batch, from, to }, scratch, &mut pick);
            });
            from = to;
        }
    }

    /// True when nobody is subscribed. O(1).
    pub(crate) fn is_empty(&self) -> bool {
        self.any.load().is_empty() && self.by_source.is_empty()
    }

    /// What kinds of any source, and of which sources, somebody wants, for a look before envelopes are made that nobody may want.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted { any: self.any.load().wants(), by_source: (!self.by_source.is_empty()).then_some(&self.by_source) }
    }

    /// Closes every subscription's ring: its consumer gets what is in it, and then the end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        for subscription in self.change.lock().open.values() {
            subscription.close();
        }
    }

    /// True once it has been closed: nobody need subscribe any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends every subscription whose consumer has not taken what is in its ring: the stop's deadline has passed.
    pub(crate) fn cut(&self) {
        let open: Vec<Arc<Subscription>> = self.change.lock().open.values().cloned().collect();
        for subscription in open {
            self.end(&subscription);
        }
    }

    /// Takes a subscription out, closes its ring and counts what its consumer has not been given; the first time.
    fn end(&self, subscription: &Arc<Subscription>) {
        let _nobody_publishes = self.while_nobody_publishes(subscription);
        let mut changes = self.change.lock();
        let Some(ended) = subscription.end() else { return };
        let all = mem::take(&mut *subscription.selectors().lock());
        self.leave(&mut changes, subscription, &all);
        changes.open.remove(&subscription.id());
        let lost = ended.lost();
        add(&mut changes.counters, ended.counters());
        changes.lost += lost;
        drop(changes);
        self.count_lost(lost);
        // Looking at what was left takes its time, and holds nobody up.
        let left = ended.left().take(self.lost_reason());
        let losses = subscription.take_losses().into_iter().chain(left);
        self.change.lock().untold.add(&subscription.label(), losses);
        debug!(id = subscription.id(), lost, "Subscription ended");
    }

    /// Counts envelopes that a consumer has been given.
    fn count_delivered(&self, envelopes: u64) {
        self.stage.delivered(envelopes);
    }

    /// Counts envelopes that a closed ring turned away.
    pub(crate) fn count_rejected(&self, envelopes: u64) {
        self.rejected.fetch_add(envelopes, Ordering::Relaxed);
        self.count_lost(envelopes);
    }

    /// Counts envelopes whose consumer is gone, and why it is.
    fn count_lost(&self, envelopes: u64) {
        self.stage.dropped(self.lost_reason().as_str(), envelopes);
    }

    fn lost_reason(&self) -> Reason {
        if self.is_closed() { Reason::ShutdownDeadline } else { Reason::PeerLost }
    }

    /// Hands out what was lost since the last time, by subscription and source.
    pub(crate) fn take_losses(&self, mut told: impl FnMut(String, Loss)) {
        let mut changes = self.change.lock();
        let open: Vec<Arc<Subscription>> = changes.open.values().cloned().collect();
        let untold = changes.untold.take();
        drop(changes);
        untold.into_iter().for_each(|(label, loss)| told(label, loss));
        for subscription in open {
            subscription.take_losses().into_iter().for_each(|loss| told(subscription.label(), loss));
        }
    }

    /// Who is subscribed, by what it is called where losses are told, with what its ring has counted.
    pub(crate) fn consumers(&self) -> Vec<(String, fair::Counters)> {
        let open: Vec<Arc<Subscription>> = self.change.lock().open.values().cloned().collect();
        open.iter().map(|subscription| (subscription.label(), subscription.counters().0)).collect()
    }

    /// Whether every consumer has got everything that it was to get, and those that confirm have.
    pub(crate) fn is_drained(&self) -> bool {
        let changes = self.change.lock();
        changes.open.values().all(|subscription| !subscription.confirms() && subscription.is_empty())
    }

    /// What is in the rings now: to be asked later whether it has left them.
    pub(crate) fn mark(&self) -> Vec<Mark> {
        let changes = self.change.lock();
        changes.open.values().filter_map(Subscription::mark).collect()
    }

    /// What all subscriptions have counted, exact at one moment for each ring.
    pub(crate) fn totals(&self) -> Totals {
        let changes = self.change.lock();
        let open = &changes.open;
        let mut totals = Totals { counters: changes.counters, in_hand: 0, lost: changes.lost, open: open.len() };
        for subscription in open.values() {
            let (counters, in_hand) = subscription.counters();
            add(&mut totals.counters, counters);
            totals.in_hand += in_hand;
        }
        totals.counters.rejected = self.rejected.load(Ordering::Relaxed);
        totals.counters.offered = totals.counters.accepted + totals.counters.rejected;
        totals
    }
}

impl Changes {
    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl GroupKey {
    fn of(selector: &Selector, subscription: &Subscription) -> Self {
        Self { selector: selector.clone(), shard_id: subscription.shard_id().into() }
    }
}

/// Adds up what rings counted; what they turned away is [`Table::rejected`].
fn add(sum: &mut fair::Counters, more: fair::Counters) {
    sum.accepted += more.accepted;
    sum.taken += more.taken;
    sum.evicted += more.evicted;
    sum.envelopes += more.envelopes;
    sum.bytes += more.bytes;
}

/// Which envelopes somebody may want, by kind and source.
pub(crate) struct Wanted<'a> {
    /// Bits of kinds.
    any: u8,
    by_source: Option<&'a Sources>,
}

impl Wanted<'_> {
    /// Bits of the kinds of which somebody wants some of `source`.
    pub(crate) fn kinds(&self, source: &[u8]) -> u8 {
        self.by_source.map_or(self.any, |by_source| {
            let mut bits = self.any;
            by_source.with(proto::raw::source_hash(source), source, |routes| bits |= routes.wants());
            bits
        })
    }

    /// Bits of the kinds of which somebody wants all sources.
    pub(crate) fn any(&self) -> u8 {
        self.any
    }
}

/// The sources that `selectors` name, each once.
fn sources(selectors: &BTreeSet<Selector>) -> Vec<Option<Box<str>>> {
    let mut named: Vec<_> = selectors.iter().map(|selector| selector.source_id.clone()).collect();
    named.dedup();
    named
}

/// The hasher for maps by subscription id.
pub(crate) type ById = foldhash::fast::RandomState;

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll};

    use telemetry::Telemetry;

    use super::*;

    fn request(shard_id: &str, sources: &[Option<&str>]) -> Request {
        let rules = [Rule::Log, Rule::Counter(Some("requests".into())), Rule::Log];
        let selector = |source: &Option<&str>, rule: Rule| Selector { source_id: source.map(Into::into), rule };
        let selectors = sources.iter().flat_map(|source| rules.clone().map(|rule| selector(source, rule))).collect();
        Request { shard_id: shard_id.to_owned(), deterministic_name: String::new(), selectors, markers: false }
    }

    #[test]
    fn the_table_is_empty_once_everybody_has_left() {
        let stage = StageMetrics::register(&Telemetry::default(), "test", &["peer_lost", "shutdown_deadline"]);
        let table = Arc::new(Table::new(stage, None));
        let bounds = fair::Bounds { envelopes: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN };
        let open: Vec<Subscribed> = (0..1_000)
            .map(|i| {
                let (own, shared) = (format!("own-{i}"), format!("shared-{}", i % 7));
                let sources = [Some(own.as_str()), Some(shared.as_str()), None];
                table.subscribe(request(["", "m", "n"][i % 3], &sources), bounds)
            })
            .collect();
        let sizes = || {
            let changes = table.change.lock();
            (changes.open.len(), table.by_source.len(), changes.groups.len())
        };
        let any = || {
            let any = table.any.load();
            (any.direct.iter().count(), any.groups.iter().count())
        };
        // 666 with a shard: two groups of each one's own source, of seven sources by two shards, and of any source by two shards.
        assert_eq!((sizes(), any()), ((1_000, 1_007, 2 * (666 + 14 + 2)), (334, 4)));
        let (first, second): (Vec<_>, Vec<_>) = (0..).zip(open).partition(|(i, _)| i % 2 == 0);
        drop(first);
        assert_eq!((sizes(), any()), ((500, 507, 2 * (333 + 14 + 2)), (167, 4)));
        drop(second);
        assert_eq!((sizes(), any()), ((0, 0, 0), (0, 0)));
    }

    #[test]
    fn who_comes_after_the_close_gets_the_end() {
        let stage = StageMetrics::register(&Telemetry::default(), "test", &["peer_lost", "shutdown_deadline"]);
        let table = Arc::new(Table::new(stage, None));
        let bounds = fair::Bounds { envelopes: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN };
        let before = table.subscribe(request("", &[None]), bounds);
        table.close();
        let after = table.subscribe(request("", &[None]), bounds);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for subscribed in [before, after] {
            assert!(matches!(pin!({ subscribed }.next(bounds)).poll(&mut cx), Poll::Ready(None)));
        }
        assert!(table.change.lock().open.is_empty());
    }
}
