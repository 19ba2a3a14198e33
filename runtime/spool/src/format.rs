//! The bytes on disk: headers of segments and records, and the checkpoint.
//!
//! Plain values enter and little-endian bytes leave, and the other way round. It never reads a file and never trusts a field whose
//! CRC does not hold.
//!
//! ```text
//! segment     header, header again, records
//!   header    magic 8, version u32, salt u32, number u64, first sequence u64, crc u32
//!   record    payload length u32, sequence u64, arrival u64, payload crc u32, header crc u32, payload
//! checkpoint  magic 8, version u32, acked u64, next u64, crc u32
//! ```
//!
//! All CRCs are CRC32C. Each record header has its own, so that a damaged length does not hide the records behind it: the reader looks
//! for the next header that holds. It starts from the segment's *salt*, a random number, so that nobody who merely sends payloads can
//! write bytes into one that pass for a header. A segment's header is there twice: one bad byte must not cost a segment.

use std::num::NonZeroU32;

/// Bytes before each payload.
pub(crate) const RECORD_HEADER: usize = 28;
/// Bytes before the first record of a segment.
pub(crate) const SEGMENT_HEADER: usize = 2 * SEGMENT_HEADER_COPY;
/// Bytes of the checkpoint file.
pub(crate) const CHECKPOINT: usize = 32;
/// The longest payload, in bytes: more memory than this no header can ask for.
pub(crate) const MAX_PAYLOAD: u32 = 64 << 20;
/// The longest segment, in bytes: what a file has beyond is not looked at.
pub(crate) const MAX_SEGMENT: u64 = 1 << 30;
/// Sequence and file numbers stay below this; what says otherwise is not ours.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

const SEGMENT_HEADER_COPY: usize = 36;
const SEGMENT_MAGIC: [u8; 8] = *b"hydspool";
const CHECKPOINT_MAGIC: [u8; 8] = *b"hydcheck";
const VERSION: u32 = 1;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// Payload bytes.
    pub(crate) len: u32,
    pub(crate) sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub(crate) arrival_ms: u64,
    pub(crate) payload_crc: u32,
}

/// What stands before the records of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The number in the file's name: a copy under another name is no segment.
    pub(crate) number: u64,
    /// Sequence of the first record. What an earlier segment holds from here on was never committed.
    pub(crate) first: u64,
    /// Where the CRCs of record headers start from.
    pub(crate) salt: u32,
}

/// How far delivery has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Everything up to and with this sequence is delivered. 0: nothing yet.
    pub(crate) acked: u64,
    /// The sequence after the last one that was committed when this was written.
    pub(crate) next: u64,
}

/// Why bytes are not the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSegment {
    /// Neither copy holds.
    Damaged,
    /// Written by another version of this code, or under another name: not ours to delete.
    Foreign,
}

impl RecordHeader {
    /// The header for `payload`. `None` when it is longer than [`MAX_PAYLOAD`].
    pub(crate) fn new(sequence: u64, arrival_ms: u64, payload: &[u8]) -> Option<Self> {
        let len = u32::try_from(payload.len()).ok().filter(|len| *len <= MAX_PAYLOAD)?;
        Some(Self { len, sequence, arrival_ms, payload_crc: crc32c::crc32c(payload) })
    }

    pub(crate) fn encode(&self, salt: u32) -> [u8; RECORD_HEADER] {
        let mut out = [0; RECORD_HEADER];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4..12].copy_from_slice(&self.sequence.to_le_bytes());
        out[12..20].copy_from_slice(&self.arrival_ms.to_le_bytes());
        out[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(salt, &out[..24]);
        out[24..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header at the start of `bytes` whose sequence is in `[floor, limit)` and whose payload ends within `room` bytes, counted
    /// from the start of the header. `None` when there is no such header.
    pub(crate) fn parse(bytes: &[u8], salt: u32, floor: u64, limit: u64, room: u64) -> Option<Self> {
        let header = bytes.first_chunk::<RECORD_HEADER>()?;
        let (len, sequence) = (u32_at(header, 0), u64_at(header, 4));
        // Cheap refusals first: while looking for a header, this runs at every byte.
        if sequence < floor || sequence >= limit || len > MAX_PAYLOAD || u64::from(len) + RECORD_HEADER as u64 > room {
            return None;
        }
        let holds = crc32c::crc32c_append(salt, &header[..24]) == u32_at(header, 24);
        holds.then(|| Self { len, sequence, arrival_ms: u64_at(header, 12), payload_crc: u32_at(header, 20) })
    }

    pub(crate) fn holds(&self, payload: &[u8]) -> bool {
        crc32c::crc32c(payload) == self.payload_crc
    }

    /// Bytes of header and payload.
    pub(crate) fn size(&self) -> usize {
        RECORD_HEADER + self.len as usize
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.salt.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&out[..32]);
        out[32..36].copy_from_slice(&crc.to_le_bytes());
        out.copy_within(..SEGMENT_HEADER_COPY, SEGMENT_HEADER_COPY);
        out
    }

    /// Reads the header of the file numbered `number`: the first copy that holds.
    pub(crate) fn parse(bytes: &[u8], number: u64) -> Result<Self, NoSegment> {
        let copies = bytes.chunks_exact(SEGMENT_HEADER_COPY).take(2);
        let copy = copies
            .filter(|copy| copy[..8] == SEGMENT_MAGIC)
            .find(|copy| crc32c::crc32c(&copy[..32]) == u32_at(copy, 32))
            .ok_or(NoSegment::Damaged)?;
        let header = Self { salt: u32_at(copy, 12), number: u64_at(copy, 16), first: u64_at(copy, 24) };
        let ours = u32_at(copy, 8) == VERSION && header.number == number && (1..MAX_NUMBER).contains(&header.first);
        if ours { Ok(header) } else { Err(NoSegment::Foreign) }
    }
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> [u8; CHECKPOINT] {
        let mut out = [0; CHECKPOINT];
        out[..8].copy_from_slice(&CHECKPOINT_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.acked.to_le_bytes());
        out[20..28].copy_from_slice(&self.next.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when `bytes` are not exactly a checkpoint that holds and makes sense.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; CHECKPOINT] = bytes.try_into().ok()?;
        let holds = bytes[..8] == CHECKPOINT_MAGIC
            && u32_at(bytes, 8) == VERSION
            && crc32c::crc32c(&bytes[..28]) == u32_at(bytes, 28);
        let read = Self { acked: u64_at(bytes, 12), next: u64_at(bytes, 20) };
        (holds && read.acked < read.next && read.next < MAX_NUMBER).then_some(read)
    }
}

/// The name of the segment file with this number.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// The number of a segment file. `None` when a file of this name is not one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    let number: u64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (1..MAX_NUMBER).contains(&number).then_some(number)
}

/// A salt from a random number.
pub(crate) fn salt(random: u64) -> u32 {
    NonZeroU32::new((random ^ (random >> 32)) as u32).map_or(1, NonZeroU32::get)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_no_flipped_bit_passes() {
        let header = RecordHeader::new(7, 1_700_000_000_000, b"payload").unwrap();
        let bytes = header.encode(99);
        assert_eq!(RecordHeader::parse(&bytes, 99, 7, 8, 35), Some(header));
        assert_eq!(RecordHeader::parse(&bytes, 98, 7, 8, 35), None, "another salt");
        assert_eq!(RecordHeader::parse(&bytes, 99, 8, 9, 35), None, "below the floor");
        assert_eq!(RecordHeader::parse(&bytes, 99, 1, 7, 35), None, "at the limit");
        assert_eq!(RecordHeader::parse(&bytes, 99, 7, 8, 34), None, "no room for the payload");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::parse(&flipped, 99, 0, u64::MAX, u64::MAX), None);
        }
    }

    #[test]
    fn a_segment_header_survives_any_one_byte() {
        let header = SegmentHeader { number: 3, first: 12, salt: 5 };
        let bytes = header.encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes;
            flipped[at] ^= 0xff;
            assert_eq!(SegmentHeader::parse(&flipped, 3), Ok(header));
        }
        assert_eq!(SegmentHeader::parse(&bytes, 4), Err(NoSegment::Foreign), "renamed or copied");
        assert_eq!(SegmentHeader::parse(&bytes[..35], 3), Err(NoSegment::Damaged));
        assert_eq!(SegmentHeader::parse(&bytes[..36], 3), Ok(header));
    }

    #[test]
    fn a_checkpoint_holds_as_a_whole_or_not_at_all() {
        let bytes = Checkpoint { acked: 4, next: 9 }.encode();
        assert_eq!(Checkpoint::parse(&bytes), Some(Checkpoint { acked: 4, next: 9 }));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::parse(&flipped), None);
        }
        assert_eq!(Checkpoint::parse(&Checkpoint { acked: 9, next: 9 }.encode()), None);
        assert_eq!(Checkpoint::parse(&Checkpoint { acked: 1, next: u64::MAX }.encode()), None);
    }

    #[test]
    fn only_our_names_are_ours() {
        assert_eq!(segment_number(&segment_name(1)), Some(1));
        let foreign =
            ["1.seg", "0000000000000000000+1.seg", "00000000000000000000.seg", "99999999999999999999.seg", "x"];
        assert!(foreign.iter().all(|name| segment_number(name).is_none()));
    }
}
