//! The configuration of the adapters: plain data, checked as it is read.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use telemetry::AdminConfig;
use transport::{Address, DopplerSet, LinkLimits, TlsFiles, duration_text};

use crate::binding_cache::BindingCacheConfig;
use crate::bindings::BindingsConfig;
use crate::otlp::OtlpError;
use crate::select::SelectError;
use crate::syslog::preset::StyleError;

pub use self::drain::{Buffer, DiskConfig, DrainConfig, DrainTls, RingConfig};

mod drain;

/// The smallest buffer on disk: the largest envelope takes a segment of an eighth of it.
pub(crate) const LEAST_DISK: u64 = 16 * 1024 * 1024;
/// How long values may gather for a request.
const MIN_GATHER: Duration = Duration::from_millis(1);
const MAX_GATHER: Duration = Duration::from_secs(60 * 60);
/// The longest name of a drain, in bytes.
pub(crate) const MAX_NAME: usize = 128;
/// The usual admin port of the adapters.
pub const ADMIN_PORT: u16 = 14827;

/// The `[adapters]` table. The default reads from a doppler on loopback and has no drain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where envelopes go; `[[drains]]` entries. None.
    pub drains: Vec<DrainConfig>,
    /// The dopplers to read from; `[[dopplers]]` entries. One at 127.0.0.1:8082.
    pub dopplers: Vec<DopplerSet>,
    /// What to show to dopplers and whom to trust; a doppler's certificate must name `doppler`. Absent: plain text.
    pub doppler_tls: Option<TlsFiles>,
    /// Windows, keepalive and patience of the connections to dopplers.
    pub doppler_limits: LinkLimits,
    /// The agent that takes notices to owners of lost lines; 127.0.0.1:3458.
    pub agent: Address,
    /// What to show to the agent and whom to trust; its certificate must name `metron`. Absent: plain text.
    pub agent_tls: Option<TlsFiles>,
    /// How long a stop may take to deliver what waits in the drains; `"25s"`. What is left then is counted as `shutdown_deadline`.
    #[serde(with = "duration_text")]
    pub flush_timeout: Duration,
    /// Where drains that were added while running are kept, for the next start, and the buffers of drains on disk; the user `hydrant` runs
    /// as must be able to write there. Absent: no drain can be added, and none buffers on disk.
    pub state_dir: Option<PathBuf>,
    /// What the buffers of all drains on disk may take together; 4 GiB.
    pub disk_bytes: u64,
    /// Drains that apps' owners bind in Cloud Foundry. Absent: none are read.
    pub bindings: Option<BindingsConfig>,
    /// A binding cache of our own. Absent: none is served.
    pub binding_cache: Option<BindingCacheConfig>,
    /// `/metrics`, `/live` and `/ready`; on loopback also `/v1/drains`.
    pub admin: AdminConfig<ADMIN_PORT>,
}

/// Why a configuration cannot run, though each of its values can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two drains of one name would share envelopes.
    #[error("drains: two drains are called \"{0}\"; give each its own name")]
    SameName(String),
    /// A drain without a name.
    #[error("drains: the name of the drain to {0} is empty; give it one")]
    NoName(String),
    /// A buffer on disk, and no directory for it.
    #[error("drains: the drain \"{0}\" buffers on disk; set adapters.state_dir to a directory for that")]
    NoDirectory(String),
    /// A buffer that could not hold a large envelope.
    #[error("drains: disk.bytes of the drain \"{0}\" is {1}; at least {LEAST_DISK} are needed")]
    SmallDisk(String, u64),
    /// Values would gather for too long, or not at all.
    #[error("drains: {1} of the drain \"{0}\" is 1ms to 1h")]
    Gather(String, &'static str),
    /// Nothing could be written then.
    #[error("drains: disk.keep_free_percent of the drain \"{0}\" is {1}; it is 0 to 99")]
    KeepFree(String, u8),
    /// A drain of lines with a `metrics` table.
    #[error(
        "drains: the drain \"{0}\" has a metrics table, and its URL is {1}, which takes no series of Prometheus; leave the table out, or write remote-write+https:// or prometheus://"
    )]
    NoMetrics(String, String),
    /// A drain to elsewhere with a `datadog` table.
    #[error(
        "drains: the drain \"{0}\" has a datadog table, and its URL is {1}; leave the table out, or write datadog://datadoghq.com"
    )]
    NoDatadog(String, String),
    /// A drain to elsewhere with an `otlp` table.
    #[error(
        "drains: the drain \"{0}\" has an otlp table, and its URL is {1}; leave the table out, or write otlp+grpc://, otlp+grpcs://, otlp+http:// or otlp+https://"
    )]
    NoOtlp(String, String),
    /// An `otlp` table that cannot be used.
    #[error("drains: the drain \"{drain}\": {error}")]
    Otlp {
        /// The drain's name.
        drain: String,
        /// What is wrong.
        error: OtlpError,
    },
    /// Signals that the URL leaves nothing of.
    #[error(
        "drains: the drain \"{0}\" would send nothing: otlp.signals names no signal of the envelopes that its URL asks for; leave drain-data out, or name another signal"
    )]
    NoEnvelopes(String),
    /// A drain to elsewhere with a `nats` table.
    #[error(
        "drains: the drain \"{0}\" has a nats table, and its URL is {1}; leave the table out, or write nats://host/STREAM"
    )]
    NoNats(String, String),
    /// What is for NATS does not go together.
    #[error("drains: the drain \"{0}\" to NATS: {1}")]
    Nats(String, String),
    /// A drain to what this program cannot reach as it was built.
    #[error(
        "drains: the drain \"{drain}\" goes to {url}, and this hydrant was built without {what}; build it with --features {feature}"
    )]
    NoFeature {
        /// The drain's name.
        drain: String,
        /// Its URL, anonymised.
        url: String,
        /// What is missing, as people call it.
        what: &'static str,
        /// The feature of the `hydrant` crate that adds it.
        feature: &'static str,
    },
    /// A site whose intakes cannot be named.
    #[error("drains: the drain \"{0}\" names {1}; write the site of your account, as datadog://datadoghq.eu")]
    Site(String, String),
    /// A drain to Datadog without a key.
    #[error("drains: the drain \"{0}\" to Datadog needs the API key of your account; set token_file, or token")]
    NoKey(String),
    /// A drain of metrics with what is for lines.
    #[error(
        "drains: the drain \"{0}\" has a preset, labels or a line table, and its URL is {1}, which takes no lines; leave them out"
    )]
    NoLines(String, String),
    /// A token that nobody would be shown.
    #[error("drains: the drain \"{0}\" has a token, and its URL is {1}, where nobody is shown one; leave it out")]
    NoToken(String, String),
    /// A token that cannot be sent.
    #[error("drains: the token of the drain \"{0}\": {1}")]
    Token(String, String),
    /// A page at a name.
    #[error(
        "drains: the drain \"{0}\" serves a page at {1}; write an address of this machine and a port, as prometheus://127.0.0.1:9186"
    )]
    PageAddress(String, String),
    /// More on disk than all drains together may have.
    #[error("drains: the buffers of all drains on disk may take {1} bytes together, and adapters.disk_bytes is {0}")]
    MuchDisk(u64, u64),
    /// A name that is too long.
    #[error("drains: the name of the drain to {0} has {1} bytes; at most {MAX_NAME} are taken")]
    LongName(String, usize),
    /// An empty source would ask for everything.
    #[error(
        "drains: the drain \"{0}\" has an empty source; name each source, or leave `sources` out to send everything"
    )]
    EmptySource(String),
    /// A `tls` table without TLS would promise what is not kept.
    #[error(
        "drains: the drain \"{drain}\" has a tls table, and its URL is {url}; write syslog-tls://, https:// or nats-tls://, or leave the table out"
    )]
    TlsOnPlain {
        /// The drain's name.
        drain: String,
        /// Its URL, anonymised.
        url: String,
    },
    /// A certificate without key, or a key without certificate.
    #[error("drains: the drain \"{drain}\" has tls.{given} without tls.{missing}; name both, or none")]
    HalfPair {
        /// The drain's name.
        drain: String,
        /// The key that is there.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// The lines cannot look as they should.
    #[error("drains: the drain \"{drain}\": {error}")]
    Line {
        /// The drain's name.
        drain: String,
        /// What is wrong.
        error: StyleError,
    },
    /// Patterns that cannot be used.
    #[error("drains: the drain \"{drain}\": {error}")]
    Select {
        /// The drain's name.
        drain: String,
        /// What is wrong.
        error: SelectError,
    },
    /// What the receiver's certificate must carry could stand in none.
    #[error(
        "drains: the drain \"{drain}\" cannot ask a certificate for {name:?}, which is no DNS name or address; set tls.server_name"
    )]
    ServerName {
        /// The drain's name.
        drain: String,
        /// The name that was to be asked for.
        name: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port: u16| Address::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            drains: Vec::new(),
            dopplers: vec![DopplerSet::of([loopback(8082)])],
            doppler_tls: None,
            doppler_limits: LinkLimits::default(),
            agent: loopback(3458),
            agent_tls: None,
            flush_timeout: Duration::from_secs(25),
            state_dir: None,
            disk_bytes: 4 * 1024 * 1024 * 1024,
            bindings: None,
            binding_cache: None,
            admin: AdminConfig::default(),
        }
    }
}

impl Config {
    /// Looks at the drains together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        for (i, drain) in self.drains.iter().enumerate() {
            drain.check()?;
            if self.drains[..i].iter().any(|other| other.name == drain.name) {
                return Err(ConfigError::SameName(drain.name.clone()));
            }
        }
        let on_disk = self.drains.iter().map(DrainConfig::disk_bytes).fold(0, u64::saturating_add);
        if on_disk > self.disk_bytes {
            return Err(ConfigError::MuchDisk(self.disk_bytes, on_disk));
        }
        Ok(())
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Config {
    /// The defaults on any free port of 127.0.0.1, without doppler and drains.
    pub fn for_test() -> Self {
        Self { dopplers: Vec::new(), admin: AdminConfig::any_port(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_needs_a_name_and_a_url() {
        let text = "[[drains]]\nname = \"papertrail\"\nurl = \"syslog://logs.example:514?drain-data=all\"\nsources = [\"app\"]\n";
        let config: Config = toml::from_str(text).unwrap();
        let url = "syslog://logs.example:514?drain-data=all".parse().unwrap();
        let drain = DrainConfig { sources: vec!["app".to_owned()], ..DrainConfig::new("papertrail", url) };
        assert_eq!(config, Config { drains: vec![drain], ..Config::default() });
        assert!(config.drains[0].announces());
        assert_eq!(config.check(), Ok(()));
        let error = toml::from_str::<Config>("[[drains]]\nname = \"x\"\n").unwrap_err().to_string();
        assert!(error.contains("missing field `url`"), "{error}");
    }

    #[test]
    fn wrong_keys_and_values_are_refused_with_what_is_right() {
        let error = |more: &str| {
            let text = format!("[[drains]]\nname = \"x\"\nurl = \"syslog://h:1\"\n{more}");
            toml::from_str::<Config>(&text).unwrap_err().to_string()
        };
        assert!(error("source = [\"a\"]").contains("`sources`"));
        assert!(error("retry = \"never\"").contains("`jittered`"));
        assert!(error("ring.envelopes = 0").contains("nonzero"));
        let error = toml::from_str::<Config>("flush_timeout = \"soon\"").unwrap_err().to_string();
        assert!(error.contains("written like \"60s\""), "{error}");
        let error =
            toml::from_str::<Config>("[[drains]]\nname = \"x\"\nurl = \"http://h:1\"\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("write syslog://host:port"), "{error}");
        let text = "[[drains]]\nname = \"x\"\nurl = \"syslog-tls://h:1\"\ntls = { skip_verify = true }\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("`insecure_skip_verify`"), "{error}");
    }

    #[test]
    fn a_tls_table_goes_with_the_url_and_names_both_files() {
        let check = |url: &str, tls: &str| {
            let text = format!("[[drains]]\nname = \"x\"\nurl = \"{url}\"\n{tls}");
            toml::from_str::<Config>(&text).unwrap().check().map_err(|error| error.to_string())
        };
        assert_eq!(check("syslog-tls://h:1", ""), Ok(()));
        assert_eq!(check("syslog-tls://[::1]:1", ""), Ok(()));
        let whole =
            "[drains.tls]\nca = \"ca.pem\"\ncert = \"a.pem\"\nkey = \"a.key\"\nserver_name = \"logs.example\"\n";
        assert_eq!(check("syslog-tls://10.0.0.1:6514", whole), Ok(()));
        assert_eq!(
            check("syslog://user:canary@h:1", "tls = {}").unwrap_err(),
            "drains: the drain \"x\" has a tls table, and its URL is syslog://h:1; write syslog-tls://, https:// or nats-tls://, or leave the table out"
        );
        assert_eq!(
            check("syslog-tls://h:1", "tls.cert = \"a.pem\"").unwrap_err(),
            "drains: the drain \"x\" has tls.cert without tls.key; name both, or none"
        );
        assert!(check("syslog-tls://h:1", "tls.key = \"a.key\"").unwrap_err().contains("tls.key without tls.cert"));
        assert!(
            check("syslog-tls://h:1", "tls.server_name = \"a b\"")
                .unwrap_err()
                .contains("cannot ask a certificate for \"a b\"")
        );
    }

    #[test]
    fn drains_are_told_apart_by_name() {
        let config = |names: &[&str]| {
            let drain = |name: &&str| DrainConfig::new(*name, "syslog://h:1".parse().unwrap());
            Config { drains: names.iter().map(drain).collect(), ..Config::default() }
        };
        assert_eq!(config(&["a", "b"]).check(), Ok(()));
        assert_eq!(config(&["a", "b", "a"]).check(), Err(ConfigError::SameName("a".to_owned())));
        assert_eq!(config(&[""]).check(), Err(ConfigError::NoName("syslog://h:1".to_owned())));
        let mut empty = config(&["a"]);
        empty.drains[0].sources.push(String::new());
        assert_eq!(empty.check(), Err(ConfigError::EmptySource("a".to_owned())));
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let text = "[[drains]]\nname = \"x\"\nurl = \"syslog://canary:canary@h:1?token=canary\"\n";
        let config: Config = toml::from_str(text).unwrap();
        let dumped = serde_json::to_string(&config).unwrap();
        assert!(!format!("{config:?}").contains("canary"), "{config:?}");
        assert!(!dumped.contains("canary") && dumped.contains("syslog://h:1"), "{dumped}");
    }
}
