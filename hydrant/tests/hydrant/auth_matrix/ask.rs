//! Asking as clients do, and keeping every byte of the answer.

use std::net::SocketAddr;

use prost::Message as _;
use proto::codec::Wire;
use proto::hydrant::v1;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::hydrant::v1::overview_client::OverviewClient;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::auth_matrix::bed::Headers;
use crate::harness::logs;

/// An HTTP connection with a request on it, and what has come back so far.
pub(crate) struct Open {
    socket: TcpStream,
    pub(crate) bytes: Vec<u8>,
}

/// The headers of a WebSocket handshake, whose key is that of the RFC.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Open {
    /// Sends the request; `upgrade` makes it a handshake. Reads its answer up to the end of the head.
    pub(crate) async fn new(addr: SocketAddr, method: &str, target: &str, headers: &Headers, upgrade: bool) -> Self {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\n");
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        text += if upgrade { HANDSHAKE } else { "Connection: close\r\n" };
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let mut open = Self { socket, bytes: Vec::new() };
        open.until(|bytes| head_end(bytes).is_some()).await;
        open
    }

    /// Reads on until `done`, or the end: then false.
    pub(crate) async fn until(&mut self, done: impl Fn(&[u8]) -> bool) -> bool {
        while !done(&self.bytes) {
            if self.socket.read_buf(&mut self.bytes).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    pub(crate) fn status(&self) -> u16 {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0)
    }

    /// True for what goes on for as long as somebody reads.
    fn is_stream(&self) -> bool {
        self.status() == 101 || (self.status() == 200 && self.head().contains("content-type: text/event-stream"))
    }

    pub(crate) fn head(&self) -> String {
        let end = head_end(&self.bytes).unwrap_or(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase()
    }

    pub(crate) fn body(&self) -> String {
        let end = head_end(&self.bytes).unwrap_or(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[end..]).into_owned()
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The whole answer; of a stream, its head.
pub(crate) async fn http(addr: SocketAddr, method: &str, target: &str, headers: &Headers, upgrade: bool) -> Open {
    let mut open = Open::new(addr, method, target, headers, upgrade).await;
    if !open.is_stream() {
        let length =
            open.head().split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let length: usize = length.unwrap_or(usize::MAX);
        open.until(|bytes| head_end(bytes).is_some_and(|end| bytes.len() - end >= length)).await;
    }
    open
}

/// How a call ends: its code, and all that a client gets with it but the time.
pub(crate) fn outcome<T>(result: Result<Response<T>, Status>) -> (String, Vec<u8>) {
    match result {
        Ok(_) => ("OK".to_owned(), Vec::new()),
        Err(status) => {
            let mut metadata = status.metadata().clone().into_headers();
            metadata.remove("date");
            let bytes = format!("{:?} {:?} {metadata:?}", status.code(), status.message()).into_bytes();
            (format!("{:?}", status.code()), [&bytes[..], status.details()].concat())
        }
    }
}

pub(crate) fn request<T>(message: T, headers: &Headers) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// The subscription to logs of `sources`, `any` being all, and to what a `legacy` selector names.
fn subscription(sources: &[&str], legacy: Option<&str>) -> v2::EgressBatchRequest {
    let of = |source: &str| v2::Selector { source_id: any(source), message: Some(logs()) };
    v2::EgressBatchRequest {
        selectors: sources.iter().map(|source| of(source)).collect(),
        legacy_selector: legacy.map(of),
        ..v2::EgressBatchRequest::default()
    }
}

fn any(source: &str) -> String {
    if source == "any" { String::new() } else { source.to_owned() }
}

pub(crate) async fn batched(
    channel: Channel,
    (sources, legacy): (&[&str], Option<&str>),
    headers: &Headers,
) -> Result<Response<Streaming<Wire>>, Status> {
    EgressClient::new(channel).batched_receiver(request(subscription(sources, legacy), headers)).await
}

pub(crate) async fn receiver(
    channel: Channel,
    (sources, legacy): (&[&str], Option<&str>),
    headers: &Headers,
) -> Result<Response<Streaming<Wire>>, Status> {
    let v2::EgressBatchRequest { selectors, legacy_selector, .. } = subscription(sources, legacy);
    let message = v2::EgressRequest { selectors, legacy_selector, ..v2::EgressRequest::default() };
    EgressClient::new(channel).receiver(request(message, headers)).await
}

pub(crate) async fn follow(
    channel: Channel,
    (sources, after): (&[&str], Vec<v1::Cursor>),
    headers: &Headers,
) -> Result<Response<Streaming<v1::FollowFrame>>, Status> {
    let source_ids = sources.iter().map(|source| any(source)).collect();
    let message = v1::FollowRequest { source_ids, after, ..v1::FollowRequest::default() };
    FollowClient::new(channel).follow(request(message, headers)).await
}

/// A call by its name: `batched a,b`, `batched a legacy b`, `receiver …`, `follow a,b`, `overview -`.
pub(crate) async fn grpc(channel: Channel, call: &str, of: &str, headers: &Headers) -> (String, Vec<u8>) {
    let (sources, legacy) = of.split_once("+legacy:").map_or((of, None), |(of, legacy)| (of, Some(legacy)));
    let sources: Vec<&str> = sources.split(',').filter(|source| !source.is_empty()).collect();
    match call {
        "batched" => outcome(batched(channel, (&sources, legacy), headers).await),
        "receiver" => outcome(receiver(channel, (&sources, legacy), headers).await),
        "follow" => outcome(follow(channel, (&sources, Vec::new()), headers).await),
        "overview" => {
            let reply = OverviewClient::new(channel).get(request(v1::OverviewRequest {}, headers)).await;
            match reply {
                Ok(reply) => ("OK".to_owned(), reply.into_inner().encode_to_vec()),
                refused => outcome(refused),
            }
        }
        other => panic!("{other}"),
    }
}
