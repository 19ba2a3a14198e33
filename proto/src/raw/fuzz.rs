//! The property that the fuzz target holds on arbitrary bytes, and that the tests replay over the seed corpus.

use bytes::Bytes;
use prost::Message;

use super::tags::{self, Form};
use super::{Batch, Limits, Selection, counter_name, edit, gauge_names};
use crate::v2;

/// Walks `bytes` as an `EnvelopeBatch` and holds what is promised of it.
///
/// # Panics
/// When a promise is broken: an envelope that passed does not decode, decodes to something else than the walker said, or is not
/// written as it came.
pub fn batch(bytes: &[u8]) {
    let (batch, _) = Batch::check(Bytes::copy_from_slice(bytes), &Limits::default());
    for entry in batch.entries() {
        let envelope = batch.envelope(entry);
        let decoded = v2::Envelope::decode(envelope).expect("what passed the checks decodes");
        assert_eq!(batch.source_id(entry), decoded.source_id.as_bytes());
        assert_eq!(batch.instance_id(entry), decoded.instance_id.as_bytes());
        assert_eq!(entry.timestamp, decoded.timestamp);
        let (name, names) = (counter_name(envelope), gauge_names(envelope));
        match &decoded.message {
            Some(v2::envelope::Message::Counter(counter)) => {
                assert_eq!(name, counter.name.as_bytes());
                assert_eq!(edit::counter_values(envelope), (counter.delta, counter.total));
            }
            Some(v2::envelope::Message::Gauge(gauge)) => assert_eq!(names.len(), gauge.metrics.len()),
            _ => assert!(name.is_empty() && names.is_empty()),
        }
        tags::each(envelope, |_| ());
        for form in [Form::Preferred, Form::Deprecated] {
            let mut converted = Vec::new();
            form.put(&mut converted, envelope);
            v2::Envelope::decode(&*converted).expect("a converted envelope decodes");
            assert!(form.fits(&converted));
        }
    }
    let kept = batch.len();
    let whole = Selection::from(batch);
    for form in [Form::Preferred, Form::Deprecated] {
        // The index is moved along, and is the one that a walk over the new bytes gives.
        let converted = form.convert(&whole);
        let (walked, refused) = Batch::index(converted.encode());
        assert_eq!((converted.len(), walked.len(), refused.total()), (kept, kept, 0));
        for (moved, found) in converted.entries().zip(walked.entries()) {
            let batch = converted.batch();
            assert_eq!(batch.source_id(moved), walked.source_id(found));
            assert_eq!(batch.instance_id(moved), walked.instance_id(found));
            assert_eq!(batch.envelope(moved), walked.envelope(found));
            assert_eq!((moved.kind, moved.timestamp, moved.source), (found.kind, found.timestamp, found.source));
        }
    }
    let sent = whole.encode();
    let read = v2::EnvelopeBatch::decode(sent.clone()).expect("what is sent decodes");
    assert_eq!(read.batch.len(), kept);
    let (index, refused) = Batch::index(sent);
    assert_eq!((index.len(), refused.total()), (kept, 0));
}
