//! What becomes of an envelope where metrics, or what a store takes, are made of it.

use proto::reason::Reason;

/// What became of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All or some of it is in a series, or will be in a request.
    Kept,
    /// It has nothing that is sent there.
    Ignored,
    /// It cannot be kept, and is counted.
    Dropped(Reason),
}
