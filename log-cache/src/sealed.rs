//! A closed segment as its source keeps it: what a read must know before it opens one, and the envelopes, packed.
//!
//! What enters: a segment that takes no more, which is packed once no lock is held. What leaves: the segment, opened. A copy of a
//! source's open segment takes this form too, so that readers see one kind. Never changes; packing makes another one.

use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use proto::raw::Kind;

use crate::message;
use crate::opened::Opened;
use crate::packed::{Broken, Packed};
use crate::segment::{KindSet, Kinds, Segment, allocated};

/// A closed segment.
#[derive(Debug)]
pub(crate) struct Sealed {
    first_sequence: u64,
    last_sequence: u64,
    oldest: i64,
    newest: i64,
    /// Bits of the names of its metrics; all until it is packed.
    names: u64,
    kinds: Kinds<u16>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Plain(Arc<Segment>),
    Packed(Packed),
}

impl Sealed {
    /// A closed segment, as it is.
    pub(crate) fn plain(segment: Segment) -> Self {
        Self {
            first_sequence: segment.first_sequence(),
            last_sequence: segment.last_sequence(),
            oldest: segment.oldest(),
            newest: segment.newest(),
            names: u64::MAX,
            kinds: *segment.kinds(),
            body: Body::Plain(Arc::new(segment)),
        }
    }

    /// The same, packed; `None` if it is. Costs a copy, a look at every field and the compression.
    pub(crate) fn pack(&self) -> Option<Self> {
        let Body::Plain(segment) = &self.body else { return None };
        let all = (0..segment.len()).map(|i| names(segment.kind(i), segment.envelope(i)));
        let names = all.fold(0, |all, names| all | names);
        Some(Self { names, kinds: self.kinds, body: Body::Packed(Packed::new(segment)), ..*self })
    }

    /// One that was packed before, its envelopes numbered from `first_sequence` on.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn restore(packed: Packed, first_sequence: u64) -> Result<Self, Broken> {
        let parts = packed.parts()?;
        let last = parts.as_slice().last().ok_or(Broken)?;
        let mut sealed = Self {
            first_sequence,
            last_sequence: first_sequence.checked_add(last.sequence.into()).ok_or(Broken)?,
            oldest: i64::MAX,
            newest: i64::MIN,
            names: 0,
            kinds: [0; 6],
            body: Body::Packed(packed),
        };
        for part in parts.as_slice() {
            sealed.oldest = sealed.oldest.min(part.timestamp);
            sealed.newest = sealed.newest.max(part.timestamp);
            sealed.kinds[part.kind as usize] += 1;
            sealed.names |= names(part.kind, parts.rest(part));
        }
        Ok(sealed)
    }

    /// Its packed bytes, if it is packed.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.body {
            Body::Packed(packed) => Some(packed),
            Body::Plain(_) => None,
        }
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Opened {
        match &self.body {
            Body::Plain(segment) => Opened::Plain(Arc::clone(segment)),
            Body::Packed(packed) => {
                let parts = packed.parts().expect("packed here, or looked through when it was restored");
                Opened::Parts(parts, self.first_sequence)
            }
        }
    }

    /// Bytes of memory held, with its place in its source's list.
    pub(crate) fn held(&self) -> usize {
        let body = match &self.body {
            Body::Plain(segment) => segment.held() + allocated(size_of::<Segment>() + 2 * size_of::<usize>()),
            Body::Packed(packed) => packed.held(),
        };
        body + allocated(size_of::<Self>() + 2 * size_of::<usize>()) + size_of::<usize>()
    }

    /// Number of envelopes.
    pub(crate) fn len(&self) -> usize {
        self.kinds.iter().map(|count| usize::from(*count)).sum()
    }

    /// The sequence of the first envelope.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The sequence of the last envelope.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// The smallest timestamp.
    pub(crate) fn oldest(&self) -> i64 {
        self.oldest
    }

    /// The largest timestamp.
    pub(crate) fn newest(&self) -> i64 {
        self.newest
    }

    /// How many envelopes of each kind.
    pub(crate) fn kinds(&self) -> &Kinds<u16> {
        &self.kinds
    }

    /// True when some envelope may have a timestamp in `[start, end)` and a kind of `kinds`. False is certain.
    pub(crate) fn may_match(&self, start: i64, end: i64, kinds: KindSet) -> bool {
        self.oldest < end
            && self.newest >= start
            && (0..self.kinds.len()).any(|kind| kinds & (1 << kind) != 0 && self.kinds[kind] > 0)
    }

    /// True when some metric may have a name with one of these bits ([`name_bit`]). False is certain.
    pub(crate) fn may_name(&self, bits: u64) -> bool {
        self.names & bits != 0
    }
}

/// One of 64 bits that a metric's name has, as those see names who ask by PromQL: characters that it does not know count as one.
pub(crate) fn name_bit(name: &[u8]) -> u64 {
    static STATE: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);
    // Cheaper than the name itself made fit, and equal where that is equal: its first letters. A digit in front is made fit too.
    let name = match name {
        [b'0'..=b'9', rest @ ..] => rest,
        _ => name,
    };
    let mut kept = [0; 32];
    let mut len = 0;
    for (to, byte) in kept.iter_mut().zip(name.iter().filter(|byte| byte.is_ascii_alphanumeric())) {
        *to = *byte;
        len += 1;
    }
    1 << (STATE.hash_one(&kept[..len]) % 64)
}

fn names(kind: Kind, envelope: &[u8]) -> u64 {
    let mut bits = 0;
    message::metrics(kind, envelope, |metric| bits |= name_bit(metric.name));
    bits
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2::Envelope;

    use super::*;

    fn segment(names: &[&str]) -> Segment {
        let mut segment = Segment::new();
        for (i, name) in names.iter().enumerate() {
            let gauge = Envelope::gauge("s", *name, 1.0, "u").at(9 - i as i64).encode_to_vec();
            segment.push(9 - i as i64, Kind::Gauge, 100 + i as u64, &gauge);
        }
        segment
    }

    #[test]
    fn packing_changes_nothing_that_is_known_of_it() {
        let plain = Sealed::plain(segment(&["cpu", "memory", "cpu"]));
        let packed = plain.pack().unwrap();
        let known = |sealed: &Sealed| {
            let sequences = (sealed.first_sequence(), sealed.last_sequence());
            (sequences, sealed.oldest(), sealed.newest(), *sealed.kinds(), sealed.len())
        };
        assert_eq!(known(&packed), known(&plain));
        assert_eq!(known(&packed), ((100, 102), 7, 9, [0, 0, 0, 3, 0, 0], 3));
        assert!(packed.pack().is_none());
        let (bytes, size) = packed.packed().unwrap().bytes();
        let restored = Sealed::restore(Packed::from_bytes(bytes.into(), size), 100).unwrap();
        assert_eq!(known(&restored), known(&packed));
        let (plain, packed) = (plain.open(), packed.open());
        for i in 0..3 {
            assert_eq!((plain.timestamp(i), plain.sequence(i)), (packed.timestamp(i), packed.sequence(i)));
        }
    }

    #[test]
    fn names_that_are_not_there_are_mostly_known_not_to_be() {
        let packed = Sealed::plain(segment(&["cpu", "9a.b"])).pack().unwrap();
        assert!(packed.may_name(name_bit(b"cpu")) && packed.may_name(name_bit(b"_a_b")));
        let others = (0..1000).filter(|i| packed.may_name(name_bit(format!("other{i}").as_bytes()))).count();
        assert!(others < 100, "{others}");
        let long = "x".repeat(100);
        assert_eq!(name_bit(long.as_bytes()), name_bit(format!("7{long}").as_bytes()));
    }
}
