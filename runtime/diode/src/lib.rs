//! The queues between stages: bounded, never block the writer, drop the oldest, count what they drop.
//!
//! - [`channel`] is the *diode*, for single items that are not per tenant: raw datagrams, pooled buffers. The writer gets back
//!   what it displaced.
//! - [`fair::channel`] is the *fair ring*, wherever envelopes may drop: it holds batches ([`fair::Load`]), is bounded in envelopes
//!   and in bytes kept alive, and takes what must go from the source that holds most.
//! - [`Batcher`] collects what leaves a queue until there is enough of it, or until it is old enough.
//!
//! *Invariants.* A writer never waits for a reader. Every item offered is, at every moment, exactly one of rejected, taken, evicted
//! and still queued. This crate knows nothing of protobuf, sockets or metrics: it hands out numbers, its callers publish them.
//!
//! The wake-up and the close of both queues are model-checked: build with `--cfg loom` and run the tests called `loom`.

#[cfg(not(loom))]
mod batch;
mod diode;
pub mod fair;
mod sync;

#[cfg(not(loom))]
pub use self::batch::{Batcher, Limits};
pub use self::diode::{Closed, Reader, TryRecvError, Writer, channel};
