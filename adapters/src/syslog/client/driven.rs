//! Connections of HTTP that run within the calls on them: nothing is spawned, and one that nobody uses is not kept alive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{End, connect, late};
use crate::syslog::trust::Trust;

/// For a request and its answer.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// A connection that was idle this long is not used again.
const IDLE: Duration = Duration::from_secs(30);

/// Reads and writes while it is polled.
pub(super) type Running = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A connection.
pub(super) struct Driven {
    /// Until it has ended.
    running: Option<Running>,
    used: Instant,
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driven").field("open", &self.running.is_some()).finish_non_exhaustive()
    }
}

impl Driven {
    pub(super) fn new(running: Running) -> Self {
        Self { running: Some(running), used: Instant::now() }
    }

    /// As [`Link::check`](super::Link::check).
    pub(super) fn check(&mut self) -> Result<(), End> {
        if self.used.elapsed() > IDLE {
            return Err(End::Closed);
        }
        match self.poll_ended(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Err(end),
            Poll::Pending => Ok(()),
        }
    }

    /// As [`Link::ended`](super::Link::ended).
    pub(super) async fn ended(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some(running) = &mut self.running else { return Poll::Ready(End::Closed) };
        let Poll::Ready(outcome) = running.as_mut().poll(cx) else { return Poll::Pending };
        self.running = None;
        Poll::Ready(outcome.map_or_else(End::Broken, |()| End::Closed))
    }

    /// Runs the connection until `exchange`, which goes over it, has an outcome.
    ///
    /// # Errors
    /// That of the exchange; where the connection ended with one of its own meanwhile, `preferred` says which of the two, in this order,
    /// tells more. No answer within [`ANSWER`].
    pub(super) async fn carry<T>(
        &mut self,
        exchange: impl Future<Output = io::Result<T>>,
        preferred: fn(io::Error, io::Error) -> io::Error,
    ) -> io::Result<T> {
        let outcome = timeout(ANSWER, async {
            tokio::pin!(exchange);
            let mut end = None;
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut exchange => return outcome.map_err(|error| match end {
                        Some(end) => preferred(error, end),
                        None => error,
                    }),
                    ended = self.ended(), if self.running.is_some() => {
                        if let End::Broken(error) = ended {
                            end = Some(error);
                        }
                    }
                }
            }
        })
        .await;
        self.used = Instant::now();
        outcome.map_err(|_| late(format!("no answer within {} s", ANSWER.as_secs())))?
    }
}

/// Connects, with `trust` over TLS, until `by`. With `alpn` the receiver must speak that.
///
/// # Errors
/// In words: what was wrong, with the receiver's certificate or with ours too.
pub(super) async fn dial(
    addr: SocketAddr,
    trust: Option<&mut Trust>,
    alpn: Option<&[u8]>,
    by: Instant,
) -> io::Result<Either<TcpStream, TlsStream<TcpStream>>> {
    let socket = connect(addr, by).await?;
    let Some(trust) = trust else { return Ok(Either::Left(socket)) };
    let (mut config, name) = trust.client();
    if let Some(alpn) = alpn {
        Arc::make_mut(&mut config).alpn_protocols = vec![alpn.to_vec()];
    }
    let secured = timeout_at(by, TlsConnector::from(config).connect(name, socket)).await;
    let secured = secured.map_err(|_| late("no answer to the TLS handshake".to_owned()))?;
    let secured = secured.map_err(|error| in_words(error, trust))?;
    match alpn {
        Some(wanted) if secured.get_ref().1.alpn_protocol() != Some(wanted) => {
            let wanted = String::from_utf8_lossy(wanted);
            let text = format!("the destination does not speak {wanted} over TLS (ALPN), which is needed there");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        _ => Ok(Either::Right(secured)),
    }
}

/// What is wrong with a certificate.
fn in_words(error: io::Error, trust: &Trust) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => io::Error::new(io::ErrorKind::InvalidData, trust.tls().explain(inner)),
        None => error,
    }
}
