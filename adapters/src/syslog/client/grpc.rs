//! A receiver over gRPC: unary calls over HTTP/2, one at a time.
//!
//! A call is a POST whose status stands behind the body of its answer. The connection runs within the calls, as that of HTTP/1.1 does:
//! nothing is spawned, and a connection that nobody uses is not kept alive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use http::header::{AUTHORIZATION, USER_AGENT};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::http::{ANSWER, Endpoint, Headers, IDLE, MAX_ANSWER, in_words};
use super::{Answer, End, late, set_options};
use crate::syslog::config::DrainUrl;
use crate::syslog::trust::Trust;

/// Of headers and trailers, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// What both sides of a connection say in its first message over TLS.
const ALPN: &[u8] = b"h2";

/// A connection to one receiver.
pub(super) struct Grpc {
    sender: SendRequest<Bytes>,
    /// Until it has ended.
    connection: Option<Connection>,
    endpoint: Endpoint,
    /// Scheme, host and port.
    origin: String,
    used: Instant,
}

/// Reads and writes while it is polled.
type Connection = Pin<Box<dyn Future<Output = Result<(), h2::Error>> + Send>>;

impl std::fmt::Debug for Grpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grpc").field("open", &self.connection.is_some()).finish_non_exhaustive()
    }
}

impl Grpc {
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
        let scheme = if trust.is_some() { "https" } else { "http" };
        let (sender, connection) = match trust {
            None => handshake(socket).await?,
            Some(trust) => {
                let (config, name) = trust.client();
                let mut config = (*config).clone();
                config.alpn_protocols = vec![ALPN.to_vec()];
                let secured = timeout_at(by, TlsConnector::from(Arc::new(config)).connect(name, socket)).await;
                let secured = secured.map_err(|_| late("no answer to the TLS handshake".to_owned()))?;
                let secured = secured.map_err(|error| in_words(error, trust))?;
                if secured.get_ref().1.alpn_protocol() != Some(ALPN) {
                    let text = "the destination does not speak HTTP/2 over TLS (ALPN h2), which gRPC needs";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                handshake(secured).await?
            }
        };
        let origin = format!("{scheme}://{}", url.address);
        Ok(Self { sender, connection: Some(connection), endpoint, origin, used: Instant::now() })
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

    /// One call of this method with these headers.
    ///
    /// # Errors
    /// No answer.
    pub(super) async fn call(&mut self, method: &str, headers: Headers<'_>, body: Bytes) -> io::Result<Answer> {
        let mut request = Request::post(format!("{}{method}", self.origin))
            .header(USER_AGENT, concat!("hydrant/", env!("CARGO_PKG_VERSION")))
            .header("grpc-timeout", format!("{}S", ANSWER.as_secs()));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = self.endpoint.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let exchange = exchange(&mut self.sender, request, body);
        let connection = &mut self.connection;
        let outcome = timeout(ANSWER, async {
            tokio::pin!(exchange);
            let mut end = None;
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut exchange => {
                        let outcome: Result<Answer, h2::Error> = outcome;
                        // What was wrong with the connection says more than that the call did not end.
                        return outcome.map_err(|error| broken(end.as_ref().unwrap_or(&error)));
                    }
                    ended = ended(connection) => end = ended.err(),
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
) -> io::Result<(SendRequest<Bytes>, Connection)> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEADERS).max_concurrent_reset_streams(16);
    let (sender, connection) = builder.handshake(stream).await.map_err(|error| broken(&error))?;
    Ok((sender, Box::pin(connection)))
}

/// Runs the connection to its end; never ends twice.
async fn ended(connection: &mut Option<Connection>) -> Result<(), h2::Error> {
    match connection {
        Some(running) => {
            let outcome = running.await;
            *connection = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

/// Sends a request and reads its answer to the end.
async fn exchange(sender: &mut SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Result<Answer, h2::Error> {
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await?;
    let (answer, stream) = sender.send_request(request, false)?;
    let answer = async {
        let (head, body) = answer.await?.into_parts();
        let (body, trailers) = read(body).await?;
        Ok(Answer { status: head.status, headers: head.headers, trailers, body })
    };
    let sending = async {
        // A receiver may answer before it has read all of it; if it does not, the answer's error says why.
        let _ = send(stream, body).await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        answer = sending => answer,
    }
}

/// Sends the body as the receiver makes room for it.
async fn send(mut stream: SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else {
            return Ok(());
        };
        let part = body.split_to(room.min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    // It stays until the answer is there: dropped before, it would be reset.
    std::future::poll_fn(|cx| stream.poll_reset(cx)).await.map(drop)
}

/// The body, of which no more than so much is kept, and the trailers.
async fn read(mut body: RecvStream) -> Result<(Bytes, Option<http::HeaderMap>), h2::Error> {
    let mut kept = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        let room = MAX_ANSWER.saturating_sub(kept.len());
        kept.extend_from_slice(&part[..part.len().min(room)]);
    }
    Ok((kept.freeze(), body.trailers().await?))
}

/// What went wrong, which is what can be acted upon.
fn broken(error: &h2::Error) -> io::Error {
    if let Some(below) = error.get_io() {
        return io::Error::new(below.kind(), below.to_string());
    }
    if error.is_remote() {
        let text = match error.reason() {
            Some(reason) => format!("the destination ended the call: {reason}"),
            None => "the destination ended the call".to_owned(),
        };
        return io::Error::new(io::ErrorKind::ConnectionReset, text);
    }
    io::Error::new(io::ErrorKind::InvalidData, format!("the destination does not speak HTTP/2: {error}"))
}
