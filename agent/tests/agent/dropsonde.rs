//! Dropsonde datagrams from a sender that knows nothing of hydrant, to the envelopes that a doppler gets (contract: agents §2.3, §6, §7).

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_agent::Config;
use prost::Message as _;
use proto::json;
use proto::v2;
use proto::v2::envelope::Message;
use serde_json::Value;
use telemetry::Telemetry;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::{doppler, python};

async fn next(received: &mut mpsc::Receiver<v2::Envelope>) -> v2::Envelope {
    timeout(Duration::from_secs(60), received.recv()).await.expect("an envelope").expect("the doppler runs")
}

fn bytes(message: &Value) -> Vec<u8> {
    STANDARD.decode(message["b64"].as_str().unwrap()).unwrap()
}

/// What came, in a form that can be compared.
fn comparable(envelope: &v2::Envelope) -> String {
    json::envelope_json(&envelope.encode_to_vec()).unwrap()
}

/// What an agent makes of a payload that a router makes `expected` of: without a source of its own it is from its origin.
fn of_an_agent(input: &Value, mut expected: v2::Envelope) -> v2::Envelope {
    let v1 = &input["json"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let placed = format!("{}/{}", text(&v1["deployment"]), text(&v1["job"]));
    if text(&v1["tags"]["source_id"]).is_empty() && (expected.source_id == placed || expected.source_id.is_empty()) {
        expected.source_id = text(&v1["origin"]);
    }
    expected
}

#[tokio::test]
async fn section_7_2_every_payload_becomes_the_envelope_of_the_table() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let telemetry = Telemetry::default();
    let agent = Config::for_test(doppler).bind(&telemetry).await.unwrap().spawn();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(agent.addrs().dropsonde.unwrap()).unwrap();

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1-to-v2.jsonl");
    let vectors = std::fs::read_to_string(path).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for vector in vectors.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let id = vector["id"].as_str().unwrap();
        client.send(&bytes(&vector["input_v1"])).unwrap();
        let expected = vector["output_v2"].as_array().unwrap();
        // A router gives these an empty message; an agent refuses them.
        if expected.is_empty() || matches!(id, "log-body-missing" | "type-and-body-differ") {
            refused += 1;
            continue;
        }
        let expected = v2::Envelope::decode(bytes(&expected[0]).as_slice()).unwrap();
        let mut expected = of_an_agent(&vector["input_v1"], expected);
        let mut envelope = next(&mut received).await;
        // Running totals are the agent's.
        for envelope in [&mut expected, &mut envelope] {
            if let Some(Message::Counter(counter)) = &mut envelope.message {
                counter.total = 0;
            }
        }
        assert_eq!(comparable(&envelope), comparable(&expected), "{id}");
        taken += 1;
    }
    assert_eq!(taken + refused, 55);
    assert!(agent.shutdown().await.unwrap().dropped == 0 && received.try_recv().is_err());
    let metrics = telemetry.render();
    for line in [
        format!("hydrant_source_envelopes_total{{source=\"dropsonde\"}} {taken}"),
        format!("hydrant_source_refused_total{{source=\"dropsonde\",reason=\"decode_error\"}} {refused}"),
        "hydrant_source_datagrams_total{source=\"dropsonde\"} 55".to_owned(),
        "hydrant_source_kernel_drops_total{source=\"dropsonde\"} 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing from\n{metrics}");
    }
}

const SENDER: &str = r#"
import socket, sys
from cloudfoundry_client.dropsonde import envelope_pb2, log_pb2, metric_pb2, http_pb2, error_pb2, uuid_pb2
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def send(kind, **fields):
    envelope = envelope_pb2.Envelope(origin="rep", eventType=kind, timestamp=1712345678000000001, **fields)
    out.sendto(envelope.SerializeToString(), ("127.0.0.1", int(sys.argv[1])))
T = envelope_pb2.Envelope
send(T.LogMessage, logMessage=log_pb2.LogMessage(message=b"hello", message_type=2, timestamp=5, app_id="app", source_type="APP/PROC/WEB", source_instance="3"))
send(T.ValueMetric, valueMetric=metric_pb2.ValueMetric(name="depth", value=2.5, unit="items"), deployment="")
send(T.CounterEvent, counterEvent=metric_pb2.CounterEvent(name="requests", delta=3))
send(T.CounterEvent, counterEvent=metric_pb2.CounterEvent(name="requests", delta=4))
send(T.Error, error=error_pb2.Error(source="cell", code=-7, message="broken"))
send(T.ContainerMetric, containerMetric=metric_pb2.ContainerMetric(applicationId="app", instanceIndex=1, cpuPercentage=1.5, memoryBytes=7, diskBytes=8, memoryBytesQuota=9, diskBytesQuota=10))
uuid = uuid_pb2.UUID(low=1, high=2)
send(T.HttpStartStop, httpStartStop=http_pb2.HttpStartStop(startTimestamp=1, stopTimestamp=2, requestId=uuid, peerType=2, method=1, uri="/", remoteAddress="a:1", userAgent="ua", statusCode=200, contentLength=5))
"#;

#[tokio::test]
async fn what_python_messages_say_arrives_from_this_machine() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let mut config = Config::for_test(doppler);
    for (key, value) in [("deployment", "cf"), ("job", "cell"), ("index", "0"), ("ip", "10.0.0.1")] {
        config.tags.set.insert(key.to_owned(), value.to_owned());
    }
    let agent = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let port = agent.addrs().dropsonde.unwrap().port().to_string();
    let sender = move || Command::new(python()).args(["-c", SENDER, &port]).output().unwrap();
    let output = tokio::task::spawn_blocking(sender).await.unwrap();
    assert!(output.status.success(), "{}: run scripts/tools", String::from_utf8_lossy(&output.stderr));

    let mut envelopes = Vec::new();
    for _ in 0..7 {
        envelopes.push(next(&mut received).await);
    }
    let sources: Vec<_> = envelopes.iter().map(|envelope| envelope.source_id.as_str()).collect();
    assert_eq!(sources, ["app", "rep", "rep", "rep", "rep", "app", "rep"]);
    for (i, envelope) in envelopes.iter().enumerate() {
        // What is there and empty stays as it is.
        let deployment = if i == 1 { "" } else { "cf" };
        assert_eq!((envelope.tags["deployment"].as_str(), envelope.tags["job"].as_str()), (deployment, "cell"), "{i}");
        assert_eq!((envelope.tags["index"].as_str(), envelope.tags["ip"].as_str()), ("0", "10.0.0.1"), "{i}");
        assert_eq!(envelope.tags["origin"], "rep");
        assert!(!envelope.tags.contains_key("source_id") && envelope.timestamp == 1_712_345_678_000_000_001);
    }
    let totals: Vec<_> = envelopes
        .iter()
        .filter_map(|envelope| match &envelope.message {
            Some(Message::Counter(counter)) => Some((counter.delta, counter.total)),
            _ => None,
        })
        .collect();
    assert_eq!(totals, [(3, 3), (4, 7)], "an agent adds up");
    assert!(matches!(&envelopes[0].message, Some(Message::Log(log)) if log.payload == b"hello"[..] && log.r#type == 1));
    assert!(matches!(&envelopes[5].message, Some(Message::Gauge(gauge)) if gauge.metrics.len() == 5));
    assert_eq!(envelopes[6].tags["method"], "GET");
    agent.shutdown().await.unwrap();
}
