//! A gRPC channel to one peer: TCP and TLS options, keepalive, deadlines.
//!
//! What enters: a peer's address and, for TLS, our credentials and the peer's name. What leaves: a tonic [`Channel`] that
//! connects when first used and again after a loss. It never retries a call and never waits between connects: the
//! caller does, with [`Backoff`](crate::Backoff).

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::dopplers::Address;
use crate::duration_text;
use crate::grpc::window;
use crate::tls::{Credentials, Identity, watched};

mod peer_io;

use peer_io::PeerIo;

/// How a channel connects and what it allows.
#[derive(Clone, Debug, Default)]
pub struct ChannelOptions {
    /// TLS with the peer's name to check; `None` speaks plain text.
    pub tls: Option<PeerTls>,
    /// Windows, keepalive and patience.
    pub limits: LinkLimits,
}

/// Limits of the connections that we open, each.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkLimits {
    /// For name look-up, TCP and TLS together; 5 s, as text such as `"5s"`.
    #[serde(with = "duration_text")]
    pub connect_timeout: Duration,
    /// Between pings, also while no stream is open; 15 s, as originals refuse pings less than 10 s apart.
    #[serde(with = "duration_text")]
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long closes the connection; 20 s.
    #[serde(with = "duration_text")]
    pub keepalive_timeout: Duration,
    /// Sent bytes that the peer leaves unacknowledged, or unread behind a closed window, for this long close the
    /// connection (`TCP_USER_TIMEOUT`); 5 s.
    #[serde(with = "duration_text")]
    pub unacknowledged_timeout: Duration,
    /// Bytes that the peer may send ahead on one stream; 1 MiB. Larger rides out longer pauses and holds more memory.
    #[serde(deserialize_with = "window")]
    pub stream_window_bytes: NonZeroU32,
    /// Bytes that the peer may send ahead on all streams together; 4 MiB.
    #[serde(deserialize_with = "window")]
    pub connection_window_bytes: NonZeroU32,
}

/// What we show to a peer, and the name that its certificate must carry.
#[derive(Clone, Debug)]
pub struct PeerTls {
    /// What we show, and the authorities we trust.
    pub credentials: Credentials,
    /// A DNS name or an IP address out of the peer's subject alternative names, such as `doppler`.
    pub server_name: ServerName<'static>,
}

impl Default for LinkLimits {
    fn default() -> Self {
        let some = |value| NonZeroU32::new(value).expect("not zero");
        Self {
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(15),
            keepalive_timeout: Duration::from_secs(20),
            unacknowledged_timeout: Duration::from_secs(5),
            stream_window_bytes: some(1024 * 1024),
            connection_window_bytes: some(4 * 1024 * 1024),
        }
    }
}

impl ChannelOptions {
    /// The defaults over TLS, to a peer whose certificate carries `server_name` (contract `loggregator-v2.md` §9.2:
    /// `doppler`, `metron`, `reverselogproxy`).
    ///
    /// # Panics
    ///
    /// `server_name` is neither a DNS name nor an address: it is written in our code, not configured.
    pub fn tls(identity: Identity, server_name: &'static str) -> Self {
        let server_name = ServerName::try_from(server_name).expect("a DNS name written in the code");
        Self { tls: Some(PeerTls { credentials: identity.into(), server_name }), ..Self::default() }
    }

    /// The same within `limits`.
    #[must_use]
    pub fn within(self, limits: &LinkLimits) -> Self {
        Self { limits: limits.clone(), ..self }
    }

    /// The same with a name that somebody typed; `None` when it is neither a DNS name nor an address.
    pub fn tls_to(credentials: impl Into<Credentials>, server_name: &str) -> Option<Self> {
        let server_name = ServerName::try_from(server_name.to_owned()).ok()?;
        Some(Self { tls: Some(PeerTls { credentials: credentials.into(), server_name }), ..Self::default() })
    }
}

/// A channel to `address` that connects when first used. Must be called within a tokio runtime.
///
/// A call on it fails `UNAVAILABLE` when the peer cannot be reached; the next call tries again.
pub fn channel(address: &Address, options: &ChannelOptions) -> Channel {
    let (endpoint, connector) = parts(address, options, None);
    endpoint.connect_with_connector_lazy(connector)
}

/// Why [`connect`] gave no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The peer could not be reached, or TLS found it or us at fault.
    #[error("{0}")]
    Connect(#[source] tonic::transport::Error),
    /// It was reached and then would not speak.
    #[error("{0}")]
    Ended(#[source] io::Error),
}

/// A channel to `address` that is connected, and on which the peer has spoken: one that does not take our certificate says so only after
/// the handshake. Later losses are repaired as with [`channel()`].
///
/// # Errors
///
/// The peer could not be reached within the connect timeout or said nothing for as long, or TLS found the peer or us at fault.
pub async fn connect(address: &Address, options: &ChannelOptions) -> Result<Channel, ConnectError> {
    let (heard, first) = oneshot::channel();
    let (endpoint, connector) = parts(address, options, Some(heard));
    let channel = endpoint.connect_with_connector(connector).await.map_err(ConnectError::Connect)?;
    let ended = |kind, what| ConnectError::Ended(io::Error::new(kind, format!("{address}: {what}")));
    match timeout(options.limits.connect_timeout, first).await {
        Ok(Ok(Ok(()))) => Ok(channel),
        Ok(Ok(Err(error))) => Err(ConnectError::Ended(error)),
        Ok(Err(_)) => Err(ended(io::ErrorKind::UnexpectedEof, "the connection ended before the server said anything")),
        Err(_) => Err(ended(io::ErrorKind::TimedOut, "the server took the connection and said nothing")),
    }
}

/// Told once, by the first connection: what the peer said first, or why it said nothing.
type Heard = oneshot::Sender<io::Result<()>>;

fn parts(address: &Address, options: &ChannelOptions, heard: Option<Heard>) -> (Endpoint, Connector) {
    let uri = |scheme: &str| -> Uri {
        format!("{scheme}://{address}").parse().expect("an Address holds nothing that a URI does not allow")
    };
    // The endpoint's scheme stays http: TLS is the connector's business, not tonic's. The origin is what peers see.
    let endpoint = Endpoint::from(uri("http"))
        .origin(uri(if options.tls.is_some() { "https" } else { "http" }))
        .http2_keep_alive_interval(options.limits.keepalive_interval)
        .keep_alive_timeout(options.limits.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(options.limits.stream_window_bytes.get())
        .initial_connection_window_size(options.limits.connection_window_bytes.get());
    let heard = Arc::new(Mutex::new(heard));
    (endpoint, Connector { address: address.clone(), options: options.clone(), heard })
}

/// Opens the connections of one channel.
#[derive(Clone)]
struct Connector {
    address: Address,
    options: ChannelOptions,
    heard: Arc<Mutex<Option<Heard>>>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<PeerIo>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

impl Connector {
    async fn connect(self) -> io::Result<PeerIo> {
        let deadline = Instant::now() + self.options.limits.connect_timeout;
        let late =
            |step: &str| io::Error::new(io::ErrorKind::TimedOut, format!("{}: {step} took too long", self.address));
        let target = (self.address.host(), self.address.port());
        let found = timeout_at(deadline, tokio::net::lookup_host(target)).await.map_err(|_| late("name look-up"))??;
        let socket = connect_any(&found.collect::<Vec<_>>(), deadline).await?;
        self.set_options(&socket)?;
        let heard = self.heard.lock().take();
        let Some(PeerTls { credentials, server_name }) = self.options.tls else {
            return Ok(PeerIo::plain(socket, self.address, heard));
        };
        let handshake = TlsConnector::from(credentials.client_config()).connect(server_name, socket);
        let (outcome, shown) = timeout_at(deadline, watched(handshake)).await.map_err(|_| late("TLS handshake"))?;
        match outcome {
            Ok(stream) => Ok(PeerIo::tls(stream, credentials, self.address, heard)),
            Err(error) => {
                let why = credentials.why_failed(&error, shown.as_ref());
                Err(io::Error::new(error.kind(), format!("{}: {why}", self.address)))
            }
        }
    }

    fn set_options(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        SockRef::from(socket).set_tcp_user_timeout(Some(self.options.limits.unacknowledged_timeout))?;
        Ok(())
    }
}

/// Tries the addresses in the resolver's order. Each gets an even share of the time that is left, so that one which
/// swallows packets leaves time for the next.
async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (tried, addr) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        match timeout_at(share, TcpStream::connect(addr)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{addr}: no answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_survive_a_round_trip_and_a_partial_table_keeps_the_rest() {
        let text = toml::to_string(&LinkLimits::default()).unwrap();
        assert_eq!(toml::from_str::<LinkLimits>(&text).unwrap(), LinkLimits::default());
        let partial: LinkLimits = toml::from_str("keepalive_interval = \"2m\"").unwrap();
        assert_eq!(partial, LinkLimits { keepalive_interval: Duration::from_secs(120), ..LinkLimits::default() });
        let error = toml::from_str::<LinkLimits>("stream_window_bytes = 4294967295").unwrap_err().to_string();
        assert!(error.contains("HTTP/2 allows 2147483647 at most"), "{error}");
        let error = toml::from_str::<LinkLimits>("keep_alive_interval = \"1s\"").unwrap_err().to_string();
        assert!(error.contains("keepalive_interval"), "{error}");
    }
}
