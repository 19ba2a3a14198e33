//! v2 → v1 and v1 → v2 against `v2-to-v1.jsonl` and `v1-to-v2.jsonl`.

use bytes::Bytes;
use hydrant_proto::v1::{Converted, EventType, Missing, Payload, SYSTEM, V1Error, from_v1, to_v1};
use hydrant_proto::v2::envelope::Message;
use hydrant_proto::{events, v2};
use prost::Message as _;
use serde_json::Value;

use super::vectors::{self, bytes, comparable, comparable_v1, id, list};

/// What was captured where hydrant decides otherwise. Each is asserted as decided, and none may agree with what was captured.
const EMPTY_PAYLOAD: [&str; 4] = [
    "log-empty-payload",
    "log-empty-payload-written-explicitly",
    "log-empty-message-absent-payload",
    "log-empty-payload-err",
];
const NO_REQUEST_ID: [&str; 3] = ["timer-no-request-id", "timer-request-id-short", "timer-request-id-not-hex"];
const OUT_OF_RANGE: [&str; 2] = ["container-negative-memory", "container-huge-quota"];

#[test]
fn v2_to_v1() {
    for vector in vectors::read("v2-to-v1", 79) {
        let id = id(&vector);
        let input = bytes(&vector["input_v2"]);
        let captured = list(&vector["output_v1"]);

        let (converted, payloads) = convert(&input);
        for payload in &payloads {
            complete(id, payload);
        }
        if EMPTY_PAYLOAD.contains(&id) {
            assert_eq!(captured.len(), 0, "{id}");
            assert_eq!(payloads.len(), 1, "{id}");
            let expected = converted_but(&input, |v2| set_payload(v2, "x"), |v1| log_of(v1).message = Bytes::new());
            assert_eq!(comparable_v1(&payloads[0].bytes), expected, "{id}");
        } else if NO_REQUEST_ID.contains(&id) {
            assert_eq!(captured.len(), 0, "{id}");
            assert_eq!(payloads.len(), 1, "{id}");
            let with_id = |v2: &mut v2::Envelope| {
                drop(v2.tags.insert("request_id".into(), "1".repeat(8) + &"-1111".repeat(3) + "-" + &"1".repeat(12)))
            };
            let expected = converted_but(&input, with_id, |v1| {
                let request = v1.http_start_stop.as_mut().unwrap();
                assert!(!request.request_id.is_zero());
                request.request_id = events::Uuid::default();
            });
            assert_eq!(comparable_v1(&payloads[0].bytes), expected, "{id}");
        } else if OUT_OF_RANGE.contains(&id) {
            let mut expected = events::Envelope::decode(&*captured[0]).unwrap();
            let container = expected.container_metric.as_mut().unwrap();
            if id == "container-negative-memory" {
                container.memory_bytes = 0;
            } else {
                container.disk_bytes_quota = Some(u64::MAX);
            }
            assert_eq!(payloads.len(), 1, "{id}");
            assert_eq!(comparable_v1(&payloads[0].bytes), comparable_v1(&expected.encode_to_vec()), "{id}");
            assert_ne!(comparable_v1(&payloads[0].bytes), comparable_v1(&captured[0]), "{id}");
        } else {
            let mut expected: Vec<_> = captured.iter().map(|bytes| comparable_v1(bytes)).collect();
            let mut ours: Vec<_> = payloads.iter().map(|payload| comparable_v1(&payload.bytes)).collect();
            expected.sort();
            ours.sort();
            assert_eq!(ours, expected, "{id}");
        }
        match payloads.len() {
            0 => assert_eq!(converted, Converted::NoForm, "{id}"),
            count => assert_eq!(converted, Converted::Payloads(count), "{id}"),
        }
    }
}

#[test]
fn what_has_no_v1_form_says_so() {
    let mut seen = Vec::new();
    for vector in vectors::read("v2-to-v1", 79) {
        let (converted, _) = convert(&bytes(&vector["input_v2"]));
        if converted == Converted::NoForm {
            seen.push(id(&vector).to_owned());
        }
    }
    assert_eq!(seen, ["gauge-empty", "event", "no-message"]);
    assert_eq!(convert(b"\x0a").0, Converted::Malformed);
}

#[test]
fn payloads_are_routed_to_the_app_that_v1_names() {
    for vector in vectors::read("v2-to-v1", 79) {
        let source_id = vector["input_v2"]["json"]["source_id"].as_str().unwrap_or_default();
        for payload in convert(&bytes(&vector["input_v2"])).1 {
            let app_id = match payload.event_type {
                EventType::LogMessage | EventType::ContainerMetric => source_id,
                EventType::HttpStartStop if source_id.len() == 36 => source_id,
                _ => SYSTEM,
            };
            assert_eq!(payload.app_id, app_id, "{}", id(&vector));
        }
    }
}

#[test]
fn an_error_that_is_not_text_keeps_what_is() {
    let envelope = v2::Envelope::log("x", &b"caf\xe9!"[..]).tag("__v1_type", "Error");
    let (_, payloads) = convert(&envelope.encode_to_vec());
    let error = events::Envelope::decode(payloads[0].bytes.clone()).unwrap().error.unwrap();
    assert_eq!(error.message, "caf\u{fffd}!");
}

#[test]
fn v1_to_v2() {
    for vector in vectors::read("v1-to-v2", 55) {
        let id = id(&vector);
        let result = from_v1(&bytes(&vector["input_v1"]));
        match list(&vector["output_v2"]).as_slice() {
            [expected] => {
                let envelope = result.unwrap_or_else(|error| panic!("{id}: {error}"));
                assert_eq!(comparable(&envelope.encode_to_vec()), comparable(expected), "{id}");
            }
            [] => {
                let error = result.expect_err(id);
                let missing = |message, field| V1Error::Missing(Missing { message, field });
                match id {
                    "log-no-origin" | "zero-bytes" => assert_eq!(error, missing("Envelope", "origin"), "{id}"),
                    "event-type-missing" => assert_eq!(error, missing("Envelope", "eventType"), "{id}"),
                    "log-required-message-missing" => assert_eq!(error, missing("LogMessage", "message"), "{id}"),
                    "log-required-type-missing" => assert_eq!(error, missing("LogMessage", "message_type"), "{id}"),
                    "event-type-1" => assert_eq!(error, V1Error::UnknownEvent(1), "{id}"),
                    "event-type-77" => assert_eq!(error, V1Error::UnknownEvent(77), "{id}"),
                    "not-protobuf" => assert!(matches!(error, V1Error::Malformed(_)), "{id}: {error}"),
                    _ => panic!("{id}: {error}"),
                }
            }
            more => panic!("{id}: {} envelopes", more.len()),
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_an_error() {
    for vector in vectors::read("v1-to-v2", 55) {
        let mut payload = bytes(&vector["input_v1"]);
        let Some(at) = payload.windows(8).position(|window| window == b"gorouter") else { continue };
        payload[at] = 0xff;
        assert!(matches!(from_v1(&payload), Err(V1Error::Malformed(_))), "{}", id(&vector));
    }
}

/// A body that is there must be complete, also one that the event type does not name; its parts may come in pieces.
#[test]
fn required_fields_are_asked_of_every_body() {
    // origin "o", event type ValueMetric.
    let head = b"\x0a\x01o\x10\x06";
    let error = |bodies: &[u8]| match from_v1(&[head, bodies].concat()) {
        Err(V1Error::Missing(missing)) => missing.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(b"\x42\x00"), "required field message of LogMessage is missing");
    assert_eq!(error(b"\x4a\x03\x0a\x01v"), "required field value of ValueMetric is missing");
    assert_eq!(error(b"\x52\x03\x0a\x01v"), "required field delta of CounterEvent is missing");
    assert_eq!(error(b"\x5a\x02\x10\x01"), "required field source of Error is missing");
    assert_eq!(error(b"\x62\x03\x0a\x01v"), "required field instanceIndex of ContainerMetric is missing");
    let request = b"\x08\x01\x10\x02\x20\x01\x28\x01\x32\x00\x3a\x00\x42\x00\x48\x00\x50\x00";
    assert_eq!(error(&field(7, request)), "required field requestId of HttpStartStop is missing");
    let request = [request, &field(3, b"\x08\x01")[..]].concat();
    assert_eq!(error(&field(7, &request)), "required field high of UUID is missing");

    let pieces = [&head[..], b"\x4a\x03\x0a\x01v", &field(9, b"\x11\0\0\0\0\0\0\xf0\x3f\x1a\x01u")].concat();
    let envelope = from_v1(&pieces).unwrap();
    let Some(Message::Gauge(gauge)) = envelope.message else { panic!("no gauge") };
    assert_eq!(gauge.metrics["v"], v2::GaugeValue { unit: "u".into(), value: 1.0 });
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn convert(envelope: &[u8]) -> (Converted, Vec<Payload>) {
    let mut payloads = Vec::new();
    let converted = to_v1(envelope, &mut payloads);
    (converted, payloads)
}

/// A payload carries what v1 readers require, and is of the type that it says.
fn complete(id: &str, payload: &Payload) {
    from_v1(&payload.bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
    let envelope = events::Envelope::decode(payload.bytes.clone()).unwrap();
    assert_eq!(envelope.event_type, i32::from(payload.event_type), "{id}");
    let bodies = [
        (EventType::HttpStartStop, envelope.http_start_stop.is_some()),
        (EventType::LogMessage, envelope.log_message.is_some()),
        (EventType::ValueMetric, envelope.value_metric.is_some()),
        (EventType::CounterEvent, envelope.counter_event.is_some()),
        (EventType::Error, envelope.error.is_some()),
        (EventType::ContainerMetric, envelope.container_metric.is_some()),
    ];
    for (event_type, present) in bodies {
        assert_eq!(present, event_type == payload.event_type, "{id}");
    }
}

/// The payload of `input` changed by `before`, changed by `after`.
fn converted_but(
    input: &[u8],
    before: impl Fn(&mut v2::Envelope),
    after: impl Fn(&mut events::Envelope),
) -> (std::collections::BTreeMap<String, String>, Vec<u8>) {
    let mut envelope = v2::Envelope::decode(input).unwrap();
    before(&mut envelope);
    let (_, payloads) = convert(&envelope.encode_to_vec());
    let mut v1 = events::Envelope::decode(payloads[0].bytes.clone()).unwrap();
    after(&mut v1);
    comparable_v1(&v1.encode_to_vec())
}

fn set_payload(envelope: &mut v2::Envelope, payload: &'static str) {
    let Some(Message::Log(log)) = &mut envelope.message else { panic!("no log") };
    assert!(log.payload.is_empty());
    log.payload = payload.into();
}

fn log_of(envelope: &mut events::Envelope) -> &mut events::LogMessage {
    envelope.log_message.as_mut().unwrap()
}

/// The vectors whose capture differs are all there, so that a decision does not outlive its vector.
#[test]
fn every_decided_difference_has_its_vector() {
    let all = vectors::read("v2-to-v1", 79);
    for decided in EMPTY_PAYLOAD.iter().chain(&NO_REQUEST_ID).chain(&OUT_OF_RANGE) {
        assert!(all.iter().any(|vector: &Value| id(vector) == *decided), "{decided}");
    }
}
