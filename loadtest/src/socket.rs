//! Consumers over WebSocket: v1 frames, or JSON, from a traffic controller's HTTP port in plain text.
//!
//! What enters: a path. What leaves: the messages of the connection. Nothing is decoded but the payloads of JSON, to find the marks in them.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tonic::Status;

/// What stands before a payload.
const PAYLOAD: &str = "\"payload\":\"";

/// The form of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A dropsonde frame for each envelope, of `/firehose/…` or `/apps/…/stream`.
    V1,
    /// JSON in batches, of `/v2/stream`.
    Json,
}

/// Where consumers connect, and what they read.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The HTTP port.
    pub addr: SocketAddr,
    /// The form.
    pub form: Form,
}

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    form: Form,
}

impl Endpoint {
    /// The path of a consumer: of all logs, shared with those of the same `shard`; or of one source.
    pub fn path(&self, shard: &str, source: Option<&str>) -> String {
        match (self.form, source) {
            (Form::V1, None) => format!("/firehose/{shard}?filter-type=logs"),
            (Form::V1, Some(source)) => format!("/apps/{source}/stream"),
            (Form::Json, None) => format!("/v2/stream?log&shard_id={shard}"),
            (Form::Json, Some(source)) => format!("/v2/stream?log&source_id={source}"),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or the handshake is refused.
    pub async fn open(&self, path: &str) -> Result<Socket, Status> {
        let failed = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let stream = TcpStream::connect(self.addr).await.map_err(|error| failed(&error))?;
        let config = WebSocketConfig::default().read_buffer_size(128 * 1024);
        let url = format!("ws://{}{path}", self.addr);
        let opened = client_async_with_config(url, stream, Some(config)).await;
        let (stream, _) = opened.map_err(|error| failed(&error))?;
        Ok(Socket { stream, form: self.form })
    }
}

impl Socket {
    /// The form of its messages.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            return match self.stream.next().await {
                Some(Ok(message @ (Message::Binary(_) | Message::Text(_)))) => Ok(Some(message.into_data())),
                Some(Ok(Message::Close(_))) | None => Ok(None),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(Status::unavailable(error.to_string())),
            };
        }
    }
}

/// Calls `each` with every payload of a JSON message, in order. `room` is where it is decoded.
pub fn for_each_payload(message: &str, room: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    let mut rest = message;
    while let Some(at) = rest.find(PAYLOAD) {
        rest = &rest[at + PAYLOAD.len()..];
        let Some(end) = rest.find('"') else { return };
        room.clear();
        if STANDARD.decode_vec(&rest[..end], room).is_ok() {
            each(room);
        }
        rest = &rest[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_found_and_decoded() {
        let mut found = Vec::new();
        let message = r#"{"batch":[{"log":{"payload":"b25l","type":"OUT"}},{"log":{"payload":"dHdv"}}],"x":"payload"}"#;
        for_each_payload(message, &mut Vec::new(), |payload| found.push(payload.to_vec()));
        assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
    }
}
