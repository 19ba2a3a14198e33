//! Where each source stands with its limits. Pure: the time, since any moment, is an argument.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use proto::raw::{Kind, Refused, Selection, source_hash};
use proto::reason::Reason;

use super::config::{LimitsConfig, SourceLimits};
use super::metrics::Numbers;
use super::notice::Notices;
use super::rates::{Line, Rates};
use super::series::{Metric, Series};

/// Between two notices to one owner.
pub(crate) const NOTICE: Duration = Duration::from_secs(10);

/// Every source's limits and state.
#[derive(Debug)]
pub(crate) struct Table {
    every: SourceLimits,
    overrides: HashMap<u64, SourceLimits, foldhash::fast::RandomState>,
    rates: Rates,
    series: Series,
    told: Told,
}

/// When each owner was last told something.
#[derive(Debug)]
pub(crate) struct Told(LruCache<u64, Duration, foldhash::fast::RandomState>);

impl Table {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let of = |source_id: &String, limits| (source_hash(source_id.as_bytes()), limits);
        let overrides =
            config.overrides.iter().flat_map(|entry| entry.source_ids.iter().map(move |id| of(id, entry.limits)));
        Self {
            every: config.sources,
            overrides: overrides.collect(),
            rates: Rates::new(config.max_sources),
            series: Series::new(config.max_sources, config.max_series),
            told: Told::new(config.max_sources),
        }
    }

    /// Leaves out what is over its source's limits at `now`, and says how much that was.
    pub(crate) fn admit(
        &mut self,
        mut selection: Selection,
        now: Duration,
        notices: &mut Notices,
    ) -> (Selection, Refused) {
        let mut refused = Refused::default();
        let mut over: Vec<usize> = Vec::new();
        for (i, entry) in selection.entries().enumerate() {
            let limits = self.overrides.get(&entry.source).unwrap_or(&self.every);
            let batch = selection.batch();
            let (source, source_id, instance_id) = (entry.source, batch.source_id(entry), batch.instance_id(entry));
            let reason = match (entry.kind, limits.max_series) {
                (Kind::Log, _) if limits.lines.is_some() || limits.bytes.is_some() => {
                    let line = Line { source, source_id, instance_id, bytes: entry.size() as u64 };
                    let within = self.rates.admit(line, limits, now, &mut self.told, notices);
                    (!within).then_some(Reason::RateLimited)
                }
                (Kind::Counter | Kind::Gauge | Kind::Timer, Some(most)) => {
                    let envelope = batch.envelope(entry);
                    let metric = Metric { source, source_id, instance_id, kind: entry.kind, envelope };
                    let within = self.series.admit(metric, most, now, &mut self.told, notices);
                    (!within).then_some(Reason::Cardinality)
                }
                _ => None,
            };
            if let Some(reason) = reason {
                refused.count(reason);
                over.push(i);
            }
        }
        if !over.is_empty() {
            let mut over = over.into_iter().peekable();
            selection.retain(|i| over.next_if_eq(&i).is_none());
            // What is left must not keep alive what was dropped.
            selection = selection.compact();
        }
        (selection, refused)
    }

    /// Ends the episodes that are over at `now`.
    pub(crate) fn look(&mut self, now: Duration, notices: &mut Notices) {
        self.rates.look(now, &mut self.told, notices);
    }

    /// Ends all episodes.
    pub(crate) fn finish(&mut self, notices: &mut Notices) {
        self.rates.finish(notices);
    }

    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            sources: self.rates.len().max(self.series.len()),
            over: self.rates.over(),
            series: self.series.total(),
        }
    }
}

impl Told {
    pub(crate) fn new(max_sources: NonZeroUsize) -> Self {
        Self(LruCache::with_hasher(max_sources, foldhash::fast::RandomState::default()))
    }

    /// Whether the owner of `source` may be told something now: then it counts as told.
    pub(crate) fn pass(&mut self, source: u64, now: Duration) -> bool {
        if self.0.peek(&source).is_some_and(|then| now.saturating_sub(*then) < NOTICE) {
            return false;
        }
        self.note(source, now);
        true
    }

    /// Notes that it was told something.
    pub(crate) fn note(&mut self, source: u64, now: Duration) {
        self.0.put(source, now);
    }
}
