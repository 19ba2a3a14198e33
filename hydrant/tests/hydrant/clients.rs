//! Clients that nobody here wrote read what the traffic controller serves: `cloudfoundry-client` (v1 streams, recent logs, the gateway),
//! curl (server-sent events, the log cache), and a WebSocket client (JSON streams).

use std::process::Stdio;

use hydrant::Up;
use proto::v2;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{Producer, pipeline, sum, tool, until};

const APP: &str = "5b7d1c9e-4c1f-4b0c-9a51-5e3f6c0f7a11";

const TOKEN: &str = "hy_own-token";

/// A pipeline whose readers need a token.
async fn guarded(dir: &std::path::Path) -> Up {
    let sha256 = traffic_controller::token_sha256(TOKEN.as_bytes());
    let tokens = format!("[[tokens]]\nname = \"own\"\nsha256 = \"{sha256}\"\nsources = [\"{APP}\"]\n");
    std::fs::write(dir.join("tokens.toml"), tokens).unwrap();
    let file = dir.join("tokens.toml");
    pipeline(&format!("traffic_controller.authorizer = \"tokens\"\ntraffic_controller.tokens = {file:?}\n")).await
}

/// A client that prints lines.
struct Client {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(tool(program))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    fn cloudfoundry(what: &str, endpoint: &str, count: usize) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hydrant/cloudfoundry-client.py");
        Self::start("venv/bin/python", &[script, what, endpoint, APP, TOKEN, &count.to_string()])
    }

    /// The next line; `None` once the client has ended.
    async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.unwrap()
    }

    /// The next line that has `text` in it.
    async fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line().await.unwrap_or_else(|| panic!("the client ended without {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }
}

async fn say(up: &Up, lines: &[&str]) {
    let mut producer = Producer::connect(up.agent().grpc).await;
    let line = |(at, line): (i64, &&str)| {
        v2::Envelope::log(APP, line.to_string()).at(at).instance("0").tag("source_type", "APP")
    };
    assert!(producer.send((1..).zip(lines).map(line).collect()).await);
    producer.settled().await;
}

async fn subscribed(up: &Up) {
    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudfoundry_client_reads_recent_logs_an_app_stream_and_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let up = guarded(dir.path()).await;
    let (http, gateway) = (up.traffic_controller().http, up.traffic_controller().gateway);
    say(&up, &["one", "two", "three"]).await;

    let mut recent = Client::cloudfoundry("recent", &format!("ws://{http}"), 3);
    for expected in ["\"three\"", "\"two\"", "\"one\""] {
        assert_eq!(recent.line().await.as_deref(), Some(expected));
    }
    assert_eq!(recent.line().await, None);

    let mut stream = Client::cloudfoundry("stream", &format!("ws://{http}"), 2);
    subscribed(&up).await;
    say(&up, &["four", "five"]).await;
    assert_eq!((stream.line().await.as_deref(), stream.line().await.as_deref()), (Some("\"four\""), Some("\"five\"")));
    assert_eq!(stream.line().await, None);

    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 0).await;
    let mut events = Client::cloudfoundry("gateway", &format!("http://{gateway}"), 1);
    subscribed(&up).await;
    say(&up, &["six"]).await;
    // As the gateway's JSON has it.
    assert_eq!(events.line().await.as_deref(), Some("\"c2l4\""));
    drop(events);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_server_sent_events_goes_on_where_it_was_and_asks_the_log_cache() {
    let dir = tempfile::tempdir().unwrap();
    let up = guarded(dir.path()).await;
    let (gateway, rest) = (up.traffic_controller().gateway, up.traffic_controller().rest);
    say(&up, &["one", "two"]).await;
    let bearer = format!("Authorization: bearer {TOKEN}");
    let curl = |args: &[&str]| Client::start("bin/curl", &[&["-sN", "-H", &bearer], args].concat());

    let url = format!("http://{gateway}/v2/read?log&source_id={APP}&start_time=0");
    let mut events = curl(&[&url]);
    let data = events.line_with("data: ").await;
    assert!(data.contains("\"payload\":\"b25l\"") && data.contains("\"payload\":\"dHdv\""), "{data}");
    let id = events.line_with("id: ").await.replace("id: ", "Last-Event-ID: ");
    drop(events);
    say(&up, &["three"]).await;
    let mut events = curl(&["-H", &id, &url]);
    let data = events.line_with("data: ").await;
    assert!(data.contains("\"payload\":\"dGhyZWU=\"") && !data.contains("\"payload\":\"b25l\""), "{data}");

    let mut read =
        curl(&["-i", &format!("http://{rest}/api/v1/read/{APP}?descending=true&limit=1&envelope_types=LOG")]);
    assert_eq!(read.line().await.as_deref(), Some("HTTP/1.1 200 OK"));
    read.line_with("\"payload\":\"dHdv\"").await;
    let mut foreign = curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("http://{rest}/api/v1/read/other")]);
    assert_eq!(foreign.line().await.as_deref(), Some("404"));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_client_reads_a_json_stream_with_its_history() {
    let up = pipeline("").await;
    say(&up, &["one"]).await;
    let url = format!("ws://{}/v2/stream?log&source_id={APP}&start_time=-1h", up.traffic_controller().http);
    // Times of 1970 are older than an hour: they come by their cursor, not by their time.
    let mut client = Client::start("venv/bin/python", &["-m", "websockets", &url]);
    client.line_with("{\"live\":true}").await;
    say(&up, &["two"]).await;
    let line = client.line_with("\"batch\":").await;
    assert!(line.contains("\"payload\":\"dHdv\"") && line.contains("\"cursor\":\""), "{line}");
    up.shutdown().await.unwrap();
}
