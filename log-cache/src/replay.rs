//! Replaying what arrived in a range of the insertion sequence, source by source.
//!
//! What enters: the range, the kinds and, if not all, the sources. What leaves: pieces of one source each, in order of arrival, and
//! after a source's last piece the count of what was evicted before it could be sent. It never waits: what arrives later is not in the
//! range. Between two pieces it holds no lock and nothing but the names of one shard's sources, or those it was given.
//!
//! Whoever reads [`Store::sequence`] while nobody puts, and from then on gets what is put by another way, joins the two without gap or
//! repeat.

use std::sync::Arc;

use bytes::Bytes;
use proto::raw::{Batch, source_hash};

use crate::follow::Gap;
use crate::opened::SourceField;
use crate::sealed::Sealed;
use crate::segment::{KindSet, Kinds};
use crate::store::Store;

/// What was put after the envelope numbered `after`, up to that numbered `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// 0 is the beginning.
    pub after: u64,
    /// A sequence of the store that has been given out.
    pub until: u64,
}

/// A part of one source's history: some envelopes, or what is missing among those before.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Envelopes of one source by arrival: at most those of a segment, which is 64 KiB or one envelope.
    pub batch: Batch,
    /// The insertion sequence of each.
    pub sequences: Vec<u64>,
    /// Envelopes of the kinds wanted that were evicted unseen. Of what was evicted before the replay came to the source it knows the
    /// last 16 segments, if the source still holds or has a reader; a segment that the range begins in counts whole.
    pub gap: Option<Gap>,
}

/// Reads a range, piece by piece. Dropping it ends it.
#[derive(Debug)]
pub struct Replay {
    store: Store,
    range: Range,
    kinds: KindSet,
    /// Sources still to be read, of the shards before `shard` or as named.
    sources: Vec<(Box<[u8]>, u64)>,
    /// The next shard to take sources from.
    shard: usize,
    now: Option<Current>,
}

/// The source being read.
#[derive(Debug)]
struct Current {
    id: Box<[u8]>,
    hash: u64,
    /// All up to here has been read.
    sequence: u64,
    /// What came in the range and has not been read yet, by kind.
    left: Kinds<u64>,
}

impl Store {
    /// Replays what arrived in `range`, of the kinds whose [bits](proto::raw::Kind::bit) are in `kinds`; of `sources` only, unless there
    /// are none.
    ///
    /// Costs a copy of the bytes, one lock per piece, and for each source a look at its segments.
    pub fn replay(&self, range: Range, kinds: u8, sources: Option<Vec<String>>) -> Replay {
        let named = |id: String| {
            let hash = source_hash(id.as_bytes());
            (id.into_bytes().into_boxed_slice(), hash)
        };
        let shard = if sources.is_some() { Store::shards() } else { 0 };
        let sources = sources.into_iter().flatten().map(named).collect();
        Replay { store: self.clone(), range, kinds, sources, shard, now: None }
    }
}

impl Replay {
    /// The next piece; `None` once all has been read.
    pub fn next_piece(&mut self) -> Option<Piece> {
        loop {
            let Some(current) = &mut self.now else {
                self.now = Some(self.next_source()?);
                continue;
            };
            let part = self.store.part(&current.id, current.hash, current.sequence);
            let until = self.range.until;
            // A sealed segment comes whole, also when all of it that is in the range has been read.
            let is_next = |next: &&Arc<Sealed>| current.sequence < until && next.first_sequence() <= until;
            let Some(segment) = part.segments.first().filter(is_next) else {
                let lost = current.lost(self.kinds);
                self.now = None;
                if let Some(gap) = lost {
                    return Some(Piece { batch: Batch::index(Bytes::new()).0, sequences: Vec::new(), gap: Some(gap) });
                }
                continue;
            };
            if let Some(piece) = current.read(segment, self.range.until, self.kinds) {
                return Some(piece);
            }
        }
    }

    fn next_source(&mut self) -> Option<Current> {
        let Range { after, until } = self.range;
        if after >= until {
            return None;
        }
        while self.sources.is_empty() && self.shard < Store::shards() {
            self.sources = self.store.ids(self.shard);
            self.shard += 1;
        }
        let (id, hash) = self.sources.pop()?;
        let left = self.store.arrived(&id, hash, after, until);
        Some(Current { id, hash, sequence: after, left })
    }
}

impl Current {
    /// What of `segment` comes next. Nothing if none of it is of the kinds.
    fn read(&mut self, sealed: &Sealed, until: u64, kinds: KindSet) -> Option<Piece> {
        let (segment, source) = (sealed.open(), SourceField::new(&self.id));
        let mut out = Vec::new();
        let mut sequences = Vec::new();
        for i in segment.position_after(self.sequence)..segment.position_after(until) {
            let kind = segment.kind(i);
            self.left[kind as usize] = self.left[kind as usize].saturating_sub(1);
            if kind.bit() & kinds != 0 {
                segment.put_framed(i, &source, &mut out);
                sequences.push(segment.sequence(i));
            }
        }
        self.sequence = sealed.last_sequence().min(until).max(self.sequence);
        // It was indexed when it was put: nothing is refused now.
        let batch = Batch::index(out.into()).0;
        debug_assert_eq!(batch.len(), sequences.len());
        (!sequences.is_empty()).then_some(Piece { batch, sequences, gap: None })
    }

    /// What came, was wanted and has not been found.
    fn lost(&self, kinds: KindSet) -> Option<Gap> {
        let of = |(kind, left): (usize, &u64)| if kinds & (1 << kind) == 0 { 0 } else { *left };
        let envelopes = self.left.iter().enumerate().map(of).sum();
        let source_id = || String::from_utf8_lossy(&self.id).into_owned();
        (envelopes > 0).then(|| Gap { source_id: source_id(), envelopes })
    }
}

#[cfg(test)]
mod tests;
