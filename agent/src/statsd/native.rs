//! Series between two flushes, and the envelopes that they become. Pure.
//!
//! What enters: lines. What leaves, at every flush and for a series that has to be forgotten: a counter with what was added, a gauge
//! with its level, a gauge with the summary of a timer's values or the size of a set. A series is its name, its type and its tags as
//! they were written; one that nothing came for is not told.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;

use lru::LruCache;

use super::config::NegativeGauges;
use super::line::{Line, Type, instance_tag, place};
use super::notice::put_tags;
use super::summary::{Values, has_unit};
use super::{LineError, Settings};
use crate::gather::Gather;

/// The largest step of a counter, and the most that it may be behind: 2^63.
const LARGEST: f64 = 9_223_372_036_854_775_808.0;

/// Bytes of a series's name and tags, in the mean.
const KEY: usize = 1_024;

/// What has come for each series since the last flush.
#[derive(Debug)]
pub(super) struct Native {
    series: LruCache<Vec<u8>, Series, foldhash::fast::RandomState>,
    max_series: NonZeroUsize,
    /// Bytes of all keys.
    keys: usize,
    /// Values and members that all series keep, and may.
    values: usize,
    max_all: usize,
    /// The key of the series at hand, kept for its capacity.
    key: Vec<u8>,
    /// Of the sample of values: any sequence does.
    random: u64,
    hasher: foldhash::fast::RandomState,
    /// Names of a summary's entries, kept for its capacity.
    names: String,
    /// Series that were told and forgotten before they were due, and values and members that were counted but not kept.
    pub(super) forgotten: u64,
    pub(super) not_kept: u64,
}

#[derive(Debug)]
struct Series {
    kept: Kept,
    /// Something has come since the last flush.
    touched: bool,
}

#[derive(Debug)]
enum Kept {
    /// What was added and is not told. Less than one, or below zero, stays for later.
    Sum(f64),
    Level(f64),
    Values(Values),
    Members(HashSet<u64, foldhash::fast::RandomState>),
}

impl Kept {
    fn new(kind: Type) -> Self {
        match kind {
            Type::Counter => Self::Sum(0.0),
            Type::Gauge => Self::Level(0.0),
            Type::Timer | Type::Histogram | Type::Distribution => Self::Values(Values::default()),
            Type::Set => Self::Members(HashSet::default()),
        }
    }
}

impl Kept {
    /// Values or members.
    fn values(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Members(members) => members.len(),
            Self::Sum(_) | Self::Level(_) => 0,
        }
    }
}

impl Native {
    /// One that remembers up to `max_series`, of a kibibyte each in the mean, and keeps up to `max_all` values and members in all.
    pub(super) fn new(max_series: NonZeroUsize, max_all: usize) -> Self {
        Self {
            series: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            max_series,
            keys: 0,
            values: 0,
            max_all,
            key: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            hasher: foldhash::fast::RandomState::default(),
            names: String::new(),
            forgotten: 0,
            not_kept: 0,
        }
    }

    /// Takes a line. What it says with a time of its own, and what has to be forgotten for it, goes to `gather` at once.
    ///
    /// # Errors
    /// A value is no number, or there is no source.
    pub(super) fn apply(
        &mut self,
        line: &Line<'_>,
        settings: &Settings,
        now_ns: i64,
        gather: &mut Gather,
    ) -> Result<(), LineError> {
        place(line.name, line.tags, settings.source_id.as_deref())?;
        if line.kind != Type::Set {
            // All or nothing, and nothing is remembered of a line that is refused.
            line.values.split(':').try_for_each(|value| check(value, line))?;
        }
        if let (Some(timestamp), Type::Counter | Type::Gauge) = (line.timestamp, line.kind) {
            return put_at_once(line, settings, timestamp, gather);
        }
        put_key(&mut self.key, line);
        let known = self.series.len();
        let series = self
            .series
            .get_or_insert_mut_ref(self.key.as_slice(), || Series { kept: Kept::new(line.kind), touched: false });
        let before = series.kept.values();
        // Where all series together keep what they may, none keeps more than it has.
        let room = if self.values < self.max_all { settings.max_values.get() } else { before.max(1) };
        match &mut series.kept {
            Kept::Sum(sum) => {
                for value in line.values.split(':') {
                    *sum = (*sum + number(value)? / line.rate).clamp(-LARGEST, LARGEST);
                }
            }
            Kept::Level(level) => {
                for value in line.values.split(':') {
                    let step = settings.negative_gauges == NegativeGauges::Subtract && value.starts_with(['+', '-']);
                    let value = number(value)?;
                    *level = if step { *level + value } else { value };
                }
            }
            Kept::Values(values) => {
                for value in line.values.split(':') {
                    let random = |below| next_random(&mut self.random) % below;
                    self.not_kept += u64::from(!values.add(number(value)?, line.rate.recip(), room, random));
                }
            }
            // A member may have colons in it.
            Kept::Members(members) => {
                let member = self.hasher.hash_one(line.values);
                if members.len() < room {
                    members.insert(member);
                } else if !members.contains(&member) {
                    self.not_kept += 1;
                }
            }
        }
        series.touched = true;
        self.values += series.kept.values() - before;
        if self.series.len() > known {
            self.keys += self.key.len();
            self.forget(settings, now_ns, gather);
        }
        Ok(())
    }

    /// Tells and forgets the series longest unused, while there are too many or their names and tags are too long.
    fn forget(&mut self, settings: &Settings, now_ns: i64, gather: &mut Gather) {
        let max_keys = self.max_series.get().saturating_mul(KEY);
        while self.series.len() > self.max_series.get() || (self.keys > max_keys && self.series.len() > 1) {
            let Some((key, mut series)) = self.series.pop_lru() else { return };
            self.forgotten += 1;
            self.keys -= key.len();
            self.values -= series.kept.values();
            tell(&key, &mut series, settings, now_ns, &mut self.names, gather);
        }
    }

    /// Tells what has come since the last flush; `full` is called whenever `gather` should be emptied.
    pub(super) fn flush(
        &mut self,
        settings: &Settings,
        now_ns: i64,
        gather: &mut Gather,
        mut full: impl FnMut(&mut Gather),
    ) {
        self.values = 0;
        for (key, series) in &mut self.series {
            tell(key, series, settings, now_ns, &mut self.names, gather);
            if gather.is_full() {
                full(gather);
            }
        }
    }
}

/// Writes what has come for a series, and starts it again.
fn tell(key: &[u8], series: &mut Series, settings: &Settings, now_ns: i64, names: &mut String, gather: &mut Gather) {
    if !std::mem::take(&mut series.touched) {
        return;
    }
    let key = Key::read(key);
    let Ok((source, name)) = place(key.name, key.tags, settings.source_id.as_deref()) else { return };
    let mut draft = gather.envelope(source, instance_tag(key.tags), now_ns);
    put_tags(key.tags, source, &mut draft);
    if !key.container.is_empty() {
        draft.tag("container_id", key.container);
    }
    match &mut series.kept {
        Kept::Sum(sum) => {
            let whole = whole(*sum);
            *sum -= whole;
            if whole > 0.0 {
                draft.counter(name, whole as u64, 0);
            }
        }
        Kept::Level(level) => draft.gauge([(name, "", *level)]),
        Kept::Members(members) => {
            let count = members.len() as f64;
            members.clear();
            members.shrink_to(64);
            draft.gauge([(name, "", count)]);
        }
        Kept::Values(values) => {
            let Some(summary) = values.take(settings.flush_interval.as_secs_f64()) else { return };
            let unit = if key.kind == b'm' { "ms" } else { "" };
            names.clear();
            for (entry, _) in summary.entries {
                names.extend([name, ".", entry]);
            }
            let mut rest = names.as_str();
            draft.gauge(summary.entries.map(|(entry, value)| {
                let (this, more) = rest.split_at(name.len() + 1 + entry.len());
                rest = more;
                (this, if has_unit(entry) { unit } else { "" }, value)
            }));
        }
    }
}

/// The part of a sum that can be told; what rounding took from a whole number is given back.
fn whole(sum: f64) -> f64 {
    if sum < 0.0 { 0.0 } else { (sum + 1e-9).floor().min(u64::MAX as f64) }
}

/// A counter or gauge with a time of its own is not summed up with others: its values are one envelope.
fn put_at_once(line: &Line<'_>, settings: &Settings, timestamp: i64, gather: &mut Gather) -> Result<(), LineError> {
    let (source, name) = place(line.name, line.tags, settings.source_id.as_deref())?;
    let (mut sum, mut last) = (0.0, 0.0);
    for value in line.values.split(':') {
        last = number(value)?;
        sum += last / line.rate;
    }
    let mut draft = gather.envelope(source, instance_tag(line.tags), timestamp);
    put_tags(line.tags, source, &mut draft);
    if !line.container.is_empty() {
        draft.tag("container_id", line.container);
    }
    match line.kind {
        Type::Counter => draft.counter(name, whole(sum) as u64, 0),
        _ => draft.gauge([(name, "", last)]),
    }
    Ok(())
}

/// Whether a line's value can be told.
fn check(value: &str, line: &Line<'_>) -> Result<(), LineError> {
    let value = number(value)?;
    let fits = line.kind != Type::Counter || (value / line.rate).abs() <= LARGEST;
    if fits { Ok(()) } else { Err(LineError::Large) }
}

/// A value that is neither infinite nor no number.
fn number(text: &str) -> Result<f64, LineError> {
    match text.as_bytes() {
        // What else the parser takes, such as `inf`, is no decimal.
        [b'+' | b'-', b'0'..=b'9' | b'.', ..] | [b'0'..=b'9' | b'.', ..] => {
            text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(LineError::Form)
        }
        _ => Err(LineError::Form),
    }
}

/// xorshift: quick, and good enough for a sample.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A series as its key has it.
struct Key<'a> {
    kind: u8,
    name: &'a str,
    tags: &'a str,
    container: &'a str,
}

/// Writes a series's key: type, the lengths of name and tags, and name, tags and container.
fn put_key(key: &mut Vec<u8>, line: &Line<'_>) {
    key.clear();
    let kind = match line.kind {
        Type::Counter => b'c',
        Type::Gauge => b'g',
        Type::Timer => b'm',
        Type::Histogram => b'h',
        Type::Distribution => b'd',
        Type::Set => b's',
    };
    key.push(kind);
    for part in [line.name, line.tags] {
        // A datagram has less than 64 KiB.
        key.extend_from_slice(&(part.len() as u16).to_le_bytes());
    }
    for part in [line.name, line.tags, line.container] {
        key.extend_from_slice(part.as_bytes());
    }
}

impl<'a> Key<'a> {
    fn read(key: &'a [u8]) -> Self {
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&key[range]).expect("written from text");
        let length = |at: usize| usize::from(u16::from_le_bytes([key[at], key[at + 1]]));
        let (name, tags) = (5 + length(1), 5 + length(1) + length(3));
        Self { kind: key[0], name: text(5..name), tags: text(name..tags), container: text(tags..key.len()) }
    }
}
