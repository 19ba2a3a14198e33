//! The cache over real sockets.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

// Under the name that the rest of the workspace uses.
extern crate hydrant_log_cache as log_cache;

#[path = "log_cache/cluster.rs"]
mod cluster;
#[path = "log_cache/golden.rs"]
mod golden;
#[path = "log_cache/intake.rs"]
mod intake;
#[path = "log_cache/rsyslog.rs"]
mod rsyslog;
#[path = "log_cache/server.rs"]
mod server;
#[path = "log_cache/service.rs"]
mod service;
