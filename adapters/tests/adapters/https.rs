//! Drains over HTTPS, to the server of Python's standard library (contract: syslog drains §2.3, §2.4).

use std::process::Stdio;
use std::time::Duration;

use hydrant_adapters::{Config, DrainTls};
use proto::v2;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;
use transport::TestCerts;

use crate::support::{Rig, check_laws, lines, number};

/// A running server.
struct Server {
    certs: TestCerts,
    port: u16,
    told: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Server {
    async fn start(rules: &[&str]) -> Self {
        Self::start_as(false, rules).await
    }

    async fn start_as(wants_certificates: bool, rules: &[&str]) -> Self {
        let certs = TestCerts::new();
        let files = certs.files("receiver");
        let mut child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/adapters/posts.py"))
            .args([&files.cert, &files.key])
            .arg(if wants_certificates { files.ca.as_os_str() } else { "-".as_ref() })
            .args(rules)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = told.next_line().await.unwrap().unwrap().parse().unwrap();
        Self { certs, port, told, _child: child }
    }

    /// A drain to it, `url` being what stands around its address.
    async fn drain(&self, (before, after): (&str, &str), adjust: impl FnOnce(&mut Config)) -> Rig {
        let addr = ([127, 0, 0, 1], self.port).into();
        Rig::start(addr, "", |config| {
            let drain = &mut config.drains[0];
            drain.url = format!("{before}127.0.0.1:{}{after}", self.port).parse().unwrap();
            drain.tls = Some(DrainTls { ca: Some(self.certs.files("receiver").ca), ..DrainTls::default() });
            adjust(config);
        })
        .await
    }

    /// The next request.
    async fn next(&mut self) -> Value {
        serde_json::from_str(&self.told.next_line().await.unwrap().unwrap()).unwrap()
    }

    /// The numbers of lines that it took, until it has so many; every request until then.
    async fn taken(&mut self, count: usize) -> (Vec<usize>, Vec<Value>) {
        let (mut taken, mut requests) = (Vec::new(), Vec::new());
        while taken.len() < count {
            let request = self.next().await;
            if request["status"].as_u64().unwrap() < 300 {
                let lines = request["body"].as_str().unwrap().lines();
                taken.extend(lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()));
            }
            requests.push(request);
        }
        (taken, requests)
    }
}

fn nothing(_: &mut Config) {}

fn line(number: usize) -> String {
    // All within the first microsecond.
    format!("<14>1 1970-01-01T00:00:00+00:00 - app [] - - line {number}\n")
}

#[tokio::test]
async fn each_line_is_a_post() {
    let mut server = Server::start(&[]).await;
    let around = ("https://us%20er:p%40ss@", "/in/put?drain-data=all&token=a%20b");
    let rig = server.drain(around, nothing).await;
    let mut gauge = v2::Envelope::gauge("app", "a", 1.0, "");
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("b".to_owned(), v2::GaugeValue { unit: String::new(), value: 2.0 });
    }
    rig.send(&[lines(0..2), vec![gauge]].concat()).await;
    let posts = [server.next().await, server.next().await, server.next().await, server.next().await];
    let bodies: Vec<&str> = posts.iter().map(|post| post["body"].as_str().unwrap()).collect();
    assert_eq!(bodies[..2], [line(0), line(1)]);
    assert!(bodies[2].contains("name=\"a\"") && bodies[3].contains("name=\"b\""), "{bodies:?}");
    for post in &posts {
        assert_eq!(post["path"], "/in/put?drain-data=all&token=a%20b", "the options too");
        let headers = &post["headers"];
        assert_eq!(headers["Host"], format!("127.0.0.1:{}", server.port));
        assert_eq!(headers["Content-Type"], "text/plain");
        assert_eq!(headers["Authorization"], "Basic dXMgZXI6cEBzcw==", "of `us er:p@ss`");
        assert!(headers["User-Agent"].as_str().unwrap().starts_with("hydrant/"));
        assert_eq!(post["client"], posts[0]["client"], "on one connection");
    }
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0);
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 3);
    check_laws(&telemetry);
}

#[tokio::test]
async fn lines_are_gathered_for_a_second_or_half_a_mebibyte() {
    let mut server = Server::start(&[]).await;
    let rig = server.drain(("https-batch://", "/bulk"), nothing).await;
    rig.send(&lines(0..3)).await;
    let sent = Instant::now();
    rig.send(&lines(3..5)).await;
    let post = server.next().await;
    assert_eq!(post["body"], (0..5).map(line).collect::<String>());
    assert!(sent.elapsed() > Duration::from_millis(900), "{:?}", sent.elapsed());

    // Enough for one request and a part of the next one.
    let large: Vec<v2::Envelope> = (0..60).map(|_| v2::Envelope::log("app", vec![b'x'; 10_000])).collect();
    rig.send(&large).await;
    let full = server.next().await["body"].as_str().unwrap().len();
    assert!((512 * 1024..512 * 1024 + 11_000).contains(&full), "{full}");
    let ((_, telemetry), rest) = tokio::join!(rig.shutdown(), server.next());
    let rest = rest["body"].as_str().unwrap().len();
    assert_eq!((full + rest) / 10_000, 60, "a stop sends what is there");
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 65);
    check_laws(&telemetry);
}

#[tokio::test]
async fn what_fails_for_now_is_sent_again_in_order() {
    let fails = async |scheme: &str, status: &str| {
        let mut server = Server::start(&[status]).await;
        let rig = server.drain((scheme, "/"), nothing).await;
        rig.send(&lines(0..20)).await;
        let (taken, requests) = server.taken(20).await;
        assert!(taken.iter().copied().eq(0..20), "{status}: {taken:?}");
        assert!(requests.iter().all(|request| request["path"] == "/"), "{status}: no redirect is followed");
        let (_, telemetry) = rig.shutdown().await;
        assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 20);
        check_laws(&telemetry);
    };
    for scheme in ["https://", "https-batch://"] {
        let statuses = ["#3=503", "#3=429", "#3=408!", "#3=404!", "#3=302"];
        futures_util::future::join_all(statuses.map(|status| fails(scheme, status))).await;
    }
}

/// Each refusal counts, also when the connection is closed after it: the waits grow, and a stop gives up after three more.
#[tokio::test]
async fn a_receiver_that_refuses_and_closes_is_not_taken_for_one_that_works() {
    let server = Server::start(&["line=503!"]).await;
    let rig = server.drain(("https://", ""), nothing).await;
    rig.send(&lines(0..1)).await;
    let state = || rig.telemetry.render().contains("hydrant_drain_state{drain=\"f9e6e6ef197c2b25\"} 1");
    while !state() {
        tokio::task::yield_now().await;
    }
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        assert!(state(), "it does not deliver, and shows it");
        tokio::task::yield_now().await;
    }
    let stopped = Instant::now();
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 1);
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
    check_laws(&telemetry);
}

/// The status is the answer; what follows it may take as long as it likes.
#[tokio::test]
async fn an_answer_that_does_not_end_is_an_answer() {
    let mut server = Server::start(&["#2=200~"]).await;
    let rig = server.drain(("https://", ""), nothing).await;
    rig.send(&lines(0..4)).await;
    let (taken, requests) = server.taken(4).await;
    assert!(taken.iter().copied().eq(0..4), "each once: {taken:?}");
    assert_eq!(requests.len(), 4);
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 4);
    check_laws(&telemetry);
}

#[tokio::test]
async fn a_receiver_that_names_a_wait_is_given_it() {
    let mut server = Server::start(&["#1=429/1"]).await;
    let rig = server.drain(("https://", ""), nothing).await;
    rig.send(&lines(0..1)).await;
    assert_eq!(server.next().await["status"], 429);
    let refused = Instant::now();
    assert_eq!(server.next().await["status"], 204);
    assert!(refused.elapsed() > Duration::from_millis(900), "{:?}", refused.elapsed());
    drop(rig);
}

/// A line that a receiver will never take costs itself, and its owner is told; in a batch it is looked for.
#[tokio::test]
async fn what_is_refused_for_good_costs_itself() {
    for (scheme, rule) in
        [("https://", "line 7\n=400"), ("https-batch://", "line 7\n=400"), ("https-batch://", "line 7\n=422")]
    {
        let mut server = Server::start(&[rule]).await;
        let sources = |config: &mut Config| config.drains[0].sources = vec!["app".to_owned()];
        let mut rig = server.drain((scheme, ""), sources).await;
        rig.send(&lines(0..20)).await;
        let (taken, _) = server.taken(19).await;
        assert!(taken.iter().copied().eq((0..20).filter(|number| *number != 7)), "{taken:?}");
        let notice = rig.notices.recv().await.unwrap();
        let text = String::from_utf8(notice.payload().to_vec()).unwrap();
        assert!(text.starts_with("1 messages lost") && text.ends_with("(rejected_permanent 1)"), "{text}");
        let (_, telemetry) = rig.shutdown().await;
        let reason = "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"rejected_permanent\"}";
        assert_eq!(number(&telemetry, reason), 1);
        check_laws(&telemetry);
    }
    // Too much at once is sent in parts.
    let mut server = Server::start(&[">500=413"]).await;
    let rig = server.drain(("https-batch://", ""), nothing).await;
    rig.send(&lines(0..60)).await;
    let (taken, _) = server.taken(60).await;
    assert!(taken.iter().copied().eq(0..60), "{taken:?}");
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 60);
    check_laws(&telemetry);
}

#[tokio::test]
async fn certificates_are_asked_for_both_ways() {
    let mut server = Server::start_as(true, &[]).await;
    let files = server.certs.files("drain");
    let rig = server
        .drain(("https://", ""), |config| {
            let tls = config.drains[0].tls.as_mut().unwrap();
            (tls.cert, tls.key) = (Some(files.cert), Some(files.key));
        })
        .await;
    rig.send(&lines(0..1)).await;
    assert_eq!(server.next().await["body"], line(0));
    drop(rig);

    // A stranger's server gets nothing, not even a request.
    let mut stranger = Server::start(&[]).await;
    let trusted = server.certs.files("receiver").ca;
    let rig = stranger
        .drain(("https://canary:canary@", "/canary?canary"), |config| {
            config.drains[0].tls.as_mut().unwrap().ca = Some(trusted);
        })
        .await;
    rig.send(&lines(0..1)).await;
    while !rig.telemetry.render().contains("hydrant_drain_state{drain=\"f9e6e6ef197c2b25\"} 3") {
        tokio::task::yield_now().await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), stranger.next()).await.is_err());
}
