//! The configuration of a traffic controller: plain data, checked as it is read.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use diode::fair::Bounds;
use telemetry::AdminConfig;
use transport::{AccessConfig, Address, DopplerSet, GrpcLimits, LinkLimits, ServerFiles, TlsFiles, duration_text};

use crate::auth::{AuthorizerConfig, JwksConfig, UaaConfig};

/// The usual admin port of a traffic controller.
pub const ADMIN_PORT: u16 = 14826;

/// The `[traffic_controller]` table. The default serves on loopback and reads from a doppler on loopback.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may read what, on every port: `"none"`, which holds on loopback addresses only, `"tokens"`, `"uaa"` or `"jwks"`.
    pub authorizer: AuthorizerConfig,
    /// The tokens file of `authorizer = "tokens"`, read again when it changes.
    pub tokens: Option<PathBuf>,
    /// A file to which every HTTP request appends a line in the Common Event Format; none.
    pub access_log: Option<PathBuf>,
    /// The UAA and the Cloud Controller of `authorizer = "uaa"`.
    pub uaa: Option<UaaConfig>,
    /// The OpenID provider of `authorizer = "jwks"`.
    pub jwks: Option<JwksConfig>,
    /// The page, `/firehose/{subscription-id}` and `/apps/{guid}/stream`.
    pub http: HttpConfig,
    /// The reverse log proxy.
    pub grpc: GrpcConfig,
    /// The gateway: server-sent events and JSON over WebSocket.
    pub gateway: GatewayConfig,
    /// Reading from the log cache over HTTP.
    pub rest: RestConfig,
    /// `/metrics`, `/live` and `/ready`.
    pub admin: AdminConfig<ADMIN_PORT>,
    /// The dopplers to read from; `[[dopplers]]` entries. One at 127.0.0.1:8082.
    pub dopplers: Vec<DopplerSet>,
    /// What to show to dopplers and whom to trust; a doppler's certificate must name `doppler`. Absent: plain text.
    pub doppler_tls: Option<TlsFiles>,
    /// Windows, keepalive and patience of the connections to dopplers.
    pub doppler_limits: LinkLimits,
    /// Connections to each doppler, shared by all consumers; 4. More let more processor cores read.
    pub doppler_connections: NonZeroUsize,
    /// Adapters whose drains the overview shows, by their admin ports; none. `hydrant up` shows its own.
    pub adapters: Vec<Address>,
    /// What each consumer may fall behind.
    pub ring: RingConfig,
    /// What a consumer of named sources over HTTP may fall behind: 8 192 envelopes, 640 KiB.
    pub tail_ring: TailRingConfig,
    /// How long a stop may take to hand consumers what is in their rings; `"25s"`. What is left then is counted as
    /// `shutdown_deadline`.
    #[serde(with = "duration_text")]
    pub flush_timeout: Duration,
}

/// The `[traffic_controller.http]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where to listen; 127.0.0.1:8081. Another address than loopback needs an authorizer, and `tls`.
    pub listen: SocketAddr,
    /// The certificate to show. Absent: plain text.
    pub tls: Option<ServerFiles>,
    /// Take tokens in plain text also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// The domain of cookies made by `/set-cookie`, such as `doppler.example.com`; none: the host that was asked.
    pub cookie_domain: Option<String>,
    /// Firehose and app streams open at once; 2000. More are answered 503.
    pub max_consumers: NonZeroU32,
    /// From the answer to a ping until the next one; `"15s"`.
    #[serde(with = "duration_text")]
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered before its connection is closed; `"30s"`.
    #[serde(with = "duration_text")]
    pub pong_timeout: Duration,
    /// How long one envelope may wait for a consumer whose socket takes nothing, before the consumer is cut; `"5s"`.
    #[serde(with = "duration_text")]
    pub slow_consumer_timeout: Duration,
    /// How long written bytes may wait for a socket that takes nothing, before the consumer is cut; `"6s"`.
    #[serde(with = "duration_text")]
    pub write_timeout: Duration,
    /// Bytes gathered before they are written to a consumer's socket; 32 KiB. They leave earlier when no envelope waits.
    pub write_buffer_bytes: NonZeroUsize,
}

/// The `[traffic_controller.grpc]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where to listen; 127.0.0.1:8084. Another address than loopback needs `tls`.
    pub listen: SocketAddr,
    /// The certificate to show, which must name `reverselogproxy`, and the authorities that clients must come from. Absent: plain text.
    pub tls: Option<TlsFiles>,
    /// Which certificates may call what; any of the authorities, everything.
    pub access: AccessConfig,
    /// HTTP/2 limits.
    pub limits: GrpcLimits,
    /// Streams of consumers open at once; 1000. More are answered RESOURCE_EXHAUSTED.
    pub max_egress_streams: NonZeroU32,
    /// Envelopes in one message; 100.
    pub batch_envelopes: NonZeroUsize,
    /// Bytes of the envelopes in one message, before tags are converted; 1 MiB. A larger envelope goes alone.
    pub batch_bytes: NonZeroUsize,
}

/// The `[traffic_controller.gateway]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where to listen; 127.0.0.1:8088. Another address than loopback needs an authorizer, and `tls`. The port of the page serves the same.
    pub listen: SocketAddr,
    /// The certificate to show. Absent: plain text.
    pub tls: Option<ServerFiles>,
    /// Take tokens in plain text also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// Streams open at once; 2000. More are answered 503.
    pub max_consumers: NonZeroU32,
    /// From a batch or heartbeat until the next heartbeat of a stream of events; `"15s"`.
    #[serde(with = "duration_text")]
    pub heartbeat: Duration,
    /// How long a stream of events may last; `"14m"`.
    #[serde(with = "duration_text")]
    pub stream_timeout: Duration,
}

/// The `[traffic_controller.rest]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestConfig {
    /// Where to listen; 127.0.0.1:8083. Another address than loopback needs an authorizer, and `tls`.
    pub listen: SocketAddr,
    /// The certificate to show. Absent: plain text.
    pub tls: Option<ServerFiles>,
    /// Take tokens in plain text also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
}

/// The `[traffic_controller.ring]` table: the ring between the dopplers and one consumer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingConfig {
    /// Envelopes; 65 536.
    pub envelopes: NonZeroUsize,
    /// Bytes kept alive; 16 MiB.
    pub bytes: NonZeroUsize,
}

/// The `[traffic_controller.tail_ring]` table: the ring of a consumer of named sources over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TailRingConfig {
    /// Envelopes; 8 192.
    pub envelopes: NonZeroUsize,
    /// Bytes kept alive; 640 KiB.
    pub bytes: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        let doppler = SocketAddr::from((Ipv4Addr::LOCALHOST, 8082));
        Self {
            authorizer: AuthorizerConfig::default(),
            tokens: None,
            access_log: None,
            uaa: None,
            jwks: None,
            http: HttpConfig::default(),
            grpc: GrpcConfig::default(),
            gateway: GatewayConfig::default(),
            rest: RestConfig::default(),
            admin: AdminConfig::default(),
            dopplers: vec![DopplerSet::of([doppler])],
            doppler_tls: None,
            doppler_limits: LinkLimits::default(),
            doppler_connections: size(4),
            adapters: Vec::new(),
            ring: RingConfig::default(),
            tail_ring: TailRingConfig::default(),
            flush_timeout: Duration::from_secs(25),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8081).into(),
            tls: None,
            insecure_plaintext: false,
            cookie_domain: None,
            max_consumers: count(2000),
            ping_interval: Duration::from_secs(15),
            pong_timeout: Duration::from_secs(30),
            slow_consumer_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(6),
            write_buffer_bytes: size(32 * 1024),
        }
    }
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8084).into(),
            tls: None,
            access: AccessConfig::default(),
            limits: GrpcLimits::default(),
            max_egress_streams: count(1000),
            batch_envelopes: size(100),
            batch_bytes: size(1024 * 1024),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8088).into(),
            tls: None,
            insecure_plaintext: false,
            max_consumers: count(2000),
            heartbeat: Duration::from_secs(15),
            stream_timeout: Duration::from_secs(14 * 60),
        }
    }
}

impl Default for RestConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8083).into(), tls: None, insecure_plaintext: false }
    }
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { envelopes: size(65_536), bytes: size(16 * 1024 * 1024) }
    }
}

impl Default for TailRingConfig {
    fn default() -> Self {
        Self { envelopes: size(8_192), bytes: size(640 * 1024) }
    }
}

impl TailRingConfig {
    /// The bounds as the ring takes them.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { envelopes: self.envelopes, bytes: self.bytes }
    }
}

impl RingConfig {
    /// The bounds as the ring takes them.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { envelopes: self.envelopes, bytes: self.bytes }
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Config {
    /// The defaults on any free ports of 127.0.0.1, without a doppler.
    pub fn for_test() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            http: HttpConfig { listen: any, ..HttpConfig::default() },
            grpc: GrpcConfig { listen: any, ..GrpcConfig::default() },
            gateway: GatewayConfig { listen: any, ..GatewayConfig::default() },
            rest: RestConfig { listen: any, ..RestConfig::default() },
            admin: AdminConfig::any_port(),
            dopplers: Vec::new(),
            ..Self::default()
        }
    }

    /// The same, reading from the dopplers at `addresses`.
    #[must_use]
    pub fn dopplers(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.dopplers = vec![DopplerSet::of(addresses)];
        self
    }
}

const fn size(value: usize) -> NonZeroUsize {
    NonZeroUsize::new(value).expect("a default is not zero")
}

const fn count(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a default is not zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_the_defaults_it_does_not_name() {
        let text =
            "[http]\nping_interval = \"2m\"\n[grpc]\nmax_egress_streams = 5\n[[dopplers]]\naddresses = [\"d:1\"]\n";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.http.ping_interval, Duration::from_secs(120));
        assert_eq!(config.http.listen, HttpConfig::default().listen);
        assert_eq!(config.grpc.max_egress_streams.get(), 5);
        assert_eq!(config.dopplers[0].addresses[0].to_string(), "d:1");
        assert_eq!(config.ring, RingConfig::default());
        let tail: Config = toml::from_str("[tail_ring]\nenvelopes = 5\n").unwrap();
        assert_eq!((tail.tail_ring.envelopes.get(), tail.tail_ring.bytes.get()), (5, 640 * 1024));
    }

    #[test]
    fn the_default_survives_a_round_trip() {
        let json = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), Config::default());
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_what_is_right() {
        let error = |text: &str| toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error("[http]\nlisten_on = \"127.0.0.1:1\"").contains("`listen`"));
        assert!(error("[http]\npong_timeout = \"soon\"").contains("written like \"60s\""));
        assert!(error("[http]\npong_timeout = \"0s\"").contains("a duration of zero"));
        let authorizer = error("authorizer = \"everybody\"");
        assert!(authorizer.contains("`none`") && authorizer.contains("`tokens`"), "{authorizer}");
        assert!(error("[http]\ntls = { cert = \"c\", key = \"k\", ca = \"a\" }").contains("unknown field `ca`"));
        assert!(error("[ring]\nenvelopes = 0").contains("nonzero"));
    }
}
