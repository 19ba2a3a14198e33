//! A batch: shared bytes and a compact index of the envelopes in them.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::limits::{Limits, Refused};
use super::walk;
use super::wire::{Fields, WireType, bytes_len, put_bytes, varint_len};
use crate::reason::Reason;

/// Which member of the envelope's oneof is set: the last one on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// No member: such an envelope matches no selector.
    #[default]
    None = 0,
    /// A log line.
    Log = 1,
    /// A counter.
    Counter = 2,
    /// A set of gauges.
    Gauge = 3,
    /// A timer.
    Timer = 4,
    /// An event.
    Event = 5,
}

impl Kind {
    /// The kinds that selectors can name.
    pub const ALL: [Kind; 5] = [Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer, Kind::Event];

    /// A bit of its own, for sets of kinds.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }

    pub(super) fn from_field(number: u32) -> Self {
        match number {
            4 => Self::Log,
            5 => Self::Counter,
            6 => Self::Gauge,
            7 => Self::Timer,
            10 => Self::Event,
            _ => Self::None,
        }
    }
}

/// One envelope of a batch. 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    start: u32,
    len: u32,
    source_at: u32,
    instance_at: u32,
    source_len: u16,
    instance_len: u16,
    /// Bytes before `start` that frame this envelope as field 1 of a batch, 0 if none do.
    head: u8,
    /// Which member is set.
    pub kind: Kind,
    /// Nanoseconds since the Unix epoch, as its sender wrote it.
    pub timestamp: i64,
    /// [`source_hash`] of its `source_id`.
    pub source: u64,
}

impl Entry {
    /// Bytes of the envelope.
    pub fn size(&self) -> usize {
        self.len as usize
    }

    /// The same envelope where it begins at `start`, framed in the shortest form.
    fn moved_to(&self, start: usize) -> Self {
        let start = start as u32;
        let moved = |at: u32| at.wrapping_sub(self.start).wrapping_add(start);
        Self {
            start,
            source_at: moved(self.source_at),
            instance_at: moved(self.instance_at),
            head: (1 + varint_len(u64::from(self.len))) as u8,
            ..*self
        }
    }

    /// The same envelope rewritten to `len` bytes at `start`: those of `kept`, which hold its source and instance, and then others.
    pub(super) fn rewritten(&self, start: usize, len: usize, kept: &[Range<usize>]) -> Self {
        let moved = |at: u32, len: u16| {
            let at = at.wrapping_sub(self.start) as usize;
            let mut to = start;
            for kept in kept.iter().filter(|_| len > 0) {
                if kept.contains(&at) {
                    return (to + at - kept.start) as u32;
                }
                to += kept.len();
            }
            start as u32
        };
        Self {
            start: start as u32,
            len: len as u32,
            source_at: moved(self.source_at, self.source_len),
            instance_at: moved(self.instance_at, self.instance_len),
            head: (1 + varint_len(len as u64)) as u8,
            ..*self
        }
    }

    /// Its source stands in its envelope, as always but for [`Batch::keyed`].
    fn holds_its_source(&self) -> bool {
        self.source_at >= self.start && self.source_at + u32::from(self.source_len) <= self.start + self.len
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    /// The envelope with its framing, when the batch has one in the shortest form.
    pub(super) fn framed(&self) -> Option<Range<usize>> {
        (self.head > 0).then(|| (self.start - u32::from(self.head)) as usize..(self.start + self.len) as usize)
    }
}

/// The hash of a `source_id` in every [`Entry`] of this process. Seeded per process: it never leaves it.
pub fn source_hash(source_id: &[u8]) -> u64 {
    static STATE: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);
    STATE.hash_one(source_id)
}

/// Envelopes as they arrived, or as they were built: shared bytes and an index.
///
/// Cloning costs two reference counts. Every clone and every [`super::Selection`] keeps all of the bytes alive.
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    entries: Arc<[Entry]>,
    /// Bytes of all envelopes with their framing.
    wire_len: usize,
}

impl Batch {
    /// Indexes an encoded `EnvelopeBatch` and checks everything in it (first hop). An envelope that fails is left out and counted.
    ///
    /// One allocation per batch. Messages over 4 GiB are refused whole.
    pub fn check(bytes: Bytes, limits: &Limits) -> (Self, Refused) {
        Self::walk::<true>(bytes, limits)
    }

    /// Indexes an encoded `EnvelopeBatch` that a peer has checked already. What is broken all the same is left out and counted.
    pub fn index(bytes: Bytes) -> (Self, Refused) {
        Self::walk::<false>(bytes, &Limits::NONE)
    }

    /// Indexes and checks one encoded `Envelope`: a batch of at most one.
    pub fn check_one(bytes: Bytes, limits: &Limits) -> (Self, Refused) {
        let mut refused = Refused::default();
        let mut entries = Vec::with_capacity(1);
        if u32::try_from(bytes.len()).is_err() {
            refused.count(Reason::Oversize);
        } else {
            match entry::<true>(&bytes, 0, bytes.len(), 0, limits) {
                Ok(entry) => entries.push(entry),
                Err(reason) => refused.count(reason),
            }
        }
        (Self::new(bytes, entries), refused)
    }

    fn new(bytes: impl Into<Bytes>, entries: impl Into<Arc<[Entry]>>) -> Self {
        let entries = entries.into();
        let wire_len = entries.iter().map(|entry| bytes_len(entry.size())).sum();
        Self { bytes: bytes.into(), entries, wire_len }
    }

    /// Envelopes that were written with this index, each framed as field 1 in the shortest form.
    pub(super) fn built(bytes: Vec<u8>, entries: Vec<Entry>) -> Self {
        Self::new(bytes, entries)
    }

    /// Messages that are no v2 envelopes, each with the kind and the source that it is to be routed by. What encodes this batch writes
    /// them as repeated field 1.
    pub(crate) fn keyed<'a>(messages: impl Iterator<Item = (&'a [u8], Kind, &'a [u8])> + Clone) -> Self {
        let sizes = messages.clone().map(|(message, _, source)| bytes_len(message.len()) + source.len());
        let mut bytes = Vec::with_capacity(sizes.sum());
        let mut entries = Vec::with_capacity(messages.size_hint().0);
        for (message, kind, source) in messages.clone() {
            put_bytes(&mut bytes, 1, message);
            entries.push(Entry {
                start: (bytes.len() - message.len()) as u32,
                len: message.len() as u32,
                source_at: 0,
                // Without an instance, wherever the envelope goes.
                instance_at: (bytes.len() - message.len()) as u32,
                source_len: source.len() as u16,
                instance_len: 0,
                head: (1 + varint_len(message.len() as u64)) as u8,
                kind,
                timestamp: 0,
                source: source_hash(source),
            });
        }
        // The sources stand behind all messages, where no encoding looks; neighbours with the same one share it.
        let mut last: Option<(u32, &[u8])> = None;
        for (entry, (.., source)) in entries.iter_mut().zip(messages) {
            let at = match last {
                Some((at, same)) if same == source => at,
                _ => bytes.len() as u32,
            };
            if at as usize == bytes.len() {
                bytes.extend_from_slice(source);
            }
            entry.source_at = at;
            last = Some((at, source));
        }
        Self::new(bytes, entries)
    }

    /// Some envelopes of this batch, copied into one of their own. Its index is moved along, not made anew.
    pub(super) fn copy_of<'a>(&self, entries: impl ExactSizeIterator<Item = &'a Entry> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(entries.clone().map(|entry| bytes_len(entry.size())).sum());
        let copied = entries.clone().map(|entry| {
            put_bytes(&mut bytes, 1, self.envelope(entry));
            entry.moved_to(bytes.len() - entry.size())
        });
        let mut copied: Arc<[Entry]> = copied.collect();
        if entries.clone().any(|entry| !entry.holds_its_source()) {
            let copied = Arc::get_mut(&mut copied).expect("nobody else has it yet");
            for (entry, original) in copied.iter_mut().zip(entries) {
                let source = self.source_id(original);
                (entry.source_at, entry.source_len) = (bytes.len() as u32, source.len() as u16);
                bytes.extend_from_slice(source);
            }
        }
        Self::new(bytes, copied)
    }

    fn walk<const CHECK: bool>(bytes: Bytes, limits: &Limits) -> (Self, Refused) {
        let mut refused = Refused::default();
        let mut entries = Vec::new();
        if u32::try_from(bytes.len()).is_err() {
            refused.count(Reason::Oversize);
            return (Self::new(bytes, entries), refused);
        }
        // Most envelopes are some hundred bytes; most batches hold a hundred.
        entries.reserve((bytes.len() / 128).min(128));
        let mut fields = Fields::new(&bytes);
        while !fields.is_done() {
            let begin = fields.position();
            let Ok(envelope) = next_envelope(&mut fields) else {
                refused.count(Reason::DecodeError);
                break;
            };
            let Some(len) = envelope else { continue };
            if entries.len() >= limits.envelopes {
                refused.count(Reason::TooMany);
                continue;
            }
            let end = fields.position();
            let start = end - len;
            let head = if start - begin == 1 + varint_len(len as u64) { start - begin } else { 0 };
            match entry::<CHECK>(&bytes, start, len, head as u8, limits) {
                Ok(entry) => entries.push(entry),
                Err(reason) => refused.count(reason),
            }
        }
        (Self::new(bytes, entries), refused)
    }

    /// Number of envelopes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when it holds no envelope.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index, in order of arrival.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The encoded envelope of `entry`, which must be this batch's.
    pub fn envelope(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.range()]
    }

    /// The encoded envelope of `entry` as shared bytes: keeps the whole batch alive.
    pub fn envelope_bytes(&self, entry: &Entry) -> Bytes {
        self.bytes.slice(entry.range())
    }

    /// The `source_id` of `entry`, which must be this batch's. UTF-8 if the batch was checked.
    pub fn source_id(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.source_at as usize..entry.source_at as usize + usize::from(entry.source_len)]
    }

    /// The `instance_id` of `entry`, which must be this batch's. UTF-8 if the batch was checked.
    pub fn instance_id(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.instance_at as usize..entry.instance_at as usize + usize::from(entry.instance_len)]
    }

    /// Bytes that this batch keeps alive, its index included.
    pub fn held(&self) -> usize {
        self.bytes.len() + size_of_val::<[Entry]>(&self.entries)
    }

    /// Bytes of all its envelopes as an encoded `EnvelopeBatch`.
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The length of the next envelope of a batch, or `None` for a field that is not field 1.
#[inline]
fn next_envelope(fields: &mut Fields<'_>) -> Result<Option<usize>, super::Malformed> {
    let (number, wire_type) = fields.key()?;
    if number != 1 {
        fields.skip(number, wire_type)?;
        return Ok(None);
    }
    if wire_type != WireType::Len {
        return Err(super::Malformed("known field with another wire type"));
    }
    Ok(Some(fields.bytes()?.len()))
}

#[inline]
fn entry<const CHECK: bool>(
    bytes: &[u8],
    start: usize,
    len: usize,
    head: u8,
    limits: &Limits,
) -> Result<Entry, Reason> {
    if len > limits.envelope_bytes {
        return Err(Reason::Oversize);
    }
    let envelope = &bytes[start..start + len];
    let found = walk::envelope::<CHECK>(envelope, limits)?;
    let (source_at, source_len) = found.source_id;
    let (instance_at, instance_len) = found.instance_id;
    let source = source_hash(&envelope[source_at as usize..(source_at + source_len) as usize]);
    Ok(Entry {
        start: start as u32,
        len: len as u32,
        source_at: start as u32 + source_at,
        instance_at: start as u32 + instance_at,
        source_len: source_len as u16,
        instance_len: instance_len as u16,
        head,
        kind: found.kind,
        timestamp: found.timestamp,
        source,
    })
}
