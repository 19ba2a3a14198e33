//! What is counted of files.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

/// Of all entries together: a path is no label.
#[derive(Clone, Debug)]
pub(crate) struct FilesMetrics {
    /// Bytes used.
    pub(crate) read_bytes: Counter,
    /// Open now.
    pub(crate) open: Gauge,
    /// With something to read, and no place among the open ones.
    pub(crate) waiting: Gauge,
    /// Bytes written to files that have not left for a doppler.
    pub(crate) behind_bytes: Gauge,
    /// The same of the one with most.
    pub(crate) behind_max_bytes: Gauge,
    /// Texts that were too long for one envelope.
    pub(crate) split: Counter,
    /// Lines read again after a start that may have been sent before it.
    pub(crate) repeated: Counter,
    /// Envelopes that the ring gave up and that were put into it again.
    pub(crate) again: Counter,
    /// Times that a file began anew.
    pub(crate) truncated: Counter,
    /// Bytes that were seen, and gone before they were read.
    pub(crate) lost_bytes: Counter,
    /// Files that an earlier run had begun, and that could not be found again.
    pub(crate) vanished: Counter,
    /// Times that a file or directory could not be read.
    pub(crate) errors: Counter,
    /// Times that it was written down how far files had been read.
    pub(crate) checkpoints: Counter,
    /// Times that this failed.
    pub(crate) checkpoint_failures: Counter,
}

impl FilesMetrics {
    /// Registers the families.
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let counter = |name, help| telemetry.counter(name, help, &[]);
        let gauge = |name, help| telemetry.gauge(name, help, &[]);
        let checkpoints = |outcome| {
            let help = "Times that it was written down how far files have been read, by outcome.";
            telemetry.counter("hydrant_files_checkpoints_total", help, &[("outcome", outcome)])
        };
        Self {
            read_bytes: counter("hydrant_files_read_bytes_total", "Bytes of files that were read."),
            open: gauge("hydrant_files_open", "Files that are open to be read."),
            waiting: gauge("hydrant_files_waiting", "Files with something to read that wait until another is closed."),
            behind_bytes: gauge("hydrant_files_behind_bytes", "Bytes in files that have not left for a doppler."),
            behind_max_bytes: gauge(
                "hydrant_files_behind_max_bytes",
                "Bytes in the file with most that have not left for a doppler.",
            ),
            split: counter(
                "hydrant_files_split_total",
                "Lines and traces of files that were too long for one envelope and became several.",
            ),
            repeated: counter(
                "hydrant_files_repeated_total",
                "Lines of files read again after a start that may have been sent before it.",
            ),
            again: counter(
                "hydrant_files_again_total",
                "Envelopes of files that the ring gave up and that were put into it again.",
            ),
            truncated: counter("hydrant_files_truncated_total", "Times that a file was cut and began anew."),
            lost_bytes: counter(
                "hydrant_files_lost_bytes_total",
                "Bytes that files were seen to have, and that were gone before they were read.",
            ),
            vanished: counter(
                "hydrant_files_vanished_total",
                "Files that an earlier run had begun to read and that could not be found again.",
            ),
            errors: counter("hydrant_files_errors_total", "Times that a file or directory could not be read."),
            checkpoints: checkpoints("written"),
            checkpoint_failures: checkpoints("failed"),
        }
    }
}
