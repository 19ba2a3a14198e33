//! Batches and envelopes as bytes: what arrives on a socket becomes a [`Batch`], what leaves is made of [`Selection`]s of batches.
//!
//! The walker ([`Batch::index`], [`Batch::check`]) scans tags and lengths only; no envelope is decoded, copied or allocated for.
//! It reads what protobuf readers read: the last scalar wins, the last map key wins, the last member of a oneof wins, sub-messages
//! of the same member merge. An envelope that passes [`Batch::check`] decodes with prost, and the other way round, limits apart and
//! but for a map field that is not length-delimited, which prost takes and other readers do not: it is refused.
//!
//! *Invariant*: bytes are passed on as they came. What a hop adds is appended ([`edit`]), so unknown fields survive.

mod batch;
mod check;
pub mod edit;
pub mod fuzz;
pub mod limits;
mod names;
mod outgoing;
mod selection;
pub mod tags;
#[cfg(test)]
mod tests;
mod walk;
pub mod wire;

pub use batch::{Batch, Entry, Kind, source_hash};
pub use limits::{Limits, Refused};
pub use names::{counter_name, gauge_names, timer_name};
pub use outgoing::{Outgoing, OutgoingFrame, OutgoingSubscribeFrame};
pub use selection::Selection;
pub use wire::Malformed;
