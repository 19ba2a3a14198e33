//! Consumers of named sources, which share one stream of each doppler.
//!
//! What enters: requests that name their sources, and their end; the batches that dopplers send. What leaves: to each doppler one
//! subscription that changes as consumers come and go ([`lane`]); into each consumer's ring its part of every batch.
//! A doppler has one ring for all of them, fair by source, and this process one for each. It never waits for a consumer. Tags are put
//! into the form that consumers want once per batch and form.
//!
//! What a doppler's ring drops of a source is told to each who reads that source and wants to know, though another may have had it.
//!
//! *Not shared.* Consumers of a shard or of any source. With an original doppler, which has no stream that changes, each consumer has its
//! own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use proto::hydrant::v1::Gap;
use proto::loss::Losses;
use proto::raw::tags::Form;
use proto::raw::{Batch, Entry, Refused, Selection};
use proto::reason::Reason;
use proto::selector::{Rule, Selector};
use proto::start::Acquaintance;
use proto::v2;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::lane::{Lane, Pending};
use super::rings::{self, Ring};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

mod lane;

/// Selectors that the consumers of one process share. Who would exceed it has streams of its own; a doppler takes as many.
const MAX_SHARED: usize = 100_000;

/// The consumers that share streams. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Tails {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    metrics: Metrics,
    tracker: TaskTracker,
    /// Read for each batch, written when a consumer comes or goes.
    table: RwLock<Table>,
}

/// Who wants what.
#[derive(Default)]
struct Table {
    next: u64,
    members: HashMap<u64, Arc<Member>>,
    by_source: HashMap<Box<[u8]>, Vec<Wants>>,
    /// What dopplers are asked for.
    wanted: HashMap<Selector, Wanted>,
    /// What the lane of each doppler has still to ask for.
    lanes: Vec<Arc<Pending>>,
    /// The process is stopping: who comes gets the end.
    closed: bool,
}

/// A selector that somebody wants.
struct Wanted {
    members: usize,
    /// Since when somebody has.
    since: Instant,
}

/// What a consumer wants of one source.
struct Wants {
    member: Arc<Member>,
    rules: Vec<Rule>,
}

/// A consumer.
struct Member {
    id: u64,
    ring: Arc<Ring>,
    request: v2::EgressBatchRequest,
    selectors: BTreeSet<Selector>,
    /// Which form of tags it wants, if not any.
    form: Option<Form>,
    cancel: CancellationToken,
}

/// A consumer's place. Dropping it leaves it.
pub(crate) struct Tail {
    shared: Arc<Shared>,
    member: Arc<Member>,
}

impl Tails {
    /// Nobody yet. Their streams are read on `tracker`, and end with `stop`.
    pub(crate) fn start(upstream: Upstream, metrics: Metrics, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let tracker = tracker.clone();
        let shared = Arc::new(Shared { upstream, metrics, tracker, table: RwLock::default() });
        shared.tracker.spawn(Arc::clone(&shared).run(stop));
        Self { shared }
    }

    /// The way to the dopplers.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.shared.upstream
    }

    /// Takes a consumer in, whose `ring` then gets what `request` asks for; nothing if it cannot share.
    pub(super) fn join(
        &self,
        request: &v2::EgressBatchRequest,
        form: Option<Form>,
        ring: &Arc<Ring>,
        cancel: &CancellationToken,
    ) -> Option<Tail> {
        let selectors: BTreeSet<Selector> = request.selectors.iter().filter_map(Selector::from_wire).collect();
        if !request.shard_id.is_empty() || selectors.iter().any(|selector| selector.source_id.is_none()) {
            return None;
        }
        let mut table = self.shared.table.write();
        if table.wanted.len() + selectors.len() > MAX_SHARED {
            return None;
        }
        let (ring, request, cancel) = (Arc::clone(ring), request.clone(), cancel.clone());
        if table.closed {
            ring.writer().close();
        }
        let member = Arc::new(Member { id: table.next, ring, request, selectors, form, cancel });
        table.next += 1;
        table.enter(&member);
        drop(table);
        Some(Tail { shared: Arc::clone(&self.shared), member })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.table.write().leave(&self.member);
    }
}

impl Shared {
    /// Keeps a lane to each doppler of the set until the server stops. Then the rings are closed, once the last lane has pushed what it
    /// had in hand.
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (known, lanes) = ((Acquaintance::present(), Acquaintance::newcomer()), TaskTracker::new());
        let open = |address, known, stay, met| {
            let lane = Lane::new(address, Arc::clone(&self), known, lanes.clone());
            let stop = stop.clone();
            let task = async move { stop.run_until_cancelled(lane.run(stay, met)).await };
            self.tracker.spawn(lanes.track_future(task));
        };
        self.upstream.dopplers().read_each(known, &stop, open).await;
        lanes.close();
        lanes.wait().await;
        let mut table = self.table.write();
        table.closed = true;
        table.members.values().for_each(|member| member.ring.writer().close());
    }

    /// Gives every consumer its part of `batch`. What nobody wants any more is counted as lost with its consumer.
    fn give(&self, batch: &Batch, scratch: &mut Scratch) {
        let wanted = scratch.sort(&self.table.read(), batch);
        self.metrics.received(batch.len() - wanted, &Refused::default());
        self.metrics.dropped(Reason::PeerLost, (batch.len() - wanted) as u64);
        let mut forms = [None, None];
        for (member, keep) in scratch.parts.drain().map(|(_, part)| part) {
            let count = keep.len();
            // Once for all that want the same form.
            let whole = member.form.map_or(batch, |form| {
                let made = &mut forms[usize::from(form == Form::Preferred)];
                made.get_or_insert_with(|| form.convert(&Selection::from(batch.clone())).batch().clone())
            });
            let part = match count == batch.len() {
                true => Selection::from(whole.clone()),
                false => Selection::new(whole.clone(), keep),
            };
            self.metrics.received(count, &Refused::default());
            match member.ring.push(part, &mut scratch.lost) {
                Ok(evicted) => self.metrics.dropped(Reason::QueueFull, evicted),
                Err(_) => self.metrics.dropped(Reason::PeerLost, count as u64),
            }
        }
    }
}

/// Room in which one lane sorts a batch.
struct Scratch {
    /// By the id of a member, and empty between batches.
    parts: HashMap<u64, (Arc<Member>, Vec<u32>)>,
    lost: Losses,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { parts: HashMap::new(), lost: rings::scratch() }
    }
}

impl Scratch {
    /// Fills `parts`; how many envelopes are in any.
    fn sort(&mut self, table: &Table, batch: &Batch) -> usize {
        let (entries, mut from, mut wanted) = (batch.entries(), 0, 0);
        while let Some(first) = entries.get(from) {
            let source = batch.source_id(first);
            let same = |entry: &&Entry| entry.source == first.source && batch.source_id(entry) == source;
            let to = from + entries[from..].iter().take_while(same).count();
            let wants = table.by_source.get(source).map(Vec::as_slice).unwrap_or_default();
            for (at, entry) in entries.iter().enumerate().take(to).skip(from) {
                let mut is_wanted = false;
                for Wants { member, rules } in wants {
                    let admits = |rule: &Rule| rule.kind() == entry.kind && rule.admits(batch.envelope(entry));
                    if rules.iter().any(admits) {
                        let part = self.parts.entry(member.id).or_insert_with(|| (Arc::clone(member), Vec::new()));
                        part.1.push(at as u32);
                        is_wanted = true;
                    }
                }
                wanted += usize::from(is_wanted);
            }
            from = to;
        }
        wanted
    }
}

impl Table {
    /// Tells those who wanted what is missing, as far as they want to be told. What several sources lost together is nobody's own: it would
    /// tell each how much others send.
    fn note(&self, gap: &Gap) {
        if let Some(wants) = self.by_source.get(gap.source_id.as_bytes()) {
            wants.iter().for_each(|wants| wants.member.ring.note(gap));
        }
    }

    fn enter(&mut self, member: &Arc<Member>) {
        let now = Instant::now();
        for selector in &member.selectors {
            let wanted = self.wanted.entry(selector.clone()).or_insert(Wanted { members: 0, since: now });
            wanted.members += 1;
            if wanted.members == 1 {
                self.lanes.iter().for_each(|lane| lane.note(selector, true));
            }
            let source = selector.source_id.as_deref().unwrap_or_default().as_bytes();
            let wants = self.by_source.entry(source.into()).or_default();
            // Selectors of one source come together.
            match wants.last_mut().filter(|last| last.member.id == member.id) {
                Some(last) => last.rules.push(selector.rule.clone()),
                None => wants.push(Wants { member: Arc::clone(member), rules: vec![selector.rule.clone()] }),
            }
        }
        self.members.insert(member.id, Arc::clone(member));
        self.lanes.iter().for_each(|lane| lane.wake());
    }

    fn leave(&mut self, member: &Member) {
        for selector in &member.selectors {
            let source = selector.source_id.as_deref().unwrap_or_default().as_bytes();
            if let Some(wants) = self.by_source.get_mut(source) {
                wants.retain(|wants| wants.member.id != member.id);
                if wants.is_empty() {
                    self.by_source.remove(source);
                }
            }
            let Some(wanted) = self.wanted.get_mut(selector) else { continue };
            wanted.members -= 1;
            if wanted.members == 0 {
                self.wanted.remove(selector);
                self.lanes.iter().for_each(|lane| lane.note(selector, false));
            }
        }
        self.members.remove(&member.id);
        self.lanes.iter().for_each(|lane| lane.wake());
    }
}
