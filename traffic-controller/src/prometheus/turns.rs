//! Whose turn it is: a few queries at once, and of one caller fewer.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::answer::Failure;

/// Queries that are evaluated at once; each may hold its samples and its answer.
const AT_ONCE: usize = 8;

/// Of these, those of one caller.
const OF_ONE: usize = 2;

/// A caller, as far as turns are concerned; nobody in particular where nobody is asked who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Option<u64>);

/// The key of whoever sends these headers.
pub(super) fn key(headers: &HeaderMap, is_anybody: bool) -> Key {
    static STATE: LazyLock<std::hash::RandomState> = LazyLock::new(Default::default);
    let shown = headers.get(header::AUTHORIZATION).or_else(|| headers.get(header::COOKIE));
    Key(shown.filter(|_| !is_anybody).map(|shown| STATE.hash_one(shown.as_bytes())))
}

/// The turns of all callers.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Of callers that have or await a turn.
    by_caller: Mutex<HashMap<Key, Arc<Semaphore>>>,
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "held")] [Option<OwnedSemaphorePermit>; 2]);

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), by_caller: Mutex::default() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Failure::Timeout`]: none until `deadline`.
    pub(super) async fn take(&self, key: Key, deadline: Instant) -> Result<Turn, Failure> {
        let own = match key {
            Key(None) => None,
            key => {
                let of_caller = {
                    let mut by_caller = self.by_caller.lock();
                    by_caller.retain(|_, of_caller| Arc::strong_count(of_caller) > 1);
                    Arc::clone(by_caller.entry(key).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE))))
                };
                Some(acquire(of_caller, deadline).await?)
            }
        };
        let of_all = acquire(Arc::clone(&self.all), deadline).await?;
        Ok(Turn([own, Some(of_all)]))
    }
}

async fn acquire(turns: Arc<Semaphore>, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
    let turn = timeout_at(deadline, turns.acquire_owned()).await.map_err(|_| Failure::Timeout)?;
    Ok(turn.expect("nobody closes the semaphore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_has_two_turns_and_leaves_the_others_theirs() {
        let turns = Turns::new();
        let soon = || Instant::now() + std::time::Duration::from_secs(1);
        let (one, other) = (Key(Some(1)), Key(Some(2)));
        let first = turns.take(one, soon()).await.unwrap();
        let _second = turns.take(one, soon()).await.unwrap();
        assert!(matches!(turns.take(one, soon()).await, Err(Failure::Timeout)));
        let _other = turns.take(other, soon()).await.unwrap();
        drop(first);
        turns.take(one, soon()).await.unwrap();
        assert!(turns.by_caller.lock().len() <= 2);
    }

    #[test]
    fn callers_are_told_apart_by_what_they_show() {
        let headers = |value: &'static str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(key(&headers("bearer a"), false), key(&headers("bearer a"), false));
        assert_ne!(key(&headers("bearer a"), false), key(&headers("bearer b"), false));
        assert_eq!(key(&headers("bearer a"), true), Key(None));
    }
}
