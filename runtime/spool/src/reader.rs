//! The end of a spool where records leave.
//!
//! Committed records leave in order, many at a time; acknowledgements enter, and with them the checkpoint moves and segments are deleted.
//! A damaged or missing record is counted and passed over. It never deletes a segment before a durable checkpoint is past it.

mod marks;

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, CheckpointError};
use crate::format::{Checkpoint, RecordHeader, SEGMENT_HEADER, SegmentHeader, segment_name};
use crate::fs::{Access, File};
use crate::options::Options;
use crate::state::{Segment, Shared, Stats};
use crate::walk::{Found, Walk, read_full, read_lossy};

use self::marks::Marks;
pub(crate) use self::marks::Place;

/// Takes records out. There is one per spool; it may be used while another thread writes.
///
/// Beside the batch in hand it holds 32 bytes for each batch that is not acknowledged.
pub struct Reader {
    shared: Arc<Shared>,
    options: Options,
    /// The sequence after the last one read or passed over.
    expected: u64,
    /// Where the next read begins.
    place: Place,
    /// The highest `expected` there was: what may be acknowledged.
    seen: u64,
    /// The file of the segment read last.
    open: Option<(u64, Box<dyn File>)>,
    /// Reads that failed one after another.
    failures: u32,
    marks: Marks,
    /// What the durable checkpoint says. 0 when there is none.
    durable: u64,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the spool's order. Consecutive but for those lost.
    pub sequence: u64,
    /// When it arrived, as its writer said, in milliseconds since the Unix epoch.
    pub arrival_ms: u64,
    /// Its bytes: a slice of the batch's one buffer, which it keeps alive.
    pub payload: Bytes,
}

/// What one read gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records in order.
    pub records: Vec<Record>,
    /// Records damaged or missing up to `through` that no batch told of before.
    pub lost: u64,
    /// Acknowledge this when the batch is dealt with: everything up to and with this sequence is in it, in one before, or lost.
    pub through: u64,
}

/// A segment cannot be read now. Nothing is passed over: read again later.
///
/// What a disk refuses eight times in a row counts as damage from then on.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct ReadError {
    /// The segment.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// How often a read may fail at one place before what is unreadable there counts as damage.
const PATIENCE: u32 = 8;
/// Bytes of a read at least, however few are asked for.
const LEAST: usize = 4 << 10;

impl Reader {
    /// A reader behind `acked`, of which `durable` is on disk, whose first record lies at or behind `place`.
    pub(crate) fn new(shared: Arc<Shared>, options: Options, acked: u64, durable: u64, place: Place) -> Self {
        let (expected, marks) = (acked + 1, Marks::new(place));
        Self { shared, options, expected, place, seen: expected, open: None, failures: 0, marks, durable }
    }

    /// Reads what comes next: records with their headers up to `max_bytes`, but always one, and up to `max_records`.
    ///
    /// Gives less than there is where a segment ends. Without records and losses, there is nothing to read before the next commit. One
    /// read of the disk into one buffer.
    ///
    /// # Errors
    /// [`ReadError`], and the next read is for the same records.
    pub fn read(&mut self, max_bytes: usize, max_records: usize) -> Result<Batch, ReadError> {
        let start = self.expected;
        loop {
            let (segment, next, last) = {
                let state = self.shared.state();
                let segment = state.segment_from(self.place.number);
                let last = segment.is_none_or(|segment| state.segment_from(segment.header.number + 1).is_none());
                (segment, state.next, last)
            };
            if let Some(segment) = segment {
                self.enter(&segment);
                let records = self.read_segment(&segment, max_bytes, max_records.max(1))?;
                if !records.is_empty() {
                    return Ok(self.finish(start, records));
                }
                if !last {
                    self.place = Place { number: segment.header.number + 1, offset: 0 };
                    continue;
                }
            }
            // Everything committed is read: what did not come is lost.
            self.expected = self.expected.max(next);
            return Ok(self.finish(start, Vec::new()));
        }
    }

    /// Notes that everything up to and with `through` is dealt with; beyond what was read, nothing is. Writes the checkpoint when that is
    /// due ([`Options::checkpoint_records`]).
    ///
    /// # Errors
    /// As [`Reader::checkpoint`]; the acknowledgement is noted all the same.
    pub fn ack(&mut self, through: u64) -> Result<(), CheckpointError> {
        let through = through.min(self.seen - 1);
        let lets_go = {
            let mut state = self.shared.state();
            if through <= state.acked {
                return Ok(());
            }
            state.ack(through);
            state.sums.oldest_arrival_ms = match self.marks.ack(through) {
                _ if state.next - 1 == through => None,
                arrival => arrival.or(state.sums.oldest_arrival_ms),
            };
            let over = self.durable + 1..=through;
            state.segments.iter().any(|segment| over.contains(&(segment.limit - 1)))
        };
        self.expected = self.expected.max(through + 1);
        if lets_go || through - self.durable >= self.options.checkpoint_records {
            return self.checkpoint();
        }
        self.delete();
        Ok(())
    }

    /// Makes durable what is acknowledged, then deletes the segments that nobody needs any more.
    ///
    /// Costs two syncs when something was acknowledged since the last one, else nothing. Call it when delivery pauses, and when the spool is
    /// full: what failed commits left is deleted too. A segment that cannot be deleted is tried again next time.
    ///
    /// # Errors
    /// [`CheckpointError`]: nothing is deleted.
    pub fn checkpoint(&mut self) -> Result<(), CheckpointError> {
        let Shared { fs, dir, .. } = &*self.shared;
        let (acked, next) = {
            let state = self.shared.state();
            (state.acked, state.next)
        };
        if acked > self.durable {
            checkpoint::write(&**fs, dir, Checkpoint { acked, next })?;
            self.durable = acked;
        }
        self.delete();
        Ok(())
    }

    /// Goes back to behind the last acknowledgement: what was read and not acknowledged is read again.
    pub fn rewind(&mut self) {
        self.expected = self.shared.state().acked + 1;
        self.place = self.marks.rewind();
    }

    /// The numbers of this spool.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Deletes the segments wholly below the durable checkpoint.
    pub(crate) fn delete(&mut self) {
        let Shared { fs, dir, .. } = &*self.shared;
        let done: Vec<u64> = {
            let state = self.shared.state();
            let done = state.segments.iter().filter(|segment| segment.limit - 1 <= self.durable);
            done.map(|segment| segment.header.number).collect()
        };
        for number in done {
            match fs.remove(&dir.join(segment_name(number))) {
                // It is tried again with the next acknowledgement.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => self.shared.state().segments.retain(|segment| segment.header.number != number),
            }
        }
    }

    /// Moves to `segment` when the last read ended before it.
    fn enter(&mut self, segment: &Segment) {
        if self.place.number != segment.header.number {
            self.place = Place { number: segment.header.number, offset: 0 };
        }
        self.place.offset = self.place.offset.max(SEGMENT_HEADER as u64);
    }

    /// Reads records of one segment. None: it has no more.
    fn read_segment(&mut self, segment: &Segment, max_bytes: usize, max: usize) -> Result<Vec<Record>, ReadError> {
        let Some(header) = self.header(segment)? else { return Ok(Vec::new()) };
        let mut walk = Walk::new(&header, segment.limit, segment.len);
        walk.offset = self.place.offset;
        let mut needed = 0;
        while !walk.is_done() {
            let room = usize::try_from(walk.end - walk.offset).unwrap_or(usize::MAX);
            let want = max_bytes.max(LEAST).max(needed).min(room);
            let Some(bytes) = self.fetch(segment.header.number, walk.offset, want)? else { break };
            if bytes.len() < want {
                walk.end = walk.offset + bytes.len() as u64;
            }
            let (mut found, mut used) = (Vec::new(), 0);
            let at_start = walk.offset;
            needed = walk.feed(&bytes, |what| {
                let Found::Record(header, payload) = what else { return ControlFlow::Continue(()) };
                if header.sequence < self.expected {
                    return ControlFlow::Continue(());
                }
                used += header.size();
                if used > max_bytes && !found.is_empty() {
                    return ControlFlow::Break(());
                }
                self.expected = header.sequence + 1;
                self.place.offset = at_start + payload.end as u64;
                found.push((header, payload));
                if found.len() == max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if !found.is_empty() {
                let bytes = Bytes::from(bytes);
                let record = |(header, payload): (RecordHeader, Range<usize>)| Record {
                    sequence: header.sequence,
                    arrival_ms: header.arrival_ms,
                    payload: bytes.slice(payload),
                };
                return Ok(found.into_iter().map(record).collect());
            }
            self.place.offset = walk.offset;
        }
        Ok(Vec::new())
    }

    /// A segment's header. `None`: it is damaged.
    fn header(&mut self, segment: &Segment) -> Result<Option<SegmentHeader>, ReadError> {
        if !segment.refused {
            return Ok(Some(segment.header));
        }
        let number = segment.header.number;
        let bytes = self.fetch(number, 0, SEGMENT_HEADER)?;
        Ok(bytes.and_then(|bytes| SegmentHeader::parse(&bytes, number).ok()))
    }

    /// Reads up to `want` bytes of a segment. `None`: there is no such file.
    fn fetch(&mut self, number: u64, offset: u64, want: usize) -> Result<Option<Vec<u8>>, ReadError> {
        let path = || self.shared.dir.join(segment_name(number));
        let file = match self.open.take().filter(|(open, _)| *open == number) {
            Some((_, file)) => file,
            None => match self.shared.fs.open(&path(), Access::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(ReadError { path: path(), source }),
            },
        };
        let mut bytes = vec![0; want];
        let len = match read_full(&*file, &mut bytes, offset) {
            Ok(len) => len,
            Err(source) if self.failures + 1 < PATIENCE => {
                self.failures += 1;
                return Err(ReadError { path: path(), source });
            }
            Err(_) => read_lossy(&*file, &mut bytes, offset).len,
        };
        self.failures = 0;
        bytes.truncate(len);
        self.open = Some((number, file));
        Ok(Some(bytes))
    }

    /// Makes a batch of what was read since `start`, and counts what did not come.
    fn finish(&mut self, start: u64, records: Vec<Record>) -> Batch {
        let mut state = self.shared.state();
        let (mut lost, mut from) = (0, start);
        for record in &records {
            if record.sequence > from {
                lost += state.lose(from..record.sequence);
            }
            from = record.sequence + 1;
        }
        if self.expected > from {
            lost += state.lose(from..self.expected);
        }
        drop(state);
        self.seen = self.seen.max(self.expected);
        let through = self.expected - 1;
        if let Some(first) = records.first() {
            self.marks.push(through, first.arrival_ms, self.place);
        }
        Batch { records, lost, through }
    }
}
