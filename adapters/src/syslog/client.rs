//! One connection to a syslog receiver: opens, writes, and notices its end.
//!
//! Frames enter, bytes leave. Never retries, never drops: the caller decides what an [`End`] means for the lines written.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::datagrams::Datagrams;
use self::grpc::Grpc;
use self::http::Http;
pub use self::http::Refusal;
pub(crate) use self::http::{LONGEST_WAIT, retry_after};
use self::stream::Stream;
use super::config::{DrainUrl, Scheme};
use super::trust::Trust;
use super::window::{Frame, UNACKNOWLEDGED_FOR};
use crate::policy::AddressPolicy;

mod datagrams;
mod driven;
mod grpc;
mod http;
mod stream;

/// Before the first keepalive probe, and between probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The kernel's send buffer: what it holds must be part of what is kept to be sent again.
const SEND_BUFFER: usize = 256 * 1024;

/// For name look-up, connecting and the TLS handshake together, and for each line of a write.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub struct Link(Kind);

#[derive(Debug)]
enum Kind {
    Stream(Stream),
    Datagrams(Datagrams),
    Http(Http),
    Grpc(Box<Grpc>),
}

/// What a receiver answers to a request.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// What stands behind its body, over HTTP/2.
    pub trailers: Option<HeaderMap>,
    /// At most 64 KiB of its body; empty if over HTTP/1.1 it is longer, or does not come within a second.
    pub body: Bytes,
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// In the orderly way.
    Closed,
    /// Reset, or silent for too long: what was written may be lost.
    Broken(io::Error),
}

impl Link {
    /// Connects to the first address of the URL's host that answers, and over TLS shakes hands there with `trust`. Each gets an even
    /// share of the time that is left. No address of a receiver of datagrams answers: there `turn` picks one after the other. An address
    /// that `policy` denies is not dialled, whatever the name says now or said before.
    ///
    /// # Errors
    /// No address, or none that answered within [`DEADLINE`] and whose handshake succeeded. The text says what was wrong with the last;
    /// where all are denied, it is a [`Denied`](crate::policy::Denied).
    pub async fn open(
        url: &DrainUrl,
        mut trust: Option<&mut Trust>,
        turn: usize,
        policy: Option<&AddressPolicy>,
    ) -> io::Result<Self> {
        let deadline = Instant::now() + DEADLINE;
        let (host, port) = (url.address.host(), url.address.port());
        let found = timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
        let unknown = |error: io::Error| io::Error::new(error.kind(), format!("cannot look up {host}: {error}"));
        let mut found: Vec<SocketAddr> =
            found.map_err(|_| late(format!("looking up {host} took too long")))?.map_err(unknown)?.collect();
        if url.scheme == Scheme::SyslogUdp && !found.is_empty() {
            let turn = turn % found.len();
            found.rotate_left(turn);
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        if let Some(policy) = policy {
            found.retain(|addr| match policy.check(addr.ip()) {
                Ok(()) => true,
                Err(denied) => {
                    last = io::Error::new(io::ErrorKind::PermissionDenied, denied);
                    false
                }
            });
        }
        for (tried, addr) in found.iter().enumerate() {
            let begun = Instant::now();
            let left = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
            let share = begun + deadline.saturating_duration_since(begun) / left;
            let opened = match (url.scheme, trust.as_deref_mut()) {
                (Scheme::SyslogUdp, _) => Datagrams::open(*addr).map(Kind::Datagrams),
                (scheme, trust) if scheme.is_grpc() => {
                    Grpc::open(*addr, url, trust, share).await.map(|grpc| Kind::Grpc(Box::new(grpc)))
                }
                (scheme, trust) if scheme.is_http() => Http::open(*addr, url, trust, share).await.map(Kind::Http),
                (_, trust) => Stream::open(*addr, trust, share).await.map(Kind::Stream),
            };
            match opened {
                Ok(kind) => return Ok(Self(kind)),
                Err(error) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
            }
        }
        Err(last)
    }

    /// How long to wait after a write for the news that the receiver closed upon it: twice the way there, and some time to think.
    pub fn pause(&self) -> Duration {
        match &self.0 {
            Kind::Stream(stream) => stream.pause(),
            Kind::Datagrams(_) => datagrams::PAUSE,
            Kind::Http(_) => Duration::ZERO,
            Kind::Grpc(_) => Duration::ZERO,
        }
    }

    /// Looks whether the connection has ended, without waiting. Asks the kernel, not the runtime, which may not have heard yet.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&mut self) -> Result<(), End> {
        match &mut self.0 {
            Kind::Stream(stream) => stream.check(),
            Kind::Datagrams(datagrams) => datagrams.check(),
            Kind::Http(http) => http.check(),
            Kind::Grpc(grpc) => grpc.check(),
        }
    }

    /// Waits until the receiver closes or resets the connection, or says over TLS that it will, or its machine answers that nobody
    /// listens.
    ///
    /// # Cancel safety
    /// Nothing is lost: what the receiver says is thrown away in any case.
    pub async fn ended(&mut self) -> End {
        match &mut self.0 {
            Kind::Stream(stream) => stream.ended().await,
            Kind::Datagrams(datagrams) => datagrams.ended().await,
            Kind::Http(http) => http.ended().await,
            Kind::Grpc(grpc) => grpc.ended().await,
        }
    }

    /// Writes the first `count` frames. `written` tells at any time how many have been written in full.
    ///
    /// # Errors
    /// The connection is broken, or did not take a line within [`DEADLINE`]; or the receiver answers with a [`Refusal`], and the
    /// connection may be used again.
    ///
    /// # Cancel safety
    /// When cancelled, part of the frame after the first `written` may have been written: the connection must not be written to again.
    pub async fn write(&mut self, frames: &VecDeque<Frame>, count: usize, written: &mut usize) -> io::Result<()> {
        match &mut self.0 {
            Kind::Stream(stream) => stream.write(frames, count, written).await,
            Kind::Datagrams(datagrams) => datagrams.write(frames, count, written).await,
            Kind::Http(http) => http.write(frames, count, written).await,
            Kind::Grpc(_) => Err(io::Error::other("no lines go over this connection")),
        }
    }

    /// Sends one request over HTTP or gRPC, where the scheme is one of those, to a path and query.
    ///
    /// # Errors
    /// The connection is broken, or no answer came in time.
    pub async fn post(
        &mut self,
        target: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> io::Result<Answer> {
        match &mut self.0 {
            Kind::Http(http) => http.post(target, headers, body).await,
            Kind::Grpc(grpc) => grpc.call(target, headers, body).await,
            Kind::Stream(_) | Kind::Datagrams(_) => Err(io::Error::other("no requests go over this connection")),
        }
    }

    /// Whether the receiver answers what it is sent: then what is written is delivered.
    pub fn answers(&self) -> bool {
        !matches!(self.0, Kind::Stream(_) | Kind::Datagrams(_))
    }

    /// Closes our side and waits until the receiver has closed its own and acknowledged every byte: then it is [`End::Closed`]. Of
    /// datagrams nobody hears: they count as taken unless the receiver's machine answers that nobody listens.
    pub async fn settle(self, within: Duration) -> End {
        match self.0 {
            Kind::Stream(stream) => stream.settle(within).await,
            Kind::Datagrams(datagrams) => datagrams.settle(within).await,
            Kind::Http(http) => http.settle(),
            Kind::Grpc(_) => End::Closed,
        }
    }
}

fn late(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// A connection to this address, until `by`.
async fn connect(addr: SocketAddr, by: Instant) -> io::Result<TcpStream> {
    let connected = timeout_at(by, TcpStream::connect(addr)).await;
    let stream = connected.map_err(|_| late("no answer".to_owned()))??;
    set_options(&stream)?;
    Ok(stream)
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_FOR))?;
    Ok(())
}
