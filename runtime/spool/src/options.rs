//! What a spool may take.
//!
//! Numbers enter; numbers that fit each other leave. It never asks the file system.

use crate::format::{MAX_PAYLOAD, MAX_SEGMENT, RECORD_HEADER, SEGMENT_HEADER};

/// Limits of a spool. They hold for what is written; what an earlier process wrote under others is read all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of segment files on disk and of what waits for its commit. What is delivered counts until its segment is deleted.
    pub max_bytes: u64,
    /// Bytes of one segment file, and of what may wait for its commit. Space comes back in pieces of this size.
    pub segment_bytes: u64,
    /// Percent of the file system that stay free.
    pub keep_free: u8,
    /// Bytes of the longest payload, at most 64 MiB.
    pub max_record: u32,
    /// An acknowledgement writes the checkpoint when it is the last of so many records, or when it lets a segment go.
    pub checkpoint_records: u64,
}

/// Limits that do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// `max_record` is beyond what the format has.
    #[error("max_record of {0} bytes is more than {MAX_PAYLOAD}")]
    Record(u32),
    /// A segment does not hold the longest record, or is beyond what the format has.
    #[error("segment_bytes of {segment} is not between {least} and {MAX_SEGMENT}")]
    Segment {
        /// `segment_bytes`.
        segment: u64,
        /// What the longest record needs.
        least: u64,
    },
    /// Two segments do not fit: the one being written is never deleted, and must leave room for the next.
    #[error("max_bytes of {max} is less than two segments of {segment} bytes")]
    Spool {
        /// `max_bytes`.
        max: u64,
        /// `segment_bytes`.
        segment: u64,
    },
}

impl Default for Options {
    /// 256 MiB in segments of 16 MiB, 10 % kept free, records up to 1 MiB and 64 KiB, a checkpoint each 10 000 records.
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            segment_bytes: 16 << 20,
            keep_free: 10,
            max_record: (1 << 20) + (64 << 10),
            checkpoint_records: 10_000,
        }
    }
}

impl Options {
    /// The defaults for a spool of so many bytes: eight segments or more, and records that fit one.
    pub fn with_max_bytes(max_bytes: u64) -> Self {
        let defaults = Self::default();
        let segment_bytes = (max_bytes / 8).min(defaults.segment_bytes);
        let fits = segment_bytes.saturating_sub(OVERHEAD);
        let max_record = u32::try_from(fits).map_or(defaults.max_record, |fits| fits.min(defaults.max_record));
        Self { max_bytes, segment_bytes, max_record, ..defaults }
    }

    /// # Errors
    /// [`OptionsError`] when the limits do not fit each other.
    pub(crate) fn check(&self) -> Result<(), OptionsError> {
        let (max, segment) = (self.max_bytes, self.segment_bytes);
        let least = OVERHEAD + u64::from(self.max_record);
        if self.max_record > MAX_PAYLOAD {
            Err(OptionsError::Record(self.max_record))
        } else if !(least..=MAX_SEGMENT).contains(&segment) {
            Err(OptionsError::Segment { segment, least })
        } else if max / 2 < segment {
            Err(OptionsError::Spool { max, segment })
        } else {
            Ok(())
        }
    }
}

/// What a segment of one record has beside its payload.
const OVERHEAD: u64 = (SEGMENT_HEADER + RECORD_HEADER) as u64;
