//! The way of envelopes to one other node: out of its ring, in batches, one under way at a time.
//!
//! What enters: loads out of the ring. What leaves: `Ingress.Send` with `local_only`, which stores them there whatever that node thinks of
//! their owner. A batch that a node does not take because it is away is sent again until it is there: what waits meanwhile is bounded by
//! the ring. A batch that may have been taken before the answer was lost comes twice.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::BytesMut;
use diode::fair;
use proto::logcache::v1;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::raw::{Outgoing, Selection};
use proto::reason::Reason;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::warn;
use transport::{Address, Backoff, Throttle};

use super::config::ClusterConfig;
use crate::metrics::ClusterMetrics;

/// Bytes in one message, at most, unless one envelope is larger: some nodes take 4 MiB.
const BATCH_BYTES: usize = 1024 * 1024;

/// How long a node may take to take a batch.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a node may answer a batch with an error that could pass, before the batch is given up.
const REFUSALS: u32 = 5;

/// Between two attempts: at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The links of a node to all others; of a node alone, none.
#[derive(Debug, Default)]
pub struct Links(pub(super) Vec<Link>);

/// The link to one.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    client: IngressClient<Channel>,
    ring: fair::Reader<Selection>,
    batch: fair::Bounds,
    age: Duration,
    /// Taken out of the ring and not delivered.
    hand: VecDeque<Outgoing>,
    backoff: Backoff,
    metrics: ClusterMetrics,
}

/// What became of an attempt.
#[derive(Debug)]
enum Outcome {
    Taken,
    /// Nobody is there, or nobody has answered.
    Away(Status),
    /// There was an answer, and it may be another one next time.
    Refused(Status),
    /// There was an answer, and it will stay.
    Never(Status),
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Away(status),
            // What our side makes of a broken connection has a source.
            Code::Unknown | Code::Internal if std::error::Error::source(&status).is_some() => Self::Away(status),
            Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => Self::Never(status),
            _ => Self::Refused(status),
        }
    }
}

/// Links that run.
#[derive(Debug)]
pub struct RunningLinks {
    task: JoinHandle<(u64, u64)>,
    cut: CancellationToken,
}

impl Links {
    /// Starts to send, on `tracker`. `stop` is when the process was told to end.
    pub fn spawn(self, tracker: &TaskTracker, stop: CancellationToken) -> RunningLinks {
        let cut = CancellationToken::new();
        RunningLinks { task: tracker.spawn(self.serve(stop, cut.clone())), cut }
    }

    /// Sends until the rings are closed and empty, or until `cut`. Returns the envelopes delivered and dropped after `stop`, which comes
    /// before.
    async fn serve(self, stop: CancellationToken, cut: CancellationToken) -> (u64, u64) {
        let Some(metrics) = self.0.first().map(|link| link.metrics.clone()) else { return (0, 0) };
        let tracker = TaskTracker::new();
        for link in self.0 {
            tracker.spawn(link.serve(cut.clone()));
        }
        tracker.close();
        stop.cancelled().await;
        let before = metrics.sums();
        tracker.wait().await;
        let after = metrics.sums();
        (after.0 - before.0, after.1 - before.1)
    }
}

impl RunningLinks {
    /// Waits until everything is sent, once [`Node::close`](crate::Node::close) has closed the rings, or `patience` is over: what is left
    /// then is dropped and counted. Returns the envelopes that were delivered and dropped after the stop.
    pub async fn end(self, patience: Duration) -> (u64, u64) {
        let Self { mut task, cut } = self;
        let ended = match timeout(patience, &mut task).await {
            Ok(ended) => ended,
            Err(_) => {
                cut.cancel();
                task.await
            }
        };
        // A panic in there has been reported where it happened.
        ended.unwrap_or_default()
    }
}

impl Link {
    pub(super) fn new(
        address: Address,
        channel: Channel,
        ring: fair::Reader<Selection>,
        config: &ClusterConfig,
        metrics: ClusterMetrics,
    ) -> Self {
        let bytes = NonZeroUsize::new(BATCH_BYTES).expect("not zero");
        Self {
            address,
            client: IngressClient::new(channel),
            ring,
            batch: fair::Bounds { envelopes: config.batch_envelopes, bytes },
            age: config.batch_age,
            hand: VecDeque::new(),
            backoff: Backoff::between(FIRST_WAIT, LONGEST_WAIT, Backoff::random_seed()),
            metrics,
        }
    }

    async fn serve(mut self, cut: CancellationToken) {
        tokio::select! {
            () = self.send_all() => {}
            () = cut.cancelled() => {}
        }
        self.ring.close();
        let mut left: usize = self.hand.iter().map(Outgoing::len).sum();
        while let Ok(load) = self.ring.try_recv() {
            left += load.len();
        }
        self.metrics.dropped(Reason::ShutdownDeadline, left as u64);
    }

    /// Sends until the ring is closed and empty.
    ///
    /// # Cancel safety
    /// What was taken out of the ring and not delivered is in the hand.
    async fn send_all(&mut self) {
        while self.gather().await {
            while let Some(batch) = self.hand.front() {
                let (count, request) = (batch.len() as u64, request(batch));
                self.deliver(count, &request).await;
                self.hand.pop_front();
            }
        }
    }

    /// Takes a batch into the hand; false when there will be none.
    async fn gather(&mut self) -> bool {
        let mut loads = Vec::new();
        let mut count = self.ring.recv_many(self.batch, &mut loads).await;
        let until = Instant::now() + self.age;
        self.hold(&mut loads);
        while count > 0
            && let Some(left) = NonZeroUsize::new(self.batch.envelopes.get().saturating_sub(count))
        {
            let limit = fair::Bounds { envelopes: left, ..self.batch };
            let Ok(more @ 1..) = timeout_at(until, self.ring.recv_many(limit, &mut loads)).await else { break };
            count += more;
            self.hold(&mut loads);
        }
        let parts = self.hand.drain(..).flat_map(Outgoing::into_parts);
        self.hand = Outgoing::bounded(parts, self.batch.envelopes.get(), self.batch.bytes.get()).into();
        count > 0
    }

    /// Puts loads into the hand at once: a wait that follows may not come back.
    fn hold(&mut self, loads: &mut Vec<Selection>) {
        self.hand.extend(loads.drain(..).map(Outgoing::from));
    }

    /// Sends a batch until it is taken or given up.
    async fn deliver(&mut self, count: u64, request: &v1::SendRequest) {
        let mut refusals = 0;
        loop {
            let sent = timeout(SEND_TIMEOUT, self.client.send(request.clone())).await;
            let outcome = match sent {
                Ok(Ok(_)) => Outcome::Taken,
                Ok(Err(status)) => status.into(),
                Err(_) => Outcome::Away(Status::deadline_exceeded("no answer in time")),
            };
            let status = match outcome {
                Outcome::Taken => {
                    self.backoff.reset();
                    return self.metrics.delivered(count);
                }
                Outcome::Never(status) => {
                    self.metrics.failed();
                    self.warn(&status, "A cache node refused a batch for good, it is dropped");
                    return self.metrics.dropped(Reason::RejectedPermanent, count);
                }
                Outcome::Refused(status) => {
                    refusals += 1;
                    status
                }
                Outcome::Away(status) => status,
            };
            self.metrics.failed();
            if refusals == REFUSALS {
                self.warn(&status, "A cache node refused a batch again and again, it is dropped");
                return self.metrics.dropped(Reason::RetryExhausted, count);
            }
            self.warn(&status, "A cache node does not take a batch, trying again");
            self.metrics.requeued(count);
            sleep(self.backoff.next_wait()).await;
        }
    }

    fn warn(&self, status: &Status, what: &'static str) {
        static TROUBLE: Throttle = Throttle::every(Duration::from_secs(10));
        if let Some(suppressed) = TROUBLE.pass() {
            let (node, code, message) = (&self.address, status.code(), status.message());
            warn!(%node, ?code, message, suppressed, what, "Sending to a cache node failed");
        }
    }
}

fn request(batch: &Outgoing) -> v1::SendRequest {
    let mut envelopes = BytesMut::with_capacity(batch.wire_len());
    batch.put(&mut envelopes);
    v1::SendRequest { envelopes: envelopes.freeze(), local_only: true }
}
