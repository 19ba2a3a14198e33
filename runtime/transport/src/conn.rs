//! One accepted connection, plain or TLS, as the gRPC and HTTP servers read it.
//!
//! What enters is an accepted socket after its handshake; what leaves is an `AsyncRead + AsyncWrite` that knows both of
//! its addresses and the client's certificate, and holds its place in the [`Budget`](crate::Budget) until it is dropped.
//! Adds no buffer and no copy.
//!
//! A socket that is closed while its peer still writes answers with a reset, and a peer whose write fails may give up what it has not read
//! yet: the last acknowledgements, the reason for the end. So after the last byte of ours, what still comes is read and forgotten until the
//! peer has closed too, for [`LINGER`] at most.
//!
//! Some gRPC clients also give up what they have received and not read yet when they see our end of the connection, and a client that has
//! been told to go closes by itself once it is through. So at a stop a gRPC connection is not closed from here before its peer has closed,
//! or [`LEAVE`] has passed.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::budget::Slot;
use crate::cert::PeerCert;
use crate::listen::ListenStats;

/// How long a peer has for closing its side after ours: some round trips to another zone.
const LINGER: Duration = Duration::from_millis(500);
/// How long a gRPC client has at a stop for reading what it has been sent.
const LEAVE: Duration = Duration::from_secs(5);

/// An accepted connection, ready for a server to speak on.
#[derive(Debug)]
pub struct Conn {
    io: Io,
    info: ConnInfo,
    closing: Closing,
    /// At its stop a gRPC server lets its clients close first.
    clients_first: bool,
    open: Open,
}

/// How far a connection is with its end.
#[derive(Debug)]
enum Closing {
    /// Nobody has asked for it.
    No,
    /// Our side is open: until when the peer is waited for.
    Leaving(Pin<Box<Sleep>>),
    /// Our side is being closed.
    Ours,
    /// Our side is closed: until when the peer is waited for.
    Lingering(Pin<Box<Sleep>>),
}

/// Who is at the other end. A gRPC service finds it in `Request::extensions`, an axum handler in its request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// The address that the peer connected to.
    pub local_addr: SocketAddr,
    /// The peer's address.
    pub remote_addr: SocketAddr,
    /// The certificate that the peer showed, verified against our authorities; `None` on plain and HTTPS listeners.
    pub peer: Option<Arc<PeerCert>>,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What an open connection holds: it counts from accept to drop.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) slot: Slot,
    pub(crate) stats: Arc<ListenStats>,
    /// Of its listener.
    pub(crate) stop: CancellationToken,
}

impl Conn {
    pub(crate) fn plain(socket: TcpStream, info: ConnInfo, open: Open) -> Self {
        Self { io: Io::Plain(socket), info, closing: Closing::No, clients_first: false, open }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, mut info: ConnInfo, mut open: Open) -> Self {
        info.tls = true;
        // A verified certificate that cannot be read has no name and no role.
        if let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            open.slot.peer_is_known();
            info.peer = PeerCert::parse(certificate).ok().map(Arc::new);
        }
        Self { io: Io::Tls(Box::new(stream)), info, closing: Closing::No, clients_first: false, open }
    }

    /// The same for a gRPC server.
    pub(crate) fn for_grpc(self) -> Self {
        Self { clients_first: true, ..self }
    }

    /// Who is at the other end.
    pub fn info(&self) -> &ConnInfo {
        &self.info
    }

    /// Whether the handshake agreed on HTTP/2. A plain connection agreed on nothing.
    pub(crate) fn negotiated_h2(&self) -> bool {
        match &self.io {
            Io::Plain(_) => false,
            Io::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl Io {
    /// Closes our side.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Reads and forgets what comes until the peer has closed, or `until` has passed; whether it has closed.
    fn poll_closed(&mut self, until: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> Poll<bool> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        };
        let mut scratch = [0; 4096];
        while until.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *socket).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                return Poll::Ready(true);
            }
        }
        Poll::Ready(false)
    }
}

impl Connected for Conn {
    type ConnectInfo = ConnInfo;

    fn connect_info(&self) -> ConnInfo {
        self.info.clone()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stats.closed(std::thread::panicking());
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            match &mut this.closing {
                Closing::No if this.clients_first && this.open.stop.is_cancelled() => {
                    ready!(Pin::new(&mut *this).poll_flush(cx))?;
                    this.closing = Closing::Leaving(Box::pin(sleep(LEAVE)));
                }
                Closing::No => this.closing = Closing::Ours,
                Closing::Leaving(until) => match ready!(this.io.poll_closed(until, cx)) {
                    true => return Poll::Ready(Ok(())),
                    false => this.closing = Closing::Ours,
                },
                Closing::Ours => {
                    ready!(this.io.poll_shutdown(cx))?;
                    this.closing = Closing::Lingering(Box::pin(sleep(LINGER)));
                }
                Closing::Lingering(until) => return this.io.poll_closed(until, cx).map(|_| Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(socket) => socket.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
