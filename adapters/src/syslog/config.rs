//! What a drain URL says: where to, which envelopes, with or without tags (contract: syslog drains §2, §4).
//!
//! A text enters, a [`DrainUrl`] leaves, or an error that names the part that is wrong and what would be right. Pure. User name,
//! password and query never leave again: whatever is shown is [`DrainUrl::anonymised`].

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;
use transport::{Address, AddressError};

use self::options::Query;
pub use self::options::{Kinds, LOG_TYPES, LogTypes, Options};
pub use self::scheme::Scheme;

mod options;
mod scheme;

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

/// Where Prometheus takes remote-write, and most others do.
const REMOTE_WRITE: &str = "/api/v1/write";

/// What may stand before host and port.
const SCHEMES: &str = "syslog://host:port, syslog-tls://host:port, syslog-udp://host:port, https://host/path, https-batch://host/path, \
    remote-write+https://host/path, remote-write+http://host:port/path, prometheus://address:port, datadog://site, nats://host/STREAM, \
    nats-tls://host/STREAM, otlp+grpc://host:port, otlp+grpcs://host:port, otlp+http://host:port or otlp+https://host:port";

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
            Err(AddressError::NoPort(_)) if scheme.is_http() || scheme.is_nats() => {
                format!("{host}:{}", scheme.usual_port()).parse()
            }
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
        if scheme.is_otlp() && query.has_others() {
            // Nor is it sent: requests have paths of their own.
            remarks.push(format!("an option is none of {}; it has no effect", options::KEYS.join(", ")));
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

#[cfg(test)]
mod tests;
