//! Whether a drain delivers: what is told to people, once per change and not too often.
//!
//! Pure, but for [`Teller`]: successes and failures enter, changes of state leave.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use parking_lot::Mutex;
use telemetry::Throttle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::metrics::DrainMetrics;
use crate::status::State;
use crate::syslog::client::Refusal;

/// A drain that has failed for this long is failing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two failures that are told. A receiver may come and go many times a second.
const INTERVAL: Duration = Duration::from_secs(10);

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) state: State,
    /// Whether people are told. They are told of a recovery if they were told of the failure.
    pub(crate) tell: bool,
}

/// The state, and since when attempts have failed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: State,
    failing_since: Option<Instant>,
    last_told: Option<Instant>,
    /// The worst that was told since the last success.
    told: Option<State>,
}

impl Health {
    /// An attempt failed at `now`, and with `hopeless` for a reason that does not go away by itself.
    pub(crate) fn failed(&mut self, now: Instant, hopeless: bool) -> Option<Change> {
        let since = *self.failing_since.get_or_insert(now);
        let long = now.saturating_duration_since(since) >= PATIENCE;
        let state = self.change(match (hopeless, long) {
            (true, _) => State::Broken,
            (false, true) => State::Failing,
            (false, false) => State::Degraded,
        })?;
        let worse = self.told.is_none_or(|told| (told as u8) < state as u8);
        let rested = self.last_told.is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL);
        let tell = worse && (state != State::Degraded || rested);
        if tell {
            self.last_told = Some(now);
            self.told = Some(state);
        }
        Some(Change { state, tell })
    }

    /// An attempt succeeded.
    pub(crate) fn succeeded(&mut self) -> Option<Change> {
        self.failing_since = None;
        let state = self.change(State::Ok)?;
        Some(Change { state, tell: self.told.take().is_some() })
    }

    /// The state if it is another one.
    fn change(&mut self, state: State) -> Option<State> {
        let changed = self.state != state;
        self.state = state;
        changed.then_some(state)
    }
}

/// Tells the world how a drain does. All that deliver for it share one.
pub(crate) struct Teller {
    name: String,
    url: String,
    metrics: DrainMetrics,
    /// Guards the health; held per attempt.
    health: Mutex<Health>,
}

impl Teller {
    /// `url` is the drain's, anonymised.
    pub(crate) fn new(name: String, url: String, metrics: DrainMetrics) -> Self {
        Self { name, url, metrics, health: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn metrics(&self) -> &DrainMetrics {
        &self.metrics
    }

    pub(crate) fn succeeded(&self) {
        if let Some(Change { state, tell }) = self.health.lock().succeeded() {
            self.metrics.state(state);
            if tell {
                info!(drain = %self.name, url = %self.url, "Drain delivers again");
            }
        }
    }

    /// An attempt failed, and with `hopeless` for a reason that does not go away by itself.
    pub(crate) fn failed(&self, error: impl Display, hopeless: bool) {
        self.metrics.status().failed(error.to_string());
        let Some(Change { state, tell }) = self.health.lock().failed(Instant::now(), hopeless) else { return };
        self.metrics.state(state);
        match state {
            _ if !tell => {}
            State::Degraded => warn!(drain = %self.name, url = %self.url, %error, "Drain does not deliver, retrying"),
            _ => error!(drain = %self.name, url = %self.url, %error, "Drain does not deliver"),
        }
    }

    /// The destination took a request, but not all of it, or says something about it.
    pub(crate) fn rejected(&self, items: u64, said: &str) {
        static SAID: Throttle = Throttle::every(Duration::from_secs(10));
        let text = match (items, said) {
            (0, said) => format!("the destination took everything and says: {said}"),
            (items, "") => format!("the destination rejected {items} of a request, for good"),
            (items, said) => format!("the destination rejected {items} of a request, for good: {said}"),
        };
        if let Some(suppressed) = SAID.pass() {
            warn!(drain = %self.name, url = %self.url, rejected = items, said, suppressed, "Destination did not take all of a request");
        }
        self.metrics.status().failed(text);
    }
}

/// Whether an attempt failed for a reason that stays until somebody changes something, here or at the receiver.
pub(crate) fn needs_a_change(error: &io::Error) -> bool {
    match Refusal::of(error) {
        Some(refusal) => refusal.needs_a_change(),
        // A certificate that does not fit, or something that does not speak the protocol; an address that is not allowed.
        None => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::PermissionDenied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut health = Health::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let told = |state| Some(Change { state, tell: true });
        assert_eq!(health.succeeded(), None);
        assert_eq!(health.failed(start, false), told(State::Degraded));
        assert_eq!(health.failed(after(29), false), None);
        assert_eq!(health.failed(after(30), false), told(State::Failing));
        assert_eq!(health.failed(after(300), false), None);
        assert_eq!(health.succeeded(), told(State::Ok));
        assert_eq!(health.failed(after(301), false), told(State::Degraded), "patience starts anew");
    }

    #[test]
    fn what_is_worse_is_told_at_once_and_what_is_better_is_not() {
        let mut health = Health::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let change = |state, tell| Some(Change { state, tell });
        assert_eq!(health.failed(start, false), change(State::Degraded, true));
        assert_eq!(health.failed(after(1), true), change(State::Broken, true));
        assert_eq!(health.failed(after(31), false), change(State::Failing, false));
        assert_eq!(health.failed(after(32), true), change(State::Broken, false));
        assert_eq!(health.succeeded(), change(State::Ok, true));
    }

    #[test]
    fn a_receiver_that_comes_and_goes_is_told_of_every_10_s() {
        let mut health = Health::default();
        let start = Instant::now();
        let mut told = 0;
        for tenth in 0..300 {
            let now = start + Duration::from_millis(100 * tenth);
            let changes = [health.failed(now, false), health.succeeded()];
            assert_eq!(
                changes.map(|change| change.map(|change| change.state)),
                [Some(State::Degraded), Some(State::Ok)]
            );
            told += changes.iter().flatten().filter(|change| change.tell).count();
        }
        assert_eq!(told, 6, "three failures in 30 s, and their ends");
    }
}
