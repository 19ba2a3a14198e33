//! Tests of `tag`.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::raw::Limits;
use proto::v2;

use super::*;

fn tagger(tags: &str, force: bool) -> Tagger {
    let pair = |pair: &str| pair.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Tagger::new(&TagsConfig { set: tags.split(',').filter_map(pair).collect(), force })
}

fn batch(envelopes: &[Vec<u8>]) -> Batch {
    let mut bytes = Vec::new();
    for envelope in envelopes {
        wire::put_bytes(&mut bytes, 1, envelope);
    }
    let (batch, refused) = Batch::check(bytes.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    batch
}

fn tagged(tagger: &Tagger, envelope: &v2::Envelope) -> v2::Envelope {
    let (selection, _) = tagger.tag(batch(&[envelope.encode_to_vec()]));
    let only: Vec<&[u8]> = selection.envelopes().collect();
    v2::Envelope::decode(only[0]).expect("well-formed")
}

/// What the original's agent sends for each captured envelope, ours sends too. Its counters live on between the vectors.
#[test]
fn envelopes_leave_as_the_original_sends_them() {
    let vectors = include_str!("../../tests/fixtures/agent-tags-counters.jsonl");
    let mut agents: HashMap<String, Tagger> = HashMap::new();
    let mut compared = 0;
    for line in vectors.lines() {
        let vector: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let tags = vector["AGENT_TAGS"].as_str().unwrap_or_default();
        let agent = agents.entry(tags.to_owned()).or_insert_with(|| tagger(tags, false));
        for step in vector["steps"].as_array().expect("steps") {
            let bytes =
                |value: &serde_json::Value| STANDARD.decode(value["b64"].as_str().expect("base64")).expect("base64");
            let inputs = match &step["input"] {
                serde_json::Value::Array(all) => all.iter().map(bytes).collect(),
                one => vec![bytes(one)],
            };
            let (selection, _) = agent.tag(batch(&inputs));
            let outputs = step["output"].as_array().expect("output");
            // As JSON: its maps are sorted, and not-a-number equals itself.
            let json = |envelope: &[u8]| proto::json::envelope_json(envelope).expect("well-formed");
            let sent: Vec<String> = selection.envelopes().map(json).collect();
            let expected: Vec<String> = outputs.iter().map(|output| json(&bytes(output))).collect();
            assert_eq!(sent, expected, "{}", vector["id"]);
            compared += 1;
        }
    }
    assert!(compared >= 60, "only {compared} steps were compared");
}

#[test]
fn a_batch_that_needs_nothing_is_the_same_bytes() {
    let tagger = tagger("", false);
    let batch = batch(&[v2::Envelope::log("app", "x").tag("a", "b").encode_to_vec()]);
    let (selection, mapped) = tagger.tag(batch.clone());
    assert_eq!(mapped, 0);
    assert_eq!(selection.encode().as_ptr(), Selection::from(batch).encode().as_ptr());
}

#[test]
fn forced_tags_replace_what_a_sender_wrote() {
    let own = v2::Envelope::log("app", "x").tag("job", "mine");
    assert_eq!(tagged(&tagger("job:cell", false), &own).tags["job"], "mine");
    assert_eq!(tagged(&tagger("job:cell", true), &own).tags["job"], "cell");
}

#[test]
fn a_source_taken_from_a_tag_counts_with_the_same_source_given() {
    let tagger = tagger("", false);
    let counter = |source: &str| v2::Envelope::counter(source, "hits", 2).tag("origin", "app");
    let total = |envelope: &v2::Envelope| match tagged(&tagger, envelope).message {
        Some(v2::envelope::Message::Counter(counter)) => counter.total,
        other => panic!("no counter: {other:?}"),
    };
    assert_eq!(total(&counter("app")), 2);
    assert_eq!(total(&counter("")), 4);
}

#[test]
fn more_default_tags_than_a_word_has_bits_are_added_once_each() {
    let tags: Vec<String> = (0..100).map(|i| format!("k{i}:default")).collect();
    let tagger = tagger(&tags.join(","), false);
    let own = v2::Envelope::log("app", "x").tag("k3", "own").tag("k90", "own");
    let tagged = tagged(&tagger, &own);
    assert_eq!(tagged.tags.len(), 100);
    assert_eq!(
        (tagged.tags["k3"].as_str(), tagged.tags["k90"].as_str(), tagged.tags["k99"].as_str()),
        ("own", "own", "default")
    );
}
