//! Which envelopes a stream is to have, and under which subject.

use proto::raw::Kind;
use proto::raw::wire::Malformed;
use proto::subject;

use super::place::Place;
use crate::read::Envelope;
use crate::syslog::config::LogTypes;

/// The subject of an envelope; `None` if the stream is not to have it.
pub(super) fn subject_of(bytes: &[u8], place: &Place, log_types: &LogTypes) -> Result<Option<String>, Malformed> {
    let mut spare = Vec::new();
    let mut envelope = Envelope::default();
    envelope.read(bytes, &mut spare)?;
    let kind = wanted(&envelope, &place.stream, log_types);
    Ok(kind.map(|kind| subject::subject(&place.prefix, kind, envelope.source_id, envelope.instance_id)))
}

/// The kind of an envelope that the stream is to have: not what came out of this stream, and no log of a type that is not wanted.
fn wanted(envelope: &Envelope<'_>, stream: &str, log_types: &LogTypes) -> Option<Kind> {
    let kind = envelope.message.map_or(Kind::None, |(kind, _)| kind);
    let (tag, stream) = (subject::STREAM_TAG.as_bytes(), stream.as_bytes());
    // Every entry counts, not the last alone: it may have come through several streams.
    if envelope.tags().any(|(key, value)| key == tag && value == stream) {
        return None;
    }
    if kind == Kind::Log && !log_types.admits_all() {
        let source_type = String::from_utf8_lossy(envelope.tag("source_type"));
        return log_types.admits(Some(&source_type)).then_some(kind);
    }
    (kind != Kind::None).then_some(kind)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::v2;

    use super::*;

    fn kind(envelope: &v2::Envelope, log_types: &LogTypes) -> Option<Kind> {
        let bytes = envelope.encode_to_vec();
        let mut spare = Vec::new();
        let mut parts = Envelope::default();
        parts.read(&bytes, &mut spare).unwrap();
        wanted(&parts, "LOGS", log_types)
    }

    #[test]
    fn what_came_out_of_the_stream_does_not_go_in_again() {
        let all = LogTypes::All;
        let log = || v2::Envelope::log("app", "x");
        assert_eq!(kind(&log(), &all), Some(Kind::Log));
        assert_eq!(kind(&log().tag("nats_stream", "OTHER"), &all), Some(Kind::Log));
        assert_eq!(kind(&log().tag("nats_stream", "LOGS"), &all), None);
        assert_eq!(kind(&v2::Envelope::default(), &all), None);
        // Through LOGS and then OTHER: both are on the wire.
        let mut bytes = log().encode_to_vec();
        for stream in ["LOGS", "OTHER"] {
            proto::raw::edit::put_tag(&mut bytes, b"nats_stream", stream.as_bytes());
        }
        let mut spare = Vec::new();
        let mut parts = Envelope::default();
        parts.read(&bytes, &mut spare).unwrap();
        assert_eq!(wanted(&parts, "LOGS", &all), None);
    }

    #[test]
    fn log_types_choose_among_logs_alone() {
        let only = LogTypes::Only(vec!["RTR"]);
        let log = |of: &str| v2::Envelope::log("app", "x").tag("source_type", of);
        assert_eq!(kind(&log("RTR/0"), &only), Some(Kind::Log));
        assert_eq!(kind(&log("APP/PROC/WEB"), &only), None);
        assert_eq!(kind(&v2::Envelope::log("app", "x"), &only), None);
        assert_eq!(kind(&v2::Envelope::counter("app", "c", 1), &only), Some(Kind::Counter));
    }
}
