//! Limits of a source, from a producer to what a doppler gets and what the producer is told.

use std::time::Duration;

use hydrant_agent::Config;
use prost::Message as _;
use proto::hydrant::v1::Dropped;
use proto::hydrant::v1::ingress_client::IngressClient as AcknowledgedClient;
use proto::raw::{Batch, Outgoing, OutgoingFrame, Selection};
use proto::v2;
use proto::v2::envelope::Message;
use proto::v2::ingress_client::IngressClient;
use telemetry::Telemetry;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use super::harness::doppler;

async fn next(received: &mut mpsc::Receiver<v2::Envelope>) -> v2::Envelope {
    timeout(Duration::from_secs(60), received.recv()).await.expect("one more envelope").unwrap()
}

fn text(envelope: &v2::Envelope) -> (bool, String) {
    let Some(Message::Log(log)) = &envelope.message else { panic!("no log: {envelope:?}") };
    (log.r#type() == v2::log::Type::Err, String::from_utf8(log.payload.to_vec()).unwrap())
}

fn outgoing(batch: Vec<v2::Envelope>) -> Outgoing {
    Selection::from(Batch::index(v2::EnvelopeBatch { batch }.encode_to_vec().into()).0).into()
}

/// All lines come in one frame and so at one time: a burst passes, and nothing of what the rate gives.
const LOGS: &str = "lines_per_second = 1\nlines_burst = 1000000\n[[overrides]]\nsource_ids = [\"loud\"]\nlines_per_second = 1\nlines_burst = 10";

#[tokio::test]
async fn what_is_over_is_lost_counted_and_told() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let telemetry = Telemetry::default();
    let limits = toml::from_str(LOGS).unwrap();
    let mut config = Config { limits, ..Config::for_test(doppler) };
    config.tags.set.insert("job".into(), "cell".into());
    let agent = config.bind(&telemetry).await.unwrap().spawn();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", agent.addrs().grpc)).unwrap();
    let channel = channel.connect().await.unwrap();

    let log = |source: &str, i: u32| v2::Envelope {
        instance_id: "7".into(),
        ..v2::Envelope::log(source, format!("line {i}"))
    };
    let batch = (0..100).flat_map(|i| [log("loud", i), log("quiet", i)]).collect();
    let (frames, stream) = mpsc::channel(4);
    frames.send(OutgoingFrame { sequence: 1, batch: outgoing(batch), ..OutgoingFrame::default() }).await.unwrap();
    let mut acks = AcknowledgedClient::new(channel).stream(ReceiverStream::new(stream)).await.unwrap().into_inner();

    let mut lines = (0, 0);
    let mut notice = None;
    for _ in 0..111 {
        let envelope = next(&mut received).await;
        assert_eq!((envelope.instance_id.as_str(), envelope.tags["job"].as_str()), ("7", "cell"));
        match (envelope.source_id.as_str(), envelope.tags.contains_key("source_type")) {
            ("loud", false) => lines.0 += 1,
            ("quiet", false) => lines.1 += 1,
            _ => assert!(notice.replace(envelope).is_none(), "one notice"),
        }
    }
    assert_eq!(lines, (10, 100));
    let notice = notice.expect("the owner is told");
    assert_eq!((notice.source_id.as_str(), notice.tags["source_type"].as_str()), ("loud", "HYDRANT"));
    assert!(notice.timestamp > 1_700_000_000_000_000_000);
    let begin = "app instance exceeded log rate limit (1 log-lines/sec) set by platform operator";
    assert_eq!(text(&notice), (true, begin.to_owned()));
    let ack = timeout(Duration::from_secs(60), acks.message()).await.expect("an acknowledgement").unwrap().unwrap();
    assert_eq!((ack.sequence, ack.delivered), (1, 110));
    assert_eq!(ack.dropped, [Dropped { reason: "rate_limited".into(), envelopes: 90 }]);
    drop((frames, acks));

    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    let (err, end) = text(&next(&mut received).await);
    assert!(err && end.starts_with("log rate is within its limit again; 90 lines ("), "{end}");
    assert!(received.try_recv().is_err());
    let page = telemetry.render();
    for line in [
        "hydrant_received_envelopes_total{stage=\"agent\"} 202",
        "hydrant_delivered_envelopes_total{stage=\"agent\"} 112",
        "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"rate_limited\"} 90",
        "hydrant_source_envelopes_total{source=\"grpc\"} 200",
        "hydrant_source_envelopes_total{source=\"hydrant\"} 2",
        "hydrant_limits_notices_total 2",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
}

#[tokio::test]
async fn a_source_with_too_many_series_keeps_those_it_has() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let telemetry = Telemetry::default();
    let limits = toml::from_str("max_series_per_source = 20").unwrap();
    let agent = Config { limits, ..Config::for_test(doppler) }.bind(&telemetry).await.unwrap().spawn();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", agent.addrs().grpc)).unwrap();
    let mut client = IngressClient::new(channel.connect().await.unwrap());
    let counter = |i: u32| {
        let message = Message::Counter(v2::Counter { name: "http".into(), delta: 1, total: 0 });
        v2::Envelope { source_id: "shop".into(), message: Some(message), ..v2::Envelope::default() }
            .tag("user", i.to_string())
            .tag("zone", (i % 2).to_string())
    };
    let batch = outgoing((0..50).chain(0..20).map(counter).collect());
    client.batch_sender(tokio_stream::once(batch)).await.unwrap();
    let mut counters = 0;
    let mut notices = Vec::new();
    for _ in 0..41 {
        let envelope = next(&mut received).await;
        match envelope.message {
            Some(Message::Counter(_)) => counters += 1,
            _ => notices.push(text(&envelope)),
        }
    }
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    let told = "source exceeded its limit of 20 metric series in an hour set by platform operator; 1 envelopes with new ones were dropped; \
                tag user of http has most values";
    assert_eq!((counters, notices), (40, vec![(true, told.to_owned())]));
    let line = "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"cardinality\"} 30";
    assert!(telemetry.render().lines().any(|found| found == line), "{}", telemetry.render());
}
