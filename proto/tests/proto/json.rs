//! The JSON form against the streams of `gateway-sse.jsonl` and the reads of `logcache-rest.jsonl`, to the byte: only the spaces
//! between tokens, which the contract leaves open, are taken out of what was captured.

use bytes::Bytes;
use hydrant_proto::json::{put_batch, put_read};
use hydrant_proto::raw::tags::Form;
use hydrant_proto::raw::{Batch, Selection};
use hydrant_proto::v2;
use hydrant_proto::v2::envelope::Message;
use prost::Message as _;
use serde_json::Value;

use super::vectors::{self, comparable, id, list};

#[test]
fn server_sent_events() {
    let (mut streams, mut in_full) = (0, 0);
    for vector in vectors::read("gateway-sse", 83) {
        let Some(published) = vector.get("published") else { continue };
        // The gateway reads with preferred tags.
        let published: Vec<_> = list(published).iter().map(|envelope| preferred(envelope)).collect();
        let events: Vec<_> = vector["stream"]
            .as_str()
            .unwrap()
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| data.starts_with('{'))
            .collect();
        assert!(!events.is_empty(), "{}", id(&vector));

        let mut seen = 0;
        for event in events {
            let delivered = find(&published, &serde_json::from_str::<Value>(event).unwrap()["batch"]);
            seen += delivered.len();
            let mut ours = Vec::new();
            assert_eq!(put_batch(&mut ours, delivered), 0);
            assert_eq!(String::from_utf8(ours).unwrap(), compact(event), "{}", id(&vector));
        }
        streams += 1;
        if id(&vector).starts_with("json-") {
            in_full += 1;
            assert_eq!(seen, published.len(), "{}", id(&vector));
        }
    }
    assert_eq!((streams, in_full), (48, 26));
}

#[test]
fn reads_of_the_cache() {
    let vectors = vectors::read("logcache-rest", 163);
    let mut store: Vec<_> = vectors[0]["sources"].as_object().unwrap().values().flat_map(list).collect();
    // A read by name shows of a gauge only the metrics that have it.
    let single: Vec<_> = store.iter().flat_map(|envelope| single_metrics(envelope)).collect();
    store.extend(single);
    let (mut reads, mut envelopes) = (0, 0);
    for vector in &vectors[1..] {
        let Some(batch) = vector.get("body_json").and_then(|body| body.pointer("/envelopes/batch")) else { continue };
        let found = find(&store, batch);
        reads += 1;
        envelopes += found.len();
        let mut ours = Vec::new();
        assert_eq!(put_read(&mut ours, found), 0);
        let captured = vector["body"].as_str().unwrap();
        assert_eq!(String::from_utf8(ours).unwrap(), compact(captured), "{}", id(vector));
    }
    assert_eq!((reads, envelopes), (37, 75));
}

/// Those of `envelopes` that `batch` shows, in its order.
fn find<'a>(envelopes: &'a [Vec<u8>], batch: &Value) -> Vec<&'a [u8]> {
    let shown = |wanted: &Value| {
        let same = |envelope: &&Vec<u8>| serde_json::from_str::<Value>(&comparable(envelope)).unwrap() == *wanted;
        envelopes.iter().find(same).unwrap_or_else(|| panic!("none is {wanted}")).as_slice()
    };
    batch.as_array().unwrap().iter().map(shown).collect()
}

/// A gauge of several metrics, once for each.
fn single_metrics(envelope: &[u8]) -> Vec<Vec<u8>> {
    let envelope = v2::Envelope::decode(envelope).unwrap();
    let Some(Message::Gauge(gauge)) = &envelope.message else { return Vec::new() };
    let one = |(name, value): (&String, &v2::GaugeValue)| {
        let gauge = v2::Gauge { metrics: [(name.clone(), value.clone())].into() };
        v2::Envelope { message: Some(Message::Gauge(gauge)), ..envelope.clone() }.encode_to_vec()
    };
    gauge.metrics.iter().filter(|_| gauge.metrics.len() > 1).map(one).collect()
}

fn preferred(envelope: &[u8]) -> Vec<u8> {
    let mut batch = Vec::new();
    hydrant_proto::raw::wire::put_bytes(&mut batch, 1, envelope);
    let selection = Selection::from(Batch::index(Bytes::from(batch)).0);
    let preferred = Form::Preferred.convert(&selection);
    preferred.envelopes().next().unwrap().to_vec()
}

/// JSON without white space between tokens.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|&character| {
            let keep = in_string || !character.is_ascii_whitespace();
            match character {
                '"' if !escaped => in_string = !in_string,
                _ => {}
            }
            escaped = character == '\\' && !escaped;
            keep
        })
        .collect()
}
