//! The encoder against what the original agent wrote for the same envelopes.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hydrant_adapters::syslog::config::DrainUrl;
use hydrant_adapters::syslog::encode::{Encoder, Framing, Parts, Style, Unencodable};
use prost::Message;
use proto::v2;
use serde_json::Value;

const VECTORS: &str = include_str!("../fixtures/syslog-lines.jsonl");

/// Envelopes that have no form as a line: they held up the original's TCP drains for two minutes each, and end in an error here.
const INVALID: [(&str, Unencodable); 6] = [
    ("host-binding-with-space-invalid", Unencodable::Header("HOSTNAME")),
    ("proc-instance-space-invalid", Unencodable::Header("PROCID")),
    ("tags-key-space-invalid", Unencodable::TagKey),
    ("tags-key-unicode-invalid", Unencodable::TagKey),
    ("tags-key-equals-invalid", Unencodable::TagKey),
    ("metric-procid-invalid", Unencodable::Header("PROCID")),
];

/// Envelopes without lines.
const NOTHING: [&str; 2] = ["gauge-empty", "no-message"];

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(value[key].as_str().expect("bytes in base64")).unwrap()
}

/// The encoder for a vector's drain, and its envelopes as bytes.
fn set_up(vector: &Value, framing: Framing) -> (Encoder, Vec<Vec<u8>>) {
    let url = vector["drain_url"].as_str().unwrap().replace(" (aggregate)", "").replace("<drain>", "drain:514");
    let (_, rest) = url.split_once("://").unwrap();
    let options = DrainUrl::parse(&format!("syslog://{rest}")).unwrap().options;
    let hostname = vector["binding_hostname"].as_str().unwrap_or_default();
    let envelopes = vector["input"].as_array().unwrap();
    let envelopes = envelopes.iter().map(|input| {
        let mut bytes = bytes(input, "b64");
        let envelope = v2::Envelope::decode(bytes.as_slice()).unwrap();
        // An agent names an envelope without source after its origin: here before a drain ever sees it.
        if envelope.source_id.is_empty()
            && let Some(origin) = envelope.tags.get("origin")
        {
            proto::raw::edit::put_source_id(&mut bytes, origin.as_bytes());
        }
        bytes
    });
    (Encoder::new(&options, hostname, true, Style { framing, ..Style::default() }), envelopes.collect())
}

/// What each envelope becomes.
fn encode(vector: &Value, framing: Framing) -> Vec<Result<Vec<u8>, Unencodable>> {
    let (mut encoder, envelopes) = set_up(vector, framing);
    let mut encoded = |bytes: &Vec<u8>| {
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        encoder.encode(&Parts::read(bytes, &mut spare).unwrap(), &mut out).map(|_| out)
    };
    envelopes.iter().map(&mut encoded).collect()
}

/// Cuts a stream of octet-counted frames.
fn frames(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while !stream.is_empty() {
        let space = stream.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&stream[..space]).unwrap().parse().unwrap();
        let (frame, rest) = stream.split_at(space + 1 + length);
        frames.push(frame.to_vec());
        stream = rest;
    }
    frames
}

#[test]
fn every_vector_gives_the_originals_bytes() {
    let (mut as_frames, mut as_bodies, mut other) = (0, 0, 0);
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let id = vector["id"].as_str().unwrap();
        let framing = if vector["posts"].is_array() { Framing::None } else { Framing::OctetCount };
        let outcomes = encode(&vector, framing);
        if let Some((_, error)) = INVALID.iter().find(|(invalid, _)| *invalid == id) {
            assert_eq!(outcomes, [Err(*error)], "{id}");
            other += 1;
        } else if NOTHING.contains(&id) {
            assert_eq!(outcomes, [Ok(Vec::new())], "{id}");
            other += 1;
        } else if id == "blocked-by-invalid" {
            // The first is dropped and counted, and the second goes out.
            assert_eq!(outcomes[0], Err(Unencodable::TagKey), "{id}");
            assert_eq!(frames(outcomes[1].as_ref().unwrap()).len(), 1, "{id}");
            other += 1;
        } else if id == "proc-type-126-instance" || id == "proc-type-204-instance" {
            // The type is cut to what leaves room for the brackets and the slash.
            let line = String::from_utf8(outcomes[0].clone().unwrap()).unwrap();
            let procid = line.split(' ').nth(5).unwrap();
            assert!(procid.len() == 128 && procid.ends_with("T/]"), "{id}: {procid}");
            other += 1;
        } else if let Some(posts) = vector["posts"].as_array() {
            let sent: Vec<u8> = outcomes.iter().flat_map(|outcome| outcome.clone().unwrap_or_default()).collect();
            let bodies: Vec<u8> = posts.iter().flat_map(|post| bytes(post, "body_b64")).collect();
            if id.contains("gauge") {
                assert_eq!(sorted(split_lines(&sent)), sorted(split_lines(&bodies)), "{id}");
            } else {
                assert_eq!(String::from_utf8_lossy(&sent), String::from_utf8_lossy(&bodies), "{id}");
            }
            as_bodies += 1;
        } else {
            let sent: Vec<u8> = outcomes
                .into_iter()
                .flat_map(|outcome| outcome.unwrap_or_else(|error| panic!("{id}: {error}")))
                .collect();
            let expected: Vec<_> =
                vector["frames"].as_array().unwrap().iter().map(|frame| bytes(frame, "b64")).collect();
            let (sent, expected) = (frames(&sent), expected);
            if vector["order"] == "volatile" {
                assert_eq!(sorted(sent), sorted(expected), "{id}");
            } else {
                let text = |all: &[Vec<u8>]| {
                    all.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect::<Vec<_>>()
                };
                assert_eq!(text(&sent), text(&expected), "{id}");
                assert_eq!(sent, expected, "{id}");
            }
            as_frames += 1;
        }
    }
    assert_eq!((as_frames, as_bodies, other), (138, 14, 11), "every vector was looked at");
}

fn split_lines(body: &[u8]) -> Vec<Vec<u8>> {
    body.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn sorted(mut all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    all.sort();
    all
}
