//! The fields of OTLP's messages on the wire: `opentelemetry/proto/*/v1`, as published with version 1.
//!
//! Values enter, bytes are appended; nothing is kept. Text that is not UTF-8 leaves with U+FFFD in its place, as readers refuse it.

use proto::raw::wire::{WireType, bytes_len, put_bytes, put_varint, varint_len};

/// `AnyValue.string_value`, and that of a list of pairs.
const STRING: u32 = 1;
const LIST: u32 = 6;

/// Appends a `fixed64`, an `sfixed64` or the bits of a `double`.
pub(super) fn put_fixed64(into: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(into, u64::from(number) << 3 | WireType::Fixed64 as u64);
    into.extend_from_slice(&value.to_le_bytes());
}

/// Appends a varint.
pub(super) fn put_number(into: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(into, u64::from(number) << 3 | WireType::Varint as u64);
    put_varint(into, value);
}

/// Appends the head of a field of `len` bytes, which the caller appends.
pub(super) fn put_head(into: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(into, u64::from(number) << 3 | WireType::Len as u64);
    put_varint(into, len as u64);
}

/// Appends a text.
pub(super) fn put_text(into: &mut Vec<u8>, number: u32, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(_) => put_bytes(into, number, text),
        Err(_) => put_bytes(into, number, String::from_utf8_lossy(text).as_bytes()),
    }
}

/// Appends an `AnyValue` that is a text, as field `number`.
pub(super) fn put_any(into: &mut Vec<u8>, number: u32, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    put_head(into, number, bytes_len(text.len()));
    put_bytes(into, STRING, text.as_bytes());
}

/// Appends an `AnyValue` that is a list of pairs of texts.
pub(super) fn put_list(into: &mut Vec<u8>, number: u32, pairs: &[(&str, &[u8])]) {
    let mut list = Vec::new();
    for (key, value) in pairs {
        put_attribute(&mut list, 1, key.as_bytes(), value);
    }
    put_head(into, number, bytes_len(list.len()));
    put_bytes(into, LIST, &list);
}

/// Appends a `KeyValue` whose value is a text, as field `number`.
pub(super) fn put_attribute(into: &mut Vec<u8>, number: u32, key: &[u8], value: &[u8]) {
    let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
    let any = bytes_len(value.len());
    put_head(into, number, bytes_len(key.len()) + bytes_len(any));
    put_bytes(into, 1, key.as_bytes());
    put_head(into, 2, any);
    put_bytes(into, STRING, value.as_bytes());
}

/// The bytes of a field of `len` bytes, its head with it, whatever its number is below 16.
pub(super) fn field(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}
