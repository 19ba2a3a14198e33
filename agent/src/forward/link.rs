//! The stream to one consumer beside the agent: opened again when it ends, with what has waited meanwhile.
//!
//! What enters: what its ring holds. What leaves: batches over `Ingress/BatchSender`. Nothing is taken out of the ring before a stream is
//! there to carry it; what a broken stream had taken is lost, as with the original.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::{Bounds, Reader};
use futures_util::stream;
use proto::raw::{Outgoing, Selection};
use proto::v2::ingress_client::IngressClient;
use telemetry::Throttle;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tracing::warn;
use transport::{Address, Backoff, ChannelOptions, reason};

use super::ForwardMetrics;

/// What goes into one message.
const MESSAGE: Bounds = Bounds {
    envelopes: NonZeroUsize::new(1_000).expect("not zero"),
    bytes: NonZeroUsize::new(1024 * 1024).expect("not zero"),
};

pub(super) struct Link {
    address: Address,
    channel: Channel,
    queue: Arc<Mutex<Queue>>,
    metrics: ForwardMetrics,
}

/// The ring's end, and what was taken out of it and not sent. Locked by the stream that sends it, for as long as that lasts.
struct Queue {
    ring: Reader<Selection>,
    ready: VecDeque<Outgoing>,
    /// The ring is closed and empty.
    is_over: bool,
}

impl Link {
    pub(super) fn new(
        address: Address,
        options: &ChannelOptions,
        ring: Reader<Selection>,
        metrics: ForwardMetrics,
    ) -> Self {
        let queue = Arc::new(Mutex::new(Queue { ring, ready: VecDeque::new(), is_over: false }));
        Self { channel: transport::channel(&address, options), address, queue, metrics }
    }

    /// Sends until the ring is closed and empty, or until `cut`.
    pub(super) async fn run(self, cut: CancellationToken) {
        static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
        let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(5), Backoff::random_seed());
        loop {
            let Some(outcome) = cut.run_until_cancelled(self.send()).await else { return };
            if self.queue.lock().await.is_over {
                return;
            }
            self.metrics.failed();
            if let (Err(status), Some(suppressed)) = (&outcome, AWAY.pass()) {
                let error = reason(status);
                warn!(address = %self.address, error, suppressed, "Consumer's stream ended; trying again");
            }
            if cut.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await.is_none() {
                return;
            }
        }
    }

    /// One stream, to its end.
    async fn send(&self) -> Result<(), Status> {
        let queue = Arc::clone(&self.queue).lock_owned().await;
        let metrics = self.metrics.clone();
        let batches = stream::unfold((queue, metrics), |(mut queue, metrics)| async move {
            let batch = queue.next().await?;
            metrics.sent(batch.len());
            Some((batch, (queue, metrics)))
        });
        IngressClient::new(self.channel.clone()).batch_sender(batches).await.map(drop)
    }
}

impl Queue {
    /// The next message; nothing once the ring is closed and empty.
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(batch);
            }
            let mut parts = Vec::new();
            if self.ring.recv_many(MESSAGE, &mut parts).await == 0 {
                self.is_over = true;
                return None;
            }
            self.ready.extend(Outgoing::bounded(parts, MESSAGE.envelopes.get(), MESSAGE.bytes.get()));
        }
    }
}
