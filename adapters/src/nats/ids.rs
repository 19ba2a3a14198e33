//! What a stream knows repeats by: an id per envelope, the same however often it is sent.
//!
//! Pure. In memory an id is a random number of the drain's life and a count. On disk it is what the record carries: its sequence, the
//! millisecond of its arrival and the checksum of its bytes, so that a restart finds the same one, and a buffer that was made anew, or a
//! sequence that is used again after damage, another. The drain's name is in both: two drains to one stream do not hide each other's.

use crate::inlet::One;
use crate::metrics;
use crate::subscribe::SentAs;

/// Gives out ids.
#[derive(Debug)]
pub(super) struct Ids {
    drain: String,
    life: u64,
    next: u64,
}

impl Ids {
    /// For a drain; `life` is random.
    pub(super) fn new(drain: &str, life: u64) -> Self {
        Self { drain: metrics::label(drain), life, next: 0 }
    }

    /// The id of an envelope, and for one in memory what it is made of.
    pub(super) fn of(&mut self, one: &One) -> (String, Option<SentAs>) {
        let drain = &self.drain;
        if let (Some(place), Some(arrival_ms)) = (one.place, one.arrival_ms) {
            let checksum = crc32c::crc32c(&one.bytes);
            return (format!("{drain}-d{place:x}-{arrival_ms:x}-{checksum:08x}"), None);
        }
        let sent_as = one.sent_as.unwrap_or_else(|| {
            self.next += 1;
            SentAs { life: self.life, number: self.next }
        });
        (format!("{drain}-{:x}-{:x}", sent_as.life, sent_as.number), Some(sent_as))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    fn one(bytes: &'static [u8], place: Option<(u64, u64)>, sent_as: Option<SentAs>) -> One {
        let (place, arrival_ms) = place.unzip();
        let (bytes, since) = (Bytes::from_static(bytes), Instant::now());
        One { bytes, since, age: Duration::ZERO, place, arrival_ms, sent_as }
    }

    #[test]
    fn an_id_stays_and_no_two_are_equal() {
        let mut ids = Ids::new("drain", 7);
        let (first, sent_as) = ids.of(&one(b"a", None, None));
        assert_eq!(ids.of(&one(b"a", None, sent_as)).0, first, "put back and taken again");
        let mut after_restart = Ids::new("drain", 8);
        let stored = one(b"a", Some((3, 1000)), None);
        assert_eq!(ids.of(&stored), after_restart.of(&stored), "read again after a restart");
        let others = [
            first,
            ids.of(&one(b"a", None, None)).0,
            after_restart.of(&one(b"a", None, None)).0,
            ids.of(&stored).0,
            ids.of(&one(b"b", Some((3, 1000)), None)).0,
            ids.of(&one(b"a", Some((4, 1000)), None)).0,
            ids.of(&one(b"a", Some((3, 1001)), None)).0,
            Ids::new("other", 7).of(&stored).0,
        ];
        assert_eq!(others.iter().collect::<HashSet<_>>().len(), others.len(), "{others:?}");
    }
}
