//! The cache over real sockets.

#[path = "log_cache/service.rs"]
mod service;
