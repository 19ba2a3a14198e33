//! Whether a drain delivers: what is told to people, once per change and not too often.
//!
//! Pure: successes and failures enter, changes of state leave.

use std::time::Duration;

use tokio::time::Instant;

/// A drain that has failed for this long is failing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two failures that are told. A receiver may come and go many times a second.
const INTERVAL: Duration = Duration::from_secs(10);

/// The state of a drain, as `hydrant_drain_state` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// The last attempt succeeded, or there was none.
    #[default]
    Delivering = 0,
    /// The last attempt failed.
    Retrying = 1,
    /// All attempts of the last 30 s failed.
    Failing = 2,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) state: State,
    /// Whether people are told. They are told of a recovery if they were told of the failure.
    pub(super) tell: bool,
}

/// The state, and since when attempts have failed.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: State,
    failing_since: Option<Instant>,
    last_told: Option<Instant>,
    failure_told: bool,
}

impl Health {
    /// An attempt failed at `now`.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Change> {
        let since = *self.failing_since.get_or_insert(now);
        let long = now.saturating_duration_since(since) >= PATIENCE;
        let state = self.change(if long { State::Failing } else { State::Retrying })?;
        let tell = long || self.last_told.is_none_or(|told| now.saturating_duration_since(told) >= INTERVAL);
        if tell {
            self.last_told = Some(now);
            self.failure_told = true;
        }
        Some(Change { state, tell })
    }

    /// An attempt succeeded.
    pub(super) fn succeeded(&mut self) -> Option<Change> {
        self.failing_since = None;
        let state = self.change(State::Delivering)?;
        Some(Change { state, tell: std::mem::take(&mut self.failure_told) })
    }

    /// The state if it is another one.
    fn change(&mut self, state: State) -> Option<State> {
        let changed = self.state != state;
        self.state = state;
        changed.then_some(state)
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
        assert_eq!(health.failed(start), told(State::Retrying));
        assert_eq!(health.failed(after(29)), None);
        assert_eq!(health.failed(after(30)), told(State::Failing));
        assert_eq!(health.failed(after(300)), None);
        assert_eq!(health.succeeded(), told(State::Delivering));
        assert_eq!(health.failed(after(301)), told(State::Retrying), "patience starts anew");
    }

    #[test]
    fn a_receiver_that_comes_and_goes_is_told_of_every_10_s() {
        let mut health = Health::default();
        let start = Instant::now();
        let mut told = 0;
        for tenth in 0..300 {
            let now = start + Duration::from_millis(100 * tenth);
            let changes = [health.failed(now), health.succeeded()];
            assert_eq!(
                changes.map(|change| change.map(|change| change.state)),
                [Some(State::Retrying), Some(State::Delivering)]
            );
            told += changes.iter().flatten().filter(|change| change.tell).count();
        }
        assert_eq!(told, 6, "three failures in 30 s, and their ends");
    }
}
