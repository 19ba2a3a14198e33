//! Puts right what random bytes never have: magics, versions, CRCs.
//!
//! The bytes of a file enter and are changed in place. Sequences and lengths stay, but for being made possible.

use crate::format::{Checkpoint, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader};

/// Numbers up to this are possible.
const NUMBERS: u64 = (1 << 40) - 1;
/// The salt of every segment.
const SALT: u32 = 1;

/// Makes a checkpoint of `bytes`, if there are enough.
pub(super) fn checkpoint(bytes: &mut [u8]) {
    let (Some(acked), Some(next)) = (number(bytes, 12), number(bytes, 20)) else { return };
    let mended = Checkpoint { acked, next: next.max(acked + 1) }.encode();
    if bytes.len() == mended.len() {
        bytes.copy_from_slice(&mended);
    }
}

/// Makes a segment of `bytes`: a header, and records as long as their lengths lead to the next.
pub(super) fn segment(bytes: &mut [u8], file: u64) {
    let Some(first) = number(bytes, 24).filter(|_| bytes.len() >= SEGMENT_HEADER) else { return };
    bytes[..SEGMENT_HEADER].copy_from_slice(&SegmentHeader { number: file, first: first.max(1), salt: SALT }.encode());
    let mut rest = &mut bytes[SEGMENT_HEADER..];
    while let (Some(sequence), Some(arrival_ms)) = (number(rest, 4), number(rest, 12)) {
        if rest.len() < RECORD_HEADER {
            return;
        }
        // A short one, or all that is left.
        let len = if rest[3] == 0 { usize::from(rest[0]) } else { rest.len() };
        let (header, payload) = rest.split_at_mut(RECORD_HEADER);
        let len = len.min(payload.len());
        let Some(mended) = RecordHeader::new(sequence, arrival_ms, &payload[..len]) else { return };
        header.copy_from_slice(&mended.encode(SALT));
        rest = &mut payload[len..];
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes) & NUMBERS)
}
