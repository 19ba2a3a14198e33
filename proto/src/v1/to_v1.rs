//! v2 → v1 (contract: traffic controller v1 §7.1): one envelope becomes no, one or several payloads.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{Buf, Bytes};
use prost::Message as _;

use super::{Converted, EventType, Payload, SYSTEM, metric, tag};
use crate::events::{self, Uuid};
use crate::v2::envelope::Message;
use crate::v2::value::Data;
use crate::{decimal, v2};

/// Appends the v1 payloads of one encoded v2 envelope that has passed the walker.
///
/// A gauge that is no container metric becomes one payload per metric, in the order of their names. Where v1 has narrower types:
/// numbers in tags that do not parse are 0, and longer ones are cut to their last 32 bits; doubles lose their fraction and end at
/// the bounds of the integer, NaN is 0; an error's text that is not UTF-8 has its bad bytes replaced. A timer whose `request_id` is
/// no UUID gets the zero one.
///
/// One decode and one encode per payload; strings are moved. Given `Bytes`, a log's payload is not copied before it is encoded.
pub fn to_v1(envelope: impl Buf, out: &mut Vec<Payload>) -> Converted {
    let Ok(v2::Envelope { timestamp, source_id, instance_id, deprecated_tags, tags, message }) =
        v2::Envelope::decode(envelope)
    else {
        return Converted::Malformed;
    };
    let message = match message {
        None | Some(Message::Event(_)) => return Converted::NoForm,
        Some(Message::Gauge(gauge)) if gauge.metrics.is_empty() => return Converted::NoForm,
        Some(message) => message,
    };
    let mut tags = Tags::new(tags, deprecated_tags);
    let is_error = tags.take(tag::V1_TYPE) == EventType::Error.as_str_name();
    let base = events::Envelope {
        timestamp: Some(timestamp),
        origin: tags.take(tag::ORIGIN),
        deployment: Some(tags.take(tag::DEPLOYMENT)),
        job: Some(tags.take(tag::JOB)),
        index: Some(tags.take(tag::INDEX)),
        ip: Some(tags.take(tag::IP)),
        ..events::Envelope::default()
    };
    let from = From { base, tags, source_id, instance_id };
    let before = out.len();
    match message {
        Message::Log(log) if is_error => out.push(error(from, &log)),
        Message::Log(log) => out.push(self::log(from, log)),
        Message::Counter(counter) => out.push(self::counter(from, counter)),
        Message::Timer(timer) => out.push(request(from, &timer)),
        Message::Gauge(gauge) => match container(&gauge.metrics) {
            Some(container) => out.push(container_metric(from, container, &gauge.metrics)),
            None => values(from, gauge.metrics, out),
        },
        Message::Event(_) => {}
    }
    Converted::Payloads(out.len() - before)
}

/// What every kind shares: the payload begun, and what of the v2 envelope is not in it yet.
struct From {
    base: events::Envelope,
    tags: Tags,
    source_id: String,
    instance_id: String,
}

/// Text tags of both maps. A lookup prefers `tags`, the map that leaves prefers `deprecated_tags`.
struct Tags {
    tags: HashMap<String, String>,
    deprecated: HashMap<String, String>,
}

impl Tags {
    fn new(tags: HashMap<String, String>, deprecated: HashMap<String, v2::Value>) -> Self {
        let text = |(key, value): (String, v2::Value)| Some((key, text(value.data?)));
        Self { tags, deprecated: deprecated.into_iter().filter_map(text).collect() }
    }

    /// Removes a tag; empty text if there is none.
    fn take(&mut self, key: &str) -> String {
        let deprecated = self.deprecated.remove(key);
        self.tags.remove(key).or(deprecated).unwrap_or_default()
    }

    /// The map that leaves.
    fn merge(self, source_id: &str) -> HashMap<String, String> {
        let mut tags = self.tags;
        tags.extend(self.deprecated);
        if !source_id.is_empty() {
            tags.insert(tag::SOURCE_ID.to_owned(), source_id.to_owned());
        }
        tags
    }
}

/// A deprecated tag as text: doubles have six fraction digits.
fn text(data: Data) -> String {
    match data {
        Data::Text(text) => text,
        Data::Integer(integer) => integer.to_string(),
        Data::Decimal(value) if value.is_finite() => format!("{value:.6}"),
        Data::Decimal(value) => decimal::plain(value),
    }
}

fn log(mut from: From, log: v2::Log) -> Payload {
    let message_type = match v2::log::Type::try_from(log.r#type) {
        Ok(v2::log::Type::Out) => events::log_message::MessageType::Out,
        _ => events::log_message::MessageType::Err,
    };
    let source_type = from.tags.take(tag::SOURCE_TYPE);
    let mut base = from.base;
    base.tags = from.tags.merge(&from.source_id);
    base.log_message = Some(events::LogMessage {
        message: log.payload,
        message_type: message_type.into(),
        timestamp: base.timestamp.unwrap_or_default(),
        app_id: Some(from.source_id),
        source_type: Some(source_type),
        source_instance: Some(from.instance_id),
    });
    let bytes = encode(&mut base, EventType::LogMessage);
    let app_id = base.log_message.and_then(|log| log.app_id).unwrap_or_default();
    Payload { event_type: EventType::LogMessage, app_id: Cow::Owned(app_id), bytes }
}

fn error(mut from: From, log: &v2::Log) -> Payload {
    from.base.error = Some(events::Error {
        source: from.tags.take(tag::SOURCE),
        code: int32(&from.tags.take(tag::CODE)),
        message: String::from_utf8_lossy(&log.payload).into_owned(),
    });
    from.base.tags = from.tags.merge(&from.source_id);
    system(&mut from.base, EventType::Error)
}

fn counter(from: From, counter: v2::Counter) -> Payload {
    let mut base = with_instance(from);
    base.counter_event =
        Some(events::CounterEvent { name: counter.name, delta: counter.delta, total: Some(counter.total) });
    system(&mut base, EventType::CounterEvent)
}

fn values(from: From, metrics: HashMap<String, v2::GaugeValue>, out: &mut Vec<Payload>) {
    let mut base = with_instance(from);
    let mut metrics: Vec<_> = metrics.into_iter().collect();
    metrics.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (name, v2::GaugeValue { unit, value }) in metrics {
        base.value_metric = Some(events::ValueMetric { name, value, unit });
        out.push(system(&mut base, EventType::ValueMetric));
    }
}

/// A counter's or gauge's instance is a tag in v1.
fn with_instance(mut from: From) -> events::Envelope {
    from.base.tags = from.tags.merge(&from.source_id);
    if !from.instance_id.is_empty() {
        from.base.tags.insert(tag::INSTANCE_ID.to_owned(), from.instance_id);
    }
    from.base
}

/// The five gauges of a container metric, if all are there and none is without both unit and value.
fn container(metrics: &HashMap<String, v2::GaugeValue>) -> Option<events::ContainerMetric> {
    let value = |name| metrics.get(name).filter(|gauge| !gauge.unit.is_empty() || gauge.value != 0.0).map(|g| g.value);
    Some(events::ContainerMetric {
        cpu_percentage: value(metric::CPU)?,
        memory_bytes: value(metric::MEMORY)? as u64,
        disk_bytes: value(metric::DISK)? as u64,
        memory_bytes_quota: Some(value(metric::MEMORY_QUOTA)? as u64),
        disk_bytes_quota: Some(value(metric::DISK_QUOTA)? as u64),
        ..events::ContainerMetric::default()
    })
}

fn container_metric(
    from: From,
    mut container: events::ContainerMetric,
    metrics: &HashMap<String, v2::GaugeValue>,
) -> Payload {
    container.instance_index = match metrics.get(metric::INSTANCE_INDEX) {
        Some(gauge) => gauge.value as i32,
        None => int32(&from.instance_id),
    };
    let mut base = from.base;
    base.tags = from.tags.merge(&from.source_id);
    container.application_id = from.source_id;
    base.container_metric = Some(container);
    let bytes = encode(&mut base, EventType::ContainerMetric);
    let app_id = base.container_metric.map(|container| container.application_id).unwrap_or_default();
    Payload { event_type: EventType::ContainerMetric, app_id: Cow::Owned(app_id), bytes }
}

fn request(mut from: From, timer: &v2::Timer) -> Payload {
    let tags = &mut from.tags;
    let application_id = Uuid::parse(&from.source_id);
    from.base.http_start_stop = Some(events::HttpStartStop {
        start_timestamp: timer.start,
        stop_timestamp: timer.stop,
        request_id: Uuid::parse(&tags.take(tag::REQUEST_ID)).unwrap_or_default(),
        peer_type: events::PeerType::from_str_name(&tags.take(tag::PEER_TYPE)).map_or(0, i32::from),
        method: events::Method::from_str_name(&tags.take(tag::METHOD)).map_or(0, i32::from),
        uri: tags.take(tag::URI),
        remote_address: tags.take(tag::REMOTE_ADDRESS),
        user_agent: tags.take(tag::USER_AGENT),
        status_code: int32(&tags.take(tag::STATUS_CODE)),
        content_length: tags.take(tag::CONTENT_LENGTH).parse().unwrap_or(0),
        application_id,
        instance_index: Some(int32(&from.instance_id)),
        instance_id: Some(tags.take(tag::ROUTING_INSTANCE_ID)),
        forwarded: tags.take(tag::FORWARDED).split('\n').map(str::to_owned).collect(),
    });
    from.base.tags = from.tags.merge(&from.source_id);
    Payload {
        event_type: EventType::HttpStartStop,
        app_id: application_id.map_or(Cow::Borrowed(SYSTEM), |app| Cow::Owned(app.to_string())),
        bytes: encode(&mut from.base, EventType::HttpStartStop),
    }
}

/// A payload that belongs to no app.
fn system(base: &mut events::Envelope, event_type: EventType) -> Payload {
    Payload { event_type, app_id: Cow::Borrowed(SYSTEM), bytes: encode(base, event_type) }
}

fn encode(envelope: &mut events::Envelope, event_type: EventType) -> Bytes {
    envelope.event_type = event_type.into();
    Bytes::from(envelope.encode_to_vec())
}

/// A decimal of up to 64 bits, cut to its last 32; 0 for anything else.
fn int32(text: &str) -> i32 {
    text.parse::<i64>().map_or(0, |value| value as i32)
}
