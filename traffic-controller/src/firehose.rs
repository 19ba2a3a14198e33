//! `/firehose/{subscription-id}` and `/apps/{guid}/stream`: what v1 consumers read over WebSocket (contract: traffic controller v1 §1
//! to §3).
//!
//! What enters: HTTP requests. What leaves: the answer to a WebSocket handshake, and a task that serves the connection from a
//! subscription of its own until either side ends it. It never looks at an envelope: [`frames`] does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use http::header::X_CONTENT_TYPE_OPTIONS;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use transport::ConnInfo;

use self::frames::{Converter, Endpoint, Filter};
use crate::admission::{Admission, Place};
use crate::auth::{Authorizer, Denied};
use crate::config::HttpConfig;
use crate::fan_in::FanIn;
use crate::metrics::Metrics;
use crate::websocket::Handshake;
use crate::websocket::session::{self, End};

pub(crate) mod frames;

/// From the accepted handshake to the upgraded connection.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(5);

/// What every WebSocket endpoint shares.
pub(crate) struct Firehose {
    config: HttpConfig,
    fan_in: FanIn,
    metrics: Metrics,
    authorizer: Authorizer,
    tracker: TaskTracker,
    consumers: Admission,
}

impl Firehose {
    /// Serves consumers from `fan_in`, each in a task on `tracker`.
    pub(crate) fn new(
        config: HttpConfig,
        fan_in: FanIn,
        metrics: Metrics,
        authorizer: Authorizer,
        tracker: TaskTracker,
    ) -> Self {
        let handles = metrics.handles();
        let (open, rejected) = (handles.websocket_consumers.clone(), handles.websocket_rejected.clone());
        let consumers = Admission::new(config.max_consumers, open, rejected);
        Self { config, fan_in, metrics, authorizer, tracker, consumers }
    }

    /// The routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/firehose/{subscription_id}", any(firehose))
            .route("/apps/{guid}/stream", any(app_stream))
            .with_state(Arc::new(self))
    }

    /// Authorises, admits, checks the handshake and subscribes; then answers, and serves in a task of its own.
    async fn open(self: Arc<Self>, endpoint: Endpoint, mut request: Request) -> Result<Response, Denied> {
        self.authorizer.authorize(request.headers(), endpoint.access()).await?;
        let Some(place) = self.consumers.admit() else {
            return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
        };
        let handshake = match Handshake::read(&request) {
            Ok(handshake) => handshake,
            Err(no_handshake) => return Ok(no_handshake.into_response()),
        };
        let consumer = Consumer {
            remote: request.extensions().get::<ConnInfo>().map(|info| info.remote_addr.to_string()),
            path: request.uri().path().to_owned(),
            _place: place,
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let subscription = self.fan_in.subscribe(endpoint.request());
        let firehose = Arc::clone(&self);
        self.tracker.spawn(async move {
            let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_DEADLINE, upgrade).await else {
                debug!(remote = consumer.remote, path = consumer.path, "Connection ended before its upgrade");
                return;
            };
            let converter = Converter::new(endpoint);
            let io = TokioIo::new(upgraded);
            let end = session::serve(io, &firehose.config, subscription, converter, firehose.metrics.clone()).await;
            consumer.ended(&end, &firehose.metrics);
        });
        Ok(handshake.response())
    }
}

async fn firehose(
    State(firehose): State<Arc<Firehose>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Denied> {
    if id.is_empty() {
        return Ok(not_found().await);
    }
    let filter = Filter::from_query(request.uri().query());
    firehose.open(Endpoint::Firehose { id, filter }, request).await
}

async fn app_stream(
    State(firehose): State<Arc<Firehose>>,
    Path(guid): Path<String>,
    request: Request,
) -> Result<Response, Denied> {
    if guid.is_empty() {
        return Ok(not_found().await);
    }
    firehose.open(Endpoint::App { guid }, request).await
}

/// The answer for every path that nothing is served under.
pub(crate) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], "404 page not found\n").into_response()
}

/// Who a connection belongs to, for the log, and its place among those that may be open.
struct Consumer {
    remote: Option<String>,
    path: String,
    _place: Place,
}

impl Consumer {
    fn ended(&self, end: &End, metrics: &Metrics) {
        let (remote, path) = (self.remote.as_deref(), self.path.as_str());
        match end {
            End::Slow => {
                metrics.handles().slow_consumers.increment(1);
                warn!(remote, path, "Slow consumer cut");
            }
            End::Broken(error) => debug!(%error, remote, path, "Consumer gone"),
            End::Stopped | End::Closed | End::Unanswered => debug!(?end, remote, path, "Consumer gone"),
        }
    }
}
