//! A segment packed: envelopes taken apart, what repeats kept once, the rest compressed.
//!
//! What enters: a closed segment. What leaves: the segment again, each envelope with the content it had and its fields in an order of
//! ours, or its parts for those who look for something. One block of LZ4, or plain bytes where that is no longer. Pure.
//!
//! Plain, a packed segment is (numbers are protobuf varints, signed ones zigzag):
//!
//! ```text
//! count                    envelopes, in order of arrival
//! count x step             sequence, each from the one before; the first from the segment's
//! count x step             timestamp, signed, each from the one before; the first from 0
//! count x kind and set     kind + 8 x (0: whole, else 1 + the number of its label set)
//! count x length           of its rest
//! sets                     how many
//! sets x (length, fields)  encoded instance and tags
//! rests                    encoded fields that are neither source, time nor labels; of a whole one, all
//! ```

use std::ops::Range;

use lz4_flex::block;
use proto::raw::Kind;
use proto::raw::wire::{Fields, Malformed, put_varint, varint_len};

use crate::labels::LabelSets;
use crate::segment::{MAX_ITEMS, Segment, allocated};

/// A packed segment's bytes.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Box<[u8]>,
    /// Bytes without compression. As many as there are: they are not compressed.
    plain: u32,
}

impl Packed {
    /// Packs a segment.
    pub(crate) fn new(segment: &Segment) -> Self {
        let plain = plain(segment);
        let mut packed = vec![0; block::get_maximum_output_size(plain.len())];
        let len = block::compress_into(&plain, &mut packed).expect("there is room for the largest output");
        let bytes = if len < plain.len() { packed[..len].into() } else { plain.as_slice().into() };
        Self { bytes, plain: plain.len() as u32 }
    }

    /// Takes bytes that [`Packed::bytes`] gave; [`Packed::parts`] says whether they are any good.
    pub(crate) fn from_bytes(bytes: Box<[u8]>, plain: u32) -> Self {
        Self { bytes, plain }
    }

    /// As it is held, and its size without compression.
    pub(crate) fn bytes(&self) -> (&[u8], u32) {
        (&self.bytes, self.plain)
    }

    /// Bytes of memory held beside the struct itself.
    pub(crate) fn held(&self) -> usize {
        allocated(self.bytes.len())
    }

    /// Decompresses it and finds its parts.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn parts(&self) -> Result<Parts, Broken> {
        let plain = if self.bytes.len() == self.plain as usize {
            self.bytes.to_vec()
        } else {
            // No block of LZ4 becomes longer than 255 times itself: what is said of its length costs no memory.
            if self.plain as usize > self.bytes.len().saturating_mul(255) {
                return Err(Broken);
            }
            block::decompress(&self.bytes, self.plain as usize).map_err(|_| Broken)?
        };
        Parts::of(plain)
    }
}

/// Bytes that no segment was packed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a packed segment")]
pub(crate) struct Broken;

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// Where an envelope of a packed segment stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) timestamp: i64,
    /// Counted from the segment's first.
    pub(crate) sequence: u32,
    pub(crate) kind: Kind,
    /// Its label set; `None` for one that is kept whole.
    pub(crate) set: Option<u16>,
    begin: u32,
    end: u32,
}

/// A packed segment without its compression.
#[derive(Debug)]
pub(crate) struct Parts {
    plain: Vec<u8>,
    parts: Vec<Part>,
    sets: Vec<(u32, u32)>,
}

impl Parts {
    fn of(plain: Vec<u8>) -> Result<Self, Broken> {
        let mut fields = Fields::new(&plain);
        let count = fields.varint()? as usize;
        if count > MAX_ITEMS {
            return Err(Broken);
        }
        let none = Part { timestamp: 0, sequence: 0, kind: Kind::None, set: None, begin: 0, end: 0 };
        let mut parts = vec![none; count];
        let mut sequence = 0_u64;
        for part in &mut parts {
            sequence = sequence.checked_add(fields.varint()?).ok_or(Broken)?;
            part.sequence = u32::try_from(sequence).map_err(|_| Broken)?;
        }
        let mut timestamp = 0_i64;
        for part in &mut parts {
            timestamp = timestamp.wrapping_add(unzigzag(fields.varint()?));
            part.timestamp = timestamp;
        }
        let mut highest = 0;
        for part in &mut parts {
            let number = fields.varint()?;
            part.kind = kind(number & 7).ok_or(Broken)?;
            part.set = (number >> 3).checked_sub(1).map(u16::try_from).transpose().map_err(|_| Broken)?;
            highest = highest.max(number >> 3);
        }
        let mut end = 0_u32;
        for part in &mut parts {
            part.begin = end;
            end = u32::try_from(fields.varint()?).ok().and_then(|len| end.checked_add(len)).ok_or(Broken)?;
            part.end = end;
        }
        let count = fields.varint()?;
        if count < highest || count > u64::from(u16::MAX) {
            return Err(Broken);
        }
        let mut sets = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let len = fields.bytes()?.len();
            sets.push(((fields.position() - len) as u32, fields.position() as u32));
        }
        let rests = fields.position() as u32;
        if rests as usize + end as usize != plain.len() {
            return Err(Broken);
        }
        for part in &mut parts {
            part.begin += rests;
            part.end += rests;
        }
        Ok(Self { plain, parts, sets })
    }

    /// In order of arrival.
    pub(crate) fn as_slice(&self) -> &[Part] {
        &self.parts
    }

    /// The fields of an envelope that are neither source, time nor labels; of a whole one, all.
    pub(crate) fn rest(&self, part: &Part) -> &[u8] {
        &self.plain[part.begin as usize..part.end as usize]
    }

    /// The encoded fields of a label set.
    pub(crate) fn set(&self, number: usize) -> &[u8] {
        let (begin, end) = self.sets[number];
        &self.plain[begin as usize..end as usize]
    }

    /// How many label sets there are.
    pub(crate) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// All rests, one after another: for a search through all of them.
    pub(crate) fn rests(&self) -> &[u8] {
        self.parts.first().map_or(&[], |first| &self.plain[first.begin as usize..])
    }

    /// Where a rest begins and ends in [`Parts::rests`].
    pub(crate) fn range(&self, part: &Part) -> Range<usize> {
        let first = self.parts[0].begin;
        (part.begin - first) as usize..(part.end - first) as usize
    }

    /// Bytes of an envelope as [`Parts::put`] writes it.
    pub(crate) fn size(&self, part: &Part, source: &[u8]) -> usize {
        let rest = (part.end - part.begin) as usize;
        let Some(set) = part.set else { return rest };
        let time = if part.timestamp == 0 { 0 } else { 1 + varint_len(part.timestamp.cast_unsigned()) };
        time + source.len() + self.set(set.into()).len() + rest
    }

    /// Appends an envelope; `source` is the encoded field of its source.
    pub(crate) fn put(&self, part: &Part, source: &[u8], into: &mut Vec<u8>) {
        if let Some(set) = part.set {
            if part.timestamp != 0 {
                into.push(1 << 3);
                put_varint(into, part.timestamp.cast_unsigned());
            }
            into.extend_from_slice(source);
            into.extend_from_slice(self.set(set.into()));
        }
        into.extend_from_slice(self.rest(part));
    }
}

fn plain(segment: &Segment) -> Vec<u8> {
    let mut sets = LabelSets::default();
    let mut rests = Vec::with_capacity(segment.size());
    let mut places: Vec<(u64, usize)> = Vec::with_capacity(segment.len());
    for i in 0..segment.len() {
        let (envelope, begin) = (segment.envelope(i), rests.len());
        let set = sets.split(envelope, &mut rests);
        if set.is_none() {
            rests.extend_from_slice(envelope);
        }
        let number = set.map_or(0, |set| u64::from(set) + 1);
        places.push((segment.kind(i) as u64 | number << 3, rests.len() - begin));
    }
    let labels: usize = sets.iter().map(|set| set.len() + 3).sum();
    let mut plain = Vec::with_capacity(rests.len() + labels + segment.len() * 20 + 16);
    put_varint(&mut plain, segment.len() as u64);
    let mut sequence = segment.first_sequence();
    for i in 0..segment.len() {
        put_varint(&mut plain, segment.sequence(i) - sequence);
        sequence = segment.sequence(i);
    }
    let mut timestamp = 0;
    for i in 0..segment.len() {
        put_varint(&mut plain, zigzag(segment.timestamp(i).wrapping_sub(timestamp)));
        timestamp = segment.timestamp(i);
    }
    places.iter().for_each(|(kind_and_set, _)| put_varint(&mut plain, *kind_and_set));
    places.iter().for_each(|(_, len)| put_varint(&mut plain, *len as u64));
    put_varint(&mut plain, sets.iter().len() as u64);
    for set in sets.iter() {
        put_varint(&mut plain, set.len() as u64);
        plain.extend_from_slice(set);
    }
    plain.extend_from_slice(&rests);
    plain
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn kind(number: u64) -> Option<Kind> {
    [Kind::None, Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer, Kind::Event].get(number as usize).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use prost::Message as _;
    use proto::v2::Envelope;

    use super::*;
    use crate::noise::noise;

    fn segment(envelopes: &[(Envelope, u64)]) -> Segment {
        let mut segment = Segment::new();
        for (envelope, sequence) in envelopes {
            let kind = envelope.message.as_ref().map_or(Kind::None, |_| Kind::Log);
            segment.push(envelope.timestamp, kind, *sequence, &envelope.encode_to_vec());
        }
        segment
    }

    fn envelope(parts: &Parts, part: &Part) -> Envelope {
        let mut encoded = Vec::new();
        parts.put(part, b"\x12\x06source", &mut encoded);
        assert_eq!(encoded.len(), parts.size(part, b"\x12\x06source"));
        Envelope::decode(&*encoded).unwrap()
    }

    /// Whatever it says, it can be asked for all of it.
    fn look_at_all(parts: &Parts) {
        assert!(parts.as_slice().len() <= MAX_ITEMS);
        for part in parts.as_slice() {
            assert_eq!(&parts.rests()[parts.range(part)], parts.rest(part));
            parts.put(part, b"", &mut Vec::new());
        }
    }

    #[test]
    fn zigzag_there_and_back() {
        for number in [0, 1, -1, 77, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }

    #[test]
    fn repeating_text_shrinks_and_noise_costs_no_more_than_itself() {
        let line =
            |i: i64, text: String| (Envelope::log("source", text).at(i).tag("a", "1").tag("b", "2"), i as u64 + 5);
        let many: Vec<_> = (0..200).map(|i| line(i, format!("GET /orders/{i} took {} ms", i % 7))).collect();
        let repeating = segment(&many);
        let packed = Packed::new(&repeating);
        assert!(packed.held() * 3 < repeating.size(), "{} of {}", packed.held(), repeating.size());
        let noise: Vec<_> = (0..200).map(|i| (Envelope::log("source", noise(300)).at(i), i as u64 + 5)).collect();
        let noise = segment(&noise);
        let packed = Packed::new(&noise);
        assert!(packed.held() < noise.size() + 24 * 200, "{} of {}", packed.held(), noise.size());
    }

    #[test]
    fn bytes_that_were_cut_or_changed_are_refused_or_read_and_never_more() {
        let many: Vec<_> =
            (0..50).map(|i| (Envelope::log("source", format!("line {i}")).at(i).tag("k", "v"), i as u64)).collect();
        let packed = Packed::new(&segment(&many));
        let (bytes, plain) = packed.bytes();
        for at in 0..bytes.len() {
            assert!(Packed::from_bytes(bytes[..at].into(), plain).parts().is_err(), "cut at {at}");
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x55;
            if let Ok(parts) = Packed::from_bytes(changed.into(), plain).parts() {
                look_at_all(&parts);
            }
        }
    }

    fn envelopes() -> impl Strategy<Value = Vec<(Envelope, u64)>> {
        let timestamp = prop_oneof![Just(0_i64), any::<i64>(), 0..50_i64];
        let tags = prop::collection::hash_map("[a-c]{0,2}", "[a-b]{0,9}", 0..5);
        let one = (timestamp, "[ab]{0,1}", tags, prop::option::of("[a-z ]{0,60}"), 1..1000_u64);
        prop::collection::vec(one, 0..100).prop_map(|all| {
            let mut sequence = 0;
            let one = |(timestamp, instance_id, tags, payload, step): (
                i64,
                String,
                HashMap<String, String>,
                Option<String>,
                u64,
            )| {
                sequence += step;
                let log = payload.map_or_else(Envelope::default, |text| Envelope::log("", text));
                (Envelope { source_id: "source".into(), timestamp, instance_id, tags, ..log }, sequence)
            };
            all.into_iter().map(one).collect()
        })
    }

    proptest! {
        /// What comes out has the content that went in.
        #[test]
        fn unpacked_equals_packed(all in envelopes()) {
            let parts = Packed::new(&segment(&all)).parts().unwrap();
            let first = all.first().map_or(0, |(_, sequence)| *sequence);
            prop_assert_eq!(parts.as_slice().len(), all.len());
            for (part, (whole, sequence)) in parts.as_slice().iter().zip(&all) {
                prop_assert_eq!(&envelope(&parts, part), whole);
                prop_assert_eq!((part.timestamp, first + u64::from(part.sequence)), (whole.timestamp, *sequence));
            }
            look_at_all(&parts);
        }

        /// Any bytes are refused or read.
        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let plain = bytes.len() as u32;
            if let Ok(parts) = Packed::from_bytes(bytes.into(), plain).parts() {
                look_at_all(&parts);
            }
        }
    }
}
