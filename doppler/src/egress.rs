//! `loggregator.v2.Egress` for consumers: a subscription's ring becomes a stream of batches.
//!
//! What enters: a request. What leaves: the envelopes of its ring, as they came, at once when the consumer is ready; batches grow
//! while it is not. It never converts tags (the reverse log proxy does) and never waits for more.

use std::pin::Pin;

use diode::fair;
use futures_util::{Stream, StreamExt, stream};
use proto::codec::Wire;
use proto::raw::Outgoing;
use proto::selector::Selector;
use proto::v2::egress_server::Egress;
use proto::v2::{EgressBatchRequest, EgressRequest};
use tonic::{Response, Status};

use crate::config::EgressConfig;
use crate::router::Router;
use crate::subscriptions::Request;

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
    type BatchedReceiverStream = Pin<Box<dyn Stream<Item = Result<Outgoing, Status>> + Send>>;

    async fn receiver(&self, _: tonic::Request<EgressRequest>) -> Result<Response<Self::ReceiverStream>, Status> {
        // What the original's router answers too (contract: loggregator v2 §2).
        Err(Status::unimplemented("use BatchedReceiver instead"))
    }

    async fn batched_receiver(
        &self,
        request: tonic::Request<EgressBatchRequest>,
    ) -> Result<Response<Self::BatchedReceiverStream>, Status> {
        let request = parse(request.into_inner())?;
        if self.router.is_closed() {
            return Err(Status::unavailable("this doppler is stopping; subscribe to another"));
        }
        let (subscribed, limit) = (self.router.subscribe(request), self.limit);
        let messages = stream::unfold(subscribed, move |mut subscribed| async move {
            let next = subscribed.next(limit).await?;
            Some((Ok(next), subscribed))
        });
        Ok(Response::new(messages.boxed()))
    }
}

/// A request with at least one selector that can match.
pub(crate) fn parse(request: EgressBatchRequest) -> Result<Request, Status> {
    if request.selectors.is_empty() {
        // The original's router leaves such a stream open and silent; its reverse log proxy says this.
        return Err(Status::invalid_argument("Selectors cannot be empty"));
    }
    let selectors: Vec<Selector> = request.selectors.iter().filter_map(Selector::from_wire).collect();
    if selectors.is_empty() {
        return Err(Status::invalid_argument("Selectors must have a Message"));
    }
    Ok(Request { shard_id: request.shard_id, deterministic_name: request.deterministic_name, selectors })
}
