//! Where the batches ended that are read and not acknowledged.
//!
//! The end of each batch enters; the place from which to read again, and the arrival of the oldest record in hand, leave. It is bounded:
//! when too many batches are in hand, the places of the last ones are not kept, and a rewind passes over some records once more.

use std::collections::VecDeque;

/// A place in the segment files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The segment's number, or less when that is gone.
    pub(crate) number: u64,
    /// Offset in its file.
    pub(crate) offset: u64,
}

/// The marks.
pub(crate) struct Marks {
    /// Behind what is acknowledged, or before.
    acked: Place,
    batches: VecDeque<Mark>,
}

struct Mark {
    through: u64,
    first_arrival_ms: u64,
    end: Place,
}

/// Batches of which the end is kept.
const MAX: usize = 4_096;

impl Marks {
    pub(crate) fn new(acked: Place) -> Self {
        Self { acked, batches: VecDeque::new() }
    }

    /// Notes that a batch is read.
    pub(crate) fn push(&mut self, through: u64, first_arrival_ms: u64, end: Place) {
        let known = self.batches.back().is_some_and(|last| last.through >= through);
        if !known && self.batches.len() < MAX {
            self.batches.push_back(Mark { through, first_arrival_ms, end });
        }
    }

    /// Notes that everything up to and with `through` is acknowledged, and returns the arrival of the first record in the oldest batch
    /// that is not, or, when nothing else is known, of that in the newest that is.
    pub(crate) fn ack(&mut self, through: u64) -> Option<u64> {
        let mut last = None;
        while let Some(mark) = self.batches.front().filter(|mark| mark.through <= through) {
            self.acked = mark.end;
            last = Some(mark.first_arrival_ms);
            self.batches.pop_front();
        }
        self.batches.front().map(|mark| mark.first_arrival_ms).or(last)
    }

    /// Forgets what is read and not acknowledged, and returns where that begins.
    pub(crate) fn rewind(&mut self) -> Place {
        self.batches.clear();
        self.acked
    }
}
