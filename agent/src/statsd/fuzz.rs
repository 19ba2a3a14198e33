//! The property that a fuzz target holds on arbitrary bytes, and that the tests replay.

use std::num::NonZeroUsize;

use bytes::Bytes;
use proto::raw::{Batch, Kind, Limits, gauge_names, tags};

use super::{Aggregator, Collector, MAX_DATAGRAM, lines};

/// Reads `datagram` as a socket's and holds what is promised of it.
///
/// # Panics
/// When a promise is broken: a line is neither an envelope nor counted, or an envelope is no gauge of one entry that every hop takes.
pub fn fuzz(datagram: &[u8]) {
    let mut collector = Collector::new(Aggregator::new(NonZeroUsize::MIN));
    let mut bad = 0_u64;
    collector.add(datagram, 1, |_, _| bad += 1);
    let expected = if datagram.len() > MAX_DATAGRAM { 1 } else { lines(datagram).count() as u64 };
    let Some((batch, refused)) = collector.take() else {
        assert_eq!(expected, 0, "every line becomes an envelope or is counted");
        return;
    };
    assert_eq!(batch.len() as u64 + refused.total(), expected, "every line becomes an envelope or is counted");
    assert!(bad <= refused.total());
    let mut bytes = Vec::new();
    proto::raw::Selection::from(batch.clone()).put(&mut bytes);
    let (checked, broken) = Batch::check(Bytes::from(bytes), &Limits::default());
    assert_eq!((checked.len(), broken.total()), (batch.len(), 0), "every hop takes what was built");
    for entry in checked.entries() {
        let envelope = checked.envelope(entry);
        assert_eq!((entry.kind, gauge_names(envelope).len(), entry.timestamp), (Kind::Gauge, 1, 1));
        assert!(!checked.source_id(entry).is_empty());
        assert!(tags::get(envelope, b"origin").is_some());
    }
}
