//! What the syslog intake can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use transport::duration_text;

use super::frame::Framing;

/// The largest message that may be configured: that of an envelope.
const LARGEST: usize = 1024 * 1024;

/// A `syslog` table: `[log_cache.syslog]`, `[doppler.cache_syslog]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyslogConfig {
    /// Whether to listen; true.
    pub enabled: bool,
    /// Where to listen; 127.0.0.1:6067. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The certificate to show, and whom to let in. Absent: plain text, from anybody.
    pub tls: Option<SyslogTls>,
    /// Take plain text, from anybody, also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// How messages are told apart; `"octet-counting"`.
    pub framing: Framing,
    /// Bytes of a message; 66 560. A larger one is passed over and counted. At most 1 MiB.
    #[serde(deserialize_with = "at_most_an_envelope")]
    pub max_message_bytes: NonZeroUsize,
    /// Take all white space off both ends of a log line, instead of one line feed off its end; true.
    pub trim_whitespace: bool,
    /// How long a connection may bring no whole message before it is closed; `"2m"`.
    #[serde(with = "duration_text")]
    pub idle_timeout: Duration,
    /// Connections open at once; 10 000. More are closed as they come.
    pub max_connections: NonZeroUsize,
}

/// The files of the intake's TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogTls {
    /// The certificate to show, followed by its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that a sender's certificate must come from. Absent: senders show none.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

impl Default for SyslogConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 6067).into(),
            tls: None,
            insecure_plaintext: false,
            framing: Framing::default(),
            max_message_bytes: some(65 * 1024),
            trim_whitespace: true,
            idle_timeout: Duration::from_secs(120),
            max_connections: some(10_000),
        }
    }
}

fn at_most_an_envelope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroUsize, D::Error> {
    let bytes = NonZeroUsize::deserialize(deserializer)?;
    if bytes.get() > LARGEST {
        return Err(D::Error::custom(format!("a message of {bytes} bytes; an envelope has {LARGEST} at most")));
    }
    Ok(bytes)
}

#[cfg(feature = "test-util")]
impl SyslogConfig {
    /// The defaults on any free port.
    pub fn for_test() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_the_defaults_it_does_not_name() {
        let config: SyslogConfig =
            toml::from_str("framing = \"line-feed\"\ntls = { cert = \"c\", key = \"k\" }").unwrap();
        assert_eq!((config.framing, config.listen.port()), (Framing::LineFeed, 6067));
        assert_eq!(config.tls.unwrap().ca, None);
        let text = toml::to_string(&SyslogConfig::default()).unwrap();
        assert_eq!(toml::from_str::<SyslogConfig>(&text).unwrap(), SyslogConfig::default());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let error = |text: &str| toml::from_str::<SyslogConfig>(text).unwrap_err().to_string();
        assert!(error("framing = \"lf\"").contains("`line-feed`"));
        assert!(error("max_message_bytes = 1048577").contains("an envelope has 1048576 at most"));
        assert!(error("idle_timeout = \"0s\"").contains("a duration of zero"));
    }
}
