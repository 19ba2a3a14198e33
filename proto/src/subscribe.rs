//! A consumer's stream from one doppler: `hydrant.v1.Egress` where the doppler knows it, else `loggregator.v2.Egress`.
//!
//! What enters: what to ask for, and what is known of the doppler. What leaves: encoded batches, as they come. It opens one stream and
//! reads it to its end; when to open the next is for the caller. Of a doppler that is stopping it says so only once the caller has asked
//! for more after its last batch: by then the caller has that batch.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::codec::{MAX_MESSAGE, Wire};
use crate::hydrant::v1::egress_client::EgressClient as SubscribeClient;
use crate::hydrant::v1::{Gap, SubscribeFrame, SubscribeRequest};
use crate::start::Acquaintance;
use crate::v2;
use crate::v2::egress_client::EgressClient;

/// Changes that may wait to be sent.
const CHANGES: usize = 16;

/// An open stream.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    /// With the end of our side, whose drop half-closes it.
    Subscribed(Streaming<SubscribeFrame>, Option<mpsc::Sender<SubscribeRequest>>),
    Plain(Streaming<Wire>),
}

/// What a stream brings.
#[derive(Debug)]
pub enum Event {
    /// An encoded `EnvelopeBatch`.
    Batch(Bytes),
    /// What is missing here: without a reason, envelopes of the doppler's past that left its cache before they could be sent.
    Gap(Gap),
    /// The change of this number holds for all that is published from now on.
    Changed(u64),
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
        (age, quiet): (Duration, Duration),
    ) -> Result<Self, Status> {
        if let Some(stream) = Self::open_changing(channel.clone(), request, known, (age, quiet), &[]).await? {
            return Ok(stream);
        }
        let mut plain = EgressClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self(Kind::Plain(plain.batched_receiver(request.clone()).await?.into_inner())))
    }

    /// The same where [`Self::change`] can change what it asks for; nothing if the doppler knows no such streams. `ages` has nothing, or
    /// for each selector how far back it goes at most.
    ///
    /// # Errors
    /// What the doppler answered, or why it cannot be reached.
    pub async fn open_changing(
        channel: Channel,
        request: &v2::EgressBatchRequest,
        known: &Acquaintance,
        (age, quiet): (Duration, Duration),
        ages: &[Duration],
    ) -> Result<Option<Self>, Status> {
        let subscribe = SubscribeRequest {
            shard_id: request.shard_id.clone(),
            deterministic_name: request.deterministic_name.clone(),
            selectors: request.selectors.clone(),
            start: Some(known.start(age, quiet)),
            max_ages_ms: ages.iter().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).collect(),
            ..SubscribeRequest::default()
        };
        let (requests, outgoing) = mpsc::channel(CHANGES);
        // There is room.
        let _sent = requests.try_send(subscribe);
        let mut client = SubscribeClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        match client.subscribe(ReceiverStream::new(outgoing)).await {
            Ok(response) => Ok(Some(Self(Kind::Subscribed(response.into_inner(), Some(requests))))),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Whether [`Self::change`] does something.
    pub fn changes(&self) -> bool {
        matches!(self.0, Kind::Subscribed(_, Some(_)))
    }

    /// Asks for `added` too, then no more for `removed`. Once [`Event::Changed`] of `number` has come, that holds for all that is published.
    /// It does nothing on a stream that does not change, or once the end has come.
    ///
    /// # Cancel safety
    /// Not sent when cancelled.
    pub async fn change(&self, number: u64, added: Vec<v2::Selector>, removed: Vec<v2::Selector>) {
        if let Kind::Subscribed(_, Some(requests)) = &self.0 {
            let change = SubscribeRequest { selectors: added, removed, change: number, ..SubscribeRequest::default() };
            // Of a stream that has broken, `next` tells.
            let _sent = requests.send(change).await;
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
            Kind::Subscribed(frames, requests) => loop {
                let Some(frame) = frames.message().await? else { return Ok(None) };
                if frame.epoch != 0 {
                    known.met(frame.epoch);
                }
                if frame.end {
                    // Everything before has been taken by whoever asks for more.
                    drop(requests.take());
                    return Ok(Some(Event::End));
                }
                if let Some(gap) = frame.gap {
                    return Ok(Some(Event::Gap(gap)));
                }
                if frame.changed != 0 {
                    return Ok(Some(Event::Changed(frame.changed)));
                }
                if !frame.batch.is_empty() {
                    return Ok(Some(Event::Batch(frame.batch)));
                }
            },
        }
    }
}
