//! The `[adapters.binding_cache]` table.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use transport::{TlsFiles, duration_text};

use crate::fetch::{ServiceTls, ServiceUrl};
use crate::policy::AddressRules;

/// A binding cache of our own: reads Cloud Controller, and serves what can be a drain to agents and adapters.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct BindingCacheConfig {
    /// Where to serve; 127.0.0.1:9000.
    #[serde(default = "port_9000")]
    pub listen: SocketAddr,
    /// What to show to those who ask, and whose certificates they must have. Absent: plain text, with `insecure_plaintext`.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Whether to serve without TLS: on a loopback address alone, where every process of the machine can then read the keys of all
    /// bindings. False.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Cloud Controller.
    pub cloud_controller: CloudControllerConfig,
    /// Between two looks; `"60s"`, at least `"10ms"`. A look that fails is repeated sooner.
    #[serde(with = "duration_text", default = "minute")]
    pub poll_interval: Duration,
    /// Drains in one answer of Cloud Controller; 1 000.
    #[serde(default = "thousand")]
    pub batch_size: NonZeroUsize,
    /// A YAML list of drains of everything, with `url`, `cert`, `key` and `ca`. Absent: none. Read with each look.
    #[serde(default)]
    pub aggregate_drains_file: Option<PathBuf>,
    /// Whether hosts of drains are looked up, and those that do not resolve are left out; true.
    #[serde(default = "yes")]
    pub resolve: bool,
    /// Where drains of apps may not go.
    #[serde(default)]
    pub addresses: AddressRules,
}

/// Where Cloud Controller is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct CloudControllerConfig {
    /// Its internal API, as `https://cloud-controller-ng.service.cf.internal:9023`.
    pub url: ServiceUrl,
    /// Whom to trust, and what to show. Absent: the system's authorities, and nothing.
    #[serde(default)]
    pub tls: Option<ServiceTls>,
}

impl BindingCacheConfig {
    /// The defaults, with this Cloud Controller.
    pub fn new(cloud_controller: ServiceUrl) -> Self {
        Self {
            listen: port_9000(),
            tls: None,
            insecure_plaintext: false,
            cloud_controller: CloudControllerConfig { url: cloud_controller, tls: None },
            poll_interval: minute(),
            batch_size: thousand(),
            aggregate_drains_file: None,
            resolve: true,
            addresses: AddressRules::default(),
        }
    }
}

fn port_9000() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9000).into()
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn thousand() -> NonZeroUsize {
    NonZeroUsize::new(1000).expect("a default is not zero")
}

fn yes() -> bool {
    true
}
