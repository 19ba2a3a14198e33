//! Scraping: pages of a server that knows nothing of hydrant and of PyPI's `prometheus-client`, to the envelopes that a doppler gets
//! (contract: agents §8); and targets that mean no good.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hydrant_agent::Config;
use hydrant_agent::scrape::{ScrapeConfig, ScrapeTarget, ScrapeTls};
use prost::Message as _;
use proto::v2::envelope::Message;
use proto::{json, v2};
use serde_json::Value;
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use transport::TestCerts;

use super::harness::{doppler, python};

const PATIENCE: Duration = Duration::from_secs(60);
const OFTEN: Duration = Duration::from_millis(100);

struct Rig {
    agent: hydrant_agent::Handle,
    received: mpsc::Receiver<v2::Envelope>,
    telemetry: Telemetry,
    tasks: TaskTracker,
}

impl Rig {
    async fn start(scrape: ScrapeConfig) -> Self {
        let tasks = TaskTracker::new();
        let (doppler, received) = doppler(&tasks).await;
        let telemetry = Telemetry::default();
        let config = Config { scrape, ..Config::for_test(doppler) };
        let agent = config.bind(&telemetry).await.unwrap().spawn();
        Self { agent, received, telemetry, tasks }
    }

    /// The next envelope that is not about scraping itself.
    async fn next(&mut self) -> v2::Envelope {
        loop {
            let next = timeout(PATIENCE, self.received.recv()).await.expect("an envelope").expect("the doppler runs");
            if next.source_id != "prom_scraper" {
                return next;
            }
        }
    }

    /// Until a line of the metrics is there.
    async fn until(&mut self, series: &str, done: impl Fn(f64) -> bool) {
        let found = |page: &str| {
            page.lines()
                .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<f64>().ok())
                .is_some_and(&done)
        };
        // Every scrape tells something: its end is waited for.
        while !found(&self.telemetry.render()) {
            timeout(PATIENCE, self.received.recv())
                .await
                .unwrap_or_else(|_| panic!("{series} in\n{}", self.telemetry.render()));
        }
    }
}

/// Serves one page, again and again, as `answer` says of each request.
async fn page(tasks: &TaskTracker, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let _gone = stream.write_all(&answer(std::str::from_utf8(&request).unwrap())).await;
        }
    });
    addr
}

fn http(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What came, in a form that can be compared; when it came is each run's own, and a counter without a total has one of zero.
fn comparable(mut envelope: v2::Envelope) -> String {
    envelope.timestamp = 0;
    json::envelope_json(&envelope.encode_to_vec()).unwrap()
}

/// Vectors in which hydrant decides otherwise: what is below zero, infinite or no number is no count, and what is too large is the largest.
const OTHERWISE: [&str; 4] = ["counter-negative", "counter-nan", "counter-inf", "counter-2e19"];

#[tokio::test(flavor = "multi_thread")]
async fn section_8_files_and_pages_give_what_the_original_made_of_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prom-scraper.jsonl");
    let vectors = std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for vector in vectors.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let text = |key: &str| vector[key].as_str().unwrap().to_owned();
        let (id, body, status) = (text("id"), text("page"), vector["page_status"].as_u64().unwrap() as u16);
        count += 1;
        let tasks = TaskTracker::new();
        let (requests, mut asked) = mpsc::channel(1_000);
        let addr = page(&tasks, move |request| {
            let _full = requests.try_send(request.to_owned());
            http(status, "Content-Type: text/plain; version=0.0.4\r\n", body.as_bytes())
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let file = text("config_yaml").replace("<port of the page>", &addr.port().to_string());
        std::fs::write(dir.path().join("target.yml"), file).unwrap();
        let scrape = ScrapeConfig {
            config_globs: vec![format!("{}/*.yml", dir.path().display())],
            default_source_id: text("default_source_id"),
            interval: OFTEN,
            ..ScrapeConfig::default()
        };
        let mut rig = Rig::start(scrape).await;
        let request = timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
        let mut head = request.lines();
        let path = vector["request"]["path"].as_str().unwrap();
        assert_eq!(head.next(), Some(format!("GET {path} HTTP/1.1").as_str()), "{id}");
        for (name, value) in vector["request"]["headers"].as_object().unwrap() {
            // The original says what it is itself.
            let line = format!("{}: {}", name.to_lowercase(), value.as_str().unwrap());
            assert!(name == "User-Agent" || request.lines().any(|found| found == line), "{id}: {line} in {request}");
        }
        assert!(request.contains("accept:") == vector["request"]["headers"].get("Accept").is_some(), "{id}: {request}");

        let outputs = vector["output"].as_array().unwrap();
        let mut expected: Vec<_> = outputs
            .iter()
            .map(|output| {
                comparable(
                    v2::Envelope::decode(STANDARD.decode(output["b64"].as_str().unwrap()).unwrap().as_slice()).unwrap(),
                )
            })
            .collect();
        if expected.is_empty() {
            let good = matches!(id.as_str(), "empty-page" | "comments-only");
            let outcome = if good {
                "ok"
            } else if status == 200 {
                "malformed"
            } else {
                "status"
            };
            let series = format!("hydrant_scrapes_total{{outcome=\"{outcome}\"}}");
            if good {
                // Nothing is told of it: the second request says that the first was answered.
                timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
            } else {
                rig.until(&series, |count| count >= 1.0).await;
            }
            rig.agent.shutdown().await.unwrap();
            assert!(rig.telemetry.render().contains(&series));
            continue;
        }
        if OTHERWISE.contains(&id.as_str()) {
            if id == "counter-2e19" {
                let Some(Message::Counter(counter)) = rig.next().await.message else { panic!("{id}") };
                assert_eq!(counter.total, u64::MAX);
            } else {
                timeout(PATIENCE, asked.recv()).await.unwrap().unwrap();
            }
            rig.agent.shutdown().await.unwrap();
            continue;
        }
        let mut found = Vec::new();
        for _ in 0..expected.len() {
            found.push(comparable(rig.next().await));
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{id}");
        rig.agent.shutdown().await.unwrap();
    }
    assert_eq!(count, 53);
}

const CLIENT: &str = r#"
import sys
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, Info, Enum, start_http_server
registry = CollectorRegistry()
Counter('ships', 'Ships.', ['berth'], registry=registry).labels('1').inc(12)
Gauge('depth', 'Depth.', registry=registry).set(-4.25)
histogram = Histogram('wait_seconds', 'Wait.', buckets=[0.5, 2.5], registry=registry)
for value in (0.1, 1, 9): histogram.observe(value)
Summary('lag', 'Lag.', registry=registry).observe(1.5)
Info('build', 'Build.', registry=registry).info({'version': '1.2'})
Enum('door', 'Door.', states=['open', 'shut'], registry=registry).state('shut')
tls = dict(certfile=sys.argv[1], keyfile=sys.argv[2], client_cafile=sys.argv[3], client_auth_required=True) if len(sys.argv) > 1 else {}
server, _ = start_http_server(0, '127.0.0.1', registry=registry, **tls)
print(server.server_port, flush=True)
sys.stdin.read()  # until the test is over
"#;

struct Client(Child, u16);

impl Client {
    fn start(arguments: &[&Path]) -> Self {
        let mut child = Command::new(python())
            .args(["-c", CLIENT])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port in {line:?}: run scripts/tools"));
        Self(child, port)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Each metric's first value, by name and the tags that say what it is.
async fn values(rig: &mut Rig, count: usize) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    while values.len() < count {
        let envelope = rig.next().await;
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("harbour", "7"));
        let tags: Vec<_> = envelope
            .tags
            .iter()
            .filter(|(key, _)| *key != "team")
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let key = |name: &str| format!("{name}{{{}}}", tags.join(","));
        assert_eq!(envelope.tags["team"], "a");
        match envelope.message.unwrap() {
            Message::Counter(counter) => drop(values.insert(key(&counter.name), counter.total as f64)),
            Message::Gauge(gauge) => {
                let told = gauge.metrics.into_iter().filter(|(name, _)| name != "scrape_duration_seconds");
                values.extend(told.map(|(name, value)| (key(&name), value.value)));
            }
            other => panic!("{other:?}"),
        }
    }
    values
}

fn target(url: &str) -> ScrapeTarget {
    ScrapeTarget {
        url: url.parse().unwrap(),
        source_id: "harbour".to_owned(),
        instance_id: "7".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        headers: BTreeMap::new(),
        interval: Some(OFTEN),
        timeout: None,
        tls: None,
    }
}

fn of(targets: Vec<ScrapeTarget>) -> ScrapeConfig {
    ScrapeConfig { targets, timeout: Duration::from_secs(30), ..ScrapeConfig::default() }
}

fn expected(created: bool) -> BTreeMap<String, f64> {
    let mut expected = BTreeMap::from(
        [
            ("ships_total{berth=1}", 12.0),
            ("depth{}", -4.25),
            ("wait_seconds_bucket{le=0.5}", 1.0),
            ("wait_seconds_bucket{le=2.5}", 2.0),
            ("wait_seconds_bucket{le=+Inf}", 3.0),
            ("wait_seconds_count{}", 3.0),
            ("wait_seconds_sum{}", 10.1),
            ("lag_count{}", 1.0),
            ("lag_sum{}", 1.5),
            ("build_info{version=1.2}", 1.0),
            ("door{door=open}", 0.0),
            ("door{door=shut}", 1.0),
            ("up{}", 1.0),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    if created {
        for name in ["ships_created{berth=1}", "wait_seconds_created{}", "lag_created{}"] {
            expected.insert(name.to_owned(), f64::NAN);
        }
    }
    expected
}

fn compare(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, value) in expected {
        assert!(value.is_nan() || found[name] == *value, "{name}: {}", found[name]);
    }
}

#[tokio::test]
async fn a_python_client_in_openmetrics_and_in_text() {
    let client = Client::start(&[]);
    let openmetrics = target(&format!("http://127.0.0.1:{}/metrics", client.1));
    let mut rig = Rig::start(of(vec![openmetrics.clone()])).await;
    compare(&values(&mut rig, 13).await, &expected(false));
    rig.agent.shutdown().await.unwrap();

    let mut text = openmetrics;
    text.headers.insert("accept".to_owned(), "text/plain".to_owned());
    let mut rig = Rig::start(of(vec![text])).await;
    // In the text format times of creation are gauges of their own.
    compare(&values(&mut rig, 16).await, &expected(true));
    rig.agent.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_python_client_over_tls_that_wants_a_certificate() {
    let certs = TestCerts::new();
    let (server, own) = (certs.files("target"), certs.files("agent"));
    let client = Client::start(&[&server.cert, &server.key, &server.ca]);
    let mut secure = target(&format!("https://127.0.0.1:{}/metrics", client.1));
    let tls =
        ScrapeTls { ca: Some(own.ca), cert: Some(own.cert), key: Some(own.key), server_name: Some("target".into()) };
    secure.tls = Some(tls.clone());
    let mut nameless = secure.clone();
    nameless.tls = Some(ScrapeTls { cert: None, key: None, ..tls });
    let mut rig = Rig::start(of(vec![secure])).await;
    compare(&values(&mut rig, 13).await, &expected(false));
    rig.agent.shutdown().await.unwrap();

    let mut rig = Rig::start(of(vec![nameless])).await;
    rig.until("hydrant_scrapes_total{outcome=\"tls\"}", |count| count >= 1.0).await;
    rig.agent.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_target_that_means_no_good_costs_only_itself() {
    let tasks = TaskTracker::new();
    let good = page(&tasks, |_| http(200, "", b"# TYPE g gauge\ng 1\n")).await;
    let html = page(&tasks, |_| http(200, "Content-Type: text/html\r\n", b"<html><body>Welcome</body></html>\n")).await;
    let moved = page(&tasks, |_| http(302, "Location: http://127.0.0.1:1/\r\n", b"")).await;
    let large = page(&tasks, |_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n".to_vec();
        answer.resize(2 * 1024 * 1024, b'a');
        answer
    })
    .await;
    let bomb = {
        use std::io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        (0..64).for_each(|_| packed.write_all(&[b'a'; 1024 * 1024]).unwrap());
        packed.finish().unwrap()
    };
    let bomb = page(&tasks, move |_| http(200, "Content-Encoding: gzip\r\n", &bomb)).await;
    let noise = page(&tasks, |_| b"SSH-2.0-OpenSSH\r\n".to_vec()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

    let hung = silent.local_addr().unwrap();
    let targets =
        [good, html, moved, large, bomb, noise, hung, closed].map(|addr| target(&format!("http://{addr}/metrics")));
    let mut scrape = of(targets.to_vec());
    scrape.max_body_bytes = (1024 * 1024).try_into().unwrap();
    let mut rig = Rig::start(scrape).await;
    for (outcome, least) in
        [("malformed", 2.0), ("status", 1.0), ("too_large", 2.0), ("unreachable", 1.0), ("timeout", 1.0), ("ok", 5.0)]
    {
        rig.until(&format!("hydrant_scrapes_total{{outcome=\"{outcome}\"}}"), |count| count >= least).await;
    }
    assert_eq!(rig.agent.shutdown().await.unwrap().dropped, 0);
    rig.tasks.close();
}

#[tokio::test]
async fn files_that_come_change_and_go_are_followed() {
    let tasks = TaskTracker::new();
    let addr = page(&tasks, |_| http(200, "", b"g 1\n")).await;
    let dir = tempfile::tempdir().unwrap();
    let scrape = ScrapeConfig {
        config_globs: vec![format!("{}/*/metric_port.yml", dir.path().display())],
        interval: OFTEN,
        ..ScrapeConfig::default()
    };
    let mut rig = Rig::start(scrape).await;
    let write = |job: &str, text: String| {
        std::fs::create_dir_all(dir.path().join(job)).unwrap();
        // Whole at once, as whatever renders such files does it.
        std::fs::write(dir.path().join("new"), text).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join(job).join("metric_port.yml")).unwrap();
    };
    write("bad", "port: nowhere\n".to_owned());
    write("a", format!("port: {}\nsource_id: first\n", addr.port()));
    assert_eq!(rig.next().await.source_id, "first");
    write("a", format!("port: {}\nsource_id: second\n", addr.port()));
    while rig.next().await.source_id != "second" {}
    write("b", format!("port: {}\nsource_id: other\n", addr.port()));
    while rig.next().await.source_id != "other" {}
    let page = rig.telemetry.render();
    for line in ["hydrant_scrape_targets 2", "hydrant_scrape_bad_files 1"] {
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
    std::fs::remove_file(dir.path().join("a/metric_port.yml")).unwrap();
    rig.until("hydrant_scrape_targets", |targets| targets == 1.0).await;
    rig.agent.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_is_named() {
    let error = async |scrape: ScrapeConfig| {
        let config = Config { scrape, ..Config::for_test("127.0.0.1:9".parse().unwrap()) };
        config.bind(&Telemetry::default()).await.unwrap_err().to_string()
    };
    let plain = ScrapeTarget { tls: Some(ScrapeTls::default()), ..target("http://127.0.0.1:1/") };
    assert!(error(of(vec![plain])).await.contains("does not begin with https://"));
    let half = ScrapeTls { cert: Some("no.pem".into()), ..ScrapeTls::default() };
    let half = ScrapeTarget { tls: Some(half), ..target("https://127.0.0.1:1/") };
    assert!(error(of(vec![half])).await.contains("one of cert and key"));
    let mut odd = target("http://127.0.0.1:1/");
    odd.headers.insert("a b".to_owned(), "c".to_owned());
    assert!(error(of(vec![odd])).await.contains("\"a b\" is no header"));
    let globs = ScrapeConfig { config_globs: vec!["/a/[".to_owned()], ..ScrapeConfig::default() };
    assert!(error(globs).await.contains("is no pattern"));
}
