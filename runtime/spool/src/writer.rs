//! The end of a spool where records enter.
//!
//! Payloads enter and wait in memory; [`Writer::commit`] writes them to a segment, makes them durable and shows them to the reader. It
//! never throws away what was accepted, never syncs a file again on which a write or a sync failed, and never shows what is not durable.

mod headroom;

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::Record;
use crate::checkpoint::{is_full, write_all};
use crate::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, segment_name};
use crate::fs::File;
use crate::options::Options;
use crate::state::{Health, Segment, Shared, Stats};

use self::headroom::Headroom;

/// Puts records in. There is one per spool; it may be used while another thread reads.
///
/// What it holds in memory is what was appended and not committed, at most [`Options::segment_bytes`].
pub struct Writer {
    shared: Arc<Shared>,
    options: Options,
    /// One for all segments of this process: what waits for its commit fits any of them.
    salt: u32,
    /// Encoded records that wait for their commit.
    buffer: Vec<u8>,
    /// How many these are.
    waiting: u64,
    /// When the first of them arrived.
    first_arrival_ms: u64,
    /// The sequence after the last one committed.
    next: u64,
    /// The segment that takes the next commit if that fits.
    active: Option<Active>,
    next_number: u64,
    headroom: Headroom,
}

/// What a commit made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Records.
    pub records: u64,
    /// Bytes on disk, with headers.
    pub bytes: u64,
    /// Everything up to and with this sequence is committed.
    pub through: u64,
}

/// A record is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It is longer than `max_record`; it never fits.
    #[error("record of {len} bytes is longer than {max}")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// `max_record`.
        max: u32,
    },
    /// The spool would take more than `max_bytes`.
    #[error("spool is full: {bytes} of {max} bytes are in use")]
    Full {
        /// Bytes in use.
        bytes: u64,
        /// `max_bytes`.
        max: u64,
    },
    /// The file system would have less than `keep_free` left.
    #[error("less than {keep_free} % of the file system would stay free")]
    NoSpace {
        /// Percent.
        keep_free: u8,
    },
    /// As much as fits a segment waits already: commit it or take it back first.
    #[error("{bytes} bytes wait for their commit")]
    Uncommitted {
        /// Bytes that wait.
        bytes: u64,
    },
}

/// Nothing of what waits is committed. All of it still waits, and the next commit tries another file.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The file system is full.
    #[error("no space left to write {path}")]
    NoSpace {
        /// The segment.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// What failed commits left on disk leaves no room below `max_bytes`.
    #[error("spool is full: {bytes} of {max} bytes are in use")]
    Full {
        /// Bytes in use.
        bytes: u64,
        /// `max_bytes`.
        max: u64,
    },
    /// Writing or syncing failed otherwise.
    #[error("cannot write {path}")]
    Io {
        /// The segment.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

struct Active {
    header: SegmentHeader,
    file: Box<dyn File>,
    /// Offset behind the last committed record.
    len: u64,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, options: Options, salt: u32, next: u64, next_number: u64) -> Self {
        Self {
            shared,
            options,
            salt,
            buffer: Vec::new(),
            waiting: 0,
            first_arrival_ms: 0,
            next,
            active: None,
            next_number,
            headroom: Headroom::default(),
        }
    }

    /// Takes a record that arrived at `arrival_ms`, milliseconds since the Unix epoch, and returns its sequence, which is its own once it
    /// is committed.
    ///
    /// Copies the payload; touches no file, but asks for free space each 4 MiB and whenever the arrival has moved by a second.
    ///
    /// # Errors
    /// [`AppendError`] when it is not taken; what waits is as before.
    pub fn append(&mut self, arrival_ms: u64, payload: &[u8]) -> Result<u64, AppendError> {
        let (len, max) = (payload.len(), self.options.max_record);
        let sequence = self.next + self.waiting;
        let header = RecordHeader::new(sequence, arrival_ms, payload).filter(|header| header.len <= max);
        let header = header.ok_or(AppendError::TooLong { len, max })?;
        let (size, waiting) = (header.size() as u64, self.buffer.len() as u64);
        if SEGMENT_HEADER as u64 + waiting + size > self.options.segment_bytes {
            return Err(AppendError::Uncommitted { bytes: waiting });
        }
        let refused = self.refuse(arrival_ms, size);
        let mut state = self.shared.state();
        if let Some((health, error)) = refused {
            state.sums.health = health;
            return Err(error);
        }
        if matches!(state.sums.health, Health::Full | Health::NoSpace) {
            state.sums.health = Health::Accepting;
        }
        state.sums.appended += 1;
        state.sums.uncommitted += 1;
        state.sums.uncommitted_bytes += size;
        drop(state);
        self.first_arrival_ms = if self.waiting == 0 { arrival_ms } else { self.first_arrival_ms };
        self.buffer.extend_from_slice(&header.encode(self.salt));
        self.buffer.extend_from_slice(payload);
        self.waiting += 1;
        self.headroom.take(size);
        Ok(sequence)
    }

    /// Makes durable what waits, and shows it to the reader. Nothing waiting is no error.
    ///
    /// One write and one `fdatasync`; a new segment also syncs the directory.
    ///
    /// # Errors
    /// [`CommitError`], and everything still waits: commit again, or take it back.
    pub fn commit(&mut self) -> Result<Committed, CommitError> {
        if self.waiting == 0 {
            return Ok(Committed { through: self.next - 1, ..Committed::default() });
        }
        let (bytes, max) = (self.in_use(), self.options.max_bytes);
        if bytes > max {
            self.shared.state().sums.health = Health::Full;
            return Err(CommitError::Full { bytes, max });
        }
        if self.active.as_ref().is_some_and(|active| active.len + self.buffer.len() as u64 > self.options.segment_bytes)
        {
            self.seal(None);
        }
        let written = match self.active {
            Some(_) => self.extend(),
            None => self.start(),
        };
        match written {
            Ok(()) => Ok(self.publish()),
            Err((number, source)) => {
                let path = self.shared.dir.join(segment_name(number));
                let full = is_full(&source);
                self.shared.state().sums.health = if full { Health::NoSpace } else { Health::Failing };
                Err(if full { CommitError::NoSpace { path, source } } else { CommitError::Io { path, source } })
            }
        }
    }

    /// Takes back what waits, oldest first. Their sequences go to the records that come next.
    ///
    /// After a failed commit and a crash they may still come out of the spool, as may whatever was written and not synced.
    pub fn take_uncommitted(&mut self) -> Vec<Record> {
        let bytes = Bytes::from(mem::take(&mut self.buffer));
        let mut records = Vec::new();
        let (mut at, first) = (0, self.next);
        while let Some(header) = RecordHeader::parse(&bytes[at..], self.salt, first, u64::MAX, u64::MAX) {
            let end = at + header.size();
            let payload = bytes.slice(at + RECORD_HEADER..end);
            records.push(Record { sequence: header.sequence, arrival_ms: header.arrival_ms, payload });
            at = end;
        }
        let mut state = self.shared.state();
        state.sums.taken += mem::take(&mut self.waiting);
        (state.sums.uncommitted, state.sums.uncommitted_bytes) = (0, 0);
        records
    }

    /// Records that wait for their commit.
    pub fn uncommitted(&self) -> u64 {
        self.waiting
    }

    /// Bytes on disk that these will take.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// The numbers of this spool.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Why a record of `size` bytes on disk is not taken now.
    fn refuse(&mut self, arrival_ms: u64, size: u64) -> Option<(Health, AppendError)> {
        let (bytes, max, keep_free) = (self.in_use(), self.options.max_bytes, self.options.keep_free);
        if bytes + size > max {
            return Some((Health::Full, AppendError::Full { bytes, max }));
        }
        let (shared, waiting) = (&self.shared, self.buffer.len() as u64);
        let ask = || (shared.fs.space(&shared.dir).ok(), waiting, keep_free);
        let has_room = self.headroom.has_room(arrival_ms, size, ask);
        (!has_room).then_some((Health::NoSpace, AppendError::NoSpace { keep_free }))
    }

    /// Bytes on disk and waiting, with the header of the segment that these may need.
    fn in_use(&self) -> u64 {
        self.shared.state().bytes() + self.buffer.len() as u64 + SEGMENT_HEADER as u64
    }

    /// Writes what waits behind the last commit. On an error the segment is closed there.
    fn extend(&mut self) -> Result<(), (u64, io::Error)> {
        let Some(active) = &mut self.active else { return self.start() };
        let written = write_all(&*active.file, &self.buffer, active.len).and_then(|()| active.file.sync());
        match written {
            Ok(()) => active.len += self.buffer.len() as u64,
            Err(error) => {
                let number = active.header.number;
                let cut = active.file.truncate(active.len);
                let left = cut.map_or_else(|_| active.len + self.buffer.len() as u64, |()| active.len);
                self.seal(Some(left));
                return Err((number, error));
            }
        }
        Ok(())
    }

    /// Writes what waits to a new segment. On an error that is removed.
    fn start(&mut self) -> Result<(), (u64, io::Error)> {
        let header = SegmentHeader { number: self.next_number, first: self.next, salt: self.salt };
        let path = self.shared.dir.join(segment_name(header.number));
        self.next_number += 1;
        let (fs, size) = (&self.shared.fs, (SEGMENT_HEADER + self.buffer.len()) as u64);
        let file = fs.create(&path).map_err(|error| (header.number, error))?;
        let written = write_all(&*file, &header.encode(), 0)
            .and_then(|()| write_all(&*file, &self.buffer, SEGMENT_HEADER as u64))
            .and_then(|()| file.sync())
            .and_then(|()| fs.sync_dir(&self.shared.dir));
        let Err(error) = written else {
            self.active = Some(Active { header, file, len: size });
            return Ok(());
        };
        if fs.remove(&path).is_err() {
            // It stays in the list, with nothing to read, until it is deleted with those before it.
            let segment = Segment { header, refused: false, len: SEGMENT_HEADER as u64, size, limit: self.next };
            self.shared.state().segments.push_back(segment);
        }
        Err((header.number, error))
    }

    /// Ends the active segment. `size` is what it has on disk, when that is more than what is committed.
    fn seal(&mut self, size: Option<u64>) {
        let Some(active) = self.active.take() else { return };
        let mut state = self.shared.state();
        if let Some(segment) = state.segment_mut(active.header.number) {
            segment.limit = self.next;
            segment.size = size.unwrap_or(segment.size);
        }
    }

    /// Shows what was written to the reader.
    fn publish(&mut self) -> Committed {
        let (records, bytes) = (mem::take(&mut self.waiting), self.buffer.len() as u64);
        self.buffer.clear();
        self.next += records;
        let mut state = self.shared.state();
        if let Some(Active { header, len, .. }) = self.active {
            match state.segment_mut(header.number) {
                Some(segment) => (segment.len, segment.size) = (len, len),
                None => state.segments.push_back(Segment { header, refused: false, len, size: len, limit: u64::MAX }),
            }
        }
        if state.next - 1 == state.acked {
            state.sums.oldest_arrival_ms = Some(self.first_arrival_ms);
        }
        state.next = self.next;
        state.sums.committed += records;
        (state.sums.uncommitted, state.sums.uncommitted_bytes) = (0, 0);
        state.sums.health = Health::Accepting;
        Committed { records, bytes, through: self.next - 1 }
    }
}
