//! The HTTP end of the page: `GET /metrics` on a port of its own.
//!
//! Scrapes enter, guarded against web pages; pages leave, piece by piece as the scraper reads them. Never waits for a scraper with the
//! store locked: a scrape locks it to copy values and count references, for [`PART`] series at a time, and writes its page without. At
//! most [`SCRAPES`] pages are under way at once; one that is not read to its end within [`DEADLINE`] is given up, and what it kept is freed.
//! Pages are not compressed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{BindError, Listener, LocalOnly, Security, bind, serve_http};

use super::exposition::{CONTENT_TYPE, Page};
use super::series::{Snapshot, Store};

/// Pages under way at once; a scrape beyond them is told to come again.
pub const SCRAPES: usize = 4;
/// For a scraper to read a page to its end.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Series that a scrape copies with the store locked: some 0.2 ms. 100 000 take 10 ms, and their page another 0.2 s without the lock.
const PART: usize = 2048;

/// The store between the task that fills it and the scrapes.
///
/// The lock guards every series. The writer holds it for a batch of envelopes at a time, a scrape for a part of a [`Snapshot`].
pub type Shared = Arc<Mutex<Store>>;

/// A bound endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    guard: LocalOnly,
    store: Shared,
}

impl Endpoint {
    /// Binds the endpoint; nothing is answered yet. Must be called within a tokio runtime. `key` is the configuration key of `listen`.
    /// On another address than loopback `/metrics` is answered under any name if `any_host` says so, else only under that of loopback.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(key: &'static str, listen: SocketAddr, any_host: bool, store: Shared) -> Result<Self, BindError> {
        let listener = bind(key, listen)?;
        let guard = LocalOnly::on(listener.addr());
        let guard = if any_host { guard.opening("/metrics") } else { guard };
        Ok(Self { listener, guard, store })
    }

    /// The address really bound.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The listener, for its statistics.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Answers until `stop`. Connections run on `tracker`; pages in hand are written to their end.
    pub async fn serve(self, tracker: &TaskTracker, stop: CancellationToken) {
        let router = router(self.store, tracker.clone());
        let incoming = self.listener.incoming(Security::Plain, tracker, stop.clone());
        serve_http(incoming, self.guard.protect(router), tracker, &stop).await;
    }
}

fn router(store: Shared, tracker: TaskTracker) -> Router {
    let scrapes = Scrapes { store, free: Arc::new(Semaphore::new(SCRAPES)), tracker };
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; this port answers /metrics\n") })
        .with_state(scrapes)
}

#[derive(Clone)]
struct Scrapes {
    store: Shared,
    free: Arc<Semaphore>,
    tracker: TaskTracker,
}

/// Copies all series, a part of them each time the store is locked.
async fn copy(store: &Shared) -> Snapshot {
    let mut snapshot = Snapshot::default();
    while copy_part(store, &mut snapshot) {
        tokio::task::yield_now().await;
    }
    snapshot
}

fn copy_part(store: &Shared, snapshot: &mut Snapshot) -> bool {
    let locked = store.lock();
    let more = locked.copy(snapshot, PART);
    // Not to be first again while the writer waits.
    MutexGuard::unlock_fair(locked);
    more
}

/// A page, until it is read or given up.
type Slot = Arc<Mutex<Option<(Page, OwnedSemaphorePermit)>>>;

async fn metrics(State(scrapes): State<Scrapes>) -> Response {
    let Ok(permit) = Arc::clone(&scrapes.free).try_acquire_owned() else {
        let busy = "too many scrapes at once; come again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], busy).into_response();
    };
    let snapshot = copy(&scrapes.store).await;
    let slot: Slot = Arc::new(Mutex::new(Some((Page::new(snapshot), permit))));
    // What hyper does not ask for any more must not be kept for ever.
    let (read, given_up) = (CancellationToken::new(), Arc::clone(&slot));
    let guard = read.clone().drop_guard();
    let deadline = tokio::time::sleep(DEADLINE);
    scrapes.tracker.spawn(async move {
        tokio::select! {
            () = read.cancelled() => {}
            () = deadline => {}
        }
        given_up.lock().take();
    });
    let pieces = std::iter::from_fn(move || {
        let _until_here = &guard;
        let mut page = slot.lock();
        let Some((pieces, _)) = page.as_mut() else {
            return Some(Err(std::io::Error::other("the page was not read in time")));
        };
        Some(Ok(Bytes::from(pieces.next()?)))
    });
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], Body::from_stream(tokio_stream::iter(pieces))).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use prost::Message;
    use tower::ServiceExt;

    use super::*;
    use crate::prometheus::series::Options;

    /// A router over a store of this many gauges.
    fn router_of(series: usize) -> (Router, Shared) {
        let mut store = Store::new(&Options::default());
        for i in 0..series {
            let envelope = proto::v2::Envelope::gauge(format!("source-{i}"), "g", 1.0, "");
            store.put(&envelope.encode_to_vec(), 1, |_, _| {});
        }
        let store = Arc::new(Mutex::new(store));
        (router(Arc::clone(&store), TaskTracker::new()), store)
    }

    async fn scrape(router: &Router) -> Response {
        router.clone().oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_page_is_whole_and_says_what_it_is() {
        let (router, store) = router_of(2 * PART + 1);
        let response = scrape(&router).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        let page = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(page, Page::new(store.lock().snapshot()).text().as_bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_are_bounded_and_one_that_is_not_read_is_given_up() {
        // More than one piece each.
        let (router, _store) = router_of(5000);
        let mut open = Vec::new();
        for _ in 0..SCRAPES {
            open.push(scrape(&router).await);
        }
        let refused = scrape(&router).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        // One is read to its end, one goes away.
        let read = open.pop().unwrap();
        read.into_body().collect().await.unwrap();
        drop(open.pop());
        tokio::task::yield_now().await;
        for _ in 0..2 {
            open.push(scrape(&router).await);
            assert_eq!(open.last().unwrap().status(), StatusCode::OK);
        }
        assert_eq!(scrape(&router).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        // The others are never read: they end in an error, not as a page that looks whole.
        tokio::time::advance(DEADLINE).await;
        tokio::task::yield_now().await;
        assert_eq!(scrape(&router).await.status(), StatusCode::OK);
        assert!(open.pop().unwrap().into_body().collect().await.is_err());
    }
}
