//! Reading one source by time.
//!
//! What enters: a `ReadRequest` as it came, and the time now. What leaves: a checked [`Read`], and from [`Store::read`] an encoded
//! `EnvelopeBatch` in order of (timestamp, arrival) or its exact reverse. Segments that cannot match are not opened. Pure: the store's
//! locks are free while segments are looked through.

use std::sync::Arc;

use bytes::Bytes;
use proto::logcache::v1;
use proto::raw::{Kind, wire};

use crate::filter::{NameFilter, PatternError};
use crate::opened::{Opened, SourceField};
use crate::sealed::Sealed;
use crate::segment::{ANY_KIND, KindSet};
use crate::store::Store;
use crate::text::TextFilter;

/// Envelopes returned when a request names no limit.
pub const DEFAULT_LIMIT: usize = 100;

/// The largest limit a request may name.
pub const MAX_LIMIT: usize = 1000;

/// The largest answer, as every reader of the contract has it (contract `log-cache.md` §1): 50 MiB.
pub const MAX_ANSWER: usize = 50 * 1024 * 1024;

/// Opened segments that a read keeps, at most some 100 KiB each.
const KEPT: usize = 16;

/// Bytes of messages that a read with a text filter looks through. Then it says how far it came.
const SCANNED: usize = 256 * 1024 * 1024;

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
    filter: Filter,
    /// Bytes of messages that it may look through.
    scan: usize,
}

/// What an envelope must say.
#[derive(Clone, Debug)]
enum Filter {
    None,
    Names(NameFilter),
    Text(TextFilter),
}

impl Filter {
    /// The kinds that can pass.
    fn kinds(&self) -> KindSet {
        match self {
            Self::None => ANY_KIND,
            Self::Names(_) => NameFilter::KINDS,
            Self::Text(_) => TextFilter::KINDS,
        }
    }
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
    NameFilter(PatternError),
    /// A text filter that cannot be used.
    #[error("text_regex must be a valid regular expression: {0}")]
    TextFilter(PatternError),
    /// More than one filter on what envelopes say.
    #[error("text, text_regex and name_filter exclude each other; use one of them")]
    Filters,
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
    /// The read gave up looking here: what is behind this timestamp in the direction of the read, and at it, has not been looked at.
    /// To go on, read with `start_time` at it, or with `end_time` 1 behind it for a descending read.
    pub partial: Option<i64>,
}

impl Read {
    /// Checks a request. `now`, nanoseconds since the Unix epoch, is the end of a range without one.
    ///
    /// # Errors
    /// What the request has wrong, the first of range, limit and filters.
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
        let filter = match (request.name_filter.as_str(), request.text.as_str(), request.text_regex.as_str()) {
            ("", "", "") => Filter::None,
            (pattern, "", "") => Filter::Names(NameFilter::new(pattern).map_err(ReadError::NameFilter)?),
            ("", text, "") => Filter::Text(TextFilter::substring(text).map_err(ReadError::TextFilter)?),
            ("", "", pattern) => Filter::Text(TextFilter::regex(pattern).map_err(ReadError::TextFilter)?),
            _ => return Err(ReadError::Filters),
        };
        let scan = if matches!(filter, Filter::Text(_)) { SCANNED } else { usize::MAX };
        Ok(Self {
            source_id: request.source_id,
            start,
            end: if end == 0 { now } else { end },
            limit,
            descending: request.descending,
            kinds: kinds(&request.envelope_types),
            filter,
            scan,
        })
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
    /// has more than `limit` envelopes, by the rest of that run and no more. Opens the segments that may hold one of them. A filter
    /// looks into every envelope of the range until the limit is reached; one on text, into 256 MiB, and then the page is
    /// [partial](Page::partial).
    ///
    /// # Errors
    /// [`ReadError::TooLarge`].
    pub fn read(&self, read: &Read) -> Result<Page, ReadError> {
        let kinds = read.kinds & read.filter.kinds();
        if read.start >= read.end || kinds == 0 {
            return Ok(Page::default());
        }
        let id = read.source_id.as_bytes();
        let segments = self.matching(id, read.start, read.end, kinds);
        let mut search = Search::new(segments, read, kinds);
        let partial = search.look(read);
        let page = search.page(read, &SourceField::new(id), partial)?;
        self.count_read(page.envelopes);
        Ok(page)
    }
}

/// Finds the envelopes that a read returns, then writes them.
///
/// Segments are looked at in order of the best envelope that they may hold, until no other can hold one that is wanted. Of those opened
/// a few are kept: memory does not depend on how much is held or in what order it came.
struct Search {
    /// Best first.
    segments: Vec<Arc<Sealed>>,
    opened: Vec<(usize, Opened)>,
    kinds: KindSet,
    start: i64,
    end: i64,
    limit: usize,
    descending: bool,
    found: Vec<Found>,
    /// The timestamp behind which nothing is wanted any more.
    cutoff: Option<i64>,
    /// How many were found when the cutoff was set last.
    cut_at: usize,
}

/// An envelope that may be returned.
#[derive(Clone, Copy, Debug)]
struct Found {
    timestamp: i64,
    sequence: u64,
    segment: u32,
    index: u32,
}

impl Search {
    fn new(mut segments: Vec<Arc<Sealed>>, read: &Read, kinds: KindSet) -> Self {
        if read.descending {
            segments.sort_by_key(|segment| std::cmp::Reverse(segment.newest()));
        } else {
            segments.sort_by_key(|segment| segment.oldest());
        }
        let (opened, found) = (Vec::new(), Vec::new());
        let Read { start, end, limit, descending, .. } = *read;
        Self { segments, opened, kinds, start, end, limit, descending, found, cutoff: None, cut_at: 0 }
    }

    /// Looks through the segments. What it returns was not looked at: at this timestamp or behind it there may be more.
    fn look(&mut self, read: &Read) -> Option<i64> {
        let mut budget = read.scan;
        for n in 0..self.segments.len() {
            let bound = if self.descending { self.segments[n].newest() } else { self.segments[n].oldest() };
            if self.cutoff.is_some_and(|cutoff| self.is_behind(bound, cutoff)) {
                break;
            }
            let opened = self.segments[n].open();
            let Some(left) = budget.checked_sub(opened.messages().len()) else {
                return Some(bound);
            };
            budget = left;
            match &read.filter {
                Filter::Text(text) => text.each(&opened, |i| self.take(n, &opened, i)),
                Filter::Names(names) => {
                    for i in 0..opened.len() {
                        if names.admits(opened.kind(i), opened.message(i)) {
                            self.take(n, &opened, i);
                        }
                    }
                }
                Filter::None => (0..opened.len()).for_each(|i| self.take(n, &opened, i)),
            }
            if self.opened.len() < KEPT {
                self.opened.push((n, opened));
            }
            self.cut();
        }
        None
    }

    fn is_behind(&self, timestamp: i64, cutoff: i64) -> bool {
        if self.descending { timestamp < cutoff } else { timestamp > cutoff }
    }

    #[inline]
    fn take(&mut self, segment: usize, opened: &Opened, index: usize) {
        let timestamp = opened.timestamp(index);
        let of_kind = opened.kind(index).bit() & self.kinds != 0;
        let wanted = !self.cutoff.is_some_and(|cutoff| self.is_behind(timestamp, cutoff));
        if of_kind && wanted && self.start <= timestamp && timestamp < self.end {
            let sequence = opened.sequence(index);
            self.found.push(Found { timestamp, sequence, segment: segment as u32, index: index as u32 });
        }
    }

    /// Forgets what is behind the limit, each time that twice as many have been found.
    fn cut(&mut self) {
        if self.found.len() < self.limit.max(2 * self.cut_at) {
            return;
        }
        let (_, last, _) = if self.descending {
            self.found.select_nth_unstable_by_key(self.limit - 1, |found| std::cmp::Reverse(found.timestamp))
        } else {
            self.found.select_nth_unstable_by_key(self.limit - 1, |found| found.timestamp)
        };
        let cutoff = last.timestamp;
        self.cutoff = Some(cutoff);
        let descending = self.descending;
        self.found.retain(|found| if descending { found.timestamp >= cutoff } else { found.timestamp <= cutoff });
        self.cut_at = self.found.len();
    }

    fn page(mut self, read: &Read, source: &SourceField, partial: Option<i64>) -> Result<Page, ReadError> {
        if let Some(unseen) = partial {
            // Where others may stand before them, they are left out: the next read begins there.
            let descending = self.descending;
            self.found.retain(|found| if descending { found.timestamp > unseen } else { found.timestamp < unseen });
        }
        self.found.sort_unstable_by_key(|found| (found.timestamp, found.sequence));
        if self.descending {
            self.found.reverse();
        }
        if let Some(last) = self.found.get(self.limit - 1) {
            let last = last.timestamp;
            let run = self.found[self.limit..].iter().take_while(|found| found.timestamp == last).count();
            self.found.truncate(self.limit + run);
        }
        let found = std::mem::take(&mut self.found);
        let mut out = Vec::new();
        let (mut whole, mut kept) = (Vec::new(), Vec::new());
        for Found { segment, index, .. } in &found {
            let (i, before) = (*index as usize, out.len());
            let opened = self.reopen(*segment as usize);
            if let Filter::Names(names) = &read.filter {
                whole.clear();
                kept.clear();
                opened.put(i, source, &mut whole);
                if let Some(envelope) = names.apply(opened.kind(i), &whole, &mut kept) {
                    wire::put_bytes(&mut out, 1, envelope.unwrap_or(&kept));
                }
            } else {
                // Before it is written: one envelope may be large.
                let size = before + wire::bytes_len(opened.size(i, source));
                if size > MAX_ANSWER {
                    return Err(ReadError::TooLarge(size));
                }
                opened.put_framed(i, source, &mut out);
            }
            if out.len() > MAX_ANSWER {
                return Err(ReadError::TooLarge(out.len()));
            }
        }
        // A cut page says itself where to go on.
        let full = found.len() >= self.limit;
        Ok(Page { batch: out.into(), envelopes: found.len(), partial: partial.filter(|_| !full) })
    }

    fn reopen(&mut self, segment: usize) -> &Opened {
        let at = match self.opened.iter().position(|(n, _)| *n == segment) {
            Some(at) => at,
            None => {
                if self.opened.len() >= KEPT {
                    self.opened.remove(0);
                }
                self.opened.push((segment, self.segments[segment].open()));
                self.opened.len() - 1
            }
        };
        &self.opened[at].1
    }
}

#[cfg(test)]
mod tests;
