//! Queries over the metrics that the caches hold, as Prometheus answers them (contract `log-cache.md` §3): `/api/v1/query`,
//! `query_range`, `labels`, `label/…/values`, `series`, `metadata` and `status/buildinfo`.
//!
//! What enters: requests of `cf query`, of Grafana and of anything else that speaks to a Prometheus. What leaves: JSON. A query is read
//! first; then whoever asks must be let read every source that it names; then its samples are fetched from every doppler and evaluated
//! here. A doppler that cannot be asked is named in `warnings` and in `X-Hydrant-Partial`. Nothing is kept between requests.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use promql::{Limits, Query, Span, parse_step, parse_time};
use tokio::time::Instant;

use self::answer::{Answer, Failure};
use self::engine::Engine;
use crate::auth::{Access, Authorizer, Caller, Denied, Grant};
use crate::metrics::{Outcome, QueryMetrics};
use crate::recent;
use crate::upstream::Upstream;

mod answer;
mod engine;
mod fetch;
mod grpc;
mod series;
mod turns;

pub(crate) use self::grpc::QueryService;

/// The version of Prometheus whose interface this is: Grafana asks, and shows what that can do.
const VERSION: &str = "2.42.0";

/// Queries, as their clients see them. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct Queries {
    engine: Arc<Engine>,
    authorizer: Authorizer,
    /// They stand under the page's origin, where a browser's cookie counts.
    beside_page: bool,
}

impl Queries {
    /// Queries over the caches of the dopplers of `upstream`.
    pub(crate) fn new(upstream: Upstream, authorizer: Authorizer, metrics: QueryMetrics) -> Self {
        Self { engine: Arc::new(Engine::new(upstream, metrics)), authorizer, beside_page: false }
    }

    /// The same over gRPC.
    pub(crate) fn service(&self) -> QueryService {
        QueryService::new(Arc::clone(&self.engine), self.authorizer.clone())
    }

    /// Its routes on a port of its own.
    pub(crate) fn router(&self) -> Router {
        let paths = ["query", "query_range", "labels", "label/{name}/values", "series", "metadata", "status/buildinfo"];
        let add = |routes: Router<Self>, path| routes.route(&format!("/api/v1/{path}"), any(answer));
        paths.into_iter().fold(Router::new(), add).with_state(self.clone())
    }

    /// Its routes beside the page.
    pub(crate) fn routes(&self) -> Router {
        Self { beside_page: true, ..self.clone() }.router()
    }
}

/// What a path asks for.
enum Route {
    Query,
    QueryRange,
    Labels,
    LabelValues(String),
    Series,
    Metadata,
    BuildInfo,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/api/v1/")? {
            "query" => Self::Query,
            "query_range" => Self::QueryRange,
            "labels" => Self::Labels,
            "series" => Self::Series,
            "metadata" => Self::Metadata,
            "status/buildinfo" => Self::BuildInfo,
            label => Self::LabelValues(recent::unescape(label.strip_prefix("label/")?.strip_suffix("/values")?).ok()?),
        })
    }
}

async fn answer(State(queries): State<Queries>, request: Request) -> Response {
    // Without an authorizer the port of the log cache is the original's gateway; with one, or beside the page, its proxy.
    let gateway = queries.authorizer.is_none() && !queries.beside_page;
    let told = |failure: Failure| if gateway { failure.at_gateway() } else { failure };
    queries.answer(request).await.unwrap_or_else(|failure| told(failure).into_response())
}

impl Queries {
    async fn answer(&self, request: Request) -> Result<Response, Failure> {
        let deadline = Instant::now() + engine::TIMEOUT;
        let route = Route::of(request.uri().path()).ok_or(recent::Refusal::NotFound)?;
        let caller = if self.beside_page { Caller::browser(&request) } else { Caller::Http(request.headers()) };
        let key = turns::key(request.headers(), self.authorizer.is_none());
        let grant = self.authorizer.authenticate(&caller).await;
        // Without any authorization nothing is looked at; with a wrong one a wrong query is told first (contract `log-cache.md` §6).
        if matches!(grant, Err(Denied::Missing | Denied::CrossSite)) {
            return Err(Failure::Denied);
        }
        let params = Params(recent::params(request).await?);
        let answer = match route {
            Route::Query | Route::QueryRange => {
                let began = Instant::now();
                let answer = async {
                    let (query, span) = self.read(&route, &params)?;
                    let grant = grant.map_err(|_| Failure::Denied)?;
                    let query = admitted(query, grant).await.map_err(|_| Failure::Denied)?;
                    let write = |value, missing| Answer::of(&value, missing);
                    self.engine.evaluate(query, span, key, deadline, write).await
                };
                let answer = answer.await;
                let outcome = answer.as_ref().map_or_else(Outcome::from, |_| Outcome::Answered);
                self.engine.count(outcome, matches!(route, Route::QueryRange), began);
                answer?
            }
            Route::BuildInfo => {
                grant.map_err(|_| Failure::Denied)?;
                Answer::buildinfo(VERSION)
            }
            Route::Labels | Route::LabelValues(_) | Route::Series | Route::Metadata => {
                let wanted = series::Wanted::read(&params)?;
                if matches!(route, Route::Series) && wanted.selectors.is_empty() {
                    return Err(Failure::Bad("no match[] parameter provided".to_owned()));
                }
                let visible = grant.map_err(|_| Failure::Denied)?.visible().await;
                let label = if let Route::LabelValues(label) = &route { Some(label.as_str()) } else { None };
                let found = self.engine.series(&wanted, &visible, label == Some(series::SOURCE), key, deadline).await?;
                match route {
                    Route::Labels => found.labels(),
                    Route::Series => found.series(),
                    Route::Metadata => found.metadata(params.get("metric")),
                    _ => found.values(label.unwrap_or_default()),
                }
            }
        };
        Ok(answer.into_response())
    }

    fn read(&self, route: &Route, params: &Params) -> Result<(Query, Span), Failure> {
        let limits = Limits::default();
        let bad =
            |name: &str, what: &dyn std::fmt::Display| Failure::Bad(format!("invalid parameter \"{name}\": {what}"));
        let span = if matches!(route, Route::Query) {
            Span::instant(match params.get("time") {
                None | Some("") => engine::now(),
                Some(text) => parse_time(text).map_err(|error| bad("time", &error))?,
            })
        } else {
            let time = |name| {
                let text = params.get(name).unwrap_or_default();
                parse_time(text).map_err(|error| bad(name, &error))
            };
            let (start, end) = (time("start")?, time("end")?);
            let step = parse_step(params.get("step").unwrap_or_default()).map_err(|error| bad("step", &error))?;
            Span::range(start, end, step, &limits).map_err(|error| Failure::Bad(error.to_string()))?
        };
        let query = Query::parse(params.get("query").unwrap_or_default(), &limits);
        Ok((query.map_err(|error| bad("query", &error))?, span))
    }
}

/// A query, its sources exchanged for those that `grant` reads under their names.
///
/// # Errors
/// It may not read one of them.
async fn admitted(query: Query, mut grant: Grant) -> Result<Query, Denied> {
    let names: Vec<String> = query.sources().map(str::to_owned).collect();
    let named = grant.named(&names).await?;
    for name in &names {
        for source_id in named.get(name).map_or(std::slice::from_ref(name), Vec::as_slice) {
            grant.admit(Access::Source(source_id)).await?;
        }
    }
    if named.is_empty() {
        return Ok(query);
    }
    Ok(query.with_sources(|name| named.get(name).cloned().unwrap_or_else(|| vec![name.to_owned()])))
}

/// The parameters of a request.
struct Params(Vec<(String, String)>);

impl Params {
    /// The first of a name.
    fn get<'a>(&'a self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
