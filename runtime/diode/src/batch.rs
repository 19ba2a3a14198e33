//! The batcher: collects items until there is enough of them, or until the first has waited long enough.
//!
//! Stage: behind a queue, before a link. Items enter one by one with their size; batches leave in the same order, each within the
//! limits. It is pure: no clock, timer or task of its own. It never drops, reorders or splits an item.
//!
//! The loop around it, which lets a lone item leave at once when the link is idle and gathers only while the link is busy:
//! ```text
//! select! {
//!     item = ring.recv()                              => if let Some(batch) = batcher.push(item, 1, bytes, Instant::now()) { send(batch) }
//!     () = sleep_until(deadline), if let Some(deadline) => send(batcher.flush()),
//!     () = link.idle(), if !batcher.is_empty()        => send(batcher.flush()),
//! }
//! ```

use std::mem;
use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::Instant;

/// When a batch is done: at the first limit that it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Envelopes in a batch.
    pub envelopes: NonZeroUsize,
    /// Bytes in a batch. One item may be larger: then it is a batch of its own.
    pub bytes: NonZeroUsize,
    /// How long the first item of a batch waits. Zero makes every item a batch.
    pub age: Duration,
}

/// Collects items into batches. Its memory is one batch.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: Limits,
    items: Vec<T>,
    envelopes: usize,
    bytes: usize,
    deadline: Option<Instant>,
}

impl<T> Batcher<T> {
    /// An empty batcher.
    pub fn new(limits: Limits) -> Self {
        Self { limits, items: Vec::new(), envelopes: 0, bytes: 0, deadline: None }
    }

    /// Adds an item of so many envelopes and bytes, and returns a batch when one is done.
    ///
    /// An item that would take the batch over a limit starts the next one. When that one is at its limit at once, its deadline is
    /// `now`. O(1).
    pub fn push(&mut self, item: T, envelopes: usize, bytes: usize, now: Instant) -> Option<Vec<T>> {
        let over = self.envelopes.saturating_add(envelopes) > self.limits.envelopes.get()
            || self.bytes.saturating_add(bytes) > self.limits.bytes.get();
        let done = (over && !self.items.is_empty()).then(|| self.flush());
        self.items.push(item);
        self.envelopes = self.envelopes.saturating_add(envelopes);
        self.bytes = self.bytes.saturating_add(bytes);
        // An age too long to add is no deadline.
        self.deadline = self.deadline.or_else(|| now.checked_add(self.limits.age));
        if self.is_due(now) {
            if done.is_none() {
                return Some(self.flush());
            }
            self.deadline = Some(now);
        }
        done
    }

    /// When the batch in hand must leave. `None` when it is empty.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes the batch in hand, which may be empty.
    pub fn flush(&mut self) -> Vec<T> {
        self.envelopes = 0;
        self.bytes = 0;
        self.deadline = None;
        mem::take(&mut self.items)
    }

    /// Envelopes in hand.
    pub fn envelopes(&self) -> usize {
        self.envelopes
    }

    /// Bytes in hand.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when nothing is in hand.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.envelopes >= self.limits.envelopes.get()
            || self.bytes >= self.limits.bytes.get()
            || self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(envelopes: usize, bytes: usize, age: u64) -> Limits {
        let positive = |n| NonZeroUsize::new(n).unwrap();
        Limits { envelopes: positive(envelopes), bytes: positive(bytes), age: Duration::from_millis(age) }
    }

    #[test]
    fn count_ends_a_batch() {
        let mut batcher = Batcher::new(limits(3, 1_000, 1_000));
        let now = Instant::now();
        assert_eq!(batcher.push('a', 1, 1, now), None);
        assert_eq!(batcher.push('b', 1, 1, now), None);
        assert_eq!(batcher.push('c', 1, 1, now), Some(vec!['a', 'b', 'c']));
        assert!(batcher.is_empty());
        assert_eq!(batcher.deadline(), None);
    }

    #[test]
    fn bytes_are_never_exceeded() {
        let mut batcher = Batcher::new(limits(100, 10, 1_000));
        let now = Instant::now();
        assert_eq!(batcher.push('a', 1, 6, now), None);
        assert_eq!(batcher.push('b', 1, 5, now), Some(vec!['a']), "6 + 5 would be more than 10");
        assert_eq!((batcher.envelopes(), batcher.bytes()), (1, 5));
        assert_eq!(batcher.push('c', 1, 5, now), Some(vec!['b', 'c']), "exactly 10");
    }

    #[test]
    fn items_of_many_envelopes_count_in_full() {
        let mut batcher = Batcher::new(limits(10, 1_000, 1_000));
        let now = Instant::now();
        assert_eq!(batcher.push('a', 7, 1, now), None);
        assert_eq!(batcher.push('b', 4, 1, now), Some(vec!['a']));
        assert_eq!(batcher.push('c', 6, 1, now), Some(vec!['b', 'c']));
    }

    #[test]
    fn an_item_over_the_limit_is_a_batch_of_its_own() {
        let mut batcher = Batcher::new(limits(100, 10, 1_000));
        let now = Instant::now();
        assert_eq!(batcher.push('a', 1, 50, now), Some(vec!['a']));
        assert_eq!(batcher.push('b', 1, 1, now), None);
        assert_eq!(batcher.push('c', 1, 50, now), Some(vec!['b']));
        assert_eq!(batcher.deadline(), Some(now), "it is full and waits for nothing");
        assert_eq!(batcher.push('d', 1, 1, now), Some(vec!['c']));
        assert_eq!(batcher.flush(), vec!['d']);
    }

    #[test]
    fn age_counts_from_the_first_item() {
        let mut batcher = Batcher::new(limits(100, 1_000, 50));
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(batcher.deadline(), None);
        assert_eq!(batcher.push('a', 1, 1, start), None);
        assert_eq!(batcher.push('b', 1, 1, after(49)), None);
        assert_eq!(batcher.deadline(), Some(after(50)));
        assert_eq!(batcher.push('c', 1, 1, after(50)), Some(vec!['a', 'b', 'c']));
        assert_eq!(batcher.push('d', 1, 1, after(60)), None);
        assert_eq!(batcher.deadline(), Some(after(110)));
    }

    #[test]
    fn no_age_makes_every_item_a_batch() {
        let mut batcher = Batcher::new(limits(100, 1_000, 0));
        assert_eq!(batcher.push('a', 1, 1, Instant::now()), Some(vec!['a']));
    }

    #[test]
    fn an_endless_age_has_no_deadline() {
        let mut batcher = Batcher::new(Limits { age: Duration::MAX, ..limits(2, 1_000, 0) });
        let now = Instant::now();
        assert_eq!(batcher.push('a', 1, 1, now), None);
        assert_eq!(batcher.deadline(), None);
        assert_eq!(batcher.push('b', 1, 1, now), Some(vec!['a', 'b']));
    }
}
