//! The `otlp` table of a drain.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use transport::duration_text;

use crate::syslog::config::Secret;

/// Headers of a drain, and bytes of the value of each.
const MAX_HEADERS: usize = 32;
const MAX_HEADER: usize = 4096;
/// Attributes of the resource, and bytes of the key and value of each.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE: usize = 1024;
/// Bounds of what goes into a request: a collector takes 4 MiB at most unless told otherwise.
const ITEMS: std::ops::RangeInclusive<usize> = 1..=100_000;
const BYTES: std::ops::RangeInclusive<usize> = 4096..=4 * 1024 * 1024;
const SERIES: std::ops::RangeInclusive<usize> = 1..=1_000_000;
/// What the protocols say themselves. `authorization` is the token's, or the URL's.
const OURS: [&str; 11] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How envelopes look to an OpenTelemetry collector, and how they go there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// `"otelcol"`: exactly as the original agents write to a collector. Absent: our own.
    pub preset: Option<OtlpPreset>,
    /// Headers of every request, or its metadata over gRPC; at most 32. Their values are never shown. None.
    pub headers: BTreeMap<String, Secret>,
    /// How requests are compressed; `"gzip"`, with the preset `"none"`.
    pub compression: Option<Compression>,
    /// What to send: `"logs"`, `"metrics"` and `"traces"`. Absent: all three.
    pub signals: Option<Vec<Signal>>,
    /// What becomes of timers that are no spans; `"histogram"`, with the preset `"none"`.
    pub timers: Option<Timers>,
    /// Attributes of the resource, over those that envelopes give; at most 64. None.
    pub resource: BTreeMap<String, String>,
    /// Log records, data points or spans in a request, 1 to 100 000. 1 000, with the preset 100.
    pub max_items: Option<NonZeroUsize>,
    /// Bytes of a request before compression, 4 096 to 4 MiB. 1 MiB.
    pub max_bytes: Option<NonZeroUsize>,
    /// How long an envelope may wait for others; 1 s, with the preset 100 ms.
    #[serde(deserialize_with = "some_duration", serialize_with = "some_text")]
    pub max_age: Option<Duration>,
    /// Counters, and histograms, that are remembered; 1 to 1 000 000. 100 000 of the former, a tenth of that of the latter.
    pub max_series: Option<NonZeroUsize>,
}

/// A mapping that others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpPreset {
    /// That of the original agents (contract: agents §3.3).
    Otelcol,
}

/// How a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// Not at all.
    None,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Logs and events, as log records.
    Logs,
    /// Counters, gauges, and what timers become that are no spans.
    Metrics,
    /// Timers with identifiers of a trace, as spans.
    Traces,
}

/// What becomes of timers that are no spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Timers {
    /// A cumulative histogram `NAME.duration`, in seconds.
    Histogram,
    /// A value of the gauge `NAME.duration` each, in seconds.
    Gauge,
    /// Nothing: they count as filtered.
    None,
}

/// Why the table cannot be used. No variant shows the value of a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtlpError {
    /// More than a request should carry.
    #[error("otlp.headers has {0} headers; at most {MAX_HEADERS} are taken")]
    Headers(usize),
    /// What no header may be called.
    #[error("otlp.headers: {0:?} is no name of a header; write letters, digits and -")]
    HeaderName(String),
    /// One that is ours to write.
    #[error("otlp.headers: {0} is written by hydrant itself{hint}", hint = hint(.0))]
    HeaderOurs(String),
    /// One whose value cannot be sent.
    #[error(
        "otlp.headers: the value of {0} is empty, longer than {MAX_HEADER} bytes, or holds more than visible ASCII characters and blanks"
    )]
    HeaderValue(String),
    /// Nothing would be sent.
    #[error("otlp.signals is empty; name logs, metrics or traces, or leave it out to send all")]
    NoSignal,
    /// More attributes than a resource should have.
    #[error("otlp.resource has {0} attributes; at most {MAX_ATTRIBUTES} are taken")]
    Attributes(usize),
    /// An attribute without a name, or too long.
    #[error("otlp.resource: a key is empty, or a key or value longer than {MAX_ATTRIBUTE} bytes; it begins with {0:?}")]
    Attribute(String),
    /// A bound that is out of bounds.
    #[error("otlp.{0} is {1}; it is {2} to {3}")]
    Bound(&'static str, usize, usize, usize),
}

fn hint(name: &str) -> &'static str {
    if name == "authorization" { "; set token_file or token, or user name and password in the URL" } else { "" }
}

impl OtlpConfig {
    /// Looks at all of it together.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub(crate) fn check(&self) -> Result<(), OtlpError> {
        self.headers()?;
        if self.signals.as_ref().is_some_and(Vec::is_empty) {
            return Err(OtlpError::NoSignal);
        }
        if self.resource.len() > MAX_ATTRIBUTES {
            return Err(OtlpError::Attributes(self.resource.len()));
        }
        let is_wrong = |text: &str| text.len() > MAX_ATTRIBUTE;
        if let Some((key, _)) =
            self.resource.iter().find(|(key, value)| key.is_empty() || is_wrong(key) || is_wrong(value))
        {
            return Err(OtlpError::Attribute(key.chars().take(20).collect()));
        }
        let bounds = [
            ("max_items", self.max_items(), ITEMS),
            ("max_bytes", self.max_bytes(), BYTES),
            ("max_series", self.max_series(), SERIES),
        ];
        match bounds.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => Err(OtlpError::Bound(key, value, *range.start(), *range.end())),
            None => Ok(()),
        }
    }

    /// The headers as they are sent.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub(crate) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, OtlpError> {
        if self.headers.len() > MAX_HEADERS {
            return Err(OtlpError::Headers(self.headers.len()));
        }
        let header = |(name, value): (&String, &Secret)| {
            let shown = || name.chars().take(40).collect::<String>();
            let parsed = HeaderName::try_from(name.as_str()).map_err(|_| OtlpError::HeaderName(shown()))?;
            if OURS.contains(&parsed.as_str()) || parsed.as_str().starts_with("grpc-") {
                return Err(OtlpError::HeaderOurs(parsed.to_string()));
            }
            let fits = (1..=MAX_HEADER).contains(&value.reveal().len()) && value.reveal().is_ascii();
            let sent = Some(value.reveal()).filter(|_| fits).and_then(|value| HeaderValue::from_str(value).ok());
            let mut sent = sent.ok_or_else(|| OtlpError::HeaderValue(shown()))?;
            sent.set_sensitive(true);
            Ok((parsed, sent))
        };
        self.headers.iter().map(header).collect()
    }

    /// Whether it sends this.
    pub(crate) fn sends(&self, signal: Signal) -> bool {
        self.signals.as_ref().is_none_or(|signals| signals.contains(&signal))
    }

    /// Whether a timer that is no span has a form.
    pub(crate) fn timers(&self) -> Timers {
        self.timers.unwrap_or(if self.preset.is_some() { Timers::None } else { Timers::Histogram })
    }

    /// How long envelopes gather.
    pub(crate) fn max_age(&self) -> Duration {
        self.max_age.unwrap_or(Duration::from_millis(if self.preset.is_some() { 100 } else { 1000 }))
    }

    pub(crate) fn max_items(&self) -> usize {
        self.max_items.map_or(if self.preset.is_some() { 100 } else { 1000 }, NonZeroUsize::get)
    }

    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes.map_or(1024 * 1024, NonZeroUsize::get)
    }

    pub(crate) fn max_series(&self) -> usize {
        self.max_series.map_or(100_000, NonZeroUsize::get)
    }
}

fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration_text::deserialize(deserializer).map(Some)
}

fn some_text<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => duration_text::serialize(duration, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OtlpConfig, String> {
        let config: OtlpConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_preset_changes_defaults_and_nothing_else() {
        let (plain, preset) = (read("").unwrap(), read("preset = \"otelcol\"").unwrap());
        let bounds = |config: &OtlpConfig| (config.max_items(), config.max_bytes(), config.max_age().as_millis());
        assert_eq!((bounds(&plain), bounds(&preset)), ((1000, 1 << 20, 1000), (100, 1 << 20, 100)));
        assert_eq!((plain.timers(), preset.timers()), (Timers::Histogram, Timers::None));
        let changed = read("preset = \"otelcol\"\ntimers = \"gauge\"\nmax_items = 7\nsignals = [\"logs\"]").unwrap();
        assert_eq!((changed.timers(), changed.max_items()), (Timers::Gauge, 7));
        assert!(changed.sends(Signal::Logs) && !changed.sends(Signal::Traces));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_of_a_header_is() {
        let error = |text: &str| {
            let error = read(text).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
            error
        };
        assert!(error("signals = []").contains("name logs, metrics or traces"));
        assert!(error("signals = [\"events\"]").contains("`logs`"));
        assert!(error("compression = \"zstd\"").contains("`gzip`"));
        assert!(error("timers = \"sum\"").contains("`histogram`"));
        assert!(error("preset = \"nozzle\"").contains("otelcol"));
        assert!(error("max_items = 0").contains("nonzero"));
        assert!(error("max_items = 200000").contains("otlp.max_items is 200000; it is 1 to 100000"));
        assert!(error("max_bytes = 100").contains("otlp.max_bytes is 100; it is 4096 to 4194304"));
        assert!(error("max_age = \"soon\"").contains("written like"));
        assert!(error("headers = { \"a b\" = \"canary\" }").contains("\"a b\" is no name of a header"));
        assert!(error("headers = { Authorization = \"canary\" }").contains("set token_file or token"));
        assert!(error("headers = { grpc-timeout = \"canary\" }").contains("written by hydrant itself"));
        assert!(error("headers = { x = \"canary\\n\" }").contains("the value of x"));
        assert!(error("headers = { x = \"canaryé\" }").contains("the value of x"));
        assert!(error("headers = { x = 1 }").contains("text in quotes"));
        assert!(error(&format!("headers.x = \"{}\"", "c".repeat(5000))).contains("longer than 4096 bytes"));
        assert!(error("resource = { \"\" = \"a\" }").contains("a key is empty"));
        assert!(error("header = {}").contains("`headers`"));
        let many: String = (0..33).map(|i| format!("h{i} = \"a\"\n")).collect();
        assert!(error(&format!("[headers]\n{many}")).contains("has 33 headers"));
    }

    #[test]
    fn a_dump_shows_names_of_headers_alone() {
        let config = read("headers = { x-api-key = \"canary\" }").unwrap();
        let dumped = format!("{config:?}{}", serde_json::to_string(&config).unwrap());
        assert!(dumped.contains("x-api-key") && !dumped.contains("canary"), "{dumped}");
        assert!(!format!("{:?}", config.headers().unwrap()).contains("canary"));
    }
}
