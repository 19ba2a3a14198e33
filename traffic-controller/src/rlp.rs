//! The reverse log proxy: `loggregator.v2.Egress` for consumers (contract: loggregator v2 §5.1, §6, §7).
//!
//! What enters: a consumer's request, checked here, and its ring of envelopes. What leaves: one message per envelope (`Receiver`) or
//! batches (`BatchedReceiver`), with tags in the form that the request asks for, as soon as the consumer is ready for them, and for those
//! that ask a marker where envelopes are missing. It never
//! decodes an envelope and never makes a doppler wait.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::pin::Pin;
use std::time::SystemTime;

use diode::fair::Bounds;
use futures_util::Stream;
use futures_util::stream::unfold;
use proto::codec::Wire;
use proto::loss;
use proto::raw::tags::Form;
use proto::raw::{Outgoing, Selection};
use proto::selector::too_many;
use proto::v2;
use proto::v2::egress_server::Egress;
use tonic::{Request, Response, Status};
use tracing::debug;
use transport::ConnInfo;

use crate::admission::{Admission, Place};
use crate::auth::{Access, Authorizer, Caller, Denied, Grant};
use crate::config::GrpcConfig;
use crate::fan_in::{FanIn, Subscription};
use crate::metrics::Metrics;
use crate::pieces;

/// The service.
pub(crate) struct Rlp {
    fan_in: FanIn,
    metrics: Metrics,
    authorizer: Authorizer,
    max_streams: NonZeroU32,
    streams: Admission,
    batch: Bounds,
}

impl Rlp {
    /// Serves consumers from `fan_in`, as many and in such batches as `config` says.
    pub(crate) fn new(config: &GrpcConfig, fan_in: FanIn, metrics: Metrics, authorizer: Authorizer) -> Self {
        let max_streams = config.max_egress_streams;
        let handles = metrics.handles();
        let streams = Admission::new(max_streams, handles.rlp_subscriptions.clone(), handles.rlp_rejected.clone());
        let batch = Bounds { envelopes: config.batch_envelopes, bytes: config.batch_bytes };
        Self { fan_in, metrics, authorizer, max_streams, streams, batch }
    }

    /// Authorises a stream, admits it, checks its request and subscribes to the dopplers.
    async fn open<T>(&self, request: Request<T>) -> Result<(Grant, Consumer), Status>
    where
        v2::EgressBatchRequest: From<T>,
    {
        let (metadata, extensions, request) = request.into_parts();
        let markers = loss::is_asked(&metadata);
        let mut grant = self.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        let Some(place) = self.streams.admit() else {
            let text = format!("unable to create stream, max egress streams reached: {}", self.max_streams);
            return Err(Status::resource_exhausted(text));
        };
        let request = checked(request.into())?;
        for selector in &request.selectors {
            let access = match selector.source_id.as_str() {
                "" => Access::Firehose,
                source_id => Access::Source(source_id),
            };
            grant.admit(access).await?;
        }
        let remote = extensions.get::<ConnInfo>().map(|info| info.remote_addr);
        debug!(?remote, shard_id = request.shard_id, selectors = request.selectors.len(), "Consumer subscribed");
        let form = if request.use_preferred_tags { Form::Preferred } else { Form::Deprecated };
        let consumer = Consumer {
            subscription: self.fan_in.subscribe(request, markers, Some(form)),
            form,
            batch: self.batch,
            waiting: Vec::new(),
            metrics: self.metrics.clone(),
            _place: place,
        };
        Ok((grant, consumer))
    }
}

#[tonic::async_trait]
impl Egress for Rlp {
    type ReceiverStream = Pin<Box<dyn Stream<Item = Result<Wire, Status>> + Send>>;
    type BatchedReceiverStream = Pin<Box<dyn Stream<Item = Result<Outgoing, Status>> + Send>>;

    async fn receiver(&self, request: Request<v2::EgressRequest>) -> Result<Response<Self::ReceiverStream>, Status> {
        let (grant, consumer) = self.open(request.map(Single)).await?;
        let envelopes =
            unfold(Envelopes { consumer, part: None, next: 0, told: VecDeque::new() }, |mut envelopes| async move {
                let envelope = envelopes.next().await?;
                Some((Ok(envelope), envelopes))
            });
        Ok(Response::new(grant.guard(envelopes)))
    }

    async fn batched_receiver(
        &self,
        request: Request<v2::EgressBatchRequest>,
    ) -> Result<Response<Self::BatchedReceiverStream>, Status> {
        let (grant, consumer) = self.open(request).await?;
        let batches = unfold(consumer, |mut consumer| async move {
            let batch = consumer.next_batch().await?;
            Some((Ok(batch), consumer))
        });
        Ok(Response::new(grant.guard(batches)))
    }
}

/// A request of `Receiver`, to be read as one of `BatchedReceiver`.
struct Single(v2::EgressRequest);

impl From<Single> for v2::EgressBatchRequest {
    fn from(Single(request): Single) -> Self {
        Self {
            shard_id: request.shard_id,
            legacy_selector: request.legacy_selector,
            selectors: request.selectors,
            use_preferred_tags: request.use_preferred_tags,
            deterministic_name: request.deterministic_name,
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Invalid => Self::unauthenticated(denied.to_string()),
            Denied::Forbidden | Denied::CrossSite | Denied::NoApp => Self::permission_denied(denied.to_string()),
            Denied::Limited => Self::resource_exhausted(denied.to_string()),
            Denied::Unavailable => Self::unavailable(denied.to_string()),
        }
    }
}

/// The request as dopplers get it: a legacy selector that stands alone becomes the only selector.
fn checked(mut request: v2::EgressBatchRequest) -> Result<v2::EgressBatchRequest, Status> {
    let legacy = request.legacy_selector.take();
    if request.selectors.is_empty() {
        request.selectors.extend(legacy);
    }
    if request.selectors.is_empty() {
        return Err(Status::invalid_argument("Selectors cannot be empty"));
    }
    if let Some(text) = too_many(request.selectors.len()) {
        return Err(Status::invalid_argument(text));
    }
    if request.selectors.iter().any(|selector| selector.message.is_none()) {
        return Err(Status::invalid_argument("Selectors must have a Message"));
    }
    Ok(request)
}

/// One consumer's stream, in batches.
struct Consumer {
    subscription: Subscription,
    form: Form,
    batch: Bounds,
    /// Taken from the ring and not yet sent, the next one last: what is left of a batch too large for one message.
    waiting: Vec<Selection>,
    metrics: Metrics,
    _place: Place,
}

impl Consumer {
    /// The next message; `None` when the server is stopping and all has been sent. Called when the consumer can take a message,
    /// so that what it cannot take yet stays in the ring.
    async fn next_batch(&mut self) -> Option<Outgoing> {
        let parts = match self.waiting.pop() {
            Some(part) => vec![part],
            None if let Some(markers) = self.markers() => return Some(Outgoing::from(markers)),
            None => {
                let mut taken = Vec::new();
                if self.subscription.take(self.batch, &mut taken).await == 0 {
                    return None;
                }
                if let [only] = taken.as_slice()
                    && let Some(mut pieces) = pieces::split(only, self.batch)
                {
                    pieces.reverse();
                    taken = pieces.pop().into_iter().collect();
                    self.waiting = pieces;
                }
                taken
            }
        };
        let batch = Outgoing::from(parts.iter().map(|part| self.subscription.in_form(part)).collect::<Vec<_>>());
        self.metrics.delivered(batch.len() as u64);
        Some(batch)
    }
}

impl Consumer {
    /// What is missing before the next envelopes, for a consumer that asked.
    fn markers(&self) -> Option<Selection> {
        let markers = loss::markers(&self.subscription.gaps(), "traffic_controller", SystemTime::now());
        markers.map(|markers| self.form.convert(&markers))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let waiting: usize = self.waiting.iter().map(Selection::len).sum();
        self.metrics.dropped(proto::reason::Reason::PeerLost, waiting as u64);
    }
}

/// One consumer's stream, envelope by envelope.
struct Envelopes {
    consumer: Consumer,
    part: Option<Selection>,
    next: usize,
    /// Markers to be sent before the next envelope.
    told: VecDeque<Wire>,
}

impl Envelopes {
    async fn next(&mut self) -> Option<Wire> {
        loop {
            if let Some(part) = self.part.as_ref().filter(|part| self.next < part.len()) {
                let envelope = part.batch().envelope_bytes(part.entry(self.next));
                self.next += 1;
                self.consumer.metrics.delivered(1);
                return Some(Wire(envelope));
            }
            if self.told.is_empty()
                && let Some(markers) = self.consumer.markers()
            {
                self.told.extend(markers.entries().map(|entry| Wire(markers.batch().envelope_bytes(entry))));
            }
            if let Some(marker) = self.told.pop_front() {
                return Some(marker);
            }
            let mut taken = Vec::new();
            if self.consumer.subscription.take(ONE, &mut taken).await == 0 {
                return None;
            }
            // The bounds of one envelope give one batch: the ring hands out batches whole.
            self.part = taken.pop().map(|part| self.consumer.subscription.in_form(&part));
            self.next = 0;
        }
    }
}

const ONE: Bounds = Bounds { envelopes: NonZeroUsize::MIN, bytes: NonZeroUsize::MIN };

impl Drop for Envelopes {
    fn drop(&mut self) {
        let waiting = self.part.as_ref().map_or(0, Selection::len) - self.next;
        self.consumer.metrics.dropped(proto::reason::Reason::PeerLost, waiting as u64);
    }
}

#[cfg(test)]
mod tests {
    use proto::v2::selector::Message;

    use super::*;

    fn log(source_id: &str) -> v2::Selector {
        v2::Selector { source_id: source_id.to_owned(), message: Some(Message::Log(v2::LogSelector {})) }
    }

    #[test]
    fn a_legacy_selector_counts_only_when_it_stands_alone() {
        let alone = v2::EgressBatchRequest { legacy_selector: Some(log("a")), ..v2::EgressBatchRequest::default() };
        let alone = checked(alone).unwrap();
        assert_eq!((alone.selectors, alone.legacy_selector), (vec![log("a")], None));

        let both = v2::EgressBatchRequest {
            legacy_selector: Some(log("a")),
            selectors: vec![log("b")],
            ..v2::EgressBatchRequest::default()
        };
        let both = checked(both).unwrap();
        assert_eq!((both.selectors, both.legacy_selector), (vec![log("b")], None));
    }

    #[test]
    fn a_request_has_so_many_selectors_at_most() {
        let of =
            |count| v2::EgressBatchRequest { selectors: vec![log("a"); count], ..v2::EgressBatchRequest::default() };
        assert!(checked(of(10_000)).is_ok());
        let refused = checked(of(10_001)).unwrap_err();
        assert_eq!(refused.message(), "10001 selectors; a request has 10000 at most");
    }

    #[test]
    fn the_name_in_a_deterministic_group_is_forwarded_for_single_envelopes_too() {
        let request = v2::EgressRequest {
            shard_id: "shard".to_owned(),
            selectors: vec![log("")],
            use_preferred_tags: true,
            deterministic_name: "me".to_owned(),
            legacy_selector: None,
        };
        let request = checked(Single(request).into()).unwrap();
        assert_eq!((request.shard_id.as_str(), request.deterministic_name.as_str()), ("shard", "me"));
        assert!(request.use_preferred_tags);
    }
}
