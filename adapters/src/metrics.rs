//! What the adapters count: the only place that spells metric names.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use proto::reason::Reason;
use telemetry::{QueueMetrics, StageMetrics, Telemetry};

use crate::binding_cache::Fault;
use crate::bindings::Invalid;
use crate::datadog;
use crate::prometheus::{remote_write, series};
use crate::status::{State, Status};

/// The reasons for which a drain drops.
pub(crate) const REASONS: [Reason; 11] = [
    Reason::DecodeError,
    Reason::Oversize,
    Reason::TooMany,
    Reason::QueueFull,
    Reason::ConvertError,
    Reason::Expired,
    Reason::RetryExhausted,
    Reason::RejectedPermanent,
    Reason::DiskCorrupt,
    Reason::ShutdownDeadline,
    Reason::Cardinality,
];

/// Drains with series of their own.
const NAMED: usize = 1024;

/// Handles shared by all drains.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) queue: QueueMetrics,
    /// The buffers on disk.
    pub(crate) disk: QueueMetrics,
    stage: StageMetrics,
    filtered: Counter,
    cut: Counter,
    samples: Samples,
    sent: Counter,
    confirmed: Counter,
    requeued: Counter,
    uncertain: Counter,
    unconfirmed: Gauge,
    connects: Counter,
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "registered all the same"))]
    repeats: Counter,
    replay_gaps: Counter,
    upstream_lost: Counter,
    notices_sent: Counter,
    notices_failed: Counter,
    /// Guards the labels of drains that have their own. Held per drain that is made.
    named: Mutex<HashSet<String>>,
}

/// Values of metrics, by what became of them.
#[derive(Clone, Debug)]
struct Samples {
    written: Counter,
    duplicate: Counter,
    out_of_order: Counter,
    late: Counter,
    queue_full: Counter,
    cardinality: Counter,
    unnamed: Counter,
}

/// Handles of one drain, its own numbers and the shared ones together.
#[derive(Clone, Debug)]
pub(crate) struct DrainMetrics {
    all: Arc<Metrics>,
    status: Arc<Status>,
    delivered: Counter,
    dropped: Counter,
    /// That of the first [`NAMED`] drains.
    state: Option<Gauge>,
}

impl Metrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Arc<Self> {
        let link = &[("link", "drain")];
        let notices = |outcome| {
            let help = "Notices to owners of lost envelopes, by whether the agent took them.";
            telemetry.counter("hydrant_drain_notices_total", help, &[("outcome", outcome)])
        };
        let samples = |outcome| {
            let help = "Values of metrics, by what became of them: an envelope may have several, or add to one.";
            telemetry.counter("hydrant_drain_samples_total", help, &[("outcome", outcome)])
        };
        Arc::new(Self {
            samples: Samples {
                written: samples("written"),
                duplicate: samples("duplicate"),
                out_of_order: samples("out_of_order"),
                late: samples("late"),
                queue_full: samples("queue_full"),
                cardinality: samples("cardinality"),
                unnamed: samples("unnamed"),
            },
            queue: QueueMetrics::register(telemetry, "drain"),
            disk: QueueMetrics::register(telemetry, "drain_disk"),
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
            repeats: telemetry.counter(
                "hydrant_drain_repeats_total",
                "Envelopes that were sent again and that the stream of a drain to NATS had already, and left out.",
                &[],
            ),
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
            named: Mutex::default(),
        })
    }

    /// Registers one drain, under a hash of its name: names are the tenant's. Series are never removed, so beyond the first [`NAMED`]
    /// drains all others share those of `other`.
    pub(crate) fn drain(self: &Arc<Self>, telemetry: &Telemetry, name: &str) -> DrainMetrics {
        let id = {
            let (id, mut named) = (label(name), self.named.lock());
            if named.len() < NAMED {
                named.insert(id.clone());
            }
            if named.contains(&id) { id } else { "other".to_owned() }
        };
        let label = &[("drain", id.as_str())];
        let state = || {
            telemetry.gauge(
                "hydrant_drain_state",
                "State of a drain: 0 ok, 1 degraded, 2 failing for 30 s or more, 3 broken until somebody changes something.",
                label,
            )
        };
        DrainMetrics {
            all: Arc::clone(self),
            status: Arc::default(),
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
            state: (id != "other").then(state),
        }
    }
}

/// What is counted of bindings.
#[derive(Clone, Debug)]
pub(crate) struct BindingMetrics {
    running: Gauge,
    invalid: [Counter; Invalid::ALL.len()],
    ok: Counter,
    failed: Counter,
    took: Gauge,
}

impl BindingMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let refreshes = |outcome| {
            let help = "Looks at the binding cache, by whether it answered.";
            telemetry.counter("hydrant_bindings_refreshes_total", help, &[("outcome", outcome)])
        };
        let invalid = |reason: Invalid| {
            let help = "Bindings that have no drain, each counted once for as long as that lasts.";
            telemetry.counter("hydrant_bindings_invalid_total", help, &[("reason", reason.as_str())])
        };
        Self {
            running: telemetry.gauge("hydrant_bindings", "Bindings that have a drain, those of everything too.", &[]),
            invalid: Invalid::ALL.map(invalid),
            ok: refreshes("ok"),
            failed: refreshes("failed"),
            took: telemetry.gauge(
                "hydrant_bindings_refresh_seconds",
                "How long the last look at the binding cache took that was answered, its drains included.",
                &[],
            ),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 bindings")]
    pub(crate) fn running(&self, bindings: usize) {
        self.running.set(bindings as f64);
    }

    pub(crate) fn invalid(&self, reason: Invalid) {
        let place = Invalid::ALL.iter().position(|known| *known == reason);
        self.invalid[place.expect("all are listed")].increment(1);
    }

    pub(crate) fn refreshed(&self, answered: bool, took: Duration) {
        if answered {
            self.ok.increment(1);
            self.took.set(took.as_secs_f64());
        } else {
            self.failed.increment(1);
        }
    }
}

/// What is counted of a binding cache.
#[derive(Clone, Debug)]
pub(crate) struct BindingCacheMetrics {
    drains: Gauge,
    invalid: [Gauge; Fault::ALL.len()],
    ok: Counter,
    failed: Counter,
    took: Gauge,
}

impl BindingCacheMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let polls = |outcome| {
            let help = "Looks at Cloud Controller, by whether it answered.";
            telemetry.counter("hydrant_binding_cache_polls_total", help, &[("outcome", outcome)])
        };
        let invalid = |fault: Fault| {
            let help =
                "Drains, or credentials of some, that the last look at Cloud Controller found and that are not served.";
            telemetry.gauge("hydrant_binding_cache_invalid_drains", help, &[("reason", fault.as_str())])
        };
        Self {
            drains: telemetry.gauge("hydrant_binding_cache_drains", "Drains that the binding cache serves.", &[]),
            invalid: Fault::ALL.map(invalid),
            ok: polls("ok"),
            failed: polls("failed"),
            took: telemetry.gauge(
                "hydrant_binding_cache_poll_seconds",
                "How long the last look at Cloud Controller took that was answered.",
                &[],
            ),
        }
    }

    pub(crate) fn polled(&self, answered: bool, took: Duration) {
        if answered {
            self.ok.increment(1);
            self.took.set(took.as_secs_f64());
        } else {
            self.failed.increment(1);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 drains")]
    pub(crate) fn found(&self, drains: usize, faults: &BTreeMap<Fault, usize>) {
        self.drains.set(drains as f64);
        for (fault, gauge) in Fault::ALL.iter().zip(&self.invalid) {
            gauge.set(faults.get(fault).copied().unwrap_or_default() as f64);
        }
    }
}

/// For the end of the certificate that we show to a service of the platform.
pub(crate) fn service_certificate_end(telemetry: &Telemetry, name: &'static str) -> Gauge {
    telemetry.gauge(
        "hydrant_certificate_not_after_timestamp_seconds",
        "Unix time at which the certificate in use ends.",
        &[("certificate", name)],
    )
}

/// For the end of the certificate that a drain shows, under `drain_` and the drain's label.
pub(crate) fn certificate_end(telemetry: &Telemetry, name: &str) -> Gauge {
    telemetry.gauge(
        "hydrant_certificate_not_after_timestamp_seconds",
        "Unix time at which the certificate in use ends.",
        &[("certificate", &format!("drain_{}", label(name)))],
    )
}

/// The label of a drain: the FNV-1a hash of its name in hexadecimal.
pub(crate) fn label(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

impl DrainMetrics {
    /// The drain's numbers and state, for those who ask.
    pub(crate) fn status(&self) -> &Arc<Status> {
        &self.status
    }

    pub(crate) fn received(&self, envelopes: u64) {
        self.all.stage.received(envelopes);
        self.status.received(envelopes);
    }

    /// Written for the first time.
    pub(crate) fn delivered(&self, envelopes: u64) {
        self.all.stage.delivered(envelopes);
        self.delivered.increment(envelopes);
        self.status.delivered(envelopes);
    }

    pub(crate) fn dropped(&self, reason: Reason, envelopes: u64) {
        self.all.stage.dropped(reason.as_str(), envelopes);
        self.dropped.increment(envelopes);
        self.status.dropped(reason, envelopes);
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
        self.status.filtered(envelopes);
    }

    pub(crate) fn cut(&self, lines: u64) {
        self.all.cut.increment(lines);
    }

    /// What became of values in a store since `before`.
    pub(crate) fn stored(&self, before: series::Counts, now: series::Counts) {
        let samples = &self.all.samples;
        samples.late.increment(now.late - before.late);
        samples.cardinality.increment(now.cardinality - before.cardinality);
        samples.unnamed.increment(now.unnamed - before.unnamed);
    }

    /// What became of values on their way into requests since `before`.
    pub(crate) fn queued(&self, before: remote_write::Counts, now: remote_write::Counts) {
        let samples = &self.all.samples;
        samples.written.increment(now.taken - before.taken);
        samples.duplicate.increment(now.duplicate - before.duplicate);
        samples.out_of_order.increment(now.out_of_order - before.out_of_order);
        samples.queue_full.increment(now.queue_full - before.queue_full);
    }

    /// What became of values on their way to Datadog since `before`.
    pub(crate) fn pushed(&self, before: datadog::Counts, now: datadog::Counts) {
        let samples = &self.all.samples;
        samples.written.increment(now.points - before.points);
        samples.unnamed.increment(now.not_finite - before.not_finite);
        samples.cardinality.increment(now.cardinality - before.cardinality);
        self.all.cut.increment(now.cut - before.cut);
    }

    /// What became of values on their way to a collector since `before`.
    pub(crate) fn exported(&self, before: crate::otlp::Counts, now: crate::otlp::Counts) {
        let samples = &self.all.samples;
        samples.written.increment(now.points - before.points);
        samples.cardinality.increment(now.cardinality - before.cardinality);
    }

    /// Values that are on a page.
    pub(crate) fn shown(&self, values: u64) {
        self.all.samples.written.increment(values);
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
        self.status.uncertain(envelopes);
    }

    /// The number of unconfirmed envelopes of one drain went from `before` to `after`.
    #[expect(clippy::cast_precision_loss, reason = "a window holds far fewer than 2^52 envelopes")]
    pub(crate) fn unconfirmed(&self, before: usize, after: usize) {
        self.all.unconfirmed.increment(after as f64 - before as f64);
    }

    /// Sent again, and left out by a stream that had them.
    #[cfg(feature = "nats")]
    pub(crate) fn repeats(&self, envelopes: u64) {
        self.all.repeats.increment(envelopes);
    }

    pub(crate) fn connected(&self) {
        self.all.connects.increment(1);
    }

    pub(crate) fn state(&self, state: State) {
        self.status.state(state);
        if let Some(gauge) = &self.state {
            gauge.set(f64::from(state as u8));
        }
    }

    pub(crate) fn notices_sent(&self, count: u64) {
        self.all.notices_sent.increment(count);
    }

    pub(crate) fn notices_failed(&self, count: u64) {
        self.all.notices_failed.increment(count);
    }
}
