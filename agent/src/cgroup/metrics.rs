//! What the containers' metrics count about themselves.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

/// Readings, containers, and what could not be read.
#[derive(Clone, Debug)]
pub(crate) struct ContainersMetrics {
    /// Rounds of reading.
    pub(crate) readings: Counter,
    /// Containers found by the last one.
    pub(crate) containers: Gauge,
    /// Containers that were left out because there were too many.
    pub(crate) over: Counter,
    /// Trees and containers that could not be read. One that has ended meanwhile is none.
    pub(crate) unreadable: Counter,
}

impl ContainersMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        Self {
            readings: telemetry.counter(
                "hydrant_containers_readings_total",
                "How often the use of containers was read.",
                &[],
            ),
            containers: telemetry.gauge("hydrant_containers", "Containers that the last reading told of.", &[]),
            over: telemetry.counter(
                "hydrant_containers_over_total",
                "Containers left out of a reading because there were too many.",
                &[],
            ),
            unreadable: telemetry.counter(
                "hydrant_containers_unreadable_total",
                "Trees and containers that could not be read.",
                &[],
            ),
        }
    }
}
