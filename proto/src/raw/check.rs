//! The first hop's checks: everything inside an envelope is well-formed and its text is UTF-8, so that no later reader fails on it.

use super::batch::Kind;
use super::wire::{Fields, Malformed, WireType};

/// Text is UTF-8. Most is ASCII, which is decided eight bytes at a time.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_ascii() || std::str::from_utf8(bytes).is_ok() { Ok(()) } else { Err(Malformed("text is not UTF-8")) }
}

/// A `tags` entry: two strings.
#[inline]
pub(super) fn tag(entry: &[u8]) -> Result<(), Malformed> {
    // The shape every encoder writes: 0x0a, key, 0x12, value, all lengths in one byte, nothing else. If the whole entry is ASCII,
    // then so is its text.
    if let [0x0a, key_len, rest @ ..] = entry
        && *key_len < 0x80
        && let Some([0x12, value_len, value @ ..]) = rest.get(usize::from(*key_len)..)
        && usize::from(*value_len) == value.len()
        && entry.is_ascii()
    {
        return Ok(());
    }
    any_tag(entry)
}

fn any_tag(entry: &[u8]) -> Result<(), Malformed> {
    each(entry, |number, wire_type, fields| match number {
        1 | 2 => string(wire_type, fields),
        _ => fields.skip(number, wire_type),
    })
}

/// A `deprecated_tags` entry: a string and a `Value`.
pub(super) fn deprecated_tag(entry: &[u8]) -> Result<(), Malformed> {
    each(entry, |number, wire_type, fields| match number {
        1 => string(wire_type, fields),
        2 => each(sub_message(wire_type, fields)?, |number, wire_type, fields| match number {
            1 => string(wire_type, fields),
            2 => varint(wire_type, fields),
            3 => fixed64(wire_type, fields),
            _ => fields.skip(number, wire_type),
        }),
        _ => fields.skip(number, wire_type),
    })
}

/// The oneof member of an envelope.
pub(super) fn message(kind: Kind, bytes: &[u8]) -> Result<(), Malformed> {
    match kind {
        Kind::Log => each(bytes, |number, wire_type, fields| match number {
            1 => sub_message(wire_type, fields).map(drop),
            2 => varint(wire_type, fields),
            _ => fields.skip(number, wire_type),
        }),
        Kind::Counter | Kind::Timer => each(bytes, |number, wire_type, fields| match number {
            1 => string(wire_type, fields),
            2 | 3 => varint(wire_type, fields),
            _ => fields.skip(number, wire_type),
        }),
        Kind::Gauge => each(bytes, |number, wire_type, fields| match number {
            1 => metric(sub_message(wire_type, fields)?),
            _ => fields.skip(number, wire_type),
        }),
        Kind::Event => each(bytes, |number, wire_type, fields| match number {
            1 | 2 => string(wire_type, fields),
            _ => fields.skip(number, wire_type),
        }),
        Kind::None => Ok(()),
    }
}

/// A `metrics` entry of a gauge: a string and a `GaugeValue`.
fn metric(entry: &[u8]) -> Result<(), Malformed> {
    each(entry, |number, wire_type, fields| match number {
        1 => string(wire_type, fields),
        2 => each(sub_message(wire_type, fields)?, |number, wire_type, fields| match number {
            1 => string(wire_type, fields),
            2 => fixed64(wire_type, fields),
            _ => fields.skip(number, wire_type),
        }),
        _ => fields.skip(number, wire_type),
    })
}

#[inline]
fn each<'a>(
    message: &'a [u8],
    mut field: impl FnMut(u32, WireType, &mut Fields<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut fields = Fields::new(message);
    while !fields.is_done() {
        let (number, wire_type) = fields.key()?;
        field(number, wire_type, &mut fields)?;
    }
    Ok(())
}

fn string(wire_type: WireType, fields: &mut Fields<'_>) -> Result<(), Malformed> {
    text(sub_message(wire_type, fields)?)
}

fn sub_message<'a>(wire_type: WireType, fields: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    expect(wire_type, WireType::Len)?;
    fields.bytes()
}

fn varint(wire_type: WireType, fields: &mut Fields<'_>) -> Result<(), Malformed> {
    expect(wire_type, WireType::Varint)?;
    fields.varint().map(drop)
}

fn fixed64(wire_type: WireType, fields: &mut Fields<'_>) -> Result<(), Malformed> {
    expect(wire_type, WireType::Fixed64)?;
    fields.fixed(8).map(drop)
}

fn expect(found: WireType, wanted: WireType) -> Result<(), Malformed> {
    if found == wanted { Ok(()) } else { Err(Malformed("known field with another wire type")) }
}
