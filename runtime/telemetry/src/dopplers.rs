//! The numbers of a set of dopplers.

use transport::Dopplers;

use crate::registry::Telemetry;

impl Telemetry {
    /// Shows how many dopplers are known, and how often the set could not be read.
    pub fn watch_dopplers(&self, dopplers: &Dopplers) {
        let known = self.gauge("hydrant_dopplers", "Dopplers in the set now.", &[]);
        let failures = self.counter(
            "hydrant_dopplers_failures_total",
            "Look-ups of names and readings of files of dopplers that gave an error or nothing.",
            &[],
        );
        let dopplers = dopplers.clone();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        self.before_render(move || {
            known.set(dopplers.current().len() as f64);
            failures.absolute(dopplers.failures());
        });
    }
}
