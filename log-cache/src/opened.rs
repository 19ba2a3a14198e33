//! A segment opened to be read: by index in order of arrival, whether it was packed or not.
//!
//! What enters: a closed segment, or a copy of an open one. What leaves: times, kinds and messages of its envelopes, and the envelopes.
//! Pure.

use std::ops::Range;
use std::sync::Arc;

use proto::raw::Kind;
use proto::raw::wire::{put_bytes, put_varint};

use crate::packed::Parts;
use crate::segment::{Kinds, Segment};

/// An opened segment.
#[derive(Debug)]
pub(crate) enum Opened {
    /// As it came.
    Plain(Arc<Segment>),
    /// Taken apart; with its first sequence.
    Parts(Parts, u64),
}

/// The source of envelopes, as they hold it.
#[derive(Debug)]
pub(crate) struct SourceField(Vec<u8>);

impl SourceField {
    pub(crate) fn new(id: &[u8]) -> Self {
        let mut field = Vec::with_capacity(id.len() + 4);
        if !id.is_empty() {
            put_bytes(&mut field, 2, id);
        }
        Self(field)
    }
}

impl Opened {
    /// Number of envelopes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain(segment) => segment.len(),
            Self::Parts(parts, _) => parts.as_slice().len(),
        }
    }

    /// The `i`-th envelope's timestamp.
    #[inline]
    pub(crate) fn timestamp(&self, i: usize) -> i64 {
        match self {
            Self::Plain(segment) => segment.timestamp(i),
            Self::Parts(parts, _) => parts.as_slice()[i].timestamp,
        }
    }

    /// The `i`-th envelope's sequence.
    #[inline]
    pub(crate) fn sequence(&self, i: usize) -> u64 {
        match self {
            Self::Plain(segment) => segment.sequence(i),
            Self::Parts(parts, first) => first + u64::from(parts.as_slice()[i].sequence),
        }
    }

    /// The `i`-th envelope's kind.
    #[inline]
    pub(crate) fn kind(&self, i: usize) -> Kind {
        match self {
            Self::Plain(segment) => segment.kind(i),
            Self::Parts(parts, _) => parts.as_slice()[i].kind,
        }
    }

    /// Encoded fields of the `i`-th envelope, its message among them.
    #[inline]
    pub(crate) fn message(&self, i: usize) -> &[u8] {
        match self {
            Self::Plain(segment) => segment.envelope(i),
            Self::Parts(parts, _) => parts.rest(&parts.as_slice()[i]),
        }
    }

    /// How many label sets there are, by number; none of one that was not packed.
    pub(crate) fn sets(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Parts(parts, _) => parts.sets(),
        }
    }

    /// The label set of the `i`-th envelope; without one its labels stand beside its message.
    pub(crate) fn set(&self, i: usize) -> Option<usize> {
        match self {
            Self::Plain(_) => None,
            Self::Parts(parts, _) => parts.as_slice()[i].set.map(usize::from),
        }
    }

    /// The encoded fields of a label set.
    pub(crate) fn labels(&self, set: usize) -> &[u8] {
        match self {
            Self::Plain(_) => &[],
            Self::Parts(parts, _) => parts.set(set),
        }
    }

    /// All messages, one after another with what stands between, in order of arrival.
    pub(crate) fn messages(&self) -> &[u8] {
        match self {
            Self::Plain(segment) => segment.envelopes(),
            Self::Parts(parts, _) => parts.rests(),
        }
    }

    /// Where the `i`-th stands in [`Opened::messages`].
    #[inline]
    pub(crate) fn range(&self, i: usize) -> Range<usize> {
        match self {
            Self::Plain(segment) => segment.range(i),
            Self::Parts(parts, _) => parts.range(&parts.as_slice()[i]),
        }
    }

    /// Appends the `i`-th envelope.
    pub(crate) fn put(&self, i: usize, source: &SourceField, into: &mut Vec<u8>) {
        match self {
            Self::Plain(segment) => into.extend_from_slice(segment.envelope(i)),
            Self::Parts(parts, _) => parts.put(&parts.as_slice()[i], &source.0, into),
        }
    }

    /// Appends the `i`-th envelope as one of an `EnvelopeBatch`.
    pub(crate) fn put_framed(&self, i: usize, source: &SourceField, into: &mut Vec<u8>) {
        into.push(1 << 3 | 2);
        put_varint(into, self.size(i, source) as u64);
        self.put(i, source, into);
    }

    /// Bytes of the `i`-th envelope.
    pub(crate) fn size(&self, i: usize, source: &SourceField) -> usize {
        match self {
            Self::Plain(segment) => segment.envelope(i).len(),
            Self::Parts(parts, _) => parts.size(&parts.as_slice()[i], &source.0),
        }
    }

    /// How many envelopes have a sequence of at most `sequence`. O(log n).
    pub(crate) fn position_after(&self, sequence: u64) -> usize {
        match self {
            Self::Plain(segment) => segment.position_after(sequence),
            Self::Parts(parts, first) => match sequence.checked_sub(*first) {
                Some(offset) => parts.as_slice().partition_point(|part| u64::from(part.sequence) <= offset),
                None => 0,
            },
        }
    }

    /// How many envelopes of each kind have a sequence of at most `sequence`.
    pub(crate) fn kinds_up_to(&self, sequence: u64) -> Kinds<u16> {
        let mut kinds = Kinds::default();
        for i in 0..self.position_after(sequence) {
            kinds[self.kind(i) as usize] += 1;
        }
        kinds
    }
}
