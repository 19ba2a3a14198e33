//! What is seen of a tail: lines on standard output, and between them, or on standard error, what else there is to know.

use proto::hydrant::v1::Gap;
use proto::v2;

use crate::client::Output;
use crate::render::{self, Printer};

/// What is seen.
pub(super) struct View {
    pub(super) output: Output,
    printer: Printer,
    /// Missing dopplers have been named.
    partial: bool,
    /// Streams whose server has gone.
    away: usize,
}

impl View {
    /// Nothing has been seen yet.
    pub(super) fn new(output: Output, printer: Printer) -> Self {
        Self { output, printer, partial: false, away: 0 }
    }

    /// Shows envelopes.
    pub(super) fn put(&mut self, envelopes: &[v2::Envelope]) {
        for envelope in envelopes {
            self.printer.put(self.output.buffer(), envelope);
        }
    }

    /// Shows that some are missing here.
    pub(super) fn gap(&mut self, gap: &Gap) {
        let plural = if gap.envelopes == 1 { "envelope" } else { "envelopes" };
        let whose = match gap.source_id.as_str() {
            "" => "several sources".to_owned(),
            source => render::safe(source),
        };
        let why = match gap.reason.as_str() {
            "" => "left the cache before they could be shown".to_owned(),
            reason => format!("are missing here: {}", render::safe(reason)),
        };
        let text = format!("{} {plural} of {whose} {why}", gap.envelopes);
        if !self.printer.note(self.output.buffer(), &text) {
            self.output.notice(&text);
        }
    }

    /// Says once that dopplers cannot be asked.
    pub(super) fn missing(&mut self, dopplers: &[String]) {
        if !std::mem::replace(&mut self.partial, true) {
            let dopplers = dopplers.join(", ");
            self.output.notice(&format!("incomplete: {dopplers} cannot be asked; what it has cached is missing"));
        }
    }

    /// Says that the server has gone, once however many streams it had.
    pub(super) fn away(&mut self, why: &str) {
        if self.away == 0 {
            self.output.notice(&format!("the traffic controller went away ({why}); waiting for it"));
        }
        self.away += 1;
    }

    /// Says that it is back, when all streams are.
    pub(super) fn back(&mut self) {
        self.away = self.away.saturating_sub(1);
        if self.away == 0 {
            self.output.notice("connected again; going on where it broke off");
        }
    }
}
