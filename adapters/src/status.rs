//! How a drain does: its state, what it delivered and dropped, and its last error.
//!
//! The drain's task writes, in plain atomics and one short lock per change of state; whoever asks reads. Never holds more of a URL than
//! its anonymised form.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use proto::reason::Reason;

use crate::metrics::REASONS;

/// The state of a drain, as `hydrant_drain_state` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The last attempt succeeded, or there was none.
    #[default]
    Ok = 0,
    /// The last attempt failed.
    Degraded = 1,
    /// All attempts of the last 30 s failed.
    Failing = 2,
    /// The last attempt failed for a reason that goes away only when somebody changes something: a certificate, a password, an address.
    /// It is still tried again.
    Broken = 3,
}

impl State {
    /// Its name in texts and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Broken => "broken",
        }
    }
}

/// The numbers of one drain, since it was made.
#[derive(Debug)]
pub(crate) struct Status {
    received: AtomicU64,
    delivered: AtomicU64,
    filtered: AtomicU64,
    uncertain: AtomicU64,
    dropped: [AtomicU64; REASONS.len()],
    /// Guards the state with its time and error, which belong together. Held per change, and per look.
    now: Mutex<Now>,
}

/// The state, since when, and why.
#[derive(Clone, Debug)]
pub(crate) struct Now {
    pub(crate) state: State,
    pub(crate) since: SystemTime,
    /// The last error, also of a drain that has recovered, and when it was.
    pub(crate) error: Option<(String, SystemTime)>,
}

/// The numbers at one moment. Each is right; together they may be an envelope apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) received: u64,
    pub(crate) delivered: u64,
    pub(crate) filtered: u64,
    pub(crate) uncertain: u64,
    /// Those that are not zero.
    pub(crate) dropped: Vec<(Reason, u64)>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            received: AtomicU64::default(),
            delivered: AtomicU64::default(),
            filtered: AtomicU64::default(),
            uncertain: AtomicU64::default(),
            dropped: Default::default(),
            now: Mutex::new(Now { state: State::Ok, since: SystemTime::now(), error: None }),
        }
    }
}

impl Status {
    pub(crate) fn received(&self, envelopes: u64) {
        self.received.fetch_add(envelopes, Relaxed);
    }

    pub(crate) fn delivered(&self, envelopes: u64) {
        self.delivered.fetch_add(envelopes, Relaxed);
    }

    pub(crate) fn filtered(&self, envelopes: u64) {
        self.filtered.fetch_add(envelopes, Relaxed);
    }

    pub(crate) fn uncertain(&self, envelopes: u64) {
        self.uncertain.fetch_add(envelopes, Relaxed);
    }

    pub(crate) fn dropped(&self, reason: Reason, envelopes: u64) {
        let place = REASONS.iter().position(|known| *known == reason);
        self.dropped[place.expect("a drain drops for the reasons listed")].fetch_add(envelopes, Relaxed);
    }

    /// Something failed. The state may stay as it is.
    pub(crate) fn failed(&self, error: String) {
        self.now.lock().error = Some((error, SystemTime::now()));
    }

    pub(crate) fn state(&self, state: State) {
        let mut now = self.now.lock();
        (now.state, now.since) = (state, SystemTime::now());
    }

    pub(crate) fn now(&self) -> Now {
        self.now.lock().clone()
    }

    pub(crate) fn numbers(&self) -> Numbers {
        let dropped = REASONS.iter().zip(&self.dropped).map(|(reason, count)| (*reason, count.load(Relaxed)));
        Numbers {
            received: self.received.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            uncertain: self.uncertain.load(Relaxed),
            dropped: dropped.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_add_up_and_reasons_without_losses_are_left_out() {
        let status = Status::default();
        status.received(5);
        status.delivered(2);
        status.filtered(1);
        status.dropped(Reason::Expired, 1);
        status.dropped(Reason::Expired, 1);
        let dropped = vec![(Reason::Expired, 2)];
        assert_eq!(status.numbers(), Numbers { received: 5, delivered: 2, filtered: 1, uncertain: 0, dropped });
    }

    #[test]
    fn the_last_error_outlives_the_recovery() {
        let status = Status::default();
        assert_eq!((status.now().state, status.now().error), (State::Ok, None));
        status.failed("refused".to_owned());
        status.state(State::Degraded);
        status.state(State::Ok);
        assert_eq!(status.now().state.as_str(), "ok");
        assert_eq!(status.now().error.map(|(text, _)| text).as_deref(), Some("refused"));
    }
}
