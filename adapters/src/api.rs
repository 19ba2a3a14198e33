//! Drains over HTTP, on the admin port: `/v1/drains`. Only where that port is on loopback, which the port's guard keeps from web pages.
//!
//! What people want enters as JSON with the keys of `[[adapters.drains]]`; how drains do leaves. What is added is kept for the next start
//! before it is answered. Answers show no token, user name, password or option of a URL.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use parking_lot::Mutex;
use serde_json::{Value, json};
use telemetry::Telemetry;

use crate::config::{DrainConfig, MAX_NAME};
use crate::drains::{ChangeError, Drains, Origin, Prepared, Shown};
use crate::probe;
use crate::store::{Store, Written};
use crate::syslog::config::Scheme;

/// The most drains of a process that are added while it runs.
const MAX_DRAINS: usize = 10_000;
/// The largest request.
const MAX_BODY: usize = 64 * 1024;

/// What requests work on.
pub(crate) struct Api {
    drains: Drains,
    store: Option<Store>,
    telemetry: Telemetry,
    /// Guards nothing but the order of changes: each is made and kept before the next. Held in blocking tasks only.
    order: Mutex<()>,
}

/// An answer that is not success.
struct Refused(StatusCode, String);

type Answer = Result<Response, Refused>;
type Body = Result<Bytes, BytesRejection>;

impl Api {
    pub(crate) fn new(drains: Drains, store: Option<Store>, telemetry: Telemetry) -> Self {
        Self { drains, store, telemetry, order: Mutex::default() }
    }

    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/v1/drains", get(list))
            .route("/v1/drains/{name}", put(set).get(show).delete(remove))
            .route("/v1/drains/{name}/test", post(test))
            .route("/v1/test", post(test_unsaved))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::new(self))
    }
}

/// What a port that is not on loopback answers instead.
pub(crate) fn refusing() -> Router {
    let refuse = || async {
        let text = "drains are shown and changed only on a loopback port; set adapters.admin.listen to one";
        Refused(StatusCode::FORBIDDEN, text.to_owned())
    };
    Router::new().route("/v1/{*rest}", axum::routing::any(refuse))
}

async fn list(State(api): State<Arc<Api>>) -> Response {
    let drains: Vec<Value> = api.drains.list().iter().map(describe).collect();
    json_answer(StatusCode::OK, &json!({ "drains": drains }))
}

async fn show(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    let shown = api.drains.get(&name).ok_or_else(unknown)?;
    Ok(json_answer(StatusCode::OK, &describe(&shown)))
}

async fn set(State(api): State<Arc<Api>>, Path(name): Path<String>, headers: HeaderMap, body: Body) -> Answer {
    let written = written(&headers, &read_body(body)?, Some(name))?;
    blocking(move || api.set(written)).await
}

async fn remove(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    blocking(move || api.remove(&name)).await
}

async fn test(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer {
    let shown = api.drains.get(&name).ok_or_else(unknown)?;
    let config = DrainConfig::clone(&shown.config);
    if config.url.scheme == Scheme::Prometheus {
        let said = json!({ "ok": true, "said": "the drain serves its page", "took_ms": 0 });
        return Ok(json_answer(StatusCode::OK, &said));
    }
    let prepared = match api.drains.bound(&name) {
        Some(bound) => bound,
        None => blocking_prepare(Arc::clone(&api), config).await?,
    };
    Ok(json_answer(StatusCode::OK, &probe::run(prepared).await))
}

async fn test_unsaved(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Answer {
    let config = config(&written(&headers, &read_body(body)?, None)?)?;
    let prepared = blocking_prepare(Arc::clone(&api), config).await?;
    Ok(json_answer(StatusCode::OK, &probe::run(prepared).await))
}

impl Api {
    fn set(&self, written: Written) -> Answer {
        let config = config(&written)?;
        let name = config.name.clone();
        let _in_order = self.order.lock();
        let store = self.store()?;
        self.drains.check(&config, Origin::Api).map_err(|error| conflict(&error))?;
        if self.drains.get(&name).is_none() && store.drains().len() >= MAX_DRAINS {
            return Err(Refused(StatusCode::CONFLICT, format!("there are {MAX_DRAINS} drains; take some away first")));
        }
        let prepared = Prepared::new(config, &self.telemetry).map_err(|error| bad(error.to_string()))?;
        store.put(&name, written).map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let is_new = self.drains.put(prepared, Origin::Api).map_err(|error| conflict(&error))?;
        let shown = self.drains.get(&name).ok_or_else(unknown)?;
        Ok(json_answer(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &describe(&shown)))
    }

    fn remove(&self, name: &str) -> Answer {
        let _in_order = self.order.lock();
        match self.drains.origin(name) {
            // One that did not run at the start is kept all the same.
            None if self.store.as_ref().is_some_and(|store| store.has(name)) => {
                self.store()?
                    .remove(name)
                    .map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
                return Ok(json_answer(StatusCode::OK, &json!({ "name": name })));
            }
            None => return Err(unknown()),
            Some(Origin::Api) => {}
            Some(other) => return Err(conflict(&ChangeError::NotYours(other))),
        }
        let shown = self.drains.get(name).ok_or_else(unknown)?;
        self.store()?.remove(name).map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        self.drains.remove(name, Origin::Api).map_err(|error| conflict(&error))?;
        Ok(json_answer(StatusCode::OK, &describe(&shown)))
    }

    fn store(&self) -> Result<&Store, Refused> {
        self.store.as_ref().ok_or_else(|| {
            let text = "these adapters keep no drains; set adapters.state_dir to a directory that they may write to";
            Refused(StatusCode::CONFLICT, text.to_owned())
        })
    }
}

fn read_body(body: Body) -> Result<Bytes, Refused> {
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {MAX_BODY} bytes"))
        }
        status => Refused(status, "the body did not come whole".to_owned()),
    })
}

/// A body as somebody wrote it. `name` is that of the path.
fn written(headers: &HeaderMap, body: &[u8], name: Option<String>) -> Result<Written, Refused> {
    let is_json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    if is_json.map(str::trim) != Some("application/json") {
        let text = "the body must be JSON, with the header content-type: application/json";
        return Err(Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, text.to_owned()));
    }
    // Errors of the syntax show a place and no text.
    let value: Value = serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    let Value::Object(mut written) = value else {
        return Err(bad("the body must be an object with the keys of [[adapters.drains]], such as url".to_owned()));
    };
    match (name, written.get("name")) {
        (Some(name), None) => {
            written.insert("name".to_owned(), Value::String(name));
        }
        (Some(name), Some(other)) if *other != Value::String(name.clone()) => {
            return Err(bad("the name in the body is another than that of the path".to_owned()));
        }
        (None, None) => {
            written.insert("name".to_owned(), Value::String("test".to_owned()));
        }
        _ => {}
    }
    Ok(written)
}

/// What was written, as a configuration.
pub(crate) fn read(written: &Written) -> Result<DrainConfig, String> {
    let config: DrainConfig =
        serde_json::from_value(Value::Object(written.clone())).map_err(|error| error.to_string())?;
    if config.name.chars().any(char::is_control) {
        return Err(format!("the name of a drain is 1 to {MAX_NAME} bytes of text without control characters"));
    }
    Ok(config)
}

fn config(written: &Written) -> Result<DrainConfig, Refused> {
    read(written).map_err(bad)
}

/// A drain as it is shown.
fn describe(shown: &Shown) -> Value {
    let (now, numbers) = (shown.status.now(), shown.status.numbers());
    let time = |at| humantime::format_rfc3339_millis(at).to_string();
    let dropped: serde_json::Map<_, _> =
        numbers.dropped.iter().map(|(reason, count)| (reason.as_str().to_owned(), (*count).into())).collect();
    let config = &shown.config;
    json!({
        "name": config.name,
        "url": config.url.anonymised(),
        "origin": match shown.origin { Origin::Config => "config", Origin::Api => "api", Origin::Binding => "binding" },
        "sources": config.sources,
        "source_patterns": config.source_patterns,
        "tags": config.tags,
        "state": now.state.as_str(),
        "since": time(now.since),
        "last_error": now.error.map(|(text, at)| json!({ "text": text, "at": time(at) })),
        "backlog": { "envelopes": shown.in_memory.0, "bytes": shown.in_memory.1 },
        "disk": shown.on_disk.map(|(envelopes, bytes)| json!({ "envelopes": envelopes, "bytes": bytes, "dir": shown.dir })),
        "disk_trouble": shown.trouble,
        "received": numbers.received,
        "delivered": numbers.delivered,
        "filtered": numbers.filtered,
        "uncertain": numbers.uncertain,
        "dropped": dropped,
    })
}

async fn blocking_prepare(api: Arc<Api>, config: DrainConfig) -> Result<Prepared, Refused> {
    let prepare = move || Prepared::new(config, &api.telemetry);
    match tokio::task::spawn_blocking(prepare).await {
        Ok(prepared) => prepared.map_err(|error| bad(error.to_string())),
        Err(_) => Err(defect()),
    }
}

async fn blocking(work: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(defect()))
}

fn json_answer(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json_answer(self.0, &json!({ "error": self.1 }))
    }
}

fn bad(text: String) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text)
}

fn unknown() -> Refused {
    Refused(StatusCode::NOT_FOUND, "there is no drain of this name".to_owned())
}

fn defect() -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be worked on, a defect of hydrant".to_owned())
}

fn conflict(error: &ChangeError) -> Refused {
    Refused(StatusCode::CONFLICT, error.to_string())
}
