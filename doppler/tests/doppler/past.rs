//! Subscriptions that start in the past: history and what comes join without gap or repeat, and an end is confirmed.

use std::time::Duration;

use prost::Message;
use proto::start::Acquaintance;
use proto::subscribe::{Event, Stream};
use proto::v2::{Envelope, EnvelopeBatch, Selector};
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

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
        let stream = Stream::open(doppler.channel(), &request, &known, (MINUTE, Duration::ZERO)).await.unwrap();
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

    /// Asks for a change and waits until it holds.
    async fn change(&mut self, number: u64, added: Vec<Selector>, removed: Vec<Selector>) {
        self.stream.change(number, added, removed).await;
        loop {
            match self.stream.next(&mut self.known).await.unwrap() {
                Some(Event::Changed(changed)) => return assert_eq!(changed, number),
                Some(Event::Batch(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// How the stream is ended, with nothing before that.
    async fn refused(&mut self) -> Status {
        self.stream.next(&mut self.known).await.unwrap_err()
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

#[tokio::test]
async fn a_subscription_changes_while_it_is_open() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    let of = |source: i64, number: i64| Envelope::log(format!("app-{source}"), "x").at(number);
    let mut consumer = Consumer::open(&doppler, Acquaintance::present(), "", vec![logs("app-1")]).await;
    doppler.await_subscriptions(1).await;
    send(&mut stream, vec![of(1, 10), of(2, 20)]).await;
    assert_eq!(consumer.take(1).await, [10]);

    // One more, as if it had always been there; what the cache has of it is not sent.
    consumer.change(7, vec![logs("app-2"), logs("app-1")], vec![logs("app-3")]).await;
    send(&mut stream, vec![of(1, 11), of(2, 21), of(3, 31)]).await;
    assert_eq!(consumer.take(2).await, [11, 21]);

    // Another in the place of one; every change is answered, in order.
    consumer.change(8, vec![logs("app-3")], vec![logs("app-1")]).await;
    consumer.change(9, vec![], vec![logs("app-2"), logs("app-2")]).await;
    send(&mut stream, vec![of(1, 12), of(2, 22), of(3, 32)]).await;
    assert_eq!(consumer.take(1).await, [32]);

    // Nothing at all, and something again.
    consumer.change(10, vec![], vec![logs("app-3")]).await;
    send(&mut stream, vec![of(1, 13), of(2, 23), of(3, 33)]).await;
    consumer.change(11, vec![logs("")], vec![]).await;
    send(&mut stream, vec![of(1, 14), of(2, 24), of(3, 34)]).await;
    assert_eq!(consumer.take(3).await, [14, 24, 34]);
    drop(consumer);
    doppler.await_subscriptions(0).await;
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!((numbers.copies(), numbers.delivered(), numbers.lost()), (7, 7, 0));
}

#[tokio::test]
async fn a_busy_stream_holds_no_change_up() {
    let doppler = Doppler::start().await;
    let mut consumer = Consumer::open(&doppler, Acquaintance::present(), "", vec![logs("busy")]).await;
    doppler.await_subscriptions(1).await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    let sending = TaskTracker::new().spawn(async move {
        for i in 0..2_000 {
            send(&mut stream, (0..100).map(|at| Envelope::log("busy", "x").at(i * 100 + at)).collect()).await;
        }
    });
    consumer.take(1_000).await;
    consumer.change(1, vec![logs("other")], vec![logs("busy")]).await;
    doppler.send([vec![Envelope::log("other", "x").at(-1)]]).await;
    let mut last = Vec::new();
    while last.last() != Some(&-1) {
        last = consumer.take(1).await;
    }
    assert!(!sending.is_finished(), "it came while the load went on");
    sending.abort();
}

#[tokio::test]
async fn a_change_that_cannot_be_followed_says_why_and_ends_the_stream() {
    let doppler = Doppler::start().await;
    let many = |from: usize| (from..from + 10_000).map(|i| logs(&format!("source-{i}"))).collect::<Vec<_>>();
    let open = || Consumer::open(&doppler, Acquaintance::present(), "", vec![logs("first")]);

    let mut consumer = open().await;
    consumer.stream.change(0, vec![logs("second")], vec![]).await;
    let refused = consumer.refused().await;
    let text = "a request that changes a subscription has a change number, selectors and removed, no more";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text));

    let mut consumer = open().await;
    let too_many = [many(0), vec![logs("one more")]].concat();
    consumer.stream.change(1, too_many, vec![]).await;
    let refused = consumer.refused().await;
    let text = "10001 selectors; a request has 10000 at most";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text));

    let mut consumer = open().await;
    for i in 0..9 {
        consumer.change(i + 1, many(i as usize * 10_000), vec![]).await;
    }
    consumer.change(10, many(90_000).split_off(1), vec![]).await;
    consumer.stream.change(11, vec![logs("one more")], vec![]).await;
    let refused = consumer.refused().await;
    let text = "100001 selectors; a subscription has 100000 at most";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, text));
    doppler.await_subscriptions(0).await;
}

#[tokio::test]
async fn each_selector_goes_as_far_back_as_it_says() {
    let doppler = Doppler::start().await;
    let mut stream = Acknowledged::open(doppler.channel()).await;
    let of = |source: i64, number: i64| Envelope::log(format!("app-{source}"), "x").at(number);
    send(&mut stream, vec![of(1, 10), of(2, 20), of(3, 30)]).await;
    // The doppler notes ten times a second how far it is.
    tokio::time::sleep(Duration::from_millis(150)).await;
    send(&mut stream, vec![of(4, 40)]).await;

    let open = async |ages: &[Duration]| {
        let request = request("", "", vec![logs("app-1"), logs("app-2"), logs("app-3")]);
        let (known, start) = (Acquaintance::newcomer(), (MINUTE, Duration::ZERO));
        Stream::open_changing(doppler.channel(), &request, &known, start, ages).await
    };
    let ages = [MINUTE * 60, Duration::from_millis(1), Duration::ZERO];
    let mut consumer = Consumer { stream: open(&ages).await.unwrap().unwrap(), known: Acquaintance::newcomer() };
    // Nothing but the first comes before what is live.
    doppler.await_subscriptions(1).await;
    send(&mut stream, vec![of(1, 11), of(2, 21), of(3, 31)]).await;
    assert_eq!(consumer.take(4).await, [10, 11, 21, 31]);

    let refused = open(&ages[..2]).await.unwrap_err();
    let text = "2 max_ages_ms for 3 selectors; give one for each";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text));
}
