//! The metric series of each source within the last hour. Pure: the time is an argument.
//!
//! A series is a kind, a name and all tags; the instance is no part of it. It is known by its hash and forgotten an hour after it was last
//! seen, as soon as its room is needed.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use proto::raw::{Kind, counter_name, gauge_names, tags, timer_name};

use super::notice::{Crowded, Notice, Notices, Text};
use super::sketch::Sketch;
use super::table::Told;

/// Seconds for which a series counts.
const WINDOW: u32 = 3_600;

/// Between two notices to one owner.
const AGAIN: Duration = Duration::from_secs(600);

/// Sources whose labels are looked into at one time.
const SKETCHED: usize = 256;

/// Names, and tags, of one envelope that are looked into: what is dropped must cost little.
const LOOKED_INTO: usize = 16;

/// Dropped envelopes between two notices whose labels are looked into.
const ENOUGH: u64 = 10_000;

type State = foldhash::fast::RandomState;

/// The series of all sources; those of the one longest silent are forgotten when there are too many.
#[derive(Debug)]
pub(crate) struct Series {
    sources: LruCache<u64, Source, State>,
    max_sources: NonZeroUsize,
    max_series: NonZeroUsize,
    /// Of all sources together.
    total: usize,
    sketches: usize,
    state: State,
    /// The series of the envelope at hand, kept for its capacity.
    hashes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Source {
    /// When each was last seen, in seconds.
    seen: HashMap<u64, u32, State>,
    /// Before this nothing can be forgotten.
    next: u32,
    /// Once it is over half of its limit.
    sketch: Option<Box<Sketch>>,
    /// Envelopes dropped since the last notice.
    dropped: u64,
    told: Option<Duration>,
}

/// A counter, gauge or timer on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric<'a> {
    pub(crate) source: u64,
    pub(crate) source_id: &'a [u8],
    pub(crate) instance_id: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) envelope: &'a [u8],
}

impl Series {
    pub(crate) fn new(max_sources: NonZeroUsize, max_series: NonZeroUsize) -> Self {
        Self {
            sources: LruCache::unbounded_with_hasher(State::default()),
            max_sources,
            max_series,
            total: 0,
            sketches: 0,
            state: State::default(),
            hashes: Vec::new(),
        }
    }

    /// Whether all series of `metric` are known, or there is room for them: `limit` series of one source.
    pub(crate) fn admit(
        &mut self,
        metric: Metric<'_>,
        limit: NonZeroUsize,
        now: Duration,
        told: &mut Told,
        notices: &mut Notices,
    ) -> bool {
        let mut hashes = std::mem::take(&mut self.hashes);
        self.hash(&metric, &mut hashes);
        let within = self.enter(&metric, &hashes, limit.min(self.max_series), now);
        hashes.clear();
        self.hashes = hashes;
        if !within {
            self.tell(&metric, limit, now, told, notices);
        }
        within
    }

    /// Series remembered.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Sources remembered.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    fn enter(&mut self, metric: &Metric<'_>, hashes: &[u64], limit: NonZeroUsize, now: Duration) -> bool {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let limit = limit.get();
        let source = self.sources.get_or_insert_mut(metric.source, Source::default);
        let new = hashes.iter().filter(|hash| !source.seen.contains_key(hash)).count();
        let mut within = source.seen.len() + new <= limit;
        if !within && seconds >= source.next {
            self.total -= source.forget(seconds);
            within = source.seen.len() + new <= limit;
        }
        if new > 0 && (source.seen.len() + new) * 2 > limit && source.dropped < ENOUGH {
            if source.sketch.is_none() && self.sketches < SKETCHED {
                self.sketches += 1;
                source.sketch = Some(Box::new(Sketch::new()));
            }
            if let Some(sketch) = &mut source.sketch {
                note(sketch, metric, &self.state);
            }
        }
        if within {
            let before = source.seen.len();
            source.seen.extend(hashes.iter().map(|hash| (*hash, seconds)));
            self.total += source.seen.len() - before;
            self.fit();
        }
        within
    }

    /// Forgets whole sources, the one longest silent first, until the rest fits. The one at hand is the last of them, and fits.
    fn fit(&mut self) {
        while self.sources.len() > self.max_sources.get()
            || (self.total > self.max_series.get() && self.sources.len() > 1)
        {
            let Some((_, source)) = self.sources.pop_lru() else { return };
            self.total -= source.seen.len();
            self.sketches -= usize::from(source.sketch.is_some());
        }
    }

    fn tell(
        &mut self,
        metric: &Metric<'_>,
        limit: NonZeroUsize,
        now: Duration,
        told: &mut Told,
        notices: &mut Notices,
    ) {
        let Some(source) = self.sources.get_mut(&metric.source) else { return };
        source.dropped += 1;
        if source.told.is_some_and(|then| now.saturating_sub(then) < AGAIN) || !told.pass(metric.source, now) {
            return;
        }
        source.told = Some(now);
        let (name, label) = source.sketch.as_ref().map(|sketch| sketch.most()).unwrap_or_default();
        let crowded = Crowded {
            limit: limit.get(),
            dropped: std::mem::take(&mut source.dropped),
            metric: name.into(),
            label: label.into(),
        };
        let (source_id, instance_id) = (metric.source_id.into(), metric.instance_id.into());
        notices.push(Notice { source_id, instance_id, text: Text::Crowded(crowded) });
    }

    /// The series in an envelope: more than one only in a gauge.
    fn hash(&self, metric: &Metric<'_>, into: &mut Vec<u64>) {
        let mut all_tags = 0_u64;
        // A sum does not depend on the order in which a sender wrote its tags.
        tags::each(metric.envelope, |tag| {
            if let tags::Value::Text(value) = tag.value {
                all_tags = all_tags.wrapping_add(self.state.hash_one((tag.key, value)));
            }
        });
        let kind = metric.kind as u8;
        each_name(metric, |name| into.push(self.state.hash_one((kind, name, all_tags))));
    }
}

impl Source {
    /// Forgets what has not been seen for an hour; returns how many that were.
    fn forget(&mut self, now: u32) -> usize {
        let before = self.seen.len();
        self.seen.retain(|_, seen| seen.saturating_add(WINDOW) > now);
        self.next = self.seen.values().min().map_or(0, |oldest| oldest.saturating_add(WINDOW));
        before - self.seen.len()
    }
}

/// Notes the names and labels of a metric with new series.
fn note(sketch: &mut Sketch, metric: &Metric<'_>, state: &State) {
    let mut names = 0;
    each_name(metric, |name| {
        names += 1;
        if names > LOOKED_INTO {
            return;
        }
        sketch.metric(name, state.hash_one(name));
        let mut looked_into = 0;
        tags::each(metric.envelope, |tag| {
            looked_into += 1;
            if let tags::Value::Text(value) = tag.value
                && looked_into <= LOOKED_INTO
            {
                sketch.label(name, tag.key, state.hash_one(value));
            }
        });
    });
}

fn each_name<'a>(metric: &Metric<'a>, mut visit: impl FnMut(&'a [u8])) {
    match metric.kind {
        Kind::Counter => visit(counter_name(metric.envelope)),
        Kind::Timer => visit(timer_name(metric.envelope)),
        Kind::Gauge => gauge_names(metric.envelope).into_iter().for_each(visit),
        Kind::None | Kind::Log | Kind::Event => {}
    }
}
