//! The `[adapters.bindings]` table.

use std::path::PathBuf;
use std::time::Duration;

use transport::duration_text;

use crate::config::RingConfig;
use crate::fetch::{ServiceTls, ServiceUrl};
use crate::policy::AddressRules;

/// Drains that apps' owners bind in Cloud Foundry, read from a binding cache.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct BindingsConfig {
    /// The binding cache, as `https://host:9000`.
    pub url: ServiceUrl,
    /// Whom to trust as the cache, and what to show to it. Absent: the system's authorities, and nothing.
    #[serde(default)]
    pub tls: Option<ServiceTls>,
    /// Between two looks, and up to the same again, chosen once; `"60s"`, at least `"10ms"`. A look that fails is repeated sooner.
    #[serde(with = "duration_text", default = "minute")]
    pub interval: Duration,
    /// The drains of one app: of more, the first by URL; 5.
    #[serde(default = "five")]
    pub limit_per_app: usize,
    /// The drains of all apps; 10 000.
    #[serde(default = "most")]
    pub max_bindings: usize,
    /// Whether to take the cache's drains of everything too; true.
    #[serde(default = "yes")]
    pub aggregate: bool,
    /// Whether tags are sent when a URL says nothing about it; true.
    #[serde(default = "yes")]
    pub default_metadata: bool,
    /// Whether owners of bindings that have no drain are told why, once each, in the app's own stream; true.
    #[serde(default = "yes")]
    pub tell_owners: bool,
    /// A PEM file of authorities that these drains trust besides those of the system and their own. Absent: none. Read at the start.
    #[serde(default)]
    pub trusted_ca: Option<PathBuf>,
    /// What may wait for the destination of each.
    #[serde(default)]
    pub ring: RingConfig,
    /// Where drains of apps may not go.
    #[serde(default)]
    pub addresses: AddressRules,
}

impl BindingsConfig {
    /// The defaults, with this cache.
    pub fn new(url: ServiceUrl) -> Self {
        Self {
            url,
            tls: None,
            interval: minute(),
            limit_per_app: five(),
            max_bindings: most(),
            aggregate: true,
            default_metadata: true,
            tell_owners: true,
            trusted_ca: None,
            ring: RingConfig::default(),
            addresses: AddressRules::default(),
        }
    }
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn five() -> usize {
    5
}

fn most() -> usize {
    10_000
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn tables_are_read_and_mistakes_are_told_with_what_is_right() {
        let read = |text: &str| toml::from_str::<Config>(text).map_err(|error| error.to_string());
        let text = "[bindings]\nurl = \"https://cache.internal:9000\"\n\n[bindings.tls]\nca = \"ca.pem\"\nserver_name = \"binding-cache\"\n\n[bindings.addresses]\ndeny = [\"10.0.16.0/20\"]\n\n[binding_cache]\nlisten = \"0.0.0.0:9000\"\ncloud_controller.url = \"https://cc.internal:9023\"\naddresses.deny_private = true\n";
        let config = read(text).unwrap();
        let (bindings, cache) = (config.bindings.unwrap(), config.binding_cache.unwrap());
        assert_eq!((bindings.limit_per_app, bindings.max_bindings, bindings.aggregate), (5, 10_000, true));
        assert_eq!((cache.batch_size.get(), cache.resolve, cache.addresses.deny_private), (1000, true, true));
        let error = |text: &str| read(text).unwrap_err();
        assert!(error("[bindings]\n").contains("missing field `url`"));
        assert!(error("[bindings]\nurl = \"cache:9000\"\n").contains("begin with http:// or https://"));
        let text = "[bindings]\nurl = \"http://cache\"\naddresses.allow = [\"10.0.0.0/33\"]\n";
        assert!(error(text).contains("write 10.0.0.0/8, 10.0.0.1 or 10.0.0.1-10.0.0.9"));
        assert!(error("[binding_cache]\nlisten = \"127.0.0.1:9000\"\n").contains("missing field `cloud_controller`"));
    }
}
