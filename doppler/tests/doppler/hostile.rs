//! Consumers that ask for too much, or come and go: the others notice nothing.

use futures_util::StreamExt;
use proto::v2::Envelope;
use tonic::Code;

use crate::client::{Doppler, logs, request, subscribe};

#[tokio::test]
async fn a_request_of_a_hundred_thousand_selectors_is_refused_and_one_at_the_limit_is_not() {
    let doppler = Doppler::start().await;
    let selectors = |count: usize| (0..count).map(|i| logs(&format!("source-{i}"))).collect();
    for count in [10_001, 100_000] {
        let Err(refused) = doppler.subscribe_to(request("", "", selectors(count))).await else { panic!("{count}") };
        let expected = format!("{count} selectors; a request has 10000 at most");
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected.as_str()));
    }
    let mut all = doppler.subscribe(selectors(10_000)).await;
    doppler.send([vec![Envelope::log("source-9999", "last"), Envelope::log("source-10000", "beyond")]]).await;
    assert_eq!(all.next().await.unwrap().payload(), b"last");
    drop(all);
    doppler.await_subscriptions(0).await;
}

#[tokio::test]
async fn ten_thousand_that_come_and_go_cost_the_one_that_stays_nothing() {
    let doppler = Doppler::start().await;
    let mut stays = doppler.subscribe(vec![logs("")]).await;
    let channel = doppler.channel();
    let coming = futures_util::stream::iter(0..10_000).map(|i| {
        let shard = if i % 2 == 0 { "" } else { "shard" };
        subscribe(channel.clone(), request(shard, "", vec![logs(&format!("source-{}", i % 100)), logs("")]))
    });
    let going = async {
        let mut coming = coming.buffer_unordered(100);
        let mut came = 0;
        // Each is dropped as soon as it has opened.
        while let Some(opened) = coming.next().await {
            opened.unwrap();
            came += 1;
        }
        came
    };
    let lines = async {
        for i in 0..200 {
            doppler.send([vec![Envelope::log("source-1", i.to_string())]]).await;
            assert_eq!(stays.next().await.unwrap().payload(), i.to_string().as_bytes());
        }
    };
    let (came, ()) = tokio::join!(going, lines);
    assert_eq!(came, 10_000);
    doppler.await_subscriptions(1).await;
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!(numbers.received(), 200);
}
