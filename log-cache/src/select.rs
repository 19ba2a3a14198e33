//! Samples of metrics, selected by their labels: what a query language reads.
//!
//! What enters: a source, matchers on names and labels, a range of time. What leaves: series, each with its labels and its samples in
//! order of time (contract `log-cache.md` §3): a counter's total, a gauge's value, a timer's nanoseconds; times in whole seconds, samples
//! of one second all kept; labels as tagged, with source and instance. A packed segment's label set is matched once, and the messages of
//! those that do not match are not looked into. Pure: the store's locks are free meanwhile.

use std::sync::Arc;

use hashbrown::HashMap;
use promql::{Labels, MatchOp, Matcher, NAME, Sample, metric_name};
use proto::raw::wire::WireType;
use proto::raw::{Kind, tags};

use crate::message;
use crate::opened::Opened;
use crate::sealed::{Sealed, name_bit};
use crate::segment::KindSet;
use crate::store::Store;

/// The kinds that have samples.
const KINDS: KindSet = Kind::Counter.bit() | Kind::Gauge.bit() | Kind::Timer.bit();

/// The label that holds the source.
const SOURCE: &str = "source_id";

/// The label that holds the instance.
const INSTANCE: &str = "instance_id";

/// What to select of one source.
#[derive(Clone, Debug)]
pub struct Select {
    /// The source, exactly.
    pub source_id: String,
    /// What series have; the name as `__name__`.
    pub matchers: Vec<Matcher>,
    /// Milliseconds since the Unix epoch, inclusive.
    pub start: i64,
    /// Milliseconds since the Unix epoch, inclusive.
    pub end: i64,
    /// The moment of the query, in the same: what came in it or later is not seen (contract `log-cache.md` §3).
    pub before: Option<i64>,
    /// Series without their samples.
    pub labels_only: bool,
}

/// What a selection may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectLimits {
    /// Samples of all series together.
    pub samples: usize,
    /// Series.
    pub series: usize,
}

/// A series that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// With its name and its source.
    pub labels: Labels,
    /// In order of time, also within a second.
    pub samples: Vec<Sample>,
    /// What its envelopes are.
    pub kind: Kind,
    /// A gauge's.
    pub unit: String,
}

/// More than a selection may load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Samples.
    #[error("the query would load more than {0} samples; ask for less time, or for fewer series")]
    Samples(usize),
    /// Series.
    #[error("the query would load more than {0} series; ask for fewer by their labels")]
    Series(usize),
}

impl Store {
    /// Selects series of a source, in order of their labels.
    ///
    /// # Errors
    /// There are more than `limits`.
    pub fn select(&self, select: &Select, limits: SelectLimits) -> Result<Vec<Selected>, SelectError> {
        let Some(range) = nanoseconds(select) else { return Ok(Vec::new()) };
        let bits = select.matchers.iter().find_map(|matcher| {
            let name = matcher.label() == NAME && matcher.op() == MatchOp::Equal;
            name.then(|| name_bit(matcher.value().as_bytes()))
        });
        let mut selection = Selection::new(select, limits, range);
        for sealed in self.matching(select.source_id.as_bytes(), range.0, range.1, KINDS) {
            if bits.is_none_or(|bits| sealed.may_name(bits)) {
                selection.segment(&sealed)?;
            }
        }
        Ok(selection.finish())
    }
}

/// The nanoseconds of what counts as at a second in `[start, end]`, and came before `before`: first, and behind the last.
fn nanoseconds(select: &Select) -> Option<(i64, i64)> {
    let first = select.start.div_euclid(1000) + i64::from(select.start.rem_euclid(1000) > 0);
    let behind = (select.end.div_euclid(1000) + 1).saturating_mul(1_000_000_000);
    let behind = select.before.map_or(behind, |before| behind.min(before.saturating_mul(1_000_000)));
    let first = first.saturating_mul(1_000_000_000);
    (first < behind).then_some((first, behind))
}

/// A selection under way.
struct Selection<'a> {
    select: &'a Select,
    limits: SelectLimits,
    range: (i64, i64),
    /// The names and other labels, apart: most selections name one metric.
    names: Vec<&'a Matcher>,
    others: Vec<&'a Matcher>,
    sets: HashMap<Labels, usize, foldhash::fast::RandomState>,
    /// By their numbers.
    labels: Vec<Labels>,
    /// Of each set, by the name as it was sent: the series it belongs to, if any.
    by_name: Vec<HashMap<Box<[u8]>, Option<usize>, foldhash::fast::RandomState>>,
    by_labels: HashMap<Labels, usize, foldhash::fast::RandomState>,
    found: Vec<Found>,
    samples: usize,
    /// The set and the name of the last sample, and its series: that of the next one, mostly.
    last: Option<(usize, Box<[u8]>, usize)>,
}

struct Found {
    labels: Labels,
    /// By the nanosecond and the sequence.
    samples: Vec<(i64, u64, f64)>,
    kind: Kind,
    unit: String,
}

/// A label set of a segment.
#[derive(Clone, Copy)]
enum Set {
    Unseen,
    Refused,
    Known(usize),
}

impl<'a> Selection<'a> {
    fn new(select: &'a Select, limits: SelectLimits, range: (i64, i64)) -> Self {
        let (names, others) = select.matchers.iter().partition(|matcher| matcher.label() == NAME);
        Self {
            select,
            limits,
            range,
            names,
            others,
            sets: HashMap::default(),
            labels: Vec::new(),
            by_name: Vec::new(),
            by_labels: HashMap::default(),
            found: Vec::new(),
            samples: 0,
            last: None,
        }
    }

    fn segment(&mut self, sealed: &Arc<Sealed>) -> Result<(), SelectError> {
        let opened = sealed.open();
        let mut sets = vec![Set::Unseen; opened.sets()];
        for i in 0..opened.len() {
            let timestamp = opened.timestamp(i);
            if opened.kind(i).bit() & KINDS == 0 || timestamp < self.range.0 || timestamp >= self.range.1 {
                continue;
            }
            let set = match opened.set(i) {
                None => self.set(opened.message(i)),
                Some(number) => {
                    if let Set::Unseen = sets[number] {
                        sets[number] = self.set(opened.labels(number));
                    }
                    sets[number]
                }
            };
            if let Set::Known(set) = set {
                self.envelope(set, &opened, i)?;
            }
        }
        Ok(())
    }

    /// Finds the labels among encoded fields, if they match.
    fn set(&mut self, fields: &[u8]) -> Set {
        let labels = labels(fields, &self.select.source_id);
        if !self.others.iter().all(|matcher| matcher.matches(labels.get(matcher.label()))) {
            return Set::Refused;
        }
        let next = self.by_name.len();
        let set = *self.sets.entry(labels.clone()).or_insert(next);
        if set == next {
            self.labels.push(labels);
            self.by_name.push(HashMap::default());
        }
        Set::Known(set)
    }

    fn envelope(&mut self, set: usize, opened: &Opened, i: usize) -> Result<(), SelectError> {
        let mut outcome = Ok(());
        let kind = opened.kind(i);
        message::metrics(kind, opened.message(i), |metric| {
            if outcome.is_ok() {
                outcome = self.metric(set, kind, metric, (opened.timestamp(i), opened.sequence(i)));
            }
        });
        outcome
    }

    fn metric(
        &mut self,
        set: usize,
        kind: Kind,
        metric: message::Metric<'_>,
        (timestamp, sequence): (i64, u64),
    ) -> Result<(), SelectError> {
        let series = match &self.last {
            Some((last, name, series)) if *last == set && **name == *metric.name => *series,
            _ => {
                let known = self.by_name[set].get(metric.name).copied();
                let known = known.map_or_else(|| self.name(set, kind, metric), Ok)?;
                let Some(series) = known else { return Ok(()) };
                self.last = Some((set, metric.name.into(), series));
                series
            }
        };
        if self.select.labels_only {
            return Ok(());
        }
        if self.samples == self.limits.samples {
            return Err(SelectError::Samples(self.limits.samples));
        }
        self.samples += 1;
        self.found[series].samples.push((timestamp, sequence, metric.value));
        Ok(())
    }

    /// The series of a name that its label set has not had before, if it matches.
    fn name(&mut self, set: usize, kind: Kind, metric: message::Metric<'_>) -> Result<Option<usize>, SelectError> {
        let sent = String::from_utf8_lossy(metric.name);
        let name = metric_name(&sent);
        let series = if self.names.iter().all(|matcher| matcher.matches(Some(&name))) {
            let others = self.labels[set].iter().filter(|(label, _)| *label != NAME);
            let labels = Labels::new(others.chain([(NAME, &*name)]));
            let next = self.found.len();
            let series = *self.by_labels.entry(labels.clone()).or_insert(next);
            if series == next {
                if next == self.limits.series {
                    return Err(SelectError::Series(next));
                }
                let unit = String::from_utf8_lossy(metric.unit).into_owned();
                self.found.push(Found { labels, samples: Vec::new(), kind, unit });
            }
            Some(series)
        } else {
            None
        };
        self.by_name[set].insert(metric.name.into(), series);
        Ok(series)
    }

    fn finish(self) -> Vec<Selected> {
        let selected = |Found { labels, mut samples, kind, unit }: Found| {
            if !samples.is_sorted_by_key(|(timestamp, sequence, _)| (*timestamp, *sequence)) {
                samples.sort_unstable_by_key(|(timestamp, sequence, _)| (*timestamp, *sequence));
            }
            let sample = |(timestamp, _, value): (i64, u64, f64)| Sample {
                at: timestamp.div_euclid(1_000_000_000) * 1000,
                value,
            };
            Selected { labels, samples: samples.into_iter().map(sample).collect(), kind, unit }
        };
        let mut all: Vec<Selected> = self.found.into_iter().map(selected).collect();
        all.sort_by(|a, b| a.labels.iter().cmp(b.labels.iter()));
        all
    }
}

/// The labels that encoded fields of an envelope hold: tags, source and instance (contract `log-cache.md` §3). A tag called as one of
/// these is hidden by it.
fn labels(fields: &[u8], source_id: &str) -> Labels {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut pairs = HashMap::<String, String, foldhash::fast::RandomState>::default();
    let mut instance = String::new();
    message::for_each(fields, |number, wire_type, field| match (number, wire_type) {
        (8, WireType::Len) => instance = text(message::content(field)),
        (9, WireType::Len) => {
            let (key, value) = tags::entry(message::content(field));
            pairs.insert(text(key), text(value));
        }
        _ => {}
    });
    if !instance.is_empty() {
        pairs.insert(INSTANCE.to_owned(), instance);
    }
    pairs.insert(SOURCE.to_owned(), source_id.to_owned());
    // An empty label is as none.
    Labels::new(pairs.into_iter().filter(|(_, value)| !value.is_empty()))
}

#[cfg(test)]
mod tests;
