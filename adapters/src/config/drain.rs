//! The `[[adapters.drains]]` tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use diode::fair::Bounds;
use http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;

use super::{ConfigError, LEAST_DISK, MAX_GATHER, MAX_NAME, MIN_GATHER};
use crate::datadog::DatadogConfig;
use crate::nats::config::NatsConfig;
use crate::otlp::{OtlpConfig, OtlpError, Signal, Timers};
use crate::prometheus::MetricsConfig;
use crate::push::maker::Maker;
use crate::retry::Schedule;
use crate::select::Select;
use crate::syslog::config::{DrainUrl, Kinds, Scheme, Secret};
use crate::syslog::encode::Style;
use crate::syslog::preset::{self, LineConfig, Preset, StyleError, Wanted};

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

fn yes() -> bool {
    true
}
