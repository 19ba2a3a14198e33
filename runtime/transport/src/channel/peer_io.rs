//! A connection to a peer, plain or TLS, that says in words why a peer does not speak to us.
//!
//! Adds no buffer and no copy. Only what comes before the first bytes of the peer is looked at.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::dopplers::Address;
use crate::throttle::Throttle;
use crate::tls::Credentials;

use super::Heard;

/// A TLS record that holds an alert begins with this byte; no frame of HTTP/2 that a server may send first does.
const ALERT: u8 = 0x15;

/// What is said of servers that say nothing.
static UNHEARD: Throttle = Throttle::every(Duration::from_secs(10));

/// A connection to a peer.
pub(super) struct PeerIo {
    io: Io,
    /// Whether the peer has said anything on it.
    heard: bool,
    /// Who wants to know what came first.
    told: Option<Heard>,
    address: Address,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Credentials),
}

impl PeerIo {
    pub(super) fn plain(socket: TcpStream, address: Address, told: Option<Heard>) -> Self {
        Self { io: Io::Plain(socket), heard: false, told, address }
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        credentials: Credentials,
        address: Address,
        told: Option<Heard>,
    ) -> Self {
        Self { io: Io::Tls(Box::new(stream), credentials), heard: false, told, address }
    }

    /// The first thing that comes from the peer, bytes, the end, or an error, is judged and told.
    fn first(&mut self, read: io::Result<&[u8]>) -> io::Result<()> {
        self.heard = true;
        let judged = self.judge(read);
        if let Some(told) = self.told.take() {
            // Who has stopped waiting does not want to know.
            let _ = told.send(match &judged {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
        judged
    }

    fn judge(&self, read: io::Result<&[u8]>) -> io::Result<()> {
        let (kind, why) = match (read, &self.io) {
            (Ok([ALERT, ..]), Io::Plain(_)) => (
                io::ErrorKind::InvalidData,
                "the server speaks TLS, and this side plain text; give this side certificates".to_owned(),
            ),
            (Ok([_, ..]), _) => return Ok(()),
            (Err(error), Io::Tls(_, credentials)) if !is_close(&error) => match credentials.refused_later(&error) {
                Some(why) => (error.kind(), why),
                None => return Err(error),
            },
            (Err(error), Io::Plain(_)) if !is_close(&error) => return Err(error),
            (Ok([]) | Err(_), Io::Plain(_)) => (
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection before it said anything; it may speak TLS only, or be stopping"
                    .to_owned(),
            ),
            (Ok([]) | Err(_), Io::Tls(_, credentials)) => {
                let ours = match credentials {
                    Credentials::Certificate(identity) => {
                        format!("not accept our certificate {}", identity.files().cert.display())
                    }
                    Credentials::Anonymous(_) => "want to see a certificate".to_owned(),
                };
                let why = format!("the server closed the connection right after the TLS handshake; it may {ours}");
                (io::ErrorKind::UnexpectedEof, why)
            }
        };
        // A call that meets the connection's end may hear only that it was closed: so it is told here too.
        if let Some(suppressed) = UNHEARD.pass() {
            warn!(addr = %self.address, reason = why, suppressed, "Connection ended before the server said anything");
        }
        Err(io::Error::new(kind, format!("{}: {why}", self.address)))
    }
}

fn is_close(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl AsyncRead for PeerIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = match &mut this.io {
            Io::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Io::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
        };
        match read {
            Poll::Ready(read) if !this.heard && room > 0 => {
                Poll::Ready(this.first(read.map(|()| buf.filled().get(before..).unwrap_or_default())))
            }
            other => other,
        }
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Io::Tls(stream, _) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Io::Tls(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Io::Tls(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Io::Tls(stream, _) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(socket) => socket.is_write_vectored(),
            Io::Tls(stream, _) => stream.is_write_vectored(),
        }
    }
}
