//! The way to one doppler: what waits for its link, and how the link is doing.
//!
//! The dispatcher puts messages in and looks at the phase; the link takes them out, says what it has let go of, and gives back what
//! another doppler is to have. Neither waits for the other here: one short mutex a lane, never held across an await.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diode::fair::Bounds;
use parking_lot::Mutex;
use proto::placement;
use proto::raw::Outgoing;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use transport::Address;

use crate::parcel::Ticket;

/// One batch for a doppler, or a mark that asks whether all before it has left.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) batch: Outgoing,
    pub(crate) envelopes: u64,
    pub(crate) bytes: usize,
    /// They tell their streams when the last clone of them is gone.
    pub(crate) tickets: Vec<Arc<Ticket>>,
    /// A mark: told once all before it has left the doppler, dropped when the doppler is lost.
    pub(crate) flushed: Option<oneshot::Sender<()>>,
}

impl Message {
    pub(crate) fn new(batch: Outgoing, tickets: Vec<Arc<Ticket>>) -> Self {
        Self { envelopes: batch.len() as u64, bytes: batch.wire_len(), batch, tickets, flushed: None }
    }

    /// Gives up: those who wait are told that its fate is unknown. Returns its envelopes.
    pub(crate) fn void(self) -> u64 {
        self.tickets.iter().for_each(|ticket| ticket.void());
        self.envelopes
    }

    /// Tells whoever waits for this mark.
    pub(crate) fn pass(self) {
        if let Some(flushed) = self.flushed {
            // The dispatcher may have stopped waiting.
            let _waiting = flushed.send(());
        }
    }

    fn fits(&self, more: &Self, limit: Bounds) -> bool {
        let envelopes = self.envelopes + more.envelopes;
        let marks = self.flushed.is_some() || more.flushed.is_some();
        !marks && envelopes <= limit.envelopes.get() as u64 && self.bytes + more.bytes <= limit.bytes.get()
    }

    fn join(&mut self, more: Self) {
        self.envelopes += more.envelopes;
        self.bytes += more.bytes;
        self.batch.append(more.batch);
        self.tickets.extend(more.tickets);
    }
}

/// How a link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not connected.
    Down,
    /// Connected, and what is sent is confirmed.
    Up,
    /// Connected, and what was sent is not confirmed in time.
    Suspect,
}

/// What the lanes of one agent share.
#[derive(Debug)]
pub(crate) struct Board {
    /// Something that the dispatcher may wait for has happened.
    pub(crate) changed: Notify,
    /// Counts what may change where envelopes go.
    version: AtomicU64,
    /// Lanes that are up.
    usable: watch::Sender<usize>,
    /// What links gave back, oldest first, for other dopplers.
    returned: Mutex<VecDeque<Message>>,
}

/// One doppler's lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) address: Address,
    /// [`placement::member`] of the address.
    pub(crate) member: u64,
    /// In the agent's own zone.
    pub(crate) home: bool,
    board: Arc<Board>,
    state: Mutex<State>,
    /// The link has something to look at.
    work: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when.
    since: Instant,
    outbox: VecDeque<Message>,
    /// Bytes of what is in the outbox and of what the link has not let go of.
    bytes: usize,
    /// Since when `bytes` has not been below half of the limit after having reached it.
    full: Option<Instant>,
    /// No more will come: the link ends once all is confirmed.
    finishing: bool,
}

impl Board {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            changed: Notify::new(),
            version: AtomicU64::new(0),
            usable: watch::Sender::new(0),
            returned: Mutex::default(),
        })
    }

    /// Differs from what it was when a phase, or whether a lane is full, has changed.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn bump(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The oldest message given back.
    pub(crate) fn take_returned(&self) -> Option<Message> {
        self.returned.lock().pop_front()
    }

    /// Whether nothing given back waits.
    pub(crate) fn has_returned(&self) -> bool {
        !self.returned.lock().is_empty()
    }

    /// Waits until some lane is up.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn someone_is_up(&self) {
        let mut usable = self.usable.subscribe();
        // The sender lives as long as `self`.
        let _up = usable.wait_for(|usable| *usable > 0).await;
    }
}

impl Lane {
    pub(crate) fn new(address: Address, home: bool, board: Arc<Board>) -> Arc<Self> {
        let member = placement::member(address.to_string().as_bytes());
        let state = State {
            phase: Phase::Down,
            since: Instant::now(),
            outbox: VecDeque::new(),
            bytes: 0,
            full: None,
            finishing: false,
        };
        Arc::new(Self { address, member, home, board, state: Mutex::new(state), work: Notify::new() })
    }

    /// What lanes share.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    // The dispatcher's side.

    /// Puts a message in, also while the link is down: then the link sends it once it is back, or gives it back with the rest.
    pub(crate) fn push(&self, message: Message, limit: usize) {
        let mut state = self.state.lock();
        state.bytes += message.bytes;
        if state.bytes >= limit && state.full.is_none() {
            state.full = Some(Instant::now());
            self.board.bump();
        }
        state.outbox.push_back(message);
        drop(state);
        self.work.notify_one();
    }

    /// Puts a mark in while the link is up; what is returned ends when all before it has left the doppler, or the doppler is lost.
    pub(crate) fn mark(&self) -> oneshot::Receiver<()> {
        let (told, flushed) = oneshot::channel();
        let mut state = self.state.lock();
        if state.phase == Phase::Up {
            state.outbox.push_back(Message { flushed: Some(told), ..Message::default() });
            self.work.notify_one();
        }
        flushed
    }

    /// Connected, and confirming.
    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().phase == Phase::Up
    }

    /// Since when the phase has been what it is.
    pub(crate) fn since(&self) -> Instant {
        self.state.lock().since
    }

    /// Since when it has been down, if something is here that was meant for its doppler.
    pub(crate) fn lost_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.phase == Phase::Down && state.bytes > 0).then_some(state.since)
    }

    /// It is down, and something is here that was meant for its doppler.
    pub(crate) fn is_lost_with_something(&self) -> bool {
        self.lost_since().is_some()
    }

    /// Since when it has been full.
    pub(crate) fn full_since(&self) -> Option<Instant> {
        self.state.lock().full
    }

    /// The link has taken all there was.
    pub(crate) fn is_hungry(&self) -> bool {
        self.state.lock().outbox.is_empty()
    }

    /// Nothing waits, and everything is confirmed.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().bytes == 0
    }

    /// No more will come.
    pub(crate) fn finish(&self) {
        self.state.lock().finishing = true;
        self.work.notify_one();
    }

    // The link's side.

    /// The next message: all that fits into one together. `None` once no more will come and all has been taken.
    ///
    /// # Cancel safety
    /// A message is taken only by the poll that returns it.
    pub(crate) async fn take(&self, limit: Bounds) -> Option<Message> {
        loop {
            let work = self.work.notified();
            {
                let mut state = self.state.lock();
                if let Some(mut message) = state.outbox.pop_front() {
                    while state.outbox.front().is_some_and(|more| message.fits(more, limit)) {
                        message.join(state.outbox.pop_front().unwrap_or_default());
                    }
                    let is_empty = state.outbox.is_empty();
                    drop(state);
                    if is_empty {
                        self.board.changed.notify_one();
                    }
                    return Some(message);
                }
                if state.finishing {
                    return None;
                }
            }
            work.await;
        }
    }

    /// Waits until no more will come and all has been taken.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn finished(&self) {
        while !self.is_finished() {
            self.work.notified().await;
        }
    }

    /// No more will come, and all has been taken.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state.lock();
        state.finishing && state.outbox.is_empty()
    }

    /// The link has let go of `bytes`.
    pub(crate) fn let_go(&self, bytes: usize, limit: usize) {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        let cleared = state.bytes < limit / 2 && state.full.take().is_some();
        if cleared {
            self.board.bump();
        }
        let idle = state.bytes == 0;
        drop(state);
        if cleared || idle {
            self.board.changed.notify_one();
        }
    }

    /// Says how the link is doing; what was said before.
    pub(crate) fn set(&self, phase: Phase) -> Phase {
        let mut state = self.state.lock();
        let was = std::mem::replace(&mut state.phase, phase);
        if was == phase {
            return was;
        }
        state.since = Instant::now();
        drop(state);
        self.board.bump();
        let up = |phase| usize::from(phase == Phase::Up);
        self.board.usable.send_modify(|usable| *usable = *usable + up(phase) - up(was));
        self.board.changed.notify_one();
        was
    }

    /// Ends the marks in the outbox. The link is down, so that none comes after.
    pub(crate) fn end_marks(&self) {
        self.state.lock().outbox.retain(|message| message.flushed.is_none());
    }

    /// Whether anything waits that another lane could have.
    pub(crate) fn has_waiting(&self) -> bool {
        self.state.lock().bytes > 0
    }

    /// Gives `taken`, then what is in the outbox, back for other lanes. Marks end.
    pub(crate) fn give_back(&self, taken: impl IntoIterator<Item = Message>) {
        let mut state = self.state.lock();
        let all = taken.into_iter().chain(state.outbox.drain(..).collect::<Vec<_>>());
        self.board.returned.lock().extend(all.filter(|message| message.envelopes > 0));
        (state.bytes, state.full) = (0, None);
        drop(state);
        self.board.bump();
        self.board.changed.notify_one();
    }

    /// Takes all that is in the outbox: the deadline of a stop has passed.
    pub(crate) fn drain(&self) -> Vec<Message> {
        self.state.lock().outbox.drain(..).collect()
    }
}
