//! The TLS handshake of an accepted connection, and what there is to say when it fails.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::{Hello, Identity, watched, why_client_failed};

/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// A handshake that failed.
pub(super) struct Failed {
    /// Why, for the log.
    pub(super) why: String,
    /// Whether it was a mere probe of the port: nothing was said.
    pub(super) is_probe: bool,
    /// The socket of a client that speaks TLS, for [`linger`].
    pub(super) socket: Option<TcpStream>,
}

/// Shakes hands. `ours` is the identity that `acceptor` is made from, where it asks for certificates.
pub(super) async fn shake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    ours: Option<&Identity>,
) -> Result<TlsStream<TcpStream>, Failed> {
    let mut first = [0; 4];
    let hello = match socket.peek(&mut first).await {
        Ok(read) => Hello::of(&first[..read]),
        Err(error) => return Err(Failed { why: error.to_string(), is_probe: true, socket: None }),
    };
    let (outcome, shown) = watched(acceptor.accept(socket).into_fallible()).await;
    outcome.map_err(|(error, socket)| Failed {
        why: why_client_failed(&error, hello, shown.as_ref(), ours),
        is_probe: hello == Hello::Nothing,
        socket: (hello == Hello::Tls).then_some(socket),
    })
}

/// Closes a refused connection so that the alert arrives: a socket closed over unread bytes is reset, and the reset
/// takes away what the client has not read yet.
pub(super) async fn linger(mut socket: TcpStream) {
    let read_to_end = async {
        socket.shutdown().await?;
        let mut rest = [0; 1024];
        while socket.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it has ended, broken or taken too long: there is nothing more to do for it.
    let _ = timeout(LINGER, read_to_end).await;
}
