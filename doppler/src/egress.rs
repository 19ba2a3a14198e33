//! `loggregator.v2.Egress` and `plumbing.Doppler` for consumers: a subscription's ring becomes a stream of batches.
//!
//! What enters: a request. What leaves: the envelopes of its ring, as they came, at once when the consumer is ready; batches grow
//! while it is not. A consumer that asks is told in its stream where its ring dropped envelopes. It never converts tags (the reverse log proxy does) and never waits for more.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::SystemTime;

use diode::fair;
use futures_util::{Stream, StreamExt, stream};
use proto::codec::Wire;
use proto::loss;
use proto::plumbing::SubscriptionRequest;
use proto::plumbing::doppler_server::Doppler;
use proto::plumbing::filter::Message;
use proto::raw::Outgoing;
use proto::selector::{Rule, Selector, too_many};
use proto::v2::egress_server::Egress;
use proto::v2::{EgressBatchRequest, EgressRequest};
use tonic::{Response, Status};

use crate::config::EgressConfig;
use crate::router::Router;
use crate::subscriptions::{Request, Subscribed};

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct EgressService {
    router: Router,
    limit: fair::Bounds,
}

impl EgressService {
    pub(crate) fn new(router: Router, config: &EgressConfig) -> Self {
        let limit = fair::Bounds { envelopes: config.batch_envelopes, bytes: config.batch_bytes };
        Self { router, limit }
    }
}

#[tonic::async_trait]
impl Egress for EgressService {
    type ReceiverStream = stream::Empty<Result<Wire, Status>>;
    type BatchedReceiverStream = Messages;

    async fn receiver(&self, _: tonic::Request<EgressRequest>) -> Result<Response<Self::ReceiverStream>, Status> {
        // What the original's router answers too (contract: loggregator v2 §2).
        Err(Status::unimplemented("use BatchedReceiver instead"))
    }

    async fn batched_receiver(
        &self,
        request: tonic::Request<EgressBatchRequest>,
    ) -> Result<Response<Self::BatchedReceiverStream>, Status> {
        let markers = loss::is_asked(request.metadata());
        let request = parse(request.into_inner(), markers)?;
        self.running()?;
        Ok(Response::new(messages(self.router.subscribe(request), self.limit)))
    }
}

#[tonic::async_trait]
impl Doppler for EgressService {
    type SubscribeStream = Messages;
    type BatchSubscribeStream = Messages;

    async fn subscribe(
        &self,
        request: tonic::Request<SubscriptionRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let alone = fair::Bounds { envelopes: NonZeroUsize::MIN, ..self.limit };
        self.subscribe_v1(request.into_inner(), alone)
    }

    async fn batch_subscribe(
        &self,
        request: tonic::Request<SubscriptionRequest>,
    ) -> Result<Response<Self::BatchSubscribeStream>, Status> {
        self.subscribe_v1(request.into_inner(), self.limit)
    }
}

impl EgressService {
    fn subscribe_v1(&self, request: SubscriptionRequest, limit: fair::Bounds) -> Result<Response<Messages>, Status> {
        self.running()?;
        Ok(Response::new(messages(self.router.subscribe_v1(parse_v1(request)), limit)))
    }

    fn running(&self) -> Result<(), Status> {
        match self.router.is_closed() {
            true => Err(Status::unavailable("this doppler is stopping; subscribe to another")),
            false => Ok(()),
        }
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<Outgoing, Status>> + Send>>;

fn messages(subscribed: Subscribed, limit: fair::Bounds) -> Messages {
    let messages = stream::unfold(subscribed, move |mut subscribed| async move {
        let next = match loss::markers(&subscribed.gaps(), "doppler", SystemTime::now()) {
            Some(markers) => Outgoing::from(markers),
            None => subscribed.next(limit).await?,
        };
        Some((Ok(next), subscribed))
    });
    messages.boxed()
}

/// A v1 filter as selectors over [`proto::v1::batch`] (contract: loggregator v2 §5.4). Filters of different types share nothing, also
/// under one shard.
fn parse_v1(SubscriptionRequest { shard_id, filter }: SubscriptionRequest) -> Request {
    let filter = filter.unwrap_or_default();
    let (rules, scope): (&[Rule], _) = match filter.message {
        None => (&[Rule::Log, Rule::Gauge(None)], "all"),
        Some(Message::Log(_)) => (&[Rule::Log], "log"),
        Some(Message::Metric(_)) => (&[Rule::Gauge(None)], "metric"),
    };
    let source_id: Option<Box<str>> = (!filter.app_id.is_empty()).then(|| filter.app_id.into());
    let selector = |rule: &Rule| Selector { source_id: source_id.clone(), rule: rule.clone() };
    Request {
        shard_id: if shard_id.is_empty() { shard_id } else { format!("{scope} {shard_id}") },
        deterministic_name: String::new(),
        selectors: rules.iter().map(selector).collect(),
        markers: false,
    }
}

/// A request with at least one selector that can match.
pub(crate) fn parse(request: EgressBatchRequest, markers: bool) -> Result<Request, Status> {
    if request.selectors.is_empty() {
        // The original's router leaves such a stream open and silent; its reverse log proxy says this.
        return Err(Status::invalid_argument("Selectors cannot be empty"));
    }
    if let Some(text) = too_many(request.selectors.len()) {
        return Err(Status::invalid_argument(text));
    }
    let selectors: Vec<Selector> = request.selectors.iter().filter_map(Selector::from_wire).collect();
    if selectors.is_empty() {
        return Err(Status::invalid_argument("Selectors must have a Message"));
    }
    let EgressBatchRequest { shard_id, deterministic_name, .. } = request;
    Ok(Request { shard_id, deterministic_name, selectors, markers })
}
