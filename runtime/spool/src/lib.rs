//! The disk buffer of a drain: a durable queue of encoded envelopes in append-only segment files.
//!
//! Stage: between a drain's ring and its link, when the drain is in disk mode. Payloads enter with the time of their arrival
//! ([`Writer`]); they leave in the same order ([`Reader`]), after a restart too. What is in one is bounded in bytes.
//!
//! - [`open`] makes a directory a spool, whatever is in it, and gives its two ends.
//! - [`Writer::append`] takes a record, [`Writer::commit`] makes durable what was taken. *Accepted* means committed.
//! - [`Reader::read`] gives committed records, [`Reader::ack`] says that they are dealt with. After a restart delivery goes on behind the
//!   last durable checkpoint: what was acknowledged since comes again.
//! - [`inspect`] looks at a spool from outside; [`remove`] deletes it.
//!
//! *Invariants.* A committed record comes out once, or again, until a durable checkpoint is past it; it is never reordered, changed, or
//! thrown away for a newer one. One that the disk has damaged or lost is counted, exactly, by the gap in the sequences. Nothing that is
//! in a file keeps a spool from opening. This crate has no clock, no thread and no metrics: every call blocks on the disk, except those
//! of [`Stats`], and belongs on a thread that may.
//!
//! # What counts as lost
//! Sequences are consecutive over the whole spool, so a gap between two records says how many are missing. One end is open: when the
//! bytes behind the last record of all are no record, they may have been written and never committed, or committed and damaged. They are
//! reported as torn ([`Recovered::torn`]) and their sequences used again, except for those that the checkpoint knows to be committed.
//! The other way round, a power loss amid a commit may leave a hole before a record that survived: that hole counts as lost though its
//! records were never accepted.

mod checkpoint;
mod format;
pub mod fs;
#[cfg(any(test, feature = "test-util"))]
pub mod fuzz;
mod inspect;
mod open;
mod options;
mod reader;
mod remove;
mod state;
mod survey;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

pub use self::checkpoint::{CheckpointError, CheckpointState};
pub use self::inspect::{InspectError, Report, SegmentReport, inspect};
pub use self::open::{OpenError, Recovered, open};
pub use self::options::{Options, OptionsError};
pub use self::reader::{Batch, ReadError, Reader, Record};
pub use self::remove::{RemoveError, remove};
pub use self::state::{Depth, Health, Stats};
pub use self::writer::{AppendError, CommitError, Committed, Writer};
