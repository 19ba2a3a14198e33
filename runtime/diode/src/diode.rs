//! The diode: a bounded hand-off whose writers never wait.
//!
//! Stage: between a task that must not block (a socket's) and the one that works through what it brought. Any item enters; items
//! leave in the order they entered, to one reader. A full diode makes room by giving its oldest item back to whoever pushes, so
//! every loss is in the hands of somebody who counts it. It never blocks, allocates, logs, or drops an item in silence.
//!
//! # The drop contract
//! Of everything given to [`Writer::push`], each item is exactly one of
//! - *displaced*: returned by a later push (`Ok(Some(item))`),
//! - *rejected*: returned because the reader is gone (`Err(Closed(item))`),
//! - *received* by the reader, or
//! - still inside: [`Reader::len`], or dropped with the reader. Who must account for these calls [`Reader::close`] and receives
//!   until `None`.
//!
//! The sums hold whichever way pushes race a close. Which of the racing items is returned is not determined.
//!
//! # Why no wake-up is lost
//! The reader announces that it is going to sleep (`parked`) and then looks once more; a writer adds its item and then looks at
//! `parked`. A sequentially consistent fence stands between the two steps on both sides, so at least one of them sees the other.
//! The close of either side uses the same two steps.

use std::fmt;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::task::{Context, Poll, Waker};

use crate::sync::{Arc, ArrayQueue, AtomicBool, AtomicUsize, Mutex, Ordering, fence};

/// Makes a diode for `capacity` items. All of its memory is allocated here.
///
/// # Panics
/// When `capacity` items would not fit the address space.
pub fn channel<T>(capacity: NonZeroUsize) -> (Writer<T>, Reader<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.get()),
        writers: AtomicUsize::new(1),
        closed: AtomicBool::new(false),
        parked: AtomicBool::new(false),
        waker: Mutex::new(None),
    });
    (Writer { shared: shared.clone() }, Reader { shared })
}

/// The end that puts items in. Clone it for every task that writes; when the last clone is dropped, the reader ends.
pub struct Writer<T> {
    shared: Arc<Shared<T>>,
}

/// The end that takes items out. There is one.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
}

/// The queue is closed; holds what could not be put into it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<T>(pub T);

/// Why [`Reader::try_recv`] has nothing to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is queued now.
    Empty,
    /// Nothing is queued and nothing can come any more.
    Closed,
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    writers: AtomicUsize,
    /// No more items: the reader is gone, or has said so.
    closed: AtomicBool,
    /// The reader has left a waker and may be asleep. Changed by exchanges only, so that all changes stand in one order by what each
    /// found, not merely by how they reached memory.
    parked: AtomicBool,
    /// Guards the reader's waker and nothing else. Taken when the reader goes to sleep and when it is woken, never per item.
    waker: Mutex<Option<Waker>>,
}

impl<T> Writer<T> {
    /// Puts `item` in and returns what had to leave for it, the oldest item, when the diode was full.
    ///
    /// Wait-free but for other writers; a few nanoseconds, and a wake-up when the reader sleeps.
    ///
    /// # Errors
    /// [`Closed`] with an item that can no longer be received: `item`, or, when the close happened during the call, another one in
    /// its place. Exactly one item is given back for this one.
    pub fn push(&self, item: T) -> Result<Option<T>, Closed<T>> {
        let shared = &*self.shared;
        if shared.closed.load(Ordering::Acquire) {
            return Err(Closed(item));
        }
        let displaced = shared.queue.force_push(item);
        fence(Ordering::SeqCst);
        if shared.closed.load(Ordering::Relaxed) {
            // Closed meanwhile. The reader may have looked for the last time before this item was there: then take one out again.
            return match displaced.or_else(|| shared.queue.pop()) {
                Some(item) => Err(Closed(item)),
                None => Ok(None),
            };
        }
        shared.wake_parked();
        Ok(displaced)
    }

    /// Items queued now.
    #[expect(clippy::len_without_is_empty, reason = "a gauge: nobody asks a writer whether to read")]
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// Items that fit.
    pub fn capacity(&self) -> usize {
        self.shared.queue.capacity()
    }
}

impl<T> Clone for Writer<T> {
    fn clone(&self) -> Self {
        self.shared.writers.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for Writer<T> {
    fn drop(&mut self) {
        if self.shared.writers.fetch_sub(1, Ordering::AcqRel) == 1 {
            fence(Ordering::SeqCst);
            self.shared.wake_parked();
        }
    }
}

impl<T> Reader<T> {
    /// Waits for the oldest item. `None` when all writers are gone, or [`Reader::close`] was called, and everything is received.
    ///
    /// # Cancel safety
    /// An item is removed only by the poll that returns it.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Takes the oldest item if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`] when there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let shared = &*self.shared;
        if let Some(item) = shared.queue.pop() {
            return Ok(item);
        }
        if shared.closed.load(Ordering::Relaxed) {
            return Err(TryRecvError::Closed);
        }
        if shared.writers.load(Ordering::Acquire) > 0 {
            return Err(TryRecvError::Empty);
        }
        // The last writer may have pushed between the two looks, then left.
        shared.queue.pop().ok_or(TryRecvError::Closed)
    }

    /// Refuses further items; those inside can still be received.
    pub fn close(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Items queued now.
    pub fn len(&self) -> usize {
        self.shared.queue.len()
    }

    /// True when nothing is queued now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.shared.queue.pop() {
            return Poll::Ready(Some(item));
        }
        self.shared.park(cx.waker());
        let found = match self.try_recv() {
            Ok(item) => Some(item),
            Err(TryRecvError::Closed) => None,
            Err(TryRecvError::Empty) => return Poll::Pending,
        };
        self.shared.parked.swap(false, Ordering::AcqRel);
        Poll::Ready(found)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.close();
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> Shared<T> {
    /// Leaves a waker. What is pushed from here on wakes it; what was pushed before, the caller sees when it looks again.
    fn park(&self, waker: &Waker) {
        {
            let mut left = self.waker.lock();
            if !left.as_ref().is_some_and(|left| left.will_wake(waker)) {
                *left = Some(waker.clone());
            }
        }
        self.parked.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Wakes the reader if it sleeps. A sequentially consistent fence stands between the change it is told of and this call.
    fn wake_parked(&self) {
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::AcqRel) {
            let waker = self.waker.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is closed")
    }
}

impl<T> std::error::Error for Closed<T> {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the queue is empty",
            Self::Closed => "the queue is empty and closed",
        })
    }
}

impl std::error::Error for TryRecvError {}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
