//! What an agent can be told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::cgroup::ContainersConfig;
use crate::dropsonde::DropsondeConfig;
use crate::files::{FileReadingConfig, FilesConfig};
use crate::forward::ForwardConfig;
use crate::host::HostConfig;
use crate::limits::LimitsConfig;
use crate::nats::config::{NatsConfig, NatsConfigError};
use crate::scrape::ScrapeConfig;
use crate::statsd::StatsdConfig;
use crate::syslog::SyslogConfig;
use serde::{Deserialize, Serialize};
use telemetry::AdminConfig;
use transport::{AccessConfig, DopplerSet, GrpcLimits, LinkLimits, TlsFiles, duration_text};

/// The port that `/metrics`, `/live` and `/ready` are on unless configured otherwise.
pub(crate) const ADMIN_PORT: u16 = 14824;

/// The `[agent]` table. The default runs on loopback and sends to a doppler on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where producers send envelopes.
    pub grpc: GrpcConfig,
    /// Where programs send statsd metrics.
    pub statsd: StatsdConfig,
    /// Where programs send dropsonde envelopes.
    pub dropsonde: DropsondeConfig,
    /// Where syslog daemons send messages; `[[syslog]]` entries. None.
    pub syslog: Vec<SyslogConfig>,
    /// Pages of metrics to scrape.
    pub scrape: ScrapeConfig,
    /// The machine's own numbers.
    pub host: HostConfig,
    /// What containers on this machine use.
    pub containers: ContainersConfig,
    /// What one source may send.
    pub limits: LimitsConfig,
    /// Consumers beside the agent.
    pub forward: ForwardConfig,
    /// Files of lines to read; `[[files]]` entries. None.
    pub files: Vec<FilesConfig>,
    /// What all of those share.
    pub file_reading: FileReadingConfig,
    /// Streams of NATS to read; `[[nats]]` entries. None.
    pub nats: Vec<NatsConfig>,
    /// What every envelope gets.
    pub tags: TagsConfig,
    /// The dopplers to send to; `[[dopplers]]` entries. One at 127.0.0.1:8082.
    pub dopplers: Vec<DopplerSet>,
    /// The zone that this agent is in: dopplers of the same zone are used, and others only while those are away or too few. Absent: all
    /// are used alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The most dopplers of a zone that this agent sends to; absent: all. For fleets so large that dopplers must not hold a connection of
    /// every agent; each agent chooses its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dopplers: Option<NonZeroUsize>,
    /// What to show to dopplers and whom to trust; a doppler's certificate must name `doppler`. Absent: plain text.
    pub doppler_tls: Option<TlsFiles>,
    /// Windows, keepalive and patience of the connections to dopplers.
    pub doppler_limits: LinkLimits,
    /// The ring, and the batches that leave it.
    pub egress: EgressConfig,
    /// How long a stop may take to deliver what is in the ring; `"25s"`. What is left then is counted as `shutdown_deadline`.
    #[serde(with = "duration_text")]
    pub flush_timeout: Duration,
    /// `/metrics`, `/live` and `/ready`.
    pub admin: AdminConfig<ADMIN_PORT>,
}

/// The `[agent.grpc]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcConfig {
    /// Where to listen; 127.0.0.1:3458. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The certificate to show, which must name `metron`, and the authorities that producers must come from. Absent: plain text.
    pub tls: Option<TlsFiles>,
    /// Serve plain text, to anybody, also on another address than loopback; false. Shown as `hydrant_insecure_mode`.
    pub insecure_plaintext: bool,
    /// Which certificates may call what; any of the authorities, everything.
    pub access: AccessConfig,
    /// HTTP/2 limits.
    pub limits: GrpcLimits,
}

/// The `[agent.tags]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TagsConfig {
    /// Tags added to every envelope that does not have them, such as `{ deployment = "cf", job = "router" }`. None.
    pub set: BTreeMap<String, String>,
    /// Whether `set` also replaces what a sender wrote; false, as the original has it.
    pub force: bool,
}

/// The `[agent.egress]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressConfig {
    /// Envelopes that may wait for a doppler; 200 000. Past that the source with most of them loses its oldest.
    pub ring_envelopes: NonZeroUsize,
    /// Bytes that may wait for a doppler; 64 MiB.
    pub ring_bytes: NonZeroUsize,
    /// Envelopes in one message; 1 000.
    pub batch_envelopes: NonZeroUsize,
    /// Bytes in one message; 1 MiB. A larger envelope goes alone.
    pub batch_bytes: NonZeroUsize,
    /// Bytes sent to a doppler and not yet acknowledged; 4 MiB, and less where there are more than eight dopplers. What is acknowledged
    /// late is kept to be sent again.
    pub window_bytes: NonZeroUsize,
    /// How old a connection to a doppler may get, give or take a fifth, before another takes its place; `"15m"`.
    #[serde(with = "duration_text")]
    pub link_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let doppler = SocketAddr::from((Ipv4Addr::LOCALHOST, 8082));
        Self {
            grpc: GrpcConfig::default(),
            statsd: StatsdConfig::default(),
            dropsonde: DropsondeConfig::default(),
            syslog: Vec::new(),
            scrape: ScrapeConfig::default(),
            host: HostConfig::default(),
            containers: ContainersConfig::default(),
            limits: LimitsConfig::default(),
            forward: ForwardConfig::default(),
            files: Vec::new(),
            file_reading: FileReadingConfig::default(),
            nats: Vec::new(),
            tags: TagsConfig::default(),
            dopplers: vec![DopplerSet::of([doppler])],
            zone: None,
            max_dopplers: None,
            doppler_tls: None,
            doppler_limits: LinkLimits::default(),
            egress: EgressConfig::default(),
            flush_timeout: Duration::from_secs(25),
            admin: AdminConfig::default(),
        }
    }
}

impl Config {
    /// Looks at what its types do not say.
    ///
    /// # Errors
    /// The first entry that cannot be.
    pub fn check(&self) -> Result<(), NatsConfigError> {
        self.nats.iter().try_for_each(NatsConfig::check)
    }
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 3458).into(),
            tls: None,
            insecure_plaintext: false,
            access: AccessConfig::default(),
            limits: GrpcLimits::default(),
        }
    }
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            ring_envelopes: some(200_000),
            ring_bytes: some(64 * 1024 * 1024),
            batch_envelopes: some(1_000),
            batch_bytes: some(1024 * 1024),
            window_bytes: some(4 * 1024 * 1024),
            link_age: Duration::from_secs(15 * 60),
        }
    }
}

const fn some(value: usize) -> NonZeroUsize {
    match NonZeroUsize::new(value) {
        Some(value) => value,
        None => NonZeroUsize::MIN,
    }
}

#[cfg(feature = "test-util")]
impl Config {
    /// The defaults on any free ports, sending to `doppler`.
    pub fn for_test(doppler: SocketAddr) -> Self {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            grpc: GrpcConfig { listen: any, ..GrpcConfig::default() },
            statsd: StatsdConfig { listen: any, ..StatsdConfig::default() },
            dropsonde: DropsondeConfig { listen: any, ..DropsondeConfig::default() },
            dopplers: vec![DopplerSet::of([doppler])],
            admin: AdminConfig::any_port(),
            ..Self::default()
        }
    }
}
