//! What the host's metrics count about themselves.

use metrics::Counter;
use telemetry::Telemetry;

use super::Part;

/// Readings, and what could not be read.
#[derive(Clone, Debug)]
pub(crate) struct HostMetrics {
    /// Rounds of reading.
    pub(crate) readings: Counter,
    unreadable: [(Part, Counter); 8],
}

impl HostMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let unreadable = |part: Part| {
            let help = "Parts of the machine's numbers that could not be read.";
            (part, telemetry.counter("hydrant_host_unreadable_total", help, &[("part", part.as_str())]))
        };
        Self {
            readings: telemetry.counter(
                "hydrant_host_readings_total",
                "How often the machine's numbers were read.",
                &[],
            ),
            unreadable: Part::ALL.map(unreadable),
        }
    }

    /// Counts a part that could not be read.
    pub(crate) fn unreadable(&self, part: Part) {
        if let Some((_, counter)) = self.unreadable.iter().find(|(of, _)| *of == part) {
            counter.increment(1);
        }
    }
}
