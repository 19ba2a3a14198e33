//! A segment: envelopes of one source in order of arrival, with what a read needs to know before it opens one.
//!
//! What enters: encoded envelopes, appended. What leaves: the same bytes, by arrival or by time. A segment is open while it is
//! appended to; then it is closed, and packed ([`crate::packed`]). Never decodes an envelope and never looks at a clock.

use proto::raw::Kind;

/// A segment takes this many envelopes at most.
pub(crate) const MAX_ITEMS: usize = 1024;

/// A segment takes this many bytes at most, unless a single envelope is larger and has it for itself.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// No envelope may be larger: offsets keep 29 bits. The largest message that arrives is far smaller.
pub(crate) const MAX_ENVELOPE: usize = (1 << END_BITS) - 1 - MAX_BYTES;

const END_BITS: u32 = 29;

/// What an allocation costs beside the bytes asked for, besides being rounded up.
const ALLOCATION: usize = 8;

/// Bytes of memory that an allocation of `bytes` takes, as allocators round: to one of eight sizes between a power of two and the next.
/// None costs nothing.
#[inline]
pub(crate) fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=64 => bytes.next_multiple_of(16) + ALLOCATION,
        _ => bytes.next_multiple_of(1 << (bytes.ilog2() - 3)) + ALLOCATION,
    }
}

/// How many envelopes of each kind, by `Kind as usize`.
pub(crate) type Kinds<T> = [T; 6];

/// A set of kinds, one [`Kind::bit`] each.
pub(crate) type KindSet = u8;

/// Every kind, and envelopes without one.
pub(crate) const ANY_KIND: KindSet = u8::MAX;

/// One envelope of a segment. 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Item {
    timestamp: i64,
    /// Counted from the segment's first.
    sequence: u32,
    /// Where its bytes end, and in the highest bits its kind.
    end_and_kind: u32,
}

impl Item {
    fn end(self) -> usize {
        (self.end_and_kind & ((1 << END_BITS) - 1)) as usize
    }

    fn kind(self) -> Kind {
        match self.end_and_kind >> END_BITS {
            1 => Kind::Log,
            2 => Kind::Counter,
            3 => Kind::Gauge,
            4 => Kind::Timer,
            5 => Kind::Event,
            _ => Kind::None,
        }
    }
}

/// Envelopes of one source in order of arrival.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    bytes: Vec<u8>,
    items: Vec<Item>,
    first_sequence: u64,
    oldest: i64,
    newest: i64,
    kinds: Kinds<u16>,
}

impl Segment {
    /// An open segment that holds nothing, not even memory.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            items: Vec::new(),
            first_sequence: 0,
            oldest: i64::MAX,
            newest: i64::MIN,
            kinds: [0; 6],
        }
    }

    /// An open segment that expects to be filled: it starts with a quarter of `target` bytes.
    pub(crate) fn expecting(target: usize) -> Self {
        Self { bytes: Vec::with_capacity(target / 4), items: Vec::with_capacity(16), ..Self::new() }
    }

    /// True when an envelope of `len` bytes with this sequence may be appended to a segment of at most `target` bytes.
    #[inline]
    pub(crate) fn fits(&self, len: usize, sequence: u64, target: usize) -> bool {
        self.items.is_empty()
            || (self.bytes.len() + len <= target
                && self.items.len() < MAX_ITEMS
                && sequence - self.first_sequence <= u64::from(u32::MAX))
    }

    /// Appends an envelope that [`Segment::fits`], at most [`MAX_ENVELOPE`] bytes, with a sequence above all before it. Amortised one
    /// copy: buffers grow by half, from the size of the first envelope.
    #[inline]
    pub(crate) fn push(&mut self, timestamp: i64, kind: Kind, sequence: u64, envelope: &[u8]) {
        grow(&mut self.bytes, envelope.len(), 64);
        self.bytes.extend_from_slice(envelope);
        if self.items.is_empty() {
            self.first_sequence = sequence;
        }
        grow(&mut self.items, 1, 1);
        self.items.push(Item {
            timestamp,
            sequence: (sequence - self.first_sequence) as u32,
            end_and_kind: self.bytes.len() as u32 | (kind as u32) << END_BITS,
        });
        self.oldest = self.oldest.min(timestamp);
        self.newest = self.newest.max(timestamp);
        self.kinds[kind as usize] += 1;
    }

    /// A copy of what arrived after `sequence`.
    pub(crate) fn after(&self, sequence: u64) -> Self {
        let skipped = self.position_after(sequence);
        let begin = self.start(skipped);
        let mut tail = Self::new();
        tail.bytes.reserve_exact(self.bytes.len() - begin);
        tail.items.reserve_exact(self.items.len() - skipped);
        for i in skipped..self.len() {
            tail.push(self.timestamp(i), self.kind(i), self.sequence(i), self.envelope(i));
        }
        tail
    }

    /// Number of envelopes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// True when it holds no envelope.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of memory held beside the struct itself.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        allocated(self.bytes.capacity()) + allocated(self.items.capacity() * size_of::<Item>())
    }

    /// Bytes of its envelopes.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The sequence of the first envelope; 0 if there is none.
    #[inline]
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The sequence of the last envelope; 0 if there is none.
    #[inline]
    pub(crate) fn last_sequence(&self) -> u64 {
        self.items.last().map_or(0, |item| self.first_sequence + u64::from(item.sequence))
    }

    /// The smallest timestamp; `i64::MAX` if there is none.
    pub(crate) fn oldest(&self) -> i64 {
        self.oldest
    }

    /// The largest timestamp; `i64::MIN` if there is none.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// How many envelopes of each kind.
    pub(crate) fn kinds(&self) -> &Kinds<u16> {
        &self.kinds
    }

    /// How many envelopes of each kind have a sequence of at most `sequence`.
    pub(crate) fn kinds_up_to(&self, sequence: u64) -> Kinds<u16> {
        let mut kinds = Kinds::default();
        for i in 0..self.position_after(sequence) {
            kinds[self.kind(i) as usize] += 1;
        }
        kinds
    }

    /// True when some envelope may have a timestamp in `[start, end)` and a kind of `kinds`. False is certain.
    pub(crate) fn may_match(&self, start: i64, end: i64, kinds: KindSet) -> bool {
        self.oldest < end
            && self.newest >= start
            && (0..self.kinds.len()).any(|kind| kinds & (1 << kind) != 0 && self.kinds[kind] > 0)
    }

    /// How many envelopes, in order of arrival, have a sequence of at most `sequence`. O(log n).
    pub(crate) fn position_after(&self, sequence: u64) -> usize {
        match sequence.checked_sub(self.first_sequence) {
            Some(offset) => self.items.partition_point(|item| u64::from(item.sequence) <= offset),
            None => 0,
        }
    }

    /// The `i`-th envelope's timestamp.
    #[inline]
    pub(crate) fn timestamp(&self, i: usize) -> i64 {
        self.items[i].timestamp
    }

    /// The `i`-th envelope's sequence.
    #[inline]
    pub(crate) fn sequence(&self, i: usize) -> u64 {
        self.first_sequence + u64::from(self.items[i].sequence)
    }

    /// The `i`-th envelope's kind.
    #[inline]
    pub(crate) fn kind(&self, i: usize) -> Kind {
        self.items[i].kind()
    }

    /// The `i`-th envelope, encoded.
    #[inline]
    pub(crate) fn envelope(&self, i: usize) -> &[u8] {
        &self.bytes[self.start(i)..self.items[i].end()]
    }

    /// All envelopes, one after another.
    pub(crate) fn envelopes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the `i`-th envelope stands in [`Segment::envelopes`].
    #[inline]
    pub(crate) fn range(&self, i: usize) -> std::ops::Range<usize> {
        self.start(i)..self.items[i].end()
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.items[i - 1].end() }
    }
}

/// Makes room for `more`, by half as much again and with no slack beyond that: the first envelope of a quiet source gets what it needs,
/// and what waits to be packed holds little that it does not use.
#[inline]
fn grow<T>(buffer: &mut Vec<T>, more: usize, step: usize) {
    let needed = buffer.len() + more;
    if needed > buffer.capacity() {
        let room = needed.next_multiple_of(step).max(buffer.capacity() + buffer.capacity() / 2);
        buffer.reserve_exact(room - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(timestamps: &[i64]) -> Segment {
        let mut segment = Segment::new();
        for (i, timestamp) in timestamps.iter().enumerate() {
            segment.push(*timestamp, Kind::Log, 10 + 2 * i as u64, format!("{i}").as_bytes());
        }
        segment
    }

    #[test]
    fn an_item_is_small() {
        assert_eq!(size_of::<Item>(), 16);
    }

    #[test]
    fn keeps_bytes_kinds_and_sequences() {
        let mut segment = Segment::new();
        let kinds = [Kind::None, Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer, Kind::Event];
        for (i, kind) in kinds.into_iter().enumerate() {
            segment.push(i as i64, kind, 7 + i as u64, &vec![i as u8; i * 3]);
        }
        for (i, kind) in kinds.into_iter().enumerate() {
            assert_eq!(segment.kind(i), kind);
            assert_eq!(segment.envelope(i), vec![i as u8; i * 3]);
            assert_eq!(segment.sequence(i), 7 + i as u64);
        }
        assert_eq!((segment.first_sequence(), segment.last_sequence()), (7, 12));
        assert_eq!(segment.kinds(), &[1; 6]);
        assert!(segment.may_match(5, 6, Kind::Event.bit()));
        assert!(!segment.may_match(6, 9, ANY_KIND) && !segment.may_match(i64::MIN, 0, ANY_KIND));
    }

    #[test]
    fn a_copy_of_the_tail_equals_it() {
        let segment = segment(&[9, 1, 5, 2]);
        for (after, left) in [(0, 4), (9, 4), (10, 3), (11, 3), (14, 1), (16, 0), (u64::MAX, 0)] {
            let tail = segment.after(after);
            assert_eq!(tail.len(), left, "after {after}");
            for i in 0..left {
                let from = 4 - left + i;
                assert_eq!(tail.envelope(i), segment.envelope(from));
                assert_eq!(tail.sequence(i), segment.sequence(from));
                assert_eq!(tail.timestamp(i), segment.timestamp(from));
            }
        }
    }

    #[test]
    fn one_line_costs_little_more_than_itself() {
        let mut segment = Segment::new();
        segment.push(1, Kind::Log, 1, &[0; 200]);
        assert!(segment.held() <= 256 + 16 + 2 * ALLOCATION, "{}", segment.held());
        assert_eq!(Segment::new().held(), 0);
    }

    #[test]
    fn is_full_by_bytes_by_count_and_by_sequence() {
        let mut segment = Segment::new();
        assert!(segment.fits(1 << 20, 1, MAX_BYTES), "a big envelope has a segment for itself");
        segment.push(1, Kind::Log, 1, &[0; 1000]);
        assert!(segment.fits(24, 2, 1024) && !segment.fits(25, 2, 1024));
        assert!(!segment.fits(1, 2 + u64::from(u32::MAX), MAX_BYTES));
        for i in 1..MAX_ITEMS as u64 {
            assert!(segment.fits(0, 1 + i, MAX_BYTES));
            segment.push(1, Kind::Log, 1 + i, &[]);
        }
        assert!(!segment.fits(0, 5000, MAX_BYTES));
    }
}
