//! `/firehose/{subscription-id}` and `/apps/{guid}/stream`: what v1 consumers read over WebSocket (contract: traffic controller v1 §1
//! to §3); and what of the past they may ask for ([`past`]).
//!
//! What enters: HTTP requests. What leaves: the answer to a WebSocket handshake, and a task that serves the connection from a
//! subscription of its own until either side ends it. It never looks at an envelope: [`frames`] does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::StatusCode;
use http::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::feed::V1Feed;
use self::frames::{Converter, Endpoint, Filter};
use self::past::Past;
use crate::admission::{Admission, Place};
use crate::auth::{Access, Authorizer, Caller, Denied};
use crate::config::HttpConfig;
use crate::fan_in::FanIn;
use crate::metrics::Metrics;
use crate::notices::Reader;
use crate::recent::Cache;
use crate::websocket::Handshake;
use crate::websocket::session::{self, End};

mod cookie;
pub(crate) mod feed;
pub(crate) mod frames;
mod past;

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
    cache: Cache,
}

impl Firehose {
    /// Serves consumers from `fan_in`, each in a task on `tracker`.
    pub(crate) fn new(
        config: HttpConfig,
        (fan_in, cache): (FanIn, Cache),
        metrics: Metrics,
        authorizer: Authorizer,
        tracker: TaskTracker,
    ) -> Self {
        let handles = metrics.handles();
        let (open, rejected) = (handles.websocket_consumers.clone(), handles.websocket_rejected.clone());
        let consumers = Admission::new(config.max_consumers, open, rejected);
        Self { config, fan_in, metrics, authorizer, tracker, consumers, cache }
    }

    /// The routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/firehose/{subscription_id}", any(firehose))
            .route("/apps/{guid}/stream", any(app_stream))
            .route("/apps/{guid}/recentlogs", get(recent_logs))
            .route("/apps/{guid}/containermetrics", get(container_metrics))
            .route("/set-cookie", any(set_cookie))
            .with_state(Arc::new(self))
    }

    /// Authorises, admits, checks the handshake and subscribes; then answers, and serves in a task of its own.
    async fn open(self: &Arc<Self>, endpoint: Endpoint, mut request: Request) -> Response {
        let caller = Caller::browser(&request);
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
        let consumer = Consumer { reader: Reader::of(&request), _place: place };
        let upgrade = hyper::upgrade::on(&mut request);
        let subscription = self.fan_in.subscribe(endpoint.request(), false, None);
        let firehose = Arc::clone(self);
        self.tracker.spawn(async move {
            let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_DEADLINE, upgrade).await else {
                debug!(reader = ?consumer.reader, "Connection ended before its upgrade");
                return;
            };
            let metrics = firehose.metrics.clone();
            let feed = V1Feed::new(subscription, Converter::new(endpoint), metrics.clone());
            let end = session::serve(TokioIo::new(upgraded), &firehose.config, feed, metrics, &mut grant).await;
            consumer.ended(&end, &firehose.metrics);
        });
        handshake.response()
    }

    /// What is held of the app `guid`.
    async fn past(&self, guid: String, caller: &Caller<'_>, past: Past) -> Response {
        if guid.is_empty() {
            return not_found().await;
        }
        if let Err(denied) = self.authorizer.authorize(caller, Access::AppStream(&guid)).await {
            return refused(&Endpoint::App { guid }, denied);
        }
        past::answer(&self.cache, guid, past).await
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

async fn recent_logs(State(firehose): State<Arc<Firehose>>, Path(guid): Path<String>, request: Request) -> Response {
    let past = Past::logs(request.uri().query());
    firehose.past(guid, &Caller::browser(&request), past).await
}

async fn container_metrics(
    State(firehose): State<Arc<Firehose>>,
    Path(guid): Path<String>,
    request: Request,
) -> Response {
    firehose.past(guid, &Caller::browser(&request), Past::Metrics).await
}

async fn set_cookie(State(firehose): State<Arc<Firehose>>, request: Request) -> Response {
    cookie::answer(request, firehose.config.cookie_domain.as_deref()).await
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

/// Who a connection belongs to, and its place among those that may be open.
struct Consumer {
    reader: Reader,
    _place: Place,
}

impl Consumer {
    fn ended(&self, end: &End, metrics: &Metrics) {
        let Reader { remote, path, .. } = &self.reader;
        match end {
            End::Slow => {
                metrics.slow_consumer(&self.reader);
                warn!(?remote, path, "Slow consumer cut");
            }
            End::Broken(error) => debug!(%error, ?remote, path, "Consumer gone"),
            End::Stopped | End::Closed | End::Unanswered | End::Expired => debug!(?end, ?remote, path, "Consumer gone"),
        }
    }
}
