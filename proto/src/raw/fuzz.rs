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
    let sent = Selection::from(batch).encode();
    let read = v2::EnvelopeBatch::decode(sent.clone()).expect("what is sent decodes");
    assert_eq!(read.batch.len(), kept);
    let (index, refused) = Batch::index(sent);
    assert_eq!((index.len(), refused.total()), (kept, 0));
}
