//! The numbers of queries.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

/// The numbers of queries. Cloning shares them.
#[derive(Clone)]
pub(crate) struct QueryMetrics {
    answered: Counter,
    refused: Counter,
    failed: Counter,
    instant: Gauge,
    range: Gauge,
    timeouts: Gauge,
}

/// What came of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    /// It was wrong, or asked for too much, or for what the caller may not read.
    Refused,
    /// It was none of these, and there is no answer.
    Failed,
    /// It took too long.
    TimedOut,
}

impl QueryMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let queries = |outcome| {
            let help = "Queries, by what came of them.";
            telemetry.counter("hydrant_queries_total", help, &[("outcome", outcome)])
        };
        let milliseconds = |name, help| telemetry.gauge(name, help, &[("unit", "milliseconds")]);
        Self {
            answered: queries("answered"),
            refused: queries("refused"),
            failed: queries("failed"),
            instant: milliseconds("log_cache_promql_instant_query_time", "How long the last instant query took."),
            range: milliseconds("log_cache_promql_range_query_time", "How long the last range query took."),
            timeouts: telemetry.gauge("log_cache_promql_timeout", "Queries that took too long, since the start.", &[]),
        }
    }

    /// Counts a query that took `milliseconds`.
    pub(crate) fn asked(&self, outcome: Outcome, is_range: bool, milliseconds: f64) {
        match outcome {
            Outcome::Answered => self.answered.increment(1),
            Outcome::Refused => return self.refused.increment(1),
            Outcome::Failed => self.failed.increment(1),
            Outcome::TimedOut => {
                self.failed.increment(1);
                self.timeouts.increment(1.0);
            }
        }
        if is_range { &self.range } else { &self.instant }.set(milliseconds);
    }
}
