//! Lines of several instances put into the order of their times, as far as they come within a window. Pure.
//!
//! What enters: envelopes as they come. What leaves: the same, each after the window at the latest, and before it whatever is older.
//! While only one instance speaks nothing waits.
//!
//! *Invariant*: nothing is held longer than the window, nor more than [`HELD`] at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use proto::v2;
use tokio::time::Instant;

/// Envelopes held at most; beyond it the oldest leave early.
pub(super) const HELD: usize = 65_536;

/// Holds what may still be overtaken.
#[derive(Debug)]
pub(super) struct Window {
    width: Duration,
    /// By timestamp, and those of the same in order of arrival.
    held: BinaryHeap<Reverse<Held>>,
    /// When each arrived, and its timestamp.
    arrivals: VecDeque<(Instant, i64)>,
    count: u64,
    /// Who spoke first, while nobody else has.
    only: Option<(String, String)>,
    several: bool,
}

#[derive(Debug)]
struct Held {
    key: (i64, u64),
    envelope: v2::Envelope,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl Window {
    /// A window of so long; of zero, everything leaves as it comes.
    pub(super) fn new(width: Duration) -> Self {
        Self { width, held: BinaryHeap::new(), arrivals: VecDeque::new(), count: 0, only: None, several: false }
    }

    /// Takes an envelope that arrives `now`.
    pub(super) fn push(&mut self, envelope: v2::Envelope, now: Instant) {
        if !self.several {
            let who = (&envelope.source_id, &envelope.instance_id);
            match &self.only {
                None => self.only = Some((who.0.clone(), who.1.clone())),
                Some((source, instance)) => self.several = (source, instance) != who,
            }
        }
        self.arrivals.push_back((now, envelope.timestamp));
        self.held.push(Reverse(Held { key: (envelope.timestamp, self.count), envelope }));
        self.count += 1;
    }

    /// Takes out what need not wait any longer at `now`.
    pub(super) fn ready(&mut self, now: Instant) -> Vec<v2::Envelope> {
        if self.width.is_zero() || !self.several {
            return self.all_as_they_came();
        }
        let mut until = None;
        while let Some((arrived, timestamp)) = self.arrivals.front()
            && (*arrived + self.width <= now || self.arrivals.len() > HELD)
        {
            until = until.max(Some(*timestamp));
            self.arrivals.pop_front();
        }
        let mut ready = Vec::new();
        while let Some(Reverse(held)) = self.held.peek()
            && Some(held.key.0) <= until
        {
            ready.extend(self.held.pop().map(|Reverse(held)| held.envelope));
        }
        // Those that left before their time would have been the next to.
        if self.held.is_empty() {
            self.arrivals.clear();
        }
        ready
    }

    /// When something is ready next.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.held.is_empty() {
            return None;
        }
        self.arrivals.front().map(|(arrived, _)| *arrived + self.width)
    }

    /// Takes out everything.
    pub(super) fn rest(&mut self) -> Vec<v2::Envelope> {
        if self.width.is_zero() || !self.several {
            return self.all_as_they_came();
        }
        self.arrivals.clear();
        std::iter::from_fn(|| self.held.pop()).map(|Reverse(held)| held.envelope).collect()
    }

    fn all_as_they_came(&mut self) -> Vec<v2::Envelope> {
        self.arrivals.clear();
        let mut all: Vec<Held> = self.held.drain().map(|Reverse(held)| held).collect();
        all.sort_unstable_by_key(|held| held.key.1);
        all.into_iter().map(|held| held.envelope).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(source: &str, at: i64) -> v2::Envelope {
        v2::Envelope::log(source, "x").at(at)
    }

    fn times(envelopes: &[v2::Envelope]) -> Vec<i64> {
        envelopes.iter().map(|envelope| envelope.timestamp).collect()
    }

    #[test]
    fn who_speaks_alone_does_not_wait_and_is_not_reordered() {
        let mut window = Window::new(Duration::from_millis(500));
        let now = Instant::now();
        window.push(line("a", 5), now);
        window.push(line("a", 3), now);
        assert_eq!(times(&window.ready(now)), [5, 3]);
        assert_eq!(window.next(), None);
    }

    #[test]
    fn lines_of_several_are_sorted_within_the_window() {
        let width = Duration::from_millis(500);
        let mut window = Window::new(width);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        window.push(line("a", 10), start);
        window.push(line("b", 5), after(100));
        assert!(window.ready(after(100)).is_empty());
        window.push(line("b", 12), after(200));
        window.push(line("a", 11), after(300));
        assert_eq!(window.next(), Some(after(500)));
        assert!(window.ready(after(499)).is_empty());
        assert_eq!(times(&window.ready(after(500))), [5, 10]);
        // The line of 600 has left already; that of 700 takes the older one along.
        assert_eq!(times(&window.ready(after(700))), [11, 12]);
        assert_eq!((window.next(), window.rest().len()), (None, 0));
    }

    #[test]
    fn a_window_of_nothing_and_one_that_is_full_let_go() {
        let mut window = Window::new(Duration::ZERO);
        let now = Instant::now();
        window.push(line("a", 5), now);
        window.push(line("b", 3), now);
        assert_eq!(times(&window.ready(now)), [5, 3]);

        let mut window = Window::new(Duration::from_secs(1));
        (0..=HELD as i64 + 1).for_each(|i| window.push(line(["a", "b"][(i % 2) as usize], i), now));
        assert_eq!(times(&window.ready(now)), [0, 1]);
        assert_eq!(window.rest().len(), HELD);
    }
}
