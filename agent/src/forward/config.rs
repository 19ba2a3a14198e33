//! What is forwarded to: addresses, and files as the original has them (contract: agents §3.2).

use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use diode::fair::Bounds;
use serde::{Deserialize, Serialize};
use transport::{Address, TlsFiles, duration_text};

/// The `[agent.forward]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardConfig {
    /// Consumers that everything goes to, besides dopplers. None.
    pub to: Vec<Address>,
    /// A pattern of files that name the port of one more each, in YAML, such as `"/var/vcap/jobs/*/config/ingress_port.yml"`. None.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports_glob: Option<String>,
    /// How often files are looked for; `"15s"`.
    #[serde(with = "duration_text")]
    pub refresh_interval: Duration,
    /// What to show to consumers and whom to trust; their certificates must name `metron`. Absent: plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Envelopes that may wait for one consumer; 10 000. Past that its source with most of them loses its oldest.
    pub ring_envelopes: NonZeroUsize,
    /// Bytes that may wait for one consumer; 8 MiB.
    pub ring_bytes: NonZeroUsize,
}

impl Default for ForwardConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            to: Vec::new(),
            ports_glob: None,
            refresh_interval: Duration::from_secs(15),
            tls: None,
            ring_envelopes: some(10_000),
            ring_bytes: some(8 * 1024 * 1024),
        }
    }
}

impl ForwardConfig {
    /// True if there is or may be somebody to forward to.
    pub fn is_on(&self) -> bool {
        !self.to.is_empty() || self.ports_glob.is_some()
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { envelopes: self.ring_envelopes, bytes: self.ring_bytes }
    }
}

/// A file that names a consumer of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFile {
    /// Its port on 127.0.0.1.
    pub ingress: u16,
}

/// Why a file names no consumer that is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortFileError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(String),
    /// Not such a file.
    #[error("it is no YAML with the keys ingress and protocol: {0}")]
    Yaml(String),
    /// Without a port.
    #[error("no ingress port is defined in it")]
    NoPort,
    /// A port that is none.
    #[error("ingress {0:?} is no number from 1 to 65535")]
    Port(String),
    /// A collector of OpenTelemetry.
    #[error(
        "protocol otelcol is not spoken by an agent; hydrant's adapters send to a collector (a drain with an otlp+grpc:// URL)"
    )]
    Otel,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    ingress: Option<Port>,
    #[serde(default)]
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(i64),
    Text(String),
}

impl PortFile {
    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// See [`PortFileError`].
    pub fn read(path: &Path, max: u64) -> Result<Self, PortFileError> {
        // Opening something else, such as a pipe, may never end.
        if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            return Err(PortFileError::Read("it is no file".to_owned()));
        }
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(max).read_to_string(&mut text));
        read.map_err(|error| PortFileError::Read(error.to_string()))?;
        Self::parse(&text)
    }

    /// Reads a file's text. A protocol that is not known counts as Loggregator's, as in the original.
    ///
    /// # Errors
    /// See [`PortFileError`].
    pub fn parse(text: &str) -> Result<Self, PortFileError> {
        let keys: Keys = serde_saphyr::from_str(text).map_err(|error| PortFileError::Yaml(error.to_string()))?;
        let port = match keys.ingress {
            None => return Err(PortFileError::NoPort),
            Some(Port::Number(port)) => port.to_string(),
            Some(Port::Text(port)) if port.is_empty() => return Err(PortFileError::NoPort),
            Some(Port::Text(port)) => port,
        };
        let ingress = port.parse().ok().filter(|port| *port > 0).ok_or(PortFileError::Port(port))?;
        if keys.protocol.as_deref() == Some("otelcol") {
            return Err(PortFileError::Otel);
        }
        Ok(Self { ingress })
    }

    /// Where it listens.
    pub fn address(self) -> Address {
        format!("127.0.0.1:{}", self.ingress).parse().expect("an address and a port")
    }
}
