//! What the original's syslog server made of each connection, against what we make of it; and what the original's agents write.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use proto::v2::Envelope;
use proto::v2::envelope::Message;
use serde_json::Value;

use crate::intake::Rig;

const VECTORS: &str = include_str!("../fixtures/syslog-in.jsonl");

/// The lines of the original's agents, where the tests of those who write them have them too.
const LINES: &str = include_str!("../../../adapters/tests/fixtures/syslog-lines.jsonl");

/// Where we do better: what the original loses, and how many envelopes come of it here.
const BETTER: [(&str, usize); 6] = [
    ("ts-7-digits", 1),
    ("ts-9-digits", 1),
    ("ts-nil", 1),
    ("sd-same-id-twice", 1),
    ("sd-long-param-name", 1),
    ("frame-unparsable-then-good-same-connection", 1),
];

fn bytes(value: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(value.as_str().expect("bytes in base64")).unwrap()
}

/// The bytes of a connection; those of the longest are given by their beginning, and go on with the letter that it ends in.
fn sent(vector: &Value) -> Vec<u8> {
    let sent = &vector["sent_on_one_connection"];
    if !sent["b64"].is_null() {
        return bytes(&sent["b64"]);
    }
    let mut begin = bytes(&sent["b64_prefix"]);
    let text = String::from_utf8(begin.clone()).unwrap();
    let (count, _) = text.split_once(' ').unwrap();
    begin.resize(count.len() + 1 + count.parse::<usize>().unwrap(), b'B');
    begin
}

/// The envelopes with a number for what is none, which is not equal to itself.
fn comparable(mut envelopes: Vec<Envelope>) -> Vec<Envelope> {
    for envelope in &mut envelopes {
        if let Some(Message::Gauge(gauge)) = &mut envelope.message {
            gauge
                .metrics
                .values_mut()
                .filter(|metric| metric.value.is_nan())
                .for_each(|metric| metric.value = f64::MIN);
        }
    }
    envelopes
}

#[tokio::test]
async fn every_connection_gives_the_originals_envelopes() {
    let (trimming, plain) = (Rig::start(|_| {}), Rig::start(|config| config.trim_whitespace = false));
    let mut checked = 0;
    for vector in VECTORS.lines() {
        let vector: Value = serde_json::from_str(vector).unwrap();
        let id = vector["id"].as_str().unwrap();
        let rig = if vector["config"].is_string() { &plain } else { &trimming };
        let invalid = rig.number("invalid_ingress");
        rig.send(&sent(&vector)).await;
        let found = rig.read(vector["source_id_read_back"].as_str().unwrap());
        let output = vector["output"].as_array().unwrap();
        if let Some((_, count)) = BETTER.iter().find(|(better, _)| *better == id) {
            assert_eq!((found.len(), output.len()), (*count, 0), "{id}");
        } else if let Some(length) = output.first().and_then(|output| output["payload_length"].as_u64()) {
            assert_eq!((found.len(), found[0].payload().len() as u64), (1, length), "{id}");
        } else {
            let expected: Vec<Envelope> =
                output.iter().map(|output| Envelope::decode(&*bytes(&output["b64"])).unwrap()).collect();
            assert_eq!(comparable(found), comparable(expected), "{id}");
            // What cannot be delimited may leave more to refuse than one message.
            let refused = rig.number("invalid_ingress") - invalid;
            if let Some(counted) = vector["invalid_ingress_increase"].as_f64() {
                assert_eq!(refused > 0, counted > 0.0, "{id}: {refused} refused");
            }
        }
        checked += 1;
    }
    assert_eq!(checked, 110);
}

/// Lines that come as envelopes, of all that the agents wrote.
const TAKEN: u64 = 165;

#[tokio::test]
async fn what_the_originals_agents_write_is_read() {
    let rig = Rig::start(|_| {});
    let (mut taken, mut refused) = (0, 0);
    for vector in LINES.lines() {
        let vector: Value = serde_json::from_str(vector).unwrap();
        let Some(frames) = vector["frames"].as_array() else { continue };
        let id = vector["id"].as_str().unwrap();
        for frame in frames {
            let before = (rig.number("invalid_ingress"), rig.store.numbers().offered);
            rig.send(&bytes(&frame["b64"])).await;
            let after = (rig.number("invalid_ingress"), rig.store.numbers().offered);
            let (lost, came) = (after.0 - before.0, after.1 - before.1);
            assert_eq!(lost + came, 1, "{id}");
            if lost > 0 {
                assert!(REFUSED.contains(&id), "{id}: {}", String::from_utf8_lossy(&bytes(&frame["b64"])));
                refused += 1;
            }
            taken += came;
        }
    }
    assert_eq!((taken, refused), (TAKEN, REFUSED.len()));
}

/// Lines that are none of RFC 5424, lack a source, or have a larger tag than any envelope may.
const REFUSED: [&str; 4] = ["log-type-5", "tags-key-empty", "aggregate-no-source-id", "tags-long-value"];
