//! The JSON form of envelopes on HTTP and terminals: proto3 JSON with every field there (contract: loggregator v2 §3, log-cache §2).
//!
//! Decoded or encoded envelopes enter, JSON without white space leaves. 64-bit integers are strings, payloads are base64, maps are
//! sorted by key, a oneof without a member has no key. It never fails on an envelope that decodes, and never escapes more than JSON
//! asks for. A line feed never stands in it, so that one value is one line.
//!
//! [`Json`] and [`JsonBatch`] fit into any serde structure; write it with [`to_vec`] or [`to_writer`], which spell numbers as the
//! contract does (`1e+21`, `5e-324`, `1`).

use std::collections::HashMap;
use std::fmt::Display;
use std::io;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::ser::{Serialize, SerializeMap, Serializer};
use smallvec::SmallVec;

use crate::v2;
use crate::v2::envelope::Message;
use crate::v2::value::Data;

mod transcode;

/// An envelope as a JSON object.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a v2::Envelope);

/// Envelopes as `{"batch":[…]}`.
#[derive(Clone, Copy, Debug)]
pub struct JsonBatch<'a>(pub &'a [v2::Envelope]);

/// Writes `value` as JSON, numbers spelled as the contract does.
///
/// # Errors
/// Those of `writer`, and a `value` that JSON cannot express; [`Json`] and [`JsonBatch`] are none.
pub fn to_writer(writer: impl io::Write, value: &(impl Serialize + ?Sized)) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(writer, Spelling))
}

/// [`to_writer`] into memory.
///
/// # Errors
/// A `value` that JSON cannot express.
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    to_writer(&mut out, value)?;
    Ok(out)
}

/// The JSON object of one encoded envelope.
///
/// # Errors
/// Bytes that are no envelope. What has passed the walker is one.
pub fn envelope_json(encoded: &[u8]) -> Result<String, prost::DecodeError> {
    let mut out = Vec::with_capacity(256 + encoded.len() * 2);
    put_envelope(&mut out, encoded)?;
    Ok(String::from_utf8(out).expect("JSON of strings is UTF-8"))
}

/// Appends the JSON object of one encoded envelope. A log without deprecated tags is not decoded for it.
///
/// # Errors
/// Bytes that are no envelope; nothing is appended then.
pub fn put_envelope(into: &mut Vec<u8>, encoded: &[u8]) -> Result<(), prost::DecodeError> {
    if transcode::put_log(into, encoded) {
        return Ok(());
    }
    let envelope = v2::Envelope::decode(encoded)?;
    to_writer(into, &Json(&envelope)).expect("an envelope has a JSON form, and memory takes all");
    Ok(())
}

/// Appends encoded envelopes as `{"batch":[…]}`, the body of one server-sent event. Gives the number that did not decode and were
/// left out (`decode_error`): 0 for what has passed the walker.
pub fn put_batch<'a>(into: &mut Vec<u8>, envelopes: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut refused = 0;
    into.extend_from_slice(br#"{"batch":["#);
    let first = into.len();
    for envelope in envelopes {
        let before = into.len();
        if before > first {
            into.push(b',');
        }
        if put_envelope(into, envelope).is_err() {
            into.truncate(before);
            refused += 1;
        }
    }
    into.extend_from_slice(b"]}");
    refused
}

/// [`put_batch`] as `{"envelopes":{"batch":[…]}}`, the body of a log-cache read.
pub fn put_read<'a>(into: &mut Vec<u8>, envelopes: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    into.extend_from_slice(br#"{"envelopes":"#);
    let refused = put_batch(into, envelopes);
    into.push(b'}');
    refused
}

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let envelope = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &Text(envelope.timestamp))?;
        map.serialize_entry("source_id", &envelope.source_id)?;
        map.serialize_entry("instance_id", &envelope.instance_id)?;
        map.serialize_entry("deprecated_tags", &View(&envelope.deprecated_tags))?;
        map.serialize_entry("tags", &View(&envelope.tags))?;
        match &envelope.message {
            None => {}
            Some(Message::Log(log)) => map.serialize_entry("log", &View(log))?,
            Some(Message::Counter(counter)) => map.serialize_entry("counter", &View(counter))?,
            Some(Message::Gauge(gauge)) => map.serialize_entry("gauge", &View(gauge))?,
            Some(Message::Timer(timer)) => map.serialize_entry("timer", &View(timer))?,
            Some(Message::Event(event)) => map.serialize_entry("event", &View(event))?,
        }
        map.end()
    }
}

impl Serialize for JsonBatch<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct List<'a>(&'a [v2::Envelope]);

        impl Serialize for List<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(Json))
            }
        }

        serializer.collect_map([("batch", List(self.0))])
    }
}

/// A part of an envelope, with the form it has in JSON.
struct View<'a, T>(&'a T);

impl Serialize for View<'_, v2::Log> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("payload", &Text(Base64Display::new(&self.0.payload, &STANDARD)))?;
        match v2::log::Type::try_from(self.0.r#type) {
            Ok(known) => map.serialize_entry("type", known.as_str_name())?,
            Err(_) => map.serialize_entry("type", &self.0.r#type)?,
        }
        map.end()
    }
}

impl Serialize for View<'_, v2::Counter> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("name", &self.0.name)?;
        map.serialize_entry("delta", &Text(self.0.delta))?;
        map.serialize_entry("total", &Text(self.0.total))?;
        map.end()
    }
}

impl Serialize for View<'_, v2::Gauge> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("metrics", View(&self.0.metrics))])
    }
}

impl Serialize for View<'_, v2::GaugeValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("unit", &self.0.unit)?;
        map.serialize_entry("value", &View(&self.0.value))?;
        map.end()
    }
}

impl Serialize for View<'_, v2::Timer> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("name", &self.0.name)?;
        map.serialize_entry("start", &Text(self.0.start))?;
        map.serialize_entry("stop", &Text(self.0.stop))?;
        map.end()
    }
}

impl Serialize for View<'_, v2::Event> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("title", &self.0.title), ("body", &self.0.body)])
    }
}

impl Serialize for View<'_, v2::Value> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.data {
            None => {}
            Some(Data::Text(text)) => map.serialize_entry("text", text)?,
            Some(Data::Integer(integer)) => map.serialize_entry("integer", &Text(integer))?,
            Some(Data::Decimal(decimal)) => map.serialize_entry("decimal", &View(decimal))?,
        }
        map.end()
    }
}

impl Serialize for View<'_, String> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl Serialize for View<'_, f64> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self.0 {
            value if value.is_finite() => serializer.serialize_f64(value),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }
}

/// A map, sorted by the bytes of its keys.
impl<V> Serialize for View<'_, HashMap<String, V>>
where
    for<'v> View<'v, V>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries: SmallVec<[(&String, &V); 16]> = self.0.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        serializer.collect_map(entries.into_iter().map(|(key, value)| (key, View(value))))
    }
}

/// What is a JSON string by its text.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Spells doubles as the contract does: the shortest digits that read back, no fraction where there is none, an exponent below 1e-6
/// and from 1e21 on.
struct Spelling;

impl serde_json::ser::Formatter for Spelling {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 || (1e-6..1e21).contains(&value.abs()) {
            return write!(writer, "{value}");
        }
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(writer, "{digits}e+{exponent}"),
            _ => writer.write_all(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_spelled_as_the_contract_does() {
        for (value, spelled) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (81.5, "81.5"),
            (-2.25, "-2.25"),
            (1.0 / 3.0, "0.3333333333333333"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e22, "-1.5e+22"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-2.5e-9, "-2.5e-9"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::from_bits(1), "5e-324"),
            (f64::NAN, r#""NaN""#),
            (f64::INFINITY, r#""Infinity""#),
            (f64::NEG_INFINITY, r#""-Infinity""#),
        ] {
            assert_eq!(to_vec(&View(&value)).unwrap(), spelled.as_bytes());
        }
    }

    #[test]
    fn an_envelope_that_does_not_decode_is_left_out_wherever_it_stands() {
        let good = v2::Envelope::event("a", "t", "b").encode_to_vec();
        let json = envelope_json(&good).unwrap();
        let bad: &[u8] = b"\x0a\xff";
        for (envelopes, refused, good_ones) in
            [(vec![], 0, 0), (vec![bad], 1, 0), (vec![bad, &good, &good], 1, 2), (vec![&good, bad, &good, bad], 2, 2)]
        {
            let mut out = Vec::new();
            assert_eq!(put_read(&mut out, envelopes), refused);
            let batch = vec![json.as_str(); good_ones].join(",");
            assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{{"envelopes":{{"batch":[{batch}]}}}}"#));
        }
    }

    #[test]
    fn both_batch_forms_are_the_same() {
        let envelopes =
            [v2::Envelope::log("a", "x").at(-5).tag("z", "1").tag("é\n\"", "\u{7}<&>"), v2::Envelope::default()];
        let encoded = envelopes.each_ref().map(v2::Envelope::encode_to_vec);
        let mut out = Vec::new();
        assert_eq!(put_batch(&mut out, encoded.iter().map(Vec::as_slice)), 0);
        assert_eq!(out, to_vec(&JsonBatch(&envelopes)).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"batch":[{"timestamp":"-5","source_id":"a","instance_id":"","deprecated_tags":{},"#,
                r#""tags":{"z":"1","é\n\"":"\u0007<&>"},"log":{"payload":"eA==","type":"OUT"}},"#,
                r#"{"timestamp":"0","source_id":"","instance_id":"","deprecated_tags":{},"tags":{}}]}"#,
            )
        );
    }
}
