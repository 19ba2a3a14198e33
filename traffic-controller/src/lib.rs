//! What consumers talk to: reverse log proxy, WebSocket firehose and app streams, log-cache REST.
//!
//! ```text
//!             ┌► a fair ring per consumer ─┬► reverse log proxy   gRPC loggregator.v2.Egress, :8084
//! dopplers ───┤                            └► firehose, apps      WebSocket, dropsonde v1 frames, :8081
//!             ├► reads, merged ─────────────► log cache           HTTP, :8083
//!             └► streams, merged ───────────► follow              gRPC hydrant.v1.Follow, :8084
//! ```
//!
//! What enters: requests of consumers, and the streams of every doppler that they ask for. What leaves: envelopes as the dopplers
//! sent them, with tags in the form that the consumer asked for; or v1 frames, made only for v1 consumers.
//!
//! *Invariants.* A consumer that does not read loses its own envelopes, counted, and holds up neither a doppler nor another
//! consumer. A doppler that is away is noticed by nobody but the log and the metrics. Every endpoint asks the one authorizer.

mod access_log;
mod admission;
mod auth;
mod config;
mod fan_in;
mod firehose;
mod follow;
mod gateway;
mod login;
mod metrics;
mod notices;
mod overview;
mod page;
mod pieces;
mod prometheus;
mod recent;
mod rlp;
mod server;
#[cfg(any(test, feature = "test-util"))]
mod test_issuer;
#[cfg(feature = "test-util")]
pub mod test_platform;
#[cfg(feature = "test-util")]
pub mod test_provider;
mod upstream;
mod websocket;

pub use auth::{
    AuthorizerConfig, AuthorizerError, JwksConfig, MAX_TOKEN_BYTES, Secret, ServiceConfig, ServiceError, ServiceTls,
    ServiceUrl, ServiceUrlError, TokensError, UaaConfig, new_token, token_sha256,
};
pub use config::{ADMIN_PORT, Config, GatewayConfig, GrpcConfig, HttpConfig, RestConfig, RingConfig, TailRingConfig};
pub use page::RoleInfo;
pub use server::{Addrs, BindError, CacheRest, Drained, Handle, LossLedger, ServeError, Server};
#[cfg(any(test, feature = "test-util"))]
pub use test_issuer::TestIssuer;
