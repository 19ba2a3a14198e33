//! What the cache says about itself.
//!
//! What enters: a store, looked at when somebody asks for `/metrics`, and counts of refused envelopes. What leaves: the families of
//! the accounting with queue and stage `cache`, the cache's own, and some under the names that dashboards of the original know. The
//! store is a queue that nobody takes from: `accepted = evicted + depth`.

use std::time::{SystemTime, UNIX_EPOCH};

use metrics::Gauge;
use proto::raw::Refused;
use telemetry::{QueueMetrics, QueueNumbers, StageMetrics, Telemetry};

use crate::store::Store;

mod cluster;
mod intake;

pub(crate) use cluster::{ClusterMetrics, Passed};
pub(crate) use intake::{Ended, IntakeMetrics};

/// The counts that the services keep.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Envelopes that came by `logcache.v1.Ingress` and those refused there.
    stage: StageMetrics,
}

impl Metrics {
    /// Registers the cache's families and has `store` looked at before each rendering.
    pub fn register(telemetry: &Telemetry, store: &Store) -> Self {
        let queue = QueueMetrics::register(telemetry, "cache");
        let own = Own::register(telemetry);
        let classic = Classic::register(telemetry);
        let store = store.clone();
        telemetry.before_render(move || {
            let now = store.numbers();
            queue.report(QueueNumbers {
                offered: now.offered,
                accepted: now.accepted,
                rejected: now.rejected,
                taken: 0,
                evicted: now.evicted,
                envelopes: usize::try_from(now.envelopes).unwrap_or(usize::MAX),
                bytes: now.bytes,
            });
            own.inserted.absolute(now.accepted);
            own.evicted.absolute(now.evicted);
            own.read.absolute(now.read);
            set(&own.bytes, now.bytes as u64);
            set(&own.envelopes, now.envelopes);
            set(&own.sources, now.sources as u64);
            set(&classic.ingress, now.offered);
            set(&classic.egress, now.read);
            set(&classic.expired, now.evicted);
            set(&classic.store_size, now.envelopes);
            classic.cache_period.set(store.oldest_timestamp().map_or(0.0, milliseconds_since));
        });
        Self { stage: StageMetrics::register(telemetry, "cache", &["decode_error", "oversize", "too_many"]) }
    }

    pub(crate) fn received(&self, accepted: usize, refused: Refused) {
        self.stage.received(accepted as u64 + refused.total());
        for (reason, count) in refused.by_reason() {
            self.stage.dropped(reason.as_str(), count);
        }
    }
}

/// The cache's own families.
struct Own {
    inserted: metrics::Counter,
    evicted: metrics::Counter,
    read: metrics::Counter,
    bytes: Gauge,
    envelopes: Gauge,
    sources: Gauge,
}

impl Own {
    fn register(telemetry: &Telemetry) -> Self {
        Self {
            inserted: telemetry.counter("hydrant_cache_inserted_total", "Envelopes that the cache stored.", &[]),
            evicted: telemetry.counter(
                "hydrant_cache_evicted_total",
                "Envelopes that left the cache for lack of room.",
                &[],
            ),
            read: telemetry.counter("hydrant_cache_read_total", "Envelopes that reads by time returned.", &[]),
            bytes: telemetry.gauge(
                "hydrant_cache_bytes",
                "Bytes of memory that the cache holds, its index included.",
                &[],
            ),
            envelopes: telemetry.gauge("hydrant_cache_envelopes", "Envelopes that the cache holds.", &[]),
            sources: telemetry.gauge("hydrant_cache_sources", "Sources of which the cache holds an envelope.", &[]),
        }
    }
}

/// Under the original's names (contract `log-cache.md` §9). Its counters carry no `_total`, so they are gauges here.
struct Classic {
    ingress: Gauge,
    egress: Gauge,
    expired: Gauge,
    store_size: Gauge,
    cache_period: Gauge,
}

impl Classic {
    fn register(telemetry: &Telemetry) -> Self {
        Self {
            ingress: telemetry.gauge("log_cache_ingress", "Envelopes put to the cache since it started.", &[]),
            egress: telemetry.gauge("log_cache_egress", "Envelopes that reads have returned since the start.", &[]),
            expired: telemetry.gauge("log_cache_expired", "Envelopes evicted since the start.", &[]),
            store_size: telemetry.gauge("log_cache_store_size", "Envelopes held.", &[("unit", "entries")]),
            cache_period: telemetry.gauge(
                "log_cache_cache_period",
                "Age of the oldest envelope held, by its timestamp, in milliseconds.",
                &[("unit", "milliseconds")],
            ),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; what is lost beyond 2^52 does not show")]
fn set(gauge: &Gauge, value: u64) {
    gauge.set(value as f64);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge in milliseconds")]
fn milliseconds_since(timestamp: i64) -> f64 {
    (now().saturating_sub(timestamp) / 1_000_000) as f64
}

/// The time, nanoseconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
