//! `hydrant.v1` Follow for consumers: reading on and on from the caches of all dopplers, history first.
//!
//! What enters: a consumer's request, checked here. What leaves: one stream of frames, merged ([`merge`]) from a stream of every
//! doppler ([`lane`]). Cursors carry the doppler's address, so that a consumer that comes back goes on where it was with each of them.
//!
//! *Invariants.* A doppler that is away is named once in `missing`, tried again, and goes on from its cursor when it is back: no gap,
//! no repeat. One that a cursor names and that is not of the set any more is named too: what it held beyond the cursor nobody can read.
//! It holds up nobody for longer than a second. A consumer that does not read holds up its own streams only, and learns from the
//! dopplers what was evicted meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
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

/// Opens streams that follow. Cloning shares the places.
#[derive(Clone)]
pub(crate) struct Follower {
    upstream: Upstream,
    tracker: TaskTracker,
    stop: CancellationToken,
    places: Arc<Semaphore>,
}

/// Why nothing is followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// As many streams are open as may be.
    #[error("unable to follow, streams open already: {MAX_STREAMS}")]
    Full,
    /// The request names nothing.
    #[error("name at least one source_id to follow")]
    NoSource,
    /// The request names too much.
    #[error("{0} source_ids are too many for one stream; the most is {MAX_SOURCES}")]
    TooManySources(usize),
    /// A name is too long.
    #[error("a source_id is longer than {MAX_SOURCE_ID} bytes")]
    LongSource,
}

impl Follower {
    /// Follows on the dopplers of `upstream`. Tasks run on `tracker`; streams end once `stop` is cancelled.
    pub(crate) fn new(upstream: Upstream, tracker: TaskTracker, stop: CancellationToken) -> Self {
        Self { upstream, tracker, stop, places: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }

    /// Opens `request` on every doppler, now and as dopplers come. The caller has asked who may read it.
    ///
    /// # Errors
    /// It cannot be followed.
    pub(crate) fn open(&self, request: v1::FollowRequest) -> Result<Following, FollowError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| FollowError::Full)?;
        let request = checked(request)?;
        let cancel = self.stop.child_token();
        let (joins, joining) = mpsc::channel(JOINING);
        let dopplers = self.upstream.dopplers();
        let current = dopplers.current();
        let merge = Merge::new(joining, current.len(), gone(&request, &current), &request);
        let feed = Feed {
            request,
            upstream: self.upstream.clone(),
            tracker: self.tracker.clone(),
            cancel: cancel.clone(),
            joins,
        };
        self.tracker.spawn(feed.run(dopplers));
        Ok(Following { merge, stop: cancel.clone(), _cancel: cancel.drop_guard(), _place: place })
    }
}

impl From<FollowError> for Status {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Full => Self::resource_exhausted(error.to_string()),
            _ => Self::invalid_argument(error.to_string()),
        }
    }
}

/// The service.
pub(crate) struct Service {
    follower: Follower,
    authorizer: Authorizer,
}

impl Service {
    /// Follows for whom `authorizer` lets.
    pub(crate) fn new(follower: Follower, authorizer: Authorizer) -> Self {
        Self { follower, authorizer }
    }
}

#[tonic::async_trait]
impl Follow for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<v1::FollowFrame, Status>> + Send>>;

    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let (metadata, extensions, request) = request.into_parts();
        let mut grant = self.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        for source_id in &request.source_ids {
            grant.admit(Access::Source(source_id)).await?;
        }
        let frames = unfold(self.follower.open(request)?, |mut following| async move {
            let frame = following.next().await?;
            Some((Ok(frame), following))
        });
        Ok(Response::new(grant.guard(frames)))
    }
}

/// The dopplers that a cursor of `request` is of and that are not of the set any more, in order. Of a set that is not known yet, none.
fn gone(request: &v1::FollowRequest, current: &[Address]) -> Vec<String> {
    if current.is_empty() {
        return Vec::new();
    }
    let current: HashSet<String> = current.iter().map(ToString::to_string).collect();
    let named = request.after.iter().map(|cursor| &cursor.doppler);
    let gone: BTreeSet<&String> = named.filter(|name| !name.is_empty() && !current.contains(*name)).collect();
    gone.into_iter().cloned().collect()
}

/// The request with its repeats left out.
fn checked(mut request: v1::FollowRequest) -> Result<v1::FollowRequest, FollowError> {
    request.source_ids.sort_unstable();
    request.source_ids.dedup();
    match request.source_ids.len() {
        0 => return Err(FollowError::NoSource),
        many if many > MAX_SOURCES => return Err(FollowError::TooManySources(many)),
        _ => {}
    }
    if request.source_ids.iter().any(|id| id.len() > MAX_SOURCE_ID) {
        return Err(FollowError::LongSource);
    }
    Ok(request)
}

/// One consumer's stream. Dropping it ends those to the dopplers.
pub(crate) struct Following {
    merge: Merge,
    stop: CancellationToken,
    _cancel: DropGuard,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// Waits for the next frame; `None` when the server stops, or at the end of history alone.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<v1::FollowFrame> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_the_set_is_told_apart_from_who_is_in_it() {
        let set: Vec<Address> = ["a:1", "b:1"].map(|address| address.parse().unwrap()).to_vec();
        let cursor = |doppler: &str| v1::Cursor { doppler: doppler.to_owned(), ..v1::Cursor::default() };
        let after = ["d:1", "a:1", "c:1", "", "c:1"].map(cursor).to_vec();
        let request = v1::FollowRequest { after, ..v1::FollowRequest::default() };
        assert_eq!(gone(&request, &set), ["c:1", "d:1"]);
        assert!(gone(&request, &[]).is_empty() && gone(&v1::FollowRequest::default(), &set).is_empty());
    }
}
