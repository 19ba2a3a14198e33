//! What a syslog front can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use transport::duration_text;

/// The largest message that may be configured: it must fit into an envelope.
const LARGEST: usize = 1000 * 1024;

/// An `[[agent.syslog]]` entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogConfig {
    /// Where to listen; 127.0.0.1:6514. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Over what; `"tcp"`.
    pub protocol: SyslogProtocol,
    /// The certificate to show, and whom to let in. TCP with it is TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SyslogTls>,
    /// Take plain text, from anybody, also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// The source of every message. Absent: its program's name, else its host, else the address that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// Bytes of a message; 64 KiB. A larger one is passed over and counted. At most 1 000 KiB.
    #[serde(deserialize_with = "at_most_an_envelope")]
    pub max_message_bytes: NonZeroUsize,
    /// How long a connection may bring no whole message before it is closed; `"1h"`.
    #[serde(with = "duration_text")]
    pub idle_timeout: Duration,
    /// Connections open at once; 1 000. More are closed as they come.
    pub max_connections: NonZeroUsize,
    /// Bytes that the kernel is asked to hold for a UDP socket; 4 MiB. It may grant less, and says so in the log.
    pub receive_buffer_bytes: NonZeroUsize,
}

/// What messages come over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogProtocol {
    /// A stream of messages, each with its length before it or a line feed behind it.
    #[default]
    Tcp,
    /// A message a datagram.
    Udp,
}

/// The files of a syslog front's TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogTls {
    /// The certificate to show, followed by its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that a sender's certificate must come from. Absent: senders show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            listen: (Ipv4Addr::LOCALHOST, 6514).into(),
            protocol: SyslogProtocol::default(),
            tls: None,
            insecure_plaintext: false,
            source_id: None,
            max_message_bytes: some(64 * 1024),
            idle_timeout: Duration::from_secs(3_600),
            max_connections: some(1_000),
            receive_buffer_bytes: some(4 * 1024 * 1024),
        }
    }
}

fn at_most_an_envelope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let bytes = NonZeroUsize::deserialize(deserializer)?;
    if bytes.get() > LARGEST {
        return Err(D::Error::custom(format!(
            "a message of {bytes} bytes; an envelope holds {LARGEST} of one at most"
        )));
    }
    Ok(bytes)
}
