//! Queries over gRPC: `logcache.v1` PromQLQuerier, over the caches of all dopplers.
//!
//! What enters: requests as clients of a log-cache node send them. What leaves: merged answers; who could not be asked stands in the
//! metadata `x-hydrant-partial`.

use std::sync::Arc;

use promql::{Element, Labels, Limits, Query, Sample, Span, Value, parse_step, parse_time};
use proto::logcache::v1::prom_ql;
use proto::logcache::v1::prom_ql_querier_server::PromQlQuerier;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use transport::Address;

use super::answer::Failure;
use super::engine::{self, Engine};
use super::{admitted, turns};
use crate::auth::{Authorizer, Caller};
use crate::recent::PARTIAL;

/// `logcache.v1.PromQLQuerier`.
#[derive(Clone)]
pub(crate) struct QueryService {
    engine: Arc<Engine>,
    authorizer: Authorizer,
}

impl QueryService {
    pub(super) fn new(engine: Arc<Engine>, authorizer: Authorizer) -> Self {
        Self { engine, authorizer }
    }

    async fn ask<T, U: Send + 'static>(
        &self,
        request: Request<T>,
        read: impl FnOnce(T) -> Result<(Query, Span), Failure>,
        write: impl FnOnce(Value) -> U + Send + 'static,
    ) -> Result<Response<U>, Status> {
        let deadline = Instant::now() + engine::TIMEOUT;
        let (metadata, extensions, request) = request.into_parts();
        let grant = self.authorizer.authenticate(&Caller::grpc(&metadata, &extensions)).await?;
        let (query, span) = read(request)?;
        let query = admitted(query, grant).await?;
        let key = turns::key(&metadata.into_headers(), self.authorizer.is_none());
        let done = |value, missing: Vec<Address>| Ok((write(value), missing));
        let (result, missing) = self.engine.work(query, span, key, deadline, done).await?;
        let mut response = Response::new(result);
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            let missing = MetadataValue::try_from(missing.join(", ")).expect("addresses are ASCII without controls");
            response.metadata_mut().insert(PARTIAL, missing);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl PromQlQuerier for QueryService {
    async fn instant_query(
        &self,
        request: Request<prom_ql::InstantQueryRequest>,
    ) -> Result<Response<prom_ql::InstantQueryResult>, Status> {
        let read = |request: prom_ql::InstantQueryRequest| {
            let at = if request.time.is_empty() { engine::now() } else { parse_time(&request.time).map_err(bad)? };
            Ok((parse(&request.query)?, Span::instant(at)))
        };
        self.ask(request, read, |value| prom_ql::InstantQueryResult { result: instant(value) }).await
    }

    async fn range_query(
        &self,
        request: Request<prom_ql::RangeQueryRequest>,
    ) -> Result<Response<prom_ql::RangeQueryResult>, Status> {
        let read = |request: prom_ql::RangeQueryRequest| {
            let (start, end) = (parse_time(&request.start).map_err(bad)?, parse_time(&request.end).map_err(bad)?);
            let step = parse_step(&request.step).map_err(bad)?;
            Ok((parse(&request.query)?, Span::range(start, end, step, &Limits::default()).map_err(bad)?))
        };
        let write = |value| {
            let matrix = if let Value::Matrix(series) = value { matrix(series) } else { prom_ql::Matrix::default() };
            prom_ql::RangeQueryResult { result: Some(prom_ql::range_query_result::Result::Matrix(matrix)) }
        };
        self.ask(request, read, write).await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn bad<E: ToString>(error: E) -> Failure {
    Failure::Bad(error.to_string())
}

fn parse(query: &str) -> Result<Query, Failure> {
    Query::parse(query, &Limits::default()).map_err(bad)
}

fn instant(value: Value) -> Option<prom_ql::instant_query_result::Result> {
    use prom_ql::instant_query_result::Result;
    match value {
        Value::Scalar(Sample { at, value }) => Some(Result::Scalar(prom_ql::Scalar { time: time(at), value })),
        Value::Vector(elements) => {
            let sample = |Element { labels, sample }: Element| prom_ql::Sample {
                metric: metric(&labels),
                point: Some(point(sample)),
            };
            Some(Result::Vector(prom_ql::Vector { samples: elements.into_iter().map(sample).collect() }))
        }
        Value::Matrix(series) => Some(Result::Matrix(matrix(series))),
        // There is no place for a text.
        Value::Text(..) => None,
    }
}

fn matrix(series: Vec<promql::Series>) -> prom_ql::Matrix {
    let one = |series: promql::Series| prom_ql::Series {
        metric: metric(&series.labels),
        points: series.samples.into_iter().map(point).collect(),
    };
    prom_ql::Matrix { series: series.into_iter().map(one).collect() }
}

fn metric(labels: &Labels) -> std::collections::HashMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn point(Sample { at, value }: Sample) -> prom_ql::Point {
    prom_ql::Point { time: time(at), value }
}

/// Seconds with three decimals (contract `log-cache.md` §1).
fn time(millis: i64) -> String {
    format!("{}{}.{:03}", if millis < 0 { "-" } else { "" }, (millis / 1000).abs(), (millis % 1000).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_decimals() {
        assert_eq!([0, 1, 1500, -1, -2050].map(time), ["0.000", "0.001", "1.500", "-0.001", "-2.050"]);
    }
}
