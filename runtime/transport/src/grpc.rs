//! The one preset of every gRPC server: windows, limits, keepalive.
//!
//! Doppler, agent, traffic controller and the load test's relay serve with the same builder, so that what differs
//! between two measurements is not HTTP/2.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tonic::transport::Server;

use crate::duration_text;

/// The largest gRPC message sent or received: 10 MiB, both ways (contract `loggregator-v2.md` §9.1).
///
/// Set it on every generated client and server with `max_decoding_message_size` and `max_encoding_message_size`.
pub const MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;

/// HTTP/2 limits of a gRPC server, per connection.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcLimits {
    /// Open streams; 10 000, as some consumers put thousands of subscriptions on one connection.
    pub max_streams: NonZeroU32,
    /// Bytes that a peer may send ahead on one stream; 1 MiB. Larger rides out longer pauses and holds more memory.
    #[serde(deserialize_with = "window")]
    pub stream_window_bytes: NonZeroU32,
    /// Bytes that a peer may send ahead on all streams of a connection together; 4 MiB.
    #[serde(deserialize_with = "window")]
    pub connection_window_bytes: NonZeroU32,
    /// Bytes of one request's headers; 16 KiB.
    pub max_header_bytes: NonZeroU32,
    /// Time between pings of the server on a connection; 60 s, as text such as `"60s"`.
    #[serde(with = "duration_text")]
    pub keepalive_interval: Duration,
    /// A ping unanswered for this long closes the connection; 20 s.
    #[serde(with = "duration_text")]
    pub keepalive_timeout: Duration,
    /// Streams that a peer may reset before the server has looked at them; 20, then GOAWAY.
    pub max_pending_resets: u32,
    /// Streams that the server may have to reset for a peer's errors; 1024, then GOAWAY.
    pub max_local_error_resets: u32,
}

/// Reads the size of a window: HTTP/2 has 31 bits for it (RFC 9113 §6.9.1).
pub(crate) fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let window = NonZeroU32::deserialize(deserializer)?;
    if window.get() > i32::MAX.unsigned_abs() {
        return Err(D::Error::custom(format!("a window of {window} bytes; HTTP/2 allows {} at most", i32::MAX)));
    }
    Ok(window)
}

impl Default for GrpcLimits {
    fn default() -> Self {
        let some = |value| NonZeroU32::new(value).expect("not zero");
        Self {
            max_streams: some(10_000),
            stream_window_bytes: some(1024 * 1024),
            connection_window_bytes: some(4 * 1024 * 1024),
            max_header_bytes: some(16 * 1024),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            max_pending_resets: 20,
            max_local_error_resets: 1024,
        }
    }
}

/// A server with these limits, to add services to and to serve over [`Incoming`](crate::Incoming) connections, which
/// bring their own socket options and TLS.
pub fn server_builder(limits: &GrpcLimits) -> Server {
    let usize_of = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Server::builder()
        .max_concurrent_streams(limits.max_streams.get())
        .initial_stream_window_size(limits.stream_window_bytes.get())
        .initial_connection_window_size(limits.connection_window_bytes.get())
        .http2_max_header_list_size(limits.max_header_bytes.get())
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_pending_accept_reset_streams(Some(usize_of(limits.max_pending_resets)))
        .http2_max_local_error_reset_streams(Some(usize_of(limits.max_local_error_resets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_survive_a_round_trip_and_a_partial_table_keeps_the_rest() {
        let json = serde_json::to_string(&GrpcLimits::default()).unwrap();
        assert_eq!(serde_json::from_str::<GrpcLimits>(&json).unwrap(), GrpcLimits::default());
        let partial: GrpcLimits = toml::from_str("max_streams = 5\nkeepalive_interval = \"2m\"").unwrap();
        assert_eq!(partial.max_streams.get(), 5);
        assert_eq!(partial.keepalive_interval, Duration::from_secs(120));
        assert_eq!(partial.stream_window_bytes, GrpcLimits::default().stream_window_bytes);
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_what_is_right() {
        let error = toml::from_str::<GrpcLimits>("max_stream = 5").unwrap_err().to_string();
        assert!(error.contains("max_streams"), "{error}");
        let error = toml::from_str::<GrpcLimits>("keepalive_timeout = \"soon\"").unwrap_err().to_string();
        assert!(error.contains("written like \"60s\""), "{error}");
        assert!(toml::from_str::<GrpcLimits>("stream_window_bytes = 0").is_err());
        assert!(toml::from_str::<GrpcLimits>("stream_window_bytes = 2147483647").is_ok());
        let error = toml::from_str::<GrpcLimits>("connection_window_bytes = 2147483648").unwrap_err().to_string();
        assert!(error.contains("2147483648 bytes; HTTP/2 allows 2147483647 at most"), "{error}");
    }
}
