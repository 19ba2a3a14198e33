//! Evaluating a query: its turn, its samples, and the work, which ends when nobody waits for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log_cache::querier;
use promql::{EvalError, Query, Select, Series, Span, Value};
use tokio::time::{Instant, timeout_at};
use transport::Address;

use super::answer::Failure;
use super::fetch::{self, MAX_SAMPLES};
use super::turns::{Key, Turns};
use crate::metrics::{Outcome, QueryMetrics};
use crate::recent::Dopplers;
use crate::upstream::Upstream;

/// How long a query may take in all.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Evaluates queries.
pub(super) struct Engine {
    pub(super) upstream: Upstream,
    pub(super) dopplers: Dopplers,
    pub(super) turns: Turns,
    metrics: QueryMetrics,
}

/// Whole seconds, in milliseconds since the Unix epoch: the time of a query that names none.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000)
}

impl Engine {
    pub(super) fn new(upstream: Upstream, metrics: QueryMetrics) -> Self {
        Self { dopplers: Dopplers::new(upstream.clone()), upstream, turns: Turns::new(), metrics }
    }

    /// Counts what came of a query that was asked at `began`.
    pub(super) fn count(&self, outcome: Outcome, is_range: bool, began: Instant) {
        self.metrics.asked(outcome, is_range, began.elapsed().as_secs_f64() * 1000.0);
    }

    /// Evaluates a query whose sources may all be read, and has `then` make something of its value and of those who could not be asked.
    pub(super) async fn evaluate<T: Send + 'static>(
        &self,
        query: Query,
        span: Span,
        key: Key,
        deadline: Instant,
        then: impl FnOnce(Value, Vec<Address>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let turn = self.turns.take(key, deadline).await?;
        let (data, missing) = self.fetch(query.selects(&span), &span, deadline).await?;
        let work = querier::evaluate(query, span, data, turn, |value| then(value, missing));
        match timeout_at(deadline, work).await {
            Err(_) | Ok(Ok(Err(EvalError::Cancelled))) => Err(Failure::Timeout),
            Ok(Err(_)) => Err(Failure::Unavailable("the evaluation failed".to_owned())),
            Ok(Ok(Err(error))) => Err(Failure::Evaluation(error)),
            Ok(Ok(Ok(outcome))) => outcome,
        }
    }

    /// The series of each selection. What is selected twice is fetched once.
    async fn fetch(
        &self,
        selects: Vec<Select>,
        span: &Span,
        deadline: Instant,
    ) -> Result<(Vec<Vec<Series>>, Vec<Address>), Failure> {
        let (mut data, mut missing): (Vec<Vec<Series>>, Vec<Address>) = (Vec::new(), Vec::new());
        let mut left = MAX_SAMPLES;
        for (i, select) in selects.iter().enumerate() {
            if let Some(same) = selects[..i].iter().position(|earlier| earlier == select) {
                data.push(data[same].clone());
                continue;
            }
            let range = (select.start, select.end);
            let request =
                fetch::request(select.sources.clone(), &select.matchers, range, querier::before(select, span), false);
            let fetched = fetch::fetch(&self.upstream, &request, &mut left, deadline).await?;
            data.push(
                fetched.parts.into_iter().map(|part| Series { labels: part.labels, samples: part.samples }).collect(),
            );
            missing.extend(fetched.missing);
        }
        missing.sort_unstable();
        missing.dedup();
        Ok((data, missing))
    }
}
