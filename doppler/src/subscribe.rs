//! `hydrant.v1.Egress` for hydrant's own consumers: a subscription that may start in the past and change, and whose end is confirmed.
//!
//! What enters: a request, and changes to it. What leaves: first what the consumer has missed, out of the cache, then the envelopes of
//! its ring as they come; where the ring dropped some, how many of whose; and where a change holds. When the doppler stops it says that
//! all has been sent, and waits a moment for the consumer to say that it has it: by then what agents send elsewhere cannot overtake it.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::time::Duration;

use diode::fair;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use proto::hydrant::v1::egress_server::Egress;
use proto::hydrant::v1::{Gap, SubscribeFrame, SubscribeRequest};
use proto::loss::Loss;
use proto::raw::{Outgoing, OutgoingSubscribeFrame};
use proto::selector::{Selector, too_many};
use proto::v2;
use proto::v2::EgressBatchRequest;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::config::EgressConfig;
use crate::egress::parse;
use crate::history::{History, Past};
use crate::router::Router;
use crate::subscriptions::Subscribed;

/// For the request to come after its stream has opened.
const FIRST: Duration = Duration::from_secs(5);
/// For a consumer to confirm the end.
const CONFIRM: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct SubscribeService {
    router: Router,
    limit: fair::Bounds,
}

impl SubscribeService {
    pub(crate) fn new(router: Router, config: &EgressConfig) -> Self {
        let limit = fair::Bounds { envelopes: config.batch_envelopes, bytes: config.batch_bytes };
        Self { router, limit }
    }
}

type Frame = OutgoingSubscribeFrame;

#[tonic::async_trait]
impl Egress for SubscribeService {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut requests = request.into_inner();
        let first = timeout(FIRST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request has come"))??;
        let SubscribeRequest { shard_id, deterministic_name, selectors, start, removed, change, max_ages_ms } =
            first.ok_or_else(|| Status::invalid_argument("the stream ended before its request"))?;
        if !removed.is_empty() || change != 0 {
            return Err(Status::invalid_argument("the first request opens a subscription; it changes none"));
        }
        let ages = ages(&selectors, &max_ages_ms)?;
        let request = EgressBatchRequest { shard_id, deterministic_name, selectors, ..EgressBatchRequest::default() };
        let request = parse(request, true)?;
        if self.router.is_closed() {
            return Err(Status::unavailable("this doppler is stopping; subscribe to another"));
        }
        let age = start.map_or(Duration::ZERO, |start| start.age(self.router.epoch()));
        let (subscribed, history) = self.router.subscribe_from(request, age, &ages);
        let consumer = Consumer {
            requests,
            subscribed,
            history,
            router: self.router.clone(),
            limit: self.limit,
            stage: Stage::Opened,
            gaps: VecDeque::new(),
        };
        Ok(Response::new(stream::unfold(consumer, Consumer::step).boxed()))
    }
}

/// How far back each selector may go, of those that say so.
fn ages(selectors: &[v2::Selector], max_ages_ms: &[u64]) -> Result<HashMap<Selector, Duration>, Status> {
    if !max_ages_ms.is_empty() && max_ages_ms.len() != selectors.len() {
        let text = format!("{} max_ages_ms for {} selectors; give one for each", max_ages_ms.len(), selectors.len());
        return Err(Status::invalid_argument(text));
    }
    let aged = selectors.iter().zip(max_ages_ms);
    Ok(aged.filter_map(|(wire, age)| Some((Selector::from_wire(wire)?, Duration::from_millis(*age)))).collect())
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opened,
    History,
    Live,
    /// The end has been said and is to be confirmed.
    Ended,
    /// A change could not be followed, and that has been said.
    Refused,
}

/// One consumer's stream.
struct Consumer {
    requests: Streaming<SubscribeRequest>,
    subscribed: Subscribed,
    history: Option<History>,
    router: Router,
    limit: fair::Bounds,
    stage: Stage,
    /// To be told before the next envelopes.
    gaps: VecDeque<Loss>,
}

impl Consumer {
    async fn step(mut self) -> Option<(Result<Frame, Status>, Self)> {
        if self.stage == Stage::History
            && let Some(request) = self.requests.message().now_or_never()
        {
            return self.changed(request);
        }
        let frame = match self.stage {
            Stage::Opened => {
                self.stage = Stage::History;
                said(SubscribeFrame { epoch: self.router.epoch(), ..SubscribeFrame::default() })
            }
            Stage::History => self.past().await,
            Stage::Live => match self.next().await {
                Next::Frame(frame) => frame,
                Next::Request(request) => return self.changed(request),
                Next::Nothing if self.router.is_closed() => {
                    self.stage = Stage::Ended;
                    said(SubscribeFrame { end: true, ..SubscribeFrame::default() })
                }
                Next::Nothing => return None,
            },
            Stage::Ended => {
                // Whether it has confirmed or not: nothing more will come.
                let _confirmed =
                    timeout(CONFIRM, async { while let Ok(Some(_)) = self.requests.message().await {} }).await;
                return None;
            }
            Stage::Refused => return None,
        };
        Some((Ok(frame), self))
    }

    /// Does what a further request asks for. Its end, or a request that cannot be followed, ends the stream.
    fn changed(mut self, request: Result<Option<SubscribeRequest>, Status>) -> Option<(Result<Frame, Status>, Self)> {
        let Ok(Some(request)) = request else { return None };
        let changed = request.change;
        let frame = match self.change(request) {
            Ok(()) => Ok(said(SubscribeFrame { changed, ..SubscribeFrame::default() })),
            Err(status) => {
                self.stage = Stage::Refused;
                Err(status)
            }
        };
        Some((frame, self))
    }

    fn change(&mut self, request: SubscribeRequest) -> Result<(), Status> {
        let SubscribeRequest { shard_id, deterministic_name, selectors, start, removed, change, max_ages_ms } = request;
        let opens =
            !shard_id.is_empty() || !deterministic_name.is_empty() || start.is_some() || !max_ages_ms.is_empty();
        if opens || change == 0 {
            let text = "a request that changes a subscription has a change number, selectors and removed, no more";
            return Err(Status::invalid_argument(text));
        }
        if let Some(text) = too_many(selectors.len().max(removed.len())) {
            return Err(Status::invalid_argument(text));
        }
        let parsed = |wire: Vec<v2::Selector>| wire.iter().filter_map(Selector::from_wire).collect();
        let changed = self.subscribed.change(parsed(selectors), parsed(removed));
        changed.map_err(|too_many| Status::resource_exhausted(too_many.to_string()))
    }

    /// The next frame of what was missed, then the mark that it is over.
    async fn past(&mut self) -> Frame {
        // A long history is read without a pause but for this.
        tokio::task::coop::consume_budget().await;
        match self.history.as_mut().and_then(History::next_part) {
            Some(Past::Envelopes(envelopes)) => {
                let metrics = self.router.metrics();
                metrics.replayed.increment(envelopes.len() as u64);
                Frame { frame: SubscribeFrame::default(), batch: Outgoing::from(envelopes) }
            }
            Some(Past::Gap(gap)) => {
                let gap = Gap { source_id: gap.source_id, envelopes: gap.envelopes, ..Gap::default() };
                said(SubscribeFrame { gap: Some(gap), ..SubscribeFrame::default() })
            }
            None => {
                self.stage = Stage::Live;
                said(SubscribeFrame { live: true, ..SubscribeFrame::default() })
            }
        }
    }

    /// The next envelopes, or what is missing before them, or a request; nothing when there are no more.
    async fn next(&mut self) -> Next {
        if self.gaps.is_empty() {
            self.gaps.extend(self.subscribed.gaps());
        }
        if let Some(loss) = self.gaps.pop_front() {
            return Next::Frame(said(SubscribeFrame { gap: Some(loss.gap()), ..SubscribeFrame::default() }));
        }
        tokio::select! {
            // A ring that never empties holds no change up.
            biased;
            request = self.requests.message() => Next::Request(request),
            next = self.subscribed.next(self.limit) => next.map_or(Next::Nothing, |batch| {
                Next::Frame(Frame { frame: SubscribeFrame::default(), batch })
            }),
        }
    }
}

/// What a live stream has next.
enum Next {
    Frame(Frame),
    Request(Result<Option<SubscribeRequest>, Status>),
    Nothing,
}

fn said(frame: SubscribeFrame) -> Frame {
    Frame { frame, batch: Outgoing::default() }
}
