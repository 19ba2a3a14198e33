//! What a doppler counts.

use metrics::{Counter, Gauge};
use proto::reason::Reason;
use telemetry::{QueueMetrics, StageMetrics, Telemetry};

/// The doppler's own metrics; those of its cache are the cache's.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Envelopes in, out to consumers, and dropped.
    pub(crate) stage: StageMetrics,
    /// All subscriptions' rings together.
    pub(crate) queue: QueueMetrics,
    /// Envelopes that at least one subscription matched.
    pub(crate) matched: Counter,
    /// Envelopes that no subscription matched.
    pub(crate) unmatched: Counter,
    /// Envelopes put to rings: one for each subscription that matched.
    pub(crate) copies: Counter,
    /// Open subscriptions.
    pub(crate) subscriptions: Gauge,
    /// Envelopes that came again after a break and were taken out.
    pub(crate) duplicates: Counter,
    /// Envelopes sent out of the cache to subscribers that came after them.
    pub(crate) replayed: Counter,
    /// Open ingress streams.
    pub(crate) ingress_streams: Gauge,
}

impl Metrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let reasons = [
            Reason::DecodeError,
            Reason::Oversize,
            Reason::TooMany,
            Reason::ConvertError,
            Reason::QueueFull,
            Reason::PeerLost,
            Reason::ShutdownDeadline,
        ]
        .map(Reason::as_str);
        Self {
            stage: StageMetrics::register(telemetry, "doppler", &reasons),
            queue: QueueMetrics::register(telemetry, "subscription"),
            matched: telemetry.counter(
                "hydrant_router_matched_total",
                "Envelopes that some subscription matched.",
                &[],
            ),
            unmatched: telemetry.counter(
                "hydrant_router_unmatched_total",
                "Envelopes that no subscription matched.",
                &[],
            ),
            copies: telemetry.counter(
                "hydrant_router_copies_total",
                "Envelopes put to subscriptions' rings, once for each subscription that matched.",
                &[],
            ),
            subscriptions: telemetry.gauge("hydrant_subscriptions", "Open subscriptions.", &[]),
            duplicates: telemetry.counter(
                "hydrant_duplicates_total",
                "Envelopes that a sender sent again after a break and that had been taken already; taken out.",
                &[],
            ),
            replayed: telemetry.counter(
                "hydrant_replayed_envelopes_total",
                "Envelopes sent out of the cache to subscribers that came after them.",
                &[],
            ),
            ingress_streams: telemetry.gauge("hydrant_ingress_streams", "Open ingress streams.", &[]),
        }
    }
}
