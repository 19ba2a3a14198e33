//! Reads the files of `tests/fixtures`: one JSON object a line, bytes as base64.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_proto::{events, json};
use prost::Message as _;
use serde_json::Value;

/// All vectors of one file, of which there must be `count`.
pub(crate) fn read(file: &str, count: usize) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{file}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let vectors: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(vectors.len(), count, "{file}");
    vectors
}

pub(crate) fn id(vector: &Value) -> &str {
    vector["id"].as_str().unwrap()
}

pub(crate) fn base64(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// The bytes of a message that stands with `b64` and `json`.
pub(crate) fn bytes(message: &Value) -> Vec<u8> {
    base64(&message["b64"])
}

/// The messages of a list.
pub(crate) fn list(messages: &Value) -> Vec<Vec<u8>> {
    messages.as_array().unwrap().iter().map(bytes).collect()
}

/// A v2 envelope in a form that can be compared: sorted maps, NaN equal to itself, zero unlike minus zero.
pub(crate) fn comparable(envelope: &[u8]) -> String {
    json::envelope_json(envelope).unwrap()
}

/// A v1 payload in a form that can be compared: its tags sorted, the rest as bytes in the order of field numbers.
pub(crate) fn comparable_v1(payload: &[u8]) -> (BTreeMap<String, String>, Vec<u8>) {
    let mut envelope = events::Envelope::decode(payload).unwrap();
    let tags = std::mem::take(&mut envelope.tags).into_iter().collect();
    (tags, envelope.encode_to_vec())
}
