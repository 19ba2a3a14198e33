//! Producers of a load: `Ingress.BatchSender` streams that follow a schedule.
//!
//! What enters: a [`Schedule`] and a [`Template`]. What leaves: batches, each when it is due. Never waits for a reply: when flow
//! control holds a batch up, the next ones are late too, and all of them keep the moment at which they were due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;
use futures_util::{Stream, StreamExt, stream};
use proto::codec::{Codec, MAX_MESSAGE, Write};
use proto::hydrant::v1::IngressAck;
use proto::raw::wire;
use proto::v2;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{IntoStreamingRequest, Status};

use crate::clock::{Alarm, Clock};
use crate::payload::{Load, Template};
use crate::schedule::Schedule;

/// The method that takes batches.
const BATCH_SENDER: &str = "/loggregator.v2.Ingress/BatchSender";

/// The method that acknowledges them.
const ACKNOWLEDGED: &str = "/hydrant.v1.Ingress/Stream";

/// One sender: one source instance, one stream.
#[derive(Debug)]
pub struct Sender {
    /// Where to. Several senders may share a channel.
    pub channel: Channel,
    /// Whether its batches are acknowledged.
    pub acknowledged: bool,
    /// Its envelope.
    pub template: Arc<Template>,
    /// When to send how many.
    pub schedule: Schedule,
    /// Nanoseconds since the Unix epoch after which nothing more is sent, whatever the schedule still holds.
    pub end: u64,
    /// What can be seen of it while it runs.
    pub sent: Arc<Sent>,
}

/// What a sender has handed to its connection.
#[derive(Debug, Default)]
pub struct Sent {
    /// Envelopes.
    pub issued: AtomicU64,
    /// The most that a batch was behind its schedule, in nanoseconds.
    pub latest: AtomicU64,
    /// When the server had taken everything: its answer, nanoseconds since the Unix epoch.
    pub ended: AtomicU64,
}

impl Sender {
    /// Sends everything, closes the stream and waits for the answer. A `stop` resets the stream, so that a peer that takes nothing
    /// cannot hold a run up.
    ///
    /// # Errors
    /// What the server answered, if not OK; CANCELLED after a `stop`; INTERNAL without a descriptor for the timer.
    pub async fn send(self, clock: Clock, stop: CancellationToken) -> Result<(), Status> {
        let alarm = Alarm::new(clock).map_err(|error| Status::internal(format!("no timer: {error}")))?;
        let Self { channel, acknowledged, template, schedule, end, sent } = self;
        let seen = Arc::clone(&sent);
        let feed = Feed { template, schedule, end, sent, alarm, clock, index: 0 }.into_stream();
        let call = async move {
            if acknowledged { acknowledged_sender(channel, feed).await } else { batch_sender(channel, feed).await }
        };
        let answer = stop.run_until_cancelled(call).await;
        seen.ended.store(clock.now(), Ordering::Relaxed);
        answer.unwrap_or_else(|| Err(Status::cancelled("the run's time is over")))
    }
}

/// Opens a `BatchSender` stream for `loads` and waits until it has ended.
///
/// # Errors
/// What the server answered, if not OK.
pub async fn batch_sender<L: Write + Sync>(
    channel: Channel,
    loads: impl Stream<Item = L> + Send + 'static,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel).max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = Codec::<L, v2::BatchSenderResponse>::default();
    grpc.client_streaming(loads.into_streaming_request(), PathAndQuery::from_static(BATCH_SENDER), codec).await?;
    Ok(())
}

/// Opens an acknowledged stream for `loads` and reads acknowledgements until it has ended.
///
/// # Errors
/// What the server answered, if not OK; DATA_LOSS when it ended without having acknowledged every frame.
pub async fn acknowledged_sender(
    channel: Channel,
    loads: impl Stream<Item = Load> + Send + 'static,
) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel).max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = Codec::<Frame, IngressAck>::default();
    let sent = Arc::<AtomicU64>::default();
    let count = Arc::clone(&sent);
    let frames = loads.map(move |load| Frame { sequence: count.fetch_add(1, Ordering::Relaxed) + 1, load });
    let path = PathAndQuery::from_static(ACKNOWLEDGED);
    let mut acks = grpc.streaming(frames.into_streaming_request(), path, codec).await?.into_inner();
    let mut acknowledged = 0;
    while let Some(ack) = acks.message().await? {
        acknowledged = ack.sequence;
    }
    match sent.load(Ordering::Relaxed) {
        sent if sent == acknowledged => Ok(()),
        sent => Err(Status::data_loss(format!("{acknowledged} of {sent} frames were acknowledged"))),
    }
}

/// A `hydrant.v1.IngressFrame` around a load.
struct Frame {
    sequence: u64,
    load: Load,
}

impl Write for Frame {
    fn size(&self) -> usize {
        1 + wire::varint_len(self.sequence) + wire::bytes_len(self.load.size())
    }

    fn write(&self, into: &mut impl BufMut) {
        wire::put_varint(into, 1 << 3);
        wire::put_varint(into, self.sequence);
        wire::put_varint(into, 2 << 3 | 2);
        wire::put_varint(into, self.load.size() as u64);
        self.load.write(into);
    }
}

/// What a stream draws its batches from.
struct Feed {
    template: Arc<Template>,
    schedule: Schedule,
    end: u64,
    sent: Arc<Sent>,
    alarm: Alarm,
    clock: Clock,
    index: u64,
}

impl Feed {
    fn into_stream(self) -> impl Stream<Item = Load> + Send + 'static {
        stream::unfold(self, |mut feed| async move { feed.next().await.map(|load| (load, feed)) })
    }

    async fn next(&mut self) -> Option<Load> {
        let due = self.schedule.batch(self.index)?;
        let now = match due.at {
            Some(at) => self.alarm.until(at).await.ok()?,
            None => self.clock.now(),
        };
        if now > self.end {
            return None;
        }
        let scheduled = due.at.unwrap_or(now);
        self.index += 1;
        self.sent.issued.fetch_add(due.count.into(), Ordering::Relaxed);
        self.sent.latest.fetch_max(now - scheduled, Ordering::Relaxed);
        Some(self.template.load(due.first, due.count, scheduled))
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;
    use crate::payload::{Found, Reader, Shape, for_each_envelope};

    fn feed(rate: u64, total: u64, end: u64, clock: Clock) -> Feed {
        let shape = Shape::default();
        Feed {
            template: Template::new(1, 0, "s", "0", shape),
            schedule: Schedule {
                start: clock.now(),
                rate: NonZeroU64::new(rate),
                total,
                batch: NonZeroU32::new(10).unwrap(),
                senders: NonZeroU32::new(1).unwrap(),
                sender: 0,
            },
            end,
            sent: Arc::default(),
            alarm: Alarm::new(clock).unwrap(),
            clock,
            index: 0,
        }
    }

    #[tokio::test]
    async fn envelopes_carry_the_moment_they_were_due_even_when_late() {
        let clock = Clock::start();
        let feed = feed(1_000_000, 25, u64::MAX, clock);
        let (start, sent) = (feed.schedule.start, Arc::clone(&feed.sent));
        let loads: Vec<Load> = feed.into_stream().collect().await;

        let mut reader = Reader::new(1, Shape::default());
        let mut marks = Vec::new();
        for load in &loads {
            let mut bytes = Vec::new();
            load.write(&mut bytes);
            for_each_envelope(&bytes, |envelope| match reader.read(envelope) {
                Found::Ours(mark) => marks.push((mark.sequence, mark.scheduled - start)),
                other => panic!("{other:?}"),
            })
            .unwrap();
        }
        assert_eq!(marks, (0..25).map(|i| (i, i / 10 * 10_000)).collect::<Vec<_>>());
        assert_eq!(sent.issued.load(Ordering::Relaxed), 25);
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_end() {
        let clock = Clock::start();
        let feed = feed(0, u64::MAX, clock.now(), clock);
        let sent = Arc::clone(&feed.sent);
        assert!(clock.now() > feed.end);
        assert_eq!(feed.into_stream().count().await, 0);
        assert_eq!(sent.issued.load(Ordering::Relaxed), 0);
    }
}
