//! One accepted connection, plain or TLS, as the gRPC and HTTP servers read it.
//!
//! What enters is an accepted socket after its handshake; what leaves is an `AsyncRead + AsyncWrite` that knows both of
//! its addresses and the client's certificate, and holds its place in the [`Budget`](crate::Budget) until it is dropped.
//! Adds no buffer and no copy.
//!
//! A socket that is closed while its peer still writes answers with a reset, and a peer whose write fails may give up what it has not read
//! yet: the last acknowledgements, the reason for the end. So after the last byte of ours, what still comes is read and forgotten until the
//! peer has closed too, for [`LINGER`] at most.

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
use tonic::transport::server::Connected;

use crate::budget::Slot;
use crate::cert::PeerCert;
use crate::listen::ListenStats;

/// How long a peer has for closing its side after ours: some round trips to another zone.
const LINGER: Duration = Duration::from_millis(500);

/// An accepted connection, ready for a server to speak on.
#[derive(Debug)]
pub struct Conn {
    io: Io,
    info: ConnInfo,
    /// Since our side was closed: until when the peer's is waited for.
    linger: Option<Pin<Box<Sleep>>>,
    _open: Open,
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

/// Counts the connection as open, from accept to drop.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) slot: Slot,
    pub(crate) stats: Arc<ListenStats>,
}

impl Conn {
    pub(crate) fn plain(socket: TcpStream, info: ConnInfo, open: Open) -> Self {
        Self { io: Io::Plain(socket), info, linger: None, _open: open }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>, mut info: ConnInfo, mut open: Open) -> Self {
        info.tls = true;
        // A verified certificate that cannot be read has no name and no role.
        if let Some(certificate) = stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            open.slot.peer_is_known();
            info.peer = PeerCert::parse(certificate).ok().map(Arc::new);
        }
        Self { io: Io::Tls(Box::new(stream)), info, linger: None, _open: open }
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
        let this = &mut *self;
        let linger = match &mut this.linger {
            Some(linger) => linger,
            none => {
                ready!(match &mut this.io {
                    Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
                    Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
                })?;
                none.insert(Box::pin(sleep(LINGER)))
            }
        };
        let socket = match &mut this.io {
            Io::Plain(socket) => socket,
            Io::Tls(stream) => stream.get_mut().0,
        };
        let mut scratch = [0; 4096];
        while linger.as_mut().poll(cx).is_pending() {
            let mut unread = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *socket).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
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
