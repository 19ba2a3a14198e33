//! Properties: what goes to the other version and back is the same, and no bytes at all make a conversion panic.

use std::collections::HashMap;

use hydrant_proto::events::log_message::MessageType;
use hydrant_proto::events::{self, Uuid};
use hydrant_proto::json::envelope_json;
use hydrant_proto::raw::{Batch, Limits, Selection};
use hydrant_proto::v1::{self, EventType, decode, from_v1, to_v1};
use hydrant_proto::v2;
use hydrant_proto::v2::envelope::Message;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use prost::Message as _;

use super::vectors::{self, base64, bytes};

proptest! {
    /// v2 → v1 → v2 gives the envelope back: a timer, log, counter, container metric, or gauge of one metric, with the tags that v1
    /// has fields for. A gauge of one metric also gains its instance as a tag.
    #[test]
    fn v2_there_and_back(envelope in v2_envelope()) {
        let mut expected = envelope.clone();
        if let Some(Message::Gauge(gauge)) = &envelope.message
            && gauge.metrics.len() == 1
            && !envelope.instance_id.is_empty()
        {
            expected.tags.insert("instance_id".into(), envelope.instance_id.clone());
        }
        let mut payloads = Vec::new();
        to_v1(&*envelope.encode_to_vec(), &mut payloads);
        prop_assert_eq!(payloads.len(), 1);
        prop_assert_eq!(from_v1(&payloads[0].bytes), Ok(expected));
    }

    /// v1 → v2 → v1 gives the payload back, for all six types.
    #[test]
    fn v1_there_and_back(envelope in v1_envelope()) {
        let middle = from_v1(&envelope.encode_to_vec()).unwrap();
        let mut payloads = Vec::new();
        to_v1(&*middle.encode_to_vec(), &mut payloads);
        prop_assert_eq!(payloads.len(), 1);
        prop_assert_eq!(i32::from(payloads[0].event_type), envelope.event_type);
        prop_assert_eq!(events::Envelope::decode(payloads[0].bytes.clone()).unwrap(), envelope);
    }

    /// A gauge of several metrics becomes a payload for each, in the order of their names.
    #[test]
    fn every_metric_becomes_a_payload(metrics in hash_map(".{0,6}", value(), 1..8)) {
        let mut names: Vec<_> = metrics.keys().cloned().collect();
        names.sort();
        let gauge = v2::Gauge { metrics: metrics.into_iter().map(|(name, value)| (name, v2::GaugeValue { unit: String::new(), value })).collect() };
        let envelope = v2::Envelope { message: Some(Message::Gauge(gauge)), ..v2::Envelope::default() };
        let mut payloads = Vec::new();
        to_v1(&*envelope.encode_to_vec(), &mut payloads);
        let got: Vec<_> = payloads
            .iter()
            .map(|payload| events::Envelope::decode(payload.bytes.clone()).unwrap().value_metric.unwrap().name)
            .collect();
        prop_assert_eq!(got, names);
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..200)) {
        convert_all(&bytes);
    }

    /// Captured messages, cut short and with bytes changed: nearly valid.
    #[test]
    fn no_damaged_message_panics(
        which in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let all = captured();
        let mut bytes = which.get(all).clone();
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len() + 1) / 8);
        convert_all(&bytes);
    }
}

/// Runs every conversion. What one gives, the next must take.
fn convert_all(bytes: &[u8]) {
    if let Ok(json) = envelope_json(bytes) {
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }
    let mut payloads = Vec::new();
    let converted = to_v1(bytes, &mut payloads);
    assert_eq!(converted.reason().is_some(), payloads.is_empty());
    for payload in &payloads {
        from_v1(&payload.bytes).unwrap();
    }
    // What routing is told of a payload is what conversion makes of it.
    for payload in &payloads {
        let decoded = decode(&payload.bytes).unwrap();
        assert_eq!((decoded.event_type(), decoded.app_id()), (payload.event_type, payload.app_id.clone()));
    }
    if payloads.iter().any(|payload| payload.event_type == EventType::Error) {
        assert!(v1::may_be_error(bytes));
    }
    let all = v1::batch(payloads.iter().map(|payload| (&*payload.bytes, payload.event_type, &*payload.app_id)));
    assert_eq!(all.len(), payloads.len());
    for (entry, payload) in all.entries().iter().zip(&payloads) {
        assert_eq!((all.envelope(entry), all.source_id(entry)), (&*payload.bytes, payload.app_id.as_bytes()));
        assert_eq!(entry.kind, v1::kind(payload.event_type));
    }
    let copy = Selection::from(all.clone()).compact();
    assert!(copy.envelopes().eq(payloads.iter().map(|payload| &*payload.bytes)));
    let sources = copy.entries().map(|entry| copy.batch().source_id(entry));
    assert!(sources.eq(payloads.iter().map(|payload| payload.app_id.as_bytes())));
    assert_eq!(copy.encode(), Selection::from(all).encode());
    if let Ok(decoded) = decode(bytes) {
        let (kind, source_id) = (decoded.kind(), decoded.source_id().into_owned());
        let (batch, _) = Batch::check_one(decoded.into_v2().encode_to_vec().into(), &Limits::NONE);
        assert_eq!((batch.entries()[0].kind, batch.source_id(&batch.entries()[0])), (kind, source_id.as_bytes()));
    }
    if let Ok(envelope) = from_v1(bytes) {
        envelope_json(&envelope.encode_to_vec()).unwrap();
    }
}

fn captured() -> &'static [Vec<u8>] {
    static CAPTURED: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
        let v2 = vectors::read("v2-envelopes", 69).into_iter().map(|vector| base64(&vector["input"]));
        let to_v1 = vectors::read("v2-to-v1", 79).into_iter().map(|vector| bytes(&vector["input_v2"]));
        let from_v1 = vectors::read("v1-to-v2", 55).into_iter().map(|vector| bytes(&vector["input_v1"]));
        v2.chain(to_v1).chain(from_v1).collect()
    });
    &CAPTURED
}

type Tags = HashMap<String, String>;

/// Tags that have no meaning to either version: longer than any that has.
fn tags() -> impl Strategy<Value = Tags> {
    hash_map("[a-z]{20,24}", ".{0,8}", 0..4)
}

/// No NaN, which is not equal to itself.
fn value() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN", |value| !value.is_nan())
}

/// Bytes that a double holds exactly.
fn quantity() -> impl Strategy<Value = u64> {
    0..1_u64 << 53
}

fn uuid() -> impl Strategy<Value = Uuid> {
    (1_u64.., any::<u64>()).prop_map(|(low, high)| Uuid { low, high })
}

fn v2_envelope() -> impl Strategy<Value = v2::Envelope> {
    let base = (any::<i64>(), ".{1,10}", ".{0,5}", tags(), vec(".{0,8}", 5));
    (base, message()).prop_map(|((timestamp, source_id, instance_id, tags, base_tags), (message, v1_type, extra))| {
        let mut envelope =
            v2::Envelope { timestamp, source_id, instance_id, tags, message: Some(message), ..v2::Envelope::default() };
        envelope
            .tags
            .extend(["origin", "deployment", "job", "index", "ip"].map(str::to_owned).into_iter().zip(base_tags));
        envelope.tags.insert("__v1_type".into(), v1_type.as_str_name().into());
        for (key, value) in extra {
            match key {
                SOURCE_ID => envelope.source_id = value,
                INSTANCE_ID => envelope.instance_id = value,
                _ => drop(envelope.tags.insert(key.into(), value)),
            }
        }
        envelope
    })
}

const SOURCE_ID: &str = "source_id";
const INSTANCE_ID: &str = "instance_id";

/// A message, its v1 type, and what its v1 type needs in tags, source and instance.
fn message() -> impl Strategy<Value = (Message, EventType, Vec<(&'static str, String)>)> {
    let log = (vec(any::<u8>(), 0..20), 0..=1, ".{0,8}").prop_map(|(payload, r#type, source_type)| {
        let log = v2::Log { payload: payload.into(), r#type };
        (Message::Log(log), EventType::LogMessage, vec![("source_type", source_type)])
    });
    let error = (".{0,20}", ".{0,8}", any::<i32>()).prop_map(|(payload, origin, code)| {
        let log = v2::Log { payload: payload.into(), r#type: 0 };
        (
            Message::Log(log),
            EventType::Error,
            vec![("source", origin), ("code", code.to_string()), (INSTANCE_ID, String::new())],
        )
    });
    let counter = (".{0,8}", any::<u64>(), any::<u64>()).prop_map(|(name, delta, total)| {
        (Message::Counter(v2::Counter { name, delta, total }), EventType::CounterEvent, vec![])
    });
    let gauge = (".{0,8}", ".{0,3}", value()).prop_map(|(name, unit, value)| {
        let metrics = [(name, v2::GaugeValue { unit, value })].into();
        (Message::Gauge(v2::Gauge { metrics }), EventType::ValueMetric, vec![])
    });
    let container = (value(), vec(quantity(), 4), any::<i32>()).prop_map(|(cpu, bytes, index)| {
        let mut metrics = HashMap::from([("cpu".into(), v2::GaugeValue { unit: "percentage".into(), value: cpu })]);
        for (name, value) in ["memory", "disk", "memory_quota", "disk_quota"].into_iter().zip(bytes) {
            metrics.insert(name.into(), v2::GaugeValue { unit: "bytes".into(), value: value as f64 });
        }
        let instance = vec![(INSTANCE_ID, index.to_string())];
        (Message::Gauge(v2::Gauge { metrics }), EventType::ContainerMetric, instance)
    });
    let timer = (any::<(i64, i64, i32, i32, i64)>(), uuid(), prop::option::of(uuid()), vec(".{0,8}", 5), 1..=44)
        .prop_map(|((start, stop, index, status, length), request, app, texts, method)| {
            let keys = ["uri", "remote_address", "user_agent", "routing_instance_id", "forwarded"];
            let mut tags: Vec<_> = keys.into_iter().zip(texts).collect();
            tags.push(("request_id", request.to_string()));
            tags.push(("peer_type", if index % 2 == 0 { "Client" } else { "Server" }.into()));
            tags.push(("method", events::Method::try_from(method).unwrap().as_str_name().into()));
            tags.push(("status_code", status.to_string()));
            tags.push(("content_length", length.to_string()));
            tags.push((INSTANCE_ID, index.to_string()));
            tags.extend(app.map(|app| (SOURCE_ID, app.to_string())));
            (Message::Timer(v2::Timer { name: "http".into(), start, stop }), EventType::HttpStartStop, tags)
        });
    prop_oneof![log, error, counter, gauge, container, timer]
}

/// Payloads with every field set, as [`to_v1`] writes them.
fn v1_envelope() -> impl Strategy<Value = events::Envelope> {
    let base = (any::<i64>(), vec(".{0,8}", 5), tags(), ".{1,10}");
    (base, body()).prop_map(|((timestamp, texts, tags, source_id), mut envelope)| {
        let mut texts = texts.into_iter();
        envelope.timestamp = Some(timestamp);
        envelope.origin = texts.next().unwrap();
        envelope.deployment = texts.next();
        envelope.job = texts.next();
        envelope.index = texts.next();
        envelope.ip = texts.next();
        let app = match (&envelope.log_message, &envelope.container_metric, &envelope.http_start_stop) {
            (Some(log), ..) => log.app_id.clone(),
            (_, Some(container), _) => Some(container.application_id.clone()),
            (.., Some(request)) => request.application_id.map(|app| app.to_string()),
            _ => None,
        };
        envelope.tags = tags;
        envelope.tags.insert("source_id".into(), app.unwrap_or(source_id));
        if let Some(log) = &mut envelope.log_message {
            log.timestamp = timestamp;
        }
        envelope
    })
}

fn body() -> impl Strategy<Value = events::Envelope> {
    let of = |event_type: EventType| events::Envelope { event_type: event_type.into(), ..events::Envelope::default() };
    let log = (vec(any::<u8>(), 0..20), any::<bool>(), ".{1,8}", ".{0,5}", ".{0,5}").prop_map(
        move |(message, out, app_id, source_type, source_instance)| events::Envelope {
            log_message: Some(events::LogMessage {
                message: message.into(),
                message_type: if out { MessageType::Out } else { MessageType::Err }.into(),
                timestamp: 0,
                app_id: Some(app_id),
                source_type: Some(source_type),
                source_instance: Some(source_instance),
            }),
            ..of(EventType::LogMessage)
        },
    );
    let error = (".{0,8}", any::<i32>(), ".{0,20}").prop_map(move |(source, code, message)| events::Envelope {
        error: Some(events::Error { source, code, message }),
        ..of(EventType::Error)
    });
    let counter = (".{0,8}", any::<u64>(), any::<u64>()).prop_map(move |(name, delta, total)| events::Envelope {
        counter_event: Some(events::CounterEvent { name, delta, total: Some(total) }),
        ..of(EventType::CounterEvent)
    });
    let gauge = (".{0,8}", value(), ".{0,3}").prop_map(move |(name, value, unit)| events::Envelope {
        value_metric: Some(events::ValueMetric { name, value, unit }),
        ..of(EventType::ValueMetric)
    });
    let container =
        (".{1,8}", any::<i32>(), value(), vec(quantity(), 4)).prop_map(move |(app, instance_index, cpu, bytes)| {
            events::Envelope {
                container_metric: Some(events::ContainerMetric {
                    application_id: app,
                    instance_index,
                    cpu_percentage: cpu,
                    memory_bytes: bytes[0],
                    disk_bytes: bytes[1],
                    memory_bytes_quota: Some(bytes[2]),
                    disk_bytes_quota: Some(bytes[3]),
                }),
                ..of(EventType::ContainerMetric)
            }
        });
    let request = (
        any::<(i64, i64, i32, i64, i32)>(),
        uuid(),
        prop::option::of(uuid()),
        vec(".{0,8}", 4),
        (1..=2, 1..=44),
        vec("[^\n]{0,8}", 1..4),
    )
        .prop_map(move |(numbers, request_id, application_id, texts, (peer_type, method), forwarded)| {
            let [uri, remote_address, user_agent, instance_id] = texts.try_into().unwrap();
            events::Envelope {
                http_start_stop: Some(events::HttpStartStop {
                    start_timestamp: numbers.0,
                    stop_timestamp: numbers.1,
                    request_id,
                    peer_type,
                    method,
                    uri,
                    remote_address,
                    user_agent,
                    status_code: numbers.2,
                    content_length: numbers.3,
                    application_id,
                    instance_index: Some(numbers.4),
                    instance_id: Some(instance_id),
                    forwarded,
                }),
                ..of(EventType::HttpStartStop)
            }
        });
    prop_oneof![log, error, counter, gauge, container, request]
}
