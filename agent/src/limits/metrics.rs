//! What limits count about themselves. What they drop is counted with all other drops.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

/// The tables' sizes, and what was told.
#[derive(Clone, Debug)]
pub(crate) struct LimitsMetrics {
    sources: Gauge,
    over: Gauge,
    series: Gauge,
    /// Notices to owners.
    pub(crate) notices: Counter,
}

/// The tables' sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Sources remembered, of logs and of metrics.
    pub(crate) sources: usize,
    /// Sources over their rate.
    pub(crate) over: usize,
    /// Series remembered.
    pub(crate) series: usize,
}

impl LimitsMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        Self {
            sources: telemetry.gauge("hydrant_limits_sources", "Sources whose rates or series are remembered.", &[]),
            over: telemetry.gauge("hydrant_limits_exceeding_sources", "Sources over their log rate now.", &[]),
            series: telemetry.gauge("hydrant_limits_series", "Series that are remembered to limit their number.", &[]),
            notices: telemetry.counter(
                "hydrant_limits_notices_total",
                "Notices to owners of envelopes that were over a limit.",
                &[],
            ),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52")]
    pub(crate) fn report(&self, numbers: Numbers) {
        self.sources.set(numbers.sources as f64);
        self.over.set(numbers.over as f64);
        self.series.set(numbers.series as f64);
    }
}
