//! A receiver over gRPC: unary calls over HTTP/2, one at a time.
//!
//! A call is a POST whose status stands behind the body of its answer.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{RecvStream, SendStream};
use http::Request;
use http::header::{AUTHORIZATION, USER_AGENT};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::driven::{ANSWER, Driven, Running, dial};
use super::http::{Endpoint, Headers, MAX_ANSWER};
use super::{Answer, End};
use crate::syslog::config::DrainUrl;
use crate::syslog::trust::Trust;

/// Of headers and trailers, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// What both sides of a connection say in its first message over TLS.
const ALPN: &[u8] = b"h2";

/// A connection to one receiver.
#[derive(Debug)]
pub(super) struct Grpc {
    sender: SendRequest<Bytes>,
    connection: Driven,
    endpoint: Endpoint,
    /// Scheme, host and port.
    origin: String,
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
        let scheme = if trust.is_some() { "https" } else { "http" };
        let (sender, connection) = handshake(dial(addr, trust, Some(ALPN), by).await?).await?;
        let origin = format!("{scheme}://{}", url.address);
        Ok(Self { sender, connection: Driven::new(connection), endpoint, origin })
    }

    /// As [`Link::check`](super::Link::check).
    pub(super) fn check(&mut self) -> Result<(), End> {
        self.connection.check()
    }

    /// As [`Link::ended`](super::Link::ended).
    pub(super) async fn ended(&mut self) -> End {
        self.connection.ended().await
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
        let exchange = async { exchange(&mut self.sender, request, body).await.map_err(|error| broken(&error)) };
        // What was wrong with the connection says more than that the call did not end.
        self.connection.carry(exchange, |_, connection| connection).await
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> io::Result<(SendRequest<Bytes>, Running)> {
    let mut builder = Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEADERS).max_concurrent_reset_streams(16);
    let (sender, connection) = builder.handshake(stream).await.map_err(|error| broken(&error))?;
    Ok((sender, Box::pin(async { connection.await.map_err(|error| broken(&error)) })))
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
