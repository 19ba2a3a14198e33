//! The walk over a segment: finds every record that holds, and what lies between.
//!
//! The bytes of a segment enter in pieces; records and damaged ranges leave, in file order, each record with a higher sequence than the
//! one before. It never fails: what is not a record is damage, and behind damage it looks for the next header that holds.

use std::io;
use std::ops::{ControlFlow, Range};

use crate::format::{MAX_NUMBER, MAX_SEGMENT, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader};
use crate::fs::File;

/// Bytes read at once by [`Walk::file`].
const PIECE: usize = 256 << 10;
/// What is unreadable is unreadable in pieces of this size.
const BLOCK: usize = 4 << 10;

/// Where a walk is.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// Offset in the file of the next byte to look at.
    pub(crate) offset: u64,
    /// Offset behind the last byte to look at.
    pub(crate) end: u64,
    salt: u32,
    /// The lowest sequence that the next record can have.
    floor: u64,
    /// Sequences from here on belong to a later segment.
    limit: u64,
}

/// What is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A record that holds; its payload lies at this place in the bytes given.
    Record(RecordHeader, Range<usize>),
    /// No record: offsets in the file. One damaged range may come in several pieces.
    Damaged(Range<u64>),
}

impl Walk {
    /// A walk over a segment's records below `limit`, from the first to offset `end`.
    pub(crate) fn new(header: &SegmentHeader, limit: u64, end: u64) -> Self {
        let offset = SEGMENT_HEADER as u64;
        Self {
            offset,
            end: end.min(MAX_SEGMENT).max(offset),
            salt: header.salt,
            floor: header.first,
            limit: limit.min(MAX_NUMBER),
        }
    }

    /// True when everything is looked at.
    pub(crate) fn is_done(&self) -> bool {
        self.offset >= self.end
    }

    /// Looks at `bytes`, which are those at `self.offset`, and tells `each` what it finds until that breaks.
    ///
    /// Returns how many bytes the next call must have at least to get any further. Each byte is looked at once, but for those of an
    /// incomplete record at the end.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Found) -> ControlFlow<()>) -> usize {
        let start = self.offset;
        loop {
            let at = (self.offset - start) as usize;
            let room = self.end.saturating_sub(self.offset);
            let rest = &bytes[at.min(bytes.len())..];
            let rest = &rest[..rest.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            if room == 0 {
                return 0;
            }
            if rest.len() < RECORD_HEADER && (rest.len() as u64) < room {
                return RECORD_HEADER.min(usize::try_from(room).unwrap_or(RECORD_HEADER));
            }
            let found = match RecordHeader::parse(rest, self.salt, self.floor, self.limit, room) {
                Some(header) if header.size() > rest.len() => return header.size(),
                Some(header) => {
                    self.floor = header.sequence + 1;
                    let payload = at + RECORD_HEADER..at + header.size();
                    let from = self.offset;
                    self.offset += header.size() as u64;
                    if header.holds(&bytes[payload.clone()]) {
                        Found::Record(header, payload)
                    } else {
                        Found::Damaged(from..self.offset)
                    }
                }
                None => {
                    let from = self.offset;
                    self.offset += self.skip(rest, room);
                    Found::Damaged(from..self.offset)
                }
            };
            if each(found).is_break() {
                return 0;
            }
        }
    }

    /// How many bytes to go on by to the next header that holds, when there is none at the start of `rest`.
    fn skip(&self, rest: &[u8], room: u64) -> u64 {
        let headers = rest.windows(RECORD_HEADER).enumerate().skip(1);
        let parse = |(at, bytes)| {
            RecordHeader::parse(bytes, self.salt, self.floor, self.limit, room - at as u64).map(|_| at as u64)
        };
        let whole = rest.len() as u64 >= room;
        // Without the end of the segment, the last bytes may be the start of a header.
        let unknown = if whole { room } else { (rest.len() - (RECORD_HEADER - 1)) as u64 };
        headers.map(parse).find_map(|at| at).unwrap_or(unknown)
    }

    /// Walks through `file` and tells `each` what it finds, until that breaks; `self.offset` is then behind it.
    ///
    /// What cannot be read counts as damage. Returns how many bytes those were. Memory: 256 KiB, or the longest record.
    pub(crate) fn file(&mut self, file: &dyn File, mut each: impl FnMut(Found) -> ControlFlow<()>) -> u64 {
        let mut unreadable = 0;
        let mut buffer = Vec::new();
        let (mut needed, mut stopped) = (0, false);
        while !self.is_done() && !stopped {
            let room = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
            buffer.resize(needed.max(PIECE).min(room), 0);
            let read = read_lossy(file, &mut buffer, self.offset);
            unreadable += read.unreadable;
            if read.len < buffer.len() {
                self.end = self.offset + read.len as u64;
            }
            needed = self.feed(&buffer[..read.len], |found| {
                let flow = each(found);
                stopped = flow.is_break();
                flow
            });
        }
        unreadable
    }
}

/// What [`read_lossy`] got.
pub(crate) struct Lossy {
    /// Bytes up to the end of the file.
    pub(crate) len: usize,
    /// How many of them could not be read, and are zero.
    pub(crate) unreadable: u64,
}

/// Fills `buffer` from `offset` on, up to the end of the file. Errors as other reads have them.
pub(crate) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills `buffer` like [`read_full`], with zeros where the disk gives errors.
pub(crate) fn read_lossy(file: &dyn File, buffer: &mut [u8], offset: u64) -> Lossy {
    if let Ok(len) = read_full(file, buffer, offset) {
        return Lossy { len, unreadable: 0 };
    }
    let mut lossy = Lossy { len: 0, unreadable: 0 };
    for block in buffer.chunks_mut(BLOCK) {
        match read_full(file, block, offset + lossy.len as u64) {
            Ok(read) if read < block.len() => {
                lossy.len += read;
                break;
            }
            Ok(_) => {}
            Err(_) => {
                block.fill(0);
                lossy.unreadable += block.len() as u64;
            }
        }
        lossy.len += block.len();
    }
    lossy
}

#[cfg(test)]
mod tests;
