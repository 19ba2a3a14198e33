//! What a query asks for (contract: loggregator v2 §12.1), and what is said of one that asks for nothing. Pure.
//!
//! What enters: the query of a request, as it stands in the target. What leaves: the subscription that it means, and where it is to begin.
//! Pairs that cannot be unescaped are skipped, and unknown names ignored, as the original does.

use proto::selector::too_many;
use proto::v2;
use proto::v2::selector::Message as Select;

use super::cursor::Place;

/// What a consumer wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) egress: v2::EgressBatchRequest,
    /// The sources by name, in their order; none is any.
    pub(super) sources: Vec<String>,
    /// From where; absent is live, as dopplers send.
    pub(super) start: Option<Start>,
    /// It takes markers where envelopes are missing.
    pub(super) markers: bool,
}

/// Where a stream that reads from the caches begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Start {
    /// At this time, nanoseconds since the Unix epoch.
    At(i64),
    /// Where an earlier one stood.
    After(Place),
}

/// Why a query cannot be served. The names and first texts are the contract's (§12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadQuery {
    #[error("query cannot be empty")]
    Empty,
    #[error("query must provide at least one envelope type")]
    NoType,
    #[error("a request has too many selectors: sources times types must be 10000 at most")]
    TooMany,
    #[error("a source_id is longer than 256 bytes")]
    LongSource,
    #[error(
        "start_time must be nanoseconds since 1970, a time such as 2026-11-21T14:00:00Z, or a duration back such as -10m"
    )]
    StartTime,
    #[error("this is no cursor of a stream; leave it out and give start_time instead")]
    Cursor,
    #[error("start_time, after and resume need source_id, and go without shard_id and deterministic_name")]
    NoHistory,
}

impl BadQuery {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty_query",
            Self::NoType => "missing_envelope_type",
            Self::TooMany => "too_many_selectors",
            Self::LongSource => "invalid_source_id",
            Self::StartTime => "invalid_start_time",
            Self::Cursor => "invalid_cursor",
            Self::NoHistory => "no_history",
        }
    }
}

/// The longest `source_id`.
const MAX_SOURCE_ID: usize = 256;

/// The sources that a query names. For the authorizer, before anything else is looked at.
pub(super) fn sources(query: Option<&str>) -> Vec<String> {
    values(&pairs(query.unwrap_or_default()), "source_id").map(str::to_owned).collect()
}

/// What `query` asks for; `last_event_id` is the header of a consumer that comes back. `now` is the time.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn parse(query: Option<&str>, last_event_id: Option<&str>, now: i64) -> Result<Wanted, BadQuery> {
    let query = query.unwrap_or_default();
    if query.is_empty() {
        return Err(BadQuery::Empty);
    }
    let pairs = pairs(query);
    let kinds = kinds(&pairs);
    if kinds.is_empty() {
        return Err(BadQuery::NoType);
    }
    let mut sources: Vec<String> = Vec::new();
    for source in values(&pairs, "source_id").map(str::to_owned) {
        if source.len() > MAX_SOURCE_ID {
            return Err(BadQuery::LongSource);
        }
        sources.push(source);
    }
    if too_many(sources.len().max(1).saturating_mul(kinds.len())).is_some() {
        return Err(BadQuery::TooMany);
    }
    let of = |source: &str| {
        let source = source.to_owned();
        kinds.iter().map(move |kind| v2::Selector { source_id: source.clone(), message: Some(kind.clone()) })
    };
    let selectors = match sources.as_slice() {
        [] => of("").collect(),
        named => named.iter().flat_map(|source| of(source)).collect(),
    };
    let first = |name: &str| values(&pairs, name).next().unwrap_or_default().to_owned();
    let egress = v2::EgressBatchRequest {
        shard_id: first("shard_id"),
        deterministic_name: first("deterministic_name"),
        selectors,
        use_preferred_tags: true,
        legacy_selector: None,
    };
    let start = start(&pairs, last_event_id, now)?;
    // The empty name is any source.
    let named = !sources.is_empty() && sources.iter().all(|source| !source.is_empty());
    if start.is_some() && !(named && egress.shard_id.is_empty() && egress.deterministic_name.is_empty()) {
        return Err(BadQuery::NoHistory);
    }
    let markers = has(&pairs, "gap_markers");
    Ok(Wanted { egress, sources, start, markers })
}

fn start(pairs: &Pairs, last_event_id: Option<&str>, now: i64) -> Result<Option<Start>, BadQuery> {
    let after = last_event_id.or_else(|| values(pairs, "after").next()).filter(|text| !text.is_empty());
    if let Some(text) = after {
        return Place::parse(text).map(|place| Some(Start::After(place))).ok_or(BadQuery::Cursor);
    }
    match values(pairs, "start_time").next() {
        Some(text) => time(text, now).map(|time| Some(Start::At(time))).ok_or(BadQuery::StartTime),
        None => Ok(has(pairs, "resume").then_some(Start::At(now))),
    }
}

/// Nanoseconds, a time of RFC 3339, or a duration back.
fn time(text: &str, now: i64) -> Option<i64> {
    if let Ok(nanos) = text.parse() {
        return Some(nanos);
    }
    if let Some(back) = text.strip_prefix('-') {
        let back = humantime::parse_duration(back).ok()?;
        return Some(now.saturating_sub(i64::try_from(back.as_nanos()).unwrap_or(i64::MAX)));
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// In the contract's order: log, counter, gauge, timer, event. Names take the place of their plain type.
fn kinds(pairs: &Pairs) -> Vec<Select> {
    let mut kinds = Vec::new();
    if has(pairs, "log") {
        kinds.push(Select::Log(v2::LogSelector {}));
    }
    let counters = values(pairs, "counter.name").map(|name| v2::CounterSelector { name: name.to_owned() });
    let before = kinds.len();
    kinds.extend(counters.map(Select::Counter));
    if kinds.len() == before && has(pairs, "counter") {
        kinds.push(Select::Counter(v2::CounterSelector::default()));
    }
    let gauges = values(pairs, "gauge.name").map(|names| names.split(',').map(str::to_owned).collect());
    let before = kinds.len();
    kinds.extend(gauges.map(|names| Select::Gauge(v2::GaugeSelector { names })));
    if kinds.len() == before && has(pairs, "gauge") {
        kinds.push(Select::Gauge(v2::GaugeSelector::default()));
    }
    if has(pairs, "timer") {
        kinds.push(Select::Timer(v2::TimerSelector {}));
    }
    if has(pairs, "event") {
        kinds.push(Select::Event(v2::EventSelector {}));
    }
    kinds
}

type Pairs = Vec<(String, String)>;

fn pairs(query: &str) -> Pairs {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    let split = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescaped(key)?, unescaped(value)?))
    };
    pairs.filter_map(split).collect()
}

/// The text without its escapes; `None` when one is broken or what they give is no UTF-8.
fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let broken = |at: usize| bytes[at] == b'%' && !(is_digit(at + 1) && is_digit(at + 2));
    if (0..bytes.len()).any(broken) {
        return None;
    }
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
}

fn values<'a>(pairs: &'a Pairs, name: &'a str) -> impl Iterator<Item = &'a str> {
    pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn has(pairs: &Pairs, name: &str) -> bool {
    values(pairs, name).next().is_some()
}

#[cfg(test)]
mod tests;
