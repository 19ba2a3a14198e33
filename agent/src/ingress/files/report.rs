//! What is said of files: gauges, envelopes of those that are behind, and the checkpoint.

use std::time::Duration;

use telemetry::Throttle;

use super::reader::{Reader, SAID};
use super::tracked::Tracked;
use crate::files::{Checkpoint, FilesConfig};
use crate::gather::Gather;
use crate::ingress::now_ns;

/// Between two gauges of how far a file is behind.
pub(super) const TELL: Duration = Duration::from_secs(30);

impl Reader {
    /// Says of each file how far it is behind, among its own envelopes.
    pub(super) fn tell(&mut self) {
        let mut gather = Gather::default();
        for file in self.files.values_mut() {
            let behind = file.behind();
            if behind > 0 || file.told_behind {
                file.told_behind = behind > 0;
                let labels = file.decoder.labels();
                let mut draft = gather.envelope(&labels.source_id, &labels.instance_id, now_ns());
                draft.tag("path", &file.home.to_string_lossy());
                draft.gauge([("file_behind_bytes", "bytes", approximate(behind))]);
            }
            if gather.is_full() {
                gather.take().into_iter().for_each(|batch| self.intake.take(batch));
            }
        }
        gather.take().into_iter().for_each(|batch| self.intake.take(batch));
    }

    pub(super) fn show(&self) {
        let (mut open, mut waiting, mut sum, mut most) = (0, 0, 0_u64, 0);
        for file in self.files.values() {
            let behind = file.behind();
            open += u64::from(file.fd.is_some());
            waiting += u64::from(file.waits());
            sum = sum.saturating_add(behind);
            most = most.max(behind);
        }
        self.metrics.open.set(approximate(open));
        self.metrics.waiting.set(approximate(waiting));
        self.metrics.behind_bytes.set(approximate(sum));
        self.metrics.behind_max_bytes.set(approximate(most));
    }

    /// Writes down how far all has left, for the next start.
    pub(super) fn close(mut self: Box<Self>) {
        for file in self.files.values().filter(|file| file.is_last_chance()) {
            self.metrics.lost_bytes.increment(file.size.saturating_sub(file.decoder.position()));
        }
        self.keep();
        self.metrics.open.set(0.0);
    }

    /// Writes down how far all has left.
    pub(super) fn keep(&mut self) {
        static UNKEPT: Throttle = Throttle::every(SAID);
        self.forget_ended();
        let known = self.entries.iter().map(FilesConfig::name).collect();
        // One that was cut, and has no copy, has its number no more.
        let is_there = |id: &u64, file: &Tracked| !file.is_unlinked && self.by_key.get(&file.key) == Some(id);
        let found = self.files.iter().filter(|(id, file)| is_there(id, file)).map(|(_, file)| file.kept());
        // What was not looked for yet is not forgotten.
        let files = found.chain(self.resume.values().cloned()).collect();
        match self.store.write(&Checkpoint { known, scanned: self.scanned, files }) {
            Ok(()) => {
                self.metrics.checkpoints.increment(1);
                self.is_dirty = false;
            }
            Err(error) => {
                self.metrics.checkpoint_failures.increment(1);
                if let Some(suppressed) = UNKEPT.pass() {
                    tracing::error!(%error, suppressed, "How far files have been read cannot be written down; trying again");
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
fn approximate(count: u64) -> f64 {
    count as f64
}
