//! The walker and the decoder against `v2-envelopes.jsonl`: all kinds and corners of an envelope.

use bytes::Bytes;
use hydrant_proto::raw::{Batch, Kind, Limits, Selection};
use hydrant_proto::reason::Reason;
use serde_json::{Map, Value};

use super::vectors::{self, base64, comparable, id};

/// Over the limits of the first hop: refused there, passed on between roles.
const OVER_A_LIMIT: [&str; 2] = ["source-id-300", "tags-huge-value"];

#[test]
fn envelopes_pass_the_walker_and_leave_as_they_came() {
    for vector in vectors::read("v2-envelopes", 69) {
        let id = id(&vector);
        let input = base64(&vector["input"]);
        let framed = Bytes::from(framed(&input));

        let (mut batch, refused) = Batch::check(framed.clone(), &Limits::default());
        if OVER_A_LIMIT.contains(&id) {
            assert_eq!(batch.len(), 0, "{id}");
            assert_eq!(refused.by_reason().collect::<Vec<_>>(), [(Reason::Oversize, 1)], "{id}");
            (batch, _) = Batch::index(framed.clone());
        } else {
            assert_eq!(refused.total(), 0, "{id}");
        }

        assert_eq!(batch.len(), 1, "{id}");
        let entry = batch.entries()[0];
        assert_eq!(batch.envelope(&entry), input, "{id}");
        assert_eq!(Selection::from(batch.clone()).encode(), framed, "{id}");

        let expected = decoded(&vector);
        assert_eq!(entry.kind, kind(expected), "{id}");
        assert_eq!(batch.source_id(&entry), text(expected, "source_id").as_bytes(), "{id}");
        assert_eq!(batch.instance_id(&entry), text(expected, "instance_id").as_bytes(), "{id}");
        assert_eq!(
            entry.timestamp.to_string(),
            expected.get("timestamp").map_or("0", |text| text.as_str().unwrap()),
            "{id}"
        );
    }
}

#[test]
fn envelopes_decode_to_what_was_captured() {
    for vector in vectors::read("v2-envelopes", 69) {
        let ours: Value = serde_json::from_str(&comparable(&base64(&vector["input"]))).unwrap();
        let mut expected = decoded(&vector).clone();
        if id(&vector) == "agent-dtags-value-unset" {
            // The agent's own doing, not the envelope's: it shows a deprecated tag without a value as an empty tag.
            expected.remove("tags").unwrap();
        }
        assert_eq!(lean(ours), Value::Object(expected), "{}", id(&vector));
    }
}

/// The envelope as the capture has it decoded: as it went in where that is told, else as it came out.
fn decoded(vector: &Value) -> &Map<String, Value> {
    let input = vector.get("input_json");
    input.unwrap_or_else(|| &vector["envelopes"][0]["json"]).as_object().unwrap()
}

const KINDS: [(&str, Kind); 5] = [
    ("log", Kind::Log),
    ("counter", Kind::Counter),
    ("gauge", Kind::Gauge),
    ("timer", Kind::Timer),
    ("event", Kind::Event),
];

fn kind(envelope: &Map<String, Value>) -> Kind {
    KINDS.into_iter().find(|(key, _)| envelope.contains_key(*key)).map_or(Kind::None, |(_, kind)| kind)
}

fn text<'a>(envelope: &'a Map<String, Value>, key: &str) -> &'a str {
    envelope.get(key).map_or("", |text| text.as_str().unwrap())
}

/// Our JSON without the fields that have their default: the form of the captures. Map entries and oneof members stay.
fn lean(mut envelope: Value) -> Value {
    let fields = envelope.as_object_mut().unwrap();
    fields.retain(|key, value| KINDS.iter().any(|(kind, _)| kind == key) || !unset(key, value));
    for (kind, _) in KINDS {
        let Some(message) = fields.get_mut(kind).and_then(Value::as_object_mut) else { continue };
        message.retain(|key, value| !unset(key, value));
        for metric in message.get_mut("metrics").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
            metric.as_object_mut().unwrap().retain(|key, value| !unset(key, value));
        }
    }
    // Numbers that are whole read as integers from our text, as doubles from the captures.
    doubles(&mut envelope);
    envelope
}

fn unset(key: &str, value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => key == "value" && number.as_f64().is_some_and(|value| value.to_bits() == 0),
        Value::String(text) => match key {
            "timestamp" | "delta" | "total" | "start" | "stop" => text == "0",
            "type" => text == "OUT",
            _ => text.is_empty(),
        },
        _ => false,
    }
}

fn doubles(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.as_f64().unwrap().into(),
        Value::Object(fields) => {
            fields.iter_mut().filter(|(key, _)| *key != "type").for_each(|(_, value)| doubles(value))
        }
        _ => {}
    }
}

/// The envelope as the only one of an `EnvelopeBatch`.
fn framed(envelope: &[u8]) -> Vec<u8> {
    let mut batch = Vec::new();
    hydrant_proto::raw::wire::put_bytes(&mut batch, 1, envelope);
    batch
}
