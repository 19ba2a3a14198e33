//! Running sums and remembered gauges, and the envelopes they become (contract: agents §9). Pure.
//!
//! What enters: metrics. What leaves: encoded envelopes. A series is an origin and a name, tags are no part of it; the one longest
//! unused is forgotten when there are too many, and no other notices.

use std::num::NonZeroUsize;

use super::{Kind, Metric};
use crate::gather::Gather;
use lru::LruCache;

/// Remembers counters and gauges between lines.
#[derive(Debug)]
pub struct Aggregator {
    series: LruCache<Vec<u8>, f64, foldhash::fast::RandomState>,
    max_series: NonZeroUsize,
    /// The key of the series at hand, kept for its capacity.
    key: Vec<u8>,
}

impl Aggregator {
    /// One that remembers up to `max_series` counters and gauges together, at most some 900 bytes each.
    pub fn new(max_series: NonZeroUsize) -> Self {
        let series = LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default());
        Self { series, max_series, key: Vec::new() }
    }

    /// Gathers the envelope that `metric` becomes, at `now_ns` nanoseconds since the Unix epoch: a gauge of one entry.
    ///
    /// Allocates for a new series, and where `gather` has no room.
    pub fn apply(&mut self, metric: Metric<'_>, now_ns: i64, gather: &mut Gather) {
        let value = match (metric.kind, metric.sign) {
            (Kind::Counter, _) | (Kind::Gauge, Some(_)) => self.update(&metric, |last| last + metric.signed()),
            (Kind::Gauge, None) => self.update(&metric, |_| metric.value),
            (Kind::Timer, _) => metric.value,
        };
        let mut draft = gather.envelope(metric.origin, "", now_ns);
        if metric.tags.iter().all(|(key, _)| key != "origin") {
            draft.tag("origin", metric.origin);
        }
        for (key, value) in metric.tags.iter() {
            draft.tag(key, value);
        }
        draft.gauge([(metric.name, metric.kind.unit(), value)]);
    }

    /// Series remembered now.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    fn update(&mut self, metric: &Metric<'_>, next: impl FnOnce(f64) -> f64) -> f64 {
        self.key.clear();
        // An origin has no dot: the key says where it ends.
        for part in [metric.kind.unit(), metric.origin, ".", metric.name] {
            self.key.extend_from_slice(part.as_bytes());
        }
        let value = self.series.get_or_insert_mut_ref(self.key.as_slice(), || 0.0);
        *value = next(*value);
        let value = *value;
        if self.series.len() > self.max_series.get() {
            self.series.pop_lru();
        }
        value
    }
}
