//! The walker: one pass over the fields of an envelope, for what routing needs.

use super::batch::Kind;
use super::check;
use super::limits::Limits;
use super::wire::{Fields, Malformed, WireType};
use crate::reason::Reason;

/// What one pass over an envelope found. Ranges are relative to the envelope.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) timestamp: i64,
    pub(super) source_id: (u32, u32),
    pub(super) instance_id: (u32, u32),
    pub(super) kind: Kind,
}

impl From<Malformed> for Reason {
    fn from(_: Malformed) -> Self {
        Self::DecodeError
    }
}

/// Walks one envelope. With `CHECK`, also everything inside it: lengths, UTF-8, limits.
#[inline]
pub(super) fn envelope<const CHECK: bool>(bytes: &[u8], limits: &Limits) -> Result<Found, Reason> {
    let mut found = Found::default();
    let mut tags = 0;
    let mut fields = Fields::new(bytes);
    while !fields.is_done() {
        let (number, wire_type) = fields.key()?;
        match number {
            2 | 8 => {
                let text = text_field::<CHECK>(&mut fields, wire_type)?;
                let limit = if number == 2 { limits.source_id_bytes } else { limits.tag_bytes };
                if text.len() > limit.min(usize::from(u16::MAX)) {
                    return Err(Reason::Oversize);
                }
                let range = ((fields.position() - text.len()) as u32, text.len() as u32);
                if number == 2 {
                    found.source_id = range;
                } else {
                    found.instance_id = range;
                }
            }
            3 | 9 => {
                let entry = len_field(&mut fields, wire_type)?;
                if CHECK {
                    tags += 1;
                    if tags > limits.tags {
                        return Err(Reason::TooMany);
                    }
                    if entry.len() > limits.tag_bytes {
                        return Err(Reason::Oversize);
                    }
                    if number == 9 { check::tag(entry)? } else { check::deprecated_tag(entry)? }
                }
            }
            1 => {
                if wire_type != WireType::Varint {
                    return Err(Reason::DecodeError);
                }
                found.timestamp = fields.varint()?.cast_signed();
            }
            4..=7 | 10 => {
                let message = len_field(&mut fields, wire_type)?;
                found.kind = Kind::from_field(number);
                if CHECK {
                    check::message(found.kind, message)?;
                }
            }
            _ => fields.skip(number, wire_type)?,
        }
    }
    Ok(found)
}

#[inline]
fn len_field<'a>(fields: &mut Fields<'a>, wire_type: WireType) -> Result<&'a [u8], Malformed> {
    if wire_type != WireType::Len {
        return Err(Malformed("known field with another wire type"));
    }
    fields.bytes()
}

#[inline]
fn text_field<'a, const CHECK: bool>(fields: &mut Fields<'a>, wire_type: WireType) -> Result<&'a [u8], Malformed> {
    let bytes = len_field(fields, wire_type)?;
    if CHECK {
        check::text(bytes)?;
    }
    Ok(bytes)
}
