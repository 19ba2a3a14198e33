//! What the firehose_exporter says about itself (contract: syslog drains §8.1): envelopes and metrics that it has had, and when.
//!
//! Counts by kind enter; a counter and, for what arrived, the time of the last one leave. Names only for that naming.

use std::sync::Arc;

use super::families::{Families, Family};
use super::{Type, Value};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Own {
    Envelopes,
    EnvelopesDropped,
    Metrics,
    MetricsDropped,
    Container,
    CounterEvent,
    ValueMetric,
    Http,
}

/// By [`Own`]: the counter, and the gauge with the time of the last one, below the namespace.
const NAMES: [(&str, &str); 8] = [
    ("total_envelopes_received", "last_envelope_received_timestamp"),
    ("total_envelopes_dropped", ""),
    ("total_metrics_received", "last_metric_received_timestamp"),
    ("total_metrics_dropped", ""),
    ("total_container_metrics_received", "last_container_metric_received_timestamp"),
    ("total_counter_events_received", "last_counter_event_received_timestamp"),
    ("total_value_metrics_received", "last_value_metric_received_timestamp"),
    ("total_http_metrics_received", "last_http_metric_received_timestamp"),
];

/// The counts, and the families that show them.
#[derive(Debug, Default)]
pub(super) struct OwnSeries {
    counts: [(u64, i64); NAMES.len()],
    families: Vec<(Arc<Family>, usize, bool)>,
}

impl OwnSeries {
    /// Takes the names below `namespace` for good, before any envelope can.
    pub(super) fn register(families: &mut Families, namespace: &str) -> Self {
        let mut own = Self::default();
        for (i, (counter, last)) in NAMES.iter().enumerate() {
            let mut take = |name: &str, of, help, is_time| {
                let name = format!("{namespace}{}{name}", if namespace.is_empty() { "" } else { "_" });
                if let Some(family) = families.enter(&name, of, help) {
                    families.add(family.id);
                    own.families.push((family, i, is_time));
                }
            };
            take(counter, Type::Counter, "How many there have been since the start.", false);
            if !last.is_empty() {
                take(last, Type::Gauge, "When the last one came, as Unix time; 0 for never.", true);
            }
        }
        own
    }

    pub(super) fn count(&mut self, of: Own, by: u64, now: i64) {
        let (count, last) = &mut self.counts[of as usize];
        *count += by;
        *last = now;
    }

    /// Each series: its family, and its value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<Family>, Value)> {
        self.families.iter().map(|(family, i, is_time)| {
            let (count, last) = self.counts[*i];
            // Whole seconds, as the original has it.
            let seconds = (last / 1_000_000_000) as f64;
            (family, if *is_time { Value::Gauge(seconds) } else { Value::Counter(count) })
        })
    }
}
