//! statsd from programs that nobody here wrote, in the native mapping: Datadog's client of Python, hot-shots of Node, and Etsy's daemon as
//! the judge of what is summed up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hydrant_agent::Config;
use hydrant_agent::statsd::{Mapping, NegativeGauges};
use proto::v2;
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::{doppler, node, python};

const PATIENCE: Duration = Duration::from_secs(60);

/// The values that arrived: of counters what was added, of gauges each entry, by source, name and the tags but the origin.
type Values = BTreeMap<String, f64>;

struct Arrived {
    values: Values,
    events: Vec<v2::Envelope>,
}

/// An agent with the native mapping, and what a sender's lines became once it was stopped.
async fn arrived(configure: impl FnOnce(&mut Config), send: impl FnOnce(SocketAddr) + Send + 'static) -> Arrived {
    let tasks = TaskTracker::new();
    let (doppler, received) = doppler(&tasks).await;
    let mut config = Config::for_test(doppler);
    config.statsd.mapping = Mapping::Native;
    configure(&mut config);
    let telemetry = Telemetry::default();
    let agent = config.bind(&telemetry).await.unwrap().spawn();
    let addr = agent.addrs().statsd.unwrap();
    tokio::task::spawn_blocking(move || send(addr)).await.unwrap();
    // The stop reads what is there and tells it.
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    let page = telemetry.render();
    for reason in ["decode_error", "oversize", "too_many"] {
        let line = format!("hydrant_source_refused_total{{source=\"statsd\",reason=\"{reason}\"}} 0");
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
    gather(received).await
}

async fn gather(mut received: mpsc::Receiver<v2::Envelope>) -> Arrived {
    let (mut values, mut events) = (Values::new(), Vec::new());
    while let Ok(envelope) = received.try_recv() {
        let mut tags: Vec<_> = envelope.tags.iter().filter(|(key, _)| *key != "origin").collect();
        tags.sort();
        let tags: Vec<_> = tags.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
        let key = |name: &str| format!("{}.{name}{{{}}}", envelope.source_id, tags.join(","));
        match envelope.message.as_ref().unwrap() {
            Message::Counter(counter) => *values.entry(key(&counter.name)).or_default() += counter.delta as f64,
            Message::Gauge(gauge) => {
                values.extend(gauge.metrics.iter().map(|(name, value)| (key(name), value.value)));
            }
            Message::Event(_) => events.push(envelope),
            other => panic!("{other:?}"),
        }
    }
    Arrived { values, events }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: run scripts/tools", String::from_utf8_lossy(&output.stderr));
}

fn expect(values: &Values, expected: &[(&str, f64)]) {
    for (key, value) in expected {
        assert_eq!(values.get(*key), Some(value), "{key} in {values:#?}");
    }
}

const DATADOG: &str = r"
import sys, time
from datadog.dogstatsd.base import DogStatsd
where = sys.argv[1]
to = dict(socket_path=where) if where.startswith('/') else dict(host='127.0.0.1', port=int(where))
client = DogStatsd(namespace='shop', constant_tags=['env:prod-eu'], telemetry_min_flush_interval=0, disable_telemetry=True,
                   origin_detection_enabled=False, **to)
client.set_socket_timeout(30)  # a Unix socket that is full makes it wait, not drop
client.increment('orders')
client.increment('orders', 4)
client.decrement('orders', 2)
client.gauge('depth', -7.5)
client.histogram('size', 7, tags=['bare', 'url:http://x/y'])
client.distribution('spread', 9)
client.timing('took', 320)
client.set('users', 'anna')
client.set('users', 'bob')
client.count_with_timestamp('past', 3, 1656581400)
client.gauge_with_timestamp('level', 2.5, 1656581401)
client.event('deployed', 'line one\nline two', alert_type='success', priority='low', hostname='web-1', aggregation_key='k', date_happened=1656581402)
client.service_check('shop.db.up', 2, tags=['role:db'], timestamp=1656581403, hostname='web-1', message='no answer')
client.flush()
client.stop()
";

fn datadog(to: &str) {
    run(Command::new(python()).args(["-c", DATADOG, to]));
}

fn expect_datadog(arrived: &Arrived) {
    expect(
        &arrived.values,
        &[
            ("shop.orders{env:prod-eu}", 3.0),
            ("shop.depth{env:prod-eu}", -7.5),
            ("shop.size.mean{bare:,env:prod-eu,url:http://x/y}", 7.0),
            ("shop.spread.upper{env:prod-eu}", 9.0),
            ("shop.took.count{env:prod-eu}", 1.0),
            ("shop.took.sum{env:prod-eu}", 320.0),
            ("shop.users{env:prod-eu}", 2.0),
            ("shop.past{env:prod-eu}", 3.0),
            ("shop.level{env:prod-eu}", 2.5),
            ("shop.db.up{env:prod-eu,host:web-1,message:no answer,role:db}", 2.0),
        ],
    );
    let [event] = arrived.events.as_slice() else { panic!("{:?}", arrived.events) };
    let said = v2::Event { title: "deployed".into(), body: "line one\nline two".into() };
    assert_eq!((&event.message, event.timestamp), (&Some(Message::Event(said)), 1_656_581_402_000_000_000));
    assert_eq!((event.tags["alert_type"].as_str(), event.tags["host"].as_str()), ("success", "web-1"));
}

#[tokio::test]
async fn datadogs_python_client_over_udp() {
    let levels = |config: &mut Config| config.statsd.negative_gauges = NegativeGauges::Set;
    expect_datadog(&arrived(levels, |addr| datadog(&addr.port().to_string())).await);
}

#[tokio::test]
async fn datadogs_python_client_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("statsd.sock");
    let (at, to) = (path.clone(), path.to_str().unwrap().to_owned());
    let configure = move |config: &mut Config| {
        config.statsd.negative_gauges = NegativeGauges::Set;
        config.statsd.unix = Some(at);
    };
    expect_datadog(&arrived(configure, move |_| datadog(&to)).await);
    assert!(!path.exists(), "removed at the stop");
}

/// The tree of `statsd-js/package-lock.json`.
fn modules() -> PathBuf {
    let modules = node().parent().and_then(Path::parent).unwrap().join("npm/statsd-js/node_modules");
    assert!(modules.exists(), "{} is missing: run scripts/tools", modules.display());
    modules
}

fn script(name: &str) -> String {
    format!("{}/tests/agent/statsd-js/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn hot_shots_of_node() {
    let send = |addr: SocketAddr| {
        run(Command::new(node()).arg(script("hot-shots.js")).arg(addr.port().to_string()).env("NODE_PATH", modules()));
    };
    let arrived = arrived(|config| config.statsd.sockets = 3.try_into().unwrap(), send).await;
    expect(
        &arrived.values,
        &[
            ("shop.orders{env:prod-eu}", 3.0),
            ("shop.depth{env:prod-eu}", 50.0),
            ("shop.took.mean{env:prod-eu}", 320.0),
            ("shop.size.mean{env:prod-eu}", 7.0),
            ("shop.spread.mean{env:prod-eu}", 9.0),
            ("shop.users{env:prod-eu}", 2.0),
            ("shop.db.up{env:prod-eu,host:web-1,message:no answer}", 2.0),
        ],
    );
    let [event] = arrived.events.as_slice() else { panic!("{:?}", arrived.events) };
    // The client sends a newline as two characters; here it is one again.
    let Some(Message::Event(said)) = &event.message else { unreachable!("gathered as such") };
    assert_eq!((said.title.as_str(), said.body.as_str()), ("shop.deployed", "line one\nline two"));
    assert_eq!(event.tags["priority"], "low");
}

/// Etsy's daemon, which prints what it has summed up.
struct Etsy {
    child: Child,
    flushes: tokio::io::Lines<BufReader<tokio::net::unix::pipe::Receiver>>,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Etsy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Etsy {
    fn start(flush: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago: nobody else takes ports of this address.
        let udp = UdpSocket::bind("127.0.8.125:0").unwrap().local_addr().unwrap();
        let management = TcpListener::bind("127.0.8.125:0").unwrap().local_addr().unwrap();
        let config = dir.path().join("config.js");
        let text = serde_json::json!({
            "address": udp.ip(), "port": udp.port(), "mgmt_address": management.ip(), "mgmt_port": management.port(),
            "flushInterval": flush.as_millis(), "backends": [script("etsy-backend.js")], "percentThreshold": [90],
            "graphite": { "legacyNamespace": false }, "deleteIdleStats": true,
        });
        std::fs::write(&config, text.to_string()).unwrap();
        let (write, read) = tokio::net::unix::pipe::pipe().unwrap();
        let child = Command::new(node())
            .args(["--require", &script("util-log.js")])
            .arg(modules().join("statsd/stats.js"))
            .arg(config)
            .stdin(Stdio::null())
            .stdout(write.into_blocking_fd().unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, flushes: BufReader::new(read).lines(), addr: udp, _dir: dir }
    }

    async fn flush(&mut self) -> serde_json::Value {
        loop {
            let line = timeout(PATIENCE, self.flushes.next_line()).await.expect("a flush").unwrap().expect("it runs");
            // It also says other things.
            if let Ok(flush) = serde_json::from_str(&line) {
                return flush;
            }
        }
    }
}

/// Counters, gauges, sets and timers of several sizes, sampled and not; the same each time.
fn lines() -> Vec<String> {
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut lines = Vec::new();
    for (name, count) in [("one", 1), ("two", 2), ("seven", 7), ("ten", 10), ("many", 333)] {
        for i in 0..count {
            let rate = if i % 3 == 0 { "|@0.5" } else { "" };
            lines.push(format!("etsy.{name}:{}.{}|ms{rate}", random(1_000), random(100)));
            lines.push(format!("etsy.c-{name}:{}|c{rate}", random(9)));
            lines.push(format!("etsy.s-{name}:{}|s", random(count)));
            let sign = ["", "+", "-"][random(3) as usize];
            lines.push(format!("etsy.g-{name}:{sign}{}|g", random(50)));
        }
    }
    lines
}

#[tokio::test]
async fn what_is_summed_up_is_what_etsys_daemon_sums_up() {
    let interval = Duration::from_secs(2);
    let mut etsy = Etsy::start(interval);
    // The first flush says that it runs; the next is 2 s away.
    etsy.flush().await;
    let datagrams: Vec<String> = lines().chunks(20).map(|lines| lines.join("\n")).collect();
    let to = etsy.addr;
    let send = move |addr: SocketAddr| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in &datagrams {
            for addr in [addr, to] {
                socket.send_to(datagram.as_bytes(), addr).unwrap();
            }
        }
    };
    let arrived = arrived(|config| config.statsd.flush_interval = interval, send).await.values;

    let flush = etsy.flush().await;
    let mut judged = Values::new();
    let numbers = |kind: &str| flush[kind].as_object().unwrap().clone().into_iter();
    for kind in ["counters", "gauges", "sets"] {
        // Its own are called statsd.
        let theirs = numbers(kind).filter(|(name, _)| name.starts_with("etsy."));
        judged.extend(theirs.map(|(name, value)| (format!("{name}{{}}"), value.as_f64().unwrap())));
    }
    for (name, summary) in numbers("timers").filter(|(name, _)| name.starts_with("etsy.")) {
        for (entry, value) in summary.as_object().unwrap() {
            judged.insert(format!("{name}.{entry}{{}}"), value.as_f64().unwrap());
        }
    }
    // It tells counters of zero too.
    judged.retain(|name, value| !(name.contains(".c-") && *value == 0.0));
    assert!(judged.len() > 80, "{judged:#?}");
    let mut differences = String::new();
    for name in judged.keys().chain(arrived.keys()) {
        let (theirs, ours) = (judged.get(name).copied(), arrived.get(name).copied());
        let close = matches!((theirs, ours), (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * a.abs().max(1.0));
        if !close {
            writeln!(differences, "{name}: Etsy {theirs:?}, hydrant {ours:?}").unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}
