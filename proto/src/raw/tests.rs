//! Tests of `raw`.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message;

use super::tags::{self, Form, Value};
use super::*;
use crate::reason::Reason;
use crate::v2;
use crate::v2::envelope::Message as Oneof;

fn check(bytes: &[u8]) -> Result<Batch, Refused> {
    let (batch, refused) = Batch::check_one(Bytes::copy_from_slice(bytes), &Limits::NONE);
    if refused == Refused::default() { Ok(batch) } else { Err(refused) }
}

/// What the walker must say of an envelope, as prost reads it.
fn expect(batch: &Batch, entry: &Entry, decoded: &v2::Envelope) {
    assert_eq!(batch.source_id(entry), decoded.source_id.as_bytes());
    assert_eq!(batch.instance_id(entry), decoded.instance_id.as_bytes());
    assert_eq!(entry.timestamp, decoded.timestamp);
    assert_eq!(entry.source, source_hash(decoded.source_id.as_bytes()));
    let encoded = batch.envelope(entry);
    let kind = match &decoded.message {
        None => Kind::None,
        Some(Oneof::Log(_)) => Kind::Log,
        Some(Oneof::Counter(counter)) => {
            assert_eq!(counter_name(encoded), counter.name.as_bytes());
            assert_eq!(edit::counter_values(encoded), (counter.delta, counter.total));
            Kind::Counter
        }
        Some(Oneof::Gauge(gauge)) => {
            let mut names: Vec<&[u8]> = gauge.metrics.keys().map(|name| name.as_bytes()).collect();
            names.sort_unstable();
            assert_eq!(gauge_names(encoded).as_slice(), names);
            Kind::Gauge
        }
        Some(Oneof::Timer(_)) => Kind::Timer,
        Some(Oneof::Event(_)) => Kind::Event,
    };
    assert_eq!(entry.kind, kind);
}

/// True if a map field, before anything else is malformed, is not length-delimited: prost takes it for one all the same.
fn has_a_map_of_another_type(envelope: &[u8]) -> bool {
    let odd = |message: &[u8], maps: &[u32], inside: &dyn Fn(u32, &[u8]) -> bool| {
        let mut fields = wire::Fields::new(message);
        while !fields.is_done() {
            let Ok((number, wire_type)) = fields.key() else { return false };
            if maps.contains(&number) && wire_type != wire::WireType::Len {
                return true;
            }
            if wire_type == wire::WireType::Len {
                let Ok(bytes) = fields.bytes() else { return false };
                if inside(number, bytes) {
                    return true;
                }
            } else if fields.skip(number, wire_type).is_err() {
                return false;
            }
        }
        false
    };
    odd(envelope, &[3, 9], &|number, bytes| number == 6 && odd(bytes, &[1], &|_, _| false))
}

/// Fields of an envelope in any order, any number of times: known ones, unknown ones, sub-messages in parts.
fn any_fields() -> impl Strategy<Value = Vec<u8>> {
    let varint = |number: u32| any::<u64>().prop_map(move |value| scalar(number, value)).boxed();
    let text = |number: u32| ".{0,12}".prop_map(move |text| len(number, text.as_bytes())).boxed();
    let tag = ("[ab]", ".{0,6}").prop_map(|(key, value)| {
        let mut entry = len(1, key.as_bytes());
        entry.extend(len(2, value.as_bytes()));
        len(9, &entry)
    });
    let value = prop_oneof![
        Just(Vec::new()),
        ".{0,6}".prop_map(|text| len(1, text.as_bytes())),
        any::<u64>().prop_map(|value| scalar(2, value)),
        any::<f64>().prop_map(|value| double(3, value)),
    ];
    let deprecated = ("[ab]", prop::collection::vec(value, 0..3)).prop_map(|(key, values)| {
        let mut entry = len(1, key.as_bytes());
        for value in values {
            entry.extend(len(2, &value));
        }
        len(3, &entry)
    });
    let part = prop_oneof![
        ".{0,6}".prop_map(|text| len(1, text.as_bytes())),
        any::<u64>().prop_map(|value| scalar(2, value)),
        any::<u64>().prop_map(|value| scalar(3, value)),
        any::<u64>().prop_map(|value| scalar(40, value)),
    ];
    let parts = prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat());
    let metric = ("[abc]{0,2}", any::<f64>(), ".{0,3}").prop_map(|(name, value, unit)| {
        let mut gauge = len(1, unit.as_bytes());
        gauge.extend(double(2, value));
        let mut entry = len(1, name.as_bytes());
        entry.extend(len(2, &gauge));
        len(1, &entry)
    });
    let metrics = prop::collection::vec(metric, 0..3).prop_map(|entries| entries.concat());
    let log = (prop::collection::vec(any::<u8>(), 0..8), any::<u64>()).prop_map(|(payload, log_type)| {
        let mut log = len(1, &payload);
        log.extend(scalar(2, log_type));
        log
    });
    let event = ("[a-z]{0,3}", ".{0,3}").prop_map(|(title, body)| {
        let mut event = len(1, title.as_bytes());
        event.extend(len(2, body.as_bytes()));
        event
    });
    let field = prop_oneof![
        varint(1),
        text(2),
        text(8),
        tag.boxed(),
        deprecated.boxed(),
        log.prop_map(|bytes| len(4, &bytes)).boxed(),
        parts.clone().prop_map(|bytes| len(5, &bytes)).boxed(),
        metrics.prop_map(|bytes| len(6, &bytes)).boxed(),
        parts.prop_map(|bytes| len(7, &bytes)).boxed(),
        event.prop_map(|bytes| len(10, &bytes)).boxed(),
        varint(11),
        text(500),
        any::<f64>().prop_map(|value| double(77, value)).boxed(),
        any::<u32>().prop_map(fixed32).boxed(),
        Just(vec![0x63, 0x08, 0x01, 0x64]).boxed(),
    ];
    prop::collection::vec(field, 0..12).prop_map(|fields| fields.concat())
}

fn scalar(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, u64::from(number) << 3);
    wire::put_varint(&mut out, value);
    out
}

fn len(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, bytes);
    out
}

fn double(number: u32, value: f64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, u64::from(number) << 3 | 1);
    out.extend(value.to_le_bytes());
    out
}

fn fixed32(value: u32) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, 60 << 3 | 5);
    out.extend(value.to_le_bytes());
    out
}

proptest! {
    /// Whatever the order and number of fields, the walker reads what prost reads.
    #[test]
    fn the_walker_reads_what_prost_reads(fields in any_fields()) {
        let decoded = v2::Envelope::decode(&*fields).expect("the fields are well-formed");
        let batch = check(&fields).expect("the fields are well-formed");
        expect(&batch, &batch.entries()[0], &decoded);
    }

    /// Bytes pass the first hop's checks exactly when prost decodes them.
    #[test]
    fn arbitrary_bytes_pass_exactly_when_prost_decodes_them(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let decoded = v2::Envelope::decode(&*bytes);
        let checked = check(&bytes);
        prop_assert_eq!(decoded.is_ok() && !has_a_map_of_another_type(&bytes), checked.is_ok());
        if let (Ok(decoded), Ok(batch)) = (decoded, checked) {
            expect(&batch, &batch.entries()[0], &decoded);
        }
    }

    /// The same for well-formed envelopes with one byte changed: the damage is found deep inside, too.
    #[test]
    fn a_damaged_envelope_passes_exactly_when_prost_decodes_it(fields in any_fields(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut fields = fields;
        if !fields.is_empty() {
            let at = at.index(fields.len());
            fields[at] = byte;
        }
        let decoded = v2::Envelope::decode(&*fields);
        let checked = check(&fields);
        prop_assert_eq!(decoded.is_ok() && !has_a_map_of_another_type(&fields), checked.is_ok(), "{:?} {:?}", decoded, checked);
        if let (Ok(decoded), Ok(batch)) = (decoded, checked) {
            expect(&batch, &batch.entries()[0], &decoded);
        }
    }

    /// A batch keeps its good envelopes, in order and byte for byte, whatever stands between them.
    #[test]
    fn a_bad_envelope_costs_only_itself(envelopes in prop::collection::vec((any_fields(), any::<bool>()), 0..12)) {
        let mut bytes = Vec::new();
        let mut good = Vec::new();
        for (fields, is_good) in &envelopes {
            let fields = if *is_good { good.push(fields.clone()); fields.clone() } else { vec![0x0a, 0x05, b'x'] };
            wire::put_bytes(&mut bytes, 1, &fields);
        }
        let (batch, refused) = Batch::check(bytes.into(), &Limits::NONE);
        let kept: Vec<Vec<u8>> = batch.entries().iter().map(|entry| batch.envelope(entry).to_vec()).collect();
        prop_assert_eq!(refused.decode_error as usize, envelopes.len() - good.len());
        prop_assert_eq!(kept, good.clone());
        let sent = Selection::from(batch).encode();
        let mut all = Vec::new();
        for fields in &good {
            wire::put_bytes(&mut all, 1, fields);
        }
        prop_assert_eq!(&sent[..], &all[..]);
    }

    /// Any part of a batch is written as the envelopes it keeps, and a copy of it is the same part.
    #[test]
    fn a_selection_writes_the_envelopes_it_keeps(envelopes in prop::collection::vec(any_fields(), 1..12), keep in prop::collection::vec(any::<bool>(), 12)) {
        let mut bytes = Vec::new();
        for fields in &envelopes {
            wire::put_bytes(&mut bytes, 1, fields);
        }
        let mut part = Selection::from(Batch::index(bytes.into()).0);
        part.retain(|i| keep[i]);
        let kept: Vec<&[u8]> = envelopes.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(fields, _)| fields.as_slice()).collect();
        prop_assert_eq!(part.envelopes().collect::<Vec<_>>(), kept.clone());
        let copy = part.compact();
        prop_assert_eq!(copy.envelopes().collect::<Vec<_>>(), kept);
        prop_assert_eq!(part.wire_len(), part.encode().len());
        prop_assert_eq!(copy.encode(), part.encode());
        let anew = Batch::index(copy.encode()).0;
        prop_assert_eq!(format!("{:?}", copy.batch().entries()), format!("{:?}", anew.entries()));
        part.retain(|_| false);
        prop_assert!(part.is_empty() && part.encode().is_empty());
    }

    /// Messages keep within their bounds, and hold every envelope once, in order.
    #[test]
    fn messages_keep_within_their_bounds(batches in prop::collection::vec(prop::collection::vec(any_fields(), 0..9), 0..6), envelopes in 1_usize..6, bytes in 1_usize..400) {
        let parts = batches.iter().map(|batch| {
            let mut encoded = Vec::new();
            batch.iter().for_each(|fields| wire::put_bytes(&mut encoded, 1, fields));
            Selection::from(Batch::index(encoded.into()).0)
        });
        let messages = Outgoing::bounded(parts, envelopes, bytes);
        let mut all = Vec::new();
        for message in &messages {
            prop_assert!((1..=envelopes).contains(&message.len()));
            prop_assert!(message.wire_len() <= bytes || message.len() == 1);
            message.parts().iter().for_each(|part| all.extend(part.envelopes().map(<[u8]>::to_vec)));
        }
        prop_assert_eq!(all, batches.concat());
    }

    /// Appended tags and ids win for every reader, and everything else stays as it was.
    #[test]
    fn what_is_appended_wins(fields in any_fields(), key in "[abc]", value in ".{0,5}", id in ".{0,5}") {
        let mut expected = v2::Envelope::decode(&*fields).expect("well-formed");
        expected.tags.insert(key.clone(), value.clone());
        expected.source_id.clone_from(&id);
        let mut edited = fields;
        edit::put_tag(&mut edited, key.as_bytes(), value.as_bytes());
        edit::put_source_id(&mut edited, id.as_bytes());
        prop_assert_eq!(sorted(&v2::Envelope::decode(&*edited).expect("well-formed")), sorted(&expected));
        let batch = check(&edited).expect("well-formed");
        expect(&batch, &batch.entries()[0], &expected);
    }

    /// A spliced total replaces the counter's own and nothing else, for readers that merge and for readers that replace.
    #[test]
    fn a_spliced_total_replaces_only_the_total(fields in any_fields(), name in ".{0,5}", delta in any::<u64>(), total in any::<u64>()) {
        let mut counter = len(1, name.as_bytes());
        counter.extend(scalar(2, delta));
        let mut fields = fields;
        fields.extend(len(5, &counter));
        let mut expected = v2::Envelope::decode(&*fields).expect("well-formed");
        if let Some(Oneof::Counter(counter)) = &mut expected.message {
            counter.total = total;
        }
        let mut edited = Vec::new();
        edit::put_with_total(&mut edited, &fields, total);
        prop_assert_eq!(sorted(&v2::Envelope::decode(&*edited).expect("well-formed")), sorted(&expected));
        let mut counters = 0;
        names::member(&edited, 5, |message| counters += usize::from(message.is_some()));
        prop_assert_eq!(counters, 1);
    }

    /// The transcoder moves every tag to the wanted map as the contract says, and leaves what fits alone.
    #[test]
    fn tags_move_to_the_form_a_consumer_wants(fields in any_fields()) {
        let decoded = v2::Envelope::decode(&*fields).expect("well-formed");
        for form in [Form::Preferred, Form::Deprecated] {
            let mut expected = decoded.clone();
            match form {
                Form::Preferred => for (key, value) in std::mem::take(&mut expected.deprecated_tags) {
                    match value.data {
                        Some(v2::value::Data::Text(text)) => drop(expected.tags.insert(key, text)),
                        Some(v2::value::Data::Integer(integer)) => drop(expected.tags.insert(key, integer.to_string())),
                        Some(v2::value::Data::Decimal(value)) => drop(expected.tags.insert(key, crate::decimal::general(value, 21))),
                        None => {}
                    }
                },
                Form::Deprecated => for (key, text) in std::mem::take(&mut expected.tags) {
                    expected.deprecated_tags.insert(key, v2::Value { data: Some(v2::value::Data::Text(text)) });
                },
            }
            let mut converted = Vec::new();
            form.put(&mut converted, &fields);
            prop_assert!(form.fits(&converted));
            // Through text: NaN is not equal to itself, maps have no order.
            let read = v2::Envelope::decode(&*converted).expect("well-formed");
            prop_assert_eq!(sorted(&read), sorted(&expected));
            if form.fits(&fields) {
                prop_assert_eq!(&converted, &fields);
            }
        }
    }

    /// A batch in another form has the index that a walk over its bytes gives.
    #[test]
    fn a_converted_batch_is_indexed_as_if_it_had_arrived(all in prop::collection::vec(any_fields(), 0..4)) {
        let mut bytes = Vec::new();
        all.iter().for_each(|fields| wire::put_bytes(&mut bytes, 1, fields));
        let whole = Selection::from(Batch::index(bytes.into()).0);
        for form in [Form::Preferred, Form::Deprecated] {
            let converted = form.convert(&whole);
            let walked = Selection::from(Batch::index(converted.encode()).0);
            let all = |selection: &Selection| {
                let batch = selection.batch();
                let one = |entry: &Entry| {
                    let (source, instance) = (batch.source_id(entry).to_vec(), batch.instance_id(entry).to_vec());
                    let framed = entry.framed().map(|range| batch.bytes()[range].to_vec());
                    (entry.kind, entry.timestamp, entry.source, source, instance, batch.envelope(entry).to_vec(), framed)
                };
                selection.entries().map(one).collect::<Vec<_>>()
            };
            prop_assert_eq!(all(&converted), all(&walked));
            prop_assert_eq!(converted.wire_len(), walked.wire_len());
        }
    }
}

fn sorted(envelope: &v2::Envelope) -> String {
    let tags: std::collections::BTreeMap<_, _> = envelope.tags.iter().collect();
    let deprecated: std::collections::BTreeMap<_, _> = envelope.deprecated_tags.iter().collect();
    let metrics: Option<std::collections::BTreeMap<_, _>> = match &envelope.message {
        Some(Oneof::Gauge(gauge)) => Some(gauge.metrics.iter().collect()),
        _ => None,
    };
    let rest = if metrics.is_some() { None } else { envelope.message.clone() };
    format!(
        "{} {} {} {tags:?} {deprecated:?} {metrics:?} {rest:?}",
        envelope.timestamp, envelope.source_id, envelope.instance_id
    )
}

fn log(payload: usize) -> v2::Envelope {
    v2::Envelope::log("app", vec![b'x'; payload]).at(7).instance("0")
}

fn refused(bytes: Vec<u8>, limits: &Limits) -> Vec<(Reason, u64)> {
    Batch::check_one(bytes.into(), limits).1.by_reason().collect()
}

#[test]
fn limits_hold_at_the_limit_and_refuse_past_it() {
    let limits = Limits::default();
    let fits = (0..).find(|extra| log(limits.envelope_bytes - 40 + extra).encoded_len() == limits.envelope_bytes);
    let payload = limits.envelope_bytes - 40 + fits.expect("sizes grow by one");
    assert_eq!(refused(log(payload).encode_to_vec(), &limits), []);
    assert_eq!(refused(log(payload + 1).encode_to_vec(), &limits), [(Reason::Oversize, 1)]);

    let with_tags = |count: usize| (0..count).fold(log(1), |envelope, i| envelope.tag(format!("k{i}"), "v"));
    assert_eq!(refused(with_tags(128).encode_to_vec(), &limits), []);
    assert_eq!(refused(with_tags(129).encode_to_vec(), &limits), [(Reason::TooMany, 1)]);
    assert_eq!(refused(with_tags(5_000).encode_to_vec(), &limits), [(Reason::TooMany, 1)]);

    let with_tag = |size: usize| log(1).tag("k", "v".repeat(size));
    let framing = 3 + 1 + 2;
    assert_eq!(refused(with_tag(1024 - framing).encode_to_vec(), &limits), []);
    assert_eq!(refused(with_tag(1025 - framing).encode_to_vec(), &limits), [(Reason::Oversize, 1)]);
    assert_eq!(refused(with_tag(100_000).encode_to_vec(), &limits), [(Reason::Oversize, 1)]);

    let with_source = |size: usize| v2::Envelope::log("s".repeat(size), "x");
    assert_eq!(refused(with_source(256).encode_to_vec(), &limits), []);
    assert_eq!(refused(with_source(257).encode_to_vec(), &limits), [(Reason::Oversize, 1)]);
    assert_eq!(refused(with_source(70_000).encode_to_vec(), &Limits::NONE), [(Reason::Oversize, 1)]);

    let batch_of = |count: usize| Bytes::from(v2::EnvelopeBatch { batch: vec![log(1); count] }.encode_to_vec());
    let (batch, refused) = Batch::check(batch_of(10_000), &limits);
    assert_eq!((batch.len(), refused.total()), (10_000, 0));
    let (batch, refused) = Batch::check(batch_of(10_003), &limits);
    assert_eq!((batch.len(), refused.too_many), (10_000, 3));
}

#[test]
fn a_broken_frame_keeps_what_came_before_it() {
    let mut bytes = v2::EnvelopeBatch { batch: vec![log(3), log(4)] }.encode_to_vec();
    bytes.extend([0x0a, 0x7f, 0x01]);
    let (batch, refused) = Batch::check(bytes.into(), &Limits::default());
    assert_eq!((batch.len(), refused.decode_error), (2, 1));
}

#[test]
fn unknown_fields_of_a_batch_are_skipped_and_envelopes_behind_them_found() {
    let mut bytes = len(9, b"unknown");
    wire::put_bytes(&mut bytes, 1, &log(3).encode_to_vec());
    bytes.extend(scalar(15, 4));
    // A length in a longer form than needed is still a length.
    let second = log(4).encode_to_vec();
    bytes.extend([0x0a, second.len() as u8 | 0x80, 0x00]);
    bytes.extend(&second);
    let (batch, refused) = Batch::check(bytes.into(), &Limits::default());
    assert_eq!((batch.len(), refused.total()), (2, 0));
    let again = v2::EnvelopeBatch::decode(Selection::from(batch).encode()).expect("well-formed");
    assert_eq!(again.batch, [log(3), log(4)]);
}

#[test]
fn a_whole_batch_is_shared_not_copied() {
    let bytes = Bytes::from(v2::EnvelopeBatch { batch: vec![log(3), log(4)] }.encode_to_vec());
    let sent = Selection::from(Batch::check(bytes.clone(), &Limits::default()).0).encode();
    assert_eq!(sent.as_ptr(), bytes.as_ptr());
    let mut out = BytesMut::new();
    Outgoing::from(Selection::from(Batch::index(bytes.clone()).0)).put(&mut out);
    assert_eq!(out, bytes);
}

#[test]
fn groups_nest_up_to_the_bound_and_no_deeper() {
    let nested = |depth: usize| {
        let mut bytes = vec![0x63; depth];
        bytes.extend(vec![0x64; depth]);
        bytes
    };
    assert!(check(&nested(90)).is_ok() && v2::Envelope::decode(&*nested(90)).is_ok());
    assert!(check(&nested(91)).is_err());
    assert!(check(&nested(1_000_000)).is_err());
}

#[test]
fn a_deprecated_tag_hides_a_tag_of_its_key() {
    let value = v2::Value { data: Some(v2::value::Data::Integer(4)) };
    let mut envelope = log(1).tag("a", "1").tag("b", "2");
    envelope.deprecated_tags.insert("a".to_owned(), value);
    let encoded = envelope.encode_to_vec();
    assert_eq!(tags::get(&encoded, b"a"), Some(Value::Integer(4)));
    assert_eq!(tags::get(&encoded, b"b"), Some(Value::Text(b"2")));
    assert_eq!(tags::get(&encoded, b"c"), None);
}

#[test]
fn varint_lengths_are_those_written() {
    for shift in 0..64 {
        for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
            let mut out = Vec::new();
            wire::put_varint(&mut out, value);
            assert_eq!(out.len(), wire::varint_len(value), "{value}");
        }
    }
}

#[test]
fn the_fuzz_corpus_holds() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/envelope_batch_v2");
    let mut replayed = 0;
    for seed in std::fs::read_dir(seeds).expect("the corpus is part of the repository") {
        fuzz::batch(&std::fs::read(seed.expect("readable").path()).expect("readable"));
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} seeds were replayed");
}

#[test]
fn an_outgoing_subscribe_frame_is_what_a_receiver_decodes() {
    use crate::hydrant::v1::{Gap, SubscribeFrame};
    let bytes = Bytes::from(v2::EnvelopeBatch { batch: vec![log(3), log(400)] }.encode_to_vec());
    let gap = Some(Gap { source_id: "app".to_owned(), envelopes: 7, ..Gap::default() });
    let said = SubscribeFrame { epoch: u64::MAX - 5, gap, live: true, end: true, ..SubscribeFrame::default() };
    for batch in [bytes, Bytes::new()] {
        let outgoing = Outgoing::from(Selection::from(Batch::index(batch.clone()).0));
        let frame = OutgoingSubscribeFrame { frame: said.clone(), batch: outgoing };
        let mut out = Vec::new();
        frame.put(&mut out);
        assert_eq!(out.len(), frame.wire_len());
        let decoded = SubscribeFrame::decode(&*out).expect("well-formed");
        assert_eq!(decoded, SubscribeFrame { batch, ..said.clone() });
    }
}

#[test]
fn tags_are_written_in_their_shortest_form_at_every_length() {
    for key in [0, 1, 60, 127, 128] {
        for text in (0..140).chain([16_383, 16_384]) {
            let (key, text) = ("k".repeat(key), "t".repeat(text));
            let mut written = Vec::new();
            edit::put_tag(&mut written, key.as_bytes(), text.as_bytes());
            assert_eq!(written.len(), edit::tag_len(key.as_bytes(), text.as_bytes()));
            let decoded = v2::Envelope::decode(&*written).expect("well-formed");
            assert_eq!(decoded.tags, [(key.clone(), text.clone())].into());

            let mut written = Vec::new();
            edit::put_deprecated_tag(&mut written, key.as_bytes(), text.as_bytes());
            assert_eq!(written.len(), edit::deprecated_tag_len(key.as_bytes(), text.as_bytes()));
            let decoded = v2::Envelope::decode(&*written).expect("well-formed");
            let value = v2::Value { data: Some(v2::value::Data::Text(text)) };
            assert_eq!(decoded.deprecated_tags, [(key, value)].into());
        }
    }
}
