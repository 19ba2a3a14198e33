//! Subscriptions that start in the past: history and what comes join without gap or repeat, and an end is confirmed.

use std::time::Duration;

use prost::Message;
use proto::start::Acquaintance;
use proto::subscribe::{Event, Stream};
use proto::v2::{Envelope, EnvelopeBatch, Selector};
use tokio_util::task::TaskTracker;

use crate::client::{Acknowledged, Doppler, counters, logs, request};

const MINUTE: Duration = Duration::from_secs(60);

/// One consumer, which knows the doppler or does not.
struct Consumer {
    stream: Stream,
    known: Acquaintance,
}

impl Consumer {
    async fn open(doppler: &Doppler, known: Acquaintance, shard: &str, selectors: Vec<Selector>) -> Self {
        let request = request(shard, "", selectors);
        let stream = Stream::open(doppler.channel(), &request, &known, MINUTE, Duration::ZERO).await.unwrap();
        Self { stream, known }
    }

    /// One that has been subscribed for a minute and meets the doppler now.
    async fn late(doppler: &Doppler, shard: &str, selectors: Vec<Selector>) -> Self {
        Self::open(doppler, Acquaintance::newcomer(), shard, selectors).await
    }

    /// The numbers of the next `count` envelopes.
    async fn take(&mut self, count: usize) -> Vec<i64> {
        let mut got = Vec::new();
        while got.len() < count {
            match self.stream.next(&mut self.known).await.unwrap() {
                Some(Event::Batch(batch)) => got.extend(numbers(&batch)),
                other => panic!("{other:?} after {} of {count}", got.len()),
            }
        }
        got
    }

    /// The numbers of the envelopes up to the end, which must be said.
    async fn rest(&mut self) -> Vec<i64> {
        let mut got = Vec::new();
        loop {
            match self.stream.next(&mut self.known).await.unwrap() {
                Some(Event::Batch(batch)) => got.extend(numbers(&batch)),
                Some(Event::End) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(self.stream.next(&mut self.known).await.unwrap().is_none(), "nothing comes after the end");
        got
    }
}

fn numbers(batch: &[u8]) -> Vec<i64> {
    EnvelopeBatch::decode(batch).unwrap().batch.iter().map(|envelope| envelope.timestamp).collect()
}

fn line(number: i64) -> Envelope {
    Envelope::log(format!("app-{}", number % 7), "x").at(number)
}

async fn send(stream: &mut Acknowledged, envelopes: Vec<Envelope>) {
    assert!(stream.send(envelopes).await);
    stream.ack().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_came_before_and_what_comes_join_without_gap_or_repeat() {
    const SENDERS: i64 = 4;
    const EACH: i64 = 4_000;
    let doppler = Doppler::start().await;
    let tracker = TaskTracker::new();
    let mut sending = Vec::new();
    for sender in 0..SENDERS {
        let mut stream = Acknowledged::open(doppler.channel()).await;
        sending.push(tracker.spawn(async move {
            for first in (0..EACH).step_by(20) {
                send(&mut stream, (first..first + 20).map(|i| line(sender * EACH + i)).collect()).await;
            }
        }));
    }
    // Some come while lines do, at whatever moment that is.
    let mut consumers = Vec::new();
    while consumers.len() < 20 {
        let before = doppler.numbers().await.received();
        consumers.push(Consumer::late(&doppler, "", vec![logs("")]).await);
        while consumers.len() < 20 && doppler.numbers().await.received() == before && before < (SENDERS * EACH) as u64 {
        }
    }
    for sent in sending {
        sent.await.unwrap();
    }
    for mut consumer in consumers {
        let mut got = consumer.take((SENDERS * EACH) as usize).await;
        // Per source in the order of arrival, whatever sender it came from.
        for sender in 0..SENDERS {
            for source in 0..7 {
                let own = |number: &&i64| **number / EACH == sender && **number % 7 == source;
                assert!(got.iter().filter(own).is_sorted());
            }
        }
        got.sort_unstable();
        assert_eq!(got, (0..SENDERS * EACH).collect::<Vec<_>>());
    }
    let counted = doppler.numbers().await;
    counted.hold();
    assert!(counted.get("hydrant_replayed_envelopes_total") > 0);
}

#[tokio::test]
async fn who_knows_the_doppler_or_was_there_begins_live() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    send(&mut stream, vec![line(1)]).await;
    let mut late = Consumer::late(&doppler, "", vec![logs("")]).await;
    assert_eq!(late.take(1).await, [1]);
    let known = late.known.clone();
    let mut again = Consumer::open(&doppler, known.clone(), "", vec![logs("")]).await;
    let mut present = Consumer::open(&doppler, Acquaintance::present(), "", vec![logs("")]).await;
    send(&mut stream, vec![line(2)]).await;
    assert_eq!((again.take(1).await, present.take(1).await), (vec![2], vec![2]));
    // One whose stream broke goes on a little before where it was.
    let mut broken = known;
    broken.broke();
    let mut back = Consumer::open(&doppler, broken, "", vec![logs("")]).await;
    let mut got = back.take(2).await;
    got.sort_unstable();
    assert_eq!(got, [1, 2]);
}

#[tokio::test]
async fn only_what_the_selectors_admit_is_replayed_and_each_envelope_once() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    let counter = |name: &str, number| Envelope::counter("app-1", name, 1).at(number);
    send(
        &mut stream,
        vec![line(1), counter("requests", 2), counter("errors", 3), line(2), Envelope::event("app-1", "t", "b").at(4)],
    )
    .await;
    let mut both = Consumer::late(&doppler, "", vec![logs("app-1"), logs(""), counters("app-1", "errors")]).await;
    let mut got = both.take(3).await;
    got.sort_unstable();
    assert_eq!(got, [1, 2, 3]);
    send(&mut stream, vec![line(10)]).await;
    assert_eq!(both.take(1).await, [10], "nothing came twice");
}

#[tokio::test]
async fn of_a_shard_one_gets_what_nobody_got() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    send(&mut stream, (0..10).map(line).collect()).await;
    let mut first = Consumer::late(&doppler, "shard", vec![logs("")]).await;
    let mut second = Consumer::late(&doppler, "shard", vec![logs("")]).await;
    let mut got = first.take(10).await;
    got.sort_unstable();
    assert_eq!(got, (0..10).collect::<Vec<_>>());
    send(&mut stream, vec![line(100); 64]).await;
    let shares = (first.take(32).await.len(), second.take(32).await.len());
    assert_eq!(shares, (32, 32), "the second got nothing of the past, and its share of the rest");
    // Both leave; what comes while nobody is there is for the next one.
    drop((first, second));
    doppler.await_subscriptions(0).await;
    send(&mut stream, vec![line(200)]).await;
    let mut third = Consumer::late(&doppler, "shard", vec![logs("")]).await;
    assert_eq!(third.take(1).await, [200]);
}

#[tokio::test]
async fn without_a_cache_there_is_no_past() {
    let doppler = Doppler::with(|config| config.cache.enabled = false).await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    send(&mut stream, vec![line(1)]).await;
    let mut late = Consumer::late(&doppler, "", vec![logs("")]).await;
    send(&mut stream, vec![line(2)]).await;
    assert_eq!(late.take(1).await, [2]);
}

#[tokio::test]
async fn agents_streams_end_only_when_consumers_have_confirmed() {
    let doppler = Doppler::start().await;
    let mut consumer = Consumer::late(&doppler, "", vec![logs("")]).await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    for first in 0..20 {
        send(&mut stream, (first * 50..(first + 1) * 50).map(line).collect()).await;
    }
    doppler.stop();
    // The end is said once all has been sent; only then can the agent's stream end.
    let got = consumer.rest().await;
    assert_eq!(got, (0..1_000).collect::<Vec<_>>());
    assert!(stream.ack().await.unwrap().is_none(), "the stream ends in order");
    let (drained, numbers) = doppler.shutdown().await;
    numbers.hold_to_the_end();
    assert_eq!((drained.dropped, numbers.lost()), (0, 0));
}
