//! Tags of encoded envelopes: reading them, and the transcoder between `tags` and `deprecated_tags` that `use_preferred_tags` asks
//! for (contract: loggregator v2 §7.3), byte to byte.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::edit;
use super::names::each_field;
use super::selection::Selection;
use super::wire::{self, Fields, WireType};
use super::{Batch, Entry};
use crate::decimal;

/// The value of a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A tag, or a deprecated tag with text.
    Text(&'a [u8]),
    /// A deprecated tag with an integer.
    Integer(i64),
    /// A deprecated tag with a double.
    Decimal(f64),
    /// A deprecated tag without a value.
    Unset,
}

impl<'a> Value<'a> {
    /// The value as text; `decimal` writes the doubles. Nothing for [`Value::Unset`].
    pub fn text(self, decimal: fn(f64) -> String) -> Option<Cow<'a, [u8]>> {
        match self {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Integer(integer) => Some(Cow::Owned(integer.to_string().into_bytes())),
            Value::Decimal(value) => Some(Cow::Owned(decimal(value).into_bytes())),
            Value::Unset => None,
        }
    }
}

/// One entry of `tags` or `deprecated_tags`, as it stands on the wire: a later entry of the same map and key replaces it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tag<'a> {
    /// From `deprecated_tags`.
    pub deprecated: bool,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: Value<'a>,
}

/// Calls `visit` with every tag entry of an envelope that has passed the walker, in wire order.
pub fn each<'a>(envelope: &'a [u8], mut visit: impl FnMut(Tag<'a>)) {
    each_field(envelope, |number, entry| {
        if number != 3 && number != 9 {
            return;
        }
        visit(read(number == 3, entry));
    });
}

/// The key and value of a `tags` entry.
#[inline]
pub fn entry(entry: &[u8]) -> (&[u8], &[u8]) {
    let Tag { key, value, .. } = read(false, entry);
    let Value::Text(value) = value else { return (key, &[]) };
    (key, value)
}

/// The entry of one of the two maps.
#[inline]
fn read(deprecated: bool, entry: &[u8]) -> Tag<'_> {
    short(deprecated, entry).unwrap_or_else(|| read_any(deprecated, entry))
}

/// An entry as writers write it, if it is a short one: the key, then a text.
#[inline]
fn short(deprecated: bool, entry: &[u8]) -> Option<Tag<'_>> {
    let (key, value) = short_field(edit::FIRST, entry)?;
    let (value, []) = short_field(edit::SECOND, value)? else { return None };
    if !deprecated {
        return Some(Tag { deprecated, key, value: Value::Text(value) });
    }
    let (text, []) = short_field(edit::FIRST, value)? else { return None };
    Some(Tag { deprecated, key, value: Value::Text(text) })
}

/// The bytes of the first field, which has this key and a length of one byte, and what follows it.
#[inline]
fn short_field(field_key: u8, message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, len], rest) = message.split_first_chunk()?;
    if first != field_key || len >= 0x80 {
        return None;
    }
    rest.split_at_checked(len.into())
}

fn read_any(deprecated: bool, entry: &[u8]) -> Tag<'_> {
    let mut tag = Tag { deprecated, key: &[], value: if deprecated { Value::Unset } else { Value::Text(&[]) } };
    each_field(entry, |number, bytes| match number {
        1 => tag.key = bytes,
        2 if deprecated => value(bytes, &mut tag.value),
        2 => tag.value = Value::Text(bytes),
        _ => {}
    });
    tag
}

/// The tags of an envelope that has passed the walker as one map: a deprecated tag hides a tag of its key (`agents.md` §1.2), the
/// last entry of a key wins within each map. For edges that look up a tag or two; O(tags) each.
pub fn get<'a>(envelope: &'a [u8], key: &[u8]) -> Option<Value<'a>> {
    let (mut plain, mut deprecated) = (None, None);
    each(envelope, |tag| {
        if tag.key == key {
            *if tag.deprecated { &mut deprecated } else { &mut plain } = Some(tag.value);
        }
    });
    deprecated.or(plain)
}

fn value<'a>(bytes: &'a [u8], value: &mut Value<'a>) {
    let mut fields = Fields::new(bytes);
    while !fields.is_done() {
        let Ok((number, wire_type)) = fields.key() else { return };
        match (number, wire_type) {
            (1, WireType::Len) => {
                let Ok(text) = fields.bytes() else { return };
                *value = Value::Text(text);
            }
            (2, WireType::Varint) => {
                let Ok(integer) = fields.varint() else { return };
                *value = Value::Integer(integer.cast_signed());
            }
            (3, WireType::Fixed64) => {
                let Ok(bits) = fields.fixed(8) else { return };
                *value = Value::Decimal(f64::from_le_bytes(bits.try_into().expect("fixed(8) gives eight bytes")));
            }
            _ => {
                if fields.skip(number, wire_type).is_err() {
                    return;
                }
            }
        }
    }
}

/// Which of the two maps a consumer wants its tags in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// All in `tags`, as text (`use_preferred_tags` true).
    Preferred,
    /// All in `deprecated_tags`, texts typed as text (`use_preferred_tags` false).
    Deprecated,
}

impl Form {
    /// The map that must be empty in this form.
    fn empties(self) -> u32 {
        match self {
            Form::Preferred => 3,
            Form::Deprecated => 9,
        }
    }

    /// True when `envelope` has this form already.
    pub fn fits(self, envelope: &[u8]) -> bool {
        let mut fits = true;
        each_field(envelope, |number, _| fits &= number != self.empties());
        fits
    }

    /// Appends `envelope`, which has passed the walker, in this form. Everything but the two maps stays as it is.
    pub fn put(self, into: &mut Vec<u8>, envelope: &[u8]) {
        let mut plan = Plan::default();
        plan.make(self, envelope);
        plan.put(self, into, envelope);
    }

    /// The selection in this form: itself when nothing changes, else a batch of its own.
    pub fn convert(self, selection: &Selection) -> Selection {
        let batch: &Batch = selection.batch();
        let fits = |entry: &Entry| self.fits(batch.envelope(entry));
        if selection.entries().all(fits) {
            return selection.clone();
        }
        let mut out = Vec::with_capacity(selection.wire_len() * 5 / 4);
        let mut entries = Vec::with_capacity(selection.len());
        let mut plan = Plan::default();
        for entry in selection.entries() {
            let envelope = batch.envelope(entry);
            plan.make(self, envelope);
            wire::put_varint(&mut out, 1 << 3 | WireType::Len as u64);
            wire::put_varint(&mut out, plan.len as u64);
            entries.push(entry.rewritten(out.len(), plan.len, &plan.kept));
            plan.put(self, &mut out, envelope);
        }
        Selection::from(Batch::built(out, entries))
    }
}

/// An envelope in another form: which bytes of it stay, and the tags that follow them.
#[derive(Default)]
struct Plan<'a> {
    kept: SmallVec<[Range<usize>; 4]>,
    tags: SmallVec<[Written<'a>; 16]>,
    /// Bytes in all.
    len: usize,
}

/// A key and the text that stands with it.
type Written<'a> = (&'a [u8], Cow<'a, [u8]>);

impl<'a> Plan<'a> {
    /// For `envelope` in `form`, in one pass.
    fn make(&mut self, form: Form, envelope: &'a [u8]) {
        self.kept.clear();
        self.tags.clear();
        let mut fields = Fields::new(envelope);
        let mut run = 0;
        while !fields.is_done() {
            let begin = fields.position();
            let Ok((number, wire_type)) = fields.key() else { break };
            if number != form.empties() {
                if fields.skip(number, wire_type).is_err() {
                    break;
                }
                continue;
            }
            match wire_type {
                WireType::Len => match fields.bytes() {
                    Ok(entry) => self.tag(form, entry),
                    Err(_) => break,
                },
                _ if fields.skip(number, wire_type).is_err() => break,
                _ => {}
            }
            if run < begin {
                self.kept.push(run..begin);
            }
            run = fields.position();
        }
        self.kept.push(run..fields.position());
        let kept: usize = self.kept.iter().map(ExactSizeIterator::len).sum();
        let size = match form {
            Form::Preferred => edit::tag_len,
            Form::Deprecated => edit::deprecated_tag_len,
        };
        self.len = kept + self.tags.iter().map(|(key, text)| size(key, text)).sum::<usize>();
    }

    /// Takes an entry of the map that is emptied.
    fn tag(&mut self, form: Form, entry: &'a [u8]) {
        let deprecated = form == Form::Preferred;
        let Tag { key, value, .. } = read(deprecated, entry);
        match value.text(|value| decimal::general(value, decimal::TAG_EXPONENT)) {
            // A later entry of the same key replaces this one, in this map as in the other.
            Some(text) => self.tags.push((key, text)),
            // Even one without a value.
            None => self.tags.retain(|(other, _)| *other != key),
        }
    }

    fn put(&self, form: Form, into: &mut Vec<u8>, envelope: &[u8]) {
        self.kept.iter().for_each(|kept| into.extend_from_slice(&envelope[kept.clone()]));
        for (key, text) in &self.tags {
            match form {
                Form::Preferred => edit::put_tag(into, key, text),
                Form::Deprecated => edit::put_deprecated_tag(into, key, text),
            }
        }
    }
}
