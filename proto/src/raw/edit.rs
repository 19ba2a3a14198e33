//! What a hop may add to an encoded envelope: map entries and scalars are appended (the last one wins for every reader), a counter's
//! total is spliced into its sub-message (some readers replace a repeated sub-message instead of merging it).

use bytes::BufMut;

use super::names::member;
use super::wire::{self, Fields, WireType};

/// Keys and texts that together are shorter than this have lengths of one byte wherever they stand.
const SHORT: usize = 120;

/// Appends a `tags` entry.
pub fn put_tag(into: &mut impl BufMut, key: &[u8], value: &[u8]) {
    if key.len() + value.len() < SHORT {
        let (key_len, len) = (key.len() as u8, value.len() as u8);
        into.put_slice(&[TAG, key_len + len + 4, FIRST, key_len]);
        into.put_slice(key);
        into.put_slice(&[SECOND, len]);
        into.put_slice(value);
        return;
    }
    wire::put_varint(into, TAG.into());
    wire::put_varint(into, tag_body(key, value) as u64);
    wire::put_bytes(into, 1, key);
    wire::put_bytes(into, 2, value);
}

/// Bytes that [`put_tag`] appends.
pub(super) fn tag_len(key: &[u8], value: &[u8]) -> usize {
    let bytes = key.len() + value.len();
    if bytes < SHORT { bytes + 6 } else { wire::bytes_len(tag_body(key, value)) }
}

fn tag_body(key: &[u8], value: &[u8]) -> usize {
    wire::bytes_len(key.len()) + wire::bytes_len(value.len())
}

/// Appends a `deprecated_tags` entry with a text value.
pub fn put_deprecated_tag(into: &mut impl BufMut, key: &[u8], text: &[u8]) {
    if key.len() + text.len() < SHORT {
        let (key_len, len) = (key.len() as u8, text.len() as u8);
        into.put_slice(&[DEPRECATED_TAG, key_len + len + 6, FIRST, key_len]);
        into.put_slice(key);
        into.put_slice(&[SECOND, len + 2, FIRST, len]);
        into.put_slice(text);
        return;
    }
    let value = wire::bytes_len(text.len());
    wire::put_varint(into, DEPRECATED_TAG.into());
    wire::put_varint(into, (wire::bytes_len(key.len()) + wire::bytes_len(value)) as u64);
    wire::put_bytes(into, 1, key);
    wire::put_varint(into, SECOND.into());
    wire::put_varint(into, value as u64);
    wire::put_bytes(into, 1, text);
}

/// Bytes that [`put_deprecated_tag`] appends.
pub(super) fn deprecated_tag_len(key: &[u8], text: &[u8]) -> usize {
    let bytes = key.len() + text.len();
    if bytes < SHORT {
        return bytes + 8;
    }
    wire::bytes_len(wire::bytes_len(key.len()) + wire::bytes_len(wire::bytes_len(text.len())))
}

/// Keys of length-delimited fields: the two maps, and what stands in their entries.
const TAG: u8 = 9 << 3 | WireType::Len as u8;
const DEPRECATED_TAG: u8 = 3 << 3 | WireType::Len as u8;
pub(super) const FIRST: u8 = 1 << 3 | WireType::Len as u8;
pub(super) const SECOND: u8 = 2 << 3 | WireType::Len as u8;

/// Appends a `source_id`.
pub fn put_source_id(into: &mut impl BufMut, source_id: &[u8]) {
    wire::put_bytes(into, 2, source_id);
}

/// The delta and total of a counter envelope that has passed the walker; `(0, 0)` if it has none or is no counter.
pub fn counter_values(envelope: &[u8]) -> (u64, u64) {
    let mut values = (0, 0);
    member(envelope, 5, |message| match message {
        None => values = (0, 0),
        Some(message) => {
            let mut fields = Fields::new(message);
            while !fields.is_done() {
                let Ok((number, wire_type)) = fields.key() else { return };
                if wire_type == WireType::Varint {
                    let Ok(value) = fields.varint() else { return };
                    match number {
                        2 => values.0 = value,
                        3 => values.1 = value,
                        _ => {}
                    }
                } else if fields.skip(number, wire_type).is_err() {
                    return;
                }
            }
        }
    });
    values
}

/// Writes a counter envelope that has passed the walker with `total` in place of its own; everything else stays, unknown fields too.
pub fn put_with_total(into: &mut Vec<u8>, envelope: &[u8], total: u64) {
    let mut counter = Vec::with_capacity(64);
    member(envelope, 5, |message| match message {
        None => counter.clear(),
        Some(message) => counter.extend_from_slice(message),
    });
    wire::put_varint(&mut counter, 3 << 3 | WireType::Varint as u64);
    wire::put_varint(&mut counter, total);

    without(envelope, |number| matches!(number, 4..=7 | 10), |bytes| into.extend_from_slice(bytes));
    wire::put_bytes(into, 5, &counter);
}

/// Calls `piece` with every field, key included, whose number `drop` does not name.
pub(super) fn without(envelope: &[u8], drop: impl Fn(u32) -> bool, mut piece: impl FnMut(&[u8])) {
    let mut fields = Fields::new(envelope);
    let mut run = 0;
    while !fields.is_done() {
        let begin = fields.position();
        let Ok((number, wire_type)) = fields.key() else { break };
        if fields.skip(number, wire_type).is_err() {
            break;
        }
        if drop(number) {
            piece(&envelope[run..begin]);
            run = fields.position();
        }
    }
    piece(&envelope[run..fields.position()]);
}
