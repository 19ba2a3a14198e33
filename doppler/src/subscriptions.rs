//! Who wants what: selectors, shard groups and deterministic names (contract: loggregator v2 §5.1 to §5.3), in a table that is read
//! without locks. What enters: requests and their end. What leaves: for one batch, the subscriptions that get some of it.
//!
//! A request without a shard is one *direct* entry per source that it names (or one for any source). A request with a shard is a
//! member of one *group* per selector: of a group's members one gets each envelope. Adding or removing a request touches its own
//! selectors' entries and nothing else.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use diode::fair;
use papaya::Equivalent;
use parking_lot::Mutex;
use proto::raw::{Batch, Entry, Kind, Outgoing, Selection};
use proto::reason::Reason;
use proto::selector::{Rule, Selector, deterministic_hash};
use telemetry::StageMetrics;
use tracing::debug;

/// Neighbours that stay together when a group shares out a batch: whole runs cost less than single envelopes, and members are never
/// further apart than this.
const RUN: usize = 32;

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Consumers with the same shard share; empty is a subscription of its own.
    pub shard_id: String,
    /// Orders the members of a group for deterministic placement; empty takes no part in it.
    pub deterministic_name: String,
    /// What to send. An envelope that several selectors admit is sent once.
    pub selectors: Vec<Selector>,
}

/// A subscription: where its envelopes are put, and where they come out.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u64,
    ring: fair::Writer<Selection>,
    /// The other end of the ring; nothing once the subscription has ended. Held for one take or one look, never across an await: who
    /// ends a subscription counts exactly what its consumer has not been given, also while that consumer stands still.
    outlet: Mutex<Option<Outlet>>,
    request: Request,
}

#[derive(Debug)]
struct Outlet {
    ring: fair::Reader<Selection>,
    /// Room for what one take gives.
    taken: Vec<Selection>,
    /// Taken together, because a load was larger than a message may be; given out one by one.
    ready: VecDeque<Outgoing>,
}

impl Subscription {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Puts `part` into the ring; returns how many envelopes had to leave it and how many it turned away, its consumer being gone.
    pub(crate) fn push(&self, part: Selection) -> (u64, u64) {
        let (mut evicted, count) = (0, part.len() as u64);
        match self.ring.push(part, |_, _| evicted += 1) {
            Ok(()) => (evicted, 0),
            Err(_closed) => (0, count),
        }
    }
}

impl Outlet {
    /// Envelopes taken from the ring and not yet given out.
    fn in_hand(&self) -> u64 {
        self.ready.iter().map(|message| message.len() as u64).sum()
    }
}

/// An open subscription: its envelopes come out here. Dropping it takes it out of the table and counts what it leaves behind.
#[derive(Debug)]
pub struct Subscribed {
    table: Arc<Table>,
    subscription: Arc<Subscription>,
}

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Table {
    /// Where envelopes are counted whose consumer left without them.
    stage: StageMetrics,
    /// The doppler is stopping: what is left in a ring now was cut off by the deadline, not by its consumer.
    closing: AtomicBool,
    any: Routes,
    by_source: papaya::HashMap<SourceKey, Arc<Routes>, BuildHasherDefault<AsIs>>,
    open: papaya::HashMap<u64, Arc<Subscription>, foldhash::fast::RandomState>,
    /// Guards changes, one at a time; readers never take it. Holds what the rings of ended subscriptions counted.
    change: Mutex<Ended>,
    /// Envelopes that closed rings turned away. Kept here and not taken from the rings: a publisher may come to a ring of which `Ended`
    /// has the counts already.
    rejected: AtomicU64,
    next: AtomicU64,
}

/// The counts of rings that are no more.
#[derive(Debug, Default)]
struct Ended {
    /// What was left in a ring is among its evicted.
    counters: fair::Counters,
    /// Envelopes that a consumer was to get and did not, because it had ended.
    lost: u64,
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

impl Totals {
    /// Envelopes that open subscriptions have still to get.
    pub(crate) fn resident(&self) -> u64 {
        self.counters.envelopes as u64 + self.in_hand
    }
}

/// The subscriptions of one source, or of any source.
#[derive(Debug, Default)]
struct Routes {
    direct: papaya::HashMap<u64, Arc<Direct>, foldhash::fast::RandomState>,
    groups: papaya::HashMap<GroupKey, Arc<Group>, foldhash::fast::RandomState>,
}

impl Routes {
    fn is_empty(&self) -> bool {
        self.direct.pin().is_empty() && self.groups.pin().is_empty()
    }
}

/// A subscription without a shard, and what it wants of a source.
#[derive(Debug)]
struct Direct {
    subscription: Arc<Subscription>,
    /// Bits of the kinds of which it wants all.
    kinds: u8,
    /// Rules that look at names.
    named: Vec<Rule>,
}

/// What is shared out together: the same rule (about the same source) and the same shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    rule: Rule,
    shard_id: Box<str>,
}

#[derive(Debug)]
struct Group {
    rule: Rule,
    members: ArcSwap<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// In order of their names, bytewise; those without one first.
    all: Vec<Member>,
    /// Some member has a name.
    deterministic: bool,
}

#[derive(Clone, Debug)]
struct Member {
    name: Box<str>,
    subscription: Arc<Subscription>,
    /// Envelopes given to this member by free choice.
    given: Arc<AtomicU64>,
}

/// A source's bytes with their hash, which the index of a batch has already.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SourceKey {
    hash: u64,
    id: Box<[u8]>,
}

/// A borrowed [`SourceKey`].
struct SourceRef<'a> {
    hash: u64,
    id: &'a [u8],
}

impl Hash for SourceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for SourceRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<SourceKey> for SourceRef<'_> {
    fn equivalent(&self, key: &SourceKey) -> bool {
        self.hash == key.hash && *self.id == *key.id
    }
}

/// Takes hashes as they are: they are keyed and well mixed where they are made.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are written");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Table {
    pub(crate) fn new(stage: StageMetrics) -> Self {
        Self {
            stage,
            closing: AtomicBool::new(false),
            any: Routes::default(),
            by_source: papaya::HashMap::default(),
            open: papaya::HashMap::default(),
            change: Mutex::default(),
            rejected: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    /// Adds a subscription. Cost: its selectors, and the members of the groups it joins. Once the table is closed, it ends at once.
    pub(crate) fn subscribe(self: &Arc<Self>, request: Request, bounds: fair::Bounds) -> Subscribed {
        let (ring, reader) = fair::channel(bounds);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        debug!(id, shard_id = request.shard_id, selectors = request.selectors.len(), "Subscription opened");
        let outlet = Mutex::new(Some(Outlet { ring: reader, taken: Vec::new(), ready: VecDeque::new() }));
        let subscription = Arc::new(Subscription { id, ring, outlet, request });
        {
            let _change = self.change.lock();
            if self.is_closed() {
                subscription.ring.close();
            }
            self.open.pin().insert(id, Arc::clone(&subscription));
            self.enter(&subscription);
        }
        Subscribed { table: Arc::clone(self), subscription }
    }

    fn enter(&self, subscription: &Arc<Subscription>) {
        let request = &subscription.request;
        let by_source = self.by_source.pin();
        for (source, selectors) in per_source(&request.selectors) {
            let routes = match source {
                None => &self.any,
                Some(source) => {
                    let key = source_key(source);
                    by_source.get_or_insert_with(key, Arc::default)
                }
            };
            if request.shard_id.is_empty() {
                routes.direct.pin().insert(subscription.id, Arc::new(Direct::new(subscription, &selectors)));
                continue;
            }
            for selector in selectors {
                let key = GroupKey { rule: selector.rule.clone(), shard_id: request.shard_id.as_str().into() };
                let groups = routes.groups.pin();
                let group = groups.get_or_insert_with(key, || {
                    Arc::new(Group { rule: selector.rule.clone(), members: ArcSwap::default() })
                });
                group.join(subscription, &request.deterministic_name);
            }
        }
    }

    fn leave(&self, subscription: &Subscription) {
        let request = &subscription.request;
        let by_source = self.by_source.pin();
        for (source, selectors) in per_source(&request.selectors) {
            let key = source.map(source_key);
            let routes = match &key {
                None => &self.any,
                Some(key) => match by_source.get(key) {
                    Some(routes) => routes,
                    None => continue,
                },
            };
            routes.direct.pin().remove(&subscription.id);
            for selector in selectors {
                let key = GroupKey { rule: selector.rule.clone(), shard_id: request.shard_id.as_str().into() };
                let groups = routes.groups.pin();
                if groups.get(&key).is_some_and(|group| group.part(subscription.id)) {
                    groups.remove(&key);
                }
            }
            if let Some(key) = key
                && routes.is_empty()
            {
                by_source.remove(&key);
            }
        }
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
        self.any.matches(all, scratch, &mut pick);
        if self.by_source.is_empty() {
            return;
        }
        let by_source = self.by_source.pin();
        let entries = batch.entries();
        let mut from = 0;
        while let Some(first) = entries.get(from) {
            let id = batch.source_id(first);
            let same = |entry: &&Entry| entry.source == first.source && batch.source_id(entry) == id;
            let to = from + entries[from..].iter().take_while(same).count();
            if let Some(routes) = by_source.get(&SourceRef { hash: first.source, id }) {
                routes.matches(Span { batch, from, to }, scratch, &mut pick);
            }
            from = to;
        }
    }

    /// Closes every subscription's ring: its consumer gets what is in it, and then the end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let _change = self.change.lock();
        for subscription in self.open.pin().values() {
            subscription.ring.close();
        }
    }

    /// True once it has been closed: nobody need subscribe any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends every subscription whose consumer has not taken what is in its ring: the stop's deadline has passed.
    pub(crate) fn cut(&self) {
        let open: Vec<Arc<Subscription>> = self.open.pin().values().cloned().collect();
        for subscription in open {
            self.end(&subscription);
        }
    }

    /// Takes a subscription out, closes its ring and counts what its consumer has not been given; the first time.
    fn end(&self, subscription: &Subscription) {
        let mut ended = self.change.lock();
        let Some(outlet) = subscription.outlet.lock().take() else { return };
        self.leave(subscription);
        self.open.pin().remove(&subscription.id);
        subscription.ring.close();
        // Nothing goes in or comes out any more.
        let mut counters = outlet.ring.counters();
        let left = counters.envelopes as u64;
        let lost = left + outlet.in_hand();
        counters.evicted += left;
        (counters.envelopes, counters.bytes) = (0, 0);
        add(&mut ended.counters, counters);
        ended.lost += lost;
        drop(ended);
        self.count_lost(lost);
        debug!(id = subscription.id, lost, "Subscription ended");
    }

    /// Counts envelopes that a closed ring turned away.
    pub(crate) fn count_rejected(&self, envelopes: u64) {
        self.rejected.fetch_add(envelopes, Ordering::Relaxed);
        self.count_lost(envelopes);
    }

    /// Counts envelopes whose consumer is gone, and why it is.
    fn count_lost(&self, envelopes: u64) {
        let reason = if self.is_closed() { Reason::ShutdownDeadline } else { Reason::PeerLost };
        self.stage.dropped(reason.as_str(), envelopes);
    }

    /// What all subscriptions have counted, exact at one moment for each ring.
    pub(crate) fn totals(&self) -> Totals {
        let ended = self.change.lock();
        let open = self.open.pin();
        let mut totals = Totals { counters: ended.counters, in_hand: 0, lost: ended.lost, open: open.len() };
        for subscription in open.values() {
            let outlet = subscription.outlet.lock();
            add(&mut totals.counters, subscription.ring.counters());
            totals.in_hand += outlet.as_ref().map_or(0, Outlet::in_hand);
        }
        totals.counters.rejected = self.rejected.load(Ordering::Relaxed);
        totals.counters.offered = totals.counters.accepted + totals.counters.rejected;
        totals
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

fn source_key(source: &str) -> SourceKey {
    SourceKey { hash: proto::raw::source_hash(source.as_bytes()), id: source.as_bytes().into() }
}

/// The selectors by the source they name; each source and each selector once.
fn per_source(selectors: &[Selector]) -> Vec<(Option<&str>, Vec<&Selector>)> {
    let mut seen = HashSet::with_capacity(selectors.len());
    let mut sorted: Vec<&Selector> = selectors.iter().filter(|selector| seen.insert(*selector)).collect();
    sorted.sort_by(|a, b| a.source_id.cmp(&b.source_id));
    let mut all: Vec<(Option<&str>, Vec<&Selector>)> = Vec::new();
    for selector in sorted {
        let source = selector.source_id.as_deref();
        match all.last_mut() {
            Some((last, selectors)) if *last == source => selectors.push(selector),
            _ => all.push((source, vec![selector])),
        }
    }
    all
}

impl Subscribed {
    /// The next message: the oldest envelopes there are, in bytes and number within `limit` unless a single envelope is larger. Waits
    /// for the first envelope and never for more. `None` once the subscription has been ended and all its envelopes given out, or cut.
    ///
    /// What it returns counts as delivered.
    ///
    /// # Cancel safety
    /// Nothing is taken but by the poll that returns it.
    pub async fn next(&mut self, limit: fair::Bounds) -> Option<Outgoing> {
        poll_fn(|cx| self.poll_next(limit, cx)).await
    }

    fn poll_next(&self, limit: fair::Bounds, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let mut outlet = self.subscription.outlet.lock();
        let Some(Outlet { ring, taken, ready }) = &mut *outlet else { return Poll::Ready(None) };
        if ready.is_empty() {
            let count = ready!(pin!(ring.recv_many(limit, taken)).poll(cx));
            if count == 0 {
                return Poll::Ready(None);
            }
            ready.extend(Outgoing::bounded(taken.drain(..), limit.envelopes.get(), limit.bytes.get()));
        }
        let next = ready.pop_front();
        self.table.stage.delivered(next.as_ref().map_or(0, |next| next.len() as u64));
        Poll::Ready(next)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.table.end(&self.subscription);
    }
}

impl Direct {
    fn new(subscription: &Arc<Subscription>, selectors: &[&Selector]) -> Self {
        let whole = selectors.iter().filter(|selector| selector.rule.is_whole_kind());
        let kinds = whole.fold(0, |bits, selector| bits | selector.rule.kind().bit());
        let named = selectors.iter().map(|selector| &selector.rule).filter(|rule| kinds & rule.kind().bit() == 0);
        Self { subscription: Arc::clone(subscription), kinds, named: named.cloned().collect() }
    }

    fn admits(&self, batch: &Batch, entry: &Entry) -> bool {
        let bit = entry.kind.bit();
        self.kinds & bit != 0
            || self.named.iter().any(|rule| rule.kind() == entry.kind && rule.admits(batch.envelope(entry)))
    }
}

impl Group {
    fn join(&self, subscription: &Arc<Subscription>, name: &str) {
        let mut all = self.members.load().all.clone();
        // A newcomer starts level with those who have got least, or it would get everything until it has caught up.
        let given = all.iter().map(|member| member.given.load(Ordering::Relaxed)).min().unwrap_or(0);
        all.push(Member {
            name: name.into(),
            subscription: Arc::clone(subscription),
            given: Arc::new(AtomicU64::new(given)),
        });
        self.set(all);
    }

    /// Takes a member out; true when none is left.
    fn part(&self, id: u64) -> bool {
        let mut all = self.members.load().all.clone();
        all.retain(|member| member.subscription.id != id);
        let empty = all.is_empty();
        self.set(all);
        empty
    }

    fn set(&self, mut all: Vec<Member>) {
        all.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        let deterministic = all.iter().any(|member| !member.name.is_empty());
        self.members.store(Arc::new(Members { all, deterministic }));
    }
}

/// Neighbours in a batch.
#[derive(Clone, Copy)]
struct Span<'a> {
    batch: &'a Batch,
    from: usize,
    to: usize,
}

/// Positions in a batch that a subscription gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Positions<'a> {
    /// All from the first up to, but not including, the second.
    Range(usize, usize),
    /// These.
    Some(&'a [u32]),
}

impl Routes {
    fn matches(
        &self,
        span: Span<'_>,
        scratch: &mut Vec<u32>,
        pick: &mut impl FnMut(&Arc<Subscription>, Positions<'_>),
    ) {
        let entries = &span.batch.entries()[span.from..span.to];
        let kinds = entries.iter().fold(0, |bits, entry| bits | entry.kind.bit());
        for direct in self.direct.pin().values() {
            if kinds & !direct.kinds == 0 {
                pick(&direct.subscription, Positions::Range(span.from, span.to));
            } else if kinds & direct.kinds != 0 || !direct.named.is_empty() {
                span.find(scratch, |entry| direct.admits(span.batch, entry));
                pick(&direct.subscription, Positions::Some(scratch));
            }
        }
        if self.groups.is_empty() {
            return;
        }
        for group in self.groups.pin().values() {
            let kind = group.rule.kind();
            if kinds & kind.bit() == 0 {
                continue;
            }
            let members = group.members.load();
            if kinds == kind.bit() && group.rule.is_whole_kind() && members.all.len() == 1 {
                pick(&members.all[0].subscription, Positions::Range(span.from, span.to));
                continue;
            }
            span.find(scratch, |entry| entry.kind == kind && group.rule.admits(span.batch.envelope(entry)));
            members.share_out(span.batch, kind, scratch, pick);
        }
    }
}

impl Span<'_> {
    /// Fills `found` with the positions that are admitted.
    fn find(&self, found: &mut Vec<u32>, mut admits: impl FnMut(&Entry) -> bool) {
        found.clear();
        let entries = self.batch.entries()[self.from..self.to].iter().enumerate();
        found.extend(entries.filter(|(_, entry)| admits(entry)).map(|(i, _)| (self.from + i) as u32));
    }
}

impl Members {
    /// Gives each position, all of one kind, to one member.
    fn share_out(
        &self,
        batch: &Batch,
        kind: Kind,
        positions: &[u32],
        pick: &mut impl FnMut(&Arc<Subscription>, Positions<'_>),
    ) {
        if self.all.is_empty() {
            return;
        }
        if self.deterministic && matches!(kind, Kind::Counter | Kind::Gauge) {
            for position in positions {
                let hash = deterministic_hash(batch, &batch.entries()[*position as usize]);
                let member = hash.map_or(0, |hash| (hash % self.all.len() as u64) as usize);
                pick(&self.all[member].subscription, Positions::Some(slice::from_ref(position)));
            }
            return;
        }
        for run in positions.chunks(RUN) {
            let least = self.all.iter().min_by_key(|member| member.given.load(Ordering::Relaxed));
            let member = least.expect("there are members");
            member.given.fetch_add(run.len() as u64, Ordering::Relaxed);
            pick(&member.subscription, Positions::Some(run));
        }
    }
}

/// The hasher for maps by subscription id.
pub(crate) type ById = foldhash::fast::RandomState;

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;
    use std::num::NonZeroUsize;

    use telemetry::Telemetry;

    use super::*;

    fn request(shard_id: &str, sources: &[Option<&str>]) -> Request {
        let rules = [Rule::Log, Rule::Counter(Some("requests".into())), Rule::Log];
        let selector = |source: &Option<&str>, rule: Rule| Selector { source_id: source.map(Into::into), rule };
        let selectors = sources.iter().flat_map(|source| rules.clone().map(|rule| selector(source, rule))).collect();
        Request { shard_id: shard_id.to_owned(), deterministic_name: String::new(), selectors }
    }

    #[test]
    fn the_table_is_empty_once_everybody_has_left() {
        let stage = StageMetrics::register(&Telemetry::default(), "test", &["peer_lost", "shutdown_deadline"]);
        let table = Arc::new(Table::new(stage));
        let bounds = fair::Bounds { envelopes: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN };
        let open: Vec<Subscribed> = (0..1_000)
            .map(|i| {
                let (own, shared) = (format!("own-{i}"), format!("shared-{}", i % 7));
                let sources = [Some(own.as_str()), Some(shared.as_str()), None];
                table.subscribe(request(["", "m", "n"][i % 3], &sources), bounds)
            })
            .collect();
        assert_eq!((table.open.len(), table.by_source.len()), (1_000, 1_007));
        assert_eq!((table.any.direct.len(), table.any.groups.len()), (334, 4));
        let (first, second): (Vec<_>, Vec<_>) = (0..).zip(open).partition(|(i, _)| i % 2 == 0);
        drop(first);
        assert_eq!((table.open.len(), table.by_source.len()), (500, 507));
        drop(second);
        assert!(table.open.is_empty() && table.by_source.is_empty() && table.any.is_empty());
    }

    #[test]
    fn who_comes_after_the_close_gets_the_end() {
        let stage = StageMetrics::register(&Telemetry::default(), "test", &["peer_lost", "shutdown_deadline"]);
        let table = Arc::new(Table::new(stage));
        let bounds = fair::Bounds { envelopes: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN };
        let before = table.subscribe(request("", &[None]), bounds);
        table.close();
        let after = table.subscribe(request("", &[None]), bounds);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for subscribed in [before, after] {
            assert!(matches!(subscribed.poll_next(bounds, &mut cx), Poll::Ready(None)));
        }
        assert!(table.open.is_empty());
    }

    #[test]
    fn a_hash_is_taken_as_it_is() {
        let build = BuildHasherDefault::<AsIs>::default();
        let key = source_key("app");
        assert_eq!(build.hash_one(&key), key.hash);
        assert!(SourceRef { hash: key.hash, id: b"app" }.equivalent(&key));
        assert!(!SourceRef { hash: key.hash, id: b"other" }.equivalent(&key));
    }
}
