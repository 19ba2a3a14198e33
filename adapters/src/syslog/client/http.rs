//! A receiver over HTTPS: each message, or all that are there, the body of a POST (contract: syslog drains §2.3, §2.4).
//!
//! One connection of HTTP/1.1 and one request at a time. Its answer says what became of the lines: unlike elsewhere, what is written is
//! delivered. Redirects are not followed. The connection runs within the calls: nothing is spawned.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::time::{Instant, timeout};

use super::driven::{Driven, Running, dial};
use super::{Answer, End};
use crate::syslog::config::{DrainUrl, Scheme};
use crate::syslog::trust::Trust;
use crate::syslog::window::Frame;

/// What lines are.
static PLAIN_TEXT: [(HeaderName, HeaderValue); 1] = [(CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
/// The most of an answer that is read, and for how long after its status; the connection of a longer one is closed.
pub(super) const MAX_ANSWER: usize = 64 * 1024;
const REST: Duration = Duration::from_secs(1);
/// The longest wait that an answer may ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A connection to one receiver.
#[derive(Debug)]
pub(super) struct Http {
    sender: SendRequest<Full<Bytes>>,
    connection: Driven,
    endpoint: Endpoint,
}

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
        let (sender, connection) = handshake(dial(addr, trust, None, by).await?).await?;
        Ok(Self { sender, connection: Driven::new(connection), endpoint })
    }

    /// As [`Link::check`](super::Link::check).
    pub(super) fn check(&mut self) -> Result<(), End> {
        self.connection.check()
    }

    /// As [`Link::ended`](super::Link::ended).
    pub(super) async fn ended(&mut self) -> End {
        self.connection.ended().await
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
        // What a connection ends with is told by the exchange.
        self.connection.carry(exchange(&mut self.sender, request), |exchange, _| exchange).await
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<(SendRequest<Full<Bytes>>, Running)> {
    // Names of headers have no case, but some receivers want the usual one.
    let builder = Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
    let (sender, connection) = builder.await.map_err(io::Error::other)?;
    Ok((sender, Box::pin(async { connection.await.map_err(|error| broken(&error)) })))
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
