//! What the pipeline says of itself, over gRPC and as JSON: sources, consumers and drains with their counts.

use proto::hydrant::v1;
use proto::hydrant::v1::overview_client::OverviewClient;
use proto::v2;
use serde_json::json;

use crate::harness::{Producer, channel, get, logs, next, pipeline, subscribe, sum, until};

#[tokio::test(flavor = "multi_thread")]
async fn sources_consumers_and_drains_are_shown_with_their_counts() {
    let up =
        pipeline("[[adapters.drains]]\nname = \"nowhere\"\nurl = \"syslog://127.0.0.1:9\"\nsources = [\"other\"]\n")
            .await;
    let mut firehose = subscribe(up.traffic_controller().grpc, &[logs()]).await;
    // The firehose and the drain.
    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 2).await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    assert!(producer.send((0..5).map(|i| v2::Envelope::log("loud", format!("line {i}"))).collect()).await);
    assert!(producer.send(vec![v2::Envelope::log("quiet", "one line")]).await);
    let mut seen = 0;
    while seen < 6 {
        seen += next(&mut firehose).await.expect("the stream is open").len();
    }

    let mut client = OverviewClient::new(channel(up.traffic_controller().grpc).await);
    let reply = client.get(v1::OverviewRequest {}).await.unwrap().into_inner();
    let sources: Vec<_> = reply.sources.iter().map(|source| (source.source_id.as_str(), source.envelopes)).collect();
    assert_eq!((sources, reply.source_count), (vec![("loud", 5), ("quiet", 1)], 2));
    assert!(reply.sources[0].bytes > reply.sources[1].bytes && reply.sources[0].held == 5);
    let stages: Vec<_> = reply.stages.iter().map(|stage| (stage.stage.as_str(), stage.received)).collect();
    assert_eq!(stages, [("doppler", 6), ("traffic_controller", 6)]);
    assert_eq!(reply.stages[1].address, up.traffic_controller().grpc.to_string());
    let consumers = |stage: &str| reply.consumers.iter().filter(|consumer| consumer.stage == stage).count();
    // The firehose and the drain; of them one here.
    assert_eq!((consumers("doppler"), consumers("traffic_controller")), (2, 1));
    let own = reply.consumers.iter().find(|consumer| consumer.stage == "traffic_controller").unwrap();
    assert!(own.name.starts_with('#'), "{own:?}");
    assert_eq!((own.taken, own.waiting_envelopes), (6, 0));
    assert_eq!((reply.drains[0].name.as_str(), reply.drains[0].url.as_str()), ("nowhere", "syslog://127.0.0.1:9"));
    assert!(reply.missing.is_empty());

    let page = get(up.traffic_controller().http, "/v1/overview").await;
    assert_eq!(page.status, 200);
    let page: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(page["sources"][0]["source_id"], "loud");
    assert_eq!((&page["sources"][0]["envelopes"], &page["source_count"]), (&json!("5"), &json!("2")));
    assert_eq!(page["drains"][0]["name"], "nowhere");
    up.shutdown().await.unwrap();
}
