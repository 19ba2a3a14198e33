//! What syslog counts beside what every front does.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

/// Of all syslog fronts together.
#[derive(Clone, Debug)]
pub(crate) struct SyslogMetrics {
    /// Open now.
    pub(crate) connections: Gauge,
    /// Turned away, as too many were open.
    pub(crate) refused_connections: Counter,
    /// Messages that resemble none.
    pub(crate) unparsed: Counter,
}

impl SyslogMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        Self {
            connections: telemetry.gauge("hydrant_syslog_connections", "Syslog connections open now.", &[]),
            refused_connections: telemetry.counter(
                "hydrant_syslog_refused_connections_total",
                "Syslog connections turned away because too many were open.",
                &[],
            ),
            unparsed: telemetry.counter(
                "hydrant_syslog_unparsed_messages_total",
                "Syslog messages that were neither RFC 5424 nor RFC 3164 and were taken as they stood.",
                &[],
            ),
        }
    }
}
