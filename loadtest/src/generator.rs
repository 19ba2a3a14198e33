//! Producers of a load: `Ingress.BatchSender` streams that follow a schedule.
//!
//! What enters: a [`Schedule`] and a [`Template`]. What leaves: batches, each when it is due. Never waits for a reply: when flow
//! control holds a batch up, the next ones are late too, and all of them keep the moment at which they were due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, stream};
use proto::codec::{Codec, MAX_MESSAGE};
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

/// One sender: one source instance, one stream.
#[derive(Debug)]
pub struct Sender {
    /// Where to. Several senders may share a channel.
    pub channel: Channel,
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
}

impl Sender {
    /// Sends everything, closes the stream and waits for the answer. A `stop` resets the stream, so that a peer that takes nothing
    /// cannot hold a run up.
    ///
    /// # Errors
    /// What the server answered, if not OK; CANCELLED after a `stop`; INTERNAL without a descriptor for the timer.
    pub async fn send(self, clock: Clock, stop: CancellationToken) -> Result<(), Status> {
        let alarm = Alarm::new(clock).map_err(|error| Status::internal(format!("no timer: {error}")))?;
        let Self { channel, template, schedule, end, sent } = self;
        let feed = Feed { template, schedule, end, sent, alarm, clock, index: 0 };
        let call = batch_sender(channel, feed.into_stream());
        match stop.run_until_cancelled(call).await {
            Some(answer) => answer,
            None => Err(Status::cancelled("the run's time is over")),
        }
    }
}

/// Opens a `BatchSender` stream for `loads` and waits until it has ended.
///
/// # Errors
/// What the server answered, if not OK.
pub async fn batch_sender(channel: Channel, loads: impl Stream<Item = Load> + Send + 'static) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel).max_encoding_message_size(MAX_MESSAGE);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = Codec::<Load, v2::BatchSenderResponse>::default();
    grpc.client_streaming(loads.into_streaming_request(), PathAndQuery::from_static(BATCH_SENDER), codec).await?;
    Ok(())
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

    use futures_util::StreamExt;
    use proto::codec::Write;

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
