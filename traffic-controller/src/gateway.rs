//! What v2 consumers read over HTTP: `/v2/read` as server-sent events, as the original gateway has it (contract: loggregator v2 §12), and
//! `/v2/stream`, the same as JSON over WebSocket.
//!
//! What enters: HTTP requests. What leaves: streams, each fed by a [`Reader`](reader::Reader): live, or history first out of the caches for
//! those who say where to begin; with a place to come back to, and what is missing.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::reader::Readers;
use self::request::{BadQuery, Wanted};
use self::socket::JsonFeed;
use self::sse::Events;
use crate::admission::Admission;
use crate::auth::{Access, Authorizer, Caller, Denied, Grant};
use crate::config::{GatewayConfig, HttpConfig};
use crate::fan_in::FanIn;
use crate::follow::{FollowError, Follower};
use crate::metrics::Metrics;
use crate::notices::Reader;
use crate::websocket::Handshake;
use crate::websocket::session::{self, End};

mod cursor;
mod frames;
mod reader;
mod request;
mod socket;
mod sse;

/// From the accepted handshake to the upgraded connection.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The gateway. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Gateway {
    shared: Arc<Shared>,
    /// It stands under the page's origin, where a browser's cookie counts.
    beside_page: bool,
}

struct Shared {
    config: GatewayConfig,
    http: HttpConfig,
    readers: Readers,
    metrics: Metrics,
    authorizer: Authorizer,
    tracker: TaskTracker,
    consumers: Admission,
}

/// Why a request is not served (contract: loggregator v2 §12.3).
enum Refusal {
    /// It may not read what it asks for, as if there were nothing.
    NotFound,
    Method,
    Query(BadQuery),
    /// Too many consumers.
    Busy,
    Follow(FollowError),
}

impl Gateway {
    /// Serves consumers from `fan_in` and `follower`, sockets in tasks on `tracker`.
    pub(crate) fn new(
        (config, http): (GatewayConfig, HttpConfig),
        (fan_in, follower): (FanIn, Follower),
        metrics: Metrics,
        authorizer: Authorizer,
        tracker: TaskTracker,
    ) -> Self {
        let handles = metrics.handles();
        let (open, rejected) = (handles.gateway_consumers.clone(), handles.gateway_rejected.clone());
        let consumers = Admission::new(config.max_consumers, open, rejected);
        let readers = Readers { fan_in, follower, metrics: metrics.clone() };
        let shared = Arc::new(Shared { config, http, readers, metrics, authorizer, tracker, consumers });
        Self { shared, beside_page: false }
    }

    /// A port of its own.
    pub(crate) fn router(&self) -> Router {
        Router::new().route("/v2/read", any(read)).route("/v2/stream", any(stream)).with_state(self.clone())
    }

    /// Its routes beside the page.
    pub(crate) fn routes(&self) -> Router {
        Self { beside_page: true, ..self.clone() }.router()
    }

    fn caller<'a>(&self, request: &'a Request) -> Caller<'a> {
        if self.beside_page { Caller::browser(request) } else { Caller::Http(request.headers()) }
    }
}

impl Shared {
    /// Lets in who may read what the query names.
    async fn authorise(&self, caller: &Caller<'_>, query: Option<&str>) -> Result<Grant, Denied> {
        let mut grant = self.authorizer.authenticate(caller).await?;
        let sources = request::sources(query);
        if sources.is_empty() {
            grant.admit(Access::Firehose).await?;
        }
        for source in &sources {
            grant.admit(if source.is_empty() { Access::Firehose } else { Access::Source(source) }).await?;
        }
        Ok(grant)
    }
}

async fn read(State(gateway): State<Gateway>, request: Request) -> Response {
    let shared = &gateway.shared;
    let query = request.uri().query();
    let Ok(grant) = shared.authorise(&gateway.caller(&request), query).await else {
        return Refusal::NotFound.into_response();
    };
    match shared.events(&request, grant) {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

impl Shared {
    fn events(&self, request: &Request, grant: Grant) -> Result<Response, Refusal> {
        if request.method() != Method::GET {
            return Err(Refusal::Method);
        }
        let wanted = wanted(request)?;
        let markers = wanted.markers;
        let place = self.consumers.admit().ok_or(Refusal::Busy)?;
        let events = Events {
            reader: self.readers.open(wanted, markers)?,
            grant,
            metrics: self.metrics.clone(),
            heartbeat: self.config.heartbeat,
            until: Instant::now() + self.config.stream_timeout,
            patience: self.http.slow_consumer_timeout,
            markers,
            whom: Reader::of(request),
            _place: place,
        };
        let (out, bytes) = mpsc::channel(1);
        self.tracker.spawn(events.run(out));
        let mut response = Response::new(sse::body(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if request.version() < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        Ok(response)
    }
}

async fn stream(State(gateway): State<Gateway>, mut request: Request) -> Response {
    let shared = &gateway.shared;
    let mut grant = match shared.authorise(&gateway.caller(&request), request.uri().query()).await {
        Ok(grant) => grant,
        Err(denied) => return refused(denied),
    };
    let handshake = match Handshake::read(&request) {
        Ok(handshake) => handshake,
        Err(no_handshake) => return no_handshake.into_response(),
    };
    let opened = wanted(&request).and_then(|wanted| {
        let place = shared.consumers.admit().ok_or(Refusal::Busy)?;
        Ok((shared.readers.open(wanted, true)?, place))
    });
    let (reader, place) = match opened {
        Ok(opened) => opened,
        Err(refusal) => return refusal.into_response(),
    };
    let whom = Reader::of(&request);
    let upgrade = hyper::upgrade::on(&mut request);
    let gateway = gateway.clone();
    shared.tracker.spawn(async move {
        let shared = &gateway.shared;
        let _place = place;
        let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_DEADLINE, upgrade).await else {
            debug!(reader = ?whom, "Connection ended before its upgrade");
            return;
        };
        let feed = JsonFeed::new(reader, shared.metrics.clone());
        let metrics = shared.metrics.clone();
        let end = session::serve(TokioIo::new(upgraded), &shared.http, feed, metrics, &mut grant).await;
        if let End::Slow = end {
            shared.metrics.slow_consumer(&whom);
            warn!(reader = ?whom, "Slow consumer of a JSON stream cut");
        } else {
            debug!(?end, reader = ?whom, "Consumer of a JSON stream gone");
        }
    });
    handshake.response()
}

fn wanted(request: &Request) -> Result<Wanted, Refusal> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    let last_event_id = request.headers().get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    request::parse(request.uri().query(), last_event_id, now).map_err(Refusal::Query)
}

/// What those are told who may not read, where the protocol is our own: on `/v2/stream`, and of the page's other paths. A foreign source
/// looks like one that is not there.
pub(crate) fn refused(denied: Denied) -> Response {
    let status = match denied {
        Denied::Missing | Denied::Invalid => StatusCode::UNAUTHORIZED,
        Denied::Forbidden | Denied::NoApp => StatusCode::NOT_FOUND,
        Denied::CrossSite => StatusCode::FORBIDDEN,
        Denied::Limited => StatusCode::TOO_MANY_REQUESTS,
        Denied::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [(X_CONTENT_TYPE_OPTIONS, "nosniff")], format!("{denied}\n")).into_response()
}

impl From<FollowError> for Refusal {
    fn from(error: FollowError) -> Self {
        Self::Follow(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error, message) = match &self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "resource not found".to_owned()),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed".to_owned()),
            Self::Query(bad) => (StatusCode::BAD_REQUEST, bad.name(), bad.to_string()),
            Self::Busy | Self::Follow(FollowError::Full) => {
                let text = "streaming is temporarily unavailable".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, "streaming_unavailable", text)
            }
            Self::Follow(error) => (StatusCode::BAD_REQUEST, "invalid_source_id", error.to_string()),
        };
        // The texts are ours and need no escapes but those of JSON.
        let message = serde_json::Value::from(message);
        let body = format!("{{\"message\":{message},\"error\":\"{error}\"}}\n\n");
        let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (status, headers, body).into_response()
    }
}
