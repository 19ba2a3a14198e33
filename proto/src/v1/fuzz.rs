//! The properties that the fuzz targets hold on arbitrary bytes, and that the tests replay over their seed corpora.

use bytes::Bytes;
use prost::Message;

use super::{Payload, batch, decode, from_v1, kind, to_v1};
use crate::raw::{Batch, Limits, Selection};
use crate::{events, v2};

/// Takes `bytes` as a v1 payload.
///
/// # Panics
/// When what routing is told of it is not what conversion makes of it, or what conversion makes of it is not v2.
pub fn payload(bytes: &[u8]) {
    let Ok(decoded) = decode(bytes) else {
        assert!(from_v1(bytes).is_err());
        return;
    };
    events::Envelope::decode(bytes).expect("what was decoded decodes again");
    let (app_id, event_type) = (decoded.app_id().into_owned(), decoded.event_type());
    if app_id.len() <= usize::from(u16::MAX) {
        let keyed = batch([(bytes, event_type, &*app_id)].into_iter());
        let entry = &keyed.entries()[0];
        assert_eq!((keyed.envelope(entry), keyed.source_id(entry)), (bytes, app_id.as_bytes()));
        assert_eq!(entry.kind, kind(event_type));
        let sent = Selection::from(keyed).encode();
        let read = crate::plumbing::BatchResponse::decode(sent).expect("a batch of payloads is a BatchResponse");
        assert_eq!(read.payload, [bytes]);
    }
    let (source_id, v2_kind) = (decoded.source_id().into_owned(), decoded.kind());
    let envelope = decoded.into_v2().encode_to_vec();
    let (made, refused) = Batch::check_one(envelope.into(), &Limits::NONE);
    assert_eq!(refused.total(), 0, "what is made of a payload passes the walker");
    let entry = &made.entries()[0];
    assert_eq!((made.source_id(entry), entry.kind), (source_id.as_bytes(), v2_kind));
}

/// Takes `bytes` as an encoded v2 envelope, there and back.
///
/// # Panics
/// When what is made of an envelope is not v1, is lost in silence, or does not come back with its source, time and kind.
pub fn convert(bytes: &[u8]) {
    let (batch, _) = Batch::check_one(Bytes::copy_from_slice(bytes), &Limits::default());
    let Some(entry) = batch.entries().first() else { return };
    let mut payloads = Vec::new();
    let converted = to_v1(bytes, &mut payloads);
    assert_eq!(converted.reason().is_some(), payloads.is_empty(), "nothing vanishes in silence");
    for Payload { event_type, app_id, bytes: made } in &payloads {
        let decoded = decode(made).expect("what is made is v1");
        assert_eq!((decoded.event_type(), decoded.app_id()), (*event_type, app_id.clone()));
        payload(made);
        let back = decoded.into_v2();
        assert_eq!((back.timestamp, kind_of(&back)), (entry.timestamp, Some(entry.kind)));
    }
}

fn kind_of(envelope: &v2::Envelope) -> Option<crate::raw::Kind> {
    let (batch, _) = Batch::check_one(envelope.encode_to_vec().into(), &Limits::NONE);
    batch.entries().first().map(|entry| entry.kind)
}

#[cfg(test)]
mod tests {
    /// Runs a property over its seeds, of which there are some.
    fn replay(target: &str, property: fn(&[u8])) {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut replayed = 0;
        for seed in std::fs::read_dir(seeds).expect("the corpus is part of the repository") {
            property(&std::fs::read(seed.expect("readable").path()).expect("readable"));
            replayed += 1;
        }
        assert!(replayed >= 20, "only {replayed} seeds of {target} were replayed");
    }

    #[test]
    fn the_fuzz_corpora_hold() {
        replay("dropsonde_v1", super::payload);
        replay("v1_v2_convert", super::convert);
        // Each is an input of the other too.
        replay("v1_v2_convert", super::payload);
        replay("dropsonde_v1", super::convert);
    }
}
