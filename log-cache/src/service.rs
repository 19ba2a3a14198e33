//! The cache over gRPC: `logcache.v1` Ingress and Egress, `hydrant.v1` Follow and Samples.
//!
//! What enters: requests of any client. What leaves: answers made of stored bytes, or of what another node of the cluster says; streams that
//! end with OK when the server stops.
//! Nothing here keeps state; no task is started.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use proto::hydrant::v1 as hydrant;
use proto::hydrant::v1::follow_server::{Follow, FollowServer};
use proto::hydrant::v1::samples_server::SamplesServer;
use proto::logcache::v1;
use proto::logcache::v1::EnvelopeType;
use proto::logcache::v1::egress_server::{Egress, EgressServer};
use proto::logcache::v1::ingress_server::{Ingress, IngressServer};
use proto::logcache::v1::prom_ql_querier_server::PromQlQuerierServer;
use proto::raw::{Batch, Limits, Selection};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::cluster::is_passed_on;
use crate::follow::{Cursor, FollowError, FollowSpec, Follower, Frame};
use crate::metrics::{self, Metrics};
use crate::node::Node;
use crate::querier::Querier;
use crate::read::{self, Read};
use crate::samples::SamplesService;
use crate::seal::Seal;
use crate::store::{SourceMeta, Store};

/// The largest message taken (contract `log-cache.md` §1).
const MAX_MESSAGE: usize = read::MAX_ANSWER;

/// What the response's framing may add to an answer of [`read::MAX_ANSWER`].
const FRAMING: usize = 64;

/// Reads at once; others wait. Each may hold an answer.
const READS: usize = 32;

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
    /// `logcache.v1.PromQLQuerier`: queries over them.
    pub queries: PromQlQuerierServer<Querier>,
}

/// The implementation behind [`Services`].
#[derive(Clone, Debug)]
pub struct Service {
    node: Node,
    metrics: Metrics,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
}

/// The services of `store` alone. Follow streams end with OK once `stop` is cancelled.
pub fn routes(store: &Store, metrics: &Metrics, stop: &CancellationToken) -> Services {
    Node::from(store.clone()).routes(metrics, stop)
}

impl Service {
    pub(crate) fn new(node: Node, metrics: Metrics, stop: CancellationToken) -> Self {
        Self { node, metrics, stop, turns: Arc::new(Semaphore::new(READS)) }
    }

    pub(crate) fn routes(self) -> Services {
        let samples = SamplesService::new(self.node.clone());
        Services {
            ingress: IngressServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE + FRAMING),
            egress: EgressServer::new(self.clone()).max_encoding_message_size(MAX_MESSAGE + FRAMING),
            samples: SamplesServer::new(samples.clone()),
            queries: PromQlQuerierServer::new(Querier::new(samples)),
            follow: FollowServer::new(self),
        }
    }

    /// What this store holds of each source.
    fn own_meta(&self) -> HashMap<String, v1::MetaInfo> {
        let now = metrics::now();
        self.node.store.meta().into_iter().map(|(id, meta)| (id, info(meta, now))).collect()
    }
}

#[tonic::async_trait]
impl Ingress for Service {
    /// Stores what is well-formed, here or where it belongs unless it is to stay here, and counts the rest; always OK.
    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let v1::SendRequest { envelopes, local_only } = request.into_inner();
        let (batch, refused) = Batch::check(envelopes, &Limits::default());
        self.metrics.received(batch.len(), refused);
        let selection = Selection::from(batch);
        if local_only {
            self.node.store.put(&selection);
        } else {
            self.node.put(&selection);
        }
        Ok(Response::new(v1::SendResponse {}))
    }
}

#[tonic::async_trait]
impl Egress for Service {
    /// What the store holds, or the node that owns the source.
    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let is_passed_on = is_passed_on(request.metadata());
        let request = request.into_inner();
        if let Some(cluster) = self.node.cluster.as_ref().filter(|_| !is_passed_on)
            && let Some(answer) = cluster.read(&request).await
        {
            return answer;
        }
        let read = Read::parse(request, metrics::now())?;
        // It unpacks segments, of a large source whose times jump about many: not on a thread that others wait for.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the cache is stopping"))?;
        let store = self.node.store.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            store.read(&read)
        });
        let page = task.await.map_err(|_| Status::internal("the read failed"))??;
        Ok(Response::new(v1::ReadResponse {
            envelopes: Some(page.batch),
            partial: page.partial.is_some(),
            reached: page.partial.unwrap_or(0),
        }))
    }

    /// The sources of all nodes, or with `local_only` this store's.
    async fn meta(&self, request: Request<v1::MetaRequest>) -> Result<Response<v1::MetaResponse>, Status> {
        let request = request.into_inner();
        let mut response = match &self.node.cluster {
            Some(cluster) if !request.local_only => cluster.meta(|| self.own_meta()).await,
            _ => Response::new(v1::MetaResponse { meta: self.own_meta() }),
        };
        page(&mut response.get_mut().meta, &request);
        Ok(response)
    }
}

/// Leaves of a summary what is asked for.
fn page(meta: &mut HashMap<String, v1::MetaInfo>, request: &v1::MetaRequest) {
    let limit = request.limit as usize;
    meta.retain(|id, _| *id > request.after || request.after.is_empty());
    if 0 < limit && limit < meta.len() {
        let mut ids: Vec<&String> = meta.keys().collect();
        let (_, last, _) = ids.select_nth_unstable(limit - 1);
        let last = last.clone();
        meta.retain(|id, _| *id <= last);
    }
    if !request.details {
        meta.values_mut().for_each(|info| (info.bytes, info.rate) = (0, 0.0));
    }
}

/// A source's numbers as they are sent.
fn info(meta: SourceMeta, now: i64) -> v1::MetaInfo {
    v1::MetaInfo {
        count: i64::try_from(meta.count).unwrap_or(i64::MAX),
        expired: i64::try_from(meta.expired).unwrap_or(i64::MAX),
        oldest_timestamp: meta.oldest_timestamp,
        newest_timestamp: meta.newest_timestamp,
        bytes: meta.bytes,
        rate: meta.rate(now),
    }
}

#[tonic::async_trait]
impl Follow for Service {
    type FollowStream = std::pin::Pin<Box<dyn Stream<Item = Result<hydrant::FollowFrame, Status>> + Send>>;

    async fn follow(&self, request: Request<hydrant::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let store = &self.node.store;
        let follower = store.follow(spec(request.into_inner(), store.seal()))?;
        let following = Following { follower, store: store.clone(), stop: self.stop.clone() };
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
