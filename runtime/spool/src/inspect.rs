//! A look at a spool from outside, also while a process has it open.
//!
//! A directory enters; a report leaves. It reads every record, takes no lock and changes nothing. What a process writes meanwhile shows
//! as it is met: a record half written is a torn tail.

use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, CheckpointState};
use crate::format::SEGMENT_HEADER;
use crate::fs::FileSystem;
use crate::open::OWN;
use crate::survey::{SegmentFile, survey};
use crate::walk::{Found, Walk};

/// What a spool holds. Its `Display` is a few lines for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The directory.
    pub dir: PathBuf,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Whether there is a checkpoint.
    pub checkpoint: CheckpointState,
    /// Everything up to and with this sequence is delivered, as far as the checkpoint knows.
    pub acked: u64,
    /// Records that wait.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Records missing between those that wait.
    pub lost: u64,
    /// Arrival of the oldest record that waits, in milliseconds since the Unix epoch.
    pub oldest_arrival_ms: Option<u64>,
    /// Arrival of the newest.
    pub newest_arrival_ms: Option<u64>,
    /// Files that are not the spool's, or are of another version of it.
    pub foreign: u64,
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The number in its name.
    pub number: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// False when its header is damaged, and nothing in it can be read.
    pub readable: bool,
    /// Sequence of the first record found.
    pub first: Option<u64>,
    /// Sequence of the last.
    pub last: Option<u64>,
    /// Records found, delivered or not.
    pub records: u64,
    /// Ranges of the file, in bytes, that hold no record, though records come behind.
    pub damaged: Vec<Range<u64>>,
    /// Bytes behind the last record.
    pub torn: u64,
}

/// A spool cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot look into spool {dir}")]
pub struct InspectError {
    /// The directory.
    pub dir: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// Looks at the spool in `dir`. Reads all of it.
///
/// # Errors
/// [`InspectError`] when the directory or a file in it cannot be opened.
pub fn inspect(fs: &dyn FileSystem, dir: &Path) -> Result<Report, InspectError> {
    let failed = |source| InspectError { dir: dir.to_owned(), source };
    let (checkpoint, state) = checkpoint::read(fs, dir).map_err(failed)?;
    let survey = survey(fs, dir, &OWN).map_err(failed)?;
    let oldest = survey.files.iter().find_map(|file| file.header).map_or(1, |header| header.first);
    let acked = checkpoint.map_or(oldest - 1, |checkpoint| checkpoint.acked);
    let mut report = Report {
        dir: dir.to_owned(),
        segments: Vec::new(),
        checkpoint: state,
        acked,
        records: 0,
        payload_bytes: 0,
        lost: 0,
        oldest_arrival_ms: None,
        newest_arrival_ms: None,
        foreign: survey.foreign,
    };
    let mut expected = acked + 1;
    for file in &survey.files {
        let segment = report.look(file, &mut expected);
        report.segments.push(segment);
    }
    report.lost += checkpoint.map_or(0, |checkpoint| checkpoint.next.saturating_sub(expected));
    Ok(report)
}

impl Report {
    /// Walks through a segment and adds what waits in it; `expected` is the sequence that comes next.
    fn look(&mut self, file: &SegmentFile, expected: &mut u64) -> SegmentReport {
        let mut found = SegmentReport {
            number: file.number,
            bytes: file.size,
            readable: file.header.is_some(),
            first: None,
            last: None,
            records: 0,
            damaged: Vec::new(),
            torn: 0,
        };
        let Some(header) = file.header else { return found };
        // Damage that no record has come behind yet.
        let mut open: Option<Range<u64>> = None;
        let mut walk = Walk::new(&header, file.limit, file.size);
        walk.file(&*file.file, |what| {
            match what {
                Found::Damaged(range) => match &mut open {
                    Some(open) => open.end = range.end,
                    None => open = Some(range),
                },
                Found::Record(header, payload) => {
                    found.damaged.extend(open.take());
                    found.first.get_or_insert(header.sequence);
                    found.last = Some(header.sequence);
                    found.records += 1;
                    if header.sequence >= *expected {
                        self.lost += header.sequence - *expected;
                        *expected = header.sequence + 1;
                        self.records += 1;
                        self.payload_bytes += payload.len() as u64;
                        self.oldest_arrival_ms.get_or_insert(header.arrival_ms);
                        self.newest_arrival_ms = Some(header.arrival_ms);
                    }
                }
            }
            ControlFlow::Continue(())
        });
        found.torn = match open {
            Some(open) => file.size.saturating_sub(open.start),
            None => file.size.saturating_sub(walk.offset.max(SEGMENT_HEADER as u64)),
        };
        found
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checkpoint = match self.checkpoint {
            CheckpointState::Used => "",
            CheckpointState::Missing => " (no checkpoint)",
            CheckpointState::Unusable => " (checkpoint damaged)",
        };
        let total: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        let (dir, segments) = (self.dir.display(), counted(self.segments.len() as u64, "segment"));
        writeln!(f, "{dir}: {segments}, {total} bytes on disk")?;
        writeln!(f, "delivered through {}{checkpoint}", self.acked)?;
        write!(f, "waiting: {}, {} bytes", counted(self.records, "record"), self.payload_bytes)?;
        if let (Some(oldest), Some(newest)) = (self.oldest_arrival_ms, self.newest_arrival_ms) {
            write!(f, ", arrived from {oldest} to {newest} ms")?;
        }
        writeln!(f, "; lost: {}; foreign files: {}", self.lost, self.foreign)?;
        for segment in &self.segments {
            writeln!(f, "{segment}")?;
        }
        Ok(())
    }
}

/// `1 record`, `2 records`.
fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for SegmentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}: {} bytes, ", self.number, self.bytes)?;
        match (self.first, self.last) {
            _ if !self.readable => write!(f, "header damaged")?,
            (Some(first), Some(last)) => write!(f, "{}, {first} to {last}", counted(self.records, "record"))?,
            _ => write!(f, "no records")?,
        }
        for range in &self.damaged {
            write!(f, ", damaged {}..{}", range.start, range.end)?;
        }
        if self.torn > 0 {
            write!(f, ", torn {}", self.torn)?;
        }
        Ok(())
    }
}
