//! Reading one source by time.
//!
//! What enters: a `ReadRequest` as it came, and the time now. What leaves: a checked [`Read`], and from [`Store::read`] an encoded
//! `EnvelopeBatch` in order of (timestamp, arrival) or its exact reverse. Segments that cannot match are not opened. Pure: the store's
//! locks are free while segments are merged.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use bytes::Bytes;
use proto::logcache::v1;
use proto::raw::{Kind, wire};

use crate::filter::{NameError, NameFilter};
use crate::segment::{ANY_KIND, KindSet, Segment};
use crate::store::Store;

/// Envelopes returned when a request names no limit.
pub const DEFAULT_LIMIT: usize = 100;

/// The largest limit a request may name.
pub const MAX_LIMIT: usize = 1000;

/// The largest answer, as every reader of the contract has it (contract `log-cache.md` §1): 50 MiB.
pub const MAX_ANSWER: usize = 50 * 1024 * 1024;

/// A checked request (contract `log-cache.md` §2).
#[derive(Clone, Debug)]
pub struct Read {
    /// The source, exactly; may be empty.
    pub source_id: String,
    /// The earliest timestamp, nanoseconds since the Unix epoch, inclusive.
    pub start: i64,
    /// The end of the range, nanoseconds since the Unix epoch, exclusive.
    pub end: i64,
    /// How many envelopes; from 1 to [`MAX_LIMIT`]. A run of equal timestamps is finished all the same.
    pub limit: usize,
    /// Newest first.
    pub descending: bool,
    kinds: KindSet,
    names: Option<NameFilter>,
}

/// Why a request is not answered. The texts are those clients know (contract `log-cache.md` §2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The range ends before it starts.
    #[error("StartTime ({start}) must be before EndTime ({end})")]
    Range {
        /// As requested.
        start: i64,
        /// As requested.
        end: i64,
    },
    /// More than [`MAX_LIMIT`].
    #[error("limit ({0}) must be 1000 or less")]
    LimitTooLarge(i64),
    /// Negative.
    #[error("limit ({0}) must be greater than zero")]
    LimitNegative(i64),
    /// A name filter that cannot be used.
    #[error("name filter must be a valid regular expression: {0}")]
    NameFilter(#[from] NameError),
    /// The answer would pass [`MAX_ANSWER`]; a smaller limit helps.
    #[error("grpc: received message larger than max ({0} vs. {MAX_ANSWER})")]
    TooLarge(usize),
}

impl From<ReadError> for tonic::Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge(_) => Self::resource_exhausted(error.to_string()),
            _ => Self::unknown(error.to_string()),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// An encoded `EnvelopeBatch`.
    pub batch: Bytes,
    /// How many envelopes are in it.
    pub envelopes: usize,
}

impl Read {
    /// Checks a request. `now`, nanoseconds since the Unix epoch, is the end of a range without one.
    ///
    /// # Errors
    /// What the request has wrong, the first of range, limit and name filter.
    pub fn parse(request: v1::ReadRequest, now: i64) -> Result<Self, ReadError> {
        let (start, end) = (request.start_time, request.end_time);
        if end != 0 && start > end {
            return Err(ReadError::Range { start, end });
        }
        let limit = match request.limit {
            0 => DEFAULT_LIMIT,
            limit if limit > MAX_LIMIT as i64 => return Err(ReadError::LimitTooLarge(limit)),
            limit => usize::try_from(limit).map_err(|_| ReadError::LimitNegative(limit))?,
        };
        let names = match request.name_filter.as_str() {
            "" => None,
            pattern => Some(NameFilter::new(pattern)?),
        };
        Ok(Self {
            source_id: request.source_id,
            start,
            end: if end == 0 { now } else { end },
            limit,
            descending: request.descending,
            kinds: kinds(&request.envelope_types),
            names,
        })
    }

    /// True when every envelope in the range may have to be looked into: a read that can take long.
    pub fn looks_inside(&self) -> bool {
        self.names.is_some()
    }
}

/// The kinds that a request names; ANY and unknown numbers are left out, and none at all is every kind.
pub(crate) fn kinds(types: &[i32]) -> KindSet {
    let bits = types.iter().map(|number| match v1::EnvelopeType::try_from(*number) {
        Ok(v1::EnvelopeType::Log) => Kind::Log.bit(),
        Ok(v1::EnvelopeType::Counter) => Kind::Counter.bit(),
        Ok(v1::EnvelopeType::Gauge) => Kind::Gauge.bit(),
        Ok(v1::EnvelopeType::Timer) => Kind::Timer.bit(),
        Ok(v1::EnvelopeType::Event) => Kind::Event.bit(),
        Ok(v1::EnvelopeType::Any) | Err(_) => 0,
    });
    match bits.fold(0, |all, bit| all | bit) {
        0 => ANY_KIND,
        some => some,
    }
}

impl Store {
    /// Reads up to `limit` envelopes of one source from `[start, end)`.
    ///
    /// An unknown source and a range that is no longer held give an empty page. A run of equal timestamps is never split: the page then
    /// has more than `limit` envelopes, by the rest of that run and no more. O(segments) to find the first envelope, O(log segments) and
    /// a copy for each; a name filter looks into every envelope of the range until the limit is reached.
    ///
    /// # Errors
    /// [`ReadError::TooLarge`].
    pub fn read(&self, read: &Read) -> Result<Page, ReadError> {
        let names_need = if read.names.is_some() { NameFilter::KINDS } else { ANY_KIND };
        let kinds = read.kinds & names_need;
        if read.start >= read.end || kinds == 0 {
            return Ok(Page::default());
        }
        let segments = self.matching(read.source_id.as_bytes(), read.start, read.end, kinds);
        let mut merge = Merge::new(segments, read);
        let mut out = Vec::new();
        let mut envelopes = 0;
        let mut last = None;
        let mut filtered = Vec::new();
        while let Some((segment, i)) = merge.next() {
            let timestamp = segment.timestamp(i);
            if envelopes >= read.limit && last != Some(timestamp) {
                break;
            }
            if segment.kind(i).bit() & kinds == 0 {
                continue;
            }
            let mut envelope = segment.envelope(i);
            if let Some(names) = &read.names {
                filtered.clear();
                match names.apply(segment.kind(i), envelope, &mut filtered) {
                    None => continue,
                    Some(unchanged) => envelope = unchanged.unwrap_or(&filtered),
                }
            }
            let size = out.len() + wire::bytes_len(envelope.len());
            if size > MAX_ANSWER {
                return Err(ReadError::TooLarge(size));
            }
            wire::put_bytes(&mut out, 1, envelope);
            envelopes += 1;
            last = Some(timestamp);
        }
        self.count_read(envelopes);
        Ok(Page { batch: out.into(), envelopes })
    }
}

/// Merges segments by (timestamp, sequence), or its reverse.
struct Merge {
    segments: Vec<Arc<Segment>>,
    heap: BinaryHeap<Head>,
    start: i64,
    end: i64,
    descending: bool,
}

/// The next envelope of one segment, or the place where an unopened segment may begin.
struct Head {
    segment: usize,
    /// The nth by time.
    nth: usize,
    /// Envelopes from `nth` on, in the direction of the read; 0 in an unopened segment.
    left: usize,
    timestamp: i64,
    sequence: u64,
    descending: bool,
}

impl Merge {
    fn new(segments: Vec<Arc<Segment>>, read: &Read) -> Self {
        let descending = read.descending;
        let unopened = |(i, segment): (usize, &Arc<Segment>)| {
            // Before any envelope with that timestamp, so that it is opened in time.
            let (timestamp, sequence) = match descending {
                false => (segment.oldest().max(read.start), 0),
                true => (segment.newest().min(read.end - 1), u64::MAX),
            };
            Head { segment: i, nth: 0, left: 0, timestamp, sequence, descending }
        };
        let heap = segments.iter().enumerate().map(unopened).collect();
        Self { segments, heap, start: read.start, end: read.end, descending }
    }

    /// The next envelope: its segment, and its index there.
    fn next(&mut self) -> Option<(&Segment, usize)> {
        let (segment, i) = loop {
            let mut head = self.heap.peek_mut()?;
            let segment = &mut self.segments[head.segment];
            if head.left == 0 {
                // Sealed segments are sorted; the copy of an open one may not be, and is nobody else's.
                if let Some(copy) = Arc::get_mut(segment) {
                    copy.sort();
                }
                let (first, end) = (segment.before(self.start), segment.before(self.end));
                if first == end {
                    PeekMut::pop(head);
                    continue;
                }
                head.left = end - first;
                head.nth = if self.descending { end - 1 } else { first };
                head.place(segment);
                continue;
            }
            let found = (head.segment, segment.by_time(head.nth));
            head.left -= 1;
            if head.left == 0 {
                PeekMut::pop(head);
            } else {
                head.nth = if self.descending { head.nth - 1 } else { head.nth + 1 };
                head.place(segment);
            }
            break found;
        };
        Some((&self.segments[segment], i))
    }
}

impl Head {
    fn place(&mut self, segment: &Segment) {
        let i = segment.by_time(self.nth);
        (self.timestamp, self.sequence) = (segment.timestamp(i), segment.sequence(i));
    }
}

impl Ord for Head {
    /// The greatest is next.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = (self.timestamp, self.sequence).cmp(&(other.timestamp, other.sequence));
        if self.descending { order } else { order.reverse() }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests;
