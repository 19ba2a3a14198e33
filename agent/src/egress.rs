//! The ring to the dopplers: takes what there is as soon as a link can carry it, and gives each envelope to the doppler of its source
//! instance. While no doppler can be reached everything stays in the ring, which drops fairly.
//!
//! *Order.* The envelopes of one source instance go to one doppler while that doppler and the zones stay as they are. When a doppler comes
//! or is asked to leave, some instances move; before the first envelope goes the new way, everything sent the old way has been confirmed
//! and has left the dopplers' rings, as far as that takes no longer than [`SETTLE`]. When a doppler is lost, its instances move at once.
//!
//! *No doppler holds up another.* A lane that stays full is passed over: its instances go to their next choice.

use std::sync::Arc;
use std::time::Duration;

use diode::fair;
use proto::placement;
use proto::raw::{Outgoing, Selection};
use proto::reason::Reason;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use transport::{Address, ChannelOptions, Doppler, Dopplers};

use crate::choice::{Choice, Placement, View};
use crate::config::Config;
use crate::lane::{Board, Lane, Message};
use crate::link::{Link, Streams, Tuning, Window};
use crate::metrics::Metrics;
use crate::parcel::{Parcel, Ticket};

/// For what is on its way to arrive before source instances move.
const SETTLE: Duration = Duration::from_millis(500);
/// A lane full for this long is passed over, and for how long.
const STUCK: Duration = Duration::from_millis(100);
const PASSED_OVER: Duration = Duration::from_secs(5);
/// A lost lane keeps its source instances for this long at most, and is waited for for this long at most.
const LOST: Duration = Duration::from_millis(200);
const GIVEN_UP: Duration = Duration::from_secs(1);
/// How often time alone is looked at, while it can change anything.
const LOOK: Duration = Duration::from_millis(50);
/// A doppler not connected for this long is replaced by the next, where an agent uses only some.
const REPLACED: Duration = Duration::from_secs(1);
/// Bytes that all links together may have sent and not had confirmed.
const IN_FLIGHT: usize = 32 * 1024 * 1024;
/// The least of that for one link.
const LEAST_WINDOW: usize = 256 * 1024;

/// The task between the ring and the links.
pub(crate) struct Dispatcher {
    ring: fair::Reader<Parcel>,
    dopplers: Dopplers,
    zone: Option<Arc<str>>,
    most: usize,
    options: ChannelOptions,
    tuning: Tuning,
    /// The window of a link, where there are few.
    window: usize,
    streams: Streams,
    metrics: Metrics,
    cut: CancellationToken,
    /// Cancelled once the ring is closed.
    closed: CancellationToken,
    board: Arc<Board>,
    lanes: Vec<Open>,
    /// Lanes that are not used any more and have not delivered everything yet.
    leaving: Vec<Arc<Lane>>,
    links: JoinSet<u64>,
    choice: Choice,
    placement: Placement,
    owners: Vec<u32>,
    /// What was last looked at: the set, whether help was wanted, and the board's version.
    seen: (Arc<[Doppler]>, bool, u64),
}

/// A lane in use.
struct Open {
    lane: Arc<Lane>,
    /// The set has its doppler, and this agent is to use it.
    wanted: bool,
    /// Since when it has been passed over.
    passed_over: Option<Instant>,
}

/// What the ring and the dopplers are.
pub(crate) struct Parts {
    pub(crate) ring: fair::Reader<Parcel>,
    pub(crate) dopplers: Dopplers,
    pub(crate) options: ChannelOptions,
    pub(crate) metrics: Metrics,
    pub(crate) closed: CancellationToken,
    pub(crate) cut: CancellationToken,
}

impl Dispatcher {
    pub(crate) fn new(parts: Parts, config: &Config) -> Self {
        let Parts { ring, dopplers, options, metrics, closed, cut } = parts;
        let batch = fair::Bounds { envelopes: config.egress.batch_envelopes, bytes: config.egress.batch_bytes };
        let window = config.egress.window_bytes.get();
        let tuning = Tuning { process: process(), batch, window: Window::new(window), age: config.egress.link_age };
        Self {
            ring,
            dopplers,
            zone: config.zone.as_deref().map(Into::into),
            most: config.max_dopplers.map_or(usize::MAX, usize::from),
            options,
            tuning,
            window,
            streams: Streams::default(),
            metrics,
            cut,
            closed,
            board: Board::new(),
            lanes: Vec::new(),
            leaving: Vec::new(),
            links: JoinSet::new(),
            choice: Choice::new(Instant::now()),
            placement: Placement::default(),
            owners: Vec::new(),
            seen: (Arc::new([]), false, u64::MAX),
        }
    }

    /// Runs until the ring is closed and empty and everything is confirmed, or until it is cut. Returns the envelopes left behind, of
    /// which it has counted all.
    pub(crate) async fn run(mut self) -> u64 {
        let cut = self.cut.clone();
        tokio::select! {
            biased;
            () = self.dispatch() => {}
            () = cut.cancelled() => {}
        }
        self.abandon().await
    }

    /// # Cancel safety
    /// Every envelope is in the ring, given back, or with a lane.
    async fn dispatch(&mut self) {
        loop {
            self.reconcile().await;
            let settled = self.place_returned();
            if self.closed.is_cancelled() && settled && self.ring.counters().envelopes == 0 {
                if self.lanes.iter().map(|open| &open.lane).chain(&self.leaving).all(|lane| lane.is_idle()) {
                    break;
                }
                self.something().await;
            } else if settled && self.has_room() {
                let mut taken = Vec::new();
                let (limit, board) = (self.tuning.batch, Arc::clone(&self.board));
                tokio::select! {
                    biased;
                    _ = self.ring.recv_many(limit, &mut taken) => self.place(taken),
                    () = board.changed.notified() => {}
                    _ = self.dopplers.changed() => {}
                    () = sleep(LOOK), if self.is_moving() => {}
                }
            } else {
                self.something().await;
            }
        }
        // All is confirmed: the links end their streams in order.
        self.lanes.iter().for_each(|open| open.lane.finish());
        while self.links.join_next().await.is_some() {}
    }

    /// Waits until something may be different.
    async fn something(&mut self) {
        let (board, closed) = (Arc::clone(&self.board), self.closed.clone());
        let is_closed = closed.is_cancelled();
        tokio::select! {
            () = board.changed.notified() => {}
            _ = self.dopplers.changed() => {}
            () = closed.cancelled(), if !is_closed => {}
            () = sleep(LOOK), if self.is_moving() => {}
        }
    }

    fn is_moving(&self) -> bool {
        let waits = |open: &Open| {
            open.passed_over.is_some() || open.lane.full_since().is_some() || open.lane.is_lost_with_something()
        };
        self.choice.is_moving() || self.is_short() || self.lanes.iter().any(waits)
    }

    /// Fewer dopplers are usable than this agent may use.
    fn is_short(&self) -> bool {
        self.most != usize::MAX && self.lanes.iter().filter(|open| open.lane.is_up()).count() < self.most
    }

    /// Opens and closes lanes as the set of dopplers says, and finds out where source instances go now.
    async fn reconcile(&mut self) {
        let seen = (self.dopplers.members(), self.choice.wants_help(), self.board.version());
        let is_news = !Arc::ptr_eq(&seen.0, &self.seen.0) || seen.1 != self.seen.1 || seen.2 != self.seen.2;
        if !is_news && !self.is_moving() {
            return;
        }
        let now = Instant::now();
        self.open_lanes(&seen.0, now);
        self.seen = seen;
        self.pass_over(now);
        let next = self.decide(now);
        if next != self.placement {
            let is_there = |lane: usize| self.lanes[lane].lane.is_up();
            if self.placement.moves(&next, is_there) {
                self.settle().await;
            }
            self.metrics.placements.increment(1);
            debug!(dopplers = next.lanes().count(), "Source instances are placed anew");
            self.placement = next;
        }
        self.close_lanes();
    }

    fn decide(&mut self, now: Instant) -> Placement {
        let view = |Open { lane, wanted, passed_over }: &Open| View {
            member: lane.member,
            home: lane.home,
            // One that was lost this moment keeps its source instances until it has given back what it has, so that it comes first.
            usable: *wanted
                && passed_over.is_none()
                && (lane.is_up() || lane.lost_since().is_some_and(|since| now.duration_since(since) < LOST)),
        };
        let views: Vec<View> = self.lanes.iter().map(view).collect();
        let home = || self.lanes.iter().filter(|open| open.lane.home && open.lane.is_up());
        let busy = home().count() > 0 && home().all(|open| open.lane.full_since().is_some());
        let known = self.seen.0.iter().filter(|doppler| self.is_home(doppler)).count().min(self.most);
        self.choice.decide(&views, known, busy, now)
    }

    fn is_home(&self, doppler: &Doppler) -> bool {
        self.zone.is_none() || self.zone == doppler.zone
    }

    /// Opens a lane to each doppler that should have one, and marks those that should not.
    fn open_lanes(&mut self, members: &[Doppler], now: Instant) {
        self.lanes.iter_mut().for_each(|open| open.wanted = false);
        for home in [true, false] {
            if !home && !self.choice.wants_help() {
                continue;
            }
            let of = members.iter().filter(|doppler| self.is_home(doppler) == home);
            let mut those: Vec<&Address> = of.map(|doppler| &doppler.address).collect();
            if those.len() > self.most {
                // Each agent has an order of its own, so that a fleet spreads.
                let member = |address: &Address| placement::member(address.to_string().as_bytes());
                those.sort_by_cached_key(|address| {
                    std::cmp::Reverse(placement::score(self.tuning.process, member(address)))
                });
            }
            let mut good = 0;
            for address in those {
                if good >= self.most {
                    break;
                }
                let found = self.lanes.iter_mut().find(|open| open.lane.address == *address);
                let open = match found {
                    Some(open) => open,
                    None => self.open(address.clone(), home),
                };
                open.wanted = true;
                good += usize::from(open.lane.is_up() || now.duration_since(open.lane.since()) < REPLACED);
            }
        }
        self.tuning.window.set((IN_FLIGHT / self.lanes.len().max(1)).max(LEAST_WINDOW).min(self.window));
    }

    fn open(&mut self, address: Address, home: bool) -> &mut Open {
        let lane = Lane::new(address, home, Arc::clone(&self.board));
        let tuning = Tuning { age: jittered(self.tuning.age), ..self.tuning.clone() };
        let (options, metrics) = (self.options.clone(), self.metrics.clone());
        let link = Link::new(Arc::clone(&lane), options, tuning, self.streams.clone(), metrics, self.cut.clone());
        self.links.spawn(link.run());
        self.lanes.push(Open { lane, wanted: true, passed_over: None });
        self.lanes.last_mut().expect("one was pushed")
    }

    /// Lets go of lanes that are not wanted and that nothing goes to. Their links deliver what they have, and end.
    fn close_lanes(&mut self) {
        let used: Vec<usize> = self.placement.lanes().collect();
        let keep = |i: usize, open: &Open| open.wanted || used.contains(&i);
        if self.lanes.iter().enumerate().all(|(i, open)| keep(i, open)) {
            return;
        }
        let (mut places, mut kept) = (Vec::with_capacity(self.lanes.len()), Vec::new());
        for (i, open) in std::mem::take(&mut self.lanes).into_iter().enumerate() {
            places.push(kept.len());
            if keep(i, &open) {
                kept.push(open);
            } else {
                info!(addr = %open.lane.address, "Doppler is not used any more");
                open.lane.finish();
                self.leaving.push(open.lane);
            }
        }
        self.lanes = kept;
        self.leaving.retain(|lane| !lane.is_idle());
        self.placement.renumber(&places);
    }

    /// Passes over lanes that stay full, for a while.
    fn pass_over(&mut self, now: Instant) {
        let others = self.lanes.len() > 1;
        for open in &mut self.lanes {
            let stuck = open.lane.full_since().is_some_and(|since| now.duration_since(since) >= STUCK);
            open.passed_over = match open.passed_over {
                None if stuck && others => Some(now),
                Some(since) if now.duration_since(since) >= PASSED_OVER && !stuck => None,
                unchanged => unchanged,
            };
        }
        // When all are stuck nobody is better than another.
        if self.lanes.iter().filter(|open| open.lane.is_up()).all(|open| open.passed_over.is_some()) {
            self.lanes.iter_mut().for_each(|open| open.passed_over = None);
        }
    }

    /// Waits until what is on its way has been confirmed and has left the dopplers' rings.
    async fn settle(&self) {
        let waiting: Vec<_> = self.lanes.iter().map(|open| open.lane.mark()).collect();
        let began = Instant::now();
        let settled = timeout(SETTLE, futures_util::future::join_all(waiting)).await.is_ok();
        debug!(settled, after = ?began.elapsed(), "What was on its way before source instances move");
    }

    /// Room for what the ring has: some lane has nothing waiting, and none that gets something is full.
    fn has_room(&self) -> bool {
        let mut hungry = false;
        for lane in self.placement.lanes() {
            let lane = &self.lanes[lane].lane;
            if lane.full_since().is_some() {
                return false;
            }
            hungry |= lane.is_hungry();
        }
        hungry
    }

    /// Gives what links gave back to others; false while there is nobody to give it to, or more is about to be given back.
    fn place_returned(&mut self) -> bool {
        let now = Instant::now();
        let is_about = |open: &Open| {
            let lost = |since| (LOST..GIVEN_UP).contains(&now.duration_since(since));
            open.lane.lost_since().is_some_and(lost)
        };
        if !self.placement.is_empty() && self.lanes.iter().any(is_about) {
            return false;
        }
        while self.board.has_returned() {
            if self.placement.is_empty() {
                return false;
            }
            let Some(message) = self.board.take_returned() else { break };
            let Message { batch, tickets, .. } = message;
            let parcels = batch.into_parts().into_iter().map(|selection| (selection, tickets.clone())).collect();
            self.place_all(parcels);
        }
        true
    }

    fn place(&mut self, taken: Vec<Parcel>) {
        let parcels = taken.into_iter().map(|parcel| (parcel.selection, parcel.ticket.into_iter().collect()));
        self.place_all(parcels.collect());
    }

    /// Puts each envelope into the lane of its source instance.
    fn place_all(&mut self, parcels: Vec<(Selection, Tickets)>) {
        if let Some(only) = self.placement.only() {
            return self.put(only, parcels);
        }
        let mut by_lane: Vec<Vec<(Selection, Tickets)>> = vec![Vec::new(); self.lanes.len()];
        for (selection, tickets) in parcels {
            self.owners.clear();
            owners(&self.placement, &selection, &mut self.owners);
            let mut owned: Vec<u32> = self.owners.clone();
            owned.sort_unstable();
            owned.dedup();
            for owner in &owned {
                let mut part = selection.clone();
                if owned.len() > 1 {
                    part.retain(|i| self.owners[i] == *owner);
                }
                by_lane[*owner as usize].push((part, tickets.clone()));
            }
        }
        for (lane, parcels) in by_lane.into_iter().enumerate().filter(|(_, parcels)| !parcels.is_empty()) {
            self.put(lane, parcels);
        }
    }

    fn put(&self, lane: usize, parcels: Vec<(Selection, Tickets)>) {
        let mut tickets: Tickets = Vec::new();
        let mut selections = Vec::with_capacity(parcels.len());
        for (selection, of) in parcels {
            selections.push(selection);
            tickets.extend(of);
        }
        for batch in Outgoing::bounded(selections, self.tuning.batch.envelopes.get(), self.tuning.batch.bytes.get()) {
            // Each carries them: parts may have to go different ways later.
            self.lanes[lane].lane.push(Message::new(batch, tickets.clone()), self.tuning.limit());
        }
    }

    /// Counts what is left, and tells those who wait that its fate is unknown.
    async fn abandon(mut self) -> u64 {
        let mut left = 0;
        while let Some(of_link) = self.links.join_next().await {
            left += of_link.unwrap_or(0);
        }
        self.ring.close();
        let mut own = 0;
        while let Some(message) = self.board.take_returned() {
            own += message.void();
        }
        while let Ok(parcel) = self.ring.try_recv() {
            own += parcel.selection.len() as u64;
            parcel.ticket.iter().for_each(|ticket| ticket.void());
        }
        self.metrics.stage.dropped(Reason::ShutdownDeadline.as_str(), own);
        left + own
    }
}

type Tickets = Vec<Arc<Ticket>>;

/// The lane of each envelope of `selection`.
fn owners(placement: &Placement, selection: &Selection, into: &mut Vec<u32>) {
    let batch = selection.batch();
    let mut last: Option<(&[u8], &[u8], u32)> = None;
    for entry in selection.entries() {
        let (source, instance) = (batch.source_id(entry), batch.instance_id(entry));
        let owner = match last {
            Some((of, own, owner)) if of == source && own == instance => owner,
            _ => placement.place(placement::instance(source, instance)).map_or(0, |lane| lane as u32),
        };
        last = Some((source, instance, owner));
        into.push(owner);
    }
}

/// A number for this life of the agent.
fn process() -> u64 {
    transport::Backoff::random_seed()
}

/// Give or take a fifth.
fn jittered(age: Duration) -> Duration {
    let mut random = transport::Backoff::between(age, age, transport::Backoff::random_seed());
    age.mul_f64(0.8) + random.next_wait().mul_f64(0.4)
}
