//! `hydrant log-cache`: a cache node of its own, and the log cache over HTTP in front of it.
//!
//! What enters: the `[log_cache]` table, and who may read what out of `[traffic_controller]`. What leaves: the node of the log-cache crate
//! and the HTTP port of the traffic controller's, which reads from the node over gRPC as from any other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log_cache::{ClusterConfig, Drained, NodeConfig, NodeGrpcConfig, ServeError, SyslogConfig};
use serde::{Deserialize, Serialize};
use telemetry::{AdminConfig, Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use traffic_controller::{CacheRest, RestConfig};
use transport::{ChannelOptions, duration_text};

/// The `[log_cache]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogCacheConfig {
    /// `logcache.v1` over gRPC, 127.0.0.1:8080.
    pub grpc: NodeGrpcConfig,
    /// Syslog in, 127.0.0.1:6067.
    pub syslog: SyslogConfig,
    /// Reading over HTTP, 127.0.0.1:8083.
    pub rest: RestConfig,
    /// The cache of recent envelopes.
    pub cache: log_cache::Config,
    /// The other nodes, where there are some.
    pub cluster: ClusterConfig,
    /// How long a stop may take to bring other nodes what waits for them; `"25s"`. What is left then is counted as `shutdown_deadline`.
    #[serde(with = "duration_text")]
    pub flush_timeout: Duration,
    /// `/metrics`, `/live` and `/ready`.
    pub admin: AdminConfig<{ log_cache::ADMIN_PORT }>,
}

impl Default for LogCacheConfig {
    fn default() -> Self {
        Self {
            grpc: NodeGrpcConfig::default(),
            syslog: SyslogConfig::default(),
            rest: RestConfig::default(),
            cache: log_cache::Config::default(),
            cluster: ClusterConfig::default(),
            flush_timeout: log_cache::FLUSH_TIMEOUT,
            admin: AdminConfig::default(),
        }
    }
}

/// Where a cache node listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addrs {
    pub(crate) node: log_cache::Addrs,
    pub(crate) rest: SocketAddr,
}

/// A cache node as it is configured: its own table, and the one with the authorizer.
#[derive(Debug)]
pub(crate) struct CacheNode {
    config: LogCacheConfig,
    readers: traffic_controller::Config,
}

/// A cache node with everything bound and nothing running.
pub(crate) struct Server {
    node: log_cache::Server,
    rest: CacheRest,
}

impl CacheNode {
    pub(crate) fn new(config: LogCacheConfig, readers: traffic_controller::Config) -> Self {
        Self { config, readers }
    }

    /// What can be found out without opening a file or a port.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        CacheRest::check(&self.config.rest, &self.readers)?;
        Ok(self.config.split().0.check()?)
    }

    pub(crate) async fn bind(self, telemetry: &Telemetry) -> anyhow::Result<Server> {
        let (node, rest) = self.config.split();
        let node = node.bind(telemetry).await?;
        let rest = CacheRest::bind(&rest, &self.readers, telemetry, &node.readiness())?;
        Ok(Server { node, rest })
    }
}

impl LogCacheConfig {
    fn split(self) -> (NodeConfig, RestConfig) {
        let Self { grpc, syslog, rest, cache, cluster, flush_timeout, admin } = self;
        (NodeConfig { grpc, syslog, cache, cluster, flush_timeout, admin }, rest)
    }
}

impl Server {
    pub(crate) fn addrs(&self) -> Addrs {
        Addrs { node: self.node.addrs(), rest: self.rest.addr() }
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.node.readiness()
    }

    /// Serves until `stop`: HTTP ends first, as it asks the node.
    pub(crate) async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let Self { node, rest } = self;
        let addr = reachable(node.addrs().grpc);
        let options = node.identity().map_or_else(ChannelOptions::default, |own| ChannelOptions::tls(own, "log-cache"));
        let ended = CancellationToken::new();
        let rest = async {
            rest.serve(addr.into(), options, stop.clone()).await;
            ended.cancel();
        };
        let node = async {
            let served = node.serve(ended.clone()).await;
            // By itself it ends only when it has failed: then nothing can be read over HTTP either.
            stop.cancel();
            served
        };
        tokio::join!(node, rest).0
    }
}

/// The address at which this process reaches a port that listens on `addr`.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    addr
}
