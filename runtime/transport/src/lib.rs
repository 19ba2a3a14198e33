//! Bytes in and out of a process: TLS identity, bound sockets, gRPC channels, and stopping them.
//!
//! Sockets of hydrant come from here and from nowhere else. What enters: addresses and certificate files out of a
//! configuration. What leaves: bound [`Listener`]s and their [`Incoming`] connections, [`channel()`]s to peers, an HTTP
//! server for an [`axum::Router`], the presets every gRPC server shares, [`Access`] to its methods, and the [`Handle`]
//! that stops a server.
//!
//! *Invariants.* No peer can end an accept loop or make another peer wait: handshakes run in tasks of their own, under a
//! deadline and under the [`Budget`] of connections. Nothing here knows what an envelope is. Every task starts on the
//! `TaskTracker` that the caller hands in; only [`Handle::spawn`] starts a server's root task.

mod access;
mod backoff;
mod budget;
mod cert;
mod channel;
mod conn;
mod dopplers;
pub mod duration_text;
mod grpc;
mod guard;
mod handle;
mod http;
mod listen;
#[cfg(feature = "nats")]
pub mod nats;
mod reason;
#[cfg(feature = "test-util")]
mod test_certs;
mod throttle;
mod tls;

pub use access::{Access, AccessConfig, AccessError, Guarded, ServiceRoles};
pub use backoff::Backoff;
pub use budget::{Budget, nofile};
pub use cert::{NotACertificate, PeerCert, Role};
pub use channel::{ChannelOptions, ConnectError, LinkLimits, PeerTls, channel, connect};
pub use conn::{Conn, ConnInfo};
pub use dopplers::{Address, AddressError, Doppler, DopplerSet, Dopplers, DopplersError, Met, Stay};
pub use grpc::{GrpcLimits, MAX_MESSAGE_BYTES, server_builder};
pub use guard::{LocalOnly, Refusal, own_origin};
pub use handle::Handle;
pub use http::serve_http;
pub use listen::{BindError, Incoming, ListenStats, Listener, Refused, Security, bind};
pub use reason::reason;
#[cfg(feature = "test-util")]
pub use test_certs::TestCerts;
pub use throttle::Throttle;
pub use tls::{
    Authorities, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles, ClientTlsTexts, Credentials, Identity,
    ServerFiles, ServerIdentity, TlsError, TlsFiles, install_crypto_provider,
};
