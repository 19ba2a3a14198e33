//! Queries over gRPC: `logcache.v1.PromQLQuerier`, over what this node holds, or those of a cluster together.
//!
//! What enters: a query and its times, as text. What leaves: what it gives, evaluated here. Errors are UNKNOWN, as the original's
//! (contract `log-cache.md` §2, status mapping).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use promql::{
    Element, EvalError, Labels, Limits, MatchOp, Matcher, Query, Sample, Select, Series, Span, Value, parse_step,
    parse_time,
};
use proto::hydrant::v1;
use proto::logcache::v1::prom_ql;
use proto::logcache::v1::prom_ql_querier_server::PromQlQuerier;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::metrics;
use crate::samples::SamplesService;

/// How long a query may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Queries at once; others wait.
const AT_ONCE: usize = 4;

/// The implementation of `logcache.v1.PromQLQuerier`.
#[derive(Clone, Debug)]
pub struct Querier {
    samples: SamplesService,
    turns: Arc<Semaphore>,
}

/// Tells the work to stop when whoever waits for it goes.
struct Stops(Arc<AtomicBool>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Querier {
    pub(crate) fn new(samples: SamplesService) -> Self {
        Self { samples, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    async fn ask(&self, query: &str, span: Result<Span, String>) -> Result<(Value, MetadataMap), Status> {
        let query = Query::parse(query, &Limits::default()).map_err(|error| Status::unknown(error.to_string()))?;
        let span = span.map_err(Status::unknown)?;
        let late = |_| Status::deadline_exceeded("query timed out in expression evaluation");
        timeout(WITHIN, self.evaluate(query, span)).await.map_err(late)?
    }

    async fn evaluate(&self, query: Query, span: Span) -> Result<(Value, MetadataMap), Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Status::unavailable("the cache is stopping"))?;
        let (mut data, mut partial, mut left) = (Vec::new(), MetadataMap::new(), Limits::default().samples);
        for select in query.selects(&span) {
            if select.start > select.end || select.sources.is_empty() {
                data.push(Vec::new());
                continue;
            }
            let request = v1::SelectRequest {
                before: before(&select, &span),
                matchers: select.matchers.iter().map(matcher).collect(),
                start: select.start,
                end: select.end,
                source_ids: select.sources,
                labels_only: false,
                max_samples: left.max(1) as u64,
            };
            // Too much for one answer is too much for the query.
            let wrong = |status: Status| match status.code() {
                tonic::Code::ResourceExhausted | tonic::Code::InvalidArgument => Status::unknown(status.message()),
                _ => status,
            };
            let (metadata, frames, _) = self.samples.frames(request, true).await.map_err(wrong)?.into_parts();
            for (key, value) in metadata.into_headers() {
                if let Some(key) = key {
                    partial.as_mut().insert(key, value);
                }
            }
            let series: Vec<Series> = frames.into_iter().flat_map(|frame| frame.series).map(series).collect();
            left = left.saturating_sub(series.iter().map(|series| series.samples.len()).sum());
            data.push(series);
        }
        let value = evaluate(query, span, data, turn, |value| value).await;
        let value = value.map_err(|_| Status::internal("the evaluation failed"))?;
        Ok((value.map_err(|error| Status::unknown(error.to_string()))?, partial))
    }
}

/// Evaluates a query over what was fetched for it and has `then` make something of its value, where nobody else waits. It stops when
/// nobody waits for it any more; `held` lasts as long as the work.
///
/// # Errors
/// It panicked; within, what evaluating finds wrong.
pub async fn evaluate<T: Send + 'static>(
    query: Query,
    span: Span,
    data: Vec<Vec<Series>>,
    held: impl Send + 'static,
    then: impl FnOnce(Value) -> T + Send + 'static,
) -> Result<Result<T, EvalError>, JoinError> {
    let told = Arc::new(AtomicBool::new(false));
    let _stops = Stops(Arc::clone(&told));
    let task = tokio::task::spawn_blocking(move || {
        let _held = held;
        query.evaluate(&span, data, &Limits::default(), &|| told.load(Ordering::Relaxed)).map(then)
    });
    task.await
}

/// The moment of a query, for a selection that does not look beyond it.
pub fn before(select: &Select, span: &Span) -> Option<i64> {
    (select.end <= span.end()).then(|| span.end())
}

/// A matcher as it is sent.
pub fn matcher(matcher: &Matcher) -> v1::Matcher {
    let op = match matcher.op() {
        MatchOp::Equal => v1::matcher::Op::Equal,
        MatchOp::NotEqual => v1::matcher::Op::NotEqual,
        MatchOp::Regex => v1::matcher::Op::Regex,
        MatchOp::NotRegex => v1::matcher::Op::NotRegex,
    };
    v1::Matcher { label: matcher.label().to_owned(), op: op.into(), value: matcher.value().to_owned() }
}

/// A series, or a part of one, as it was sent.
pub fn series(series: v1::Series) -> Series {
    let mut second = 0_i64;
    let sample = |(step, value): (i64, f64)| {
        second = second.wrapping_add(step);
        Sample { at: second.saturating_mul(1000), value }
    };
    let samples = series.steps.into_iter().zip(series.values).map(sample).collect();
    Series { labels: Labels::new(series.labels.into_iter().map(|label| (label.name, label.value))), samples }
}

/// The times of an instant query; without one, the whole second that is now.
///
/// # Errors
/// What is wrong with them.
pub fn instant_span(request: &prom_ql::InstantQueryRequest) -> Result<Span, String> {
    if request.time.is_empty() {
        return Ok(Span::instant(metrics::now().div_euclid(1_000_000_000) * 1000));
    }
    parse_time(&request.time).map(Span::instant).map_err(|error| error.to_string())
}

/// The times of a range query.
///
/// # Errors
/// What is wrong with them.
pub fn range_span(request: &prom_ql::RangeQueryRequest) -> Result<Span, String> {
    let time = |text: &str| parse_time(text).map_err(|error| error.to_string());
    let step = parse_step(&request.step).map_err(|error| error.to_string())?;
    let (start, end) = (time(&request.start)?, time(&request.end)?);
    Span::range(start, end, step, &Limits::default()).map_err(|error| error.to_string())
}

#[tonic::async_trait]
impl PromQlQuerier for Querier {
    async fn instant_query(
        &self,
        request: Request<prom_ql::InstantQueryRequest>,
    ) -> Result<Response<prom_ql::InstantQueryResult>, Status> {
        let request = request.into_inner();
        let (value, partial) = self.ask(&request.query, instant_span(&request)).await?;
        Ok(Response::from_parts(partial, instant_result(value), tonic::Extensions::default()))
    }

    async fn range_query(
        &self,
        request: Request<prom_ql::RangeQueryRequest>,
    ) -> Result<Response<prom_ql::RangeQueryResult>, Status> {
        let request = request.into_inner();
        let (value, partial) = self.ask(&request.query, range_span(&request)).await?;
        Ok(Response::from_parts(partial, range_result(value), tonic::Extensions::default()))
    }
}

/// What an instant query gives; nothing where it gives a text, for which there is no place.
pub fn instant_result(value: Value) -> prom_ql::InstantQueryResult {
    prom_ql::InstantQueryResult { result: instant(value) }
}

/// What a range query gives.
pub fn range_result(value: Value) -> prom_ql::RangeQueryResult {
    let matrix = if let Value::Matrix(series) = value { matrix(series) } else { prom_ql::Matrix::default() };
    prom_ql::RangeQueryResult { result: Some(prom_ql::range_query_result::Result::Matrix(matrix)) }
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
