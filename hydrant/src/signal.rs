//! SIGTERM and SIGINT: the one place that knows when to stop; and what a service manager is told of it.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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

    /// At the first signal calls `stopping`, and cancels `stop` when `grace` has passed. Ends at the second, for those who will not wait.
    pub async fn cancel(mut self, stopping: impl FnOnce(), grace: Duration, stop: CancellationToken) {
        let signal = self.next().await;
        info!(signal, ?grace, "Stopping; what is on its way is delivered first");
        // Who hears of it may look at once.
        stopping();
        tell(&[NotifyState::Stopping]);
        let at_once = timeout(grace, self.next()).await.is_ok();
        stop.cancel();
        if !at_once {
            self.next().await;
        }
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// Tells the service manager, if one has started this process (systemd's `Type=notify`), that it serves; then, if asked to, that it is
/// alive, for as long as this future is polled.
pub async fn notify_ready() {
    tell(&[NotifyState::Ready]);
    let Some(watchdog) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut alive = interval((watchdog / 2).max(Duration::from_millis(1)));
    loop {
        alive.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "The service manager cannot be told: NOTIFY_SOCKET names no socket of one");
    }
}
