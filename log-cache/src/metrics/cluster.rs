//! The numbers of a cluster's node: what goes to other nodes, and what is asked of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use diode::fair;
use metrics::{Counter, Gauge};
use proto::raw::Selection;
use proto::reason::Reason;
use telemetry::{QueueMetrics, QueueNumbers, StageMetrics, Telemetry};

use super::set;

/// Why an envelope may not reach the node that owns it.
const REASONS: [Reason; 4] =
    [Reason::QueueFull, Reason::RejectedPermanent, Reason::RetryExhausted, Reason::ShutdownDeadline];

/// What became of a read that was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    Answered,
    /// Its owner was away: the answer was empty and said so.
    Away,
    /// Its owner answered with an error.
    Failed,
}

/// Handles on the metrics of one node. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct ClusterMetrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stage: StageMetrics,
    requeued: Counter,
    passed: [Counter; 3],
    delivered: AtomicU64,
    dropped: AtomicU64,
    failures: AtomicU64,
}

impl ClusterMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let passed = |outcome| {
            let help = "Reads of sources that another node owns, by what came of asking it.";
            telemetry.counter("hydrant_cache_passed_reads_total", help, &[("outcome", outcome)])
        };
        let shared = Shared {
            stage: StageMetrics::register(telemetry, "cache_peers", &REASONS.map(Reason::as_str)),
            requeued: telemetry.counter(
                "hydrant_link_requeued_total",
                "Envelopes to be sent again because their link broke.",
                &[("link", "cache_peers")],
            ),
            passed: ["answered", "away", "failed"].map(passed),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `rings` looked at before each rendering. With each comes the place of its node in the list.
    pub(crate) fn show(&self, telemetry: &Telemetry, rings: Vec<(usize, fair::Writer<Selection>)>) {
        let queue = QueueMetrics::register(telemetry, "cache_peers");
        // Under the original's names; see `Classic`.
        let failures = telemetry.gauge(
            "log_cache_send_failures",
            "Batches that another node did not take, each attempt, since the start.",
            &[("sender", "batched_ingress_client")],
        );
        let gauge = |index: usize| {
            let help = "Envelopes that found no room in the ring of another node, since the start.";
            telemetry.gauge("ingress_dropped", help, &[("node_index", &index.to_string())])
        };
        let rings: Vec<(Gauge, fair::Writer<Selection>)> =
            rings.into_iter().map(|(index, ring)| (gauge(index), ring)).collect();
        let shared = Arc::clone(&self.shared);
        telemetry.before_render(move || {
            let mut sum = QueueNumbers::default();
            for (dropped, ring) in &rings {
                let now = ring.counters();
                set(dropped, now.evicted);
                sum += QueueNumbers {
                    offered: now.offered,
                    accepted: now.accepted,
                    rejected: now.rejected,
                    taken: now.taken,
                    evicted: now.evicted,
                    envelopes: now.envelopes,
                    bytes: now.bytes,
                };
            }
            queue.report(sum);
            set(&failures, shared.failures.load(Relaxed));
        });
    }

    /// Puts `part` into the ring of the node that owns it, and counts what had to go for that.
    pub(crate) fn put(&self, ring: &fair::Writer<Selection>, part: Selection) {
        let stage = &self.shared.stage;
        stage.received(part.len() as u64);
        let mut evicted = 0;
        let pushed = ring.push(part, |_, _| evicted += 1);
        self.dropped(Reason::QueueFull, evicted);
        if let Err(closed) = pushed {
            self.dropped(Reason::ShutdownDeadline, closed.0.len() as u64);
        }
    }

    /// Counts envelopes that a node took.
    pub(crate) fn delivered(&self, envelopes: u64) {
        self.shared.stage.delivered(envelopes);
        self.shared.delivered.fetch_add(envelopes, Relaxed);
    }

    /// Counts envelopes that no node gets.
    pub(crate) fn dropped(&self, reason: Reason, envelopes: u64) {
        if envelopes > 0 {
            self.shared.stage.dropped(reason.as_str(), envelopes);
            self.shared.dropped.fetch_add(envelopes, Relaxed);
        }
    }

    /// Counts an attempt that failed.
    pub(crate) fn failed(&self) {
        self.shared.failures.fetch_add(1, Relaxed);
    }

    /// Counts envelopes that are sent again.
    pub(crate) fn requeued(&self, envelopes: u64) {
        self.shared.requeued.increment(envelopes);
    }

    /// Counts a read that was passed on.
    pub(crate) fn read(&self, passed: Passed) {
        self.shared.passed[passed as usize].increment(1);
    }

    /// Envelopes delivered and dropped since the start.
    pub(crate) fn sums(&self) -> (u64, u64) {
        (self.shared.delivered.load(Relaxed), self.shared.dropped.load(Relaxed))
    }
}
