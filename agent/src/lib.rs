//! The first hop on every machine. Envelopes enter from the machine's sources; they leave tagged, in batches, for a doppler.
//!
//! ```text
//! ingress (gRPC, statsd, files, NATS, in-process) ─► tag, aggregate ─► a fair ring ─► egress (a link per doppler)
//! ```
//!
//! *Invariant*: no source waits for a doppler unless it asked to (the acknowledged stream); what does not fit into the ring is lost to
//! the source that holds most of it, and counted.

mod aggregate;
mod cgroup;
mod choice;
mod config;
pub mod dropsonde;
mod egress;
pub mod files;
pub mod forward;
mod gather;
pub mod host;
mod ingress;
mod lane;
mod limits;
mod link;
mod metrics;
mod nats;
mod parcel;
mod pod;
pub mod scrape;
mod server;
mod sources;
pub mod statsd;
pub mod syslog;
mod tag;

pub use cgroup::{ContainersConfig, Pattern, PatternError};
pub use config::{Config, EgressConfig, GrpcConfig, TagsConfig};
pub use dropsonde::DropsondeConfig;
pub use gather::{Draft, Gather, Tags};
pub use host::{HostConfig, HostDisks};
pub use ingress::files::StoreError;
#[cfg(feature = "nats")]
pub use ingress::nats::SourceError;
pub use ingress::{Local, ScrapeError, StatsdError, SyslogError, TargetError, UnixSocketError};
pub use limits::{LimitsConfig, LimitsConfigError, Rate, SourceLimits, SourceOverride};
pub use nats::config::{From as NatsFrom, KindName, NatsConfig, NatsConfigError, NatsTls, NatsUrl, NatsUrlError};
pub use server::{Addrs, BindError, Drained, Handle, ServeError, Server};
pub use statsd::StatsdConfig;
