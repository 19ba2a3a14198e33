//! Recent envelopes in memory per source, under a memory budget, and the services that read them.
//!
//! What enters: checked batches ([`Store::put`]), from the doppler that hosts the store or over `logcache.v1.Ingress`. What leaves:
//! reads by time ([`Store::read`]), summaries ([`Store::meta`]), following by arrival ([`Store::follow`]), in process or through the
//! gRPC services of [`routes`], and what arrived in a range, once ([`Store::replay`]).
//!
//! *Invariants.* No more than the budget is held, measured in what is really allocated. What is evicted is decided by arrival, never by
//! a sender's timestamp, and no source can take what stands under another's floor. Nothing is lost uncounted. A reader never makes a
//! writer wait for longer than a copy of one open segment.

mod config;
mod filter;
mod follow;
mod labels;
mod message;
mod metrics;
#[cfg(test)]
mod noise;
mod opened;
mod packed;
mod prune;
mod read;
mod replay;
mod samples;
mod seal;
mod sealed;
mod segment;
mod select;
mod service;
pub mod snapshot;
mod source;
mod store;
mod text;

pub use config::Config;
pub use filter::PatternError;
pub use follow::{Cursor, FollowError, FollowSpec, Follower, Frame, Gap, MAX_FOLLOWED};
pub use metrics::Metrics;
pub use read::{DEFAULT_LIMIT, MAX_ANSWER, MAX_LIMIT, Page, Read, ReadError};
pub use replay::{Piece, Range, Replay};
pub use samples::SamplesService;
pub use select::{Select, SelectError, SelectLimits, Selected};
pub use service::{Service, Services, routes};
pub use store::{Numbers, SourceMeta, Store};
