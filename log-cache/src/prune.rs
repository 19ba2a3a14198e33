//! The memory budget: who has to give up a segment when it is spent.
//!
//! What enters: the sources that hold more than their share. What leaves: the next victim. Pure arithmetic and two ordered sets;
//! timestamps play no part.
//!
//! **Shares.** Every source has a floor, below which nobody can take from it: half the budget, divided by the number of sources
//! rounded up to a power of two (so between an eighth and a half of an even share; the level follows the number of sources with a
//! factor of four in between, so that it does not flutter). And it has a cap, which binds only when room is needed: those above it
//! give first.
//!
//! **Victims.** Among the sources over the cap, else among those over their floor, the one whose oldest segment arrived first gives
//! that segment. Both groups are sets ordered by the arrival number of that segment. A source enters a set when a put takes it over
//! the line, and leaves when it is found under it. When floors have fallen, one sweep over all sources puts those into their sets that
//! have got over a line without a put.
//!
//! **It ends.** The floors of all sources together are at most half the budget, so while more than the budget is held, some source
//! is over its floor, and so in a set. Each turn of the loop evicts a segment, removes an entry, or corrects one entry's number upwards.
//!
//! **Cost.** Evicting a segment costs O(log sources over their floor). A sweep costs O(sources), and floors fall only when as many
//! sources have come as half of those there are: O(1) for each source that ever came.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::segment::MAX_BYTES;

/// No segment is sealed below this many bytes, however many sources there are.
const MIN_SEGMENT: usize = 1024;

/// The budget and how it is shared.
#[derive(Debug)]
pub(crate) struct Shares {
    budget: usize,
    cap: usize,
    sources: AtomicUsize,
    /// A power of two, at least the number of sources and at most some four times that.
    level: AtomicUsize,
    /// How many times floors have fallen.
    falls: AtomicU64,
}

impl Shares {
    pub(crate) fn new(budget: usize, cap_percent: u8) -> Self {
        let cap = (budget as u128 * u128::from(cap_percent.min(100)) / 100) as usize;
        Self { budget, cap, sources: AtomicUsize::new(0), level: AtomicUsize::new(1), falls: AtomicU64::new(0) }
    }

    /// Bytes that all sources together may hold.
    pub(crate) fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes that nobody can take from a source.
    #[inline]
    pub(crate) fn floor(&self) -> usize {
        // The same as dividing by twice the level, which is a power of two.
        self.budget >> (self.level.load(Relaxed).trailing_zeros() + 1)
    }

    /// Bytes above which a source gives first. With few sources an even share is more, and counts.
    #[inline]
    pub(crate) fn cap(&self) -> usize {
        self.cap.max(self.floor())
    }

    /// How many bytes a segment takes before it is sealed: a quarter of a floor, so that giving one up is a small step.
    #[inline]
    pub(crate) fn segment_bytes(&self) -> usize {
        (self.floor() / 4).clamp(MIN_SEGMENT, MAX_BYTES)
    }

    /// How many sources hold something.
    pub(crate) fn sources(&self) -> usize {
        self.sources.load(Relaxed)
    }

    /// A source has got its first envelope.
    pub(crate) fn source_came(&self) {
        let sources = self.sources.fetch_add(1, Relaxed) + 1;
        // Between the two lines another thread may move the level too; the next source to come or go puts it right.
        if sources > self.level.load(Relaxed) {
            self.level.store(sources.next_power_of_two(), Relaxed);
            self.falls.fetch_add(1, Release);
        }
    }

    /// How many times floors have fallen: whoever sees a new number sees the new floor.
    pub(crate) fn falls(&self) -> u64 {
        self.falls.load(Acquire)
    }

    /// A source has lost its last envelope.
    pub(crate) fn source_went(&self) {
        let sources = self.sources.fetch_sub(1, Relaxed) - 1;
        if sources < self.level.load(Relaxed) / 4 {
            self.level.store((2 * sources).next_power_of_two(), Relaxed);
        }
    }
}

/// Which line a source is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Cap,
    Floor,
}

/// A source in a set of victims, and the arrival number of its oldest segment, as far as known: it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Victim {
    pub(crate) first_sequence: u64,
    pub(crate) born: u64,
    pub(crate) hash: u64,
}

/// The sources over their lines, oldest segment first.
#[derive(Debug, Default)]
pub(crate) struct Victims {
    /// [`Shares::falls`] at the last sweep.
    pub(crate) swept: u64,
    over_cap: BTreeSet<Victim>,
    over_floor: BTreeSet<Victim>,
}

impl Victims {
    pub(crate) fn insert(&mut self, line: Line, victim: Victim) {
        match line {
            Line::Cap => self.over_cap.insert(victim),
            Line::Floor => self.over_floor.insert(victim),
        };
    }

    /// Takes the next victim out.
    pub(crate) fn pop(&mut self) -> Option<(Line, Victim)> {
        let over_cap = self.over_cap.pop_first().map(|victim| (Line::Cap, victim));
        over_cap.or_else(|| self.over_floor.pop_first().map(|victim| (Line::Floor, victim)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_of_all_sources_fit_in_half_the_budget_and_follow_their_number() {
        let shares = Shares::new(1 << 20, 5);
        let mut sources = 0;
        let check = |sources: usize| {
            assert_eq!(shares.sources(), sources);
            assert!(shares.floor() * sources <= shares.budget() / 2, "{sources}");
            assert!(shares.floor() * sources.max(1) * 16 >= shares.budget(), "{sources}: floor {}", shares.floor());
        };
        for _ in 0..3000 {
            shares.source_came();
            sources += 1;
            check(sources);
        }
        for _ in 0..3000 {
            shares.source_went();
            sources -= 1;
            check(sources);
        }
    }

    #[test]
    fn a_level_does_not_flutter() {
        let shares = Shares::new(1 << 20, 5);
        (0..1024).for_each(|_| shares.source_came());
        shares.source_came();
        let floor = shares.floor();
        for _ in 0..100 {
            shares.source_went();
            shares.source_came();
            assert_eq!(shares.floor(), floor);
        }
    }

    #[test]
    fn segments_shrink_as_sources_grow_in_number() {
        let shares = Shares::new(600 << 20, 5);
        shares.source_came();
        assert_eq!(shares.segment_bytes(), MAX_BYTES);
        (0..100_000).for_each(|_| shares.source_came());
        assert_eq!(shares.segment_bytes(), MIN_SEGMENT);
    }

    #[test]
    fn those_over_the_cap_go_first_then_by_arrival() {
        let mut victims = Victims::default();
        let victim = |first_sequence| Victim { first_sequence, born: 0, hash: 0 };
        victims.insert(Line::Floor, victim(1));
        victims.insert(Line::Cap, victim(9));
        victims.insert(Line::Floor, victim(0));
        victims.insert(Line::Cap, victim(7));
        let order: Vec<_> = std::iter::from_fn(|| victims.pop()).map(|(line, v)| (line, v.first_sequence)).collect();
        assert_eq!(order, [(Line::Cap, 7), (Line::Cap, 9), (Line::Floor, 0), (Line::Floor, 1)]);
    }

    #[test]
    fn extremes_do_not_overflow() {
        let shares = Shares::new(usize::MAX, 255);
        shares.source_came();
        assert_eq!(shares.cap(), usize::MAX);
        let none = Shares::new(0, 5);
        none.source_came();
        assert_eq!((none.floor(), none.cap(), none.segment_bytes()), (0, 0, MIN_SEGMENT));
    }
}
