//! statsd from a client that knows nothing of hydrant, to the envelopes that a doppler gets (contract: agents §9).

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use hydrant_agent::Config;
use proto::v2;
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::{doppler, python};

/// Source, name, unit and value of a gauge with one entry that has no tag but its origin.
fn reading(envelope: &v2::Envelope) -> (&str, &str, &str, f64) {
    let Some(Message::Gauge(gauge)) = &envelope.message else { panic!("no gauge: {envelope:?}") };
    assert_eq!(gauge.metrics.len(), 1, "{envelope:?}");
    assert_eq!(envelope.tags.iter().collect::<Vec<_>>(), [(&"origin".to_owned(), &envelope.source_id)]);
    assert!(envelope.instance_id.is_empty() && envelope.timestamp > 1_700_000_000_000_000_000, "{envelope:?}");
    let (name, metric) = gauge.metrics.iter().next().unwrap();
    (&envelope.source_id, name, &metric.unit, metric.value)
}

const CLIENT: &str = "
import random, sys, statsd
random.random = lambda: 0.0  # a sampled metric is always sent
client = statsd.StatsClient('127.0.0.1', int(sys.argv[1]), prefix='shop')
client.incr('orders')
client.incr('orders', 4)
client.decr('orders', 2)
client.incr('orders', 3, rate=0.5)
client.gauge('depth', 70)
client.gauge('depth', 5, delta=True)
client.gauge('depth', -15.5, delta=True)
client.gauge('depth', -8)
client.gauge('depth', 2, rate=0.25)
client.timing('took', 320)
client.timing('took', 0.25, rate=0.1)
client.set('users', 'anna')
with client.pipeline() as pipeline:
    pipeline.incr('orders')
    pipeline.gauge('queue.high', 3)
    pipeline.timing('took', 1)
client.close()
";

#[tokio::test]
async fn what_the_python_client_sends_arrives_as_the_contract_maps_it() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let telemetry = Telemetry::default();
    let agent = Config::for_test(doppler).bind(&telemetry).await.unwrap().spawn();
    let port = agent.addrs().statsd.unwrap().port().to_string();

    let client = move || Command::new(python()).args(["-c", CLIENT, &port]).output().unwrap();
    let output = tokio::task::spawn_blocking(client).await.unwrap();
    assert!(output.status.success(), "{}: run scripts/tools", String::from_utf8_lossy(&output.stderr));

    let expected = [
        ("orders", "counter", 1.0),
        ("orders", "counter", 5.0),
        ("orders", "counter", 3.0),
        ("orders", "counter", 9.0),
        ("depth", "gauge", 70.0),
        ("depth", "gauge", 75.0),
        ("depth", "gauge", 59.5),
        // The client writes a negative level as 0 and a step down.
        ("depth", "gauge", 0.0),
        ("depth", "gauge", -8.0),
        ("depth", "gauge", 8.0),
        ("took", "ms", 320.0),
        ("took", "ms", 2.5),
        ("orders", "counter", 10.0),
        ("queue.high", "gauge", 3.0),
        ("took", "ms", 1.0),
    ];
    for (i, (name, unit, value)) in expected.into_iter().enumerate() {
        let envelope = timeout(Duration::from_secs(60), received.recv()).await;
        let envelope = envelope.unwrap_or_else(|_| panic!("envelope {i} never came")).unwrap();
        assert_eq!(reading(&envelope), ("shop", name, unit, value), "envelope {i}");
    }
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    // The original takes no sets: these are told as the native mapping has it.
    assert_eq!(reading(&received.try_recv().unwrap()), ("shop", "users", "", 1.0));
    assert!(received.try_recv().is_err());
    let metrics = telemetry.render();
    for line in [
        "hydrant_source_refused_total{source=\"statsd\",reason=\"decode_error\"} 0",
        "hydrant_source_kernel_drops_total{source=\"statsd\"} 0",
        "hydrant_received_envelopes_total{stage=\"agent\"} 16",
        "hydrant_delivered_envelopes_total{stage=\"agent\"} 16",
        "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"decode_error\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing from\n{metrics}");
    }
}

#[tokio::test]
async fn a_stop_delivers_what_was_sent_before_it() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let agent = Config::for_test(doppler).bind(&Telemetry::default()).await.unwrap().spawn();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(agent.addrs().statsd.unwrap()).unwrap();
    for _ in 0..100 {
        client.send(b"shop.a:1|c\nshop.b:1|c\n\xff\nshop.c:1|g").unwrap();
    }
    let drained = agent.shutdown().await.unwrap();
    assert_eq!(drained.dropped, 0);
    let mut last = (0.0, 0.0, 0);
    for _ in 0..300 {
        let envelope = timeout(Duration::from_secs(60), received.recv()).await.expect("sent before the stop").unwrap();
        match reading(&envelope) {
            (_, "a", _, value) => last.0 = value,
            (_, "b", _, value) => last.1 = value,
            (_, name, ..) => last.2 += usize::from(name == "c"),
        }
    }
    assert_eq!(last, (100.0, 100.0, 100));
}
