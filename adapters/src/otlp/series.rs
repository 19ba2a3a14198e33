//! What must be remembered of metrics: since when a counter counts, and the durations of timers.
//!
//! Values enter with the hash of their series; what a cumulative point needs leaves. Both tables are bounded. Of counters the one that was
//! not heard of for longest makes room, and begins anew if it comes again; a histogram that finds no room is refused, and one without
//! timers for ten minutes is forgotten.

use std::num::NonZeroUsize;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lru::LruCache;

use super::wire::{put_fixed64, put_head};

/// A histogram without timers for this long is forgotten, in nanoseconds; and how often that is looked at.
const EXPIRY: i64 = 600_000_000_000;
const LOOK: i64 = 60_000_000_000;
/// What the names and attributes of all histograms may take, in bytes.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// The upper bounds of buckets in seconds, as the semantic conventions advise for durations of requests.
pub(super) const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Counters by the hash of their series.
#[derive(Debug)]
pub(super) struct Counters(LruCache<u64, Seen, RandomState>);

/// Where a counter is.
#[derive(Clone, Copy, Debug)]
struct Seen {
    start: i64,
    time: i64,
    total: u64,
}

impl Counters {
    pub(super) fn new(max: NonZeroUsize) -> Self {
        let mut counters = LruCache::unbounded_with_hasher(RandomState::default());
        counters.resize(max);
        Self(counters)
    }

    /// A counter is at `total`, or went on by `step`. Returns since when it counts, and to where.
    ///
    /// Nobody tells when a counter began. Its first value stands at its own start, which readers take for an unknown one; so does the
    /// first after it fell. One that only counts on begins with us.
    pub(super) fn put(&mut self, series: u64, time: i64, total: u64, step: Option<u64>) -> (i64, u64) {
        let Some(seen) = self.0.get_mut(&series) else {
            let (start, total) = step.map_or((time, total), |step| (time.saturating_sub(1), step));
            self.0.put(series, Seen { start, time, total });
            return (start, total);
        };
        let total = step.map_or(total, |step| seen.total.saturating_add(step));
        if time < seen.time {
            // Late: what is known is newer, except that a step counts whenever it comes.
            seen.total = seen.total.max(if step.is_some() { total } else { 0 });
            return (seen.start.min(time), total);
        }
        if total < seen.total {
            seen.start = time;
        }
        (seen.time, seen.total) = (time, total);
        (seen.start, total)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Histograms by the hash of their series.
#[derive(Debug)]
pub(super) struct Histograms {
    all: HashMap<u64, Histogram, RandomState>,
    max: usize,
    bytes: usize,
    looked_at: i64,
    /// Those that have changed.
    changed: Vec<u64>,
}

/// The durations of one series.
#[derive(Debug)]
pub(super) struct Histogram {
    /// The name of its timers, and their attributes as fields of a point.
    pub(super) name: Vec<u8>,
    pub(super) attributes: Vec<u8>,
    /// The resource that it is of, and its hash.
    pub(super) resource: (u64, Vec<u8>),
    /// Of name and metric, for the batch.
    pub(super) metric: u64,
    start: i64,
    time: i64,
    count: u64,
    sum: f64,
    least: f64,
    most: f64,
    buckets: [u64; BOUNDS.len() + 1],
    /// Timers since it was last told of.
    pub(super) waiting: u64,
    /// When it was last added to.
    at: i64,
}

impl Histograms {
    pub(super) fn new(max: usize) -> Self {
        Self { all: HashMap::default(), max, bytes: 0, looked_at: 0, changed: Vec::new() }
    }

    /// Adds a timer that stopped at `time`; a series that is new is asked for. False if there is no room for it.
    pub(super) fn put(
        &mut self,
        series: u64,
        (time, seconds, now): (i64, f64, i64),
        new: impl FnOnce() -> (Vec<u8>, Vec<u8>, (u64, Vec<u8>), u64),
    ) -> bool {
        if !self.all.contains_key(&series) {
            if self.all.len() >= self.max || self.bytes >= MAX_BYTES {
                self.forget(now);
            }
            if self.all.len() >= self.max || self.bytes >= MAX_BYTES {
                return false;
            }
            let (name, attributes, resource, metric) = new();
            let histogram = Histogram::new(name, attributes, resource, metric, time, seconds);
            self.bytes += histogram.bytes();
            self.all.insert(series, histogram);
        }
        let histogram = self.all.get_mut(&series).expect("it was put there if it was not");
        if histogram.waiting == 0 {
            self.changed.push(series);
        }
        histogram.add(time, seconds, now);
        true
    }

    /// Those that have changed since this was last called.
    pub(super) fn changed(&mut self, mut tell: impl FnMut(&mut Histogram)) {
        for series in self.changed.drain(..) {
            if let Some(histogram) = self.all.get_mut(&series) {
                tell(histogram);
                histogram.waiting = 0;
            }
        }
    }

    /// Series that have changed.
    pub(super) fn waiting(&self) -> usize {
        self.changed.len()
    }

    /// Forgets what has ended, at most once a minute.
    pub(super) fn forget(&mut self, now: i64) {
        if now.saturating_sub(self.looked_at) < LOOK {
            return;
        }
        self.looked_at = now;
        self.all.retain(|_, histogram| {
            let stays = histogram.waiting > 0 || now.saturating_sub(histogram.at) < EXPIRY;
            if !stays {
                self.bytes -= histogram.bytes();
            }
            stays
        });
    }
}

impl Histogram {
    fn new(name: Vec<u8>, attributes: Vec<u8>, resource: (u64, Vec<u8>), metric: u64, time: i64, seconds: f64) -> Self {
        // Its first timer began before it ended: so did the time that is counted.
        let before = (seconds * 1e9).min(9e18) as i64;
        Self {
            name,
            attributes,
            resource,
            metric,
            start: time.saturating_sub(before).saturating_sub(1),
            time,
            count: 0,
            sum: 0.0,
            least: f64::INFINITY,
            most: 0.0,
            buckets: Default::default(),
            waiting: 0,
            at: 0,
        }
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.attributes.len() + self.resource.1.len()
    }

    fn add(&mut self, time: i64, seconds: f64, now: i64) {
        self.time = self.time.max(time);
        self.count += 1;
        self.sum += seconds;
        self.least = self.least.min(seconds);
        self.most = self.most.max(seconds);
        self.buckets[BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
        self.waiting += 1;
        self.at = now;
    }

    /// Appends a `HistogramDataPoint`.
    pub(super) fn point(&self, into: &mut Vec<u8>) {
        put_fixed64(into, 2, self.start.cast_unsigned());
        put_fixed64(into, 3, self.time.cast_unsigned());
        put_fixed64(into, 4, self.count);
        put_fixed64(into, 5, self.sum.to_bits());
        put_head(into, 6, 8 * self.buckets.len());
        self.buckets.iter().for_each(|count| into.extend_from_slice(&count.to_le_bytes()));
        put_head(into, 7, 8 * BOUNDS.len());
        BOUNDS.iter().for_each(|bound| into.extend_from_slice(&bound.to_bits().to_le_bytes()));
        into.extend_from_slice(&self.attributes);
        put_fixed64(into, 11, self.least.to_bits());
        put_fixed64(into, 12, self.most.to_bits());
    }
}
