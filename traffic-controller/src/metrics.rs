//! The numbers of the traffic controller: every name it shows, and the handles behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge};
use proto::raw::Refused;
use proto::reason::Reason;
use telemetry::{StageMetrics, Telemetry};

pub(crate) use self::auth::{Asked, AuthMetrics, Backend, certificate_end};
pub(crate) use self::queries::{Outcome, QueryMetrics};
use crate::fan_in::rings::Rings;
use crate::notices::{Notices, Reader};

mod auth;
mod queries;

/// Why an envelope may be dropped here.
const REASONS: [Reason; 8] = [
    Reason::DecodeError,
    Reason::Oversize,
    Reason::TooMany,
    Reason::QueueFull,
    Reason::PeerLost,
    Reason::SlowConsumer,
    Reason::ConvertError,
    Reason::ShutdownDeadline,
];

/// For requests that are not in the access log.
pub(crate) fn access_log_lost(telemetry: &Telemetry) -> Counter {
    let help = "Requests that are not in the access log: it could not be written, or not fast enough.";
    telemetry.counter("hydrant_access_log_lost_total", help, &[])
}

/// Handles on the metrics of one traffic controller. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Metrics {
    shared: Arc<Shared>,
}

struct Shared {
    stage: StageMetrics,
    /// What was delivered and what was dropped since the start: for what a stop says at its end.
    delivered: AtomicU64,
    dropped: AtomicU64,
    handles: Handles,
    notices: Notices,
}

/// Numbers that are not of every stage.
pub(crate) struct Handles {
    /// Streams from dopplers that opened.
    pub(crate) connects: Counter,
    /// Streams from dopplers that ended or could not be opened.
    pub(crate) disconnects: Counter,
    /// Envelopes of a doppler's past that were gone before they could be read.
    pub(crate) replay_gaps: Counter,
    /// Envelopes that dopplers' rings dropped before they could come here.
    pub(crate) upstream_lost: Counter,
    /// Consumers on gRPC now.
    pub(crate) rlp_subscriptions: Gauge,
    /// Consumers on gRPC that were turned away because of the bound.
    pub(crate) rlp_rejected: Counter,
    /// Consumers on WebSocket now.
    pub(crate) websocket_consumers: Gauge,
    /// Consumers on WebSocket that were turned away because of the bound.
    pub(crate) websocket_rejected: Counter,
    /// Consumers of the gateway now.
    pub(crate) gateway_consumers: Gauge,
    /// Consumers of the gateway that were turned away because of the bound.
    pub(crate) gateway_rejected: Counter,
    /// Consumers on WebSocket that were cut because they did not read.
    pub(crate) slow_consumers: Counter,
    /// Frames handed to WebSocket consumers.
    pub(crate) v1_frames: Counter,
    /// Envelopes that a WebSocket consumer's subscription brought and its endpoint leaves out.
    pub(crate) filtered: Counter,
    /// Requests that are not in the access log.
    pub(crate) access_log_lost: Counter,
    /// Who was let in and who was not.
    pub(crate) auth: AuthMetrics,
    /// What was asked of the caches' metrics.
    pub(crate) queries: QueryMetrics,
    /// The rings of gRPC consumers.
    pub(crate) rlp: Rings,
    /// The rings of WebSocket consumers.
    pub(crate) firehose: Rings,
    /// The rings of the gateway's consumers.
    pub(crate) gateway: Rings,
}

impl Handles {
    /// Those of every kind of consumer.
    pub(crate) fn rings(&self) -> impl Iterator<Item = &Rings> {
        [&self.rlp, &self.firehose, &self.gateway].into_iter()
    }
}

impl Metrics {
    /// Registers every family.
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let counter = |name, help| telemetry.counter(name, help, &[]);
        let gauge = |name, help| telemetry.gauge(name, help, &[]);
        let handles = Handles {
            connects: counter("hydrant_doppler_connects_total", "Streams from dopplers that opened."),
            disconnects: counter(
                "hydrant_doppler_disconnects_total",
                "Streams from dopplers that ended or could not be opened.",
            ),
            replay_gaps: counter(
                "hydrant_replay_gaps_envelopes_total",
                "Envelopes of a doppler's past that had left its cache before they could be read.",
            ),
            upstream_lost: counter(
                "hydrant_upstream_lost_envelopes_total",
                "Envelopes that a doppler's ring dropped before they could come here, as the doppler said.",
            ),
            rlp_subscriptions: gauge("hydrant_rlp_subscriptions", "Consumers on the gRPC reverse log proxy now."),
            rlp_rejected: counter(
                "hydrant_rlp_rejected_streams_total",
                "Consumers that the gRPC reverse log proxy turned away because it serves as many as it may.",
            ),
            websocket_consumers: gauge("hydrant_websocket_consumers", "Firehose and app streams open now."),
            websocket_rejected: counter(
                "hydrant_websocket_rejected_total",
                "Firehose and app streams turned away because as many are open as may be.",
            ),
            gateway_consumers: gauge("hydrant_gateway_consumers", "Streams of the gateway open now."),
            gateway_rejected: counter(
                "hydrant_gateway_rejected_total",
                "Streams of the gateway turned away because as many are open as may be.",
            ),
            slow_consumers: counter(
                "hydrant_slow_consumers_total",
                "Firehose, app and JSON streams cut because their consumer did not read.",
            ),
            v1_frames: counter("hydrant_websocket_frames_total", "Messages handed to firehose, app and JSON streams."),
            filtered: counter(
                "hydrant_firehose_filtered_envelopes_total",
                "Envelopes that reached a firehose or app stream and that its endpoint leaves out.",
            ),
            access_log_lost: access_log_lost(telemetry),
            auth: AuthMetrics::register(telemetry),
            queries: QueryMetrics::register(telemetry),
            rlp: Rings::register(telemetry, "rlp"),
            firehose: Rings::register(telemetry, "firehose"),
            gateway: Rings::register(telemetry, "gateway"),
        };
        let shared = Shared {
            stage: StageMetrics::register(telemetry, "traffic_controller", &REASONS.map(Reason::as_str)),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            handles,
            notices: Notices::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is not of every stage.
    pub(crate) fn handles(&self) -> &Handles {
        &self.shared.handles
    }

    /// Counts a consumer that was cut because it did not read, and says so in the pipeline.
    pub(crate) fn slow_consumer(&self, reader: &Reader) {
        self.handles().slow_consumers.increment(1);
        self.shared.notices.slow_consumer(reader);
    }

    /// What is to be said in the pipeline.
    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }

    /// Counts envelopes that a doppler sent: those that could be read, and those that could not.
    pub(crate) fn received(&self, envelopes: usize, refused: &Refused) {
        self.shared.stage.received(envelopes as u64 + refused.total());
        for (reason, count) in refused.by_reason() {
            self.dropped(reason, count);
        }
    }

    /// Counts envelopes handed to a consumer's connection.
    pub(crate) fn delivered(&self, envelopes: u64) {
        self.shared.stage.delivered(envelopes);
        self.shared.delivered.fetch_add(envelopes, Ordering::Relaxed);
    }

    /// Counts envelopes that a consumer does not get.
    pub(crate) fn dropped(&self, reason: Reason, envelopes: u64) {
        if envelopes > 0 {
            self.shared.stage.dropped(reason.as_str(), envelopes);
            self.shared.dropped.fetch_add(envelopes, Ordering::Relaxed);
        }
    }

    /// Counts what is still in rings: the stop's deadline has passed.
    pub(crate) fn cut(&self) {
        let handles = self.handles();
        self.dropped(Reason::ShutdownDeadline, handles.rings().map(Rings::depth).sum());
    }

    /// Everybody whose ring is here.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (String, diode::fair::Counters)> {
        self.handles().rings().flat_map(Rings::consumers)
    }

    /// Envelopes delivered and dropped since the start.
    pub(crate) fn sums(&self) -> (u64, u64) {
        (self.shared.delivered.load(Ordering::Relaxed), self.shared.dropped.load(Ordering::Relaxed))
    }
}
