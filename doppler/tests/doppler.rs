//! The doppler over real sockets: what producers send, what consumers get, and that every envelope is accounted for.
//!
//! No test sleeps: each awaits the message, the status, the end or the number that it asserts.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

// Under the name that the rest of the workspace uses.
extern crate hydrant_doppler as doppler;

#[path = "doppler/accounting.rs"]
mod accounting;
#[path = "doppler/client.rs"]
mod client;
#[path = "doppler/cluster.rs"]
mod cluster;
#[path = "doppler/hostile.rs"]
mod hostile;
#[path = "doppler/ingress.rs"]
mod ingress;
#[path = "doppler/model.rs"]
mod model;
#[path = "doppler/past.rs"]
mod past;
#[path = "doppler/placement.rs"]
mod placement;
#[path = "doppler/router.rs"]
mod router;
#[path = "doppler/selectors.rs"]
mod selectors;
#[path = "doppler/stop.rs"]
mod stop;
#[path = "doppler/syslog.rs"]
mod syslog;
#[path = "doppler/tls.rs"]
mod tls;
#[path = "doppler/v1.rs"]
mod v1;
