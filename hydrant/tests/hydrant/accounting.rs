//! Overload: a loud source costs only itself, and every envelope is accounted for.

use std::collections::BTreeMap;

use proto::v2;

use crate::harness::{Producer, assert_queue_law, logs, metrics, next, pipeline, subscribe, sum, until};

const QUIET: usize = 100;
const LINES: usize = 50;
const LOUD: usize = 100_000;

/// One source sends some fifty times what its share of the consumer's ring is, a hundred others a line now and then, and the consumer
/// does not read. The quiet ones lose nothing; what the loud one loses is counted to the envelope.
#[tokio::test(flavor = "multi_thread")]
async fn a_loud_source_costs_only_itself() {
    let up = pipeline("").await;
    let (doppler, traffic_controller) = (up.doppler(), up.traffic_controller());
    let mut consumer = subscribe(traffic_controller.grpc, &[logs()]).await;
    until(doppler.admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;

    let mut producer = Producer::connect(up.agent().grpc).await;
    for round in 0..LINES {
        let mut batch: Vec<v2::Envelope> =
            (0..QUIET).map(|source| v2::Envelope::log(format!("quiet-{source}"), format!("{round}"))).collect();
        let loud = LOUD / LINES;
        for chunk in 0..loud / 500 {
            batch.extend(
                (0..500).map(|i| v2::Envelope::log("loud", format!("{:0200}", round * loud + chunk * 500 + i))),
            );
            assert!(producer.send(std::mem::take(&mut batch)).await);
        }
    }
    producer.settled().await;
    let issued = (QUIET * LINES + LOUD) as u64;
    assert_eq!((producer.sent, producer.last.delivered), (issued, issued), "nothing is lost on the way in");

    // Everything is at the traffic controller, in its consumer's ring, or gone from there.
    let at_end = until(traffic_controller.admin, |metrics| {
        let dropped = sum(metrics, "hydrant_queue_offered_total", "");
        dropped == issued
    })
    .await;
    let dropped = sum(&at_end, "hydrant_dropped_envelopes_total", "queue_full");
    assert!(dropped > 0, "the ring was never full: the test shows nothing");
    assert_queue_law(&at_end);

    let mut received: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    while count < issued - dropped {
        for envelope in next(&mut consumer).await.expect("the stream goes on") {
            let line = String::from_utf8(envelope.payload().to_vec()).unwrap();
            received.entry(envelope.source_id).or_default().push(line);
            count += 1;
        }
    }
    for source in 0..QUIET {
        let expected: Vec<String> = (0..LINES).map(|round| round.to_string()).collect();
        assert_eq!(received[&format!("quiet-{source}")], expected, "quiet-{source} lost lines, or their order");
    }
    assert!(received["loud"].is_sorted(), "the loud source's lines keep their order");
    assert_eq!(count + dropped, issued);

    // The law, hop by hop.
    let agent = metrics(up.agent().admin).await;
    assert_queue_law(&agent);
    assert_eq!(sum(&agent, "hydrant_received_envelopes_total", "agent"), issued);
    assert_eq!(sum(&agent, "hydrant_link_confirmed_total", ""), issued);
    let router = metrics(doppler.admin).await;
    assert_queue_law(&router);
    assert_eq!(sum(&router, "hydrant_received_envelopes_total", "doppler"), issued);
    assert_eq!(sum(&router, "hydrant_router_matched_total", ""), issued);
    assert_eq!(
        sum(&router, "hydrant_router_copies_total", ""),
        sum(&router, "hydrant_queue_offered_total", "subscription")
    );
    let proxy = metrics(traffic_controller.admin).await;
    assert_queue_law(&proxy);
    assert_eq!(sum(&proxy, "hydrant_queue_depth_envelopes", ""), 0);
    up.shutdown().await.unwrap();
}
