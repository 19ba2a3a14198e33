//! The tag that says out of which stream an envelope came.

use bytes::{Bytes, BytesMut};
use proto::raw::{Batch, Limits, Refused, edit, tags};
use proto::subject::STREAM_TAG;

/// An envelope checked as it came, with the mark of its stream, or without if the mark puts it over a limit.
pub(super) fn marked(payload: &Bytes, stream: &str) -> (Batch, Refused) {
    let limits = Limits::default();
    // Before anything is appended: the end of a broken one would swallow it.
    let checked = Batch::check_one(payload.clone(), &limits);
    if checked.1.total() > 0 {
        return checked;
    }
    let mut whole = BytesMut::with_capacity(payload.len() + STREAM_TAG.len() + stream.len() + 8);
    whole.extend_from_slice(payload);
    edit::put_tag(&mut whole, STREAM_TAG.as_bytes(), stream.as_bytes());
    let marked = Batch::check_one(whole.freeze(), &limits);
    if marked.1.total() > 0 { checked } else { marked }
}

/// Whether a checked envelope has come out of this stream before. Every entry counts: it may have come through several streams.
pub(super) fn has_mark(envelope: &[u8], stream: &str) -> bool {
    let mut found = false;
    tags::each(envelope, |tag| {
        let same = matches!(tag.value, tags::Value::Text(text) if text == stream.as_bytes());
        found |= same && tag.key == STREAM_TAG.as_bytes();
    });
    found
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2;

    use super::*;

    #[test]
    fn an_envelope_is_marked_and_nothing_else_of_it_changes() {
        let envelope = v2::Envelope::log("app", "x").tag("a", "1").encode_to_vec();
        let (batch, refused) = marked(&envelope.clone().into(), "LOGS");
        assert_eq!(refused.total(), 0);
        let marked = batch.envelope(&batch.entries()[0]);
        assert!(marked.starts_with(&envelope));
        assert_eq!(v2::Envelope::decode(marked).unwrap().tags["nats_stream"], "LOGS");
    }

    #[test]
    fn an_envelope_without_room_for_the_mark_passes_as_it_came() {
        let full = (0..128).fold(v2::Envelope::log("s", "x"), |envelope, i| envelope.tag(i.to_string(), "v"));
        let frame = v2::Envelope::log("s", vec![b'x'; 1 << 19]).encode_to_vec().len() - (1 << 19);
        let large = v2::Envelope::log("s", vec![b'x'; (1 << 20) - frame]);
        for envelope in [full.encode_to_vec(), large.encode_to_vec()] {
            let (batch, refused) = marked(&envelope.clone().into(), "LOGS");
            assert_eq!(refused.total(), 0);
            assert_eq!(batch.envelope(&batch.entries()[0]), envelope);
        }
    }

    #[test]
    fn an_envelope_that_was_in_the_stream_before_is_known() {
        let mut envelope = v2::Envelope::log("s", "x").encode_to_vec();
        assert!(!has_mark(&envelope, "LOGS"));
        edit::put_tag(&mut envelope, STREAM_TAG.as_bytes(), b"LOGS");
        edit::put_tag(&mut envelope, STREAM_TAG.as_bytes(), b"OTHER");
        assert!(has_mark(&envelope, "LOGS") && has_mark(&envelope, "OTHER") && !has_mark(&envelope, "LOG"));
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_its_reason() {
        let refused = |payload: Vec<u8>| super::marked(&payload.into(), "LOGS").1;
        assert_eq!(refused(b"{\"json\": true}".to_vec()).decode_error, 1);
        // A field whose length reaches past the end would take in what is appended.
        assert_eq!(refused(vec![9 << 3 | 2, 20]).decode_error, 1);
        assert_eq!(refused(v2::Envelope::log("s".repeat(257), "x").encode_to_vec()).oversize, 1);
        let crowded = (0..129).fold(v2::Envelope::log("s", "x"), |envelope, i| envelope.tag(i.to_string(), "v"));
        assert_eq!(refused(crowded.encode_to_vec()).too_many, 1);
    }
}
