//! A WebSocket client that nobody here wrote reads the firehose and an app's stream.

use std::process::Stdio;

use prost::Message;
use proto::{events, v2};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{Producer, pipeline, sum, tool, until};

/// Frames as the Python client `websockets` prints them, escape sequences and all: `< (binary) HEX`.
struct Client {
    child: Child,
    out: BufReader<tokio::process::ChildStdout>,
    read: String,
}

impl Client {
    fn connect(url: &str) -> Self {
        let mut child = Command::new(tool("venv/bin/python"))
            .args(["-m", "websockets", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, read: String::new() }
    }

    async fn frame(&mut self) -> events::Envelope {
        const START: &str = "< (binary) ";
        loop {
            if let Some(at) = self.read.find(START) {
                let rest = &self.read[at + START.len()..];
                if let Some(end) = rest.find(|char: char| !char.is_ascii_hexdigit()) {
                    let hex = rest[..end].to_owned();
                    self.read.drain(..at + START.len() + end);
                    let bytes: Vec<u8> =
                        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
                    return events::Envelope::decode(&*bytes).unwrap();
                }
            }
            let mut more = [0; 4096];
            let count = self.out.read(&mut more).await.unwrap();
            assert!(count > 0, "the client ended: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&more[..count]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_firehose_and_an_app_stream_decode() {
    const APP: &str = "5b7d1c9e-4c1f-4b0c-9a51-5e3f6c0f7a11";
    let up = pipeline("").await;
    let http = up.traffic_controller().http;
    let mut firehose = Client::connect(&format!("ws://{http}/firehose/test"));
    let mut stream = Client::connect(&format!("ws://{http}/apps/{APP}/stream"));
    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 2).await;

    let mut producer = Producer::connect(up.agent().grpc).await;
    let envelopes = vec![
        v2::Envelope::log("other", "not for the stream").at(5),
        v2::Envelope::log(APP, "hello").at(6).instance("2").tag("source_type", "APP").tag("origin", "rep"),
        v2::Envelope::counter("other", "hits", 3).at(7).tag("origin", "router"),
    ];
    producer.send(envelopes).await;
    producer.settled().await;

    let first = firehose.frame().await;
    assert_eq!(first.log_message.as_ref().map(|log| &*log.message), Some(&b"not for the stream"[..]));
    for client in [&mut firehose, &mut stream] {
        let envelope = client.frame().await;
        let log = envelope.log_message.expect("a log");
        assert_eq!(
            (&*log.message, log.app_id.as_deref(), log.source_instance.as_deref()),
            (&b"hello"[..], Some(APP), Some("2"))
        );
        assert_eq!((envelope.origin.as_str(), envelope.timestamp), ("rep", Some(6)));
    }
    let counter = firehose.frame().await.counter_event.expect("a counter");
    assert_eq!((counter.name.as_str(), counter.delta, counter.total), ("hits", 3, Some(3)));
    firehose.child.kill().await.unwrap();
    stream.child.kill().await.unwrap();
    up.shutdown().await.unwrap();
}
