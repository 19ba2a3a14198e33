//! Opening a spool: makes it ready whatever its directory holds.
//!
//! A directory enters; the two ends and what was found leave. It reads the headers of all segments, and the records of the last segment
//! and of the one where delivery goes on. It never changes an old segment and never fails over what is in a file.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::{self, CheckpointState};
use crate::format::{self, Checkpoint, SEGMENT_HEADER, SegmentHeader};
use crate::fs::FileSystem;
use crate::options::{Options, OptionsError};
use crate::reader::{Place, Reader};
use crate::state::{Depth, Segment, Shared, State};
use crate::survey::{SegmentFile, Survey, survey};
use crate::walk::{Found, Walk};
use crate::writer::Writer;

pub(crate) const LOCK: &str = "lock";
/// The names of what is not a segment.
pub(crate) const OWN: [&str; 3] = [LOCK, checkpoint::NAME, checkpoint::TEMPORARY];

/// What was found at opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Everything up to and with this sequence is delivered.
    pub acked: u64,
    /// Records to deliver. Those that turn out to be damaged count, as `lost` ones do.
    pub records: u64,
    /// Bytes of segment files, without those deleted at opening because everything in them was delivered.
    pub bytes: u64,
    /// How many of `records` are known to be missing without reading everything. The reader counts them when it comes to them.
    pub lost: u64,
    /// Bytes behind the last record, in the segment written last: what was written and never committed, or a damaged end.
    pub torn: u64,
    /// Bytes of segment files with a damaged header: nothing in them can be read.
    pub unreadable: u64,
    /// Files that are not this spool's, or of another version of it. They are left alone.
    pub foreign: u64,
    /// What became of the checkpoint.
    pub checkpoint: CheckpointState,
}

/// A spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The limits do not fit each other.
    #[error("spool {dir}")]
    Options {
        /// The directory.
        dir: PathBuf,
        /// Which.
        source: OptionsError,
    },
    /// Another process, or another part of this one, has it open.
    #[error("spool {dir} is in use")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system does not let us in, or the disk does not tell where delivery was.
    #[error("cannot open spool {dir}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Opens the spool in `dir`, which is made when absent, mode 0700.
///
/// Delivery goes on behind the checkpoint, or without one at the oldest record. Takes one small read per segment file and a look through
/// two of them, however much waits. Whoever drops both ends lets the next one in.
///
/// # Errors
/// [`OpenError`], but never because of what is in a file. What a disk refuses to read is none of it, and may be there later.
pub fn open(fs: Arc<dyn FileSystem>, dir: &Path, options: Options) -> Result<(Writer, Reader, Recovered), OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    options.check().map_err(|source| OpenError::Options { dir: dir.to_owned(), source })?;
    fs.create_dir(dir).map_err(failed)?;
    let lock = fs.lock(&dir.join(LOCK)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { dir: dir.to_owned() },
        _ => failed(source),
    })?;
    let (checkpoint, checkpoint_state) = checkpoint::read(&*fs, dir).map_err(failed)?;
    let survey = survey(&*fs, dir, &OWN).map_err(failed)?;
    let end = find_end(&survey, checkpoint);
    if checkpoint.is_none() && readable(&survey).next().is_none() && survey.files.iter().any(|file| file.refused) {
        return Err(failed(io::Error::other("the disk refuses to say where its records begin")));
    }
    let oldest = find_oldest(&survey, end.next);
    let acked = checkpoint.map_or(oldest - 1, |checkpoint| checkpoint.acked);
    let start = find_start(&survey, acked + 1);

    let records = end.next - 1 - acked;
    let oldest_arrival_ms = start.arrival_ms.filter(|_| records > 0);
    let sums = Depth { recovered: records, oldest_arrival_ms, ..Depth::default() };
    let state = State::new(segments(&survey, end.next).into(), end.next, acked, sums);

    let salt = format::salt(fs.random());
    let shared = Shared::new(fs, dir.to_owned(), lock, state);
    // What was found may not be durable: whoever wrote it may have ended before its syncs. Nothing is deleted before one is.
    let written = checkpoint::write(&*shared.fs, dir, Checkpoint { acked, next: end.next });
    let durable = written.map_or(0, |()| acked);
    let mut reader = Reader::new(shared.clone(), options.clone(), acked, durable, start.place);
    reader.delete();
    let recovered = Recovered {
        acked,
        records,
        bytes: shared.state().bytes(),
        lost: (oldest.saturating_sub(acked + 1) + end.lost).min(records),
        torn: end.torn,
        unreadable: survey.files.iter().filter(|file| file.header.is_none()).map(|file| file.size).sum(),
        foreign: survey.foreign,
        checkpoint: checkpoint_state,
    };
    let writer = Writer::new(shared, options, salt, end.next, survey.highest + 1);
    Ok((writer, reader, recovered))
}

/// Where the records end.
struct End {
    /// The sequence after the last one.
    next: u64,
    /// Records that the checkpoint knows of and no segment has.
    lost: u64,
    torn: u64,
}

/// Where delivery goes on.
struct Start {
    place: Place,
    arrival_ms: Option<u64>,
}

/// Looks through the last segment, and makes durable what is there: the reader will show it.
fn find_end(survey: &Survey, checkpoint: Option<Checkpoint>) -> End {
    let known = checkpoint.map_or(1, |checkpoint| checkpoint.next);
    let end = |next: u64, torn| End { next: next.max(known), lost: known.saturating_sub(next), torn };
    let last = readable(survey).next_back();
    // What a disk refuses now it may give later: no new record takes the sequence of one that may be there.
    let behind =
        survey.files.iter().filter(|file| file.refused && last.is_none_or(|(last, _)| file.number > last.number));
    let refused: u64 = behind.map(|file| file.size / format::RECORD_HEADER as u64).sum();
    let Some((file, header)) = last else { return end(known + refused, 0) };
    let (mut next, mut whole) = (header.first, SEGMENT_HEADER as u64);
    let mut walk = Walk::new(&header, file.limit, file.size);
    let mut at = walk.offset;
    let unreadable = walk.file(&*file.file, |found| {
        match found {
            Found::Record(header, payload) => {
                next = header.sequence + 1;
                at += (format::RECORD_HEADER + payload.len()) as u64;
                whole = at;
            }
            Found::Damaged(range) => at += range.end - range.start,
        }
        ControlFlow::Continue(())
    });
    next += unreadable.div_ceil(format::RECORD_HEADER as u64) + refused;
    // An error leaves it as it is: nothing was promised of what was not synced before.
    let _ = file.file.sync();
    end(next, file.size.saturating_sub(whole))
}

/// The sequence of the oldest record, or one below it, when the one after the last is `next`.
fn find_oldest(survey: &Survey, next: u64) -> u64 {
    let known = readable(survey).next().map(|(file, header)| (file.number, header.first));
    let (number, first) = known.unwrap_or((u64::MAX, next));
    let refused = survey.files.iter().filter(|file| file.refused && file.number < number);
    let records: u64 = refused.map(|file| file.size / format::RECORD_HEADER as u64).sum();
    first.saturating_sub(records).max(1)
}

/// Looks for the record with sequence `wanted`, or the first behind it.
fn find_start(survey: &Survey, wanted: u64) -> Start {
    let found = readable(survey).rfind(|(_, header)| header.first <= wanted);
    let Some((file, header)) =
        found.or_else(|| readable(survey).next()).filter(|_| !survey.files.iter().any(|f| f.refused))
    else {
        return Start { place: Place { number: 0, offset: 0 }, arrival_ms: None };
    };
    let mut walk = Walk::new(&header, file.limit, file.size);
    let (mut at, mut arrival_ms) = (walk.offset, None);
    let unreadable = walk.file(&*file.file, |found| match found {
        Found::Record(header, _) if header.sequence >= wanted => {
            arrival_ms = Some(header.arrival_ms);
            ControlFlow::Break(())
        }
        Found::Record(_, payload) => {
            at += (format::RECORD_HEADER + payload.len()) as u64;
            ControlFlow::Continue(())
        }
        Found::Damaged(range) => {
            at += range.end - range.start;
            ControlFlow::Continue(())
        }
    });
    // The reader looks again at what is refused now.
    let offset = if unreadable > 0 { 0 } else { at };
    Start { place: Place { number: header.number, offset }, arrival_ms }
}

fn readable(survey: &Survey) -> impl DoubleEndedIterator<Item = (&SegmentFile, SegmentHeader)> {
    survey.files.iter().filter_map(|file| file.header.map(|header| (file, header)))
}

/// The segments as the two ends see them, when the next record is `next`. One without a header is empty, and goes when those before it go.
fn segments(survey: &Survey, next: u64) -> Vec<Segment> {
    let segment = |file: &SegmentFile| {
        let limit = file.limit.min(next);
        let empty = SegmentHeader { number: file.number, first: limit, salt: 0 };
        let len = if file.header.is_some() || file.refused { file.size } else { SEGMENT_HEADER as u64 };
        Segment { header: file.header.unwrap_or(empty), refused: file.refused, len, size: file.size, limit }
    };
    survey.files.iter().map(segment).collect()
}
