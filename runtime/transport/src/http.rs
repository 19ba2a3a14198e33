//! Serves an [`axum::Router`] over accepted connections.
//!
//! HTTP/1.1 with upgrades (a WebSocket handler takes the socket over through `hyper::upgrade`), and HTTP/2 where a TLS
//! handshake agreed on it. What enters: [`Incoming`] connections. What leaves: requests that carry their
//! [`ConnInfo`](crate::ConnInfo) as an extension. Never knows what it serves.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming as RequestBody;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::debug;

use crate::conn::Conn;
use crate::listen::Incoming;

/// A client that has not sent a whole request head by then is dropped; also one that stays idle between requests.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);

/// The longest request head. Leaves room for a 16 KiB token beside the other headers.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// HTTP/2 limits of an HTTPS connection: streams, and pings that notice a peer that is gone.
const MAX_STREAMS: u32 = 1000;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Answers requests on every connection of `incoming`, each in a task on `tracker`, until `incoming` ends.
///
/// When `stop` is cancelled, connections finish the request in hand and close; the caller waits for them on `tracker`.
/// A response that streams without end must watch a token of its own. Upgraded connections belong to their handler.
pub async fn serve_http(mut incoming: Incoming, router: Router, tracker: &TaskTracker, stop: &CancellationToken) {
    while let Some(conn) = incoming.next().await {
        tracker.spawn(serve_connection(conn, router.clone(), tracker.clone(), stop.clone()));
    }
}

async fn serve_connection(conn: Conn, router: Router, tracker: TaskTracker, stop: CancellationToken) {
    let info = conn.info().clone();
    let remote = info.remote_addr;
    let h2 = conn.negotiated_h2();
    let service = service_fn(move |request: hyper::Request<RequestBody>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        router.clone().oneshot(request)
    });
    let outcome = if h2 {
        let mut connection = pin!(
            http2::Builder::new(Tracked(tracker))
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).expect("a small constant"))
                .keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .serve_connection(TokioIo::new(conn), service)
        );
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .max_buf_size(2 * MAX_HEAD_BYTES)
                .max_header_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(conn), service)
                .with_upgrades()
        );
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%error, %remote, "HTTP connection ended");
    }
}

/// Runs the streams of an HTTP/2 connection on the server's tracker.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
