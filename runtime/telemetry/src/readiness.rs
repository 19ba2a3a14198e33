//! Whether a role is ready: latches that its parts release as they come up.
//!
//! What enters: a latch per part, released once, and the word that the role is stopping. What leaves: ready or not, and
//! which parts are waited for. Knows no peers: a role without its peers is ready and buffers.

use std::sync::Arc;

use tokio::sync::watch;

/// The readiness of one role. Cloning shares it. Without latches it is ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Parts not up yet, in the order in which they asked for a latch.
    waiting: Vec<(u64, &'static str)>,
    next: u64,
    stopping: bool,
}

/// One part's promise to come up. Dropping it unreleased keeps the role not ready: the part did not come up.
#[derive(Debug)]
#[must_use = "a latch that is never released keeps the role not ready"]
pub struct Latch {
    readiness: Readiness,
    id: u64,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Readiness {
    /// Makes the role wait for `part`, such as `grpc`.
    pub fn latch(&self, part: &'static str) -> Latch {
        let mut id = 0;
        self.state.send_modify(|state| {
            id = state.next;
            state.next += 1;
            state.waiting.push((id, part));
        });
        Latch { readiness: self.clone(), id }
    }

    /// Not ready from now on: the role is stopping.
    pub fn stopping(&self) {
        self.state.send_modify(|state| state.stopping = true);
    }

    /// Whether every part is up and the role is not stopping.
    pub fn is_ready(&self) -> bool {
        let state = self.state.borrow();
        state.waiting.is_empty() && !state.stopping
    }

    /// What is missing, for people: the parts waited for, or `stopping`. Empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let state = self.state.borrow();
        if state.stopping { vec!["stopping"] } else { state.waiting.iter().map(|&(_, part)| part).collect() }
    }

    /// Waits until every part is up. Returns `false` when the role stops instead.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&self) -> bool {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| state.stopping || state.waiting.is_empty()).await;
        settled.is_ok_and(|state| !state.stopping)
    }
}

impl Latch {
    /// The part is up.
    pub fn ready(self) {
        self.readiness.state.send_modify(|state| state.waiting.retain(|&(id, _)| id != self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latch_must_be_released() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (grpc, cache) = (readiness.latch("grpc"), readiness.latch("cache"));
        assert_eq!(readiness.missing(), ["grpc", "cache"]);
        grpc.ready();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing(), ["cache"]);
        cache.ready();
        assert!(readiness.is_ready());
        assert!(readiness.missing().is_empty());
    }

    #[test]
    fn two_latches_of_one_name_are_two_parts() {
        let readiness = Readiness::default();
        let (one, other) = (readiness.latch("grpc"), readiness.latch("grpc"));
        one.ready();
        assert_eq!(readiness.missing(), ["grpc"]);
        other.ready();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_latch_that_is_dropped_is_a_part_that_did_not_come_up() {
        let readiness = Readiness::default();
        drop(readiness.latch("grpc"));
        assert_eq!(readiness.missing(), ["grpc"]);
    }

    #[test]
    fn stopping_is_not_ready_at_once_and_for_good() {
        let readiness = Readiness::default();
        let latch = readiness.latch("grpc");
        readiness.stopping();
        latch.ready();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.missing(), ["stopping"]);
    }

    #[tokio::test]
    async fn those_who_wait_learn_of_ready_and_of_stopping() {
        let readiness = Readiness::default();
        let latch = readiness.latch("grpc");
        let (up, ()) = tokio::join!(readiness.wait(), async { latch.ready() });
        assert!(up);

        let latch = readiness.latch("late");
        let (up, ()) = tokio::join!(readiness.wait(), async { readiness.stopping() });
        assert!(!up);
        drop(latch);
    }
}
