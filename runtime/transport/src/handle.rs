//! The handle of a running server: its addresses, and the way to stop it.
//!
//! What enters: a server's future, made from the token that tells it to stop. What leaves: what the server returned
//! once it had drained. The only place that starts a task outside a `TaskTracker`: a server's root task is what waits
//! for the tracker.

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server that runs in a task of its own: `A` its addresses, `D` what it says after draining, `E` why it failed.
///
/// Dropping the handle tells the server to stop and does not wait; it then drains by itself.
#[derive(Debug)]
pub struct Handle<A, D, E> {
    addrs: A,
    stop: CancellationToken,
    task: JoinHandle<Result<D, E>>,
    ended: Option<Result<D, E>>,
    _cancel_on_drop: DropGuard,
}

impl<A, D, E> Handle<A, D, E>
where
    D: Send + 'static,
    E: Send + 'static,
{
    /// Starts `serve`, given the token that will tell it to stop. Must be called within a tokio runtime.
    pub fn spawn<F>(addrs: A, serve: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<D, E>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let server = serve(stop.clone());
        #[expect(clippy::disallowed_methods, reason = "a server's root task: it is what waits for its TaskTracker")]
        let task = tokio::spawn(server);
        Self { addrs, _cancel_on_drop: stop.clone().drop_guard(), stop, task, ended: None }
    }

    /// The addresses that the server listens on.
    pub fn addrs(&self) -> A
    where
        A: Clone,
    {
        self.addrs.clone()
    }

    /// Tells the server to stop and does not wait. Calling it again changes nothing.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the server has ended, by itself or because it was told to. What it returned is kept for
    /// [`shutdown`](Self::shutdown).
    ///
    /// # Panics
    ///
    /// The server's task panicked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ended(&mut self) {
        if self.ended.is_none() {
            let outcome = (&mut self.task).await;
            self.ended = Some(unwrap_task(outcome));
        }
    }

    /// Tells the server to stop, waits until it has drained and returns what it said.
    ///
    /// # Errors
    ///
    /// Whatever the server returned.
    ///
    /// # Panics
    ///
    /// The server's task panicked.
    pub async fn shutdown(mut self) -> Result<D, E> {
        self.stop.cancel();
        self.ended().await;
        self.ended.take().expect("ended() has just set it")
    }
}

fn unwrap_task<T>(outcome: Result<T, tokio::task::JoinError>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => panic!("a server's root task is aborted only when its runtime shuts down"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn shutdown_returns_what_the_server_said_after_draining() {
        let handle = Handle::spawn(7, |stop| async move {
            stop.cancelled().await;
            tokio::task::yield_now().await;
            Ok::<_, Infallible>("drained")
        });
        assert_eq!(handle.addrs(), 7);
        assert_eq!(handle.shutdown().await.unwrap(), "drained");
    }

    #[tokio::test]
    async fn dropping_the_handle_stops_the_server() {
        let (told, hears) = oneshot::channel();
        let handle = Handle::spawn((), |stop| async move {
            stop.cancelled().await;
            told.send(()).expect("the test listens");
            Ok::<_, Infallible>(())
        });
        drop(handle);
        hears.await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_fails_by_itself_is_noticed_and_keeps_its_error() {
        let mut handle = Handle::spawn((), |_stop| async move { Err::<(), _>("no more sockets") });
        handle.ended().await;
        handle.ended().await;
        assert_eq!(handle.shutdown().await, Err("no more sockets"));
    }

    #[tokio::test]
    #[should_panic(expected = "the server broke")]
    async fn a_panic_reaches_the_one_who_waits() {
        async fn broken() -> Result<(), Infallible> {
            panic!("the server broke")
        }
        let handle = Handle::spawn((), |_stop| broken());
        let _ = handle.shutdown().await;
    }
}
