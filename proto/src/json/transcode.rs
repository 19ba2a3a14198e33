//! The JSON of a log straight from its bytes: what most envelopes on their way to a browser are. Pure.
//!
//! An encoded envelope enters; its JSON leaves, byte for byte what decoding and writing it would give, without an allocation. What is no log
//! with plain tags, or is not well-formed, is left to those who decode.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize as _;
use smallvec::SmallVec;

use super::Spelling;
use crate::raw::wire::{Fields, WireType};

/// A log with its tags, as slices of its bytes.
#[derive(Default)]
struct Plain<'a> {
    timestamp: i64,
    source_id: &'a str,
    instance_id: &'a str,
    tags: SmallVec<[(&'a str, &'a str); 16]>,
    payload: &'a [u8],
    is_err: bool,
}

/// Appends the JSON object of an encoded log. False, and nothing is appended, where it is not so plain.
pub(super) fn put_log(into: &mut Vec<u8>, encoded: &[u8]) -> bool {
    let Some(log) = Plain::read(encoded) else { return false };
    log.put(into);
    true
}

impl<'a> Plain<'a> {
    fn read(encoded: &'a [u8]) -> Option<Self> {
        let mut plain = Self::default();
        let mut logs = 0;
        let mut fields = Fields::new(encoded);
        while !fields.is_done() {
            match fields.key().ok()? {
                (1, WireType::Varint) => plain.timestamp = fields.varint().ok()?.cast_signed(),
                (2, WireType::Len) => plain.source_id = text(&mut fields)?,
                (8, WireType::Len) => plain.instance_id = text(&mut fields)?,
                (9, WireType::Len) => plain.tags.push(entry(fields.bytes().ok()?)?),
                (4, WireType::Len) => {
                    // Two are merged, which others know how to.
                    logs += 1;
                    plain.read_log(fields.bytes().ok()?)?;
                }
                // Known fields of another form, deprecated tags, other messages.
                (1..=10, _) => return None,
                (number, wire_type) => fields.skip(number, wire_type).ok()?,
            }
        }
        plain.sort();
        (logs == 1).then_some(plain)
    }

    fn read_log(&mut self, log: &'a [u8]) -> Option<()> {
        let mut fields = Fields::new(log);
        while !fields.is_done() {
            match fields.key().ok()? {
                (1, WireType::Len) => self.payload = fields.bytes().ok()?,
                (2, WireType::Varint) => {
                    self.is_err = match fields.varint().ok()? {
                        0 => false,
                        1 => true,
                        _ => return None,
                    }
                }
                (1 | 2, _) => return None,
                (number, wire_type) => fields.skip(number, wire_type).ok()?,
            }
        }
        Some(())
    }

    /// By key; of equal ones the last stays.
    fn sort(&mut self) {
        // Stable: equal keys keep their order.
        self.tags.sort_by_key(|(key, _)| *key);
        self.tags.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });
    }

    fn put(&self, into: &mut Vec<u8>) {
        // Memory takes all.
        let _infallible = write!(into, "{{\"timestamp\":\"{}\",\"source_id\":", self.timestamp);
        put_text(into, self.source_id);
        into.extend_from_slice(b",\"instance_id\":");
        put_text(into, self.instance_id);
        into.extend_from_slice(b",\"deprecated_tags\":{},\"tags\":{");
        for (i, (key, value)) in self.tags.iter().enumerate() {
            if i > 0 {
                into.push(b',');
            }
            put_text(into, key);
            into.push(b':');
            put_text(into, value);
        }
        into.extend_from_slice(b"},\"log\":{\"payload\":\"");
        let begin = into.len();
        into.resize(begin + self.payload.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(self.payload, &mut into[begin..]).expect("four digits for each three bytes");
        into.extend_from_slice(if self.is_err { b"\",\"type\":\"ERR\"}}" } else { b"\",\"type\":\"OUT\"}}" });
    }
}

fn text<'a>(fields: &mut Fields<'a>) -> Option<&'a str> {
    std::str::from_utf8(fields.bytes().ok()?).ok()
}

/// The key and the value of a map's entry.
fn entry(bytes: &[u8]) -> Option<(&str, &str)> {
    let (mut key, mut value) = ("", "");
    let mut fields = Fields::new(bytes);
    while !fields.is_done() {
        match fields.key().ok()? {
            (1, WireType::Len) => key = text(&mut fields)?,
            (2, WireType::Len) => value = text(&mut fields)?,
            (1 | 2, _) => return None,
            (number, wire_type) => fields.skip(number, wire_type).ok()?,
        }
    }
    Some((key, value))
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    // Nothing to escape in most of them.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        into.push(b'"');
        into.extend_from_slice(text.as_bytes());
        into.push(b'"');
        return;
    }
    let mut serializer = serde_json::Serializer::with_formatter(into, Spelling);
    text.serialize(&mut serializer).expect("a text has a JSON form, and memory takes all");
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::json::{Json, to_vec};
    use crate::v2;

    /// What decoding and writing gives; `None` for what does not decode.
    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        v2::Envelope::decode(encoded).ok().map(|envelope| to_vec(&Json(&envelope)).unwrap())
    }

    fn straight(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        match put_log(&mut out, encoded) {
            true => Some(out.split_off(6)),
            false => {
                assert_eq!(out, b"before");
                None
            }
        }
    }

    #[test]
    fn a_log_is_written_as_if_it_had_been_decoded() {
        let tags = [("z", "1"), ("a", "\u{7}\"\\\n"), ("é", "ü"), ("a", "again")];
        let logs = [
            v2::Envelope::log("app", "hello").at(-7).instance("2").err(),
            v2::Envelope::log("", vec![0xff, 0, 1, 2]).at(i64::MAX),
            tags.iter().fold(v2::Envelope::log("a\tb", ""), |log, (key, value)| log.tag(*key, *value)),
        ];
        for log in logs {
            let encoded = log.encode_to_vec();
            assert_eq!(straight(&encoded), decoded(&encoded));
            assert!(straight(&encoded).is_some());
        }
        // A key twice on the wire, and fields that nobody knows.
        let mut twice = v2::Envelope::log("a", "x").tag("k", "1").encode_to_vec();
        twice.extend(v2::Envelope::default().tag("k", "2").encode_to_vec());
        twice.extend([0x78, 5]);
        assert_eq!(straight(&twice), decoded(&twice));
        assert!(straight(&twice).is_some());
    }

    #[test]
    fn everything_else_is_left_to_others() {
        let mut deprecated = v2::Envelope::log("a", "x");
        deprecated.deprecated_tags.insert("k".to_owned(), v2::Value { data: None });
        let two =
            [v2::Envelope::log("a", "x").encode_to_vec(), v2::Envelope::log("a", "").err().encode_to_vec()].concat();
        let counter = v2::Envelope::counter("a", "c", 1).encode_to_vec();
        for other in
            [deprecated.encode_to_vec(), two, counter, Vec::new(), b"\x0a\xff".to_vec(), b"\x12\x01\xff".to_vec()]
        {
            assert_eq!(straight(&other), None, "{other:?}");
        }
    }

    proptest::proptest! {
        /// Whatever the bytes, it says what decoding says, or nothing.
        #[test]
        fn never_other_than_decoded(
            timestamp: i64, source in ".{0,8}", instance in ".{0,8}", payload: Vec<u8>, err: bool,
            tags in proptest::collection::vec((".{0,6}", ".{0,6}"), 0..20), junk: Vec<u8>, cut in 0_usize..400,
        ) {
            let mut log = v2::Envelope::log(source, payload).at(timestamp).instance(instance);
            log = tags.into_iter().fold(log, |log, (key, value)| log.tag(key, value));
            let log = if err { log.err() } else { log };
            let whole = log.encode_to_vec();
            proptest::prop_assert_eq!(straight(&whole), decoded(&whole));
            for bytes in [&whole[..cut.min(whole.len())], &[&whole[..], &junk].concat(), &[&junk, &whole[..]].concat(), &junk] {
                if let Some(json) = straight(bytes) {
                    proptest::prop_assert_eq!(Some(json), decoded(bytes));
                }
            }
        }
    }
}
