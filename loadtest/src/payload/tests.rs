//! Tests of `payload`.

use proptest::prelude::*;
use prost::Message;

use super::*;

const NOW: u64 = 1_790_000_000_123_456_789;

fn encode(load: &Load) -> Vec<u8> {
    let mut bytes = Vec::new();
    load.write(&mut bytes);
    assert_eq!(bytes.len(), load.size(), "the size announced is the size written");
    bytes
}

fn read_all(reader: &mut Reader, batch: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    for_each_envelope(batch, |envelope| found.push(reader.read(envelope))).unwrap();
    found
}

#[test]
fn an_envelope_has_the_size_that_the_figures_are_for() {
    let template = Template::new(1, 0, "loadtest-0000", "0", Shape::default());
    assert!((430..=436).contains(&template.envelope_bytes()), "{} bytes", template.envelope_bytes());
}

#[test]
fn a_load_decodes_to_whole_envelopes_with_their_timestamp() {
    let template = Template::new(7, 3, "source", "instance", Shape { payload_bytes: 80, tags: 12 });
    let bytes = encode(&template.load(41, 2, NOW));
    let batch = v2::EnvelopeBatch::decode(&bytes[..]).unwrap().batch;
    assert_eq!(batch.len(), 2);
    for (i, envelope) in batch.iter().enumerate() {
        assert_eq!(envelope.timestamp, NOW.cast_signed());
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("source", "instance"));
        assert_eq!(envelope.tags.len(), 12);
        let expected = format!("loadtest 0000000000000007 00000003 {:016x} {NOW:016x} abcdefghijk", 41 + i);
        assert_eq!(envelope.payload(), expected.as_bytes());
        assert_eq!(envelope.encoded_len(), template.envelope_bytes());
    }
}

#[test]
fn a_payload_too_small_for_its_marks_grows() {
    let template = Template::new(7, 3, "s", "i", Shape { payload_bytes: 1, tags: 0 });
    let mut reader = Reader::new(7, Shape { payload_bytes: 1, tags: 0 });
    let found = read_all(&mut reader, &encode(&template.load(0, 1, NOW)));
    assert_eq!(found, [Found::Ours(Mark { sender: 3, sequence: 0, scheduled: NOW })]);
}

#[test]
fn other_runs_and_other_envelopes_are_foreign() {
    let shape = Shape::default();
    let mut reader = Reader::new(2, shape);
    let other = encode(&Template::new(1, 0, "s", "i", shape).load(0, 1, NOW));
    assert_eq!(read_all(&mut reader, &other), [Found::Foreign]);
    let counter = v2::Envelope::counter("s", "loadtest 0000000000000002 ", 1).encode_to_vec();
    assert_eq!(reader.read(&counter), Found::Foreign);
    assert_eq!(reader.read(b""), Found::Foreign);
    assert_eq!(reader.read(b"\xff\xff"), Found::Foreign);
}

#[test]
fn a_changed_payload_is_corrupt() {
    let shape = Shape::default();
    let frame = encode(&Template::new(2, 0, "s", "i", shape).load(0, 1, NOW));
    let at = frame.windows(MAGIC.len()).position(|window| window == MAGIC).unwrap();
    for (changed, to) in [(FILLER_AT + 5, b'!'), (SENDER_AT, b'x'), (SEQUENCE_AT + 3, b'-'), (SCHEDULED_AT, b' ')] {
        let mut frame = frame.clone();
        frame[at + changed] = to;
        assert_eq!(read_all(&mut Reader::new(2, shape), &frame), [Found::Corrupt], "byte {changed}");
    }
}

#[test]
fn a_batch_cut_short_hands_out_what_is_whole() {
    let shape = Shape::default();
    let frame = encode(&Template::new(2, 0, "s", "i", shape).load(0, 3, NOW));
    let mut whole = 0;
    assert!(for_each_envelope(&frame[..frame.len() - 1], |_| whole += 1).is_err());
    assert_eq!(whole, 2);
}

proptest! {
    /// What is sent is read back, also when a hop appended fields, and whatever came before.
    #[test]
    fn marks_survive_the_wire(
        run: u64,
        loads in proptest::collection::vec((0_u32..4, any::<u32>(), 1_u32..5, any::<u64>(), any::<bool>()), 1..20),
    ) {
        let shape = Shape { payload_bytes: 100, tags: 3 };
        let mut reader = Reader::new(run, shape);
        for (sender, first, count, scheduled, tagged) in loads {
            let template = Template::new(run, sender, &"source".repeat(sender as usize), "0", shape);
            let bytes = encode(&template.load(first.into(), count, scheduled));
            let mut batch = v2::EnvelopeBatch::decode(&bytes[..]).unwrap();
            if tagged {
                for envelope in &mut batch.batch {
                    envelope.source_id = "renamed-on-the-way".to_owned();
                }
            }
            let expected: Vec<_> = (0..u64::from(count))
                .map(|i| Found::Ours(Mark { sender, sequence: u64::from(first) + i, scheduled }))
                .collect();
            prop_assert_eq!(read_all(&mut reader, &batch.encode_to_vec()), expected);
        }
    }
}
