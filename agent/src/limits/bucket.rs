//! A token bucket as one number (the generic cell rate algorithm, ITU-T I.371 Annex A). Pure: the time is an argument.

use std::time::Duration;

use super::config::Rate;

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// A bucket of tokens that fills at a constant rate up to its burst. Exact: nothing is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// When it will be full, in nanoseconds times tokens per second.
    full_at: u128,
}

impl Bucket {
    /// Whether it has `amount` tokens at `now`. A full bucket has whatever is asked of it, so that what is larger than a burst passes once
    /// in a while.
    pub(crate) fn has(&self, rate: &Rate, amount: u64, now: Duration) -> bool {
        let now = scaled(rate, now);
        self.full_at <= now || self.full_at - now + u128::from(amount) * SECOND <= u128::from(rate.burst.get()) * SECOND
    }

    /// Takes them out.
    pub(crate) fn take(&mut self, rate: &Rate, amount: u64, now: Duration) {
        self.full_at = self.full_at.max(scaled(rate, now)) + u128::from(amount) * SECOND;
    }
}

/// A time in nanoseconds times tokens per second: at most 2^128 for any that a process sees.
fn scaled(rate: &Rate, now: Duration) -> u128 {
    now.as_nanos() * u128::from(rate.per_second.get())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate { per_second: NonZeroU64::new(per_second).unwrap(), burst: NonZeroU64::new(burst).unwrap() }
    }

    fn try_take(bucket: &mut Bucket, rate: &Rate, amount: u64, now: Duration) -> bool {
        let has = bucket.has(rate, amount, now);
        if has {
            bucket.take(rate, amount, now);
        }
        has
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (mut bucket, rate) = (Bucket::default(), rate(10, 5));
        let now = Duration::from_secs(100);
        let burst = (0..20).filter(|_| try_take(&mut bucket, &rate, 1, now)).count();
        assert_eq!(burst, 5);
        assert!(!try_take(&mut bucket, &rate, 1, now + Duration::from_nanos(99_999_999)));
        assert!(try_take(&mut bucket, &rate, 1, now + Duration::from_millis(100)));
        assert!(!try_take(&mut bucket, &rate, 1, now + Duration::from_millis(199)));
    }

    #[test]
    fn what_is_larger_than_a_burst_passes_when_it_is_full() {
        let (mut bucket, rate) = (Bucket::default(), rate(10, 5));
        assert!(try_take(&mut bucket, &rate, 30, Duration::ZERO));
        assert!(!try_take(&mut bucket, &rate, 1, Duration::from_millis(2_599)));
        assert!(try_take(&mut bucket, &rate, 1, Duration::from_millis(2_600)), "four of five, and this one");
    }

    proptest! {
        /// Over any span of any traffic no more passes than the rate gives, the burst and one amount that found the bucket full; and
        /// what is refused would have been too much.
        #[test]
        fn no_span_has_more_than_rate_and_burst(
            per_second in 1_u64..2_000,
            burst in 1_u64..500,
            steps in prop::collection::vec((0_u64..2_000_000_000, 1_u64..40), 1..200),
        ) {
            let rate = rate(per_second, burst);
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let mut passed: Vec<(Duration, u64)> = Vec::new();
            for (wait, amount) in steps {
                now += Duration::from_nanos(wait);
                // By the plain definition: tokens, filled since the last look.
                let mut tokens = i128::from(burst) * SECOND as i128;
                let mut last = Duration::ZERO;
                for (at, taken) in &passed {
                    let filled = (*at - last).as_nanos() as i128 * i128::from(per_second);
                    tokens = (tokens + filled).min(i128::from(burst) * SECOND as i128) - i128::from(*taken) * SECOND as i128;
                    last = *at;
                }
                let filled = (now - last).as_nanos() as i128 * i128::from(per_second);
                tokens = (tokens + filled).min(i128::from(burst) * SECOND as i128);
                let full = tokens == i128::from(burst) * SECOND as i128;
                let enough = full || tokens >= i128::from(amount) * SECOND as i128;
                prop_assert_eq!(try_take(&mut bucket, &rate, amount, now), enough);
                if enough {
                    passed.push((now, amount));
                }
            }
            for (i, (from, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, amount) in &passed[i..] {
                    sum += u128::from(*amount);
                    let allowed = (*at - *from).as_nanos() * u128::from(per_second) + u128::from(burst.max(40)) * SECOND;
                    prop_assert!(sum * SECOND <= allowed + 40 * SECOND);
                }
            }
        }
    }
}
