//! What a subscription has missed: envelopes that the cache took before it came.
//!
//! What enters: a range of the cache's insertion sequence, and for each selector up to where somebody has got them. What leaves: the
//! envelopes that are missing, per source in order of arrival, each once. Pure, but for the cache that it reads.

use std::collections::VecDeque;
use std::time::Duration;

use log_cache::{Range, Replay, Store};
use proto::raw::Selection;
use proto::selector::Selector;
use tokio::time::Instant;

/// Between two notes of how far the cache is.
const STEP: Duration = Duration::from_millis(100);
/// How far back notes go.
const KEPT: usize = 6_000;

/// When the cache was how far, in steps of 100 ms for some ten minutes.
#[derive(Debug, Default)]
pub(crate) struct Timeline(VecDeque<(Instant, u64)>);

impl Timeline {
    /// Notes that nothing after `sequence()` had come before `now`, if the last note is old enough.
    pub(crate) fn note(&mut self, now: Instant, sequence: impl FnOnce() -> u64) {
        if self.0.back().is_some_and(|(last, _)| now.duration_since(*last) < STEP) {
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, sequence()));
    }

    /// A sequence after which everything has come that came in the last `age`: up to a step more, and everything when notes do not go
    /// back so far.
    pub(crate) fn before(&self, now: Instant, age: Duration) -> u64 {
        let Some(since) = now.checked_sub(age) else { return 0 };
        let later = self.0.partition_point(|(at, _)| *at <= since);
        later.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// What is to be sent before what comes. Dropping it ends it.
#[derive(Debug)]
pub struct History {
    /// What was missed, and since when.
    missed: Vec<(Selector, u64)>,
    replay: Replay,
}

/// A part of a history.
#[derive(Debug)]
pub enum Past {
    /// Envelopes of one source.
    Envelopes(Selection),
    /// Envelopes that have left the cache: of which source, and how many of the kinds that were missed.
    Gap(log_cache::Gap),
}

impl History {
    /// What `cache` has of `missed` up to `until`.
    pub(crate) fn new(cache: &Store, missed: Vec<(Selector, u64)>, until: u64) -> Self {
        let first = missed.iter().map(|(_, since)| *since).min().unwrap_or(until);
        let kinds = missed.iter().fold(0, |bits, (selector, _)| bits | selector.rule.kind().bit());
        let named = missed.iter().map(|(selector, _)| selector.source_id.as_deref().map(str::to_owned));
        let sources = named.collect::<Option<Vec<String>>>().map(|mut sources| {
            sources.sort_unstable();
            sources.dedup();
            sources
        });
        Self { missed, replay: cache.replay(Range { after: first, until }, kinds, sources) }
    }

    /// The next part; `None` at the end. Copies at most a segment of the cache.
    pub fn next_part(&mut self) -> Option<Past> {
        loop {
            let piece = self.replay.next_piece()?;
            if let Some(gap) = piece.gap {
                return Some(Past::Gap(gap));
            }
            let wanted = |(i, sequence): (u32, &u64)| {
                let entry = &piece.batch.entries()[i as usize];
                let is_missed =
                    |(selector, since): &(Selector, u64)| sequence > since && selector.admits(&piece.batch, entry);
                self.missed.iter().any(is_missed).then_some(i)
            };
            let keep: Vec<u32> = (0..).zip(&piece.sequences).filter_map(wanted).collect();
            if !keep.is_empty() {
                return Some(Past::Envelopes(Selection::new(piece.batch, keep)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_tells_how_far_back_an_age_goes() {
        let start = Instant::now() + Duration::from_secs(3_600);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timeline = Timeline::default();
        assert_eq!(timeline.before(at(0), Duration::from_secs(1)), 0);
        for i in 0..100 {
            timeline.note(at(i * 60), || i * 10);
        }
        // A note each 120 ms: every other call is too soon after the last.
        assert_eq!(timeline.0.len(), 50);
        assert_eq!(timeline.before(at(6_000), Duration::from_millis(120)), 980);
        assert_eq!(timeline.before(at(6_000), Duration::from_millis(121)), 960);
        assert_eq!(timeline.before(at(6_000), Duration::from_secs(3)), 500);
        assert_eq!(timeline.before(at(6_000), Duration::from_secs(60)), 0);
        for i in 0..10_000 {
            timeline.note(at(10_000 + i * 100), || i);
        }
        assert_eq!(timeline.0.len(), KEPT);
    }
}
