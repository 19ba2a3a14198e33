//! What an agent counts.

use diode::fair;
use metrics::{Counter, Gauge};
use proto::reason::Reason;
use telemetry::{QueueMetrics, QueueNumbers, StageMetrics, Telemetry};

/// The agent's own metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Envelopes in, out to dopplers, and dropped.
    pub(crate) stage: StageMetrics,
    /// Bytes of the envelopes that came in.
    pub(crate) received_bytes: Counter,
    /// The ring.
    pub(crate) queue: QueueMetrics,
    /// Envelopes written to dopplers, those sent again included.
    pub(crate) sent: Counter,
    /// Envelopes that a doppler has confirmed.
    pub(crate) confirmed: Counter,
    /// Envelopes to be sent again because their link broke.
    pub(crate) requeued: Counter,
    /// Envelopes whose link broke and whose doppler confirms nothing.
    pub(crate) uncertain: Counter,
    /// Envelopes that went to another doppler than the one they were first meant for.
    pub(crate) moved: Counter,
    /// How often source instances were placed anew.
    pub(crate) placements: Counter,
    /// Dopplers connected and confirming now.
    pub(crate) links: Gauge,
    /// Open ingress streams.
    pub(crate) ingress_streams: Gauge,
    /// Envelopes whose `source_id` was taken from their `origin` tag.
    pub(crate) origin_mappings: Counter,
    /// Messages of streams, by what became of them.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "registered all the same"))]
    pub(crate) nats_messages: NatsMessages,
    /// Those whose fate is open.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "registered all the same"))]
    nats_unacknowledged: Gauge,
    /// Streams that are connected.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "registered all the same"))]
    pub(crate) nats_connected: Gauge,
    /// Connections to streams that failed or ended.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "registered all the same"))]
    pub(crate) nats_failures: Counter,
}

/// What came by one front.
#[derive(Clone, Debug)]
pub(crate) struct SourceMetrics {
    envelopes: Counter,
    refused: [(Reason, Counter); 4],
}

impl SourceMetrics {
    /// Registers the families for the front called `source`.
    pub(crate) fn register(telemetry: &Telemetry, source: &'static str) -> Self {
        let refused = |reason: Reason| {
            let help = "What an agent could make no envelope of, by the front it came to and why.";
            let labels = &[("source", source), ("reason", reason.as_str())];
            (reason, telemetry.counter("hydrant_source_refused_total", help, labels))
        };
        Self {
            envelopes: telemetry.counter(
                "hydrant_source_envelopes_total",
                "Envelopes that an agent took, by the front they came to.",
                &[("source", source)],
            ),
            refused: [Reason::DecodeError, Reason::Oversize, Reason::TooMany, Reason::PeerLost].map(refused),
        }
    }

    /// Counts envelopes.
    pub(crate) fn taken(&self, envelopes: u64) {
        self.envelopes.increment(envelopes);
    }

    /// Counts what became none.
    pub(crate) fn refused(&self, reason: Reason, count: u64) {
        if let Some((_, counter)) = self.refused.iter().find(|(of, _)| *of == reason) {
            counter.increment(count);
        }
    }
}

/// A ring's counters as a queue's numbers.
pub(crate) fn numbers(counters: fair::Counters) -> QueueNumbers {
    QueueNumbers {
        offered: counters.offered,
        accepted: counters.accepted,
        rejected: counters.rejected,
        taken: counters.taken,
        evicted: counters.evicted,
        envelopes: counters.envelopes,
        bytes: counters.bytes,
    }
}

/// What a socket for datagrams saw.
#[derive(Clone, Debug)]
pub(crate) struct DatagramMetrics {
    /// Read.
    pub(crate) datagrams: Counter,
    /// Dropped by the kernel before they could be read.
    pub(crate) kernel_drops: Counter,
}

impl DatagramMetrics {
    /// Registers the families for the front called `source`.
    pub(crate) fn register(telemetry: &Telemetry, source: &'static str) -> Self {
        let labels = &[("source", source)];
        Self {
            datagrams: telemetry.counter("hydrant_source_datagrams_total", "Datagrams read, by front.", labels),
            kernel_drops: telemetry.counter(
                "hydrant_source_kernel_drops_total",
                "Datagrams that the kernel dropped because a receive buffer was full, by front.",
                labels,
            ),
        }
    }
}

/// Messages of streams, by what became of them.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "nats"),
    expect(dead_code, reason = "registered all the same, so that a page has the same families")
)]
pub(crate) struct NatsMessages {
    /// Left for a doppler, and acknowledged.
    pub(crate) accepted: Counter,
    /// Acknowledged, as nobody here wants them.
    pub(crate) filtered: Counter,
    /// No envelopes: acknowledged for good.
    pub(crate) refused: Counter,
    /// Had to leave the ring: asked for again.
    pub(crate) again: Counter,
}

#[cfg(feature = "nats")]
impl Metrics {
    /// The number of open messages of one source went from `before` to `after`.
    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52")]
    pub(crate) fn nats_open(&self, before: usize, after: usize) {
        self.nats_unacknowledged.increment(after as f64 - before as f64);
    }
}

impl Metrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let reasons = [
            Reason::DecodeError,
            Reason::Oversize,
            Reason::TooMany,
            Reason::RateLimited,
            Reason::Cardinality,
            Reason::KernelRcvbuf,
            Reason::PeerLost,
            Reason::NoRoute,
            Reason::QueueFull,
            Reason::ShutdownDeadline,
        ];
        let messages = |outcome| {
            let help = "Messages read from streams of NATS, by what became of them.";
            telemetry.counter("hydrant_nats_messages_total", help, &[("outcome", outcome)])
        };
        Self {
            nats_messages: NatsMessages {
                accepted: messages("accepted"),
                filtered: messages("filtered"),
                refused: messages("refused"),
                again: messages("again"),
            },
            nats_unacknowledged: telemetry.gauge(
                "hydrant_nats_unacknowledged_messages",
                "Messages read from streams of NATS that have not left for a doppler.",
                &[],
            ),
            nats_connected: telemetry.gauge(
                "hydrant_nats_connected_sources",
                "Streams of NATS that are read now.",
                &[],
            ),
            nats_failures: telemetry.counter(
                "hydrant_nats_failures_total",
                "Attempts to read a stream of NATS that failed, and connections to one that ended.",
                &[],
            ),
            stage: StageMetrics::register(telemetry, "agent", &reasons.map(Reason::as_str)),
            received_bytes: telemetry.counter(
                "hydrant_received_bytes_total",
                "Bytes of the envelopes that reached a stage, without those it refused.",
                &[("stage", "agent")],
            ),
            queue: QueueMetrics::register(telemetry, "agent"),
            sent: telemetry.counter("hydrant_link_sent_total", "Envelopes written to peers, repeats included.", &[]),
            confirmed: telemetry.counter("hydrant_link_confirmed_total", "Envelopes that a peer has confirmed.", &[]),
            requeued: telemetry.counter(
                "hydrant_link_requeued_total",
                "Envelopes sent again because their link broke.",
                &[],
            ),
            uncertain: telemetry.counter(
                "hydrant_link_uncertain_total",
                "Envelopes whose link broke and whose peer confirms nothing.",
                &[],
            ),
            moved: telemetry.counter(
                "hydrant_link_moved_envelopes_total",
                "Envelopes given to another doppler because theirs was lost.",
                &[],
            ),
            placements: telemetry.counter(
                "hydrant_placements_total",
                "Changes of where source instances go: dopplers came, went, or help another zone.",
                &[],
            ),
            links: telemetry.gauge("hydrant_links", "Dopplers connected and confirming now.", &[]),
            ingress_streams: telemetry.gauge("hydrant_ingress_streams", "Open ingress streams.", &[]),
            origin_mappings: telemetry.counter(
                "hydrant_origin_mappings_total",
                "Envelopes without a source_id that got their origin tag's.",
                &[],
            ),
        }
    }
}
