//! Following sources by arrival: history first, then live, on one cursor.
//!
//! What enters: which sources, from where. What leaves: frames of envelopes in order of arrival, the counts of what was evicted before
//! it could be sent, and one mark where history ends. It is a read loop on the insertion sequence, so history joins live without gap or
//! repeat, and late lines are seen. A put does nothing for it but wake it up; a slow follower costs itself.
//!
//! **One cursor for many sources.** Each step reads the store's sequence first and then looks at each source up to that number. As a
//! number is given out under the lock of its source, nothing up to it can appear there later (see [`crate::store`]). Within a step
//! sources are merged by sequence, so a frame may end anywhere and its cursor still says: all up to here has been sent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use proto::logcache::v1::EnvelopeType;
use proto::raw::source_hash;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::opened::{Opened, SourceField};
use crate::read;
use crate::sealed::Sealed;
use crate::segment::{KindSet, Kinds};
use crate::source::Part;
use crate::store::Store;

/// Sources that one follower may name.
pub const MAX_FOLLOWED: usize = 64;

/// Sources that all followers of a store may name together: what a source costs that exists only because it is followed, some 400
/// bytes, is outside the budget.
const MAX_FOLLOWED_IN_ALL: usize = 65_536;

/// Opened segments that a follower keeps.
const OPENED: usize = 16;

/// A frame is full with this many envelopes.
const FRAME_ENVELOPES: usize = 1000;

/// A frame is full with this many bytes; the envelope that fills it may pass the line.
const FRAME_BYTES: usize = 64 * 1024;

/// What to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowSpec {
    /// The sources, which need not exist yet; repeats count once. From 1 to [`MAX_FOLLOWED`].
    pub sources: Vec<String>,
    /// Of what is held at the start, leave out what has an older timestamp: nanoseconds since the Unix epoch; 0 leaves out nothing.
    /// What arrives later is sent whatever its timestamp.
    pub start_time: i64,
    /// The kinds to send; empty is all.
    pub kinds: Vec<EnvelopeType>,
    /// Where an earlier follower ended: continue there, and do not look at `start_time`. One of another store's life is ignored.
    pub after: Option<Cursor>,
    /// End once all that is held at the start has been sent, after the mark.
    pub history_only: bool,
}

/// Where a follower stands: all up to `sequence` has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// [`Store::epoch`] of the store followed.
    pub epoch: u64,
    /// An insertion sequence of that store.
    pub sequence: u64,
}

/// What a follower gets in one piece: envelopes, or one gap, or the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// An encoded `EnvelopeBatch`, by arrival; at most some 64 KiB or one envelope.
    pub batch: Bytes,
    /// How many envelopes are in it.
    pub envelopes: usize,
    /// Where the follower stands after it.
    pub cursor: Cursor,
    /// What was lost before this follower saw it.
    pub gap: Option<Gap>,
    /// All that was held at the start has been sent; true once.
    pub live: bool,
}

/// Envelopes of a source that were evicted unseen, of the kinds followed and whatever their timestamps.
///
/// The count is exact, but after [`FollowSpec::after`] it may count again what was sent of the segment that the cursor fell into, and
/// it covers the last 16 segments evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The source.
    pub source_id: String,
    /// How many.
    pub envelopes: u64,
}

/// Why nothing can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// No source at all.
    #[error("name at least one source_id to follow")]
    NoSource,
    /// More than [`MAX_FOLLOWED`].
    #[error("{0} source_ids are too many for one follower; the most is {MAX_FOLLOWED}")]
    TooManySources(usize),
    /// All followers together name too many.
    #[error("too many sources are being followed already")]
    Busy,
}

/// A reader that follows sources by arrival. Dropping it ends it.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    wake: Arc<Notify>,
    sources: Vec<Followed>,
    kinds: KindSet,
    start_time: Option<i64>,
    sequence: u64,
    /// The latest sequence at the start.
    history: u64,
    history_only: bool,
    live: bool,
    gaps: VecDeque<Gap>,
    opened: OpenedFew,
}

#[derive(Debug)]
struct Followed {
    id: String,
    field: SourceField,
    hash: u64,
    /// Envelopes sent, left out or reported as lost, by kind: where this follower stands in the source's own count.
    passed: Kinds<u64>,
}

impl Store {
    /// Follows sources by arrival.
    ///
    /// # Errors
    /// No source, or too many.
    pub fn follow(&self, spec: FollowSpec) -> Result<Follower, FollowError> {
        let mut ids = spec.sources;
        ids.sort_unstable();
        ids.dedup();
        match ids.len() {
            0 => return Err(FollowError::NoSource),
            many if many > MAX_FOLLOWED => return Err(FollowError::TooManySources(many)),
            some if !self.reserve_followed(some, MAX_FOLLOWED_IN_ALL) => return Err(FollowError::Busy),
            _ => {}
        }
        let after = spec.after.filter(|cursor| cursor.epoch == self.epoch());
        let after = after.map(|cursor| cursor.sequence.min(self.sequence()));
        let wake = Arc::new(Notify::new());
        let watch = |id: String| {
            let hash = source_hash(id.as_bytes());
            let passed = self.watch(id.as_bytes(), hash, &wake, after);
            Followed { field: SourceField::new(id.as_bytes()), id, hash, passed }
        };
        let sources = ids.into_iter().map(watch).collect();
        let types: Vec<i32> = spec.kinds.into_iter().map(i32::from).collect();
        Ok(Follower {
            sources,
            kinds: read::kinds(&types),
            start_time: (spec.start_time != 0 && after.is_none()).then_some(spec.start_time),
            sequence: after.unwrap_or(0),
            history: self.sequence(),
            history_only: spec.history_only,
            live: false,
            gaps: VecDeque::new(),
            opened: OpenedFew::default(),
            wake,
            store: self.clone(),
        })
    }
}

impl Follower {
    /// Waits for the next frame. `None`, for good, once a follower of history alone has sent it.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost or sent twice.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.step() {
                return Some(frame);
            }
            if self.sequence < self.horizon() {
                // What was looked at had to be left out; others get their turn before the next piece.
                tokio::task::coop::consume_budget().await;
                continue;
            }
            if !self.live {
                self.live = true;
                return Some(Frame { live: true, ..self.frame() });
            }
            if self.history_only {
                return None;
            }
            self.wake.notified().await;
        }
    }

    /// The sequence up to which to read now.
    fn horizon(&self) -> u64 {
        if self.live && !self.history_only { self.store.sequence() } else { self.history }
    }

    /// Reads one piece of what has arrived, at most a frame of it. `None` when it held nothing to send.
    fn step(&mut self) -> Option<Frame> {
        if let Some(frame) = self.gap() {
            return Some(frame);
        }
        let mut limit = self.horizon();
        if self.sequence >= limit {
            return None;
        }
        let mut tails: SmallVec<[Tail; 4]> = SmallVec::new();
        for (i, source) in self.sources.iter_mut().enumerate() {
            let part = self.store.part(source.id.as_bytes(), source.hash, self.sequence);
            let lost = source.lost(&part.evicted, self.kinds);
            if lost > 0 {
                self.gaps.push_back(Gap { source_id: source.id.clone(), envelopes: lost });
            }
            if part.more {
                let last = part.segments.last().map_or(limit, |segment| segment.last_sequence());
                limit = limit.min(last);
            }
            tails.extend(Tail::new(i, part, self.sequence, &mut self.opened));
        }
        if let Some(frame) = self.gap() {
            return Some(frame);
        }
        self.fill(&mut tails, limit)
    }

    /// Merges `tails` by sequence up to `limit` or a full frame.
    fn fill(&mut self, tails: &mut SmallVec<[Tail; 4]>, limit: u64) -> Option<Frame> {
        let mut out = Vec::new();
        let mut envelopes = 0;
        while envelopes < FRAME_ENVELOPES && out.len() < FRAME_BYTES {
            let next = tails.iter_mut().filter(|tail| tail.sequence() <= limit).min_by_key(|tail| tail.sequence());
            let Some(tail) = next else {
                self.sequence = limit;
                break;
            };
            let source = &mut self.sources[tail.source];
            let (segment, i) = (tail.open(&mut self.opened), tail.next);
            let kind = segment.kind(i);
            source.passed[kind as usize] += 1;
            self.sequence = segment.sequence(i);
            let old =
                self.sequence <= self.history && self.start_time.is_some_and(|start| segment.timestamp(i) < start);
            if kind.bit() & self.kinds != 0 && !old {
                segment.put_framed(i, &source.field, &mut out);
                envelopes += 1;
            }
            tail.advance(&mut self.opened);
            if tail.segments.is_empty() {
                tails.retain(|tail| !tail.segments.is_empty());
            }
        }
        (envelopes > 0).then(|| Frame { batch: out.into(), envelopes, ..self.frame() })
    }

    fn gap(&mut self) -> Option<Frame> {
        let gap = self.gaps.pop_front()?;
        Some(Frame { gap: Some(gap), ..self.frame() })
    }

    fn frame(&self) -> Frame {
        let cursor = Cursor { epoch: self.store.epoch(), sequence: self.sequence };
        Frame { batch: Bytes::new(), envelopes: 0, cursor, gap: None, live: false }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        for source in &self.sources {
            self.store.unwatch(source.id.as_bytes(), source.hash, &self.wake);
        }
        self.store.release_followed(self.sources.len());
    }
}

impl Followed {
    /// How many envelopes of `kinds` were evicted unseen; they count as passed from now on.
    fn lost(&mut self, evicted: &Kinds<u64>, kinds: KindSet) -> u64 {
        let mut lost = 0;
        for (kind, (passed, evicted)) in self.passed.iter_mut().zip(evicted).enumerate() {
            if *evicted > *passed {
                lost += if kinds & (1 << kind) == 0 { 0 } else { *evicted - *passed };
                *passed = *evicted;
            }
        }
        lost
    }
}

/// The rest of one source's part. Has a segment, unless it is used up.
struct Tail {
    source: usize,
    segments: SmallVec<[Arc<Sealed>; 2]>,
    /// Index into the first segment.
    next: usize,
    /// The sequence of that envelope.
    sequence: u64,
}

impl Tail {
    fn new(source: usize, part: Part, after: u64, opened: &mut OpenedFew) -> Option<Self> {
        let first = part.segments.first()?;
        let (next, sequence) = if first.first_sequence() > after {
            (0, first.first_sequence())
        } else {
            let segment = opened.get(first);
            let next = segment.position_after(after);
            (next, segment.sequence(next))
        };
        Some(Self { source, segments: part.segments, next, sequence })
    }

    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn open<'a>(&self, opened: &'a mut OpenedFew) -> &'a Opened {
        opened.get(&self.segments[0])
    }

    fn advance(&mut self, opened: &mut OpenedFew) {
        self.next += 1;
        if self.next == self.segments[0].len() {
            opened.forget(&self.segments.remove(0));
            self.next = 0;
            self.sequence = self.segments.first().map_or(0, |next| next.first_sequence());
        } else {
            self.sequence = self.open(opened).sequence(self.next);
        }
    }
}

/// The segments that a follower has opened last: it reads on in them, frame by frame. Memory is bounded: at most 16, of 100 KiB or an
/// envelope each.
#[derive(Debug, Default)]
struct OpenedFew(VecDeque<(Arc<Sealed>, Opened)>);

impl OpenedFew {
    fn get(&mut self, sealed: &Arc<Sealed>) -> &Opened {
        let at = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, sealed));
        let at = at.unwrap_or_else(|| {
            if self.0.len() == OPENED {
                self.0.pop_front();
            }
            self.0.push_back((Arc::clone(sealed), sealed.open()));
            self.0.len() - 1
        });
        &self.0[at].1
    }

    fn forget(&mut self, sealed: &Arc<Sealed>) {
        self.0.retain(|(known, _)| !Arc::ptr_eq(known, sealed));
    }
}

#[cfg(test)]
mod tests;
