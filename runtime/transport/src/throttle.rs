//! Keeps a repeated warning from filling the log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one message through per interval and counts those it holds back. One per call site, usually a `static`:
///
/// ```
/// # use std::time::Duration;
/// # use hydrant_transport::Throttle;
/// static UNREADABLE: Throttle = Throttle::every(Duration::from_secs(10));
/// if let Some(suppressed) = UNREADABLE.pass() {
///     tracing::warn!(suppressed, "Datagram is not statsd");
/// }
/// ```
///
/// Never locks, allocates or waits; being held back costs a clock reading and two atomic operations.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    /// Made at the first call, as a `static` has no clock.
    started: OnceLock<Instant>,
    /// When the next message may pass, in milliseconds after `started`.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// At most one message per `interval`.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, started: OnceLock::new(), next: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether the message may be told now: `Some` of how many were held back since the last one that was.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        self.pass_at(now.saturating_duration_since(*self.started.get_or_init(|| now)))
    }

    fn pass_at(&self, now: Duration) -> Option<u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let after = millis(now.saturating_add(self.interval)).max(1);
        // Of several callers at once, one passes.
        let passes = millis(now) >= next
            && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if passes {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_per_interval_and_the_rest_is_counted() {
        let throttle = Throttle::every(Duration::from_secs(10));
        let at = |millis| throttle.pass_at(Duration::from_millis(millis));
        assert_eq!(at(0), Some(0));
        assert_eq!((at(1), at(5_000), at(9_999)), (None, None, None));
        assert_eq!(at(10_000), Some(3));
        assert_eq!(at(10_001), None);
        assert_eq!(at(60_000), Some(1));
    }

    #[test]
    fn of_many_callers_at_once_one_passes() {
        let throttle = Throttle::every(Duration::from_secs(3600));
        let passed: usize = std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| throttle.pass().is_some()).count())).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
        assert_eq!(throttle.suppressed.load(Ordering::Relaxed), 3999);
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_clock_of_the_runtime() {
        let throttle = Throttle::every(Duration::from_secs(10));
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(throttle.pass(), Some(1));
    }
}
