//! Recent envelopes in memory per source, under a memory budget, and the services that read them.
//!
//! What enters: checked batches ([`Store::put`]), from the doppler that hosts the store or over `logcache.v1.Ingress`. What leaves:
//! reads by time ([`Store::read`]), summaries ([`Store::meta`]), following by arrival ([`Store::follow`]), in process or through the
//! gRPC services of [`routes`], and what arrived in a range, once ([`Store::replay`]).
//!
//! *Invariants.* No more than the budget is held, measured in what is really allocated. What is evicted is decided by arrival, never by
//! a sender's timestamp, and no source can take what stands under another's floor. Nothing is lost uncounted. A reader never makes a
//! writer wait for longer than a copy of one open segment.

mod cluster;
mod config;
mod filter;
mod follow;
mod intake;
mod labels;
mod message;
mod metrics;
mod node;
#[cfg(test)]
mod noise;
mod opened;
mod packed;
mod prune;
pub mod querier;
mod read;
mod replay;
mod samples;
mod seal;
mod sealed;
mod segment;
mod select;
mod server;
mod service;
pub mod snapshot;
mod source;
mod store;
mod text;

pub use cluster::{ClusterConfig, ClusterError, Links, Placement, RunningLinks};
pub use config::Config;
pub use filter::PatternError;
pub use follow::{Cursor, FollowError, FollowSpec, Follower, Frame, Gap, MAX_FOLLOWED};
pub use intake::{Framing, Intake, IntakeError, SyslogConfig, SyslogKeys, SyslogTls};
pub use metrics::Metrics;
pub use node::Node;
pub use read::{DEFAULT_LIMIT, MAX_ANSWER, MAX_LIMIT, Page, Read, ReadError};
pub use replay::{Piece, Range, Replay};
pub use samples::SamplesService;
pub use select::{Select, SelectError, SelectLimits, Selected};
pub use server::{
    ADMIN_PORT, Addrs, BindError, Drained, FLUSH_TIMEOUT, Handle, NodeConfig, NodeGrpcConfig, ServeError, Server,
};
pub use service::{Service, Services, routes};
pub use store::{Numbers, SourceMeta, Store};
