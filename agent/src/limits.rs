//! What one source may send: log lines and bytes in a second, and metric series in an hour. Whoever is over loses what is over, and no
//! other source notices.
//!
//! What enters: tagged envelopes of every front, on their way to the ring. What leaves: those within the limits, and notices to the owners
//! of the others, as log lines of their own source. Without a limit this costs a branch per batch; with one, a lock per batch that has
//! envelopes of the kind, one look into a table per log line, and for a metric a hash of its name and tags besides.

mod bucket;
mod config;
mod metrics;
mod notice;
mod rates;
mod series;
mod sketch;
mod table;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::raw::{Kind, Refused, Selection};
use telemetry::{Telemetry, Throttle};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use config::{LimitsConfig, LimitsConfigError, Rate, SourceLimits, SourceOverride};

use crate::ingress::Intake;
use crate::ingress::now_ns;
use metrics::LimitsMetrics;
use notice::{Crowded, Notices};
use table::Table;

/// How often it is looked whether a source keeps to its limit again.
const LOOK: Duration = Duration::from_secs(1);

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(10);

/// Bytes of a name shown in a warning.
const SHOWN: usize = 100;

/// The limits of every source, and where each stands.
pub(crate) struct Limits {
    /// Guards the table: taken once for a batch that has envelopes of a limited kind.
    table: Mutex<Table>,
    /// The kinds that are limited, as bits.
    kinds: u8,
    started: Instant,
    /// Where notices go. It has no limits.
    out: Intake,
    metrics: LimitsMetrics,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl Limits {
    /// Nothing if nothing is limited. Notices go to `out`.
    pub(crate) fn new(config: &LimitsConfig, out: Intake, telemetry: &Telemetry) -> Option<Arc<Self>> {
        let metrics = LimitsMetrics::register(telemetry);
        let mut kinds = 0;
        for limits in config.all() {
            if limits.lines.is_some() || limits.bytes.is_some() {
                kinds |= Kind::Log.bit();
            }
            if limits.max_series.is_some() {
                kinds |= Kind::Counter.bit() | Kind::Gauge.bit() | Kind::Timer.bit();
            }
        }
        let table = Mutex::new(Table::new(config));
        (kinds != 0).then(|| Arc::new(Self { table, kinds, started: Instant::now(), out, metrics }))
    }

    /// Leaves out what is over its source's limits, and says how much that was.
    pub(crate) fn admit(&self, selection: Selection) -> (Selection, Refused) {
        if !selection.entries().any(|entry| self.kinds & entry.kind.bit() != 0) {
            return (selection, Refused::default());
        }
        let mut notices = Notices::default();
        let admitted = self.table.lock().admit(selection, self.started.elapsed(), &mut notices);
        self.say(&notices);
        admitted
    }

    /// Ends episodes until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let mut notices = Notices::default();
            let mut table = self.table.lock();
            table.look(self.started.elapsed(), &mut notices);
            self.metrics.report(table.numbers());
            drop(table);
            self.say(&notices);
        }
    }

    /// Ends every episode, as nothing more will come: what is over but has not been told yet is told now.
    pub(crate) fn finish(&self) {
        let mut notices = Notices::default();
        self.table.lock().finish(&mut notices);
        self.say(&notices);
    }

    fn say(&self, notices: &Notices) {
        if notices.is_empty() {
            return;
        }
        self.metrics.notices.increment(notices.len() as u64);
        notices.crowded().for_each(warn_of);
        for batch in notices.write(now_ns()) {
            self.out.take(batch);
        }
    }
}

fn warn_of((source_id, crowded): (&[u8], &Crowded)) {
    static CROWDED: Throttle = Throttle::every(QUIET);
    let Some(suppressed) = CROWDED.pass() else { return };
    let shown = |text: &[u8]| text[..text.len().min(SHOWN)].escape_ascii().to_string();
    let (source_id, metric, label) = (shown(source_id), shown(&crowded.metric), shown(&crowded.label));
    let (limit, dropped) = (crowded.limit, crowded.dropped);
    warn!(source_id, limit, dropped, metric, label, suppressed, "Source has too many series; new ones are dropped");
}

#[cfg(test)]
mod tests;
