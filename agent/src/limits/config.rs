//! What a source may be limited to.

use std::num::{NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

/// The `[agent.limits]` table. The default limits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct LimitsConfig {
    /// Of every source.
    pub sources: SourceLimits,
    /// Of sources that have others; `[[overrides]]` entries. None.
    pub overrides: Vec<SourceOverride>,
    /// Sources remembered; 10 000. Past that the one longest silent begins anew.
    pub max_sources: NonZeroUsize,
    /// Series remembered of all sources together, some 30 bytes each; 500 000. Past that those of the source longest silent are forgotten.
    pub max_series: NonZeroUsize,
}

/// What one source may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceLimits {
    /// Log lines; absent: any number.
    pub lines: Option<Rate>,
    /// Bytes of log envelopes, their tags included; absent: any number.
    pub bytes: Option<Rate>,
    /// Series of counters, gauges and timers within an hour; absent: any number.
    pub max_series: Option<NonZeroUsize>,
}

/// So much in a second for as long as one likes, and so much at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second.
    pub per_second: NonZeroU64,
    /// At once.
    pub burst: NonZeroU64,
}

/// Limits of some sources, in place of those of every source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOverride {
    /// The sources, each by its whole `source_id`.
    pub source_ids: Vec<String>,
    /// Theirs. What is absent here is not limited.
    pub limits: SourceLimits,
}

/// Why limits cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsConfigError {
    /// A burst of nothing.
    #[error("{0}_burst says how much may come at once; say {0}_per_second too")]
    NoRate(&'static str),
    /// An override of no source.
    #[error("overrides: an entry names no source; write source_ids = [\"…\"]")]
    NoSource,
    /// Two overrides of one source.
    #[error("overrides: {0:?} has more than one entry; put its limits into one")]
    Twice(String),
}

/// As it is written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_per_second: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_burst: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_burst: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_series_per_source: Option<NonZeroUsize>,
    max_sources: NonZeroUsize,
    max_series: NonZeroUsize,
    overrides: Vec<Entry>,
}

/// An override as it is written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    source_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_per_second: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines_burst: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_burst: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_series_per_source: Option<NonZeroUsize>,
}

impl LimitsConfig {
    /// The limits of every source, and all overrides.
    pub(super) fn all(&self) -> impl Iterator<Item = &SourceLimits> {
        std::iter::once(&self.sources).chain(self.overrides.iter().map(|entry| &entry.limits))
    }
}

impl Rate {
    /// A second's worth at once unless `burst` says otherwise.
    fn of(
        name: &'static str,
        per_second: Option<NonZeroU64>,
        burst: Option<NonZeroU64>,
    ) -> Result<Option<Self>, LimitsConfigError> {
        match (per_second, burst) {
            (Some(per_second), burst) => Ok(Some(Self { per_second, burst: burst.unwrap_or(per_second) })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(LimitsConfigError::NoRate(name)),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            sources: SourceLimits::default(),
            overrides: Vec::new(),
            max_sources: NonZeroUsize::new(10_000).expect("not zero"),
            max_series: NonZeroUsize::new(500_000).expect("not zero"),
        }
    }
}

impl Default for Table {
    fn default() -> Self {
        LimitsConfig::default().into()
    }
}

impl TryFrom<Table> for LimitsConfig {
    type Error = LimitsConfigError;

    fn try_from(table: Table) -> Result<Self, LimitsConfigError> {
        let sources = SourceLimits {
            lines: Rate::of("lines", table.lines_per_second, table.lines_burst)?,
            bytes: Rate::of("bytes", table.bytes_per_second, table.bytes_burst)?,
            max_series: table.max_series_per_source,
        };
        let overrides =
            table.overrides.into_iter().map(SourceOverride::try_from).collect::<Result<Vec<_>, LimitsConfigError>>()?;
        let mut known = std::collections::HashSet::new();
        for source_id in overrides.iter().flat_map(|entry| &entry.source_ids) {
            if !known.insert(source_id) {
                return Err(LimitsConfigError::Twice(source_id.clone()));
            }
        }
        Ok(Self { sources, overrides, max_sources: table.max_sources, max_series: table.max_series })
    }
}

impl TryFrom<Entry> for SourceOverride {
    type Error = LimitsConfigError;

    fn try_from(entry: Entry) -> Result<Self, LimitsConfigError> {
        if entry.source_ids.is_empty() {
            return Err(LimitsConfigError::NoSource);
        }
        let limits = SourceLimits {
            lines: Rate::of("lines", entry.lines_per_second, entry.lines_burst)?,
            bytes: Rate::of("bytes", entry.bytes_per_second, entry.bytes_burst)?,
            max_series: entry.max_series_per_source,
        };
        Ok(Self { source_ids: entry.source_ids, limits })
    }
}

impl From<LimitsConfig> for Table {
    fn from(config: LimitsConfig) -> Self {
        let SourceLimits { lines, bytes, max_series } = config.sources;
        Self {
            lines_per_second: lines.map(|rate| rate.per_second),
            lines_burst: lines.map(|rate| rate.burst),
            bytes_per_second: bytes.map(|rate| rate.per_second),
            bytes_burst: bytes.map(|rate| rate.burst),
            max_series_per_source: max_series,
            max_sources: config.max_sources,
            max_series: config.max_series,
            overrides: config.overrides.into_iter().map(Entry::from).collect(),
        }
    }
}

impl From<SourceOverride> for Entry {
    fn from(SourceOverride { source_ids, limits: SourceLimits { lines, bytes, max_series } }: SourceOverride) -> Self {
        Self {
            source_ids,
            lines_per_second: lines.map(|rate| rate.per_second),
            lines_burst: lines.map(|rate| rate.burst),
            bytes_per_second: bytes.map(|rate| rate.per_second),
            bytes_burst: bytes.map(|rate| rate.burst),
            max_series_per_source: max_series,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LimitsConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(parse("").unwrap(), LimitsConfig::default());
        let config = parse(
            "lines_per_second = 100\nbytes_per_second = 1000\nbytes_burst = 5000\nmax_series_per_source = 7\n\
             [[overrides]]\nsource_ids = [\"router\", \"db\"]\nlines_per_second = 5",
        )
        .unwrap();
        let some = |value| NonZeroU64::new(value).unwrap();
        assert_eq!(config.sources.lines, Some(Rate { per_second: some(100), burst: some(100) }));
        assert_eq!(config.sources.bytes, Some(Rate { per_second: some(1000), burst: some(5000) }));
        assert_eq!(config.overrides[0].limits.bytes, None, "what an override does not name is not limited");
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text).unwrap(), config, "{text}");
        let text = toml::to_string(&LimitsConfig::default()).unwrap();
        assert_eq!(parse(&text).unwrap(), LimitsConfig::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("lines_burst = 5").unwrap_err(), LimitsConfigError::NoRate("lines").to_string());
        assert_eq!(parse("[[overrides]]\nlines_per_second = 5").unwrap_err(), LimitsConfigError::NoSource.to_string());
        let twice = parse("[[overrides]]\nsource_ids = [\"a\"]\n[[overrides]]\nsource_ids = [\"b\", \"a\"]");
        assert_eq!(twice.unwrap_err(), LimitsConfigError::Twice("a".into()).to_string());
        assert!(parse("lines = 5").unwrap_err().contains("unknown field"));
        assert!(parse("lines_per_second = 0").unwrap_err().contains("nonzero"));
    }
}
