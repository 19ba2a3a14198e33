//! What a cache node can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use telemetry::AdminConfig;
use transport::{AccessConfig, GrpcLimits, TlsFiles};

use crate::cluster::ClusterConfig;
use crate::config::Config;
use crate::intake::SyslogConfig;

/// The port that `/metrics`, `/live` and `/ready` of a cache node are on unless configured otherwise.
pub const ADMIN_PORT: u16 = 14828;

/// The configuration of a cache node of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Where envelopes are brought and read.
    pub grpc: NodeGrpcConfig,
    /// Where syslog is taken.
    pub syslog: SyslogConfig,
    /// The cache of recent envelopes.
    pub cache: Config,
    /// The other nodes, where there are some.
    pub cluster: ClusterConfig,
    /// How long a stop may take to bring other nodes what waits for them. What is left then is counted as `shutdown_deadline`.
    pub flush_timeout: Duration,
    /// `/metrics`, `/live`, `/ready`.
    pub admin: AdminConfig<ADMIN_PORT>,
}

/// How long a stop may take unless configured otherwise.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(25);

/// The `[log_cache.grpc]` table: `logcache.v1` and `hydrant.v1.Follow`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeGrpcConfig {
    /// Where to listen. Default `127.0.0.1:8080`; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Certificate, key and CA bundle: with them every peer must show a certificate of that CA. The certificate must name `log-cache`.
    /// Without them the port is plaintext.
    pub tls: Option<TlsFiles>,
    /// Serve plain text, to anybody, also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// Which certificates may call what; any of the authorities, everything.
    pub access: AccessConfig,
    /// HTTP/2 limits.
    pub limits: GrpcLimits,
}

impl Default for NodeGrpcConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            tls: None,
            insecure_plaintext: false,
            access: AccessConfig::default(),
            limits: GrpcLimits::default(),
        }
    }
}

#[cfg(feature = "test-util")]
impl NodeConfig {
    /// The defaults on any free ports.
    pub fn for_test() -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            grpc: NodeGrpcConfig { listen: any, ..NodeGrpcConfig::default() },
            syslog: SyslogConfig::for_test(),
            cache: Config::with_budget(64 << 20),
            cluster: ClusterConfig::default(),
            flush_timeout: FLUSH_TIMEOUT,
            admin: AdminConfig::any_port(),
        }
    }
}
