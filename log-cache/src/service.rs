//! The cache over gRPC: `logcache.v1` Ingress and Egress, `hydrant.v1` Follow and Samples.
//!
//! What enters: requests of any client. What leaves: answers made of stored bytes, streams that end with OK when the server stops.
//! Nothing here keeps state; no task is started.

use futures_util::Stream;
use futures_util::stream;
use proto::hydrant::v1 as hydrant;
use proto::hydrant::v1::follow_server::{Follow, FollowServer};
use proto::hydrant::v1::samples_server::SamplesServer;
use proto::logcache::v1;
use proto::logcache::v1::EnvelopeType;
use proto::logcache::v1::egress_server::{Egress, EgressServer};
use proto::logcache::v1::ingress_server::{Ingress, IngressServer};
use proto::raw::{Batch, Limits, Selection};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::follow::{Cursor, FollowError, FollowSpec, Follower, Frame};
use crate::metrics::{self, Metrics};
use crate::read::{self, Read};
use crate::samples::SamplesService;
use crate::seal::Seal;
use crate::store::{SourceMeta, Store};

/// The largest message taken (contract `log-cache.md` §1).
const MAX_MESSAGE: usize = read::MAX_ANSWER;

/// What the response's framing may add to an answer of [`read::MAX_ANSWER`].
const FRAMING: usize = 64;

/// The services of one store, to be added to a tonic server.
#[derive(Clone, Debug)]
pub struct Services {
    /// `logcache.v1.Ingress`: takes messages up to 50 MiB.
    pub ingress: IngressServer<Service>,
    /// `logcache.v1.Egress`: reads and summaries.
    pub egress: EgressServer<Service>,
    /// `hydrant.v1.Follow`: reading on and on.
    pub follow: FollowServer<Service>,
    /// `hydrant.v1.Samples`: metrics by series.
    pub samples: SamplesServer<SamplesService>,
}

/// The implementation behind [`Services`].
#[derive(Clone, Debug)]
pub struct Service {
    store: Store,
    metrics: Metrics,
    stop: CancellationToken,
}

/// The services of `store`. Follow streams end with OK once `stop` is cancelled.
pub fn routes(store: &Store, metrics: &Metrics, stop: &CancellationToken) -> Services {
    let service = Service { store: store.clone(), metrics: metrics.clone(), stop: stop.clone() };
    Services {
        ingress: IngressServer::new(service.clone()).max_decoding_message_size(MAX_MESSAGE + FRAMING),
        egress: EgressServer::new(service.clone()).max_encoding_message_size(MAX_MESSAGE + FRAMING),
        follow: FollowServer::new(service),
        samples: SamplesServer::new(SamplesService::new(store)),
    }
}

#[tonic::async_trait]
impl Ingress for Service {
    /// Stores what is well-formed and counts the rest; always OK.
    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let (batch, refused) = Batch::check(request.into_inner().envelopes, &Limits::default());
        self.metrics.received(batch.len(), refused);
        self.store.put(&Selection::from(batch));
        Ok(Response::new(v1::SendResponse {}))
    }
}

#[tonic::async_trait]
impl Egress for Service {
    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let read = Read::parse(request.into_inner(), metrics::now())?;
        let page = if read.looks_inside() {
            // May look into every envelope of a large source: not on a thread that others wait for.
            let store = self.store.clone();
            let task = tokio::task::spawn_blocking(move || store.read(&read));
            task.await.map_err(|_| Status::internal("the read failed"))??
        } else {
            self.store.read(&read)?
        };
        Ok(Response::new(v1::ReadResponse {
            envelopes: Some(page.batch),
            partial: page.partial.is_some(),
            reached: page.partial.unwrap_or(0),
        }))
    }

    /// This store's own sources: there is nobody else to ask, whatever `local_only` says.
    async fn meta(&self, request: Request<v1::MetaRequest>) -> Result<Response<v1::MetaResponse>, Status> {
        let v1::MetaRequest { details, after, limit, .. } = request.into_inner();
        let mut all = self.store.meta();
        if limit > 0 || !after.is_empty() {
            all.retain(|(id, _)| *id > after);
            let limit = limit as usize;
            if 0 < limit && limit < all.len() {
                all.select_nth_unstable_by(limit, |(a, _), (b, _)| a.cmp(b));
                all.truncate(limit);
            }
        }
        let now = metrics::now();
        let meta = all.into_iter().map(|(id, meta)| (id, info(meta, details.then_some(now)))).collect();
        Ok(Response::new(v1::MetaResponse { meta }))
    }
}

/// A source's numbers as they are sent; with the time now, the details too.
fn info(meta: SourceMeta, details: Option<i64>) -> v1::MetaInfo {
    v1::MetaInfo {
        count: i64::try_from(meta.count).unwrap_or(i64::MAX),
        expired: i64::try_from(meta.expired).unwrap_or(i64::MAX),
        oldest_timestamp: meta.oldest_timestamp,
        newest_timestamp: meta.newest_timestamp,
        bytes: details.map_or(0, |_| meta.bytes),
        rate: details.map_or(0.0, |now| meta.rate(now)),
    }
}

#[tonic::async_trait]
impl Follow for Service {
    type FollowStream = std::pin::Pin<Box<dyn Stream<Item = Result<hydrant::FollowFrame, Status>> + Send>>;

    async fn follow(&self, request: Request<hydrant::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let follower = self.store.follow(spec(request.into_inner(), self.store.seal()))?;
        let following = Following { follower, store: self.store.clone(), stop: self.stop.clone() };
        Ok(Response::new(Box::pin(stream::unfold(following, Following::next))))
    }
}

type FollowItem = Result<hydrant::FollowFrame, Status>;

/// One stream.
struct Following {
    follower: Follower,
    store: Store,
    stop: CancellationToken,
}

impl Following {
    async fn next(mut self) -> Option<(FollowItem, Self)> {
        let frame = tokio::select! {
            frame = self.follower.next() => frame?,
            () = self.stop.cancelled() => return None,
        };
        Some((Ok(sent(frame, self.store.seal())), self))
    }
}

/// What a request asks of this store: a cursor for it is one without a doppler's address, or the only one.
fn spec(request: hydrant::FollowRequest, seal: &Seal) -> FollowSpec {
    let own = request.after.iter().find(|cursor| cursor.doppler.is_empty()).or(match &*request.after {
        [only] => Some(only),
        _ => None,
    });
    FollowSpec {
        after: own.map(|cursor| Cursor { epoch: cursor.epoch, sequence: seal.open(cursor.sequence) }),
        sources: request.source_ids,
        start_time: request.start_time,
        kinds: request.envelope_types.into_iter().filter_map(|number| EnvelopeType::try_from(number).ok()).collect(),
        history_only: request.history_only,
    }
}

/// A frame as it is sent.
fn sent(frame: Frame, seal: &Seal) -> hydrant::FollowFrame {
    let Cursor { epoch, sequence } = frame.cursor;
    hydrant::FollowFrame {
        batch: frame.batch,
        cursor: Some(hydrant::Cursor { doppler: String::new(), epoch, sequence: seal.seal(sequence) }),
        gap: frame.gap.map(|gap| hydrant::Gap {
            source_id: gap.source_id,
            envelopes: gap.envelopes,
            ..hydrant::Gap::default()
        }),
        live: frame.live,
        missing: Vec::new(),
    }
}

impl From<FollowError> for Status {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::NoSource | FollowError::TooManySources(_) => Self::invalid_argument(error.to_string()),
            FollowError::Busy => Self::resource_exhausted(error.to_string()),
        }
    }
}
