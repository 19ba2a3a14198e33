//! What producers send: `loggregator.v2.Ingress` for everybody, the acknowledged `hydrant.v1.Ingress` for hydrant's own agents.
//!
//! What enters: messages as bytes. What leaves: checked batches, published. A bad envelope is counted and costs only itself. It never
//! waits for a consumer: rings drop, streams do not stall.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use proto::codec::{MAX_MESSAGE, Wire, own};
use proto::hydrant::v1::{Dropped, IngressAck, IngressFrame};
use proto::raw::{Batch, Limits, Refused};
use proto::reason::Reason;
use proto::v2::ingress_server::Ingress;
use proto::v2::{BatchSenderResponse, IngressResponse, SendResponse};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::debug;

use crate::router::{Publisher, Router};

/// Messages read from one stream after the stop: what was on its way when it came. A producer that never pauses ends there too.
const LAST_MESSAGES: u32 = 1_000;

/// Both ingress services.
#[derive(Clone, Debug)]
pub(crate) struct IngressService {
    router: Router,
    stop: CancellationToken,
    /// Counts open ingress streams: the doppler has taken its last envelope when it is empty.
    streams: TaskTracker,
}

impl IngressService {
    pub(crate) fn new(router: Router, stop: CancellationToken, streams: TaskTracker) -> Self {
        Self { router, stop, streams }
    }

    fn open<T>(&self, messages: Streaming<T>) -> Result<Intake<T>, Status> {
        // Counted before the look at `stop`: a stop waits for whoever has not seen it.
        let open = self.streams.token();
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("this doppler is stopping; send to another"));
        }
        self.router.metrics().ingress_streams.increment(1.0);
        let publisher = self.router.publisher();
        let router = self.router.clone();
        Ok(Intake { messages, publisher, router, stop: self.stop.clone(), last: LAST_MESSAGES, _open: open })
    }
}

/// One stream from a producer.
struct Intake<T> {
    messages: Streaming<T>,
    publisher: Publisher,
    router: Router,
    stop: CancellationToken,
    /// Messages that may still be read after the stop.
    last: u32,
    _open: TaskTrackerToken,
}

impl<T> Intake<T> {
    /// The next message; `None` when the producer has finished, or when the doppler is stopping and nothing more has arrived.
    async fn next(&mut self) -> Result<Option<T>, Status> {
        if self.stop.is_cancelled() {
            if self.last == 0 {
                return Ok(None);
            }
            self.last -= 1;
        }
        let next = tokio::select! {
            // Messages first: the stream ends only where nothing more has arrived.
            biased;
            message = self.messages.message() => message,
            () = self.stop.cancelled() => Ok(None),
        };
        next.map_err(|status| self.broken(status))
    }

    /// What a producer is told whose stream broke. A message over the limit counts as one envelope: nobody has looked inside.
    fn broken(&self, status: Status) -> Status {
        debug!(%status, "Ingress stream broke");
        if status.code() != Code::OutOfRange {
            return status;
        }
        let stage = &self.router.metrics().stage;
        stage.received(1);
        stage.dropped(Reason::Oversize.as_str(), 1);
        Status::resource_exhausted(format!("received message larger than max ({MAX_MESSAGE} bytes)"))
    }

    fn publish(&mut self, (batch, refused): (Batch, Refused)) {
        let stage = &self.router.metrics().stage;
        stage.received(batch.len() as u64 + refused.total());
        for (reason, count) in refused.by_reason() {
            stage.dropped(reason.as_str(), count);
        }
        self.publisher.publish(&batch);
    }
}

impl<T> Drop for Intake<T> {
    fn drop(&mut self) {
        self.router.metrics().ingress_streams.decrement(1.0);
    }
}

#[tonic::async_trait]
impl Ingress for IngressService {
    async fn sender(&self, request: Request<Streaming<Wire>>) -> Result<Response<IngressResponse>, Status> {
        let mut intake = self.open(request.into_inner())?;
        while let Some(Wire(envelope)) = intake.next().await? {
            intake.publish(Batch::check_one(envelope, &Limits::default()));
        }
        Ok(Response::new(IngressResponse {}))
    }

    async fn batch_sender(&self, request: Request<Streaming<Wire>>) -> Result<Response<BatchSenderResponse>, Status> {
        let mut intake = self.open(request.into_inner())?;
        while let Some(Wire(batch)) = intake.next().await? {
            intake.publish(Batch::check(batch, &Limits::default()));
        }
        Ok(Response::new(BatchSenderResponse {}))
    }

    async fn send(&self, _: Request<Wire>) -> Result<Response<SendResponse>, Status> {
        // What the original's router answers too (contract: loggregator v2 §2).
        Err(Status::unimplemented("this endpoint is not yet implemented"))
    }
}

#[tonic::async_trait]
impl proto::hydrant::v1::ingress_server::Ingress for IngressService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<IngressAck, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<IngressFrame>>) -> Result<Response<Self::StreamStream>, Status> {
        let acknowledged = Acknowledged {
            intake: self.open(request.into_inner())?,
            ack: IngressAck::default(),
            refused: Refused::default(),
        };
        Ok(Response::new(stream::unfold(acknowledged, Acknowledged::step).boxed()))
    }
}

/// An acknowledged stream: frames in, their fate out.
struct Acknowledged {
    intake: Intake<IngressFrame>,
    ack: IngressAck,
    refused: Refused,
}

impl Acknowledged {
    /// Publishes the next frame and acknowledges it.
    async fn step(mut self) -> Option<(Result<IngressAck, Status>, Self)> {
        let frame = match self.intake.next().await {
            Ok(frame) => frame?,
            Err(status) => return Some((Err(status), self)),
        };
        if frame.sequence != self.ack.sequence + 1 {
            let expected = self.ack.sequence + 1;
            let message =
                format!("frame {} arrived where frame {expected} was due; count frames from 1", frame.sequence);
            return Some((Err(Status::invalid_argument(message)), self));
        }
        let (batch, refused) = Batch::check(own(frame.batch), &Limits::default());
        self.ack.sequence = frame.sequence;
        self.ack.delivered += batch.len() as u64;
        self.refused += refused;
        self.ack.dropped = self
            .refused
            .by_reason()
            .map(|(reason, envelopes)| Dropped { reason: reason.as_str().to_owned(), envelopes })
            .collect();
        self.intake.publish((batch, refused));
        Some((Ok(self.ack.clone()), self))
    }
}
