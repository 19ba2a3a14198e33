//! The log cache over HTTP: `/api/v1/read/…`, `/api/v1/meta` and `/api/v1/info` (contract `log-cache.md` §2); and over gRPC.
//!
//! What enters: requests of `cf`, its plug-ins and anything that speaks to a log cache. What leaves: JSON, made of what every doppler
//! answers, merged. A doppler that cannot be asked makes the answer partial, and the answer says so in `X-Hydrant-Partial`, which
//! names it: an answer is never short in silence. Nothing is kept between requests.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderValue, Method, StatusCode, header};
use proto::json;
use proto::logcache::v1;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};
use transport::Address;

use self::ask::Answers;
pub(crate) use self::ask::{Dopplers, missing};
pub(crate) use self::error::Refusal;
pub(crate) use self::grpc::with_partial;
pub(crate) use self::merge::MAX_ANSWER;
pub(crate) use self::query::unescape;
use crate::auth::{Access, Authorizer, Caller, Denied, Grant};
use crate::upstream::Upstream;

mod ask;
mod error;
mod grpc;
mod merge;
mod query;

/// What `/api/v1/info` says the interface is: the release of the original whose interface this is. Clients compare it, and older than
/// 2.1.0 would lose the name filter.
const API_VERSION: &str = "3.2.12";

/// How long dopplers have for their answers.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Requests that ask dopplers at once; others wait for their turn, within the deadline. Each may hold an answer per doppler.
const AT_ONCE: usize = 32;

/// The longest `source_id`.
const MAX_SOURCE_ID: usize = 256;

/// Names the dopplers whose envelopes are missing from an answer.
pub(crate) const PARTIAL: &str = "x-hydrant-partial";

/// The log cache, as its clients see it. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Cache {
    shared: Arc<Shared>,
    /// It stands under the page's origin, where a browser's cookie counts.
    beside_page: bool,
}

impl Cache {
    /// Answers from the dopplers of `upstream`.
    pub(crate) fn new(upstream: Upstream, authorizer: Authorizer) -> Self {
        let (dopplers, turns) = (Dopplers::new(upstream), Semaphore::new(AT_ONCE));
        let shared = Arc::new(Shared { dopplers, authorizer, turns, began: Instant::now() });
        Self { shared, beside_page: false }
    }

    /// What `request` asks for, for a caller who may read it, by `deadline`.
    ///
    /// # Errors
    /// No doppler can answer, or the answer would be too large.
    pub(crate) async fn page(&self, request: &v1::ReadRequest, deadline: Instant) -> Result<Envelopes<'_>, Refusal> {
        let (page, _, turn) = self.shared.page(request, deadline).await?;
        Ok(Envelopes { page, _turn: turn })
    }

    /// A port of its own.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// Its routes beside the page.
    pub(crate) fn routes(&self) -> Router {
        Router::new().route("/api/v1/{*path}", any(answer)).with_state(Self { beside_page: true, ..self.clone() })
    }
}

struct Shared {
    dopplers: Dopplers,
    authorizer: Authorizer,
    turns: Semaphore,
    began: Instant,
}

/// Envelopes of several dopplers, in order, and the turn in which they were asked for.
pub(crate) struct Envelopes<'a> {
    page: merge::Page,
    _turn: SemaphorePermit<'a>,
}

impl Envelopes<'_> {
    /// The encoded envelopes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.page.envelopes()
    }
}

/// What a path asks for.
enum Route {
    /// The path behind `read/`, still escaped.
    Read(String),
    Meta,
    Info,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/read" => Some(Self::Read(String::new())),
            "/api/v1/meta" => Some(Self::Meta),
            "/api/v1/info" => Some(Self::Info),
            _ => path.strip_prefix("/api/v1/read/").map(|id| Self::Read(id.to_owned())),
        }
    }
}

async fn answer(State(Cache { shared, beside_page }): State<Cache>, request: Request) -> Response {
    match Route::of(request.uri().path()) {
        None => Refusal::NotFound.into_response(),
        Some(Route::Info) => shared.info(),
        Some(route) => shared.ask(route, request, beside_page).await.unwrap_or_else(IntoResponse::into_response),
    }
}

impl Shared {
    /// Any method will do, as with the original.
    fn info(&self) -> Response {
        let body = format!("{{\"version\":\"{API_VERSION}\",\"vm_uptime\":\"{}\"}}\n", self.uptime());
        ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
    }

    /// Seconds since this machine started; where it does not say, since this server did.
    fn uptime(&self) -> u64 {
        let machine = std::fs::read_to_string("/proc/uptime").ok();
        let seconds = machine.as_deref().and_then(|text| text.split('.').next()?.parse().ok());
        seconds.unwrap_or_else(|| self.began.elapsed().as_secs())
    }

    async fn ask(&self, route: Route, request: Request, beside_page: bool) -> Result<Response, Response> {
        let caller = if beside_page { Caller::browser(&request) } else { Caller::Http(request.headers()) };
        let mut grant = self.authorizer.authenticate(&caller).await.map_err(refused)?;
        let params = params(request).await.map_err(IntoResponse::into_response)?;
        match route {
            Route::Read(escaped) => {
                let request = query::read(&escaped, &params).map_err(IntoResponse::into_response)?;
                grant.admit(Access::Source(&request.source_id)).await.map_err(refused)?;
                self.read(request).await.map_err(IntoResponse::into_response)
            }
            Route::Meta => {
                let request = query::meta(&params).map_err(IntoResponse::into_response)?;
                self.meta(request, &grant).await.map_err(IntoResponse::into_response)
            }
            Route::Info => Ok(self.info()),
        }
    }

    /// The answers, and the turn to be held for as long as they are.
    async fn page(
        &self,
        request: &v1::ReadRequest,
        deadline: Instant,
    ) -> Result<(merge::Page, Answers<v1::ReadResponse>, SemaphorePermit<'_>), Refusal> {
        let turn = self.turn(deadline).await?;
        let answers = self.dopplers.read(request, deadline).await?;
        let page = merge::pages(answers.answers.iter().map(|(_, page)| page), request)?;
        Ok((page, answers, turn))
    }

    async fn read(&self, request: v1::ReadRequest) -> Result<Response, Refusal> {
        let (page, answers, _turn) = self.page(&request, Instant::now() + DEADLINE).await?;
        let mut body = Vec::new();
        json::put_read(&mut body, page.envelopes());
        let Some(reached) = page.reached else { return Ok(json_response(body, &answers.missing)) };
        // Only whoever asks for more than the original has gets here: clients that know no other fields do not.
        body.pop();
        write!(body, r#","partial":true,"reached":"{reached}"}}"#).expect("writing to memory");
        Ok(json_response(body, &answers.missing))
    }

    async fn meta(&self, request: v1::MetaRequest, grant: &Grant) -> Result<Response, Refusal> {
        let (meta, missing) = self.summary(request, grant).await?;
        let body = json::to_vec(&MetaBody { meta }).expect("numbers under text keys have a JSON form");
        Ok(json_response(body, &missing))
    }

    /// Of the sources that `grant` reads, and as if there were no others; and who could not be asked.
    async fn summary(&self, request: v1::MetaRequest, grant: &Grant) -> Result<(Summary, Vec<Address>), Refusal> {
        let visible = grant.visible().await;
        let deadline = Instant::now() + DEADLINE;
        let _turn = self.turn(deadline).await?;
        let v1::MetaRequest { local_only, details, after, limit } = request;
        // A page is one of what the caller sees: only here it is known.
        let request = v1::MetaRequest { local_only, details, ..v1::MetaRequest::default() };
        let answers = self.dopplers.meta(request, deadline).await?;
        let mut meta = merge::meta(answers.answers.iter().map(|(_, meta)| meta), details);
        meta.retain(|source_id, _| (after.is_empty() || *source_id > after) && visible.shows(source_id));
        if limit > 0 {
            meta = meta.into_iter().take(limit as usize).collect();
        }
        Ok((meta, answers.missing))
    }

    async fn turn(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Refusal> {
        match timeout_at(deadline, self.turns.acquire()).await {
            Ok(turn) => Ok(turn.expect("nobody closes the semaphore")),
            Err(_) => Err(Refusal::Busy),
        }
    }
}

/// Whoever may not read something is told that it is not there (contract `log-cache.md` §6).
fn refused(_denied: Denied) -> Response {
    StatusCode::NOT_FOUND.into_response()
}

/// The parameters of a request: those of a form first, then those of the query.
pub(crate) async fn params(request: Request) -> Result<Vec<(String, String)>, Refusal> {
    let form = request.method() == Method::POST && is_form(&request);
    let method = match request.headers().get("x-http-method-override") {
        Some(method) if form => Method::from_bytes(method.as_bytes().to_ascii_uppercase().as_slice()),
        _ if form => Ok(Method::GET),
        _ => Ok(request.method().clone()),
    };
    if method.ok() != Some(Method::GET) {
        return Err(Refusal::Method);
    }
    let in_query = request.uri().query().unwrap_or_default().to_owned();
    let mut params = Vec::new();
    if form {
        let body = timeout(DEADLINE, Bytes::from_request(request, &())).await.map_err(|_| Refusal::Body)?;
        let body = body.map_err(|_| Refusal::Body)?;
        query::parse(&String::from_utf8_lossy(&body), &mut params)?;
    }
    query::parse(&in_query, &mut params)?;
    Ok(params)
}

fn is_form(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn json_response(mut body: Vec<u8>, missing: &[Address]) -> Response {
    body.push(b'\n');
    let types =
        [(header::CONTENT_TYPE.as_str(), "application/json"), ("grpc-metadata-content-type", "application/grpc")];
    let mut response = (StatusCode::OK, types, body).into_response();
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let missing = HeaderValue::try_from(missing.join(", ")).expect("addresses are ASCII without controls");
        response.headers_mut().insert(PARTIAL, missing);
    }
    response
}

/// Sources in a few numbers each.
type Summary = BTreeMap<String, merge::Meta>;

#[derive(Serialize)]
struct MetaBody {
    meta: Summary,
}
