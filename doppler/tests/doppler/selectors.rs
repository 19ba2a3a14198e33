//! Requests and selectors over the wire (contract: loggregator v2 §5.1 and §5.2).

use proto::v2::egress_client::EgressClient;
use proto::v2::{EgressBatchRequest, EgressRequest, Envelope, Selector};
use tonic::Code;

use crate::client::{
    Doppler, counters, encode, events, everything, gauge, gauges, logs, payloads, request, send_unary, timers,
};

/// What the table is asked about; the timestamp is the number in the table.
fn envelopes() -> Vec<Envelope> {
    let all = [
        Envelope::log("a", "to standard output"),
        Envelope::log("b", "to standard error").err(),
        Envelope::log("", "of no source"),
        Envelope::counter("a", "requests", 1),
        Envelope::counter("b", "requests", 1),
        Envelope::counter("a", "errors", 1),
        Envelope::counter("a", "", 1),
        gauge("a", &["cpu"]),
        gauge("a", &["cpu", "memory"]),
        gauge("b", &["memory", "cpu"]),
        gauge("a", &[""]),
        gauge("a", &[]),
        Envelope::timer("a", "http", 1, 2),
        Envelope::event("a", "title", "body"),
        Envelope { source_id: "a".to_owned(), ..Envelope::default() },
    ];
    all.into_iter().enumerate().map(|(i, envelope)| envelope.at(i as i64)).collect()
}

#[tokio::test]
async fn each_selector_gets_what_the_contract_tables() {
    let table: [(&str, Vec<Selector>, &[i64]); 23] = [
        ("log, any source", vec![logs("")], &[0, 1, 2]),
        ("log of a source", vec![logs("a")], &[0]),
        ("log of a source that sends none", vec![logs("A")], &[]),
        ("counter, any", vec![counters("", "")], &[3, 4, 5, 6]),
        ("counter by name", vec![counters("", "requests")], &[3, 4]),
        ("counter by name and source", vec![counters("a", "requests")], &[3]),
        ("counter of a source", vec![counters("a", "")], &[3, 5, 6]),
        ("gauge, any", vec![gauges("", &[])], &[7, 8, 9, 10, 11]),
        ("gauge, one name: not a superset", vec![gauges("", &["cpu"])], &[7]),
        ("gauge, the exact set in any order", vec![gauges("", &["memory", "cpu"])], &[8, 9]),
        ("gauge, the exact set of a source", vec![gauges("b", &["cpu", "memory"])], &[9]),
        ("gauge, not a subset", vec![gauges("", &["cpu", "memory", "disk"])], &[]),
        ("gauge, a name twice never matches", vec![gauges("", &["cpu", "cpu"])], &[]),
        ("gauge, the empty name, and no metrics", vec![gauges("", &[""])], &[10, 11]),
        ("timer", vec![timers("")], &[12]),
        ("event", vec![events("a")], &[13]),
        ("event of another source", vec![events("b")], &[]),
        (
            "everything: but an envelope without a message",
            everything(),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
        ),
        ("two kinds", vec![timers(""), events("")], &[12, 13]),
        ("overlapping: once each", vec![logs(""), logs("a"), logs("a")], &[0, 1, 2]),
        ("a whole kind and a name of it: once each", vec![counters("", ""), counters("", "errors")], &[3, 4, 5, 6]),
        ("a name and a source: either", vec![counters("", "requests"), counters("a", "")], &[3, 4, 5, 6]),
        ("one without a message is ignored", vec![Selector::default(), timers("a")], &[12]),
    ];
    for per_batch in [1, 15] {
        let doppler = Doppler::start().await;
        let mut subscribers = Vec::new();
        for (_, selectors, _) in &table {
            subscribers.push(doppler.subscribe(selectors.clone()).await);
        }
        // Groups admit what subscriptions of their own admit.
        for (shard, (_, selectors, _)) in table.iter().enumerate() {
            subscribers.push(doppler.join(&shard.to_string(), "", selectors.clone()).await);
        }
        doppler.send(envelopes().chunks(per_batch).map(<[Envelope]>::to_vec)).await;
        let subscribers: [_; 46] = subscribers.try_into().ok().unwrap();
        let (got, numbers) = doppler.drain(subscribers).await;
        for (got, (what, _, expected)) in got.iter().zip(table.iter().chain(&table)) {
            let got: Vec<i64> = got.iter().map(|envelope| envelope.timestamp).collect();
            assert_eq!(got, *expected, "{what}, {per_batch} in a batch");
        }
        numbers.hold_to_the_end();
        assert_eq!((numbers.received(), numbers.get("hydrant_router_unmatched_total")), (15, 1));
    }
}

#[tokio::test]
async fn an_envelope_leaves_as_it_came() {
    let doppler = Doppler::start().await;
    let mut subscriber = doppler.subscribe(everything()).await;
    doppler.send([envelopes()]).await;
    assert_eq!(subscriber.take(14).await, envelopes()[..14]);
}

#[tokio::test]
async fn a_request_that_can_match_nothing_is_refused() {
    let doppler = Doppler::start().await;
    let legacy = EgressBatchRequest { legacy_selector: Some(logs("a")), ..EgressBatchRequest::default() };
    let refused = [
        (request("", "", vec![]), "Selectors cannot be empty"),
        (request("shard", "name", vec![]), "Selectors cannot be empty"),
        (legacy, "Selectors cannot be empty"),
        (request("", "", vec![Selector::default()]), "Selectors must have a Message"),
    ];
    for (request, message) in refused {
        let status = doppler.subscribe_to(request).await.err().expect("it is refused");
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
    }
    assert_eq!(doppler.numbers().await.get("hydrant_subscriptions"), 0);
}

#[tokio::test]
async fn selectors_win_over_the_legacy_selector() {
    let doppler = Doppler::start().await;
    let both = EgressBatchRequest { legacy_selector: Some(logs("")), ..request("", "", vec![timers("")]) };
    let subscriber = doppler.subscribe_to(both).await.unwrap();
    doppler.send([envelopes()]).await;
    let ([got], _) = doppler.drain([subscriber]).await;
    assert_eq!(got, envelopes()[12..13]);
}

#[tokio::test]
async fn what_the_router_does_not_do_it_says() {
    let doppler = Doppler::start().await;
    let status = EgressClient::new(doppler.channel()).receiver(EgressRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "use BatchedReceiver instead"));
    let status = send_unary(doppler.channel(), encode(envelopes())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "this endpoint is not yet implemented"));
    assert_eq!(doppler.numbers().await.received(), 0);
}

#[tokio::test]
async fn a_subscription_ends_when_its_consumer_goes_and_others_stay() {
    let doppler = Doppler::start().await;
    let mut stays = doppler.subscribe(vec![logs("")]).await;
    let goes = doppler.subscribe(vec![logs("")]).await;
    doppler.await_subscriptions(2).await;
    drop(goes);
    doppler.await_subscriptions(1).await;
    doppler.send([vec![Envelope::log("a", "after")]]).await;
    assert_eq!(payloads(&stays.take(1).await), ["after"]);
    let numbers = doppler.numbers().await;
    numbers.hold();
    assert_eq!(numbers.copies(), 1);
}
