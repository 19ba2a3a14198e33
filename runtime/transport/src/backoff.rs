//! How long to wait before trying a peer again.
//!
//! Pure: the caller sleeps. The bound doubles from `first` to `last`; each wait is drawn evenly from nothing to the
//! bound ("full jitter"), so that a fleet that lost one peer does not come back to it in step.

use std::time::Duration;

/// Waits that grow with each failure and start over after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    bound: Duration,
    random: u64,
}

impl Backoff {
    /// The project's waits between connections: 100 ms, doubled up to 5 s. Equal seeds give equal waits.
    pub fn new(seed: u64) -> Self {
        Self::between(Duration::from_millis(100), Duration::from_secs(5), seed)
    }

    /// The same with other bounds. A `last` below `first` counts as `first`.
    pub fn between(first: Duration, last: Duration, seed: u64) -> Self {
        Self { first, last: last.max(first), bound: first, random: seed }
    }

    /// A seed that differs between processes and between calls.
    pub fn random_seed() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    }

    /// The next wait, from zero to the present bound; doubles the bound.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.last);
        bound.mul_f64(self.fraction())
    }

    /// The largest wait that [`next_wait`](Self::next_wait) can give now.
    pub fn bound(&self) -> Duration {
        self.bound
    }

    /// The peer works: the next failure waits as the first did.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }

    /// A number in `[0, 1)` from splitmix64, which has no bad seeds.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        f64::from(u32::try_from(z >> 32).expect("32 bits are left")) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_doubles_to_the_last_and_starts_over() {
        let mut backoff = Backoff::new(7);
        let mut bounds = Vec::new();
        for _ in 0..8 {
            bounds.push(u64::try_from(backoff.bound().as_millis()).unwrap());
            assert!(backoff.next_wait() < Duration::from_millis(*bounds.last().unwrap()));
        }
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(100));
    }

    #[test]
    fn waits_use_the_whole_range_and_follow_the_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::between(Duration::from_secs(1), Duration::from_secs(1), seed);
            (0..1000).map(|_| backoff.next_wait().as_secs_f64()).collect::<Vec<_>>()
        };
        let drawn = waits(1);
        assert_eq!(drawn, waits(1));
        assert_ne!(drawn, waits(2));
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "even over the range, mean {mean}");
        assert!(drawn.iter().any(|&wait| wait < 0.05) && drawn.iter().any(|&wait| wait > 0.95));
    }

    #[test]
    fn seed_zero_is_as_good_as_any_and_random_seeds_differ() {
        let mut zero = Backoff::new(0);
        assert_ne!(zero.next_wait(), zero.next_wait());
        assert_ne!(Backoff::random_seed(), Backoff::random_seed());
    }

    #[test]
    fn odd_bounds_are_safe() {
        let mut backoff = Backoff::between(Duration::from_secs(3), Duration::from_secs(1), 1);
        assert!(backoff.next_wait() <= Duration::from_secs(3));
        assert_eq!(backoff.bound(), Duration::from_secs(3));
        let mut huge = Backoff::between(Duration::from_secs(1 << 60), Duration::MAX, 1);
        assert!((0..100).all(|_| huge.next_wait() <= Duration::MAX));
        assert_eq!(huge.bound(), Duration::MAX);
        let mut none = Backoff::between(Duration::ZERO, Duration::ZERO, 1);
        assert_eq!(none.next_wait(), Duration::ZERO);
    }
}
