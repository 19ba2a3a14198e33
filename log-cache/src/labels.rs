//! The labels of envelopes, each set kept once: instance and tags, whatever order they come in.
//!
//! What enters: encoded envelopes. What leaves: for each the number of its label set, and the fields that are no labels. A set is found
//! by a hash that no order changes, and compared field by field. An envelope that names a tag twice has no set: which of the two counts
//! is a matter of order, and so it is kept as it came.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::LazyLock;

use hashbrown::HashTable;
use proto::raw::tags;
use proto::raw::wire::{Fields, Malformed};
use smallvec::SmallVec;

use crate::message;

/// Seeded per process: no sender can make sets collide.
static STATE: LazyLock<foldhash::fast::RandomState> = LazyLock::new(foldhash::fast::RandomState::default);

/// Label sets of one segment.
#[derive(Default)]
pub(crate) struct LabelSets {
    /// The encoded fields of all sets, one set after another.
    bytes: Vec<u8>,
    sets: Vec<Set>,
    by_hash: HashTable<u16>,
    /// The fields of the envelope at hand.
    fields: Vec<Field>,
}

struct Set {
    hash: u64,
    range: Range<usize>,
    /// In order of hash.
    fields: SmallVec<[Field; 10]>,
}

/// An encoded field: in an envelope, or in a set.
#[derive(Clone, Copy)]
struct Field {
    hash: u64,
    begin: u32,
    end: u32,
}

impl Field {
    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.begin as usize..self.end as usize]
    }
}

impl LabelSets {
    /// Takes an envelope of at most 4 GiB apart: appends the fields that are neither source, time nor labels to `rest`, in their order, and
    /// returns the number of its label set. `None` if it has to be kept whole; then `rest` is as it was.
    pub(crate) fn split(&mut self, envelope: &[u8], rest: &mut Vec<u8>) -> Option<u16> {
        self.fields.clear();
        let begin = rest.len();
        let set = match self.walk(envelope, rest) {
            Ok(()) => self.intern(envelope),
            Err(Malformed { .. }) => None,
        };
        if set.is_none() {
            rest.truncate(begin);
        }
        set
    }

    fn walk(&mut self, envelope: &[u8], rest: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut fields = Fields::new(envelope);
        while !fields.is_done() {
            let begin = fields.position();
            let (number, wire_type) = fields.key()?;
            fields.skip(number, wire_type)?;
            let end = fields.position();
            match number {
                // Time and source are known without them.
                1 | 2 => {}
                3 | 8 | 9 => {
                    let hash = STATE.hash_one(&envelope[begin..end]);
                    self.fields.push(Field { hash, begin: begin as u32, end: end as u32 });
                }
                _ => rest.extend_from_slice(&envelope[begin..end]),
            }
        }
        Ok(())
    }

    fn intern(&mut self, envelope: &[u8]) -> Option<u16> {
        self.fields.sort_unstable_by_key(|field| field.hash);
        if self.fields.windows(2).any(|pair| pair[0].hash == pair[1].hash) {
            return None;
        }
        let hash = self.fields.iter().fold(0, |all: u64, field| all.rotate_left(5) ^ field.hash);
        let (bytes, sets, fields) = (&self.bytes, &self.sets, &self.fields);
        let same = |set: &u16| {
            let set = &sets[usize::from(*set)];
            let equal = |(a, b): (&Field, &Field)| a.hash == b.hash && a.of(bytes) == b.of(envelope);
            set.hash == hash && set.fields.len() == fields.len() && set.fields.iter().zip(fields).all(equal)
        };
        if let Some(found) = self.by_hash.find(hash, same) {
            return Some(*found);
        }
        if self.sets.len() == usize::from(u16::MAX) || names_twice(&self.fields, envelope) {
            return None;
        }
        let begin = self.bytes.len();
        let moved = self.fields.iter().map(|field| {
            let at = self.bytes.len() as u32;
            self.bytes.extend_from_slice(field.of(envelope));
            Field { hash: field.hash, begin: at, end: self.bytes.len() as u32 }
        });
        let fields = moved.collect();
        let number = self.sets.len() as u16;
        self.sets.push(Set { hash, range: begin..self.bytes.len(), fields });
        let sets = &self.sets;
        self.by_hash.insert_unique(hash, number, |set| sets[usize::from(*set)].hash);
        Some(number)
    }

    /// The sets in order of their numbers, each as its encoded fields.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.sets.iter().map(|set| &self.bytes[set.range.clone()])
    }
}

/// True when there are two instances, or two tags of one map with one key.
fn names_twice(fields: &[Field], envelope: &[u8]) -> bool {
    let key = |field: &Field| {
        let field = field.of(envelope);
        // The keys of these fields are one byte: it tells the map.
        let entry = message::content(field);
        (field[0], if field[0] == INSTANCE { &[] } else { tags::entry(entry).0 })
    };
    let mut keys: SmallVec<[(u8, &[u8]); 16]> = fields.iter().map(key).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

/// The key of field 8, a text.
const INSTANCE: u8 = 8 << 3 | 2;

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2::Envelope;

    use super::*;

    /// Fields of an envelope, each encoded alone, put together.
    fn encoded(parts: &[Envelope]) -> Vec<u8> {
        parts.iter().flat_map(Envelope::encode_to_vec).collect()
    }

    fn tag(key: &str, value: &str) -> Envelope {
        Envelope::default().tag(key, value)
    }

    fn instance(id: &str) -> Envelope {
        Envelope::default().instance(id)
    }

    #[test]
    fn one_set_whatever_the_order() {
        let mut sets = LabelSets::default();
        let mut rest = Vec::new();
        let log = Envelope::log("s", "x").at(7);
        let one = encoded(&[tag("a", "1"), log.clone(), instance("0"), tag("b", "2")]);
        let other = encoded(&[instance("0"), tag("b", "2"), tag("a", "1"), log]);
        assert_eq!(sets.split(&one, &mut rest), Some(0));
        assert_eq!(sets.split(&other, &mut rest), Some(0));
        assert_eq!(sets.split(&encoded(&[tag("a", "2")]), &mut rest), Some(1));
        assert_eq!(sets.split(&[], &mut rest), Some(2), "no labels are a set too");
        assert_eq!(sets.iter().len(), 3);
        let first = Envelope::decode(sets.iter().next().unwrap()).unwrap();
        assert_eq!((first.instance_id.as_str(), first.tags.len()), ("0", 2));
        let only_log = Envelope::log("", "x").encode_to_vec();
        assert_eq!(rest, [only_log.clone(), only_log].concat());
    }

    #[test]
    fn what_depends_on_order_is_kept_whole() {
        let mut sets = LabelSets::default();
        let mut rest = b"before".to_vec();
        let deprecated = [0x1a, 3, 0x0a, 1, b'a'];
        for whole in [
            encoded(&[tag("a", "1"), tag("a", "2")]),
            encoded(&[tag("a", "1"), tag("b", "1"), tag("a", "1")]),
            encoded(&[instance("1"), instance("2")]),
            [deprecated, deprecated].concat(),
            b"\x0a\x05short".to_vec()[..4].to_vec(),
        ] {
            assert_eq!(sets.split(&whole, &mut rest), None, "{whole:?}");
            assert_eq!(rest, b"before");
        }
        let of_both_maps = [&deprecated[..], &encoded(&[tag("a", "1")])].concat();
        assert_eq!(sets.split(&of_both_maps, &mut rest), Some(0), "two maps, one key each");
    }

    #[test]
    fn an_instance_is_no_tag() {
        let mut sets = LabelSets::default();
        let mut rest = Vec::new();
        assert_eq!(sets.split(&encoded(&[instance("a")]), &mut rest), Some(0));
        assert_eq!(sets.split(&encoded(&[tag("", "a")]), &mut rest), Some(1));
        assert_eq!(sets.split(&encoded(&[tag("instance_id", "a"), instance("a")]), &mut rest), Some(2));
    }
}
