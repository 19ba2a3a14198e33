//! SIGTERM and SIGINT: the one place that knows when to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Asked to stop.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Listens for both from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Cancels `stop` at the first signal. Ends at the second, for those who will not wait.
    pub async fn cancel(mut self, stop: CancellationToken) {
        let signal = self.next().await;
        info!(signal, "Stopping; what is on its way is delivered first");
        stop.cancel();
        self.next().await;
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}
