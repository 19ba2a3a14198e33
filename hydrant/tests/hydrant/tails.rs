//! Many consumers of named sources: a doppler sees one of them.

use std::collections::BTreeMap;

use proto::codec::Wire;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::harness::{Producer, channel, logs, metrics, next, pipeline, sum, until};

const TAILS: usize = 400;

/// A consumer, and whether it wants its tags in the preferred form.
type Tail = (Streaming<Wire>, bool);

async fn tail(channel: Channel, sources: &[String], use_preferred_tags: bool) -> Tail {
    let selector = |source_id: &String| v2::Selector { source_id: source_id.clone(), message: Some(logs()) };
    let selectors = sources.iter().map(selector).collect();
    let request = v2::EgressBatchRequest { selectors, use_preferred_tags, ..v2::EgressBatchRequest::default() };
    let stream = EgressClient::new(channel).batched_receiver(request).await.unwrap().into_inner();
    (stream, use_preferred_tags)
}

/// The payloads of the next `count` envelopes, whose tags stand where they should.
async fn payloads((stream, preferred): &mut Tail, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = next(stream).await.expect("the stream is open");
        for envelope in &batch {
            let (tags, deprecated) = (envelope.tags.contains_key("ip"), envelope.deprecated_tags.contains_key("ip"));
            assert_eq!((tags, deprecated), (*preferred, !*preferred));
        }
        all.extend(batch.iter().map(|envelope| String::from_utf8(envelope.payload().to_vec()).unwrap()));
    }
    all
}

/// Sends a line to each of `sources`.
async fn say(producer: &mut Producer, what: &str, sources: &[String]) {
    let line = |source: &String| v2::Envelope::log(source, format!("{source} {what}")).tag("ip", "127.0.0.1");
    for sources in sources.chunks(100) {
        assert!(producer.send(sources.iter().map(line).collect()).await);
    }
    producer.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_tails_share_one_stream_and_each_gets_its_own() {
    let up = pipeline("").await;
    let (doppler, controller) = (up.doppler().admin, up.traffic_controller());
    let channels = [channel(controller.grpc).await, channel(controller.grpc).await, channel(controller.grpc).await];
    // Two to each source, one of which also reads the next one.
    let source = |i: usize| format!("app-{}", i % (TAILS / 2));
    let wanted = |i: usize| if i < TAILS / 2 { vec![source(i)] } else { vec![source(i), source(i + 1)] };
    let sources: Vec<String> = (0..TAILS / 2).map(source).collect();
    let mut producer = Producer::connect(up.agent().grpc).await;
    let mut tails = BTreeMap::new();
    for i in 0..TAILS {
        tails.insert(i, tail(channels[i % channels.len()].clone(), &wanted(i), i % 4 < 2).await);
    }
    // A tail is there once its first line comes.
    let there = async |tails: &mut BTreeMap<usize, Tail>, producer: &mut Producer, i: usize| {
        let stream = tails.get_mut(&i).unwrap();
        for attempt in 0.. {
            say(producer, &format!("try {attempt}"), &wanted(i)[..1]).await;
            let first = tokio::time::timeout(std::time::Duration::from_millis(200), payloads(stream, 1)).await;
            if first.is_ok() {
                return;
            }
        }
    };
    there(&mut tails, &mut producer, TAILS - 1).await;
    assert_eq!(sum(&metrics(doppler).await, "hydrant_subscriptions", ""), 1);

    // Each gets what it wants, in order, and nothing else.
    for round in 0..5 {
        say(&mut producer, &format!("round {round}"), &sources).await;
    }
    for (i, stream) in &mut tails {
        let mut expected: Vec<String> = Vec::new();
        for round in 0..5 {
            expected.extend(wanted(*i).iter().map(|source| format!("{source} round {round}")));
        }
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let more = payloads(stream, 1).await;
            got.extend(more.into_iter().filter(|line| !line.contains("try")));
        }
        for source in wanted(*i) {
            let own: Vec<&String> = got.iter().filter(|line| line.starts_with(&format!("{source} "))).collect();
            assert!(own.is_sorted(), "{own:?}");
        }
        got.sort();
        expected.sort();
        assert_eq!(got, expected, "tail {i}");
    }

    // Half of them go; the others do not notice.
    tails.retain(|i, _| i % 2 == 0);
    // What comes for one that is on its way out is lost with it.
    until(controller.admin, |metrics| sum(metrics, "hydrant_rlp_subscriptions", "") == TAILS as u64 / 2).await;
    say(&mut producer, "after", &sources).await;
    for (i, stream) in &mut tails {
        let mut got = payloads(stream, wanted(*i).len()).await;
        got.sort();
        let mut expected: Vec<String> = wanted(*i).iter().map(|source| format!("{source} after")).collect();
        expected.sort();
        assert_eq!(got, expected, "tail {i}");
    }
    let counted = metrics(controller.admin).await;
    let of = |family: &str| sum(&counted, family, "stage=\"traffic_controller\"");
    assert_eq!(of("hydrant_dropped_envelopes_total"), 0, "{counted:#?}");
    assert_eq!(of("hydrant_received_envelopes_total"), of("hydrant_delivered_envelopes_total"));

    // When nobody is left the doppler has nobody either; who comes then is served again.
    tails.clear();
    until(doppler, |metrics| sum(metrics, "hydrant_subscriptions", "") == 0).await;
    tails.insert(0, tail(channels[0].clone(), &wanted(0), true).await);
    there(&mut tails, &mut producer, 0).await;
    drop(tails);
    up.shutdown().await.unwrap();
}
