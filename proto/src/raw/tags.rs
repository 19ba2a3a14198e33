//! Tags of encoded envelopes: reading them, and the transcoder between `tags` and `deprecated_tags` that `use_preferred_tags` asks
//! for (contract: loggregator v2 §7.3), byte to byte.

use std::borrow::Cow;

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
        let deprecated = number == 3;
        let mut tag = Tag { deprecated, key: &[], value: if deprecated { Value::Unset } else { Value::Text(&[]) } };
        each_field(entry, |number, bytes| match number {
            1 => tag.key = bytes,
            2 if deprecated => value(bytes, &mut tag.value),
            2 => tag.value = Value::Text(bytes),
            _ => {}
        });
        visit(tag);
    });
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
        edit::without(envelope, |number| number == self.empties(), |bytes| into.extend_from_slice(bytes));
        match self {
            Form::Preferred => {
                let mut tags: SmallVec<[Tag<'_>; 16]> = SmallVec::new();
                each(envelope, |tag| {
                    if tag.deprecated {
                        tags.push(tag);
                    }
                });
                for (i, tag) in tags.iter().enumerate() {
                    // A later entry of the same key replaces this one, even one without a value.
                    let replaced = tags[i + 1..].iter().any(|later| later.key == tag.key);
                    if let Some(text) = tag.value.text(|value| decimal::general(value, decimal::TAG_EXPONENT))
                        && !replaced
                    {
                        edit::put_tag(into, tag.key, &text);
                    }
                }
            }
            Form::Deprecated => each(envelope, |tag| {
                if let (false, Value::Text(text)) = (tag.deprecated, tag.value) {
                    edit::put_deprecated_tag(into, tag.key, text);
                }
            }),
        }
    }

    /// The selection in this form: itself when nothing changes, else a batch of its own.
    pub fn convert(self, selection: &Selection) -> Selection {
        let batch: &Batch = selection.batch();
        let fits = |entry: &Entry| self.fits(batch.envelope(entry));
        if selection.entries().all(fits) {
            return selection.clone();
        }
        let mut out = Vec::with_capacity(selection.wire_len() * 5 / 4);
        let mut envelope = Vec::new();
        for entry in selection.entries() {
            envelope.clear();
            self.put(&mut envelope, batch.envelope(entry));
            wire::put_bytes(&mut out, 1, &envelope);
        }
        Selection::from(Batch::index(out.into()).0)
    }
}
