//! What producers send: well-formed, malformed, too large; plain and acknowledged streams (contract: loggregator v2 §2, §4.1, §6,
//! §9.1).

use bytes::Bytes;
use prost::Message as _;
use proto::codec::Wire;
use proto::hydrant::v1::Dropped;
use proto::v2::{Envelope, EnvelopeBatch};
use tonic::Code;

use crate::client::{Acknowledged, Doppler, Producer, encode, everything, logs, payloads, sender, slices};

/// `payload` as a length-delimited field.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(payload.len() as u64, &mut out);
    out.extend(payload);
    out
}

fn batch_of(envelopes: &[Vec<u8>]) -> Wire {
    Wire(envelopes.iter().flat_map(|envelope| field(1, envelope)).collect::<Vec<u8>>().into())
}

#[tokio::test]
async fn a_finished_stream_is_answered() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let envelopes = ["one", "two", "three"].map(|line| Wire(Envelope::log("a", line).encode_to_vec().into()));
    sender(doppler.channel(), envelopes.to_vec()).await.unwrap();
    sender(doppler.channel(), Vec::new()).await.unwrap();
    let producer = Producer::open(doppler.channel());
    producer.send(vec![Envelope::log("a", "four")]).await;
    producer.send(Vec::new()).await;
    producer.send(vec![Envelope::log("a", "five")]).await;
    producer.finish().await.unwrap();
    assert_eq!(payloads(&subscriber.take(5).await), ["one", "two", "three", "four", "five"]);
    let ([], numbers) = doppler.drain([]).await;
    assert_eq!((numbers.received(), numbers.delivered()), (5, 5));
}

#[tokio::test]
async fn an_envelope_comes_out_as_the_bytes_that_went_in() {
    let doppler = Doppler::start().await;
    let mut all = doppler.subscribe(everything()).await;
    let mut some = doppler.subscribe(vec![logs("a")]).await;
    // An unknown field before and after, fields out of order and written twice.
    let log = Envelope::log("a", "line").at(7).tag("k", "v").encode_to_vec();
    let strange = [field(1_000, b"from the future"), field(2, b"first"), log, field(2_000, &[0xff, 0xfe])].concat();
    let plain = Envelope::counter("a", "requests", 1).encode_to_vec();
    // Other fields of the batch are not passed on: there is no envelope in them.
    let mut message = batch_of(&[strange.clone(), plain.clone()]).0.to_vec();
    message.extend(field(15, b"of the batch"));
    let producer = Producer::open(doppler.channel());
    producer.send_raw(Wire(message.into())).await;
    producer.finish().await.unwrap();
    assert_eq!(slices(&all.message().await.unwrap()), [strange.clone(), plain]);
    assert_eq!(slices(&some.message().await.unwrap()), [strange]);
}

#[tokio::test]
async fn what_is_malformed_costs_only_itself() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let good = |line: &str| Envelope::log("a", line.to_owned()).encode_to_vec();
    let other = Producer::open(doppler.channel());
    let producer = Producer::open(doppler.channel());
    let mut next = 0;
    let mut expected = async |line: &str, refused: u64| {
        assert_eq!(payloads(&subscriber.take(1).await), [line]);
        next += refused;
        next
    };

    // Not a batch at all: one envelope is counted, whatever it was.
    producer.send_raw(Wire(Bytes::from_static(&[0x0a, 0x7f, 0x01]))).await;
    producer.send_raw(batch_of(&[good("after garbage")])).await;
    let refused = expected("after garbage", 1).await;
    let numbers = doppler.numbers().await;
    assert_eq!((numbers.dropped("decode_error"), numbers.refused()), (refused, refused));

    // Broken inside its own bounds, and text that is not UTF-8, between good ones.
    let bad_text = field(2, &[0xff]);
    let cut = good("cut")[..5].to_vec();
    producer.send_raw(batch_of(&[cut, good("between"), bad_text])).await;
    let refused = expected("between", 2).await;
    assert_eq!(doppler.numbers().await.dropped("decode_error"), refused);

    // Over a limit of its own.
    let large = Envelope::log("a", vec![b'x'; 1024 * 1024]).encode_to_vec();
    let tags = (0..129).fold(Envelope::log("a", "tags"), |envelope, i| envelope.tag(format!("k{i}"), "v"));
    producer.send_raw(batch_of(&[large, good("beside"), tags.encode_to_vec()])).await;
    expected("beside", 2).await;
    let numbers = doppler.numbers().await;
    assert_eq!((numbers.dropped("oversize"), numbers.dropped("too_many")), (1, 1));

    // Too many in a batch: those over the limit.
    producer.send_raw(batch_of(&vec![Envelope::timer("a", "t", 1, 2).encode_to_vec(); 10_007])).await;
    producer.send_raw(batch_of(&[good("after many")])).await;
    expected("after many", 7).await;
    assert_eq!(doppler.numbers().await.dropped("too_many"), 8);

    // The other stream, and the connection, never noticed.
    other.send(vec![Envelope::log("b", "unharmed")]).await;
    expected("unharmed", 0).await;
    producer.finish().await.unwrap();
    other.finish().await.unwrap();
    let ([], numbers) = doppler.drain([]).await;
    numbers.hold();
    assert_eq!((numbers.received(), numbers.refused()), (10_000 + 5 + 12, 12));
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_stream_alone() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    // Both on one connection.
    let channel = doppler.channel();
    let (other, producer) = (Producer::open(channel.clone()), Producer::open(channel.clone()));
    producer.send(vec![Envelope::log("a", "before")]).await;
    assert_eq!(payloads(&subscriber.take(1).await), ["before"]);
    producer.send_raw(Wire(vec![0; 10 * 1024 * 1024 + 1].into())).await;
    let status = producer.finish().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().starts_with("received message larger than max"), "{status}");

    let mut acknowledged = Acknowledged::open(channel).await;
    assert!(acknowledged.send(vec![Envelope::log("a", vec![b'x'; 11 * 1024 * 1024])]).await);
    assert_eq!(acknowledged.ack().await.unwrap_err().code(), Code::ResourceExhausted);

    other.send(vec![Envelope::log("b", "unharmed")]).await;
    assert_eq!(payloads(&subscriber.take(1).await), ["unharmed"]);
    other.finish().await.unwrap();
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.received(), numbers.dropped("oversize")), (4, 2));
}

#[tokio::test]
async fn a_batch_at_the_limit_passes() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let line = Envelope::log("a", vec![b'x'; 1_000_000]);
    let mut message = EnvelopeBatch { batch: vec![line.clone(); 10] }.encode_to_vec();
    let filling = 10 * 1024 * 1024 - message.len() - 4;
    message.extend(field(15, &vec![0; filling]));
    assert_eq!(message.len(), 10 * 1024 * 1024);
    let producer = Producer::open(doppler.channel());
    producer.send_raw(Wire(message.into())).await;
    producer.finish().await.unwrap();
    assert_eq!(subscriber.take(10).await, vec![line; 10]);
    assert_eq!(doppler.numbers().await.refused(), 0);
}

#[tokio::test]
async fn frames_are_acknowledged_with_what_became_of_them() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    let bad = Envelope::log("s".repeat(257), "too long an id");
    assert!(stream.send(vec![Envelope::log("a", "one"), Envelope::timer("a", "nobody wants", 1, 2)]).await);
    let ack = stream.ack().await.unwrap().unwrap();
    assert_eq!((ack.sequence, ack.delivered, ack.dropped), (1, 2, vec![]));
    assert!(stream.send(vec![bad.clone(), Envelope::log("a", "two"), bad]).await);
    let ack = stream.ack().await.unwrap().unwrap();
    let dropped = vec![Dropped { reason: "oversize".to_owned(), envelopes: 2 }];
    assert_eq!((ack.sequence, ack.delivered, ack.dropped), (2, 3, dropped));
    assert!(stream.send(Vec::new()).await);
    assert_eq!(stream.ack().await.unwrap().unwrap().sequence, 3);
    assert_eq!(payloads(&subscriber.take(2).await), ["one", "two"]);

    // Acknowledged means published: the numbers need not be waited for.
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.received(), numbers.refused(), numbers.copies()), (5, 2, 2));
}

#[tokio::test]
async fn a_frame_out_of_sequence_ends_the_stream_and_is_not_published() {
    let doppler = Doppler::start().await;
    for wrong in [0, 1, 3, u64::MAX] {
        let mut stream = Acknowledged::open(doppler.channel()).await;
        assert!(stream.send(vec![Envelope::log("a", "first")]).await);
        assert_eq!(stream.ack().await.unwrap().unwrap().sequence, 1);
        assert!(stream.send_as(wrong, vec![Envelope::log("a", "out of sequence")]).await);
        let status = stream.ack().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let message = format!("frame {wrong} arrived where frame 2 was due; count frames from 1");
        assert_eq!(status.message(), message);
    }
    assert_eq!(doppler.numbers().await.received(), 4);
}

#[tokio::test]
async fn what_is_sent_again_after_a_break_is_taken_once() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let line = |i: u64| vec![Envelope::log("a", i.to_string()); 2];
    let mut first = Acknowledged::open(doppler.channel()).await;
    assert_eq!(first.greet((7, 1), 0).await.unwrap(), 0);
    for i in 1..=3 {
        assert!(first.send_as(i, line(i)).await);
        assert_eq!(first.ack().await.unwrap().unwrap().sequence, i);
    }
    // The old connection is still open when the new one comes.
    let mut second = Acknowledged::open(doppler.channel()).await;
    assert_eq!(second.greet((7, 1), 1).await.unwrap(), 3);
    for i in 2..=4 {
        assert!(second.send_as(i, line(i)).await);
        assert_eq!(second.ack().await.unwrap().unwrap().sequence, 3.max(i));
    }
    // What the old one brings late has come already.
    assert!(first.send_as(4, line(4)).await);
    assert_eq!(first.ack().await.unwrap().unwrap().sequence, 4);
    assert_eq!(payloads(&subscriber.take(8).await), ["1", "1", "2", "2", "3", "3", "4", "4"]);
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.received(), numbers.get("hydrant_duplicates_total")), (8, 6));
}

#[tokio::test]
async fn senders_and_their_streams_are_told_apart_and_unknown_ones_go_on_where_they_are() {
    let doppler = Doppler::start().await;
    for (sender, at) in [((1, 1), 0), ((1, 2), 0), ((2, 1), 500), ((3, 1), u64::MAX - 1)] {
        let mut stream = Acknowledged::open(doppler.channel()).await;
        assert_eq!(stream.greet(sender, at).await.unwrap(), at);
        assert!(stream.send_as(at + 1, vec![Envelope::log("a", "one")]).await);
        assert_eq!(stream.ack().await.unwrap().unwrap().sequence, at + 1);
    }
    assert_eq!(doppler.numbers().await.received(), 4);
}

#[tokio::test]
async fn a_sender_that_skips_a_frame_or_names_itself_late_is_told_so() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    stream.greet((1, 1), 5).await.unwrap();
    assert!(stream.send_as(7, vec![Envelope::log("a", "skipped one")]).await);
    let status = stream.ack().await.unwrap_err();
    assert_eq!(status.message(), "frame 7 arrived where frame 6 was due; count frames from 1");

    let mut stream = Acknowledged::open(doppler.channel()).await;
    assert!(stream.send(vec![Envelope::log("a", "first")]).await);
    stream.ack().await.unwrap();
    let status = stream.greet((1, 2), 1).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(doppler.numbers().await.received(), 1);
}

#[tokio::test]
async fn a_flush_is_acknowledged_when_what_came_before_has_left() {
    let doppler = Doppler::start().await;
    let mut consumer = doppler.subscribe_narrow(vec![logs("")]).await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    for i in 0..40 {
        let lines = (0..100).map(|line| Envelope::log("a", vec![b'x'; 200]).at(i * 100 + line)).collect();
        assert!(stream.send(lines).await);
        stream.ack().await.unwrap();
    }
    assert!(doppler.numbers().await.depth() > 0, "the consumer does not read");
    assert!(stream.flush().await);
    let (ack, got) = tokio::join!(stream.ack(), consumer.take(4_000));
    assert_eq!((ack.unwrap().unwrap().sequence, got.len()), (41, 4_000));
    assert_eq!(doppler.numbers().await.depth(), 0);
    // Nobody that does not read holds it up for good.
    let _stuck = doppler.subscribe_narrow(vec![logs("")]).await;
    for i in 0..40 {
        let lines = (0..100).map(|line| Envelope::log("a", vec![b'x'; 200]).at(i * 100 + line)).collect();
        assert!(stream.send(lines).await);
        stream.ack().await.unwrap();
    }
    assert!(stream.flush().await);
    assert_eq!(stream.ack().await.unwrap().unwrap().sequence, 82);
}

#[tokio::test]
async fn messages_keep_within_their_bounds() {
    let doppler = Doppler::with(|config| {
        config.egress.batch_envelopes = 10.try_into().unwrap();
        config.egress.batch_bytes = 2_000.try_into().unwrap();
    })
    .await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let short = |i: i64| Envelope::log("a", "short").at(i);
    let long = |i: i64| Envelope::log("a", vec![b'x'; 900]).at(i);
    let huge = |i: i64| Envelope::log("a", vec![b'x'; 5_000]).at(i);
    let envelopes: Vec<Envelope> =
        (0..100).map(short).chain((100..120).map(long)).chain([huge(120)]).chain((121..200).map(short)).collect();
    doppler.send([envelopes.clone()]).await;
    doppler.send(envelopes.chunks(7).map(<[Envelope]>::to_vec)).await;
    let mut got = Vec::new();
    while got.len() < 400 {
        let message = subscriber.message().await.unwrap();
        let batch = EnvelopeBatch::decode(message.0.clone()).unwrap().batch;
        assert!((1..=10).contains(&batch.len()), "{} in a message", batch.len());
        assert!(message.0.len() <= 2_000 || batch.len() == 1, "{} bytes in a message", message.0.len());
        got.extend(batch);
    }
    assert_eq!(got, [envelopes.clone(), envelopes].concat());
}

#[tokio::test]
async fn a_line_leaves_at_once() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(vec![logs("")]).await;
    let producer = Producer::open(doppler.channel());
    // Each is answered before the next is sent: nothing waits for company.
    for i in 0..50 {
        let line = Envelope::log("a", format!("line {i}"));
        producer.send_raw(encode(vec![line.clone()])).await;
        assert_eq!(subscriber.take(1).await, [line]);
    }
    producer.finish().await.unwrap();
}
