//! gRPC: `loggregator.v2.Ingress` for everybody, the acknowledged `hydrant.v1.Ingress` for those who wait rather than lose.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use proto::codec::{MAX_MESSAGE, Wire, own};
use proto::hydrant::v1::{Dropped, IngressAck, IngressFrame};
use proto::raw::{Batch, Limits, Refused};
use proto::reason::Reason;
use proto::v2::ingress_server::Ingress;
use proto::v2::{BatchSenderResponse, IngressResponse, SendResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::debug;

use super::Intake;
use crate::parcel::{Fate, Ticket};

/// Frames of one acknowledged stream whose fate is open. More are not read: their sender waits.
const OPEN_FRAMES: usize = 64;

/// Messages read from one stream after the stop: what was on its way when it came. A producer that never pauses ends there too.
const LAST_MESSAGES: u32 = 1_000;

/// Both ingress services.
#[derive(Clone, Debug)]
pub(crate) struct IngressService {
    intake: Intake,
    stop: CancellationToken,
    /// Counts open streams: the agent has taken its last envelope when it is empty.
    streams: TaskTracker,
}

impl IngressService {
    pub(crate) fn new(intake: Intake, stop: CancellationToken, streams: TaskTracker) -> Self {
        Self { intake, stop, streams }
    }

    fn open<T>(&self, messages: Streaming<T>) -> Result<Producer<T>, Status> {
        // Counted before the look at `stop`: a stop waits for whoever has not seen it.
        let open = self.streams.token();
        self.running()?;
        self.intake.metrics.ingress_streams.increment(1.0);
        Ok(Producer {
            messages,
            intake: self.intake.clone(),
            stop: self.stop.clone(),
            last: LAST_MESSAGES,
            _open: open,
        })
    }

    fn running(&self) -> Result<(), Status> {
        if self.stop.is_cancelled() { Err(Status::unavailable("this agent is stopping; try again")) } else { Ok(()) }
    }
}

/// One producer's stream.
struct Producer<T> {
    messages: Streaming<T>,
    intake: Intake,
    stop: CancellationToken,
    /// Messages that may still be read after the stop.
    last: u32,
    _open: TaskTrackerToken,
}

impl<T> Producer<T> {
    /// The next message; `None` when the producer has finished, or when the agent is stopping and nothing more has arrived.
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
        let stage = &self.intake.metrics.stage;
        stage.received(1);
        stage.dropped(Reason::Oversize.as_str(), 1);
        Status::resource_exhausted(format!("received message larger than max ({MAX_MESSAGE} bytes)"))
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.intake.metrics.ingress_streams.decrement(1.0);
    }
}

#[tonic::async_trait]
impl Ingress for IngressService {
    async fn sender(&self, request: Request<Streaming<Wire>>) -> Result<Response<IngressResponse>, Status> {
        let mut producer = self.open(request.into_inner())?;
        while let Some(Wire(envelope)) = producer.next().await? {
            producer.intake.take(Batch::check_one(envelope, &Limits::default()));
        }
        Ok(Response::new(IngressResponse {}))
    }

    async fn batch_sender(&self, request: Request<Streaming<Wire>>) -> Result<Response<BatchSenderResponse>, Status> {
        let mut producer = self.open(request.into_inner())?;
        while let Some(Wire(batch)) = producer.next().await? {
            producer.intake.take(Batch::check(batch, &Limits::default()));
        }
        Ok(Response::new(BatchSenderResponse {}))
    }

    async fn send(&self, request: Request<Wire>) -> Result<Response<SendResponse>, Status> {
        let _open = self.streams.token();
        self.running()?;
        self.intake.take(Batch::check(request.into_inner().0, &Limits::default()));
        Ok(Response::new(SendResponse {}))
    }
}

#[tonic::async_trait]
impl proto::hydrant::v1::ingress_server::Ingress for IngressService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<IngressAck, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<IngressFrame>>) -> Result<Response<Self::StreamStream>, Status> {
        let producer = self.open(request.into_inner())?;
        let (report, fates) = mpsc::channel(OPEN_FRAMES);
        let acknowledged = Acknowledged {
            producer: Some(producer),
            report,
            fates,
            open: 0,
            next: 1,
            settled: BTreeMap::new(),
            ack: IngressAck::default(),
            queue_full: 0,
            refused: Refused::default(),
        };
        Ok(Response::new(stream::unfold(acknowledged, Acknowledged::step).boxed()))
    }
}

/// An acknowledged stream: frames in, their fate out once they have left the ring.
struct Acknowledged {
    /// Until its last frame.
    producer: Option<Producer<IngressFrame>>,
    report: mpsc::Sender<Fate>,
    fates: mpsc::Receiver<Fate>,
    /// Frames whose fate is open.
    open: usize,
    /// The sequence of the next frame.
    next: u64,
    /// Delivered and dropped of the frames settled ahead of an open one.
    settled: BTreeMap<u64, (u64, u64)>,
    ack: IngressAck,
    queue_full: u64,
    refused: Refused,
}

impl Acknowledged {
    /// The next acknowledgement; the end once the producer has finished and every fate is told.
    async fn step(mut self) -> Option<(Result<IngressAck, Status>, Self)> {
        loop {
            let reading = self.open < OPEN_FRAMES;
            tokio::select! {
                biased;
                Some(fate) = self.fates.recv(), if self.open > 0 => {
                    let mut known = self.settle(fate);
                    while let Ok(fate) = self.fates.try_recv() {
                        known &= self.settle(fate);
                    }
                    if self.advance() {
                        return Some((Ok(self.ack.clone()), self));
                    }
                    if !known {
                        let status = Status::unavailable("this agent stopped before it could send everything");
                        return Some((Err(status), self));
                    }
                }
                frame = read(self.producer.as_mut()), if self.producer.is_some() && reading => match frame {
                    Ok(Some(frame)) => if let Err(status) = self.take(frame) {
                        return Some((Err(status), self));
                    },
                    Ok(None) => self.producer = None,
                    Err(status) => {
                        self.producer = None;
                        return Some((Err(status), self));
                    }
                },
                else => return None,
            }
        }
    }

    fn take(&mut self, frame: IngressFrame) -> Result<(), Status> {
        if frame.sequence != self.next {
            let (got, due) = (frame.sequence, self.next);
            return Err(Status::invalid_argument(format!(
                "frame {got} arrived where frame {due} was due; count frames from 1"
            )));
        }
        let Some(producer) = &self.producer else { return Ok(()) };
        let checked = Batch::check(own(frame.batch), &Limits::default());
        let report = self.report.clone();
        self.refused += producer.intake.take_frame(checked, |envelopes| Ticket::new(frame.sequence, envelopes, report));
        (self.open, self.next) = (self.open + 1, self.next + 1);
        Ok(())
    }

    /// Enters a fate; false if it is unknown.
    fn settle(&mut self, fate: Fate) -> bool {
        self.open -= 1;
        match fate {
            Fate::Settled { sequence, delivered, dropped } => {
                self.settled.insert(sequence, (delivered, dropped));
                true
            }
            Fate::Unknown { .. } => false,
        }
    }

    /// Moves the acknowledged mark past every settled frame; true if it moved.
    fn advance(&mut self) -> bool {
        let before = self.ack.sequence;
        while let Some((delivered, dropped)) = self.settled.remove(&(self.ack.sequence + 1)) {
            self.ack.sequence += 1;
            self.ack.delivered += delivered;
            self.queue_full += dropped;
        }
        let queue_full = (self.queue_full > 0).then_some((Reason::QueueFull, self.queue_full));
        self.ack.dropped = self
            .refused
            .by_reason()
            .chain(queue_full)
            .map(|(reason, envelopes)| Dropped { reason: reason.as_str().to_owned(), envelopes })
            .collect();
        self.ack.sequence > before
    }
}

async fn read(producer: Option<&mut Producer<IngressFrame>>) -> Result<Option<IngressFrame>, Status> {
    match producer {
        Some(producer) => producer.next().await,
        None => Ok(None),
    }
}
