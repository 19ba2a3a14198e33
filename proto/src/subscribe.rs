//! A consumer's stream from one doppler: `hydrant.v1.Egress` where the doppler knows it, else `loggregator.v2.Egress`.
//!
//! What enters: what to ask for, and what is known of the doppler. What leaves: encoded batches, as they come. It opens one stream and
//! reads it to its end; when to open the next is for the caller. Of a doppler that is stopping it says so only once the caller has asked
//! for more after its last batch: by then the caller has that batch.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::codec::{MAX_MESSAGE, Wire};
use crate::hydrant::v1::egress_client::EgressClient as SubscribeClient;
use crate::hydrant::v1::{Gap, SubscribeFrame, SubscribeRequest};
use crate::start::Acquaintance;
use crate::v2;
use crate::v2::egress_client::EgressClient;

/// An open stream.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    /// With the sender that half-closes our side.
    Subscribed(Streaming<SubscribeFrame>, Option<oneshot::Sender<()>>),
    Plain(Streaming<Wire>),
}

/// What a stream brings.
#[derive(Debug)]
pub enum Event {
    /// An encoded `EnvelopeBatch`.
    Batch(Bytes),
    /// What is missing here: without a reason, envelopes of the doppler's past that left its cache before they could be sent.
    Gap(Gap),
    /// The doppler is stopping and has sent everything: the stream ends.
    End,
}

impl Stream {
    /// Opens `request` over `channel`, from where `known` says; `age` and `quiet` as in [`Acquaintance::start`].
    ///
    /// # Errors
    /// What the doppler answered, or why it cannot be reached.
    pub async fn open(
        channel: Channel,
        request: &v2::EgressBatchRequest,
        known: &Acquaintance,
        age: Duration,
        quiet: Duration,
    ) -> Result<Self, Status> {
        let subscribe = SubscribeRequest {
            shard_id: request.shard_id.clone(),
            deterministic_name: request.deterministic_name.clone(),
            selectors: request.selectors.clone(),
            start: Some(known.start(age, quiet)),
        };
        let (half_close, closed) = oneshot::channel::<()>();
        let until_closed = stream::once(closed).filter_map(|_| std::future::ready(None));
        let requests = stream::once(std::future::ready(subscribe)).chain(until_closed);
        let mut client = SubscribeClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        match client.subscribe(requests).await {
            Ok(response) => Ok(Self(Kind::Subscribed(response.into_inner(), Some(half_close)))),
            Err(status) if status.code() == Code::Unimplemented => {
                let mut plain = EgressClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
                Ok(Self(Kind::Plain(plain.batched_receiver(request.clone()).await?.into_inner())))
            }
            Err(status) => Err(status),
        }
    }

    /// What comes next; `None` at the end. `known` learns which life of the doppler this is.
    ///
    /// # Errors
    /// Why the stream broke.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self, known: &mut Acquaintance) -> Result<Option<Event>, Status> {
        match &mut self.0 {
            Kind::Plain(batches) => Ok(batches.message().await?.map(|Wire(batch)| Event::Batch(batch))),
            Kind::Subscribed(frames, half_close) => loop {
                let Some(frame) = frames.message().await? else { return Ok(None) };
                if frame.epoch != 0 {
                    known.met(frame.epoch);
                }
                if frame.end {
                    // Everything before has been taken by whoever asks for more.
                    drop(half_close.take());
                    return Ok(Some(Event::End));
                }
                if let Some(gap) = frame.gap {
                    return Ok(Some(Event::Gap(gap)));
                }
                if !frame.batch.is_empty() {
                    return Ok(Some(Event::Batch(frame.batch)));
                }
            },
        }
    }
}
