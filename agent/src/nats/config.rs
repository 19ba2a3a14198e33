//! One `[[agent.nats]]` entry: which stream, from where on, and what of it.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
#[cfg(feature = "nats")]
use proto::raw::Kind;
use proto::subject;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use transport::{Address, AddressError};

/// The usual port of servers.
const PORT: u16 = 4222;
/// The longest URL, in bytes.
const MAX_URL: usize = 2048;
/// The most servers and sources of an entry.
const MAX_NAMED: usize = 64;
/// The most envelopes that may be open.
const MAX_PENDING: usize = 100_000;

/// A stream to read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// The server and the stream: `nats://user:password@host:4222/STREAM`, a token in place of both, or `nats-tls://…`. Shown without them.
    pub url: NatsUrl,
    /// Other servers of the same cluster, as `host:port`; each attempt to connect goes to the next one. None.
    #[serde(default)]
    pub servers: Vec<Address>,
    /// The durable consumer: agents with the same one share its envelopes, and an agent that starts again goes on where it was.
    /// `"hydrant"`. It is made when it is missing, and never changed.
    #[serde(default = "consumer")]
    pub consumer: String,
    /// Where a consumer that is made begins: `"new"`, with what comes from now on; `"all"`, with the oldest message; a time as RFC 3339
    /// writes it; or the number of a message. `"new"`.
    #[serde(default)]
    pub from: From,
    /// What the subjects of the stream's messages begin with; `"hydrant"`.
    #[serde(default = "prefix")]
    pub subject_prefix: String,
    /// The sources to read; empty reads those of everybody.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The kinds to read: `"log"`, `"counter"`, `"gauge"`, `"timer"`, `"event"`; empty reads all.
    #[serde(default)]
    pub kinds: Vec<KindName>,
    /// Envelopes that were read and have not left for a doppler: more are not read. 1 000; at most 100 000.
    #[serde(default = "pending")]
    pub max_ack_pending: NonZeroUsize,
    /// A file with credentials, as `nsc` writes them. Read anew for each connection. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// A file whose first line is the seed of an NKey. Read anew for each connection. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nkey_file: Option<PathBuf>,
    /// Whom to trust over TLS, and what to show. Absent: the system's authorities, and nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<NatsTls>,
}

/// The `tls` table of such an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTls {
    /// A PEM file of the authorities that the server's certificate must chain to. Absent: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate to show, followed by its intermediates. Absent: none.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`: both or none.
    pub key: Option<PathBuf>,
    /// The name that the server's certificate must carry. Absent: the host that is dialled.
    pub server_name: Option<String>,
}

/// Where a consumer that is made begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With what comes from now on.
    #[default]
    New,
    /// With the oldest message.
    All,
    /// With the first message of this time or later.
    Time(Timestamp),
    /// With the message of this number, or the next one.
    Sequence(u64),
}

/// A kind of envelope, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are named as the kinds are")]
pub enum KindName {
    Log,
    Counter,
    Gauge,
    Timer,
    Event,
}

/// A server and a stream. Neither `Debug` nor `Display` shows who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl {
    pub(crate) tls: bool,
    pub(crate) address: Address,
    pub(crate) stream: String,
    /// User name, or token, and password.
    pub(crate) login: Option<(String, Option<String>)>,
}

/// Why a text is no [`NatsUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatsUrlError {
    /// Another scheme, or none.
    #[error("the URL of a stream begins with nats:// or nats-tls://; write nats://host:4222/STREAM")]
    Scheme,
    /// Longer than 2 048 bytes.
    #[error("the URL has {0} bytes; at most {MAX_URL} are allowed")]
    TooLong(usize),
    /// Host and port cannot be read.
    #[error("the URL's host and port: {0}")]
    Address(AddressError),
    /// No stream, or one that cannot be.
    #[error("the URL names no stream: {0}; write nats://host:4222/STREAM")]
    Stream(&'static str),
    /// An `@` that may end a user name and password, which would be shown as a host and path.
    #[error("the URL has an @ behind its host; in a user name or password write / as %2F, ? as %3F and # as %23")]
    At,
}

/// Why an entry cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("agent.nats: {url}: {fault}")]
pub struct NatsConfigError {
    /// The entry's URL, without user name and password.
    pub url: String,
    /// What is wrong, and what would be right.
    pub fault: String,
}

impl NatsConfig {
    /// Looks at all of it together.
    ///
    /// # Errors
    /// [`NatsConfigError`].
    pub(crate) fn check(&self) -> Result<(), NatsConfigError> {
        let wrong = |fault: String| Err(NatsConfigError { url: self.url.to_string(), fault });
        if !cfg!(feature = "nats") {
            return wrong("this hydrant was built without NATS; build it with --features nats".to_owned());
        }
        if let Some(fault) = subject::name_fault(&self.consumer) {
            return wrong(format!("consumer is {:?}: {fault}", self.consumer));
        }
        if let Some(fault) = subject::prefix_fault(&self.subject_prefix) {
            return wrong(format!("subject_prefix is {:?}: {fault}", self.subject_prefix));
        }
        if self.servers.len() > MAX_NAMED || self.sources.len() > MAX_NAMED {
            return wrong(format!("at most {MAX_NAMED} servers and {MAX_NAMED} sources are taken"));
        }
        if let Some(long) = self.sources.iter().find(|source| source.len() > subject::MAX_ID) {
            return wrong(format!("a source has {} bytes; at most {} are taken", long.len(), subject::MAX_ID));
        }
        if self.max_ack_pending.get() > MAX_PENDING {
            return wrong(format!("max_ack_pending is {}; at most {MAX_PENDING} are taken", self.max_ack_pending));
        }
        let logins = [self.url.login.is_some(), self.creds_file.is_some(), self.nkey_file.is_some()];
        if logins.into_iter().filter(|given| *given).count() > 1 {
            return wrong(
                "it has two logins; keep one of user and password in the URL, creds_file, nkey_file".to_owned(),
            );
        }
        if let Some(tls) = &self.tls {
            if !self.url.tls {
                return wrong("it has a tls table; write nats-tls://, or leave the table out".to_owned());
            }
            if tls.cert.is_some() != tls.key.is_some() {
                return wrong("tls.cert and tls.key go together; name both, or none".to_owned());
            }
        }
        Ok(())
    }

    #[cfg(feature = "nats")]
    /// The one filter that has everything wanted; what else it has is left out here.
    pub(crate) fn filter(&self) -> String {
        let kind = if let [kind] = self.kinds[..] { Some(kind.kind()) } else { None };
        let source = if let [source] = &self.sources[..] { Some(source.as_bytes()) } else { None };
        subject::filter(&self.subject_prefix, kind, source)
    }

    #[cfg(feature = "nats")]
    /// Whether an envelope is wanted that the filter let through.
    pub(crate) fn wants(&self, kind: Kind, source_id: &[u8]) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|name| name.kind() == kind))
            && (self.sources.is_empty() || self.sources.iter().any(|source| source.as_bytes() == source_id))
    }
}

#[cfg(feature = "nats")]
impl KindName {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Log => Kind::Log,
            Self::Counter => Kind::Counter,
            Self::Gauge => Kind::Gauge,
            Self::Timer => Kind::Timer,
            Self::Event => Kind::Event,
        }
    }
}

impl FromStr for NatsUrl {
    type Err = NatsUrlError;

    fn from_str(text: &str) -> Result<Self, NatsUrlError> {
        if text.len() > MAX_URL {
            return Err(NatsUrlError::TooLong(text.len()));
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("nats", rest)) => (false, rest),
            Some(("nats-tls", rest)) => (true, rest),
            _ => return Err(NatsUrlError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains('@') {
            return Err(NatsUrlError::At);
        }
        let (info, host) = authority.rsplit_once('@').map_or((None, authority), |(info, host)| (Some(info), host));
        let address = match host.parse() {
            Err(AddressError::NoPort(_)) => format!("{host}:{PORT}").parse(),
            other => other,
        };
        let stream = path.trim_matches('/').to_owned();
        if let Some(fault) = subject::name_fault(&stream) {
            return Err(NatsUrlError::Stream(fault));
        }
        let login = info.map(|info| match info.split_once(':') {
            Some((user, password)) => (decoded(user), Some(decoded(password))),
            None => (decoded(info), None),
        });
        Ok(Self { tls, address: address.map_err(NatsUrlError::Address)?, stream, login })
    }
}

/// A part of a URL with its `%` and two digits read.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nats{}://{}/{}", if self.tls { "-tls" } else { "" }, self.address, self.stream)
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrl({self})")
    }
}

impl<'de> Deserialize<'de> for NatsUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Writes it without user name and password.
impl Serialize for NatsUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = From;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"new\", \"all\", a time as \"2026-01-31T08:00:00Z\", or the number of a message from 1")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<From, E> {
                match text {
                    "new" => Ok(From::New),
                    "all" => Ok(From::All),
                    other => other
                        .parse()
                        .map(From::Time)
                        .map_err(|_| E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<From, E> {
                if number == 0 {
                    return Err(E::invalid_value(serde::de::Unexpected::Unsigned(0), &self));
                }
                Ok(From::Sequence(number))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<From, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_negative) => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for From {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::New => serializer.serialize_str("new"),
            Self::All => serializer.serialize_str("all"),
            Self::Time(time) => serializer.collect_str(time),
            Self::Sequence(number) => serializer.serialize_u64(*number),
        }
    }
}

fn consumer() -> String {
    "hydrant".to_owned()
}

fn prefix() -> String {
    "hydrant".to_owned()
}

fn pending() -> NonZeroUsize {
    NonZeroUsize::new(1000).expect("a default is not zero")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn read(more: &str) -> Result<Config, String> {
        let text = format!("[[nats]]\nurl = \"nats://user:canary@h/LOGS\"\n{more}");
        toml::from_str::<Config>(&text).map_err(|error| error.message().to_owned())
    }

    #[cfg(feature = "nats")]
    #[test]
    fn an_entry_is_read_checked_and_shown_without_secrets() {
        let config =
            read("from = \"2026-01-31T08:00:00+01:00\"\nsources = [\"a.b\"]\nkinds = [\"log\", \"event\"]\n").unwrap();
        config.check().unwrap();
        let entry = &config.nats[0];
        assert_eq!(entry.from, From::Time("2026-01-31T07:00:00Z".parse().unwrap()));
        assert_eq!(entry.filter(), "hydrant.*.a%2Eb.*");
        assert!(
            entry.wants(Kind::Event, b"a.b") && !entry.wants(Kind::Counter, b"a.b") && !entry.wants(Kind::Log, b"a")
        );
        assert_eq!(entry.url.login, Some(("user".to_owned(), Some("canary".to_owned()))));
        let dumped = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!dumped.contains("canary") && dumped.contains("nats://h:4222/LOGS"), "{dumped}");
        for (text, from) in [("\"all\"", From::All), ("\"new\"", From::New), ("17", From::Sequence(17))] {
            assert_eq!(read(&format!("from = {text}")).unwrap().nats[0].from, from);
        }
        for (more, part) in [
            ("consumer = \"a b\"", "consumer is \"a b\": a name is"),
            ("subject_prefix = \"a.>\"", "subject_prefix is"),
            ("creds_file = \"c\"", "two logins"),
            ("tls = {}", "write nats-tls://"),
            ("max_ack_pending = 200000", "at most 100000"),
        ] {
            let error = read(more).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with("agent.nats: nats://h:4222/LOGS: ") && error.contains(part), "{error}");
        }
    }

    #[cfg(not(feature = "nats"))]
    #[test]
    fn without_the_feature_an_entry_is_refused() {
        let error = read("").unwrap().check().unwrap_err().to_string();
        assert!(error.ends_with("this hydrant was built without NATS; build it with --features nats"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_is_right() {
        for text in ["from = 0", "from = -1", "from = \"yesterday\"", "from = true"] {
            let error = read(text).unwrap_err();
            assert!(error.contains("\"new\", \"all\", a time as"), "{text}: {error}");
        }
        for (url, part) in [
            ("syslog://h", "begins with nats://"),
            ("nats://h", "names no stream"),
            ("nats://h/a.b", "names no stream"),
            ("nats://h:x/S", "port"),
            ("nats://a/b:canary@h/S", "write / as %2F"),
        ] {
            let error = url.parse::<NatsUrl>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("canary"), "{url}: {error}");
        }
        let url: NatsUrl = "nats-tls://a%40b@[::1]/S".parse().unwrap();
        assert_eq!((url.tls, url.to_string().as_str()), (true, "nats-tls://[::1]:4222/S"));
        assert_eq!(url.login, Some(("a@b".to_owned(), None)));
    }
}
