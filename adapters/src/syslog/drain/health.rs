//! Whether a drain delivers: what is told to people, once per change.
//!
//! Pure: successes and failures enter, changes of state leave.

use std::time::Duration;

use tokio::time::Instant;

/// A drain that has failed for this long is failing.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// The state, and since when attempts have failed.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: State,
    failing_since: Option<Instant>,
}

impl Health {
    /// An attempt failed at `now`. Returns the state if it changed.
    pub(super) fn failed(&mut self, now: Instant) -> Option<State> {
        let since = *self.failing_since.get_or_insert(now);
        let long = now.saturating_duration_since(since) >= PATIENCE;
        self.change(if long { State::Failing } else { State::Retrying })
    }

    /// An attempt succeeded. Returns the state if it changed.
    pub(super) fn succeeded(&mut self) -> Option<State> {
        self.failing_since = None;
        self.change(State::Delivering)
    }

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
        assert_eq!(health.succeeded(), None);
        assert_eq!(health.failed(start), Some(State::Retrying));
        assert_eq!(health.failed(after(29)), None);
        assert_eq!(health.failed(after(30)), Some(State::Failing));
        assert_eq!(health.failed(after(300)), None);
        assert_eq!(health.succeeded(), Some(State::Delivering));
        assert_eq!(health.failed(after(301)), Some(State::Retrying), "patience starts anew");
    }
}
