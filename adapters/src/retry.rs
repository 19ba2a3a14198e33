//! What is retried, how long to wait in between, and when an envelope is given up.
//!
//! Pure: failures and successes enter, waits leave; the caller sleeps and counts. One value per drain.

use std::time::Duration;

use transport::Backoff;

/// How a drain retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// A random wait of up to 100 ms, doubled with each failure up to 15 s; at most 1.5 s when the destination's machine answers that
    /// nobody listens, so that it is noticed soon when somebody does. An envelope that has waited 15 minutes, or 24 hours on disk, is
    /// dropped as `expired`.
    #[default]
    Jittered,
    /// That of the original agents: 1, 1, 2, 4 … 8192 ms, then seven times 15 s. After these 22 attempts, some two minutes, the
    /// envelope at the front is dropped as `retry_exhausted` and the next one has its turn (contract: syslog drains §3.1).
    Original,
    /// That of the original agents to a collector: 1, 2, 4, 8, 16, 30 and 30 s; then the request is dropped as `retry_exhausted`
    /// (contract: agents §3.3).
    #[serde(skip)]
    OriginalOtlp,
}

/// The longest wait of either schedule.
const LONGEST: Duration = Duration::from_secs(15);
/// The longest wait after a refused connection, which costs both sides next to nothing.
const LONGEST_REFUSED: Duration = Duration::from_millis(1500);
/// Attempts of [`Schedule::Original`].
const ATTEMPTS: u32 = 22;
/// Waits of [`Schedule::OriginalOtlp`], and the longest of them.
const OTLP_WAITS: u32 = 7;
const LONGEST_OTLP: Duration = Duration::from_secs(30);
/// How long an envelope may wait under [`Schedule::Jittered`].
const EXPIRY: Duration = Duration::from_secs(15 * 60);
/// The same for one that is on disk.
const EXPIRY_ON_DISK: Duration = Duration::from_secs(24 * 60 * 60);

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// To wait before the next attempt.
    pub wait: Duration,
    /// After the wait, the envelope at the front is given up.
    pub give_up: bool,
}

/// Where in its schedule a drain is.
#[derive(Debug)]
pub struct Retry {
    schedule: Schedule,
    backoff: Backoff,
    failures: u32,
}

impl Retry {
    /// At the start of `schedule`. Equal seeds give equal waits.
    pub fn new(schedule: Schedule, seed: u64) -> Self {
        Self { schedule, backoff: Backoff::between(Duration::from_millis(100), LONGEST, seed), failures: 0 }
    }

    /// An attempt failed; `refused` when the destination's machine answered that nobody listens.
    pub fn failed(&mut self, refused: bool) -> Next {
        let attempt = self.failures;
        self.failures += 1;
        match self.schedule {
            Schedule::Jittered => {
                let longest = if refused { LONGEST_REFUSED } else { LONGEST };
                Next { wait: self.backoff.next_wait().min(longest), give_up: false }
            }
            Schedule::Original => {
                let wait = Duration::from_millis(1 << attempt.saturating_sub(1).min(14)).min(LONGEST);
                let give_up = self.failures == ATTEMPTS;
                if give_up {
                    self.failures = 0;
                }
                Next { wait, give_up }
            }
            Schedule::OriginalOtlp if attempt == OTLP_WAITS => {
                self.failures = 0;
                Next { wait: Duration::ZERO, give_up: true }
            }
            Schedule::OriginalOtlp => {
                Next { wait: Duration::from_secs(1 << attempt).min(LONGEST_OTLP), give_up: false }
            }
        }
    }

    /// An attempt succeeded: the next failure is a first one.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }

    /// How long an envelope may wait for its delivery, in memory or on disk; `None` when only attempts count.
    pub fn expiry(&self, on_disk: bool) -> Option<Duration> {
        (self.schedule == Schedule::Jittered).then_some(if on_disk { EXPIRY_ON_DISK } else { EXPIRY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jittered_waits_stay_below_bounds_that_double_to_15_s() {
        let mut retry = Retry::new(Schedule::Jittered, 3);
        let bounds = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000];
        for bound in bounds {
            let next = retry.failed(false);
            assert!(next.wait < Duration::from_millis(bound) && !next.give_up, "{next:?} of {bound}");
        }
        assert!((0..20).all(|_| retry.failed(true).wait <= LONGEST_REFUSED));
        retry.succeeded();
        assert!(retry.failed(false).wait < Duration::from_millis(100));
        assert_eq!(retry.expiry(false), Some(Duration::from_secs(900)));
    }

    #[test]
    fn the_original_schedule_to_a_collector_is_that_of_the_contract() {
        let mut retry = Retry::new(Schedule::OriginalOtlp, 0);
        for _ in 0..2 {
            let waits: Vec<_> =
                (0..7).map(|_| retry.failed(true)).map(|next| (next.wait.as_secs(), next.give_up)).collect();
            assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30].map(|wait| (wait, false)));
            assert_eq!(retry.failed(false), Next { wait: Duration::ZERO, give_up: true });
        }
    }

    #[test]
    fn the_original_schedule_is_that_of_the_contract() {
        let mut retry = Retry::new(Schedule::Original, 0);
        let all: Vec<_> = (0..22).map(|_| retry.failed(false)).collect();
        let waits: Vec<_> = all.iter().map(|next| u64::try_from(next.wait.as_millis()).unwrap()).collect();
        assert_eq!(waits[..6], [1, 1, 2, 4, 8, 16]);
        assert_eq!(waits[13..], [4096, 8192, 15_000, 15_000, 15_000, 15_000, 15_000, 15_000, 15_000]);
        assert_eq!(waits.iter().sum::<u64>(), 121_384);
        assert!(all[21].give_up && all[..21].iter().all(|next| !next.give_up));
        assert_eq!(retry.failed(false), Next { wait: Duration::from_millis(1), give_up: false });
        assert_eq!(retry.expiry(true), None);
    }
}
