//! Envelopes as Prometheus series: scraped from a page, or written to a remote store.
//!
//! ```text
//! envelopes ──► series::Store ──► exposition::Page ──► serve ──► whoever scrapes
//!                    │ each update, each end of a series
//!                    └──────────► remote_write::Queue ──► bodies of requests, one shard each
//! ```
//!
//! Counters, gauges and timers enter, encoded; logs and events are passed over and counted. Names follow [`names::Naming`] (contract:
//! syslog drains §8.1), requests remote-write 1.0 (§8.2). All but [`serve`] is pure: no clock, no socket, no log line; `now` is an
//! argument, in nanoseconds since the Unix epoch as in `Envelope.timestamp`.

mod config;
pub mod exposition;
pub mod labels;
pub mod names;
pub mod remote_write;
pub mod series;
pub mod serve;

pub use config::{MetricsConfig, NamingConfig};
