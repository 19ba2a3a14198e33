//! Dropsonde v1 ⇄ loggregator v2 (contract: traffic controller v1 §7, loggregator v2 §5.4).
//!
//! [`to_v1`] takes one encoded v2 envelope and appends the v1 payloads it becomes; [`from_v1`] takes one v1 payload and gives the v2
//! envelope. Both are for edges: they decode.
//!
//! *Invariant*: pure, and nothing vanishes silently: what gives no payload says why ([`Converted`], [`V1Error`]). Every payload
//! made here carries all the fields that v1 readers require, and its text is UTF-8.

mod from_v1;
pub mod fuzz;
mod required;
mod to_v1;
mod uuid;

use std::borrow::Cow;

use bytes::Bytes;

pub use from_v1::{Decoded, Machine, V1Error, decode, from_v1};
pub use required::Missing;
pub use to_v1::to_v1;

pub use crate::events::envelope::EventType;
use crate::raw::{Batch, Kind};
use crate::reason::Reason;

/// The routing app id of payloads that belong to no app.
pub const SYSTEM: &str = "system";

/// One v1 payload: a serialised `events.Envelope`, with what v1 subscriptions select by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its event type. A `logs` filter takes [`EventType::LogMessage`], a `metrics` filter everything else.
    pub event_type: EventType,
    /// The app it is routed to: `app_id` of a log, `applicationId` of a container metric, `applicationId` as text of a request that
    /// has one, else [`SYSTEM`]. May be empty, and then it belongs to no app.
    pub app_id: Cow<'static, str>,
    /// The serialised envelope.
    pub bytes: Bytes,
}

/// What [`to_v1`] did with an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Converted {
    /// So many payloads were appended; at least one.
    Payloads(usize),
    /// v1 has no form for it: an event, a gauge without metrics, an envelope without message.
    NoForm,
    /// It does not decode, so it has not passed the walker.
    Malformed,
}

impl Converted {
    /// Why nothing was appended; `None` when something was.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Payloads(_) => None,
            Self::NoForm => Some(Reason::ConvertError),
            Self::Malformed => Some(Reason::DecodeError),
        }
    }
}

/// Payloads, each with its event type and app, as a batch to route and to send: the app is the source, and the kind is
/// [`Kind::Log`] for logs and [`Kind::Gauge`] for everything else, as v1 filters tell them apart. What encodes it writes a
/// `plumbing.BatchResponse`.
pub fn batch<'a>(payloads: impl Iterator<Item = (&'a [u8], EventType, &'a str)> + Clone) -> Batch {
    Batch::keyed(payloads.map(|(bytes, event_type, app_id)| (bytes, kind(event_type), app_id.as_bytes())))
}

/// The kind of a payload in a [`batch`].
pub fn kind(event_type: EventType) -> Kind {
    if event_type == EventType::LogMessage { Kind::Log } else { Kind::Gauge }
}

/// Whether an encoded v2 log may be an error in v1, which is no log there. Without decoding: it has the tag that says so, or looks like it.
pub fn may_be_error(log: &[u8]) -> bool {
    let (key, value) = (tag::V1_TYPE.as_bytes(), EventType::Error.as_str_name().as_bytes());
    let has = |text: &[u8]| log.windows(text.len()).any(|bytes| bytes == text);
    has(key) && has(value)
}

/// Tags that are fields of their own in v1.
mod tag {
    pub(super) const V1_TYPE: &str = "__v1_type";
    pub(super) const SOURCE_ID: &str = "source_id";
    pub(super) const INSTANCE_ID: &str = "instance_id";
    pub(super) const ORIGIN: &str = "origin";
    pub(super) const DEPLOYMENT: &str = "deployment";
    pub(super) const JOB: &str = "job";
    pub(super) const INDEX: &str = "index";
    pub(super) const IP: &str = "ip";

    /// Logs.
    pub(super) const SOURCE_TYPE: &str = "source_type";

    /// Errors.
    pub(super) const SOURCE: &str = "source";
    pub(super) const CODE: &str = "code";

    /// Requests.
    pub(super) const REQUEST_ID: &str = "request_id";
    pub(super) const PEER_TYPE: &str = "peer_type";
    pub(super) const METHOD: &str = "method";
    pub(super) const URI: &str = "uri";
    pub(super) const REMOTE_ADDRESS: &str = "remote_address";
    pub(super) const USER_AGENT: &str = "user_agent";
    pub(super) const STATUS_CODE: &str = "status_code";
    pub(super) const CONTENT_LENGTH: &str = "content_length";
    pub(super) const ROUTING_INSTANCE_ID: &str = "routing_instance_id";
    pub(super) const FORWARDED: &str = "forwarded";
}

/// Gauges that are fields of a container metric in v1.
mod metric {
    pub(super) const CPU: &str = "cpu";
    pub(super) const MEMORY: &str = "memory";
    pub(super) const DISK: &str = "disk";
    pub(super) const MEMORY_QUOTA: &str = "memory_quota";
    pub(super) const DISK_QUOTA: &str = "disk_quota";
    pub(super) const INSTANCE_INDEX: &str = "instance_index";
}
