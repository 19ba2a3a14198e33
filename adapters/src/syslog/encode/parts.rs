//! What a line is made of, read from an encoded envelope without decoding it.

use prost::Message;
use proto::raw::wire::{Fields, Malformed, WireType};
use proto::raw::{Kind, tags};
use proto::v2;
use smallvec::SmallVec;

use super::Unencodable;

/// An envelope in parts. Text is not checked to be UTF-8.
#[derive(Debug)]
pub struct Parts<'a> {
    pub(super) timestamp: i64,
    pub(super) source_id: &'a [u8],
    pub(super) instance_id: &'a [u8],
    /// The kind of the message, and its bytes.
    pub(super) message: Option<(Kind, &'a [u8])>,
    /// The map entries of the tags, as they came.
    pub(super) entries: SmallVec<[&'a [u8]; 16]>,
}

pub(super) type Tags<'a> = SmallVec<[Tag<'a>; 16]>;

/// A tag.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag<'a> {
    /// The first eight bytes of the key, so that most comparisons are those of numbers.
    order: u64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The payload and type of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Log<'a> {
    pub(super) payload: &'a [u8],
    pub(super) kind: i32,
}

impl<'a> Parts<'a> {
    /// Reads an envelope as protobuf readers do: the last of several counts. Where a message stands in several pieces, `spare` holds
    /// them in one.
    ///
    /// # Errors
    /// [`Unencodable::Malformed`], as far as it is read.
    pub fn read(envelope: &'a [u8], spare: &'a mut Vec<u8>) -> Result<Self, Unencodable> {
        if let Some(parts) = Self::read_once(envelope).map_err(|_| Unencodable::Malformed)? {
            return Ok(parts);
        }
        let whole = v2::Envelope::decode(envelope).map_err(|_| Unencodable::Malformed)?;
        *spare = whole.encode_to_vec();
        Self::read_once(spare).ok().flatten().ok_or(Unencodable::Malformed)
    }

    /// The same; `None` if a message stands in several pieces.
    fn read_once(envelope: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut parts =
            Self { timestamp: 0, source_id: &[], instance_id: &[], message: None, entries: SmallVec::new() };
        let mut fields = Fields::new(envelope);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Varint) => parts.timestamp = fields.varint()?.cast_signed(),
                (2, WireType::Len) => parts.source_id = fields.bytes()?,
                (8, WireType::Len) => parts.instance_id = fields.bytes()?,
                (9, WireType::Len) => parts.entries.push(fields.bytes()?),
                (number @ (4..=7 | 10), WireType::Len) => {
                    if parts.message.is_some() {
                        return Ok(None);
                    }
                    let kind = match number {
                        4 => Kind::Log,
                        5 => Kind::Counter,
                        6 => Kind::Gauge,
                        7 => Kind::Timer,
                        _ => Kind::Event,
                    };
                    parts.message = Some((kind, fields.bytes()?));
                }
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(Some(parts))
    }

    /// The tags in order of their keys; of several with one key the last.
    pub(super) fn tags(&self) -> Tags<'a> {
        let mut tags: Tags<'a> = self.entries.iter().map(|entry| Tag::read(entry)).collect();
        tags.sort_by(|one, other| one.order.cmp(&other.order).then_with(|| one.key.cmp(other.key)));
        if tags.windows(2).any(|pair| pair[0].key == pair[1].key) {
            let mut last: Tags<'a> = Tags::new();
            for tag in &tags {
                match last.last_mut() {
                    Some(before) if before.key == tag.key => *before = *tag,
                    _ => last.push(*tag),
                }
            }
            tags = last;
        }
        tags
    }

    /// The name of the source.
    pub fn source_id(&self) -> &'a [u8] {
        self.source_id
    }

    /// The payload of a log; empty for everything else.
    pub fn payload(&self) -> &'a [u8] {
        match self.message {
            Some((Kind::Log, bytes)) => Log::read(bytes).unwrap_or_default().payload,
            _ => &[],
        }
    }
}

/// A tag by its key.
pub(super) fn find<'a, 'b>(tags: &'b [Tag<'a>], key: &str) -> Option<&'b Tag<'a>> {
    tags.iter().find(|tag| tag.key == key.as_bytes())
}

impl<'a> Tag<'a> {
    fn read(entry: &'a [u8]) -> Self {
        let (key, value) = tags::entry(entry);
        let mut first = [0; 8];
        match key.first_chunk() {
            Some(whole) => first = *whole,
            None => first[..key.len()].copy_from_slice(key),
        }
        Self { order: u64::from_be_bytes(first), key, value }
    }
}

impl<'a> Log<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut log = Self::default();
        let mut fields = Fields::new(bytes);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => log.payload = fields.bytes()?,
                (2, WireType::Varint) => log.kind = fields.varint()? as i32,
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(log)
    }
}
