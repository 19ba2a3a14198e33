//! One subscription: where its envelopes are put, and where they come out. What enters: parts of batches. What leaves: messages within
//! bounds, oldest first, and what had to be dropped, by source.

use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use diode::fair;
use parking_lot::Mutex;
use proto::loss::{Loss, Losses};
use proto::raw::{Outgoing, Selection};
use proto::reason::Reason;
use proto::selector::Selector;

use super::{Request, Table};

/// Sources of which one subscription's losses are told apart.
pub(crate) const TOLD_SOURCES: usize = 64;

/// A subscription of the table.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: u64,
    shard_id: String,
    deterministic_name: String,
    /// Its consumer wants to be told what its ring dropped.
    markers: bool,
    /// Its consumer confirms that it has got everything: it counts as drained only once it has ended.
    confirms: bool,
    ring: fair::Writer<Selection>,
    /// The other end of the ring; nothing once the subscription has ended. Held for one take or one look, never across an await: who
    /// ends a subscription counts exactly what its consumer has not been given, also while that consumer stands still.
    outlet: Mutex<Option<Outlet>>,
    /// What it wants now. Taken under the table's lock of changes alone.
    selectors: Mutex<BTreeSet<Selector>>,
    /// What its ring dropped and nobody has been told yet. Held for a moment, after a drop and when somebody asks.
    lost: Mutex<Lost>,
}

/// Drops of one ring, once for whoever looks after the pipeline and once for its consumer.
#[derive(Debug)]
struct Lost {
    ledger: Losses,
    gaps: Losses,
}

/// The end of a ring that its consumer reads.
#[derive(Debug)]
struct Outlet {
    ring: fair::Reader<Selection>,
    /// Room for what one take gives.
    taken: Vec<Selection>,
    /// Taken together, because a load was larger than a message may be; given out one by one.
    ready: VecDeque<Outgoing>,
}

impl Outlet {
    /// Envelopes taken from the ring and not yet given out.
    fn in_hand(&self) -> u64 {
        self.ready.iter().map(|message| message.len() as u64).sum()
    }
}

impl Subscription {
    /// One that wants nothing yet; and what its request names.
    pub(super) fn new(id: u64, request: Request, bounds: fair::Bounds, confirms: bool) -> (Self, BTreeSet<Selector>) {
        let (ring, reader) = fair::channel(bounds);
        let Request { shard_id, deterministic_name, selectors, markers } = request;
        let subscription = Self {
            id,
            shard_id,
            deterministic_name,
            markers,
            confirms,
            ring,
            outlet: Mutex::new(Some(Outlet { ring: reader, taken: Vec::new(), ready: VecDeque::new() })),
            selectors: Mutex::default(),
            lost: Mutex::new(Lost { ledger: Losses::new(TOLD_SOURCES), gaps: Losses::new(TOLD_SOURCES) }),
        };
        (subscription, selectors.into_iter().collect())
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn shard_id(&self) -> &str {
        &self.shard_id
    }

    pub(super) fn deterministic_name(&self) -> &str {
        &self.deterministic_name
    }

    pub(super) fn is_shared(&self) -> bool {
        !self.shard_id.is_empty()
    }

    pub(super) fn confirms(&self) -> bool {
        self.confirms
    }

    /// What it wants. The caller holds the table's lock of changes.
    pub(super) fn selectors(&self) -> &Mutex<BTreeSet<Selector>> {
        &self.selectors
    }

    /// Nothing is in its ring, and nothing taken from it waits.
    pub(super) fn is_empty(&self) -> bool {
        let outlet = self.outlet.lock();
        self.ring.counters().envelopes == 0 && outlet.as_ref().is_none_or(|outlet| outlet.ready.is_empty())
    }

    /// It has ended: its consumer gets nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.outlet.lock().is_none()
    }

    /// Its consumer gets what is in the ring, and then the end.
    pub(super) fn close(&self) {
        self.ring.close();
    }

    /// Puts `part` into the ring; returns how many envelopes had to leave it and how many it turned away, its consumer being gone.
    /// `scratch` is room to work in, and empty before and after.
    pub(crate) fn push(&self, part: Selection, scratch: &mut Losses) -> (u64, u64) {
        let count = part.len() as u64;
        let pushed = self.ring.push(part, |part, at| scratch.add(part.batch(), part.entry(at)));
        let evicted = scratch.total();
        if evicted > 0 {
            let mut lost = self.lost.lock();
            lost.ledger.add_all(scratch);
            if self.markers {
                lost.gaps.add_all(scratch);
            }
            scratch.clear();
        }
        (evicted, if pushed.is_err() { count } else { 0 })
    }

    /// The next message for its consumer; `None` at the end.
    fn poll_next(&self, limit: fair::Bounds, cx: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        let mut outlet = self.outlet.lock();
        let Some(Outlet { ring, taken, ready }) = &mut *outlet else { return Poll::Ready(None) };
        if ready.is_empty() {
            let count = ready!(pin!(ring.recv_many(limit, taken)).poll(cx));
            if count == 0 {
                return Poll::Ready(None);
            }
            ready.extend(Outgoing::bounded(taken.drain(..), limit.envelopes.get(), limit.bytes.get()));
        }
        Poll::Ready(ready.pop_front())
    }

    /// Ends it, the first time: nothing goes in or comes out any more.
    pub(super) fn end(&self) -> Option<Ended> {
        let outlet = self.outlet.lock().take()?;
        self.ring.close();
        let mut counters = outlet.ring.counters();
        let left = mem::take(&mut counters.envelopes) as u64;
        counters.evicted += left;
        counters.bytes = 0;
        Some(Ended { counters, lost: left + outlet.in_hand(), outlet })
    }

    /// What the ring has counted, exact at one moment, and envelopes taken from it and not yet given out.
    pub(super) fn counters(&self) -> (fair::Counters, u64) {
        let outlet = self.outlet.lock();
        (self.ring.counters(), outlet.as_ref().map_or(0, Outlet::in_hand))
    }

    /// What is in the ring now: to be asked later whether it has left; `None` if nothing is.
    pub(super) fn mark(self: &Arc<Self>) -> Option<Mark> {
        let mark = || Mark { subscription: Arc::clone(self), accepted: self.ring.counters().accepted };
        (!self.is_empty()).then(mark)
    }

    /// What its ring dropped since the last time, for whoever looks after the pipeline.
    pub(super) fn take_losses(&self) -> Vec<Loss> {
        self.lost.lock().ledger.take(Reason::QueueFull)
    }

    /// What it is called where losses are told.
    pub(super) fn label(&self) -> String {
        if self.is_shared() { self.shard_id.clone() } else { format!("#{}", self.id) }
    }
}

/// What a subscription leaves behind.
#[derive(Debug)]
pub(super) struct Ended {
    counters: fair::Counters,
    lost: u64,
    outlet: Outlet,
}

impl Ended {
    /// What the ring counted; what was left in it is among the evicted.
    pub(super) fn counters(&self) -> fair::Counters {
        self.counters
    }

    /// How many envelopes its consumer has not been given.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Which.
    pub(super) fn left(self) -> Losses {
        let Outlet { mut ring, ready, .. } = self.outlet;
        let mut left = Losses::new(TOLD_SOURCES);
        let mut add = |part: &Selection| part.entries().for_each(|entry| left.add(part.batch(), entry));
        ready.iter().flat_map(Outgoing::parts).for_each(&mut add);
        while let Ok(part) = ring.try_recv() {
            add(&part);
        }
        left
    }
}

/// What was in one ring at some moment.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    subscription: Arc<Subscription>,
    accepted: u64,
}

impl Mark {
    /// Whether it has left the ring, and has been given out.
    pub(crate) fn has_left(&self) -> bool {
        let outlet = self.subscription.outlet.lock();
        let Some(outlet) = &*outlet else { return true };
        let counters = self.subscription.ring.counters();
        counters.taken + counters.evicted >= self.accepted + outlet.in_hand()
    }
}

/// An open subscription: its envelopes come out here. Dropping it takes it out of the table and counts what it leaves behind.
#[derive(Debug)]
pub struct Subscribed {
    table: Arc<Table>,
    subscription: Arc<Subscription>,
}

impl Subscribed {
    pub(super) fn new(table: &Arc<Table>, subscription: Arc<Subscription>) -> Self {
        Self { table: Arc::clone(table), subscription }
    }

    /// The next message: the oldest envelopes there are, in bytes and number within `limit` unless a single envelope is larger. Waits
    /// for the first envelope and never for more. `None` once the subscription has been ended and all its envelopes given out, or cut.
    ///
    /// What it returns counts as delivered.
    ///
    /// # Cancel safety
    /// Nothing is taken but by the poll that returns it.
    pub async fn next(&mut self, limit: fair::Bounds) -> Option<Outgoing> {
        let next = poll_fn(|cx| self.subscription.poll_next(limit, cx)).await;
        self.table.count_delivered(next.as_ref().map_or(0, |next| next.len() as u64));
        next
    }

    /// What its ring dropped since the last time, if its request wanted to know. It was to come before what is next.
    pub fn gaps(&mut self) -> Vec<Loss> {
        self.subscription.lost.lock().gaps.take(Reason::QueueFull)
    }

    /// Takes `added` in, then `removed` out: whatever is published from now on goes by what it wants then. What it wants already, and
    /// what it does not want, may be named again. What is in its ring stays there.
    ///
    /// # Errors
    /// It would want more than [`MAX_HELD`](super::MAX_HELD) selectors; nothing has changed.
    pub fn change(&mut self, added: Vec<Selector>, removed: Vec<Selector>) -> Result<(), super::TooMany> {
        self.table.change(&self.subscription, added, removed)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.table.end(&self.subscription);
    }
}
