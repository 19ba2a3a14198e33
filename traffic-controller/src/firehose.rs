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
use http::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use transport::ConnInfo;

use self::frames::{Converter, Endpoint, Filter};
use crate::admission::{Admission, Place};
use crate::auth::{Authorizer, Caller, Denied};
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
    async fn open(self: &Arc<Self>, endpoint: Endpoint, mut request: Request) -> Response {
        let caller = Caller::websocket(&request);
        let authorised = self.authorizer.authorize(&caller, endpoint.access()).await;
        let mut grant = match authorised {
            Ok(grant) => grant,
            Err(denied) => return refused(&endpoint, denied),
        };
        let Some(place) = self.consumers.admit() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let handshake = match Handshake::read(&request) {
            Ok(handshake) => handshake,
            Err(no_handshake) => return no_handshake.into_response(),
        };
        let consumer = Consumer {
            remote: request.extensions().get::<ConnInfo>().map(|info| info.remote_addr.to_string()),
            path: request.uri().path().to_owned(),
            _place: place,
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let subscription = self.fan_in.subscribe(endpoint.request(), false, None);
        let firehose = Arc::clone(self);
        self.tracker.spawn(async move {
            let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_DEADLINE, upgrade).await else {
                debug!(remote = consumer.remote, path = consumer.path, "Connection ended before its upgrade");
                return;
            };
            let converter = Converter::new(endpoint);
            let io = TokioIo::new(upgraded);
            let metrics = firehose.metrics.clone();
            let end = session::serve(io, &firehose.config, subscription, converter, metrics, &mut grant).await;
            consumer.ended(&end, &firehose.metrics);
        });
        handshake.response()
    }
}

async fn firehose(State(firehose): State<Arc<Firehose>>, Path(id): Path<String>, request: Request) -> Response {
    if id.is_empty() {
        return not_found().await;
    }
    let filter = Filter::from_query(request.uri().query());
    firehose.open(Endpoint::Firehose { id, filter }, request).await
}

async fn app_stream(State(firehose): State<Arc<Firehose>>, Path(guid): Path<String>, request: Request) -> Response {
    if guid.is_empty() {
        return not_found().await;
    }
    firehose.open(Endpoint::App { guid }, request).await
}

/// What those are told who may not read `endpoint` (contract: traffic controller v1 §2.1, §2.2).
fn refused(endpoint: &Endpoint, denied: Denied) -> Response {
    let challenge = [(WWW_AUTHENTICATE, "Basic"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    match (endpoint, denied) {
        (_, Denied::CrossSite) => (StatusCode::FORBIDDEN, format!("{denied}\n")).into_response(),
        (Endpoint::Firehose { .. }, Denied::Missing) => {
            (StatusCode::UNAUTHORIZED, challenge, "You are not authorized. authorization not provided").into_response()
        }
        (Endpoint::Firehose { .. }, _) => {
            (StatusCode::UNAUTHORIZED, challenge, "You are not authorized. invalid authorization").into_response()
        }
        (Endpoint::App { .. }, Denied::Missing | Denied::Invalid) => {
            (StatusCode::UNAUTHORIZED, challenge).into_response()
        }
        // As if there were no such app.
        (Endpoint::App { .. }, Denied::Forbidden) => StatusCode::NOT_FOUND.into_response(),
        (Endpoint::App { .. }, Denied::NoApp) => StatusCode::UNAUTHORIZED.into_response(),
        (Endpoint::App { .. }, Denied::Limited) => StatusCode::TOO_MANY_REQUESTS.into_response(),
        (Endpoint::App { .. }, Denied::Unavailable) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
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
            End::Stopped | End::Closed | End::Unanswered | End::Expired => debug!(?end, remote, path, "Consumer gone"),
        }
    }
}
