//! The numbers of the syslog intake.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use metrics::Counter;
use proto::raw::Refused;
use proto::reason::Reason;
use telemetry::{StageMetrics, Telemetry};

use super::set;

/// Why an envelope that came by syslog may be dropped.
const REASONS: [Reason; 5] =
    [Reason::DecodeError, Reason::Oversize, Reason::TooMany, Reason::ConvertError, Reason::PeerLost];

/// Why a connection was ended from here, or ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No length where one must be.
    Framing,
    /// No whole message for too long.
    Idle,
    /// It ended within a message.
    Incomplete,
    /// As many as may be were open.
    TooMany,
    /// It broke.
    Broken,
}

/// Handles on the metrics of one intake. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct IntakeMetrics {
    stage: StageMetrics,
    ended: [Counter; 5],
    /// Messages, and those of them that were refused.
    messages: Arc<[AtomicU64; 2]>,
}

impl IntakeMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let ended = |reason| {
            let help = "Syslog connections closed from here, or that ended badly.";
            telemetry.counter("hydrant_syslog_connections_ended_total", help, &[("reason", reason)])
        };
        // Under the original's names; see `Classic`.
        let ingress = telemetry.gauge("ingress", "Syslog messages that came since the start.", &[]);
        let invalid = telemetry.gauge("invalid_ingress", "Syslog messages refused since the start.", &[]);
        let messages: Arc<[AtomicU64; 2]> = Arc::default();
        let shown = Arc::clone(&messages);
        telemetry.before_render(move || {
            set(&ingress, shown[0].load(Relaxed));
            set(&invalid, shown[1].load(Relaxed));
        });
        Self {
            stage: StageMetrics::register(telemetry, "log_cache_syslog", &REASONS.map(Reason::as_str)),
            ended: ["framing", "idle", "incomplete", "too_many", "broken"].map(ended),
            messages,
        }
    }

    /// Counts what one reading brought: messages, envelopes that they became and that went on, and those that were refused after that.
    pub(crate) fn taken(&self, messages: u64, envelopes: usize, refused: Refused) {
        self.messages[0].fetch_add(messages, Relaxed);
        self.messages[1].fetch_add(refused.total().min(messages), Relaxed);
        self.stage.received(envelopes as u64 + refused.total());
        self.stage.delivered(envelopes as u64);
        for (reason, count) in refused.by_reason() {
            self.stage.dropped(reason.as_str(), count);
        }
    }

    /// Counts a message that became nothing.
    pub(crate) fn refused(&self, reason: Reason) {
        for count in self.messages.iter() {
            count.fetch_add(1, Relaxed);
        }
        self.stage.received(1);
        self.stage.dropped(reason.as_str(), 1);
    }

    /// Counts a connection that did not just end.
    pub(crate) fn ended(&self, ended: Ended) {
        self.ended[ended as usize].increment(1);
    }
}
