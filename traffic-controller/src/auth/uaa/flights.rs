//! Questions under way. Whoever asks what is being asked already waits for that answer: a page that reads one source twenty times is one
//! question, not twenty.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::Denied;

type Answer<V> = Option<Result<V, Denied>>;

/// Those under way, as many as callers wait for.
pub(super) struct Flights<K: Hash + Eq, V> {
    /// Held to find, begin or end one.
    under_way: Mutex<HashMap<K, watch::Receiver<Answer<V>>>>,
}

/// A question that its holder asks. Dropping it ends it, answered or not.
struct Own<'a, K: Hash + Eq, V> {
    flights: &'a Flights<K, V>,
    asked: K,
    answer: watch::Sender<Answer<V>>,
}

impl<K: Clone + Hash + Eq, V: Copy> Flights<K, V> {
    pub(super) fn new() -> Self {
        Self { under_way: Mutex::default() }
    }

    /// The answer to `asked`: that of `ask`, or of another who asks the same. Answers are told to those who wait, and then forgotten.
    ///
    /// # Cancel safety
    /// When the one who asks goes away, one of those who wait asks.
    pub(super) async fn join<F>(&self, asked: K, ask: impl FnOnce() -> F) -> Result<V, Denied>
    where
        F: Future<Output = Result<V, Denied>>,
    {
        loop {
            let mut theirs = match self.enter(&asked) {
                Ok(own) => {
                    let answer = ask().await;
                    own.answer.send_replace(Some(answer));
                    return answer;
                }
                Err(theirs) => theirs,
            };
            let answer = theirs.wait_for(Option::is_some).await.ok().and_then(|answer| *answer);
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// A question of one's own, or the answer to come of the one under way.
    fn enter(&self, asked: &K) -> Result<Own<'_, K, V>, watch::Receiver<Answer<V>>> {
        let mut under_way = self.under_way.lock();
        if let Some(theirs) = under_way.get(asked) {
            return Err(theirs.clone());
        }
        let (answer, theirs) = watch::channel(None);
        under_way.insert(asked.clone(), theirs);
        Ok(Own { flights: self, asked: asked.clone(), answer })
    }
}

impl<K: Hash + Eq, V> Drop for Own<'_, K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().remove(&self.asked);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::poll;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn one_asks_and_all_who_wait_have_the_answer() {
        let (flights, landed, asked) = (Flights::new(), Notify::new(), Cell::new(0));
        let ask = |answer: Result<char, Denied>| {
            let (landed, asked) = (&landed, &asked);
            move || async move {
                asked.set(asked.get() + 1);
                landed.notified().await;
                answer
            }
        };
        for answer in [Ok('a'), Err(Denied::Forbidden)] {
            let (one, two) = (flights.join(1, ask(answer)), flights.join(1, ask(Ok('b'))));
            let (mut one, mut two) = (pin!(one), pin!(two));
            assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
            landed.notify_one();
            assert_eq!((one.await, two.await), (answer, answer));
        }
        assert_eq!(asked.get(), 2, "a refusal is not kept for those who come later");
        assert!(flights.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn when_the_one_who_asks_goes_away_another_asks() {
        let flights = Flights::new();
        let mut two = {
            let mut one = Box::pin(flights.join(1, std::future::pending::<Result<char, Denied>>));
            let mut two = Box::pin(flights.join(1, || async { Ok('b') }));
            assert!(poll!(&mut one).is_pending() && poll!(&mut two).is_pending());
            two
        };
        assert_eq!((&mut two).await, Ok('b'));
        let other = flights.join(2, || async { Ok('c') });
        assert_eq!(other.await, Ok('c'));
    }
}
