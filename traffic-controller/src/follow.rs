//! `hydrant.v1` Follow for consumers: reading on and on from the caches of all dopplers, history first.
//!
//! What enters: a consumer's request, checked here. What leaves: one stream of frames, merged ([`merge`]) from a stream of every
//! doppler ([`lane`]). Cursors carry the doppler's address, so that a consumer that comes back goes on where it was with each of them.
//!
//! *Invariants.* A doppler that is away is named once in `missing`, tried again, and goes on from its cursor when it is back: no gap,
//! no repeat. It holds up nobody for longer than a second. A consumer that does not read holds up its own streams only, and learns
//! from the dopplers what was evicted meanwhile.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use proto::hydrant::v1;
use proto::hydrant::v1::follow_server::Follow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use transport::{Address, Dopplers};

use self::lane::{Lane, Source};
use self::merge::Merge;
use crate::auth::{Access, Authorizer, Caller};
use crate::upstream::Upstream;

mod lane;
mod merge;

/// Sources that one request may name.
const MAX_SOURCES: usize = 64;

/// The longest `source_id`.
const MAX_SOURCE_ID: usize = 256;

/// Streams of consumers open at once.
const MAX_STREAMS: usize = 1000;

/// Dopplers that may join a stream before it looks at them.
const JOINING: usize = 16;

/// The service.
pub(crate) struct Service {
    upstream: Upstream,
    authorizer: Authorizer,
    tracker: TaskTracker,
    stop: CancellationToken,
    places: Arc<Semaphore>,
}

impl Service {
    /// Follows on the dopplers of `upstream`. Tasks run on `tracker`; streams end with OK once `stop` is cancelled.
    pub(crate) fn new(
        upstream: Upstream,
        authorizer: Authorizer,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { upstream, authorizer, tracker, stop, places: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Opens the request on every doppler, now and as dopplers come.
    fn open(&self, request: v1::FollowRequest, place: OwnedSemaphorePermit) -> Consumer {
        let cancel = self.stop.child_token();
        let (joins, joining) = mpsc::channel(JOINING);
        let dopplers = self.upstream.dopplers();
        let expected = dopplers.current().len();
        let merge = Merge::new(joining, expected, &request);
        let feed = Feed {
            request,
            upstream: self.upstream.clone(),
            tracker: self.tracker.clone(),
            cancel: cancel.clone(),
            joins,
        };
        self.tracker.spawn(feed.run(dopplers));
        Consumer { merge, stop: cancel.clone(), _cancel: cancel.drop_guard(), _place: place }
    }
}

#[tonic::async_trait]
impl Follow for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowFrame, Status>> + Send>>;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let mut grant = self.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let text = format!("unable to follow, streams open already: {MAX_STREAMS}");
            return Err(Status::resource_exhausted(text));
        };
        let request = checked(request)?;
        for source_id in &request.source_ids {
            grant.admit(Access::Source(source_id)).await?;
        }
        let frames = unfold(self.open(request, place), |mut consumer| async move {
            let frame = consumer.next().await?;
            Some((Ok(frame), consumer))
        });
        Ok(Response::new(grant.guard(frames)))
    }
}

/// The request with its repeats left out.
fn checked(mut request: v1::FollowRequest) -> Result<v1::FollowRequest, Status> {
    request.source_ids.sort_unstable();
    request.source_ids.dedup();
    match request.source_ids.len() {
        0 => return Err(Status::invalid_argument("name at least one source_id to follow")),
        many if many > MAX_SOURCES => {
            let text = format!("{many} source_ids are too many for one stream; the most is {MAX_SOURCES}");
            return Err(Status::invalid_argument(text));
        }
        _ => {}
    }
    if request.source_ids.iter().any(|id| id.len() > MAX_SOURCE_ID) {
        return Err(Status::invalid_argument(format!("a source_id is longer than {MAX_SOURCE_ID} bytes")));
    }
    Ok(request)
}

/// One consumer's stream. Dropping it ends those to the dopplers.
struct Consumer {
    merge: Merge,
    stop: CancellationToken,
    _cancel: DropGuard,
    _place: OwnedSemaphorePermit,
}

impl Consumer {
    async fn next(&mut self) -> Option<v1::FollowFrame> {
        self.stop.run_until_cancelled(self.merge.next()).await.flatten()
    }
}

/// Keeps one task per doppler of the live set.
struct Feed {
    request: v1::FollowRequest,
    upstream: Upstream,
    tracker: TaskTracker,
    cancel: CancellationToken,
    joins: mpsc::Sender<Lane>,
}

impl Feed {
    /// Until the consumer goes or the server stops.
    async fn run(self, mut dopplers: Dopplers) {
        let mut open: HashMap<Address, DropGuard> = HashMap::new();
        let mut current = dopplers.current();
        loop {
            open.retain(|address, _| current.contains(address));
            for address in current.iter() {
                if !open.contains_key(address) {
                    let (lane, task) = self.open(address.clone());
                    if self.joins.send(lane).await.is_err() {
                        return;
                    }
                    open.insert(address.clone(), task);
                }
            }
            match self.cancel.run_until_cancelled(dopplers.changed()).await {
                Some(changed) => current = changed,
                None => return,
            }
        }
    }

    /// Starts the task for one doppler; dropping the guard ends it.
    fn open(&self, address: Address) -> (Lane, DropGuard) {
        let (source, lane) = Source::new(address, &self.request, self.upstream.clone());
        let cancel = self.cancel.child_token();
        let cancelled = cancel.clone();
        self.tracker.spawn(async move { cancelled.run_until_cancelled(source.run()).await });
        (lane, cancel.drop_guard())
    }
}
