//! What leaves files for the ring: frames whose fate is told, and put in again what the ring gives up.
//!
//! A file's place is claimed once every frame with something before that place has left for a doppler.

use std::sync::Arc;

use bytes::Bytes;
use proto::raw::{Batch, wire};

use super::reader::Reader;
use super::tracked::Tracked;
use crate::files::FRAME_ENVELOPES;
use crate::parcel::{Dropped, Fate, Ticket};

/// Frames in the ring and on their way to dopplers.
const FRAMES: usize = 64;
/// Their bytes. A round may add to both what one buffer of each file gives.
const FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Room for what becomes of frames: those, and what one buffer and the ends of files make besides.
pub(super) const FATES: usize = 16 * FRAMES;

/// Envelopes on their way.
#[derive(Debug)]
pub(super) struct Frame {
    files: Vec<u64>,
    bytes: usize,
    dropped: Dropped,
}

impl Reader {
    /// Whether more may be read.
    pub(super) fn has_room(&self) -> bool {
        let few = self.frames.len() < FRAMES && self.under_way < FRAME_BYTES && self.again.is_empty();
        few && self.intake.has_room(self.half)
    }

    /// Whether something is in the ring or on its way whose fate will be told.
    pub(super) fn is_under_way(&self) -> bool {
        !self.frames.is_empty()
    }

    pub(super) fn note(&mut self, id: u64, file: &mut Tracked) {
        let (split, repeated) = file.decoder.take_counts();
        self.metrics.split.increment(split);
        self.metrics.repeated.increment(repeated);
        file.note(self.frame);
        if self.gathered.last() != Some(&id) {
            self.gathered.push(id);
        }
    }

    /// Hands on what was gathered if it is enough for a frame; whether it was.
    pub(super) fn close_full(&mut self) -> bool {
        let is_full = self.gather.is_full() || self.gather.len() >= FRAME_ENVELOPES;
        if is_full {
            self.close_frame();
        }
        is_full
    }

    /// Hands on what was gathered.
    pub(super) fn close_frame(&mut self) {
        let Some((batch, refused)) = self.gather.take() else {
            self.gathered.clear();
            return;
        };
        if batch.is_empty() {
            self.gathered.clear();
            return self.intake.take((batch, refused));
        }
        let frame =
            Frame { files: std::mem::take(&mut self.gathered), bytes: batch.held(), dropped: Dropped::default() };
        self.under_way += frame.bytes;
        let (number, dropped, report) = (self.frame, Arc::clone(&frame.dropped), self.report.clone());
        self.frame += 1;
        self.frames.insert(number, frame);
        self.intake.take_frame((batch, refused), |envelopes| Ticket::keeping(number, envelopes, dropped, report));
    }

    /// Notes what became of a frame.
    pub(super) fn settle(&mut self, fate: Fate) {
        let number = match fate {
            Fate::Settled { sequence, dropped, .. } if dropped > 0 && !self.is_stopping => {
                return self.again.push_back(sequence);
            }
            Fate::Settled { sequence, .. } | Fate::Unknown { sequence } => sequence,
        };
        let Some(frame) = self.frames.remove(&number) else { return };
        self.under_way -= frame.bytes;
        // Of others it is not known: they are read again.
        if matches!(fate, Fate::Settled { dropped: 0, .. }) {
            for id in frame.files {
                let Some(file) = self.files.get_mut(&id) else { continue };
                file.flight.iter_mut().for_each(|flight| flight.settle(number));
            }
            self.is_dirty = true;
        }
    }

    /// Puts into the ring again what it gave up, once there is room.
    pub(super) fn put_again(&mut self) {
        while self.intake.has_room(self.half)
            && let Some(number) = self.again.pop_front()
        {
            let Some(frame) = self.frames.get(&number) else { continue };
            let (dropped, report) = (Arc::clone(&frame.dropped), self.report.clone());
            let envelopes = std::mem::take(&mut *frame.dropped.lock());
            self.metrics.again.increment(envelopes.len() as u64);
            let mut bytes = Vec::with_capacity(envelopes.iter().map(|envelope| wire::bytes_len(envelope.len())).sum());
            envelopes.iter().for_each(|envelope| wire::put_bytes(&mut bytes, 1, envelope));
            let batch = Batch::index(Bytes::from(bytes)).0;
            let ticket = Ticket::keeping(number, batch.len() as u64, dropped, report);
            self.intake.take_again(batch, ticket);
        }
    }
}
