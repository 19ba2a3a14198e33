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

use crate::sealed::Sealed;
use crate::segment::{KindSet, Kinds, MAX_BYTES, Segment};
use crate::snapshot::Record;

/// What a source costs beside its segments: the struct, its box, its slot in the table, its place among the victims.
const FIXED: usize = size_of::<Source>() + 16 + 24 + 32;

/// A segment of a small source takes this share of what the source has had: what waits to be packed stays small beside what is.
const SMALLER: u64 = 32;

/// But no less than this.
const SMALL: usize = 8 * 1024;

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
    sealed: VecDeque<Arc<Sealed>>,
    /// Bytes held by the sealed segments.
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
    pub(crate) segment: Arc<Sealed>,
    /// The source holds nothing any more.
    pub(crate) emptied: bool,
}

/// A source as a snapshot keeps it.
pub(crate) struct Snapshot {
    pub(crate) bytes: u64,
    pub(crate) newest: i64,
    pub(crate) evicted: Kinds<u64>,
    /// By arrival.
    pub(crate) segments: Vec<Arc<Sealed>>,
}

/// What a follower takes from a source in one step: at most two segments, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) segments: SmallVec<[Arc<Sealed>; 2]>,
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

    /// Appends an envelope. A segment that would pass `target` bytes, or less while the source is small, is closed first, and returned to
    /// be packed once no lock is held.
    #[inline]
    pub(crate) fn push(
        &mut self,
        timestamp: i64,
        kind: Kind,
        sequence: u64,
        envelope: &[u8],
        target: usize,
    ) -> Option<Arc<Sealed>> {
        let small = usize::try_from(self.bytes / SMALLER).unwrap_or(usize::MAX).clamp(SMALL, MAX_BYTES);
        let target = target.min(small);
        let closed = (!self.open.fits(envelope.len(), sequence, target)).then(|| self.close(target));
        self.open.push(timestamp, kind, sequence, envelope);
        self.envelopes += 1;
        self.bytes += envelope.len() as u64;
        self.newest = self.newest.max(timestamp);
        closed
    }

    fn close(&mut self, target: usize) -> Arc<Sealed> {
        let segment = std::mem::replace(&mut self.open, Segment::expecting(target));
        let sealed = Arc::new(Sealed::plain(segment));
        self.sealed_bytes += sealed.held();
        self.sealed.push_back(Arc::clone(&sealed));
        sealed
    }

    /// Puts a packed segment in the place of the same as it was. False if that is no longer held.
    pub(crate) fn put_packed(&mut self, packed: Arc<Sealed>) -> bool {
        let at = self.sealed.partition_point(|sealed| sealed.first_sequence() < packed.first_sequence());
        let Some(sealed) = self.sealed.get_mut(at) else { return false };
        if sealed.first_sequence() != packed.first_sequence() {
            return false;
        }
        self.sealed_bytes = self.sealed_bytes - sealed.held() + packed.held();
        *sealed = packed;
        true
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

    /// The sequence of the newest envelope by arrival; 0 if there is none.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.open.last_sequence().max(self.sealed.back().map_or(0, |segment| segment.last_sequence()))
    }

    /// What a snapshot keeps of it.
    pub(crate) fn record(&self) -> Snapshot {
        let mut segments: Vec<_> = self.sealed.iter().cloned().collect();
        if !self.open.is_empty() {
            segments.push(Arc::new(Sealed::plain(self.open.clone())));
        }
        Snapshot { bytes: self.bytes, newest: self.newest, evicted: self.evicted(), segments }
    }

    /// Takes back what a snapshot kept of it. Its segments must follow those it has, and nothing has been pushed yet.
    pub(crate) fn put_record(&mut self, record: Record) {
        // The first of several says it for all; meanwhile some may have been evicted again.
        if self.bytes == 0 {
            self.bytes = record.bytes;
            self.newest = record.newest;
            if record.evicted != [0; 6] {
                self.lost.get_or_insert_default().by_kind = record.evicted;
            }
        }
        for sealed in record.segments {
            self.envelopes += sealed.len() as u64;
            self.sealed_bytes += sealed.held();
            self.sealed.push_back(Arc::new(sealed));
        }
    }

    /// Takes the segment that arrived first, open or sealed. The source must not be empty.
    pub(crate) fn evict(&mut self) -> Evicted {
        let segment = match self.sealed.pop_front() {
            Some(segment) => {
                self.sealed_bytes -= segment.held();
                segment
            }
            None => Arc::new(Sealed::plain(std::mem::replace(&mut self.open, Segment::new()))),
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

    /// How many envelopes the open segment and the one before it hold, and their smallest timestamp.
    pub(crate) fn recent(&self) -> (u64, i64) {
        let (last, oldest) = self.sealed.back().map_or((0, i64::MAX), |sealed| (sealed.len(), sealed.oldest()));
        ((self.open.len() + last) as u64, oldest.min(self.open.oldest()))
    }

    /// The largest timestamp ever seen, 0 at least.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// The segments that may hold an envelope in `[start, end)` of a kind in `kinds`. The open one is copied: at most 64 KiB, or one
    /// envelope.
    pub(crate) fn matching(&self, start: i64, end: i64, kinds: KindSet) -> Vec<Arc<Sealed>> {
        let matches = |sealed: &&Arc<Sealed>| sealed.may_match(start, end, kinds);
        let mut found: Vec<_> = self.sealed.iter().filter(matches).cloned().collect();
        if self.open.may_match(start, end, kinds) {
            found.push(Arc::new(Sealed::plain(self.open.clone())));
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
            part.segments.push(Arc::new(Sealed::plain(self.open.after(sequence))));
        }
        part
    }

    /// Where a reader stands that has seen all up to `sequence`.
    ///
    /// Exact while nothing after `sequence` has been evicted, else too low by what was, as far as it is remembered: the segment that
    /// `sequence` fell into counts as unseen. O(segments).
    pub(crate) fn passed(&self, sequence: u64) -> Passed {
        let mut passed = Passed { counts: self.evicted(), within: None };
        let recent = self.lost.iter().flat_map(|lost| &lost.recent);
        for gone in recent.filter(|gone| gone.last_sequence > sequence) {
            for (sum, count) in passed.counts.iter_mut().zip(gone.by_kind) {
                *sum -= u64::from(count);
            }
        }
        for sealed in &self.sealed {
            if sealed.last_sequence() <= sequence {
                passed.add(sealed.kinds());
            } else if sealed.first_sequence() <= sequence {
                passed.within = Some((Arc::clone(sealed), sequence));
            }
        }
        if self.open.last_sequence() <= sequence {
            passed.add(self.open.kinds());
        } else {
            passed.add(&self.open.kinds_up_to(sequence));
        }
        passed
    }
}

/// How many envelopes of a source, by kind, stand at or before some sequence, those evicted included.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    counts: Kinds<u64>,
    /// A segment of which some do, which is still to be opened.
    within: Option<(Arc<Sealed>, u64)>,
}

impl Passed {
    fn add(&mut self, kinds: &Kinds<u16>) {
        for (sum, count) in self.counts.iter_mut().zip(kinds) {
            *sum += u64::from(*count);
        }
    }

    /// The counts. May open a segment: not to be called under a lock.
    pub(crate) fn counts(mut self) -> Kinds<u64> {
        if let Some((sealed, sequence)) = self.within.take() {
            self.add(&sealed.open().kinds_up_to(sequence));
        }
        self.counts
    }
}
