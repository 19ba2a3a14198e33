//! v1 → v2 (contract: traffic controller v1 §7.2): one payload, as it came on the wire, becomes one envelope with text tags.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;

use super::required::{self, Missing};
use super::{EventType, SYSTEM, metric, tag};
use crate::raw::Kind;
use crate::v2::envelope::Message;
use crate::{events, v2};

/// Why a v1 payload gives no v2 envelope.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum V1Error {
    /// Not an `events.Envelope`, or text in it that is not UTF-8.
    #[error("not a v1 envelope")]
    Malformed(#[from] prost::DecodeError),
    /// Without a field that v1 requires.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Of an event type that is none of the six.
    #[error("unknown v1 event type {0}")]
    UnknownEvent(i32),
}

/// Makes the v2 envelope of a v1 payload: [`decode`] and [`Decoded::into_v2`].
///
/// # Errors
/// See [`V1Error`]; each is one payload that did not go on (`decode_error`).
pub fn from_v1(payload: &[u8]) -> Result<v2::Envelope, V1Error> {
    decode(payload).map(Decoded::into_v2)
}

/// A v1 payload that v1 readers take.
#[derive(Clone, Debug)]
pub struct Decoded {
    v1: events::Envelope,
    event_type: EventType,
}

/// Decodes a v1 payload and checks it: one decode and one scan for what is required.
///
/// # Errors
/// See [`V1Error`].
pub fn decode(payload: &[u8]) -> Result<Decoded, V1Error> {
    let v1 = events::Envelope::decode(payload)?;
    required::check(payload)?;
    match EventType::try_from(v1.event_type) {
        Ok(event_type) => Ok(Decoded { v1, event_type }),
        Err(_) => Err(V1Error::UnknownEvent(v1.event_type)),
    }
}

/// What an agent's machine is called: fields that a v1 envelope may lack (contract: agents §2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The deployment that it belongs to.
    pub deployment: Option<String>,
    /// The job that it has there.
    pub job: Option<String>,
    /// Its number or id in that job.
    pub index: Option<String>,
    /// Its address.
    pub ip: Option<String>,
}

impl Decoded {
    /// True if the body that its event type names is there. Agents refuse what has none.
    pub fn has_body(&self) -> bool {
        match self.event_type {
            EventType::LogMessage => self.v1.log_message.is_some(),
            EventType::Error => self.v1.error.is_some(),
            EventType::CounterEvent => self.v1.counter_event.is_some(),
            EventType::ValueMetric => self.v1.value_metric.is_some(),
            EventType::ContainerMetric => self.v1.container_metric.is_some(),
            EventType::HttpStartStop => self.v1.http_start_stop.is_some(),
        }
    }

    /// As the first agent hands it on: from `machine` where it does not say itself where it is from (an empty field says so), and with
    /// its origin as `source_id` where it has none.
    #[must_use]
    pub fn on(mut self, machine: &Machine) -> Self {
        let v1 = &mut self.v1;
        for (field, own) in [
            (&mut v1.deployment, &machine.deployment),
            (&mut v1.job, &machine.job),
            (&mut v1.index, &machine.index),
            (&mut v1.ip, &machine.ip),
        ] {
            if field.is_none() {
                field.clone_from(own);
            }
        }
        if v1.tags.get(tag::SOURCE_ID).is_none_or(String::is_empty) {
            v1.tags.insert(tag::SOURCE_ID.to_owned(), v1.origin.clone());
        }
        self
    }

    /// Its event type.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The app that v1 subscriptions select it by: see [`Payload::app_id`](super::Payload::app_id).
    pub fn app_id(&self) -> Cow<'_, str> {
        match self.event_type {
            EventType::LogMessage => {
                self.v1.log_message.as_ref().and_then(|log| log.app_id.as_deref()).unwrap_or("").into()
            }
            EventType::ContainerMetric => {
                self.v1.container_metric.as_ref().map_or("", |metric| &metric.application_id).into()
            }
            EventType::HttpStartStop => match self.application_id() {
                Some(app) => app.to_string().into(),
                None => SYSTEM.into(),
            },
            EventType::ValueMetric | EventType::CounterEvent | EventType::Error => SYSTEM.into(),
        }
    }

    /// The kind of the v2 envelope that it becomes.
    pub fn kind(&self) -> Kind {
        match self.event_type {
            EventType::LogMessage | EventType::Error => Kind::Log,
            EventType::CounterEvent => Kind::Counter,
            EventType::ValueMetric | EventType::ContainerMetric => Kind::Gauge,
            EventType::HttpStartStop => Kind::Timer,
        }
    }

    /// The `source_id` of the v2 envelope that it becomes.
    pub fn source_id(&self) -> Cow<'_, str> {
        let app: Cow<'_, str> = match self.event_type {
            EventType::LogMessage | EventType::ContainerMetric => self.app_id(),
            EventType::HttpStartStop => match self.application_id().filter(|app| !app.is_zero()) {
                Some(app) => app.to_string().into(),
                None => "".into(),
            },
            _ => "".into(),
        };
        if !app.is_empty() {
            return app;
        }
        match self.v1.tags.get(tag::SOURCE_ID) {
            Some(tag) => tag.into(),
            None => format!(
                "{}/{}",
                self.v1.deployment.as_deref().unwrap_or_default(),
                self.v1.job.as_deref().unwrap_or_default()
            )
            .into(),
        }
    }

    fn application_id(&self) -> Option<events::Uuid> {
        self.v1.http_start_stop.as_ref().and_then(|request| request.application_id)
    }

    /// The v2 envelope that it becomes.
    ///
    /// The event type decides the kind; a body of another type is not looked at, and a missing body counts as an empty one. The
    /// envelope has not passed the first hop's limits. Strings are moved.
    pub fn into_v2(self) -> v2::Envelope {
        into_v2(self)
    }
}

fn into_v2(Decoded { v1, event_type }: Decoded) -> v2::Envelope {
    let deployment = v1.deployment.unwrap_or_default();
    let job = v1.job.unwrap_or_default();
    let mut tags = v1.tags;
    let source_id = tags.remove(tag::SOURCE_ID).unwrap_or_else(|| format!("{deployment}/{job}"));
    put(&mut tags, tag::ORIGIN, v1.origin);
    put(&mut tags, tag::DEPLOYMENT, deployment);
    put(&mut tags, tag::JOB, job);
    put(&mut tags, tag::INDEX, v1.index.unwrap_or_default());
    put(&mut tags, tag::IP, v1.ip.unwrap_or_default());
    put(&mut tags, tag::V1_TYPE, event_type.as_str_name());

    let mut envelope =
        v2::Envelope { timestamp: v1.timestamp.unwrap_or_default(), source_id, tags, ..v2::Envelope::default() };
    let message = match event_type {
        EventType::LogMessage => log(v1.log_message.unwrap_or_default(), &mut envelope),
        EventType::Error => error(v1.error.unwrap_or_default(), &mut envelope),
        EventType::CounterEvent => counter(v1.counter_event.unwrap_or_default(), &mut envelope),
        EventType::ValueMetric => value(v1.value_metric.unwrap_or_default(), &mut envelope),
        EventType::ContainerMetric => container(v1.container_metric.unwrap_or_default(), &mut envelope),
        EventType::HttpStartStop => request(v1.http_start_stop.unwrap_or_default(), &mut envelope),
    };
    envelope.message = Some(message);
    envelope
}

type Tags = std::collections::HashMap<String, String>;

fn put(tags: &mut Tags, key: &str, value: impl Into<String>) {
    tags.insert(key.to_owned(), value.into());
}

fn log(log: events::LogMessage, into: &mut v2::Envelope) -> Message {
    let r#type = match log.message_type() {
        events::log_message::MessageType::Err => v2::log::Type::Err,
        events::log_message::MessageType::Out => v2::log::Type::Out,
    };
    set_source(into, log.app_id.unwrap_or_default());
    into.instance_id = log.source_instance.unwrap_or_default();
    put(&mut into.tags, tag::SOURCE_TYPE, log.source_type.unwrap_or_default());
    Message::Log(v2::Log { payload: log.message, r#type: r#type.into() })
}

fn error(error: events::Error, into: &mut v2::Envelope) -> Message {
    put(&mut into.tags, tag::SOURCE, error.source);
    put(&mut into.tags, tag::CODE, error.code.to_string());
    Message::Log(v2::Log { payload: Bytes::from(error.message), r#type: v2::log::Type::Out.into() })
}

fn counter(counter: events::CounterEvent, into: &mut v2::Envelope) -> Message {
    into.instance_id = into.tags.remove(tag::INSTANCE_ID).unwrap_or_default();
    Message::Counter(v2::Counter { name: counter.name, delta: counter.delta, total: counter.total.unwrap_or_default() })
}

fn value(metric: events::ValueMetric, into: &mut v2::Envelope) -> Message {
    into.instance_id = into.tags.get(tag::INSTANCE_ID).cloned().unwrap_or_default();
    let value = v2::GaugeValue { unit: metric.unit, value: metric.value };
    Message::Gauge(v2::Gauge { metrics: [(metric.name, value)].into() })
}

/// Bytes above 2^53 lose their last digits: v2 has doubles.
fn container(container: events::ContainerMetric, into: &mut v2::Envelope) -> Message {
    set_source(into, container.application_id);
    into.instance_id = container.instance_index.to_string();
    let gauge = |name: &str, unit: &str, value| (name.to_owned(), v2::GaugeValue { unit: unit.to_owned(), value });
    let bytes = |name, value: Option<u64>| gauge(name, "bytes", value.unwrap_or_default() as f64);
    let metrics = [
        gauge(metric::CPU, "percentage", container.cpu_percentage),
        bytes(metric::MEMORY, Some(container.memory_bytes)),
        bytes(metric::DISK, Some(container.disk_bytes)),
        bytes(metric::MEMORY_QUOTA, container.memory_bytes_quota),
        bytes(metric::DISK_QUOTA, container.disk_bytes_quota),
    ];
    Message::Gauge(v2::Gauge { metrics: metrics.into() })
}

fn request(request: events::HttpStartStop, into: &mut v2::Envelope) -> Message {
    if let Some(app) = request.application_id.filter(|app| !app.is_zero()) {
        into.source_id = app.to_string();
    }
    into.instance_id = request.instance_index.unwrap_or_default().to_string();
    let peer_type = match events::PeerType::try_from(request.peer_type) {
        Ok(peer_type) => peer_type.as_str_name().to_owned(),
        Err(_) => request.peer_type.to_string(),
    };
    let method = match events::Method::try_from(request.method) {
        Ok(method) => method.as_str_name().to_owned(),
        Err(_) => request.method.to_string(),
    };
    let tags = &mut into.tags;
    put(tags, tag::REQUEST_ID, request.request_id.to_string());
    put(tags, tag::PEER_TYPE, peer_type);
    put(tags, tag::METHOD, method);
    put(tags, tag::URI, request.uri);
    put(tags, tag::REMOTE_ADDRESS, request.remote_address);
    put(tags, tag::USER_AGENT, request.user_agent);
    put(tags, tag::STATUS_CODE, request.status_code.to_string());
    put(tags, tag::CONTENT_LENGTH, request.content_length.to_string());
    put(tags, tag::ROUTING_INSTANCE_ID, request.instance_id.unwrap_or_default());
    put(tags, tag::FORWARDED, request.forwarded.join("\n"));
    Message::Timer(v2::Timer { name: "http".to_owned(), start: request.start_timestamp, stop: request.stop_timestamp })
}

/// An app id, where there is one, is the source.
fn set_source(into: &mut v2::Envelope, app_id: String) {
    if !app_id.is_empty() {
        into.source_id = app_id;
    }
}
