//! Overload: who loses, how much, and that it is counted to the envelope (contract: loggregator v2 §8).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proto::loss;
use proto::v2::Envelope;
use proto::v2::envelope::Message;

use crate::client::{Doppler, Producer, counters, logs};

const RING: usize = 2_048;
const QUIET: usize = 100;
/// What each quiet source sends: its share of the ring.
const SHARE: i64 = 20;
const ROUNDS: i64 = SHARE;
/// What the loud one sends in a round: in all 50 times its share, and five times over.
const LOUD: i64 = 250;

fn line(source: usize, number: i64) -> Envelope {
    Envelope::log(format!("quiet-{source}"), vec![b'q'; 120]).at(number)
}

fn loud(number: i64) -> Envelope {
    Envelope::log("loud", vec![b'l'; 120]).at(number)
}

/// One round: the loud source's lines, with one of each quiet source among them.
fn round(round: i64) -> Vec<Vec<Envelope>> {
    mixed(round, QUIET, LOUD)
}

/// The same with so many quiet sources and so many lines of the loud one.
fn mixed(round: i64, quiet: usize, noise: i64) -> Vec<Vec<Envelope>> {
    let mut noise = round * noise..(round + 1) * noise;
    let between = noise.clone().count() / quiet;
    let mut envelopes = Vec::new();
    for source in 0..quiet {
        envelopes.push(line(source, round));
        envelopes.extend(noise.by_ref().take(between).map(loud));
    }
    envelopes.extend(noise.map(loud));
    envelopes.chunks(50).map(<[Envelope]>::to_vec).collect()
}

fn by_source(envelopes: &[Envelope]) -> BTreeMap<&str, Vec<i64>> {
    let mut all: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for envelope in envelopes {
        all.entry(&envelope.source_id).or_default().push(envelope.timestamp);
    }
    all
}

#[track_caller]
fn assert_quiet_sources_are_whole(got: &BTreeMap<&str, Vec<i64>>, quiet: usize, rounds: i64) {
    for source in 0..quiet {
        let numbers = got.get(format!("quiet-{source}").as_str());
        assert_eq!(numbers, Some(&(0..rounds).collect()), "quiet-{source} loses nothing and stays in order");
    }
}

#[tokio::test]
async fn a_loud_source_loses_its_own_and_every_envelope_is_accounted_for() {
    let doppler = Doppler::with(|config| config.egress.ring_envelopes = RING.try_into().unwrap()).await;
    let stalled = doppler.subscribe_narrow(vec![logs("")]).await;
    let producer = Producer::open(doppler.channel());
    for number in 0..ROUNDS {
        for batch in round(number) {
            producer.send(batch).await;
        }
    }
    producer.finish().await.unwrap();

    let sent = (ROUNDS * LOUD) as u64 + QUIET as u64 * SHARE as u64;
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.received(), numbers.copies(), numbers.refused()), (sent, sent, 0));
    assert!(numbers.depth() <= RING as u64);
    assert!(numbers.get("hydrant_queue_depth_bytes{queue=\"subscription\"}") <= 16 * 1024 * 1024);
    assert!(numbers.dropped("queue_full") > 0, "there was an overload");

    let ([got], numbers) = doppler.drain([stalled]).await;
    numbers.hold_to_the_end();
    assert_eq!(numbers.lost(), numbers.dropped("queue_full"));
    assert_eq!(sent, got.len() as u64 + numbers.dropped("queue_full"), "sent = received + dropped");
    assert_eq!(numbers.delivered(), got.len() as u64);
    let got = by_source(&got);
    assert_quiet_sources_are_whole(&got, QUIET, ROUNDS);
    assert!(got["loud"].is_sorted_by(|a, b| a < b), "what is left of the loud source is in order, once each");
    assert_eq!((ROUNDS * LOUD) as u64, got["loud"].len() as u64 + numbers.dropped("queue_full"), "only it has lost");
}

/// A consumer that takes a half and a third of what comes, for as long as it comes, and then all.
#[tokio::test]
async fn at_two_and_three_times_what_a_consumer_takes_a_thousand_quiet_sources_lose_nothing() {
    const QUIET: usize = 1_000;
    const TAKEN: usize = 4_000;
    const ROUNDS: i64 = 20;
    for over in [2, 3] {
        let doppler = Doppler::with(|config| config.egress.ring_envelopes = 8_192.try_into().unwrap()).await;
        let mut reader = doppler.subscribe_narrow(vec![logs("")]).await;
        let noise = (over * TAKEN - QUIET) as i64;
        let (mut sent, mut got) = (0, Vec::new());
        let mut round = 0;
        while round < ROUNDS {
            let batches = mixed(round, QUIET, noise);
            sent += batches.concat().len();
            doppler.send(batches).await;
            got.extend(reader.take(TAKEN).await);
            round += 1;
        }
        let numbers = doppler.numbers().await;
        numbers.hold();
        let dropped = numbers.dropped("queue_full");
        assert_eq!((numbers.received(), numbers.copies()), (sent as u64, sent as u64));
        assert!(
            dropped as usize > ROUNDS as usize * (over - 1) * TAKEN / 2,
            "{dropped} is no overload of {over} times"
        );
        assert!(numbers.get("hydrant_queue_depth_bytes{queue=\"subscription\"}") <= 16 * 1024 * 1024);

        // The load falls: what is held leaves, and what comes then arrives whole.
        got.extend(reader.take(sent - dropped as usize - got.len()).await);
        let after = mixed(round, QUIET, 2_000);
        sent += after.concat().len();
        doppler.send(after.clone()).await;
        let fresh = reader.take(after.concat().len()).await;
        assert_eq!(fresh, after.concat(), "nothing is missing once the load has fallen");
        got.extend(fresh);

        let ([rest], numbers) = doppler.drain([reader]).await;
        assert_eq!(rest, []);
        numbers.hold_to_the_end();
        assert_eq!((numbers.lost(), numbers.dropped("queue_full")), (dropped, dropped));
        assert_eq!(sent as u64, got.len() as u64 + dropped);
        let got = by_source(&got);
        assert_quiet_sources_are_whole(&got, QUIET, ROUNDS + 1);
        assert!(got["loud"][..got["loud"].len() - 2_000].is_sorted_by(|a, b| a < b), "in order, once each");
    }
}

/// The tags of the markers among envelopes.
fn markers(envelopes: &[Envelope]) -> Vec<&HashMap<String, String>> {
    let is_marker = |envelope: &&Envelope| match &envelope.message {
        Some(Message::Event(event)) => event.title == loss::MARKER,
        _ => false,
    };
    envelopes.iter().filter(is_marker).map(|marker| &marker.tags).collect()
}

#[tokio::test]
async fn who_loses_is_told_whose_how_many_and_why() {
    let doppler = Doppler::with(|config| {
        config.egress.ring_envelopes = RING.try_into().unwrap();
        config.egress.tell_losses = Duration::from_secs(1);
    })
    .await;
    let mut ledger = doppler.subscribe(vec![counters(loss::SOURCE, loss::LEDGER)]).await;
    let asking = doppler.subscribe_asking(vec![logs("")]).await;
    let silent = doppler.subscribe_narrow(vec![logs("")]).await;
    let mut sent = 0;
    for number in 0..ROUNDS {
        let batches = round(number);
        sent += batches.concat().len();
        doppler.send(batches).await;
    }
    let dropped = doppler.numbers().await.dropped("queue_full");
    assert!(dropped > 0, "there was an overload");

    // Whoever looks after the pipeline reads it under the source `hydrant`.
    let mut told = 0;
    while told < dropped {
        let envelope = ledger.next().await.unwrap();
        let tag = |key: &str| envelope.tags[key].as_str();
        assert_eq!((tag("lost_source"), tag("stage"), tag("reason")), ("loud", "doppler", "queue_full"));
        assert!(["#2", "#3"].contains(&tag("subscription")), "{}", tag("subscription"));
        let Some(Message::Counter(counter)) = &envelope.message else { panic!("a counter") };
        told += counter.delta;
    }
    assert_eq!(told, dropped);

    let ([asking, silent], _) = doppler.drain([asking, silent]).await;
    assert!(markers(&silent).is_empty(), "who has not asked sees nothing");
    let markers = markers(&asking);
    let told: usize = markers.iter().map(|tags| tags["envelopes"].parse::<usize>().unwrap()).sum();
    assert_eq!(asking.len() - markers.len() + told, sent, "what came and what is told is all that was sent");
    for tags in markers {
        assert_eq!((&*tags["stage"], &*tags["reason"]), ("doppler", "queue_full"));
        let [first, last] = ["first_timestamp", "last_timestamp"].map(|key| tags[key].parse::<i64>().unwrap());
        assert!((0..ROUNDS * LOUD).contains(&first) && (first..ROUNDS * LOUD).contains(&last));
    }
    let sources = asking.iter().filter(|envelope| matches!(envelope.message, Some(Message::Event(_))));
    assert!(sources.map(|marker| &marker.source_id).all(|source| source == "loud"), "only it has lost");
}

#[tokio::test]
async fn a_stalled_consumer_costs_only_itself() {
    let doppler = Doppler::with(|config| config.egress.ring_envelopes = RING.try_into().unwrap()).await;
    let stalled = doppler.subscribe_narrow(vec![logs("")]).await;
    let mut reader = doppler.subscribe(vec![logs("")]).await;
    let producer = Producer::open(doppler.channel());
    let mut sent = 0;
    for number in 0..ROUNDS {
        let batches = round(number);
        let expected = batches.concat();
        for batch in batches {
            producer.send(batch).await;
        }
        sent += expected.len() as u64;
        // The reader keeps up, and so gets everything, in order.
        assert_eq!(reader.take(expected.len()).await, expected, "round {number}");
    }
    producer.finish().await.unwrap();
    let ([got, rest], numbers) = doppler.drain([stalled, reader]).await;
    assert!(rest.is_empty());
    numbers.hold_to_the_end();
    assert_eq!(numbers.copies(), 2 * sent);
    assert!(numbers.dropped("queue_full") > 0);
    assert_eq!(sent, got.len() as u64 + numbers.dropped("queue_full"), "all that was dropped was the stalled one's");
}

#[tokio::test]
async fn what_a_consumer_leaves_behind_is_counted_and_told_by_source() {
    let doppler = Doppler::with(|config| config.egress.tell_losses = Duration::from_secs(1)).await;
    let mut ledger = doppler.subscribe(vec![counters(loss::SOURCE, loss::LEDGER)]).await;
    let leaver = doppler.subscribe_narrow(vec![logs("")]).await;
    // One of "a" to four of "b", so that how many of each are lost shows whose they are.
    let source = |i: i64| if i % 5 == 0 { "a" } else { "b" };
    let lines: Vec<Envelope> = (0..5_000).map(|i| Envelope::log(source(i), vec![b'x'; 200]).at(i)).collect();
    doppler.send(lines.chunks(100).map(<[Envelope]>::to_vec)).await;
    drop(leaver);
    doppler.await_subscriptions(1).await;
    let numbers = doppler.numbers().await;
    let lost = numbers.dropped("peer_lost");
    assert_eq!(numbers.copies(), 5_000);
    assert!(lost > 0);
    assert_eq!(numbers.delivered() + lost, 5_000);
    let mut told = BTreeMap::new();
    while told.values().sum::<u64>() < lost {
        let envelope = ledger.next().await.unwrap();
        let Some(Message::Counter(counter)) = &envelope.message else { panic!("a counter") };
        let tag = |key: &str| envelope.tags[key].as_str();
        assert_eq!(
            (tag("subscription"), tag("reason"), tag("last_timestamp")),
            ("#2", "peer_lost", last(tag("lost_source")))
        );
        *told.entry(tag("lost_source").to_owned()).or_default() += counter.delta;
    }
    // What is lost is the end of what was sent, in whole batches.
    assert_eq!(told, BTreeMap::from([("a".to_owned(), lost / 5), ("b".to_owned(), lost - lost / 5)]));
    doppler.numbers().await.hold();
}

/// The timestamp of the last line of each source above.
fn last(source: &str) -> &'static str {
    if source == "a" { "4995" } else { "4999" }
}

#[tokio::test]
async fn a_large_batch_to_a_consumer_that_leaves_is_counted_too() {
    // Taken from the ring at once, given out in messages of ten: what was taken and not given out is lost as well.
    let doppler = Doppler::with(|config| config.egress.batch_envelopes = 10.try_into().unwrap()).await;
    let leaver = doppler.subscribe_narrow(vec![logs("")]).await;
    doppler.send([(0..5_000).map(|i| Envelope::log("a", vec![b'x'; 200]).at(i)).collect()]).await;
    drop(leaver);
    doppler.await_subscriptions(0).await;
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.copies(), numbers.depth()), (5_000, 0));
    assert!(numbers.delivered() < 5_000);
    assert_eq!(numbers.delivered() + numbers.dropped("peer_lost"), 5_000);
}
