//! What the adapters count: the only place that spells metric names.

use std::time::UNIX_EPOCH;

use metrics::{Counter, Gauge};
use proto::reason::Reason;
use telemetry::{QueueMetrics, StageMetrics, Telemetry};
use transport::ClientTls;

/// The reasons for which a drain drops.
const REASONS: [Reason; 9] = [
    Reason::DecodeError,
    Reason::Oversize,
    Reason::TooMany,
    Reason::QueueFull,
    Reason::ConvertError,
    Reason::Expired,
    Reason::RetryExhausted,
    Reason::RejectedPermanent,
    Reason::ShutdownDeadline,
];

/// Handles shared by all drains.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) queue: QueueMetrics,
    stage: StageMetrics,
    filtered: Counter,
    cut: Counter,
    sent: Counter,
    confirmed: Counter,
    requeued: Counter,
    uncertain: Counter,
    unconfirmed: Gauge,
    connects: Counter,
    replay_gaps: Counter,
    upstream_lost: Counter,
    notices_sent: Counter,
    notices_failed: Counter,
}

/// Handles of one drain, its own numbers and the shared ones together.
#[derive(Clone, Debug)]
pub(crate) struct DrainMetrics {
    all: Metrics,
    delivered: Counter,
    dropped: Counter,
    state: Gauge,
}

impl Metrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let link = &[("link", "drain")];
        let notices = |outcome| {
            let help = "Notices to owners of lost envelopes, by whether the agent took them.";
            telemetry.counter("hydrant_drain_notices_total", help, &[("outcome", outcome)])
        };
        Self {
            queue: QueueMetrics::register(telemetry, "drain"),
            stage: StageMetrics::register(telemetry, "drain", &REASONS.map(Reason::as_str)),
            filtered: telemetry.counter(
                "hydrant_drain_filtered_envelopes_total",
                "Envelopes that a drain's options leave out, or that have no lines.",
                &[],
            ),
            cut: telemetry.counter(
                "hydrant_drain_cut_lines_total",
                "Lines longer than a drain's receiver takes: written without their tags or their end, or left out.",
                &[],
            ),
            sent: telemetry.counter("hydrant_link_sent_total", "Envelopes written to a link, repeats included.", link),
            confirmed: telemetry.counter(
                "hydrant_link_confirmed_total",
                "Envelopes written to a link that need not be written again.",
                link,
            ),
            requeued: telemetry.counter(
                "hydrant_link_requeued_total",
                "Envelopes written to a link that broke, to be written again.",
                link,
            ),
            uncertain: telemetry.counter(
                "hydrant_link_uncertain_total",
                "Envelopes written to a link that broke, and not written again.",
                link,
            ),
            unconfirmed: telemetry.gauge(
                "hydrant_link_unconfirmed_envelopes",
                "Envelopes written to a link that would be written again if it broke now.",
                link,
            ),
            connects: telemetry.counter("hydrant_drain_connects_total", "Connections that drains opened.", &[]),
            replay_gaps: telemetry.counter(
                "hydrant_replay_gaps_envelopes_total",
                "Envelopes of a doppler's past that had left its cache before they could be read.",
                &[],
            ),
            upstream_lost: telemetry.counter(
                "hydrant_upstream_lost_envelopes_total",
                "Envelopes that a doppler's ring dropped before they could come here, as the doppler said.",
                &[],
            ),
            notices_sent: notices("sent"),
            notices_failed: notices("failed"),
        }
    }

    /// Registers one drain, under a hash of its name: names are the tenant's.
    pub(crate) fn drain(&self, telemetry: &Telemetry, name: &str) -> DrainMetrics {
        let id = label(name);
        let label = &[("drain", id.as_str())];
        DrainMetrics {
            all: self.clone(),
            delivered: telemetry.counter(
                "hydrant_drain_delivered_envelopes_total",
                "Envelopes that a drain wrote to its destination, repeats not counted.",
                label,
            ),
            dropped: telemetry.counter(
                "hydrant_drain_dropped_envelopes_total",
                "Envelopes that a drain dropped.",
                label,
            ),
            state: telemetry.gauge(
                "hydrant_drain_state",
                "State of a drain: 0 delivers, 1 retries, 2 has retried for 30 s or more.",
                label,
            ),
        }
    }
}

/// Shows when the certificate that a drain shows ends, under `drain_` and the drain's label.
pub(crate) fn watch_certificate(telemetry: &Telemetry, name: &str, tls: ClientTls) {
    let ends = telemetry.gauge(
        "hydrant_certificate_not_after_timestamp_seconds",
        "Unix time at which the certificate in use ends.",
        &[("certificate", &format!("drain_{}", label(name)))],
    );
    telemetry.before_render(move || {
        if let Some(after) = tls.not_after().and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
            ends.set(after.as_secs_f64());
        }
    });
}

/// The label of a drain: the FNV-1a hash of its name in hexadecimal.
pub(crate) fn label(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

impl DrainMetrics {
    pub(crate) fn received(&self, envelopes: u64) {
        self.all.stage.received(envelopes);
    }

    /// Written for the first time.
    pub(crate) fn delivered(&self, envelopes: u64) {
        self.all.stage.delivered(envelopes);
        self.delivered.increment(envelopes);
    }

    pub(crate) fn dropped(&self, reason: Reason, envelopes: u64) {
        self.all.stage.dropped(reason.as_str(), envelopes);
        self.dropped.increment(envelopes);
    }

    /// Envelopes of a doppler's past that are gone.
    pub(crate) fn replay_gap(&self, envelopes: u64) {
        self.all.replay_gaps.increment(envelopes);
    }

    /// Envelopes that a doppler's ring dropped before they could come here.
    pub(crate) fn upstream_lost(&self, envelopes: u64) {
        self.all.upstream_lost.increment(envelopes);
    }

    pub(crate) fn filtered(&self, envelopes: u64) {
        self.all.filtered.increment(envelopes);
    }

    pub(crate) fn cut(&self, lines: u64) {
        self.all.cut.increment(lines);
    }

    pub(crate) fn sent(&self, envelopes: u64) {
        self.all.sent.increment(envelopes);
    }

    pub(crate) fn confirmed(&self, envelopes: u64) {
        self.all.confirmed.increment(envelopes);
    }

    pub(crate) fn requeued(&self, envelopes: u64) {
        self.all.requeued.increment(envelopes);
    }

    pub(crate) fn uncertain(&self, envelopes: u64) {
        self.all.uncertain.increment(envelopes);
    }

    /// The number of unconfirmed envelopes of one drain went from `before` to `after`.
    #[expect(clippy::cast_precision_loss, reason = "a window holds far fewer than 2^52 envelopes")]
    pub(crate) fn unconfirmed(&self, before: usize, after: usize) {
        self.all.unconfirmed.increment(after as f64 - before as f64);
    }

    pub(crate) fn connected(&self) {
        self.all.connects.increment(1);
    }

    pub(crate) fn state(&self, state: u8) {
        self.state.set(f64::from(state));
    }

    pub(crate) fn notices_sent(&self, count: u64) {
        self.all.notices_sent.increment(count);
    }

    pub(crate) fn notices_failed(&self, count: u64) {
        self.all.notices_failed.increment(count);
    }
}
