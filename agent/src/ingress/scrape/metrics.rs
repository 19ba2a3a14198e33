//! What scraping counts beside what every front does.

use metrics::{Counter, Gauge, Histogram};
use telemetry::Telemetry;

use super::fetch::FetchError;

/// Of all targets together: a target is no label, there may be any number of them.
#[derive(Clone, Debug)]
pub(crate) struct ScrapeMetrics {
    /// Targets scraped now.
    pub(crate) targets: Gauge,
    /// Files that name no target.
    pub(crate) bad_files: Gauge,
    /// How long a scrape took.
    pub(crate) seconds: Histogram,
    pub(super) ok: Counter,
    pub(super) unreachable: Counter,
    pub(super) tls: Counter,
    pub(super) timeout: Counter,
    pub(super) status: Counter,
    pub(super) too_large: Counter,
    pub(super) malformed: Counter,
}

impl ScrapeMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let outcome = |outcome| {
            let help = "Scrapes, by what became of them.";
            telemetry.counter("hydrant_scrapes_total", help, &[("outcome", outcome)])
        };
        Self {
            targets: telemetry.gauge("hydrant_scrape_targets", "Targets that are scraped now.", &[]),
            bad_files: telemetry.gauge("hydrant_scrape_bad_files", "Files that match and name no target.", &[]),
            seconds: telemetry.histogram("hydrant_scrape_seconds", "How long scrapes took, good ones and others.", &[]),
            ok: outcome("ok"),
            unreachable: outcome("unreachable"),
            tls: outcome("tls"),
            timeout: outcome("timeout"),
            status: outcome("status"),
            too_large: outcome("too_large"),
            malformed: outcome("malformed"),
        }
    }

    pub(super) fn failed(&self, error: &FetchError) {
        match error {
            FetchError::Connect(_) => &self.unreachable,
            FetchError::Tls(_) => &self.tls,
            FetchError::Late(_) => &self.timeout,
            FetchError::Status(..) => &self.status,
            FetchError::TooLong(_) => &self.too_large,
            FetchError::Http(_) | FetchError::Gzip(_) => &self.malformed,
        }
        .increment(1);
    }
}
