//! What a WebSocket endpoint subscribes to, and the frames it makes of it. Pure.
//!
//! What enters: an endpoint as its path names it, and selections of v2 envelopes. What leaves: the request for the dopplers, and
//! v1 payloads that belong to the endpoint, in order. An envelope that has no v1 form, or cannot be read, is counted, never
//! silently lost.

use std::collections::VecDeque;

use proto::raw::{Kind, Selection, tags};
use proto::reason::Reason;
use proto::v1::{EventType, Payload, to_v1};
use proto::v2;
use proto::v2::selector::Message as Select;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::Access;
use crate::websocket::feed::Frame;

/// An endpoint for v1 consumers (contract: traffic controller v1 §1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/firehose/{id}`: every source, shared by the connections of the same id and filter.
    Firehose {
        /// The subscription id.
        id: String,
        /// What `filter-type` says.
        filter: Filter,
    },
    /// `/apps/{guid}/stream`: one app, all of it for everybody who asks.
    App {
        /// The app's id.
        guid: String,
    },
}

/// The `filter-type` of a firehose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// None, or any other text.
    All,
    /// `logs`.
    Logs,
    /// `metrics`: everything that is no log message, errors too.
    Metrics,
}

impl Filter {
    /// The filter as a query says it. Of several `filter-type`s the first counts.
    pub(crate) fn from_query(query: Option<&str>) -> Self {
        let mut pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let value = pairs.find(|(key, _)| decoded(key) == "filter-type").map(|(_, value)| decoded(value));
        match value.as_deref() {
            Some("logs") => Self::Logs,
            Some("metrics") => Self::Metrics,
            _ => Self::All,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// The kinds of v2 envelope that may become a payload of the filter. Metrics need the logs, as a v1 error is one.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::All | Self::Metrics => &[Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer],
            Self::Logs => &[Kind::Log],
        }
    }
}

impl Endpoint {
    /// What it reads, for the authorizer.
    pub(crate) fn access(&self) -> Access<'_> {
        match self {
            Self::Firehose { .. } => Access::V1Firehose,
            Self::App { guid } => Access::AppStream(guid),
        }
    }

    /// The request to every doppler. The shard of a firehose is one that no gRPC consumer shares by accident.
    pub(crate) fn request(&self) -> v2::EgressBatchRequest {
        let (shard_id, source_id, kinds) = match self {
            Self::Firehose { id, filter } => (format!("firehose/{}/{id}", filter.name()), "", filter.kinds()),
            Self::App { guid } => (String::new(), guid.as_str(), &[Kind::Log, Kind::Gauge, Kind::Timer][..]),
        };
        let selectors = kinds.iter().map(|kind| selector(source_id, *kind)).collect();
        v2::EgressBatchRequest { shard_id, selectors, use_preferred_tags: true, ..v2::EgressBatchRequest::default() }
    }

    /// True when the endpoint shows `payload`.
    fn shows(&self, payload: &Payload) -> bool {
        match self {
            Self::Firehose { filter: Filter::All, .. } => true,
            Self::Firehose { filter: Filter::Logs, .. } => payload.event_type == EventType::LogMessage,
            Self::Firehose { filter: Filter::Metrics, .. } => payload.event_type != EventType::LogMessage,
            Self::App { guid } => payload.app_id == *guid,
        }
    }

    /// True when the endpoint surely shows nothing of an envelope: found without decoding it, as most logs on their way to a
    /// `metrics` firehose are.
    fn surely_hides(&self, kind: Kind, envelope: &[u8]) -> bool {
        matches!(self, Self::Firehose { filter: Filter::Metrics, .. })
            && kind == Kind::Log
            && tags::get(envelope, b"__v1_type").is_none()
    }
}

/// What became of the envelopes that gave no frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// They belong to another endpoint.
    pub(crate) filtered: u64,
    /// They have no v1 form.
    pub(crate) no_form: u64,
    /// They cannot be read.
    pub(crate) malformed: u64,
}

impl Left {
    /// The dropped ones with their reasons.
    pub(crate) fn dropped(self) -> [(Reason, u64); 2] {
        [(Reason::ConvertError, self.no_form), (Reason::DecodeError, self.malformed)]
    }
}

/// Makes frames for one endpoint.
pub(crate) struct Converter {
    endpoint: Endpoint,
    /// The payloads of the envelope in hand.
    payloads: Vec<Payload>,
}

impl Converter {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, payloads: Vec::new() }
    }

    /// Appends the frames that `part` gives to `frames`. Decodes the envelopes that may give one.
    pub(crate) fn put(&mut self, part: &Selection, frames: &mut VecDeque<Frame>) -> Left {
        let mut left = Left::default();
        for entry in part.entries() {
            let envelope = part.batch().envelope(entry);
            if self.endpoint.surely_hides(entry.kind, envelope) {
                left.filtered += 1;
                continue;
            }
            self.payloads.clear();
            match to_v1(part.batch().envelope_bytes(entry), &mut self.payloads).reason() {
                Some(Reason::DecodeError) => left.malformed += 1,
                Some(_) => left.no_form += 1,
                None => {
                    let before = frames.len();
                    let shown = self.payloads.drain(..).filter(|payload| self.endpoint.shows(payload));
                    frames.extend(shown.map(|payload| Frame { message: Message::Binary(payload.bytes), envelopes: 0 }));
                    let made = frames.len() - before;
                    match frames.back_mut() {
                        // With the last frame made of it, an envelope is delivered.
                        Some(last) if made > 0 => last.envelopes = 1,
                        _ => left.filtered += 1,
                    }
                }
            }
        }
        left
    }
}

fn selector(source_id: &str, kind: Kind) -> v2::Selector {
    let message = match kind {
        Kind::Log => Select::Log(v2::LogSelector::default()),
        Kind::Counter => Select::Counter(v2::CounterSelector::default()),
        Kind::Gauge => Select::Gauge(v2::GaugeSelector::default()),
        Kind::Timer => Select::Timer(v2::TimerSelector::default()),
        Kind::Event | Kind::None => Select::Event(v2::EventSelector::default()),
    };
    v2::Selector { source_id: source_id.to_owned(), message: Some(message) }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
