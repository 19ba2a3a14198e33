//! The live page in a browser: a headless Chromium does there what people do, against a whole pipeline.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::v2;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::interval;

use crate::harness::{Process, Producer, pipeline, sum, tool, until};

/// Lines of the load: so many a second, for so many seconds.
const RATE: i64 = 10_000;
const SECONDS: i64 = 6;

/// One browser at a time: several would only wait for each other.
static BROWSERS: Semaphore = Semaphore::const_new(1);

/// Somebody at the page.
struct Visitor {
    _turn: SemaphorePermit<'static>,
    _child: Child,
    told: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Visitor {
    /// Opens the page at `addr` and plays one of the stories of `drive.js`.
    async fn start(addr: SocketAddr, story: &[&str]) -> Self {
        let turn = BROWSERS.acquire().await.unwrap();
        let mut child = Command::new(tool("bin/node"))
            .arg(format!("{}/tests/hydrant/page/drive.js", env!("CARGO_MANIFEST_DIR")))
            .arg(tool("bin/chromium"))
            .arg(format!("http://{addr}"))
            .args(story)
            .env("NODE_PATH", tool("npm/page/node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _turn: turn, _child: child, told, said }
    }

    async fn says(&mut self, expected: &str) {
        let line = self.said.next_line().await.unwrap().unwrap_or_else(|| "the end".to_owned());
        assert_eq!(line, expected, "{}", line.replace("\\n", "\n"));
    }

    async fn goes_on(&mut self) {
        self.told.write_all(b"\n").await.unwrap();
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

/// Lines that say their numbers, each with a time of its own.
fn lines(source: &str, numbers: Range<i64>) -> Vec<v2::Envelope> {
    let now = now();
    numbers.map(|number| v2::Envelope::log(source, format!("line {number}")).at(now + number)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_lines_a_second_are_followed_and_found_again() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(vec![v2::Envelope::log("other", "so that there is a source")]).await;
    let count = RATE * SECONDS;
    let mut visitor = Visitor::start(up.traffic_controller().http, &["load", &count.to_string()]).await;
    visitor.says("await load").await;
    let mut ticks = interval(Duration::from_millis(20));
    let mut sent = 0;
    while sent < count {
        ticks.tick().await;
        let now = now();
        let batch = (sent..sent + RATE / 50).map(|number| {
            let text = format!("line {number} INFO a request that was answered in {} ms by somebody", number % 97);
            v2::Envelope::log("loud", text).instance((number % 3).to_string()).at(now + number)
        });
        assert!(producer.send(batch.collect()).await);
        sent += RATE / 50;
    }
    visitor.goes_on().await;
    visitor.says("await hundred").await;
    let now = now();
    let more = |number| v2::Envelope::log("loud", format!("more {number}")).at(now + number);
    producer.send((0..100).map(more).collect()).await;
    visitor.goes_on().await;
    visitor.says("done").await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_stays_text() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let source = "<img src=x onerror=alert(1)>";
    let texts = [
        "<script>alert(1)</script>",
        "<img src=\"http://example.invalid/x.png\" onerror=\"alert(1)\">",
        "\u{1b}[31mred\u{1b}[0m and plain\u{7}\u{1b}]0;a title\u{7}",
        "{\"msg\":\"a message\",\"html\":\"<b>bold</b>\",\"level\":\"error\"}",
    ];
    let envelope =
        |text: &'static str| v2::Envelope::log(source, text).tag("tag", "\"><script>alert(2)</script>").at(now());
    assert!(producer.send(texts.map(envelope).into()).await);
    producer.settled().await;
    Visitor::start(up.traffic_controller().http, &["harm"]).await.says("done").await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_loses_and_repeats_nothing() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let mut send = async |numbers: Range<i64>| {
        producer.send(lines("app", numbers)).await;
        producer.settled().await;
    };
    send(0..10).await;
    let mut other = Producer::connect(up.agent().grpc).await;
    other.send(lines("other", 0..1)).await;
    other.settled().await;
    let mut visitor = Visitor::start(up.traffic_controller().http, &["interruption"]).await;
    visitor.says("await ten").await;
    send(10..20).await;
    visitor.goes_on().await;
    visitor.says("await ten live").await;
    // Everything is live alone: what is sent before the doppler knows of it does not come.
    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
    send(20..30).await;
    visitor.goes_on().await;
    visitor.says("done").await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_drawn_and_the_pipeline_too() {
    let drain = "[[adapters.drains]]\nname = \"nowhere\"\nurl = \"syslog://127.0.0.1:9\"\nsources = [\"app\"]\n";
    let up = pipeline(drain).await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let mut envelopes = Vec::new();
    for at in (0..20).map(|number| now() - number * 1_000_000_000) {
        envelopes.push(v2::Envelope::gauge("app", "cpu", 42.0, "percentage").at(at));
        envelopes.push(v2::Envelope::counter("app", "hits", 3).at(at));
        envelopes.push(v2::Envelope::timer("app", "latency", 0, 12_000_000).at(at));
    }
    assert!(producer.send(envelopes).await);
    producer.settled().await;
    Visitor::start(up.traffic_controller().http, &["metrics"]).await.says("done").await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_completed_answered_and_kept() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let mut envelopes = Vec::new();
    for at in (0..60).rev().map(|number| now() - number * 1_000_000_000) {
        for (instance, delta) in [("0", 3), ("1", 5)] {
            envelopes.push(v2::Envelope::counter("app", "requests", delta).instance(instance).at(at));
        }
        envelopes.push(
            v2::Envelope::gauge("app", "cpu", 42.0, "percentage").tag("odd", "<img src=x onerror=alert(1)>").at(at),
        );
    }
    assert!(producer.send(envelopes).await);
    producer.settled().await;
    Visitor::start(up.traffic_controller().http, &["promql"]).await.says("done").await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_page_and_stays_out_of_reach() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_hydrant")).args(["token", "new", "--source", "app"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (token, entry) = text.split_once("\n\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.toml");
    std::fs::write(&file, entry).unwrap();
    let config = format!("traffic_controller.authorizer = \"tokens\"\ntraffic_controller.tokens = {file:?}\n");
    let up = Process::start("up", &config).await;
    let mut producer = Producer::connect(up.addr("agent.grpc")).await;
    producer.send([lines("app", 0..10), lines("other", 0..10)].concat()).await;
    producer.settled().await;
    Visitor::start(up.addr("traffic_controller.http"), &["login", token]).await.says("done").await;
    up.terminate();
    assert!(up.ended().await.success());
}

#[tokio::test]
async fn the_parts_that_need_no_browser_hold() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traffic-controller/assets/tests");
    let files = ["pure.test.mjs", "query.test.mjs", "tail.test.mjs"].map(|name| tests.join(name));
    let output = Command::new(tool("bin/node")).arg("--test").args(files).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
