//! The stream to one consumer beside the agent: opened again when it ends, with what has waited meanwhile.
//!
//! What enters: what its ring holds. What leaves: batches over `Ingress/BatchSender`. Nothing is taken out of the ring before a stream is
//! there to carry it; what a broken stream had taken is lost, as with the original.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::{Bounds, Reader, Writer};
use futures_util::stream;
use proto::raw::{Outgoing, Selection};
use proto::v2::ingress_client::IngressClient;
use telemetry::Throttle;
use tokio::sync::Mutex;
use tokio::time::Instant;
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

/// How often a consumer is tried that nothing more will come for.
const LAST_TRIES: u32 = 3;

/// A stream that lived so long was well.
const LASTING: Duration = Duration::from_secs(30);

pub(super) struct Link {
    address: Address,
    channel: Channel,
    /// Says whether more will come.
    ring: Writer<Selection>,
    queue: Arc<Mutex<Queue>>,
    metrics: ForwardMetrics,
}

/// The ring's end, and what was taken out of it and not sent. Locked by the stream that sends it, for as long as that lasts.
struct Queue {
    ring: Reader<Selection>,
    ready: VecDeque<Outgoing>,
}

impl Link {
    pub(super) fn new(
        address: Address,
        options: &ChannelOptions,
        (ring, reader): (Writer<Selection>, Reader<Selection>),
        metrics: ForwardMetrics,
    ) -> Self {
        let queue = Arc::new(Mutex::new(Queue { ring: reader, ready: VecDeque::new() }));
        Self { channel: transport::channel(&address, options), address, ring, queue, metrics }
    }

    /// Sends until the ring is closed and empty, or until `cut`. Once it is closed, a consumer that cannot be reached is given up.
    pub(super) async fn run(self, cut: CancellationToken) {
        static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
        let mut backoff = Backoff::between(Duration::from_millis(100), Duration::from_secs(5), Backoff::random_seed());
        let mut last_tries = 0;
        loop {
            let began = Instant::now();
            let Some(outcome) = cut.run_until_cancelled(self.send()).await else { return };
            let Some(queue) = cut.run_until_cancelled(self.queue.lock()).await else { return };
            let is_over = self.ring.is_closed() && queue.is_empty();
            drop(queue);
            last_tries += u32::from(self.ring.is_closed());
            if is_over || last_tries > LAST_TRIES {
                return;
            }
            if began.elapsed() > LASTING {
                backoff.reset();
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
    /// True if nothing is left. What waits stays in the ring, where the oldest leaves first.
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.ring.counters().envelopes == 0
    }

    /// The next message; nothing once the ring is closed and empty.
    async fn next(&mut self) -> Option<Outgoing> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(batch);
            }
            let mut parts = Vec::new();
            if self.ring.recv_many(MESSAGE, &mut parts).await == 0 {
                return None;
            }
            self.ready.extend(Outgoing::bounded(parts, MESSAGE.envelopes.get(), MESSAGE.bytes.get()));
        }
    }
}
