//! The configuration of the adapters: plain data, checked as it is read.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use diode::fair::Bounds;
use http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use telemetry::AdminConfig;
use transport::{Address, DopplerSet, LinkLimits, TlsFiles, duration_text};

use crate::binding_cache::BindingCacheConfig;
use crate::bindings::BindingsConfig;
use crate::datadog::DatadogConfig;
use crate::nats::config::NatsConfig;
use crate::otlp::{OtlpConfig, OtlpError, Signal, Timers};
use crate::prometheus::MetricsConfig;
use crate::push::maker::Maker;
use crate::retry::Schedule;
use crate::select::{Select, SelectError};
use crate::syslog::config::{DrainUrl, Kinds, Scheme, Secret};
use crate::syslog::encode::Style;
use crate::syslog::preset::{self, LineConfig, Preset, StyleError, Wanted};

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

/// One `[[drains]]` entry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct DrainConfig {
    /// Names the drain in logs and among adapters: several processes with a drain of the same name share its envelopes.
    pub name: String,
    /// Where to, and what, as `syslog://host:port?drain-data=all`, or `syslog-tls://…`, `syslog-udp://…`, `https://…`, `https-batch://…`, `nats://host/STREAM`. Shown without user name, password and options.
    pub url: DrainUrl,
    /// A receiver that expects more than RFC 5424 says. Absent: none.
    #[serde(default)]
    pub preset: Option<Preset>,
    /// The token of the account, for a preset that wants one. Never shown. Absent: none.
    #[serde(default)]
    pub token: Option<Secret>,
    /// A file whose first line is that token, read at the start. Absent: none.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// What a preset marks lines with: Loggly's tags, the type of Logz.io's logs. None.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How lines look.
    #[serde(default)]
    pub line: LineConfig,
    /// Whom a drain over TLS trusts and what it shows. Absent: it trusts the system's authorities and shows nothing.
    #[serde(default)]
    pub tls: Option<DrainTls>,
    /// The sources to send; empty sends those of everybody, or those of `source_patterns` alone.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Sources to send besides, with `*` for any text; at most 64 of at most 256 bytes. None.
    #[serde(default)]
    pub source_patterns: Vec<String>,
    /// Of the sources, send only envelopes whose tags have these values; `*` in a value is any text. None.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// HOSTNAME for envelopes whose tags name no app, space and organization; empty is `-`.
    #[serde(default)]
    pub hostname: String,
    /// Whether tags are sent when the URL says nothing about it; true.
    #[serde(default = "yes")]
    pub metadata: bool,
    /// Whether owners are told of lost envelopes in their own streams; true for a drain that names its sources.
    #[serde(default)]
    pub announce: Option<bool>,
    /// Whether lines that a broken connection may have lost are written again, up to 1 MiB and 15 s of them; true. They may arrive
    /// twice. False counts them as uncertain.
    #[serde(default = "yes")]
    pub resend: bool,
    /// How failed attempts are repeated: `"jittered"` or `"original"`.
    #[serde(default)]
    pub retry: Schedule,
    /// What may wait for the destination in memory.
    #[serde(default)]
    pub ring: RingConfig,
    /// Where the rest waits: `"memory"`, nowhere; or `"disk"`, in `adapters.state_dir`.
    #[serde(default)]
    pub buffer: Buffer,
    /// The buffer on disk.
    #[serde(default)]
    pub disk: DiskConfig,
    /// How metrics look, for drains that take those.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// How envelopes look in Datadog, for drains to there.
    #[serde(default)]
    pub datadog: DatadogConfig,
    /// How envelopes look to an OpenTelemetry collector, for drains to one.
    #[serde(default)]
    pub otlp: OtlpConfig,
    /// The stream and its servers, for drains to NATS.
    #[serde(default)]
    pub nats: NatsConfig,
}

/// Where envelopes wait for a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Buffer {
    /// In the ring alone.
    #[default]
    Memory,
    /// On disk: what was taken survives the process, and a long outage of the destination; it may arrive twice then.
    Disk,
}

/// The `disk` table of a drain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Bytes on disk; 256 MiB. When they are used up the ring holds what comes next.
    pub bytes: NonZeroU64,
    /// Percent of the file system that stay free, 0 to 99; 10. What does not fit then waits in memory.
    pub keep_free_percent: u8,
}

/// The `tls` table of a drain. No drain trusts what only another one names.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainTls {
    /// A PEM file of the authorities that the receiver's certificate must chain to. Absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate to show to a receiver that asks for one, followed by its intermediates. Absent: none.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`: both or none.
    pub key: Option<PathBuf>,
    /// The name or address that the receiver's certificate must carry. Absent: the URL's host.
    pub server_name: Option<String>,
    /// Takes whatever certificate the receiver shows: the lines may go to anybody. False.
    pub insecure_skip_verify: bool,
}

/// The `ring` table of a drain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RingConfig {
    /// Envelopes; 10 000.
    pub envelopes: NonZeroUsize,
    /// Bytes kept alive; 8 MiB.
    pub bytes: NonZeroUsize,
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

impl Default for RingConfig {
    fn default() -> Self {
        let size = |value| NonZeroUsize::new(value).expect("a default is not zero");
        Self { envelopes: size(10_000), bytes: size(8 * 1024 * 1024) }
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { bytes: NonZeroU64::new(256 * 1024 * 1024).expect("a default is not zero"), keep_free_percent: 10 }
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

impl DrainConfig {
    /// A drain with the defaults: everything that `url` asks for, of every source.
    pub fn new(name: impl Into<String>, url: DrainUrl) -> Self {
        Self {
            name: name.into(),
            url,
            preset: None,
            token: None,
            token_file: None,
            labels: Vec::new(),
            line: LineConfig::default(),
            tls: None,
            sources: Vec::new(),
            source_patterns: Vec::new(),
            tags: BTreeMap::new(),
            hostname: String::new(),
            metadata: true,
            announce: None,
            resend: true,
            retry: Schedule::default(),
            ring: RingConfig::default(),
            buffer: Buffer::default(),
            disk: DiskConfig::default(),
            metrics: MetricsConfig::default(),
            datadog: DatadogConfig::default(),
            otlp: OtlpConfig::default(),
            nats: NatsConfig::default(),
        }
    }

    /// Looks at all of it together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.name.is_empty() {
            return Err(ConfigError::NoName(self.url.anonymised()));
        }
        if self.name.len() > MAX_NAME {
            return Err(ConfigError::LongName(self.url.anonymised(), self.name.len()));
        }
        if self.sources.iter().any(String::is_empty) {
            return Err(ConfigError::EmptySource(self.name.clone()));
        }
        if self.buffer == Buffer::Disk && self.disk.bytes.get() < LEAST_DISK {
            return Err(ConfigError::SmallDisk(self.name.clone(), self.disk.bytes.get()));
        }
        if self.disk.keep_free_percent > 99 {
            return Err(ConfigError::KeepFree(self.name.clone(), self.disk.keep_free_percent));
        }
        let takes_series = self.url.scheme.is_remote_write() || self.url.scheme == Scheme::Prometheus;
        if !takes_series && self.metrics != MetricsConfig::default() {
            return Err(ConfigError::NoMetrics(self.name.clone(), self.url.anonymised()));
        }
        if !self.url.scheme.is_datadog() && self.datadog != DatadogConfig::default() {
            return Err(ConfigError::NoDatadog(self.name.clone(), self.url.anonymised()));
        }
        if !self.url.scheme.is_nats() && self.nats != NatsConfig::default() {
            return Err(ConfigError::NoNats(self.name.clone(), self.url.anonymised()));
        }
        if self.url.scheme.is_nats() {
            self.check_nats()?;
        }
        if self.url.scheme.is_datadog() && self.token.is_none() && self.token_file.is_none() {
            return Err(ConfigError::NoKey(self.name.clone()));
        }
        if !self.url.scheme.is_otlp() && self.otlp != OtlpConfig::default() {
            return Err(ConfigError::NoOtlp(self.name.clone(), self.url.anonymised()));
        }
        self.otlp.check().map_err(|error| self.otlp_error(error))?;
        if self.kinds().iter().next().is_none() {
            return Err(ConfigError::NoEnvelopes(self.name.clone()));
        }
        let for_lines = self.preset.is_some() || self.line != LineConfig::default() || !self.labels.is_empty();
        if !self.url.scheme.has_lines() && for_lines {
            return Err(ConfigError::NoLines(self.name.clone(), self.url.anonymised()));
        }
        if self.url.scheme == Scheme::Prometheus && (self.token.is_some() || self.token_file.is_some()) {
            return Err(ConfigError::NoToken(self.name.clone(), self.url.anonymised()));
        }
        for (key, gathers) in [
            ("metrics.flush", self.metrics.flush),
            ("datadog.interval", self.datadog.options().interval),
            ("otlp.max_age", self.otlp.max_age()),
        ] {
            if !(MIN_GATHER..=MAX_GATHER).contains(&gathers) {
                return Err(ConfigError::Gather(self.name.clone(), key));
            }
        }
        self.select()?;
        self.check_tls()?;
        if self.url.scheme.has_lines() {
            return self.lines().check().map_err(|error| self.line_error(error));
        }
        self.page().map(|_address| ())
    }

    fn check_nats(&self) -> Result<(), ConfigError> {
        if !cfg!(feature = "nats") {
            let (drain, url) = (self.name.clone(), self.url.anonymised());
            return Err(ConfigError::NoFeature { drain, url, what: "NATS", feature: "nats" });
        }
        let checked = self.nats.check(&self.url, self.token.is_some() || self.token_file.is_some());
        checked.map_err(|error| ConfigError::Nats(self.name.clone(), error))
    }

    /// Which envelopes it wants.
    pub(crate) fn select(&self) -> Result<Select, ConfigError> {
        let select = Select::new(&self.sources, &self.source_patterns, &self.tags, self.kinds());
        select.map_err(|error| ConfigError::Select { drain: self.name.clone(), error })
    }

    /// The kinds of envelope it wants: of those that its URL asks for, the ones that have a form there.
    fn kinds(&self) -> Kinds {
        let kinds = self.url.options.kinds;
        if !self.url.scheme.is_otlp() {
            return kinds;
        }
        let sent = [
            (Signal::Logs, Kinds::LOGS_AND_EVENTS),
            (
                Signal::Metrics,
                if self.otlp.timers() == Timers::None { Kinds::METRICS } else { Kinds::METRICS.and(Kinds::TIMERS) },
            ),
            (Signal::Traces, Kinds::TIMERS),
        ];
        let sent = sent.into_iter().filter(|(signal, _)| self.otlp.sends(*signal)).map(|(_, kinds)| kinds);
        sent.reduce(Kinds::and).map_or(Kinds::NONE, |sent| kinds.only(sent))
    }

    /// The headers of every request, but for the token.
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, ConfigError> {
        self.otlp.headers().map_err(|error| self.otlp_error(error))
    }

    fn otlp_error(&self, error: OtlpError) -> ConfigError {
        ConfigError::Otlp { drain: self.name.clone(), error }
    }

    /// The schedule of its attempts.
    pub(crate) fn schedule(&self) -> Schedule {
        match self.retry {
            Schedule::Original if self.url.scheme.is_otlp() => Schedule::OriginalOtlp,
            schedule => schedule,
        }
    }

    /// The name that the receiver's certificate must carry.
    pub(crate) fn server_name(&self, url: &DrainUrl) -> Result<ServerName<'static>, ConfigError> {
        let named = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let name = named.unwrap_or_else(|| url.address.host());
        ServerName::try_from(name.to_owned())
            .map_err(|_| ConfigError::ServerName { drain: self.name.clone(), name: name.to_owned() })
    }

    /// What makes requests of its envelopes, of a drain that sends some.
    pub(crate) fn maker(&self) -> Maker {
        if self.url.scheme.is_otlp() {
            return Maker::otlp(&self.otlp, self.url.scheme.is_grpc());
        }
        if self.url.scheme.is_datadog() { Maker::datadog(&self.datadog) } else { Maker::remote_write(&self.metrics) }
    }

    /// How long envelopes gather for them.
    pub(crate) fn gather(&self) -> Duration {
        match self.url.scheme {
            scheme if scheme.is_datadog() => self.datadog.options().interval,
            scheme if scheme.is_otlp() => self.otlp.max_age(),
            _ => self.metrics.flush,
        }
    }

    /// Where a page of metrics is served, of a drain that has one.
    pub(crate) fn page(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.url.scheme != Scheme::Prometheus {
            return Ok(None);
        }
        let wrong = || ConfigError::PageAddress(self.name.clone(), self.url.anonymised());
        let ip = self.url.address.host().parse().map_err(|_| wrong())?;
        Ok(Some(SocketAddr::new(ip, self.url.address.port())))
    }

    /// The token for a receiver of requests, from wherever it is. Reads its file.
    pub(crate) fn bearer(&self) -> Result<Option<String>, ConfigError> {
        let read = preset::token(self.token.as_ref(), self.token_file.as_deref());
        read.map_err(|error| self.line_error(error))
    }

    /// How the lines look. Reads the file of the token.
    pub(crate) fn style(&self) -> Result<Style, ConfigError> {
        self.lines().style().map_err(|error| self.line_error(error))
    }

    fn lines(&self) -> Wanted<'_> {
        Wanted {
            scheme: self.url.scheme,
            preset: self.preset,
            token: self.token.as_ref(),
            token_file: self.token_file.as_deref(),
            labels: &self.labels,
            line: &self.line,
        }
    }

    fn line_error(&self, error: StyleError) -> ConfigError {
        ConfigError::Line { drain: self.name.clone(), error }
    }

    fn check_tls(&self) -> Result<(), ConfigError> {
        let drain = || self.name.clone();
        if self.url.scheme.is_tls() {
            self.server_name(&self.url)?;
        } else if self.tls.is_some() {
            return Err(ConfigError::TlsOnPlain { drain: drain(), url: self.url.anonymised() });
        }
        match self.tls.as_ref().map(|tls| (tls.cert.is_some(), tls.key.is_some())) {
            Some((true, false)) => Err(ConfigError::HalfPair { drain: drain(), given: "cert", missing: "key" }),
            Some((false, true)) => Err(ConfigError::HalfPair { drain: drain(), given: "key", missing: "cert" }),
            _ => Ok(()),
        }
    }

    /// Whether owners are told of lost envelopes.
    pub fn announces(&self) -> bool {
        // Values of metrics are no lines that somebody misses.
        let has_logs = self.url.scheme.has_lines() || self.url.scheme.is_nats();
        self.announce.unwrap_or(has_logs && (!self.sources.is_empty() || !self.source_patterns.is_empty()))
    }

    /// What it may take on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        if self.buffer == Buffer::Disk { self.disk.bytes.get() } else { 0 }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { envelopes: self.ring.envelopes, bytes: self.ring.bytes }
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Config {
    /// The defaults on any free port of 127.0.0.1, without doppler and drains.
    pub fn for_test() -> Self {
        Self { dopplers: Vec::new(), admin: AdminConfig::any_port(), ..Self::default() }
    }
}

fn yes() -> bool {
    true
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
