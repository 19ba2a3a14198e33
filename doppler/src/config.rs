//! What a doppler can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry::AdminConfig;
use transport::{AccessConfig, GrpcLimits, TlsFiles, duration_text};

/// The port that `/metrics`, `/live` and `/ready` are on unless configured otherwise.
pub(crate) const ADMIN_PORT: u16 = 14825;

/// A doppler's configuration. The default runs, on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where producers send and consumers subscribe.
    pub grpc: GrpcConfig,
    /// Where the log-cache services are served alone, as the original's nodes serve them.
    pub cache_grpc: CacheGrpcConfig,
    /// What each subscription gets.
    pub egress: EgressConfig,
    /// The cache of recent envelopes.
    pub cache: log_cache::Config,
    /// Where syslog is taken into the cache, as the original's agents drain it to a log cache; it is not routed. Absent: nowhere.
    pub cache_syslog: Option<log_cache::SyslogConfig>,
    /// Other cache nodes that sources are placed on together with this doppler's; none.
    pub cache_cluster: log_cache::ClusterConfig,
    /// How long a stop may take to hand consumers what is in their rings; `"25s"`. What is left then is counted as
    /// `shutdown_deadline`.
    #[serde(with = "duration_text")]
    pub flush_timeout: Duration,
    /// `/metrics`, `/live`, `/ready`.
    pub admin: AdminConfig<ADMIN_PORT>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grpc: GrpcConfig::default(),
            cache_grpc: CacheGrpcConfig::default(),
            egress: EgressConfig::default(),
            cache: log_cache::Config::default(),
            cache_syslog: None,
            cache_cluster: log_cache::ClusterConfig::default(),
            flush_timeout: Duration::from_secs(25),
            admin: AdminConfig::default(),
        }
    }
}

/// The doppler's gRPC port: `loggregator.v2` ingress and egress, `hydrant.v1`, and the log-cache services.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where to listen. Default `127.0.0.1:8082`; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Certificate, key and CA bundle: with them every peer must show a certificate of that CA. Without them the port is plaintext.
    pub tls: Option<TlsFiles>,
    /// Serve plain text, to anybody, also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// Which certificates may call what; any of the authorities, everything. Holds for `cache_grpc` too.
    pub access: AccessConfig,
    /// HTTP/2 limits.
    pub limits: GrpcLimits,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8082).into(),
            tls: None,
            insecure_plaintext: false,
            access: AccessConfig::default(),
            limits: GrpcLimits::default(),
        }
    }
}

/// The port that serves the log-cache services alone. TLS as on the doppler's gRPC port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheGrpcConfig {
    /// Where to listen. Default `127.0.0.1:8080`; port 0 takes any free port.
    pub listen: SocketAddr,
}

impl Default for CacheGrpcConfig {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 8080).into() }
    }
}

/// Bounds of every subscription.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Envelopes that a subscription's ring holds before its loudest source loses its oldest. Default 65 536.
    pub ring_envelopes: NonZeroUsize,
    /// Bytes that a subscription's ring keeps alive. Default 16 MiB.
    pub ring_bytes: NonZeroUsize,
    /// Envelopes in one message to a consumer, at most. Default 1 000.
    pub batch_envelopes: NonZeroUsize,
    /// Bytes in one message to a consumer, at most, unless a single envelope is larger. Default 1 MiB: many consumers take no message
    /// over 4 MiB.
    pub batch_bytes: NonZeroUsize,
    /// How often losses are told, as counters `lost_envelopes` of the source `hydrant`. Default `"10s"`.
    #[serde(with = "duration_text")]
    pub tell_losses: Duration,
}

impl Default for EgressConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            ring_envelopes: some(65_536),
            ring_bytes: some(16 * 1024 * 1024),
            batch_envelopes: some(1_000),
            batch_bytes: some(1024 * 1024),
            tell_losses: Duration::from_secs(10),
        }
    }
}

#[cfg(feature = "test-util")]
impl Config {
    /// The defaults on any free ports.
    pub fn for_test() -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            grpc: GrpcConfig { listen: any, ..GrpcConfig::default() },
            cache_grpc: CacheGrpcConfig { listen: any },
            admin: AdminConfig::any_port(),
            // Who counts envelopes to the last must not meet more than it sent.
            egress: EgressConfig { tell_losses: Duration::from_secs(3600), ..EgressConfig::default() },
            ..Self::default()
        }
    }
}
