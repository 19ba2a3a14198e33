//! Running sums and remembered gauges, and the envelopes they become (contract: agents §9). Pure.
//!
//! What enters: metrics. What leaves: encoded envelopes. A series is an origin and a name, tags are no part of it; the one longest
//! unused is forgotten when there are too many, and no other notices.

use std::num::NonZeroUsize;

use lru::LruCache;
use proto::raw::{edit, wire};

use super::{Kind, Metric};

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

    /// Appends the envelope that `metric` becomes, at `now_ns` nanoseconds since the Unix epoch, framed as field 1 of an
    /// `EnvelopeBatch`: a gauge of one entry.
    ///
    /// Allocates for a new series, and where `out` has no room.
    pub fn apply(&mut self, metric: Metric<'_>, now_ns: i64, out: &mut Vec<u8>) {
        let value = match (metric.kind, metric.sign) {
            (Kind::Counter, _) | (Kind::Gauge, Some(_)) => self.update(&metric, |last| last + metric.signed()),
            (Kind::Gauge, None) => self.update(&metric, |_| metric.value),
            (Kind::Timer, _) => metric.value,
        };
        put_envelope(out, &metric, value, now_ns);
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

fn put_envelope(out: &mut Vec<u8>, metric: &Metric<'_>, value: f64, now_ns: i64) {
    let (origin, name, unit) = (metric.origin.as_bytes(), metric.name.as_bytes(), metric.kind.unit().as_bytes());
    let timestamp = now_ns.cast_unsigned();
    let own_origin = metric.tags.iter().all(|(key, _)| key != "origin");

    let reading_len = wire::bytes_len(unit.len()) + if value == 0.0 { 0 } else { 9 };
    let entry_len = wire::bytes_len(name.len()) + wire::bytes_len(reading_len);
    let gauge_len = wire::bytes_len(entry_len);
    let tag_len = |key: usize, value: usize| wire::bytes_len(wire::bytes_len(key) + wire::bytes_len(value));
    let tags_len = metric.tags.iter().map(|(key, value)| tag_len(key.len(), value.len())).sum::<usize>()
        + if own_origin { tag_len("origin".len(), origin.len()) } else { 0 };
    let envelope_len =
        1 + wire::varint_len(timestamp) + wire::bytes_len(origin.len()) + tags_len + wire::bytes_len(gauge_len);

    put_header(out, 1, envelope_len);
    wire::put_varint(out, 1 << 3);
    wire::put_varint(out, timestamp);
    edit::put_source_id(out, origin);
    if own_origin {
        edit::put_tag(out, b"origin", origin);
    }
    for (key, value) in metric.tags.iter() {
        edit::put_tag(out, key.as_bytes(), value.as_bytes());
    }
    put_header(out, 6, gauge_len);
    put_header(out, 1, entry_len);
    wire::put_bytes(out, 1, name);
    put_header(out, 2, reading_len);
    wire::put_bytes(out, 1, unit);
    if value != 0.0 {
        wire::put_varint(out, 2 << 3 | 1);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// The key and length of a length-delimited field.
fn put_header(out: &mut Vec<u8>, number: u64, len: usize) {
    wire::put_varint(out, number << 3 | 2);
    wire::put_varint(out, len as u64);
}
