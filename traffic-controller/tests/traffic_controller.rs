//! The traffic controller over real sockets, between dopplers made for the test and the clients that people use.
//!
//! No test sleeps: each awaits the frame, the status or the end that it asserts.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

// Under the name that the rest of the workspace uses.
extern crate hydrant_traffic_controller as traffic_controller;

#[path = "traffic_controller/auth.rs"]
mod auth;
#[path = "traffic_controller/cache.rs"]
mod cache;
#[path = "traffic_controller/doppler.rs"]
mod doppler;
#[path = "traffic_controller/fan_in.rs"]
mod fan_in;
#[path = "traffic_controller/firehose.rs"]
mod firehose;
#[path = "traffic_controller/follow.rs"]
mod follow;
#[path = "traffic_controller/gateway.rs"]
mod gateway;
#[path = "traffic_controller/http.rs"]
mod http;
#[path = "traffic_controller/jwks.rs"]
mod jwks;
#[path = "traffic_controller/past.rs"]
mod past;
#[path = "traffic_controller/prometheus.rs"]
mod prometheus;
#[path = "traffic_controller/recent.rs"]
mod recent;
#[path = "traffic_controller/rlp.rs"]
mod rlp;
#[path = "traffic_controller/server.rs"]
mod server;
#[path = "traffic_controller/uaa.rs"]
mod uaa;
#[path = "traffic_controller/uaa_bounds.rs"]
mod uaa_bounds;
#[path = "traffic_controller/uaa_names.rs"]
mod uaa_names;
