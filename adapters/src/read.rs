//! An encoded envelope as the stores of series need it: read once, nothing decoded that is not asked for.
//!
//! Bytes of envelopes that have passed a first hop enter; slices of them leave. `deprecated_tags` are not read: the subscription asks
//! for preferred tags. Allocates nothing for up to sixteen tags, but for a message that stands in several pieces.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use foldhash::fast::RandomState;
use prost::Message;
pub(crate) use proto::raw::wire::Malformed;
use proto::raw::wire::{Fields, WireType};
use proto::raw::{Kind, tags};
use proto::v2;
use smallvec::SmallVec;

/// An envelope in parts. Text is not checked to be UTF-8.
#[derive(Debug, Default)]
pub(crate) struct Envelope<'a> {
    pub(crate) timestamp: i64,
    pub(crate) source_id: &'a [u8],
    pub(crate) instance_id: &'a [u8],
    pub(crate) message: Option<(Kind, &'a [u8])>,
    /// The entries of `tags`, in wire order.
    entries: SmallVec<[&'a [u8]; 16]>,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope into this empty one, which need not be moved then; the last of several values counts. `spare` holds what had to
    /// be put together.
    ///
    /// # Errors
    /// Not well-formed, as far as it is read.
    pub(crate) fn read(&mut self, bytes: &'a [u8], spare: &'a mut Vec<u8>) -> Result<(), Malformed> {
        if self.fill(bytes)? {
            return Ok(());
        }
        if let Ok(whole) = v2::Envelope::decode(bytes) {
            *spare = whole.encode_to_vec();
        }
        *self = Self::default();
        self.fill(spare)?;
        Ok(())
    }

    /// False if a message stands in several pieces.
    fn fill(&mut self, bytes: &'a [u8]) -> Result<bool, Malformed> {
        let mut fields = Fields::new(bytes);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Varint) => self.timestamp = fields.varint()?.cast_signed(),
                (2, WireType::Len) => self.source_id = fields.bytes()?,
                (8, WireType::Len) => self.instance_id = fields.bytes()?,
                (9, WireType::Len) => self.entries.push(fields.bytes()?),
                (number @ (4..=7 | 10), WireType::Len) => {
                    if self.message.is_some() {
                        return Ok(false);
                    }
                    let kind = match number {
                        4 => Kind::Log,
                        5 => Kind::Counter,
                        6 => Kind::Gauge,
                        7 => Kind::Timer,
                        _ => Kind::Event,
                    };
                    self.message = Some((kind, fields.bytes()?));
                }
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(true)
    }

    /// A hash of source, instance and tags, whatever the order of the tags: senders write maps in any. Two envelopes that repeat keys
    /// and differ in nothing but which value is last have one hash.
    pub(crate) fn hash(&self, state: &RandomState) -> u64 {
        self.hash_without(state, |_| false)
    }

    /// The same without the tags that `skip` knows by their keys.
    pub(crate) fn hash_of_some(&self, state: &RandomState, skip: impl Fn(&[u8]) -> bool) -> u64 {
        self.hash_without(state, |entry| skip(tags::entry(entry).0))
    }

    #[inline]
    fn hash_without(&self, state: &RandomState, skip: impl Fn(&[u8]) -> bool) -> u64 {
        let hash = |bytes: &[u8]| {
            let mut hasher = state.build_hasher();
            hasher.write(bytes);
            hasher.finish()
        };
        let own = hash(self.source_id) ^ hash(self.instance_id).rotate_left(21);
        let kept = self.entries.iter().filter(|entry| !skip(entry));
        kept.fold(own, |sum, entry| sum.wrapping_add(hash(entry)))
    }

    /// The tags, in wire order.
    pub(crate) fn tags(&self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> {
        self.entries.iter().map(|entry| tags::entry(entry))
    }

    /// The value of a tag; empty if there is none.
    pub(crate) fn tag(&self, key: &str) -> &'a [u8] {
        self.tags().rev().find(|(found, _)| *found == key.as_bytes()).map_or(&[], |(_, value)| value)
    }
}

/// A hash that is the same in every process: for shards.
pub(crate) fn stable_hash(name: &str, labels: &[u8]) -> u64 {
    let state = FixedState::with_seed(0);
    state.hash_one(name.as_bytes()) ^ state.hash_one(labels).rotate_left(17)
}

/// A counter's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) delta: u64,
    pub(crate) total: u64,
}

impl<'a> Counter<'a> {
    /// True when it says by how much the counter went on, and not to what (contract: agents §1, totals).
    pub(crate) fn is_step(&self) -> bool {
        self.total == 0 && self.delta != 0
    }

    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut counter = Self::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => counter.name = fields.bytes()?,
                (2, WireType::Varint) => counter.delta = fields.varint()?,
                (3, WireType::Varint) => counter.total = fields.varint()?,
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(counter)
    }
}

/// One metric of a gauge's message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Gauge<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) unit: &'a [u8],
    pub(crate) value: f64,
}

impl<'a> Gauge<'a> {
    /// Calls `visit` with every metric, in wire order.
    pub(crate) fn each(message: &'a [u8], mut visit: impl FnMut(Self)) -> Result<(), Malformed> {
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => visit(Self::read(fields.bytes()?)?),
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(())
    }

    fn read(entry: &'a [u8]) -> Result<Self, Malformed> {
        let mut gauge = Self::default();
        let mut fields = Fields::new(entry);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => gauge.name = fields.bytes()?,
                (2, WireType::Len) => gauge.read_value(fields.bytes()?)?,
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(gauge)
    }

    fn read_value(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => self.unit = fields.bytes()?,
                (2, WireType::Fixed64) => {
                    self.value = f64::from_le_bytes(fields.fixed(8)?.try_into().expect("fixed(8) gives eight bytes"));
                }
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(())
    }
}

/// A timer's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timer<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) start: i64,
    pub(crate) stop: i64,
}

impl<'a> Timer<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut timer = Self::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => timer.name = fields.bytes()?,
                (2, WireType::Varint) => timer.start = fields.varint()?.cast_signed(),
                (3, WireType::Varint) => timer.stop = fields.varint()?.cast_signed(),
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(timer)
    }

    /// From start to stop in seconds; 0 for one that stops before it starts.
    #[expect(clippy::cast_precision_loss, reason = "a duration of over 104 days need not be exact to the nanosecond")]
    pub(crate) fn seconds(&self) -> f64 {
        self.stop.saturating_sub(self.start).max(0) as f64 / 1e9
    }
}

/// A log's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) is_err: bool,
}

impl<'a> Log<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut log = Self::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => log.payload = fields.bytes()?,
                (2, WireType::Varint) => log.is_err = fields.varint()? == v2::log::Type::Err as u64,
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(log)
    }
}

/// An event's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) title: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Event<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut event = Self::default();
        let mut fields = Fields::new(message);
        while !fields.is_done() {
            match fields.key()? {
                (1, WireType::Len) => event.title = fields.bytes()?,
                (2, WireType::Len) => event.body = fields.bytes()?,
                (number, wire_type) => fields.skip(number, wire_type)?,
            }
        }
        Ok(event)
    }
}

/// The method if it is one of RFC 9110 or RFC 5789; else `OTHER`, as clients may send any.
pub(crate) fn known_method(method: &[u8]) -> &'static [u8] {
    const KNOWN: [&[u8]; 9] = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
    if method.is_empty() {
        return b"";
    }
    KNOWN.into_iter().find(|known| method.eq_ignore_ascii_case(known)).unwrap_or(b"OTHER")
}

/// Tags of timers that are different for each of them, or that clients may choose: never labels.
pub(crate) fn is_unbounded(key: &[u8]) -> bool {
    const UNBOUNDED: [&[u8]; 10] = [
        b"request_id",
        b"uri",
        b"remote_address",
        b"user_agent",
        b"forwarded",
        b"content_length",
        b"routing_instance_id",
        b"trace_id",
        b"span_id",
        b"parent_span_id",
    ];
    UNBOUNDED.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_envelope_are_those_that_prost_reads() {
        let envelope =
            v2::Envelope::gauge("s", "cpu", 1.5, "percentage").at(7).instance("0").tag("a", "1").tag("b", "2");
        let bytes = envelope.encode_to_vec();
        let mut spare = Vec::new();
        let mut read = Envelope::default();
        read.read(&bytes, &mut spare).unwrap();
        assert_eq!((read.timestamp, read.source_id, read.instance_id), (7, &b"s"[..], &b"0"[..]));
        assert_eq!((read.tag("a"), read.tag("b"), read.tag("c")), (&b"1"[..], &b"2"[..], &b""[..]));
        let Some((Kind::Gauge, message)) = read.message else { panic!("{read:?}") };
        let mut gauges = Vec::new();
        Gauge::each(message, |gauge| gauges.push(gauge)).unwrap();
        assert_eq!(gauges, [Gauge { name: b"cpu", unit: b"percentage", value: 1.5 }]);
    }

    #[test]
    fn the_order_of_tags_makes_no_difference_and_their_values_do() {
        let state = RandomState::default();
        let parts = |entries: &[&[(u32, &'static str)]]| {
            let mut bytes = Vec::new();
            for entry in entries {
                let mut field = Vec::new();
                entry
                    .iter()
                    .for_each(|(number, text)| proto::raw::wire::put_bytes(&mut field, *number, text.as_bytes()));
                proto::raw::wire::put_bytes(&mut bytes, 9, &field);
            }
            let (mut spare, mut read) = (Vec::new(), Envelope::default());
            read.read(&bytes, &mut spare).unwrap();
            read.hash(&state)
        };
        let (a, b, c) = ([(1, "a"), (2, "1")], [(1, "b"), (2, "2")], [(1, "b"), (2, "3")]);
        assert_eq!(parts(&[&a, &b]), parts(&[&b, &a]));
        assert_ne!(parts(&[&a, &b]), parts(&[&a, &c]));
    }

    #[test]
    fn a_message_in_pieces_is_put_together() {
        let mut bytes = v2::Envelope::counter("s", "requests", 0).encode_to_vec();
        bytes.extend_from_slice(&[5 << 3 | 2, 2, 3 << 3, 9]);
        let mut spare = Vec::new();
        let mut read = Envelope::default();
        read.read(&bytes, &mut spare).unwrap();
        let Some((Kind::Counter, message)) = read.message else { panic!("{read:?}") };
        assert_eq!(Counter::read(message).unwrap(), Counter { name: b"requests", delta: 0, total: 9 });
        let mut spare = Vec::new();
        assert!(Envelope::default().read(b"\x0a\xff", &mut spare).is_err());
    }
}
