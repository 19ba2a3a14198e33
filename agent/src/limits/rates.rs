//! The log rate of each source, and its episodes of being over it. Pure: the time is an argument.
//!
//! An episode begins with the first line that is dropped. It ends when none has been for a second, and not before its owner may be told
//! again; lines dropped until then are still of it. Its owner is told of its begin at once, unless the last notice is too fresh; of its end
//! always.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use super::bucket::Bucket;
use super::config::SourceLimits;
use super::notice::{Notice, Notices, Text};
use super::table::Told;

/// How long a source must keep to its limit for an episode to be over.
const CALM: Duration = Duration::from_secs(1);

/// Where each source stands; the one longest silent is forgotten when there are too many.
#[derive(Debug)]
pub(crate) struct Rates {
    sources: LruCache<u64, Source, foldhash::fast::RandomState>,
    max_sources: NonZeroUsize,
    /// Those with an episode.
    over: HashSet<u64, foldhash::fast::RandomState>,
}

#[derive(Debug, Default)]
struct Source {
    lines: Bucket,
    bytes: Bucket,
    episode: Option<Box<Episode>>,
}

/// What has been dropped without a pause.
#[derive(Debug)]
struct Episode {
    source_id: Box<[u8]>,
    instance_id: Box<[u8]>,
    begin: Text,
    /// Whether its begin has been told.
    told: bool,
    lines: u64,
    bytes: u64,
    /// When the last line was dropped.
    last: Duration,
}

/// A line on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) source: u64,
    pub(crate) source_id: &'a [u8],
    pub(crate) instance_id: &'a [u8],
    pub(crate) bytes: u64,
}

impl Rates {
    pub(crate) fn new(max_sources: NonZeroUsize) -> Self {
        let sources = LruCache::unbounded_with_hasher(foldhash::fast::RandomState::default());
        Self { sources, max_sources, over: HashSet::default() }
    }

    /// Whether a line is within its source's limits.
    pub(crate) fn admit(
        &mut self,
        line: Line<'_>,
        limits: &SourceLimits,
        now: Duration,
        told: &mut Told,
        notices: &mut Notices,
    ) -> bool {
        let source = self.sources.get_or_insert_mut(line.source, Source::default);
        let by_lines = limits.lines.is_none_or(|rate| source.lines.has(&rate, 1, now));
        let by_bytes = limits.bytes.is_none_or(|rate| source.bytes.has(&rate, line.bytes, now));
        let within = by_lines && by_bytes;
        if within {
            // A line that is refused by one bucket takes from neither.
            limits.lines.iter().for_each(|rate| source.lines.take(rate, 1, now));
            limits.bytes.iter().for_each(|rate| source.bytes.take(rate, line.bytes, now));
        } else {
            let episode = source.episode.get_or_insert_with(|| {
                self.over.insert(line.source);
                let begin = match (limits.lines, limits.bytes) {
                    (Some(rate), _) if !by_lines => Text::OverLines(rate.per_second.get()),
                    (_, rate) => Text::OverBytes(rate.map_or(0, |rate| rate.per_second.get())),
                };
                Box::new(Episode {
                    source_id: line.source_id.into(),
                    instance_id: line.instance_id.into(),
                    begin,
                    told: false,
                    lines: 0,
                    bytes: 0,
                    last: now,
                })
            });
            episode.lines += 1;
            episode.bytes += line.bytes;
            episode.last = now;
            if !episode.told && told.pass(line.source, now) {
                episode.begin(notices);
            }
        }
        if self.sources.len() > self.max_sources.get()
            && let Some((source, Source { episode: Some(episode), .. })) = self.sources.pop_lru()
        {
            self.over.remove(&source);
            told.note(source, now);
            episode.end(notices);
        }
        within
    }

    /// Ends the episodes that are over, and tells of those whose begin could not be told before.
    pub(crate) fn look(&mut self, now: Duration, told: &mut Told, notices: &mut Notices) {
        let sources = &mut self.sources;
        self.over.retain(|key| {
            let Some(source) = sources.peek_mut(key) else { return false };
            let Some(episode) = &mut source.episode else { return false };
            let calm = now.saturating_sub(episode.last) >= CALM;
            if calm && told.pass(*key, now) {
                source.episode.take().into_iter().for_each(|episode| episode.end(notices));
                return false;
            }
            if !calm && !episode.told && told.pass(*key, now) {
                episode.begin(notices);
            }
            true
        });
    }

    /// Ends all episodes.
    pub(crate) fn finish(&mut self, notices: &mut Notices) {
        for key in self.over.drain() {
            if let Some(episode) = self.sources.peek_mut(&key).and_then(|source| source.episode.take()) {
                episode.end(notices);
            }
        }
    }

    /// Sources remembered.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Sources with an episode.
    pub(crate) fn over(&self) -> usize {
        self.over.len()
    }
}

impl Episode {
    fn begin(&mut self, notices: &mut Notices) {
        self.told = true;
        let (source_id, instance_id) = (self.source_id.clone(), self.instance_id.clone());
        notices.push(Notice { source_id, instance_id, text: self.begin.clone() });
    }

    fn end(self, notices: &mut Notices) {
        let text = Text::Within { lines: self.lines, bytes: self.bytes };
        notices.push(Notice { source_id: self.source_id, instance_id: self.instance_id, text });
    }
}
