//! Counter deltas to totals (contract: agents §1.3). Pure.
//!
//! What enters: a counter's identity, delta and total. What leaves: the total to send. Its bound is in series; the one longest unused
//! is forgotten, and no other series notices.

use std::num::NonZeroUsize;

use lru::LruCache;

/// Series remembered. The original forgets all of them when it has more; here one goes.
const SERIES: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// Running totals per series.
#[derive(Debug)]
pub(crate) struct Totals {
    series: LruCache<Box<[u8]>, u64, foldhash::fast::RandomState>,
}

impl Default for Totals {
    fn default() -> Self {
        Self { series: LruCache::with_hasher(SERIES, foldhash::fast::RandomState::default()) }
    }
}

impl Totals {
    /// The total of `series` after `delta`, or the one given: a total of its own, or neither, sets the series to it. Totals wrap.
    pub(crate) fn add(&mut self, series: &[u8], delta: u64, total: u64) -> u64 {
        let adds = total == 0 && delta != 0;
        if let Some(stored) = self.series.get_mut(series) {
            *stored = if adds { stored.wrapping_add(delta) } else { total };
            return *stored;
        }
        let stored = if adds { delta } else { total };
        self.series.put(series.into(), stored);
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_add_up_and_a_total_sets_the_sum() {
        let mut totals = Totals::default();
        assert_eq!(totals.add(b"a", 3, 0), 3);
        assert_eq!(totals.add(b"a", 4, 0), 7);
        assert_eq!(totals.add(b"b", 1, 0), 1);
        assert_eq!(totals.add(b"a", 1, 100), 100);
        assert_eq!(totals.add(b"a", 1, 0), 101);
        assert_eq!(totals.add(b"a", 0, 0), 0);
        assert_eq!(totals.add(b"a", u64::MAX, 0), u64::MAX);
        assert_eq!(totals.add(b"a", 2, 0), 1);
    }

    #[test]
    fn past_the_bound_only_the_longest_unused_series_starts_again() {
        let mut totals = Totals::default();
        let name = |i: usize| i.to_string().into_bytes();
        for i in 0..SERIES.get() {
            totals.add(&name(i), 5, 0);
        }
        totals.add(&name(0), 1, 0);
        totals.add(b"one more", 1, 0);
        assert_eq!(totals.add(&name(0), 1, 0), 7);
        assert_eq!(totals.add(&name(2), 1, 0), 6);
        assert_eq!(totals.add(&name(1), 1, 0), 1, "this one was the longest unused");
    }
}
