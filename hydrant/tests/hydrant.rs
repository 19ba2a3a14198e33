//! The whole pipeline from end to end: in this process through the library, and as processes through the binary.
//!
//! No test sleeps: each awaits the line, the count or the end that it asserts.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

#[path = "hydrant/accounting.rs"]
mod accounting;
#[path = "hydrant/auth.rs"]
mod auth;
#[path = "hydrant/auth_matrix.rs"]
mod auth_matrix;
#[path = "hydrant/bad_input.rs"]
mod bad_input;
#[path = "hydrant/browser.rs"]
mod browser;
#[path = "hydrant/cache_cluster.rs"]
mod cache_cluster;
#[path = "hydrant/classic.rs"]
mod classic;
#[path = "hydrant/clients.rs"]
mod clients;
#[path = "hydrant/commands.rs"]
mod commands;
#[path = "hydrant/disk.rs"]
mod disk;
#[path = "hydrant/docs.rs"]
mod docs;
#[path = "hydrant/drains.rs"]
mod drains;
#[path = "hydrant/faults.rs"]
mod faults;
#[path = "hydrant/files.rs"]
mod files;
#[path = "hydrant/fleet.rs"]
mod fleet;
#[path = "hydrant/grafana.rs"]
mod grafana;
#[path = "hydrant/harness.rs"]
mod harness;
#[path = "hydrant/log_cache.rs"]
mod log_cache;
#[path = "hydrant/looking.rs"]
mod looking;
#[path = "hydrant/namespace.rs"]
mod namespace;
#[cfg(feature = "nats")]
#[path = "hydrant/nats.rs"]
mod nats;
#[path = "hydrant/overview.rs"]
mod overview;
#[path = "hydrant/page.rs"]
mod page;
#[path = "hydrant/peers.rs"]
mod peers;
#[path = "hydrant/prometheus.rs"]
mod prometheus;
#[path = "hydrant/query.rs"]
mod query;
#[path = "hydrant/reading.rs"]
mod reading;
#[path = "hydrant/secrets.rs"]
mod secrets;
#[path = "hydrant/shutdown.rs"]
mod shutdown;
#[path = "hydrant/tails.rs"]
mod tails;
#[path = "hydrant/terminal.rs"]
mod terminal;
#[path = "hydrant/tls.rs"]
mod tls;
#[path = "hydrant/websocket.rs"]
mod websocket;
