//! One clock for both ends of a load, and an alarm that rings on time.
//!
//! Wall time is read once; what follows is monotonic. The alarm is a timer of the kernel, as tokio's own round up to the millisecond:
//! at the rates and latencies measured here that rounding would be most of the result.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Nanoseconds since the Unix epoch that never run backwards. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: u64,
    started: Instant,
}

impl Clock {
    /// Reads the wall clock, once.
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { epoch: nanos(since), started: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> u64 {
        self.epoch + nanos(self.started.elapsed())
    }
}

/// Whole nanoseconds; five centuries fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wakes one task at given moments, to some microseconds.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<Descriptor>,
    clock: Clock,
}

impl Alarm {
    /// Makes the timer. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new(clock: Clock) -> std::io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "sound here: the descriptor is owned and never replaced; its successor is unsafe to call"
        )]
        let timer = AsyncFd::new(Descriptor(timer))?;
        Ok(Self { timer, clock })
    }

    /// Waits until `due`, nanoseconds since the Unix epoch, and returns the time it then is. A `due` in the past does not wait.
    ///
    /// # Errors
    /// The runtime is shutting down.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn until(&mut self, due: u64) -> std::io::Result<u64> {
        loop {
            let now = self.clock.now();
            if now >= due {
                return Ok(now);
            }
            let wait = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(due - now)));
            self.timer.get_ref().0.set(wait, TimerSetTimeFlags::empty())?;
            let mut ready = self.timer.readable().await?;
            // Setting the timer cleared an earlier ring; the next look at the clock says whether this one is due.
            ready.clear_ready();
        }
    }
}

/// What [`AsyncFd`] asks of a descriptor.
#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn alarm_never_rings_early_and_does_not_wait_for_the_past() {
        let clock = Clock::start();
        let mut alarm = Alarm::new(clock).unwrap();
        for wait in [0, 1_000, 300_000, 2_000_000] {
            let due = clock.now() + wait;
            assert!(alarm.until(due).await.unwrap() >= due);
        }
        assert!(alarm.until(0).await.unwrap() > 0);
    }

    #[tokio::test]
    async fn an_abandoned_wait_does_not_disturb_the_next() {
        let clock = Clock::start();
        let mut alarm = Alarm::new(clock).unwrap();
        let far = clock.now() + 3_600_000_000_000;
        tokio::select! {
            biased;
            _ = alarm.until(far) => panic!("an hour is not over"),
            () = tokio::task::yield_now() => {}
        }
        let due = clock.now() + 1_000_000;
        assert!(alarm.until(due).await.unwrap() >= due);
    }
}
