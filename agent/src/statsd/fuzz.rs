//! The property that a fuzz target holds on arbitrary bytes, and that the tests replay.

use std::num::NonZeroUsize;

use bytes::Bytes;
use proto::raw::{Batch, Kind, Limits, Refused, Selection, gauge_names, tags};

use super::{Collector, MAX_DATAGRAM, Mapping, Settings, State, lines, notice};

/// Reads `datagram` as a socket's, in both mappings, and holds what is promised of it.
///
/// # Panics
/// When a promise is broken: a line is neither taken nor counted, or an envelope is none that every hop takes.
pub fn fuzz(datagram: &[u8]) {
    classic(datagram);
    native(datagram);
}

fn settings(mapping: Mapping) -> Settings {
    Settings { mapping, max_series: NonZeroUsize::MIN, max_values: NonZeroUsize::MIN, ..Settings::default() }
}

/// Each line of the original's types is a gauge or counted.
fn classic(datagram: &[u8]) {
    let mut collector = Collector::new(State::new(settings(Mapping::Classic), NonZeroUsize::MIN));
    let (mut bad, mut others) = (0_u64, 0);
    collector.add(datagram, 1, |_, _| bad += 1);
    let expected = if datagram.len() > MAX_DATAGRAM { 1 } else { lines(datagram).count() as u64 };
    let (batch, refused) = collector.take().unwrap_or_else(|| (Batch::index(Bytes::new()).0, Refused::default()));
    assert!(bad <= refused.total());
    for line in lines(datagram) {
        // Of these some are told at a flush.
        others += u64::from(notice::is_notice(line) || super::Line::parse(line).is_ok());
    }
    let told = batch.len() as u64 + refused.total();
    assert!(told <= expected + others && told + others >= expected, "{told} of {expected}, {others} others");
    for entry in checked(batch).entries() {
        assert!(entry.timestamp > 0, "no time before 1970: {}", entry.timestamp);
    }
}

/// Each line is refused, or makes some envelopes now or later.
fn native(datagram: &[u8]) {
    let mut collector = Collector::new(State::new(settings(Mapping::Native), NonZeroUsize::MIN));
    let mut bad = 0_u64;
    collector.add(datagram, 1, |_, _| bad += 1);
    let taken = collector.take();
    let refused = taken.as_ref().map_or(0, |(_, refused)| refused.total());
    assert!(bad <= refused || taken.is_none());
    taken.into_iter().for_each(|(batch, _)| drop(checked(batch)));
    collector.flush(2, |(batch, refused)| {
        assert_eq!(refused.total(), 0, "what is told is within the limits");
        drop(checked(batch));
    });
    collector.flush(3, |_| panic!("nothing came"));
}

/// The batch as the next hop checks it, which takes all of it.
fn checked(batch: Batch) -> Batch {
    let mut bytes = Vec::new();
    let count = batch.len();
    Selection::from(batch).put(&mut bytes);
    let (checked, broken) = Batch::check(Bytes::from(bytes), &Limits::default());
    assert_eq!((checked.len(), broken.total()), (count, 0), "every hop takes what was built");
    for entry in checked.entries() {
        let envelope = checked.envelope(entry);
        assert!(!checked.source_id(entry).is_empty());
        assert!(tags::get(envelope, b"origin").is_some());
        let names = gauge_names(envelope).len();
        assert!(entry.kind != Kind::Gauge || names == 1 || names == 14, "one value, or a summary");
    }
    checked
}
