//! What a drain URL says about envelopes: the options in its query (contract: syslog drains §4).

use percent_encoding::percent_decode_str;
use proto::raw::Kind;

use super::DrainUrlError;

/// What a URL may say about envelopes.
pub(super) const KEYS: [&str; 7] = [
    "drain-type",
    "drain-data",
    "include-metrics-deprecated",
    "disable-metadata",
    "omit-metadata",
    "include-log-types",
    "exclude-log-types",
];

/// The log types that a list may name.
pub const LOG_TYPES: [&str; 9] = ["API", "STG", "RTR", "LGR", "APP", "SSH", "CELL", "HEALTH", "PROXY"];

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

impl Default for Options {
    fn default() -> Self {
        Self { kinds: Kinds::LOGS_AND_EVENTS, metadata: None, log_types: LogTypes::All }
    }
}

impl Options {
    pub(super) fn parse(query: &Query, usual: Kinds, remarks: &mut Vec<String>) -> Result<Self, DrainUrlError> {
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
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn new(text: &str) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pair = |text: &str| {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            (decode(key), decode(value))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// Whether it has keys that say nothing about envelopes.
    pub(super) fn has_others(&self) -> bool {
        self.0.iter().any(|(key, _)| !KEYS.contains(&key.as_str()))
    }

    fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}
