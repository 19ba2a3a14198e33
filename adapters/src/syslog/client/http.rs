//! A receiver over HTTPS: each message, or all that are there, the body of a POST (contract: syslog drains §2.3, §2.4).
//!
//! One connection of HTTP/1.1 and one request at a time. Its answer says what became of the lines: unlike elsewhere, what is written is
//! delivered. Redirects are not followed. The connection runs within the calls: nothing is spawned.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Answer, End, late, set_options};
use crate::syslog::config::{DrainUrl, Scheme};
use crate::syslog::trust::Trust;
use crate::syslog::window::Frame;

/// What lines are.
static PLAIN_TEXT: [(HeaderName, HeaderValue); 1] = [(CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
/// For a request and its answer.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// A connection that was idle this long is not used again.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// The most of an answer that is read, and for how long after its status; the connection of a longer one is closed.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
const REST: Duration = Duration::from_secs(1);
/// The longest wait that an answer may ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection to one receiver.
pub(super) struct Http {
    sender: SendRequest<Full<Bytes>>,
    /// Until it has ended.
    connection: Option<Connection>,
    endpoint: Endpoint,
    used: Instant,
}

/// Reads and writes while it is polled.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// What all requests have in common.
#[derive(Debug)]
pub(super) struct Endpoint {
    target: Arc<str>,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    batch: bool,
}

/// Headers of one request.
pub(super) type Headers<'a> = &'a [(HeaderName, HeaderValue)];

/// An answer that is not success.
#[derive(Debug, thiserror::Error)]
#[error("the destination answers {what}")]
pub struct Refusal {
    /// The status, and what to do about it.
    what: String,
    /// The same lines will never be taken.
    pub permanent: bool,
    /// It asks for this long a wait.
    pub after: Option<Duration>,
    ours: bool,
    broken: bool,
}

impl Refusal {
    /// One of a protocol with rules of its own: whether it [`is_ours`](Self::is_ours), and whether it
    /// [`needs_a_change`](Self::needs_a_change).
    #[cfg(feature = "otlp")]
    pub(crate) fn new(what: String, ours: bool, broken: bool, after: Option<Duration>) -> Self {
        Self { what, permanent: ours, after, ours, broken }
    }

    /// The refusal in an error of [`Link::write`](super::Link::write), if it is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the protocol says that what was sent is not to be sent again: what it lacks is ours, and no later attempt has it
    /// (contract: syslog drains §7, §8.2).
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether it stays until somebody changes something: name, password or token, or the address.
    pub fn needs_a_change(&self) -> bool {
        self.broken
    }

    /// Of an answer, unless it is success.
    fn from(answer: &Answer) -> Option<Self> {
        let status = answer.status;
        if status.is_success() {
            return None;
        }
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "; look at user name and password, or the token",
            status if status.is_redirection() => ", and a drain follows no redirect; write the new address",
            _ => "",
        };
        Some(Self {
            what: format!("{status}{hint}"),
            permanent: matches!(
                status,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
            ),
            after: retry_after(&answer.headers),
            ours: status.is_client_error()
                && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS),
            broken: status.is_redirection()
                || matches!(
                    status,
                    StatusCode::UNAUTHORIZED
                        | StatusCode::FORBIDDEN
                        | StatusCode::NOT_FOUND
                        | StatusCode::METHOD_NOT_ALLOWED
                        | StatusCode::GONE
                ),
        })
    }
}

/// The wait that an answer asks for, in seconds; at most a minute.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(url: &DrainUrl) -> io::Result<Self> {
        let header = |text: String| HeaderValue::try_from(text).map_err(io::Error::other);
        let authorization = url.credentials().map(|credentials| {
            let mut value = header(format!("Basic {}", BASE64_STANDARD.encode(credentials)))?;
            value.set_sensitive(true);
            Ok::<_, io::Error>(value)
        });
        let host = url.address.to_string();
        Ok(Self {
            target: Arc::from(url.target()),
            host: header(
                host.strip_suffix(if url.scheme.is_tls() { ":443" } else { ":80" }).unwrap_or(&host).to_owned(),
            )?,
            authorization: authorization.transpose()?,
            batch: url.scheme == Scheme::HttpsBatch,
        })
    }

    /// What the URL's user name and password become.
    #[cfg(feature = "otlp")]
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    fn request(&self, target: &str, headers: Headers<'_>, body: Bytes) -> io::Result<Request<Full<Bytes>>> {
        let mut request = Request::post(target)
            .header(HOST, &self.host)
            .header(USER_AGENT, concat!("hydrant/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(body)).map_err(io::Error::other)
    }
}

impl Http {
    /// Connects and shakes hands, until `by`.
    ///
    /// # Errors
    /// In words: what was wrong, with the receiver's certificate or with ours too.
    pub(super) async fn open(
        addr: SocketAddr,
        url: &DrainUrl,
        trust: Option<&mut Trust>,
        by: Instant,
    ) -> io::Result<Self> {
        let endpoint = Endpoint::new(url)?;
        let connected = timeout_at(by, TcpStream::connect(addr)).await;
        let socket = connected.map_err(|_| late("no answer".to_owned()))??;
        set_options(&socket)?;
        let (sender, connection) = match trust {
            None => handshake(socket).await?,
            Some(trust) => {
                let (config, name) = trust.client();
                let secured = timeout_at(by, TlsConnector::from(config).connect(name, socket)).await;
                let secured = secured.map_err(|_| late("no answer to the TLS handshake".to_owned()))?;
                handshake(secured.map_err(|error| in_words(error, trust))?).await?
            }
        };
        Ok(Self { sender, connection: Some(connection), endpoint, used: Instant::now() })
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
        let Some(connection) = &mut self.connection else { return Poll::Ready(End::Closed) };
        let Poll::Ready(outcome) = connection.as_mut().poll(cx) else { return Poll::Pending };
        self.connection = None;
        Poll::Ready(match outcome {
            Ok(()) => End::Closed,
            Err(error) => End::Broken(broken(&error)),
        })
    }

    /// As [`Link::write`](super::Link::write): a frame is written when the receiver has said that it has it.
    ///
    /// # Errors
    /// No answer, or a [`Refusal`].
    pub(super) async fn write(
        &mut self,
        frames: &VecDeque<Frame>,
        count: usize,
        written: &mut usize,
    ) -> io::Result<()> {
        if self.endpoint.batch {
            let mut body = BytesMut::with_capacity(frames.range(..count).map(|frame| frame.bytes.len()).sum());
            frames.range(..count).for_each(|frame| body.extend_from_slice(&frame.bytes));
            self.post_line(body.freeze()).await?;
            *written = count;
            return Ok(());
        }
        for frame in frames.range(..count) {
            let mut rest = frame.bytes.clone();
            while let Some(len) = rest.first_chunk() {
                let len = u32::from_be_bytes(*len) as usize;
                rest.advance(4);
                self.post_line(rest.split_to(len)).await?;
            }
            *written += 1;
        }
        Ok(())
    }

    async fn post_line(&mut self, body: Bytes) -> io::Result<()> {
        let target = Arc::clone(&self.endpoint.target);
        self.post(&target, &PLAIN_TEXT, body).await?.success()
    }

    /// As [`Link::settle`](super::Link::settle): every answer has come.
    pub(super) fn settle(self) -> End {
        End::Closed
    }

    /// One request with these headers, to this path and query.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn post(&mut self, target: &str, headers: Headers<'_>, body: Bytes) -> io::Result<Answer> {
        let request = self.endpoint.request(target, headers, body)?;
        let exchange = exchange(&mut self.sender, request);
        let connection = &mut self.connection;
        let outcome = timeout(ANSWER, async {
            tokio::pin!(exchange);
            loop {
                tokio::select! {
                    outcome = &mut exchange => return outcome,
                    // What it ends with is told by the exchange.
                    () = ended(connection) => {}
                }
            }
        })
        .await;
        self.used = Instant::now();
        outcome.map_err(|_| late(format!("no answer within {} s", ANSWER.as_secs())))?
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<(SendRequest<Full<Bytes>>, Connection)> {
    // Names of headers have no case, but some receivers want the usual one.
    let builder = Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
    let (sender, connection) = builder.await.map_err(io::Error::other)?;
    Ok((sender, Box::pin(connection)))
}

/// Runs the connection to its end; never ends twice.
async fn ended(connection: &mut Option<Connection>) {
    match connection {
        Some(running) => {
            let _ = running.await;
            *connection = None;
        }
        None => std::future::pending().await,
    }
}

/// Sends a request and reads its answer to the end.
async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> io::Result<Answer> {
    sender.ready().await.map_err(|error| broken(&error))?;
    let (head, body) = sender.send_request(request).await.map_err(|error| broken(&error))?.into_parts();
    // A receiver that talks without end is not read here without end; hyper closes a connection whose answer was not read.
    let read = timeout(REST, Limited::new(body, MAX_ANSWER).collect()).await;
    let body = read.ok().and_then(Result::ok).map_or_else(Bytes::new, http_body_util::Collected::to_bytes);
    Ok(Answer { status: head.status, headers: head.headers, trailers: None, body })
}

impl Answer {
    /// Whether it says that what was sent was taken.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub(crate) fn success(&self) -> io::Result<()> {
        Refusal::from(self).map_or(Ok(()), |refusal| Err(io::Error::other(refusal)))
    }
}

/// What went wrong below HTTP, which is what can be acted upon.
fn broken(error: &hyper::Error) -> io::Error {
    let below = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    match below {
        Some(below) => io::Error::new(below.kind(), below.to_string()),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
            io::Error::new(io::ErrorKind::ConnectionReset, "the destination closed the connection without an answer")
        }
        None => io::Error::new(io::ErrorKind::InvalidData, format!("the destination does not speak HTTP/1.1: {error}")),
    }
}

/// What is wrong with a certificate.
pub(super) fn in_words(error: io::Error, trust: &Trust) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => io::Error::new(io::ErrorKind::InvalidData, trust.tls().explain(inner)),
        None => error,
    }
}
