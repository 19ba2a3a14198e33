//! The one binary, and as a library the whole pipeline in one process ([`up`](mod@up)).
//!
//! *Invariant*: only this crate reads files, the environment and signals, and prints.

mod cache_node;
mod certs;
mod classic;
pub mod cli;
mod client;
mod completions;
pub mod config;
mod drain;
mod emit;
mod explain_loss;
mod filter;
mod firehose;
mod ledger;
mod overview;
mod query;
pub mod render;
mod role;
pub mod self_source;
pub mod signal;
mod sources;
mod state;
mod status;
mod table;
mod tail;
mod token;
mod top;
mod units;
pub mod up;

pub use cache_node::LogCacheConfig;
pub use classic::SelfMetricsConfig;
pub use config::Config;
pub use up::{Up, up};
