//! One source: its segments, what it lost, and who follows it.
//!
//! What enters: envelopes, one after another. What leaves: its oldest segment, when the budget asks for room, and shared segments for
//! readers. A source with followers and no envelopes stays as an empty shell, so that its counts go on. Knows neither locks nor other
//! sources.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::raw::Kind;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::segment::{KindSet, Kinds, Segment};

/// What a source costs beside its segments: the struct, its box, its slot in the table, its place among the victims.
const FIXED: usize = size_of::<Source>() + 16 + 24 + 32;

/// How many evicted segments a source remembers, so that a follower that comes back learns what it missed.
const REMEMBERED: usize = 16;

/// One source of one shard.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) id: Box<[u8]>,
    /// [`proto::raw::source_hash`] of the id.
    pub(crate) hash: u64,
    /// A number no other source of the store has.
    pub(crate) born: u64,
    open: Segment,
    sealed: VecDeque<Arc<Segment>>,
    /// Bytes of the sealed segments.
    sealed_bytes: usize,
    /// What the store has been charged for this source.
    pub(crate) charged: usize,
    envelopes: u64,
    /// Bytes of all envelopes ever pushed.
    bytes: u64,
    /// The largest timestamp ever seen, from 0 (contract `log-cache.md` §4, `newest_timestamp`).
    newest: i64,
    lost: Option<Box<Lost>>,
    pub(crate) followers: Vec<Arc<Notify>>,
    /// Stands in the queue of sources over their floor.
    pub(crate) over_floor: bool,
    /// Stands in the queue of sources over the cap.
    pub(crate) over_cap: bool,
}

/// What a source has lost to eviction.
#[derive(Debug, Default)]
struct Lost {
    by_kind: Kinds<u64>,
    /// The latest evicted segments, oldest first.
    recent: VecDeque<Gone>,
}

#[derive(Debug)]
struct Gone {
    last_sequence: u64,
    by_kind: Kinds<u16>,
}

/// A segment that has just been evicted.
pub(crate) struct Evicted {
    /// To be dropped once no lock is held.
    pub(crate) segment: Arc<Segment>,
    /// The source holds nothing any more.
    pub(crate) emptied: bool,
}

/// What a follower takes from a source in one step: at most two segments, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) segments: SmallVec<[Arc<Segment>; 2]>,
    /// More is held beyond the last of `segments`.
    pub(crate) more: bool,
    /// Envelopes evicted from the source since it was born, by kind.
    pub(crate) evicted: Kinds<u64>,
}

impl Source {
    pub(crate) fn new(id: &[u8], hash: u64, born: u64) -> Self {
        Self {
            id: id.into(),
            hash,
            born,
            open: Segment::new(),
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            charged: 0,
            envelopes: 0,
            bytes: 0,
            newest: 0,
            lost: None,
            followers: Vec::new(),
            over_floor: false,
            over_cap: false,
        }
    }

    /// Appends an envelope. A segment that would pass `target` bytes is sealed first.
    #[inline]
    pub(crate) fn push(&mut self, timestamp: i64, kind: Kind, sequence: u64, envelope: &[u8], target: usize) {
        if !self.open.fits(envelope.len(), sequence, target) {
            self.seal(target);
        }
        self.open.push(timestamp, kind, sequence, envelope);
        self.envelopes += 1;
        self.bytes += envelope.len() as u64;
        self.newest = self.newest.max(timestamp);
    }

    fn seal(&mut self, target: usize) {
        let mut sealed = std::mem::replace(&mut self.open, Segment::expecting(target));
        sealed.seal();
        self.sealed_bytes += sealed.held_shared();
        self.sealed.push_back(Arc::new(sealed));
    }

    /// Bytes of memory held. O(1).
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let lost = self.lost.as_ref().map_or(0, |lost| size_of::<Lost>() + lost.recent.capacity() * size_of::<Gone>());
        FIXED + self.id.len() + self.sealed_bytes + self.open.held() + lost
    }

    /// Number of envelopes held.
    pub(crate) fn envelopes(&self) -> u64 {
        self.envelopes
    }

    /// Bytes of the envelopes pushed since the source was born, evicted ones included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True when it holds no envelope.
    pub(crate) fn is_empty(&self) -> bool {
        self.envelopes == 0
    }

    /// The sequence of the oldest envelope by arrival. The source must not be empty.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.sealed.front().map_or(self.open.first_sequence(), |segment| segment.first_sequence())
    }

    /// Takes the segment that arrived first, open or sealed. The source must not be empty.
    pub(crate) fn evict(&mut self) -> Evicted {
        let segment = match self.sealed.pop_front() {
            Some(segment) => {
                self.sealed_bytes -= segment.held_shared();
                segment
            }
            None => Arc::new(std::mem::replace(&mut self.open, Segment::new())),
        };
        self.envelopes -= segment.len() as u64;
        let lost = self.lost.get_or_insert_default();
        for (sum, count) in lost.by_kind.iter_mut().zip(segment.kinds()) {
            *sum += u64::from(*count);
        }
        if lost.recent.len() == REMEMBERED {
            lost.recent.pop_front();
        }
        lost.recent.push_back(Gone { last_sequence: segment.last_sequence(), by_kind: *segment.kinds() });
        if self.open.is_empty() && self.sealed.is_empty() {
            // What a filling source expected to need goes with its last envelope.
            self.open = Segment::new();
            self.sealed = VecDeque::new();
        }
        Evicted { segment, emptied: self.is_empty() }
    }

    /// Envelopes evicted since the source was born.
    pub(crate) fn expired(&self) -> u64 {
        self.evicted().iter().sum()
    }

    /// Envelopes evicted since the source was born, by kind.
    pub(crate) fn evicted(&self) -> Kinds<u64> {
        self.lost.as_ref().map_or([0; 6], |lost| lost.by_kind)
    }

    /// The smallest timestamp held; `i64::MAX` if there is none. O(segments).
    pub(crate) fn oldest(&self) -> i64 {
        self.sealed.iter().map(|segment| segment.oldest()).fold(self.open.oldest(), i64::min)
    }

    /// The largest timestamp ever seen, 0 at least.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// The segments that may hold an envelope in `[start, end)` of a kind in `kinds`. The open one is copied: at most 64 KiB, or one
    /// envelope.
    pub(crate) fn matching(&self, start: i64, end: i64, kinds: KindSet) -> Vec<Arc<Segment>> {
        let matches = |segment: &Segment| segment.may_match(start, end, kinds);
        let mut found: Vec<_> = self.sealed.iter().filter(|segment| matches(segment)).cloned().collect();
        if matches(&self.open) {
            found.push(Arc::new(self.open.clone()));
        }
        found
    }

    /// What arrived after `sequence`, at most two segments of it. O(log segments) and a copy of the open segment's tail.
    pub(crate) fn after(&self, sequence: u64) -> Part {
        let mut part = Part { evicted: self.evicted(), ..Part::default() };
        let begin = self.sealed.partition_point(|segment| segment.last_sequence() <= sequence);
        part.segments.extend(self.sealed.range(begin..).take(2).cloned());
        let open = self.open.last_sequence() > sequence;
        if self.sealed.len() - begin > 2 || (open && part.segments.len() == 2) {
            part.more = true;
        } else if open {
            part.segments.push(Arc::new(self.open.after(sequence)));
        }
        part
    }

    /// How many envelopes, by kind, stand at or before `sequence`, those evicted included: where a reader stands that has seen all up
    /// to there. Exact while nothing after `sequence` has been evicted, else too low by what was, as far as it is remembered: the
    /// segment that `sequence` fell into counts as unseen. O(segments).
    pub(crate) fn passed(&self, sequence: u64) -> Kinds<u64> {
        let mut passed = self.evicted();
        let recent = self.lost.iter().flat_map(|lost| &lost.recent);
        for gone in recent.filter(|gone| gone.last_sequence > sequence) {
            for (sum, count) in passed.iter_mut().zip(gone.by_kind) {
                *sum -= u64::from(count);
            }
        }
        for segment in self.sealed.iter().map(AsRef::as_ref).chain([&self.open]) {
            if segment.last_sequence() <= sequence {
                for (sum, count) in passed.iter_mut().zip(segment.kinds()) {
                    *sum += u64::from(*count);
                }
                continue;
            }
            for i in 0..segment.position_after(sequence) {
                passed[segment.kind(i) as usize] += 1;
            }
        }
        passed
    }
}
