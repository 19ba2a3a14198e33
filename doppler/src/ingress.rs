//! What producers send: `loggregator.v2.Ingress` for everybody, `plumbing.DopplerIngestor` for those that speak v1, the acknowledged
//! `hydrant.v1.Ingress` for hydrant's own agents.
//!
//! What enters: messages as bytes. What leaves: checked batches, published. A bad envelope is counted and costs only itself. It never
//! waits for a consumer: rings drop, streams do not stall.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use prost::Message as _;
use proto::codec::{MAX_MESSAGE, Wire, own};
use proto::hydrant::v1::{Dropped, IngressAck, IngressFrame, Sender};
use proto::plumbing::doppler_ingestor_server::DopplerIngestor;
use proto::plumbing::{EnvelopeData, PushResponse};
use proto::raw::{Batch, Limits, Refused};
use proto::reason::Reason;
use proto::v2::ingress_server::Ingress;
use proto::v2::{BatchSenderResponse, IngressResponse, SendResponse};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::debug;

use self::marks::{Mark, Marks};
use crate::router::{Publisher, Router};

mod marks;

/// Messages read from one stream after the stop: what was on its way when it came. A producer that never pauses ends there too.
const LAST_MESSAGES: u32 = 1_000;

/// For what came before a flush to leave the rings, and longer than any consumer that reads takes.
const FLUSH: Duration = Duration::from_millis(400);

/// Acknowledgements wait for each other this long: each costs as much as a small batch. Far less than what makes a sender wonder.
const ACK_WITHIN: Duration = Duration::from_millis(5);
/// Frames acknowledged together.
const ACK_FRAMES: u32 = 32;

/// v1 payloads published together: those that have arrived together.
const TOGETHER: usize = 100;

/// All ingress services.
#[derive(Clone, Debug)]
pub(crate) struct IngressService {
    router: Router,
    marks: Marks,
    stop: CancellationToken,
    /// Counts ingress streams that are read: the doppler has taken its last envelope when it is empty.
    streams: TaskTracker,
    /// Streams that the stop ends are held until this is cancelled: when consumers have what was in the rings. Their senders go on with
    /// another doppler at the end of their stream, and so what goes there is not seen before what came here.
    released: CancellationToken,
}

impl IngressService {
    pub(crate) fn new(
        router: Router,
        stop: CancellationToken,
        streams: TaskTracker,
        released: CancellationToken,
    ) -> Self {
        Self { router, marks: Marks::default(), stop, streams, released }
    }

    /// `held` streams end, at a stop, only when consumers have what was taken.
    fn open<T>(&self, messages: Streaming<T>, held: bool) -> Result<Intake<T>, Status> {
        // Counted before the look at `stop`: a stop waits for whoever has not seen it.
        let open = self.streams.token();
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("this doppler is stopping; send to another"));
        }
        self.router.metrics().ingress_streams.increment(1.0);
        Ok(Intake {
            messages,
            publisher: self.router.publisher(),
            router: self.router.clone(),
            stop: self.stop.clone(),
            released: held.then(|| self.released.clone()),
            last: LAST_MESSAGES,
            open: Some(open),
        })
    }
}

/// One stream from a producer.
struct Intake<T> {
    messages: Streaming<T>,
    publisher: Publisher,
    router: Router,
    stop: CancellationToken,
    released: Option<CancellationToken>,
    /// Messages that may still be read after the stop.
    last: u32,
    /// Until the last message has been read.
    open: Option<TaskTrackerToken>,
}

impl<T> Intake<T> {
    /// The next message; `None` when the producer has finished, or when the doppler is stopping, nothing more has arrived, and consumers
    /// have what was taken.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn next(&mut self) -> Result<Option<T>, Status> {
        if !self.stop.is_cancelled() {
            let next = tokio::select! {
                // Messages first: the stream ends only where nothing more has arrived.
                biased;
                message = self.messages.message() => Some(message),
                () = self.stop.cancelled() => None,
            };
            if let Some(next) = next {
                return next.map_err(|status| self.broken(status));
            }
        }
        self.next_of_the_last().await
    }

    async fn next_of_the_last(&mut self) -> Result<Option<T>, Status> {
        if self.last > 0 && self.open.is_some() {
            self.last -= 1;
            match self.messages.message().now_or_never() {
                Some(Ok(Some(message))) => return Ok(Some(message)),
                Some(Ok(None)) => return Ok(None),
                Some(Err(status)) => return Err(self.broken(status)),
                None => {}
            }
        }
        self.open = None;
        if let Some(released) = &self.released {
            released.cancelled().await;
        }
        Ok(None)
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
        let mut intake = self.open(request.into_inner(), false)?;
        while let Some(Wire(envelope)) = intake.next().await? {
            intake.publish(Batch::check_one(envelope, &Limits::default()));
        }
        Ok(Response::new(IngressResponse {}))
    }

    async fn batch_sender(&self, request: Request<Streaming<Wire>>) -> Result<Response<BatchSenderResponse>, Status> {
        let mut intake = self.open(request.into_inner(), false)?;
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
impl DopplerIngestor for IngressService {
    async fn pusher(&self, request: Request<Streaming<Wire>>) -> Result<Response<PushResponse>, Status> {
        let mut intake = self.open(request.into_inner(), false)?;
        let mut payloads = Vec::with_capacity(TOGETHER);
        let mut ended = false;
        while !ended && let Some(Wire(first)) = intake.next().await? {
            let mut broken = Ok(());
            let mut next = Some(first);
            while let Some(message) = next.take() {
                // What is no such message has no payload either, and is refused as an empty one.
                payloads.push(EnvelopeData::decode(message).map(|data| data.payload).unwrap_or_default());
                if payloads.len() < TOGETHER {
                    match intake.next().now_or_never() {
                        Some(Ok(Some(Wire(more)))) => next = Some(more),
                        Some(Ok(None)) => ended = true,
                        Some(Err(status)) => broken = Err(status),
                        None => {}
                    }
                }
            }
            intake.publisher.publish_v1(&payloads);
            payloads.clear();
            broken?;
        }
        Ok(Response::new(PushResponse {}))
    }
}

#[tonic::async_trait]
impl proto::hydrant::v1::ingress_server::Ingress for IngressService {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<IngressAck, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<IngressFrame>>) -> Result<Response<Self::StreamStream>, Status> {
        let acknowledged = Acknowledged {
            intake: self.open(request.into_inner(), true)?,
            marks: self.marks.clone(),
            sender: None,
            ack: IngressAck::default(),
            refused: Refused::default(),
            owing: None,
            ended: None,
        };
        Ok(Response::new(stream::unfold(acknowledged, Acknowledged::step).boxed()))
    }
}

/// An acknowledged stream: frames in, their fate out.
struct Acknowledged {
    intake: Intake<IngressFrame>,
    marks: Marks,
    /// How far this sender's frames have been taken, if it named itself.
    sender: Option<Mark>,
    ack: IngressAck,
    refused: Refused,
    /// Since when frames wait to be acknowledged, and how many.
    owing: Option<(Instant, u32)>,
    /// How the stream ends, once what is owing has been given.
    ended: Option<Result<Option<IngressFrame>, Status>>,
}

impl Acknowledged {
    /// Takes frames until an acknowledgement is due, and gives it.
    async fn step(mut self) -> Option<(Result<IngressAck, Status>, Self)> {
        loop {
            let late = self.owing.map_or_else(Instant::now, |(since, _)| since + ACK_WITHIN);
            let frame = match self.ended.take() {
                Some(ended) => ended,
                None => tokio::select! {
                    biased;
                    frame = self.intake.next() => frame,
                    () = sleep_until(late), if self.owing.is_some() => return Some(self.acknowledged()),
                },
            };
            let at_once = match frame {
                Ok(Some(frame)) => match self.take_frame(frame).await {
                    Ok(at_once) => at_once,
                    Err(status) => {
                        self.ended = Some(Err(status));
                        self.owing.is_some()
                    }
                },
                // What was taken is acknowledged before the stream ends.
                ended if self.owing.is_some() => {
                    self.ended = Some(ended);
                    true
                }
                Ok(None) => return None,
                Err(status) => return Some((Err(status), self)),
            };
            if at_once || self.owing.is_some_and(|(_, frames)| frames >= ACK_FRAMES) {
                return Some(self.acknowledged());
            }
        }
    }

    fn acknowledged(mut self) -> (Result<IngressAck, Status>, Self) {
        self.owing = None;
        (Ok(self.ack.clone()), self)
    }

    /// Takes one frame. True when it is to be acknowledged at once.
    async fn take_frame(&mut self, frame: IngressFrame) -> Result<bool, Status> {
        let at_once = match frame {
            IngressFrame { sender: Some(sender), sequence, .. } => {
                self.greet(sender, sequence)?;
                true
            }
            IngressFrame { flush: true, sequence, .. } => {
                let _settled = timeout(FLUSH, self.intake.router.flushed()).await;
                self.take(sequence, Bytes::new())?;
                true
            }
            IngressFrame { sequence, batch, .. } => {
                self.take(sequence, batch)?;
                false
            }
        };
        let (since, frames) = self.owing.unwrap_or_else(|| (Instant::now(), 0));
        self.owing = Some((since, frames + 1));
        Ok(at_once)
    }

    /// The first frame of a sender that names itself: it learns what need not be sent again.
    fn greet(&mut self, sender: Sender, sequence: u64) -> Result<(), Status> {
        if self.sender.is_some() || self.ack.sequence > 0 {
            return Err(Status::invalid_argument("a sender names itself in its first frame only"));
        }
        let mark = self.marks.of(sender);
        // One that is not known here, or not any more, goes on from where it says.
        self.ack.sequence = *mark.lock().get_or_insert(sequence);
        self.sender = Some(mark);
        Ok(())
    }

    fn take(&mut self, sequence: u64, batch: Bytes) -> Result<(), Status> {
        match self.sender.clone() {
            None if sequence == self.ack.sequence + 1 => self.publish(batch),
            None => return Err(out_of_turn(sequence, self.ack.sequence + 1)),
            Some(mark) => {
                let mut mark = mark.lock();
                let taken = mark.unwrap_or_default();
                let due = taken.saturating_add(1);
                if sequence > due {
                    return Err(out_of_turn(sequence, due));
                }
                if sequence <= taken {
                    let repeats = Batch::index(batch).0.len() as u64;
                    self.intake.router.metrics().duplicates.increment(repeats);
                } else {
                    self.publish(batch);
                    *mark = Some(sequence);
                }
            }
        }
        self.ack.sequence = self.ack.sequence.max(sequence);
        Ok(())
    }

    fn publish(&mut self, batch: Bytes) {
        let (batch, refused) = Batch::check(own(batch), &Limits::default());
        self.ack.delivered += batch.len() as u64;
        if refused.total() > 0 {
            self.refused += refused;
            let dropped =
                |(reason, envelopes): (Reason, u64)| Dropped { reason: reason.as_str().to_owned(), envelopes };
            self.ack.dropped = self.refused.by_reason().map(dropped).collect();
        }
        self.intake.publish((batch, refused));
    }
}

fn out_of_turn(sequence: u64, due: u64) -> Status {
    Status::invalid_argument(format!("frame {sequence} arrived where frame {due} was due; count frames from 1"))
}
