//! The fair ring: a bounded queue of batches in which a loud source drops its own envelopes and nobody else's.
//!
//! Stage: wherever envelopes may have to drop, between a task that publishes and one that sends. Loads enter, one short lock each;
//! loads leave to one reader, oldest first. Envelopes that must go are shown to the writer one by one, so that each is counted. It
//! never blocks a writer, never allocates or locks per envelope, never looks inside an envelope and never drops one in silence.
//!
//! # What it holds to
//! After every [`Writer::push`]:
//! 1. at most `bounds.envelopes` envelopes, and loads that together keep at most `bounds.bytes` alive ([`Load::held`]);
//! 2. only as many envelopes evicted as that needs, each *the oldest of the source that then held most bytes*, ties to the lowest
//!    source hash. A source with fewer bytes than another loses nothing;
//! 3. envelopes that stay keep the order in which they were pushed;
//! 4. `offered = accepted + rejected` and `accepted = taken + evicted + depth` ([`Counters`]), whenever the lock is free.
//!
//! # How
//! **Below half full** (in envelopes and in bytes) a push appends the load to a list and adds up totals; nothing is done per source.
//!
//! **Above half**, a table knows for every envelope where it is and which envelope of the same source comes next, and for every
//! source its bytes and its oldest envelope. Crossing half builds the table by one scan; push and take keep it; below a quarter it is
//! dropped again. The table has a place for each of the first 1024 sources that are in the ring at once. The sources beyond are the
//! *remainder*: they share one account, which counts as one source, and drop its oldest envelope.
//!
//! **Over a bound**, sources are ranked by bytes, and envelopes are evicted until what is left *would* fit, that is if every load with
//! dead bytes were copied out. Only then are loads copied out, only until it *does* fit. So bytes that nobody will read go before any
//! envelope does, and a load that loses ten envelopes is copied once. Until then an evicted envelope is merely marked: its load drops
//! it when it is taken, or copied out, or when three quarters of it are gone.
//!
//! A load is copied out in pieces of at most 4 KiB each (or one envelope, if that is larger). The first time costs one copy of what is
//! left of it; after that, evicting an envelope copies at most the 4 KiB around it.
//!
//! # What it costs
//! Per load one lock and a list entry; per envelope, above half, O(1) for its node. That the rest is O(log 1024) amortised at worst,
//! per envelope pushed, and mostly O(1):
//! - *Who holds most.* The ranking is a heap. It is brought up to date when something must go, once for each account that changed
//!   since: O(log 1024) each, or the whole anew when an eighth of the accounts changed. While one source stays ahead of the next,
//!   its envelopes go without another look at the heap.
//! - *The victim's oldest envelope* is the head of a chain. Takes remove the oldest of all and evictions the oldest of a source, so
//!   both only ever remove heads, in the remainder too: nothing is searched for.
//! - *Scans.* The table is dropped only when, since it was built, at least as many envelopes were pushed and taken as are in the ring
//!   then. The next build scans those and what is pushed until then, so two scans' worth of work per envelope pushed or taken pay for
//!   all scans.
//! - *Copies.* A byte is copied once when its load is first copied out; then at most 4 KiB per eviction.
//! - *Marks.* A load is cleared of evicted envelopes when three quarters of it are evicted, which pays for it.
//!
//! # What it keeps in memory
//! The loads, at most `bounds.bytes` as they say. Above half also 20 bytes per envelope for its node and 4 for its place, at most
//! four times the latter for marks, and about 120 bytes for each of up to 1024 sources. Per load an entry of the size of `T` and
//! some 90 bytes. All of that is bounded by `bounds.envelopes`: the table goes with the crossing of a quarter, the list's memory when
//! the ring is next empty. During a push, the load that is pushed and the loads that are being copied out come on top.
//!
//! # Why 2 holds
//! Let F be the bytes kept alive if every load were copied out. Evictions happen only while F, or the number of envelopes, is over
//! its bound, so none could have been spared by copying. Each takes the head of the chain of the account that comes first. The ranking
//! is exact when a source is chosen, and holds until that source no longer comes before the next, as no other changes. F reaches its
//! bound at the latest with the last envelope, hence a load larger than the whole ring keeps its newest part, by the same rule.
//! Copying then lowers what is held to F.

use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::task::{Context, Poll, Waker};

use self::entry::Taken;
use self::state::State;
use crate::diode::{Closed, TryRecvError};
use crate::sync::{Arc, Mutex};

mod entry;
mod ranking;
mod state;
mod table;

/// Sources told apart; those beyond count as one.
const SOURCES: usize = 1024;
/// Bytes in a copied-out piece, unless one envelope is larger.
const PIECE: usize = 4096;

/// What the ring can hold: a batch, that is some envelopes over one shared storage.
///
/// `i` counts the envelopes kept, from 0. No method may panic, block or call the ring: most run under its lock.
pub trait Load {
    /// Envelopes kept.
    fn len(&self) -> usize;

    /// True when none is kept.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hash of the source of the `i`-th envelope.
    fn source(&self, i: usize) -> u64;

    /// Bytes that the `i`-th envelope takes when it is copied out, its framing and its share of an index included.
    fn weight(&self, i: usize) -> usize;

    /// Sum of all weights. Asked once per push: override it where it is known.
    fn bytes(&self) -> usize {
        (0..self.len()).map(|i| self.weight(i)).sum()
    }

    /// Bytes that this load keeps alive: all of a shared storage, however little of it is kept. Asked when it is pushed and
    /// when it has been copied out.
    fn held(&self) -> usize;

    /// Forgets the envelopes for which `keep` says false. Storage stays as it is.
    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool);

    /// Copies the envelopes at `kept`, ascending and never empty, into a load with storage of its own.
    ///
    /// It is called for one piece of the load after another: it must cost no more than `kept` is long.
    ///
    /// Its [`held`](Load::held) should be at most the sum of their weights. What it is above that is charged, and may cost an
    /// envelope more than needed.
    fn copy_out(&self, kept: &[usize]) -> Self;
}

/// The most a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Envelopes; more than 2³¹ count as 2³¹.
    pub envelopes: NonZeroUsize,
    /// Bytes kept alive.
    pub bytes: NonZeroUsize,
}

/// What went through a ring and what is in it, at one moment.
///
/// `offered = accepted + rejected` and `accepted = taken + evicted + envelopes`, always. All but `bytes` count envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Given to [`Writer::push`].
    pub offered: u64,
    /// Put into the ring.
    pub accepted: u64,
    /// Given back, because the ring was closed.
    pub rejected: u64,
    /// Taken by the reader.
    pub taken: u64,
    /// Made to leave for others; and what was inside when the reader was dropped.
    pub evicted: u64,
    /// Depth: envelopes in the ring now.
    pub envelopes: usize,
    /// Depth: bytes that the ring keeps alive now.
    pub bytes: usize,
}

/// Makes a ring. It allocates as it fills.
pub fn channel<T: Load>(bounds: Bounds) -> (Writer<T>, Reader<T>) {
    channel_of(bounds, SOURCES)
}

fn channel_of<T: Load>(bounds: Bounds, sources: usize) -> (Writer<T>, Reader<T>) {
    let shared = Arc::new(Mutex::new(State::new(bounds, sources)));
    (Writer { shared: shared.clone() }, Reader { shared })
}

/// The end that puts loads in. Clone it for every task that writes; when the last clone is dropped, the ring closes.
pub struct Writer<T: Load> {
    /// Guards the ring's state and nothing else: one push, one take, or a look at the counters. No wake-up, no storage of a load is
    /// freed and nothing is awaited under it.
    shared: Arc<Mutex<State<T>>>,
}

/// The end that takes loads out. There is one. Dropping it closes the ring and drops what is in it.
pub struct Reader<T: Load> {
    shared: Arc<Mutex<State<T>>>,
}

impl<T: Load> Writer<T> {
    /// Puts a load in, and makes room for it at the cost of whoever holds most, which may be this load itself.
    ///
    /// `evicted` is called once for each envelope that goes, with the load it is in and its index there. It runs under the lock:
    /// keep it short, and do not touch the ring from it. A load that keeps less than a quarter of what it keeps alive is copied out
    /// first, outside the lock. A load without envelopes is dropped. Never waits for the reader; cost in the module docs.
    ///
    /// # Errors
    /// [`Closed`] with the load, counted as rejected, when the ring is closed or the reader is gone.
    pub fn push(&self, load: T, mut evicted: impl FnMut(&T, usize)) -> Result<(), Closed<T>> {
        if load.is_empty() {
            return Ok(());
        }
        let mut bytes = load.bytes();
        let mut load = load;
        if bytes < load.held() / 4 {
            let all: Vec<usize> = (0..load.len()).collect();
            load = load.copy_out(&all);
            bytes = load.bytes();
        }
        let mut done = Vec::new();
        let waker = {
            let mut state = self.shared.lock();
            state.counters.offered += load.len() as u64;
            if state.closed {
                state.counters.rejected += load.len() as u64;
                return Err(Closed(load));
            }
            state.push(load, bytes, &mut evicted, &mut done);
            if state.counters.envelopes > 0 { state.waker.take() } else { None }
        };
        wake(waker);
        Ok(())
    }

    /// What went through, and the depth. One lock.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Changes what the ring holds at most. Smaller bounds hold after the next push.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.shared.lock().set_bounds(bounds);
    }

    /// Closes the ring for every writer. The reader still receives what is in it.
    pub fn close(&self) {
        close(&self.shared);
    }

    /// True when nothing more can be pushed.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

impl<T: Load> Clone for Writer<T> {
    fn clone(&self) -> Self {
        self.shared.lock().writers += 1;
        Self { shared: self.shared.clone() }
    }
}

impl<T: Load> Drop for Writer<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.shared.lock();
            state.writers -= 1;
            if state.writers > 0 {
                return;
            }
            state.closed = true;
            state.waker.take()
        };
        wake(waker);
    }
}

impl<T: Load> Reader<T> {
    /// Waits for the oldest load. `None` when the ring is closed and empty.
    ///
    /// # Cancel safety
    /// A load is removed only by the poll that returns it.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Waits until there is a load, then moves all there are to the end of `into`, oldest first, as long as they keep within
    /// `limit`. Returns the envelopes moved; 0 when the ring is closed and empty.
    ///
    /// Loads are taken whole: the first always, even if it is larger than `limit`. Bytes are those of the envelopes
    /// ([`Load::weight`]). One lock for all.
    ///
    /// # Cancel safety
    /// Loads are removed only by the poll that completes.
    pub async fn recv_many(&mut self, limit: Bounds, into: &mut Vec<T>) -> usize {
        poll_fn(|cx| self.poll_many(cx, limit, into)).await
    }

    /// Takes the oldest load if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`] when there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let taken = {
            let mut state = self.shared.lock();
            match state.take() {
                Some(taken) => taken,
                None if state.closed => return Err(TryRecvError::Closed),
                None => return Err(TryRecvError::Empty),
            }
        };
        Ok(taken.into_load())
    }

    /// What went through, and the depth. One lock.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Closes the ring for every writer. What is in it can still be received: so each envelope that was not sent can be counted.
    pub fn close(&mut self) {
        close(&self.shared);
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let taken = {
            let mut state = self.shared.lock();
            match state.take() {
                Some(taken) => taken,
                None => return pending_or(&mut state, cx, None),
            }
        };
        Poll::Ready(Some(taken.into_load()))
    }

    fn poll_many(&mut self, cx: &mut Context<'_>, limit: Bounds, into: &mut Vec<T>) -> Poll<usize> {
        let mut all = Vec::new();
        let (mut envelopes, mut bytes) = (0, 0);
        {
            let mut state = self.shared.lock();
            while let Some((more, weight)) = state.front() {
                let fits = envelopes + more <= limit.envelopes.get() && bytes + weight <= limit.bytes.get();
                if !fits && envelopes > 0 {
                    break;
                }
                (envelopes, bytes) = (envelopes + more, bytes + weight);
                all.extend(state.take());
            }
            if envelopes == 0 {
                return pending_or(&mut state, cx, 0);
            }
        }
        into.extend(all.into_iter().map(Taken::into_load));
        Poll::Ready(envelopes)
    }
}

impl<T: Load> Drop for Reader<T> {
    fn drop(&mut self) {
        let left = self.shared.lock().discard();
        drop(left);
    }
}

/// The answer of an empty ring: `closed`, or later.
fn pending_or<T: Load, R>(state: &mut State<T>, cx: &Context<'_>, closed: R) -> Poll<R> {
    if state.closed {
        return Poll::Ready(closed);
    }
    if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        state.waker = Some(cx.waker().clone());
    }
    Poll::Pending
}

fn close<T: Load>(shared: &Mutex<State<T>>) {
    let waker = {
        let mut state = shared.lock();
        state.closed = true;
        state.waker.take()
    };
    wake(waker);
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T: Load> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<T: Load> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
