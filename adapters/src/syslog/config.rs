//! What a drain URL says: where to, which envelopes, with or without tags (contract: syslog drains §2, §4).
//!
//! A text enters, a [`DrainUrl`] leaves, or an error that names the part that is wrong and what would be right. Pure. User name,
//! password and query never leave again: whatever is shown is [`DrainUrl::anonymised`].

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use proto::raw::Kind;
use transport::{Address, AddressError};

/// The longest drain URL, in bytes.
pub const MAX_URL: usize = 2048;

/// A drain URL that was understood.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainUrl {
    /// How lines travel.
    pub scheme: Scheme,
    /// Where to.
    pub address: Address,
    /// What to send.
    pub options: Options,
    path: String,
    user_info: Option<Secret>,
    /// Path and query, as they were written.
    target: Secret,
    remarks: Vec<String>,
}

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Over TCP, each with its length before it (RFC 6587 octet counting).
    Syslog,
    /// The same over TLS.
    SyslogTls,
    /// Over UDP, each line a datagram (RFC 5426).
    SyslogUdp,
    /// Each line the body of a POST over HTTPS.
    Https,
    /// Many lines, one after the other, the body of a POST over HTTPS.
    HttpsBatch,
    /// No lines: metrics, as Prometheus takes them by remote-write, over HTTP.
    RemoteWriteHttp,
    /// The same over HTTPS.
    RemoteWriteHttps,
    /// No lines: metrics and logs to the intakes of a site of Datadog, over HTTPS.
    Datadog,
    /// The same to one address, over HTTP.
    DatadogHttp,
    /// And over HTTPS.
    DatadogHttps,
    /// No lines: logs, metrics and spans to an OpenTelemetry collector, over gRPC.
    OtlpGrpc,
    /// The same over TLS.
    OtlpGrpcs,
    /// The same as the bodies of POSTs over HTTP.
    OtlpHttp,
    /// And over HTTPS.
    OtlpHttps,
    /// No lines: a page of metrics, at this address, for Prometheus to scrape.
    Prometheus,
    /// No lines: messages of a stream of NATS JetStream, each an envelope.
    Nats,
    /// The same over TLS.
    NatsTls,
}

/// Which envelopes a drain sends, and what of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The kinds of envelope.
    pub kinds: Kinds,
    /// What the URL says about tags: `Some(false)` leaves them out, `None` leaves it to the drain's default.
    pub metadata: Option<bool>,
    /// The types of log.
    pub log_types: LogTypes,
}

/// A set of kinds of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

/// Which logs pass, by the part of their `source_type` tag before the first `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTypes {
    /// All.
    All,
    /// Only those of these types: none of another type, none without a type.
    Only(Vec<&'static str>),
    /// Those of other types, and those without a type.
    Except(Vec<&'static str>),
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a text is no drain URL. No variant shows user name, password or query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainUrlError {
    /// Longer than [`MAX_URL`].
    #[error("the drain URL has {0} bytes; at most {MAX_URL} are allowed")]
    TooLong(usize),
    /// No `://`.
    #[error("the drain URL has no scheme; write {SCHEMES}")]
    NoScheme,
    /// Collectors take gRPC at one place.
    #[error("the drain URL has a path, and {0}:// has none; leave it out, or write otlp+http:// or otlp+https://")]
    GrpcPath(Scheme),
    /// A scheme that drains do not speak.
    #[error("the drain URL's scheme is \"{0}\"; write {SCHEMES}")]
    Scheme(String),
    /// Host without port.
    #[error("the drain URL has no port, and {0} has no default one; write {0}://{1}:{port}", port = .0.usual_port())]
    NoPort(Scheme, String),
    /// Host and port cannot be read.
    #[error("the drain URL's host and port: {0}")]
    Address(#[source] AddressError),
    /// Path and options cannot stand in a request.
    #[error("the drain URL's path or options hold a character that must be written as % and two digits")]
    Target,
    /// An `@` that may end a user name and password, which would be shown as a host and path.
    #[error(
        "the drain URL has an @ behind its host; in a user name or password write / as %2F, ? as %3F and # as %23, elsewhere write @ as %40"
    )]
    At,
    /// Both lists of log types at once.
    #[error("the drain URL has include-log-types and exclude-log-types; keep one of them")]
    BothLogTypes,
    /// A list of log types that names none.
    #[error("the drain URL's {0} names no known type; the types are {known}", known = LOG_TYPES.join(", "))]
    NoLogType(&'static str),
}

/// The ports that a URL may leave out.
const HTTPS: u16 = 443;
const HTTP: u16 = 80;
/// That of NATS.
const NATS: u16 = 4222;
/// Those of OTLP, over gRPC and over HTTP.
const OTLP: (u16, u16) = (4317, 4318);
/// What a URL may say about envelopes.
const KEYS: [&str; 7] = [
    "drain-type",
    "drain-data",
    "include-metrics-deprecated",
    "disable-metadata",
    "omit-metadata",
    "include-log-types",
    "exclude-log-types",
];
/// Where Prometheus takes remote-write, and most others do.
const REMOTE_WRITE: &str = "/api/v1/write";

/// What may stand before host and port.
const SCHEMES: &str = "syslog://host:port, syslog-tls://host:port, syslog-udp://host:port, https://host/path, https-batch://host/path, \
    remote-write+https://host/path, remote-write+http://host:port/path, prometheus://address:port, datadog://site, nats://host/STREAM, \
    nats-tls://host/STREAM, otlp+grpc://host:port, otlp+grpcs://host:port, otlp+http://host:port or otlp+https://host:port";

/// The log types that a list may name.
pub const LOG_TYPES: [&str; 9] = ["API", "STG", "RTR", "LGR", "APP", "SSH", "CELL", "HEALTH", "PROXY"];

impl DrainUrl {
    /// Reads a drain URL.
    ///
    /// # Errors
    /// [`DrainUrlError`]. Options with values that are not in the table mean the default, as in the table; see
    /// [`DrainUrl::remarks`].
    pub fn parse(text: &str) -> Result<Self, DrainUrlError> {
        if text.len() > MAX_URL {
            return Err(DrainUrlError::TooLong(text.len()));
        }
        let (scheme, rest) = text.split_once("://").ok_or(DrainUrlError::NoScheme)?;
        let scheme = match scheme {
            "syslog" => Scheme::Syslog,
            "syslog-tls" => Scheme::SyslogTls,
            "syslog-udp" => Scheme::SyslogUdp,
            "https" => Scheme::Https,
            "https-batch" => Scheme::HttpsBatch,
            "remote-write+http" => Scheme::RemoteWriteHttp,
            "remote-write+https" => Scheme::RemoteWriteHttps,
            "datadog" => Scheme::Datadog,
            "datadog+http" => Scheme::DatadogHttp,
            "datadog+https" => Scheme::DatadogHttps,
            "prometheus" => Scheme::Prometheus,
            "nats" => Scheme::Nats,
            "nats-tls" => Scheme::NatsTls,
            "otlp+grpc" => Scheme::OtlpGrpc,
            "otlp+grpcs" => Scheme::OtlpGrpcs,
            "otlp+http" => Scheme::OtlpHttp,
            "otlp+https" => Scheme::OtlpHttps,
            other => return Err(DrainUrlError::Scheme(other.chars().take(20).collect())),
        };
        if rest.find(['/', '?', '#']).is_some_and(|end| !rest[..end].contains('@') && rest[end..].contains('@')) {
            return Err(DrainUrlError::At);
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let target = match (scheme.is_remote_write(), path) {
            (true, "" | "/") => format!("{REMOTE_WRITE}{}", &target[path.len()..]),
            (_, "") => format!("/{target}"),
            _ => target.to_owned(),
        };
        if scheme.is_http() && PathAndQuery::from_str(&target).is_err() {
            return Err(DrainUrlError::Target);
        }
        if scheme.is_grpc() && !matches!(path, "" | "/") {
            return Err(DrainUrlError::GrpcPath(scheme));
        }
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(Secret(user_info.to_owned())), host),
            None => (None, authority),
        };
        let address = match host.parse() {
            Err(AddressError::NoPort(_)) if scheme.is_http() => format!("{host}:{}", scheme.usual_port()).parse(),
            Err(AddressError::NoPort(_)) if scheme.is_nats() => format!("{host}:{NATS}").parse(),
            other => other,
        };
        let address = address.map_err(|error| match error {
            AddressError::NoPort(host) => DrainUrlError::NoPort(scheme, host),
            error => DrainUrlError::Address(error),
        })?;
        let mut remarks = Vec::new();
        let kinds = match scheme {
            _ if scheme.has_lines() => Kinds::LOGS_AND_EVENTS,
            _ if scheme.is_otlp() || scheme.is_nats() => Kinds::ALL,
            _ => Kinds::METRICS.and(Kinds::TIMERS),
        };
        let query = Query::new(query);
        if scheme.is_otlp() && query.0.iter().any(|(key, _)| !KEYS.contains(&key.as_str())) {
            // Nor is it sent: requests have paths of their own.
            remarks.push(format!("an option is none of {}; it has no effect", KEYS.join(", ")));
        }
        let options = Options::parse(&query, kinds, &mut remarks)?;
        if scheme.is_nats() && options.metadata.is_some() {
            remarks.push(
                "an envelope goes into a stream as it is, tags too: whatever says that they are left out has no effect"
                    .to_owned(),
            );
        }
        Ok(Self { scheme, address, options, path: path.to_owned(), user_info, target: Secret(target), remarks })
    }

    /// The URL without user name, password and query: for logs, metrics and notices. Over HTTPS without its path, where some receivers
    /// want a token.
    pub fn anonymised(&self) -> String {
        let path = match self.path.as_str() {
            "" | "/" => "",
            _ if self.scheme.is_http() => "/…",
            path => path,
        };
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// The same with another host and no path: what a site has several of.
    pub(crate) fn at_host(&self, host: &str) -> Result<Self, DrainUrlError> {
        let address = format!("{host}:{}", self.address.port()).parse().map_err(DrainUrlError::Address)?;
        Ok(Self { address, path: String::new(), target: Secret("/".to_owned()), ..self.clone() })
    }

    /// The path, without a slash at its end; for the destination alone.
    pub(crate) fn base(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// User name and password, decoded, with a `:` between them; for the destination alone.
    pub(super) fn credentials(&self) -> Option<Vec<u8>> {
        self.user_info.as_ref().map(|info| percent_decode_str(info.reveal()).collect())
    }

    /// What may stand in no text that is shown: user name and password, as written and decoded.
    pub(crate) fn secrets(&self) -> Vec<Vec<u8>> {
        let Some(info) = &self.user_info else { return Vec::new() };
        let (user, password) = info.reveal().split_once(':').unwrap_or((info.reveal(), ""));
        let both = [user, password].into_iter().flat_map(|part| [part.into(), percent_decode_str(part).collect()]);
        both.collect()
    }

    /// User name, or token, and password, decoded; for the destination alone.
    pub(crate) fn login(&self) -> Option<(String, Option<String>)> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let info = self.user_info.as_ref()?.reveal();
        Some(match info.split_once(':') {
            Some((user, password)) => (decode(user), Some(decode(password))),
            None => (decode(info), None),
        })
    }

    /// Path and query as they were written, options too; for the destination alone.
    pub(crate) fn target(&self) -> &str {
        self.target.reveal()
    }

    /// What was understood but is likely not meant, one sentence each: to be logged once.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}

impl Scheme {
    /// Requests, and not lines one after the other.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Https | Self::HttpsBatch) || self.is_remote_write() || self.is_datadog() || self.is_otlp()
    }

    /// Requests to an OpenTelemetry collector.
    pub fn is_otlp(self) -> bool {
        matches!(self, Self::OtlpGrpc | Self::OtlpGrpcs | Self::OtlpHttp | Self::OtlpHttps)
    }

    /// Requests over gRPC.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::OtlpGrpc | Self::OtlpGrpcs)
    }

    /// Requests to Datadog.
    pub fn is_datadog(self) -> bool {
        matches!(self, Self::Datadog | Self::DatadogHttp | Self::DatadogHttps)
    }

    /// Requests of metrics.
    pub fn is_remote_write(self) -> bool {
        matches!(self, Self::RemoteWriteHttp | Self::RemoteWriteHttps)
    }

    /// Envelopes leave as syslog messages.
    pub fn has_lines(self) -> bool {
        !self.is_remote_write() && !self.is_datadog() && !self.is_otlp() && !self.is_nats() && self != Self::Prometheus
    }

    /// Messages of a stream of NATS.
    pub fn is_nats(self) -> bool {
        matches!(self, Self::Nats | Self::NatsTls)
    }

    /// An app's owner may choose it (contract: syslog drains §2). Not datagrams, which name any machine as their sender; not what listens
    /// here, or speaks for the operator.
    pub fn is_for_apps(self) -> bool {
        matches!(self, Self::Syslog | Self::SyslogTls | Self::Https | Self::HttpsBatch)
    }

    /// Many lines go into one request.
    pub fn gathers(self) -> bool {
        self == Self::HttpsBatch
    }

    /// Over TLS.
    pub fn is_tls(self) -> bool {
        if matches!(self, Self::OtlpGrpcs | Self::OtlpHttps) {
            return true;
        }
        matches!(
            self,
            Self::SyslogTls
                | Self::Https
                | Self::HttpsBatch
                | Self::RemoteWriteHttps
                | Self::Datadog
                | Self::DatadogHttps
                | Self::NatsTls
        )
    }

    /// The port that receivers usually have; for requests the default.
    fn usual_port(self) -> u16 {
        match self {
            Self::Syslog | Self::SyslogUdp => 514,
            Self::SyslogTls => 6514,
            Self::Https | Self::HttpsBatch | Self::RemoteWriteHttps | Self::Datadog | Self::DatadogHttps => HTTPS,
            Self::RemoteWriteHttp | Self::DatadogHttp => HTTP,
            Self::Prometheus => 9186,
            Self::OtlpGrpc | Self::OtlpGrpcs => OTLP.0,
            Self::OtlpHttp | Self::OtlpHttps => OTLP.1,
            Self::Nats | Self::NatsTls => NATS,
        }
    }
}

/// As in a URL.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syslog => "syslog",
            Self::SyslogTls => "syslog-tls",
            Self::SyslogUdp => "syslog-udp",
            Self::Https => "https",
            Self::HttpsBatch => "https-batch",
            Self::RemoteWriteHttp => "remote-write+http",
            Self::RemoteWriteHttps => "remote-write+https",
            Self::Datadog => "datadog",
            Self::DatadogHttp => "datadog+http",
            Self::DatadogHttps => "datadog+https",
            Self::Prometheus => "prometheus",
            Self::OtlpGrpc => "otlp+grpc",
            Self::OtlpGrpcs => "otlp+grpcs",
            Self::OtlpHttp => "otlp+http",
            Self::OtlpHttps => "otlp+https",
            Self::Nats => "nats",
            Self::NatsTls => "nats-tls",
        })
    }
}

impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainUrl")
            .field("url", &self.anonymised())
            .field("options", &self.options)
            .field("user_info", &self.user_info)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.anonymised())
    }
}

impl Secret {
    /// The text, for the receiver alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

/// An error does not show what was there.
impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| serde::de::Error::custom("a token must be a text in quotes"))
    }
}

/// A configuration that is dumped shows no secret.
impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<REDACTED>")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<REDACTED>")
    }
}

impl FromStr for DrainUrl {
    type Err = DrainUrlError;

    fn from_str(text: &str) -> Result<Self, DrainUrlError> {
        Self::parse(text)
    }
}

impl<'de> serde::Deserialize<'de> for DrainUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Writes the anonymised form.
impl serde::Serialize for DrainUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { kinds: Kinds::LOGS_AND_EVENTS, metadata: None, log_types: LogTypes::All }
    }
}

impl Options {
    fn parse(query: &Query, usual: Kinds, remarks: &mut Vec<String>) -> Result<Self, DrainUrlError> {
        Ok(Self {
            kinds: kinds(query, usual, remarks),
            metadata: metadata(query, remarks),
            log_types: log_types(query, remarks)?,
        })
    }
}

/// `include-metrics-deprecated` wins over `drain-data`, which wins over `drain-type`. A value that is not in the table has no effect.
fn kinds(query: &Query, usual: Kinds, remarks: &mut Vec<String>) -> Kinds {
    let mut unknown = |key: &str, values: &str| {
        remarks.push(format!("{key} has a value that is none of {values}; it has no effect"));
    };
    let mut kinds = match query.get("drain-type") {
        "logs" => Kinds::LOGS,
        "metrics" => Kinds::METRICS,
        "all" => Kinds::LOGS.and(Kinds::METRICS),
        "" => usual,
        _ => {
            unknown("drain-type", "logs, metrics, all");
            usual
        }
    };
    kinds = match query.get("drain-data") {
        "logs" => Kinds::LOGS_AND_EVENTS,
        "metrics" => Kinds::METRICS,
        "traces" => Kinds::TIMERS,
        "all" => Kinds::ALL,
        "" => kinds,
        _ => {
            unknown("drain-data", "logs, metrics, traces, all");
            kinds
        }
    };
    if query.get("include-metrics-deprecated").is_empty() { kinds } else { Kinds::ALL }
}

/// `disable-metadata`, or `omit-metadata` where that is empty.
fn metadata(query: &Query, remarks: &mut Vec<String>) -> Option<bool> {
    let (key, value) = match (query.get("disable-metadata"), query.get("omit-metadata")) {
        ("", value) => ("omit-metadata", value),
        (value, _) => ("disable-metadata", value),
    };
    match value {
        "true" => Some(false),
        "false" => Some(true),
        "" => None,
        _ => {
            remarks.push(format!("{key} is neither true nor false; it has no effect"));
            None
        }
    }
}

fn log_types(query: &Query, remarks: &mut Vec<String>) -> Result<LogTypes, DrainUrlError> {
    let mut list = |key: &'static str| -> Result<Option<Vec<&'static str>>, DrainUrlError> {
        let value = query.get(key);
        if value.is_empty() {
            return Ok(None);
        }
        let mut types = Vec::new();
        for name in value.split(',').map(str::trim) {
            match LOG_TYPES.iter().find(|known| known.eq_ignore_ascii_case(name)) {
                Some(known) => types.push(*known),
                None => remarks.push(format!(
                    "{key} names an unknown type, which has no effect; the types are {}",
                    LOG_TYPES.join(", ")
                )),
            }
        }
        if types.is_empty() { Err(DrainUrlError::NoLogType(key)) } else { Ok(Some(types)) }
    };
    match (list("include-log-types")?, list("exclude-log-types")?) {
        (Some(_), Some(_)) => Err(DrainUrlError::BothLogTypes),
        (Some(types), None) => Ok(LogTypes::Only(types)),
        (None, Some(types)) => Ok(LogTypes::Except(types)),
        (None, None) => Ok(LogTypes::All),
    }
}

impl LogTypes {
    /// True when every log passes.
    pub fn admits_all(&self) -> bool {
        *self == Self::All
    }

    /// True when a log with this `source_type` tag passes.
    pub fn admits(&self, source_type: Option<&str>) -> bool {
        let known = |types: &[&'static str]| {
            let name = source_type.and_then(|value| value.split('/').next()).unwrap_or_default();
            types.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        match self {
            Self::All => true,
            Self::Only(types) => known(types),
            Self::Except(types) => !known(types),
        }
    }
}

impl Kinds {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Logs alone.
    pub const LOGS: Self = Self(Kind::Log.bit());
    /// Logs and events: what a URL without options gets.
    pub const LOGS_AND_EVENTS: Self = Self(Kind::Log.bit() | Kind::Event.bit());
    /// Counters and gauges.
    pub const METRICS: Self = Self(Kind::Counter.bit() | Kind::Gauge.bit());
    /// Timers.
    pub const TIMERS: Self = Self(Kind::Timer.bit());
    /// Everything.
    pub const ALL: Self = Self(Self::LOGS_AND_EVENTS.0 | Self::METRICS.0 | Self::TIMERS.0);

    /// The union of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// True when `kind` is in the set.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// The kinds in the set.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

/// The parameters of a URL, decoded. The first of a name counts; names and values are case-sensitive.
struct Query(Vec<(String, String)>);

impl Query {
    fn new(text: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (decode(key), decode(value))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
mod tests;
