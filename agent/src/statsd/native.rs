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

/// What has come for each series since the last flush.
#[derive(Debug)]
pub(super) struct Native {
    series: LruCache<Vec<u8>, Series, foldhash::fast::RandomState>,
    max_series: NonZeroUsize,
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

impl Native {
    pub(super) fn new(max_series: NonZeroUsize) -> Self {
        Self {
            series: LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default()),
            max_series,
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
        if line.kind != Type::Set && line.values.contains(':') {
            // All or nothing.
            line.values.split(':').try_for_each(|value| number(value).map(drop))?;
        }
        if let (Some(timestamp), Type::Counter | Type::Gauge) = (line.timestamp, line.kind) {
            return put_at_once(line, settings, timestamp, gather);
        }
        put_key(&mut self.key, line);
        let series = self
            .series
            .get_or_insert_mut_ref(self.key.as_slice(), || Series { kept: Kept::new(line.kind), touched: false });
        for value in line.values.split(':') {
            match &mut series.kept {
                Kept::Sum(sum) => *sum += number(value)? / line.rate,
                Kept::Level(level) => {
                    let step = settings.negative_gauges == NegativeGauges::Subtract && value.starts_with(['+', '-']);
                    let value = number(value)?;
                    *level = if step { *level + value } else { value };
                }
                Kept::Values(values) => {
                    let random = |below| next_random(&mut self.random) % below;
                    let kept = values.add(number(value)?, line.rate.recip(), settings.max_values.get(), random);
                    self.not_kept += u64::from(!kept);
                }
                Kept::Members(members) => {
                    let member = self.hasher.hash_one(value);
                    if members.len() < settings.max_values.get() {
                        members.insert(member);
                    } else if !members.contains(&member) {
                        self.not_kept += 1;
                    }
                }
            }
        }
        series.touched = true;
        if self.series.len() > self.max_series.get()
            && let Some((key, mut series)) = self.series.pop_lru()
        {
            self.forgotten += 1;
            tell(&key, &mut series, settings, now_ns, &mut self.names, gather);
        }
        Ok(())
    }

    /// Tells what has come since the last flush; `full` is called whenever `gather` should be emptied.
    pub(super) fn flush(
        &mut self,
        settings: &Settings,
        now_ns: i64,
        gather: &mut Gather,
        mut full: impl FnMut(&mut Gather),
    ) {
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

/// Counters and gauges with a time of their own are not summed up with others.
fn put_at_once(line: &Line<'_>, settings: &Settings, timestamp: i64, gather: &mut Gather) -> Result<(), LineError> {
    let (source, name) = place(line.name, line.tags, settings.source_id.as_deref())?;
    for value in line.values.split(':') {
        let value = number(value)?;
        let mut draft = gather.envelope(source, instance_tag(line.tags), timestamp);
        put_tags(line.tags, source, &mut draft);
        if !line.container.is_empty() {
            draft.tag("container_id", line.container);
        }
        match line.kind {
            Type::Counter => draft.counter(name, whole(value / line.rate) as u64, 0),
            _ => draft.gauge([(name, "", value)]),
        }
    }
    Ok(())
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
