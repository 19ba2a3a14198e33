//! What is scraped: entries of our own, and files as the original has them (contract: agents §8.1).

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use transport::{Address, AddressError, duration_text};

/// The `[agent.scrape]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrapeConfig {
    /// Patterns of files that name one target of this machine each, in YAML, such as
    /// `"/var/vcap/jobs/*/config/prom_scraper_config.yml"`; looked at again at every interval. None.
    pub config_globs: Vec<String>,
    /// The source of metrics whose target has none; `"hydrant-agent"`.
    pub default_source_id: String,
    /// How often a target is scraped; `"15s"`.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// How long a scrape may take in all; `"10s"`, and no longer than its interval.
    #[serde(with = "duration_text")]
    pub timeout: Duration,
    /// Bytes of a page, unpacked; 10 MiB. A larger one is refused.
    pub max_body_bytes: NonZeroUsize,
    /// Series of a page; 50 000. A page with more is refused.
    pub max_series: NonZeroUsize,
    /// Targets; 1 000. More are named in the log and not scraped.
    pub max_targets: NonZeroUsize,
    /// What to show to targets of files, and whom to trust, unless the file says otherwise. Absent: nothing, and the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ScrapeTls>,
    /// Take any certificate that a target of a file shows; false. Shown as `hydrant_insecure_mode`.
    pub insecure_skip_verify: bool,
    /// Targets; `[[scrape.targets]]` entries. None.
    pub targets: Vec<ScrapeTarget>,
}

/// A `[[agent.scrape.targets]]` entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScrapeTarget {
    /// Where the page is, such as `"http://127.0.0.1:9100/metrics"`.
    pub url: TargetUrl,
    /// The source of its metrics. Absent: `default_source_id`.
    #[serde(default)]
    pub source_id: String,
    /// The instance of its metrics. None.
    #[serde(default)]
    pub instance_id: String,
    /// Labels that its metrics get unless they have their own. None.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Headers to send. None.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How often; `interval` of the table.
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long; `timeout` of the table.
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Whom to trust, and what to show. Absent: the system's authorities, and nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ScrapeTls>,
}

/// A `tls` table of a target, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScrapeTls {
    /// The authorities that the target's certificate must chain to. Absent: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The certificate to show. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The name or address that the target's certificate must carry. Absent: the URL's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            config_globs: Vec::new(),
            default_source_id: "hydrant-agent".to_owned(),
            interval: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            max_body_bytes: some(10 * 1024 * 1024),
            max_series: some(50_000),
            max_targets: some(1_000),
            tls: None,
            insecure_skip_verify: false,
            targets: Vec::new(),
        }
    }
}

/// Durations that may be absent.
mod optional {
    use super::{Deserialize, Duration, duration_text};

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Text(#[serde(with = "duration_text")] Duration);
        Text::deserialize(deserializer).map(|Text(duration)| Some(duration))
    }

    pub(super) fn serialize<S: serde::Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => duration_text::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// Where a page of metrics is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetUrl {
    /// Whether it begins with `https://`.
    pub is_tls: bool,
    /// Host and port.
    pub address: Address,
    /// With its `/` and what follows a `?`.
    pub path: String,
}

/// Why a text is no [`TargetUrl`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetUrlError {
    /// Neither of the two.
    #[error("the URL does not begin with http:// or https://")]
    Scheme,
    /// A user name or a fragment.
    #[error(
        "the URL has a user name or a fragment, or its path is none; write http://host:port/path, and a login as a header"
    )]
    More,
    /// Host and port cannot be read.
    #[error("the URL's host and port: {0}")]
    Address(#[from] AddressError),
}

impl FromStr for TargetUrl {
    type Err = TargetUrlError;

    fn from_str(text: &str) -> Result<Self, TargetUrlError> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(TargetUrlError::Scheme),
        };
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if rest.contains(['@', '#']) || PathAndQuery::from_str(&path).is_err() {
            return Err(TargetUrlError::More);
        }
        let address = match host.parse() {
            Err(AddressError::NoPort(_)) => format!("{host}:{}", if is_tls { 443 } else { 80 }).parse()?,
            other => other?,
        };
        Ok(Self { is_tls, address, path })
    }
}

impl TryFrom<String> for TargetUrl {
    type Error = TargetUrlError;

    fn try_from(text: String) -> Result<Self, TargetUrlError> {
        text.parse()
    }
}

impl From<TargetUrl> for String {
    fn from(url: TargetUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.address, self.path)
    }
}

/// A file that names a target of this machine, as the original has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetFile {
    /// Where the page is.
    pub url: TargetUrl,
    /// Empty for the default.
    pub source_id: String,
    /// Of all its metrics.
    pub instance_id: String,
    /// Labels that its metrics get unless they have their own.
    pub labels: BTreeMap<String, String>,
    /// Headers to send.
    pub headers: BTreeMap<String, String>,
    /// How often; `None` for the default.
    pub interval: Option<Duration>,
    /// Its own files and name for TLS.
    pub tls: ScrapeTls,
}

/// Why a file names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFileError {
    /// Not such a file.
    #[error("it is no YAML with the keys of a target: {0}")]
    Yaml(String),
    /// A port that is none.
    #[error("port {0:?} is no number from 1 to 65535")]
    Port(String),
    /// A scheme that is none.
    #[error("scheme {0:?} is neither http nor https")]
    Scheme(String),
    /// A path that is none.
    #[error("path {0:?}: {1}")]
    Path(String, TargetUrlError),
    /// An interval that is none.
    #[error("scrape_interval {0:?} is no duration, such as 15s")]
    Interval(String),
    /// It says that it is not to be scraped.
    #[error("scrape_interval is not above zero: it is not scraped")]
    Never,
}

/// The keys of a file. A key with nothing behind it counts as absent, as such files are rendered from templates.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Keys {
    port: Option<Port>,
    source_id: Option<String>,
    instance_id: Option<String>,
    scheme: Option<String>,
    server_name: Option<String>,
    path: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    scrape_interval: Option<String>,
    ca_path: Option<String>,
    client_key_path: Option<String>,
    client_cert_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(i64),
    Text(String),
}

impl TargetFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// See [`TargetFileError`].
    pub fn parse(text: &str) -> Result<Self, TargetFileError> {
        let keys: Keys = serde_saphyr::from_str(text).map_err(|error| TargetFileError::Yaml(error.to_string()))?;
        let port = match &keys.port {
            Some(Port::Number(port)) => port.to_string(),
            Some(Port::Text(port)) => port.clone(),
            None => String::new(),
        };
        let number = port.parse::<u16>().ok().filter(|port| *port > 0);
        let number = number.ok_or(TargetFileError::Port(port))?;
        let given = |key: &Option<String>, default: &str| {
            key.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let (scheme, path) = (given(&keys.scheme, "http"), given(&keys.path, "/metrics"));
        if !matches!(scheme.as_str(), "http" | "https") {
            return Err(TargetFileError::Scheme(scheme));
        }
        let url = format!("{scheme}://127.0.0.1:{number}/{}", path.trim_start_matches('/'));
        let url = url.parse().map_err(|error| TargetFileError::Path(path, error))?;
        let interval = match keys.scrape_interval.as_deref().unwrap_or_default() {
            "" => None,
            text if text.starts_with('-') => return Err(TargetFileError::Never),
            text => match humantime::parse_duration(text) {
                Ok(Duration::ZERO) => return Err(TargetFileError::Never),
                Ok(interval) => Some(interval),
                Err(_) => return Err(TargetFileError::Interval(text.to_owned())),
            },
        };
        let path = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let tls = ScrapeTls {
            ca: path(keys.ca_path),
            cert: path(keys.client_cert_path),
            key: path(keys.client_key_path),
            server_name: keys.server_name.filter(|name| !name.is_empty()),
        };
        Ok(Self {
            url,
            source_id: keys.source_id.unwrap_or_default(),
            instance_id: keys.instance_id.unwrap_or_default(),
            labels: keys.labels.unwrap_or_default(),
            headers: keys.headers.unwrap_or_default(),
            interval,
            tls,
        })
    }
}
