//! The cache over real sockets.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

// Under the name that the rest of the workspace uses.
extern crate hydrant_log_cache as log_cache;

#[path = "log_cache/service.rs"]
mod service;
