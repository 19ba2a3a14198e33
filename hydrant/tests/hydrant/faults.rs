//! Faults of the machine around the adapters: a disk that fills up, a name that leads elsewhere. Each runs in namespaces of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use proto::v2;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::fleet::load::say;
use crate::harness::{Producer, get, metrics, pipeline, sum, until};
use crate::namespace::{self, command};

/// The reading end of a drain.
struct Receiver(Lines<BufReader<TcpStream>>);

impl Receiver {
    async fn accept(listener: &TcpListener) -> Self {
        Self(BufReader::new(listener.accept().await.unwrap().0).lines())
    }

    /// The number at the end of the next line.
    async fn number(&mut self) -> u64 {
        let line = self.0.next_line().await.unwrap().unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The numbers up to and with `last`, and how many came again.
    async fn through(&mut self, last: u64) -> (BTreeSet<u64>, u64) {
        let (mut got, mut duplicates) = (BTreeSet::new(), 0);
        while !got.contains(&last) {
            duplicates += u64::from(!got.insert(self.number().await));
        }
        (got, duplicates)
    }
}

fn lines(source: &str, range: std::ops::Range<u64>) -> Vec<v2::Envelope> {
    let text = "x".repeat(1_000);
    range.map(|i| v2::Envelope::log(source, format!("{text} {i}"))).collect()
}

/// A drain of the source with its name.
fn to(name: &str, url: &str, more: &str) -> String {
    format!(
        "[[adapters.drains]]\nname = \"{name}\"\nurl = \"{url}\"\nsources = [\"{name}\"]\nline.framing = \"line-feed\"\n{more}\n"
    )
}

/// A drain as the API shows it, once it is as wanted; for a minute at most.
async fn drain(admin: SocketAddr, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let mut drain = Value::Null;
    for _ in 0..12_000 {
        look.tick().await;
        drain = serde_json::from_str(&get(admin, &format!("/v1/drains/{name}")).await.body).unwrap();
        if holds(&drain) {
            return drain;
        }
    }
    panic!("a minute has passed, and it is still not so: {drain:#}");
}

fn in_a_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn f11_a_full_disk_makes_a_drain_in_memory_and_costs_no_other() {
    if !namespace::inside() {
        return namespace::run("faults::f11_a_full_disk_makes_a_drain_in_memory_and_costs_no_other");
    }
    in_a_runtime(disk_full());
}

async fn disk_full() {
    /// The size of the file system, in MiB, and what of it is left for the drain and its reserve.
    const SIZE: usize = 48;
    const LEFT: usize = 16;
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().to_str().unwrap();
    command("mount", &["-t", "tmpfs", "-o", &format!("size={SIZE}m"), "tmpfs", dir]);
    let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let up = pipeline(&format!(
        "adapters.state_dir = {dir:?}\n{}{}",
        // Notices of losses would be lines of their own.
        to("full", &format!("syslog://{destination}"), "buffer = \"disk\"\nannounce = false"),
        to("near", &format!("syslog://{}", near.local_addr().unwrap()), ""),
    ))
    .await;
    let admin = up.adapters().admin;
    let mut producer = Producer::connect(up.agent().grpc).await;
    until(up.doppler().admin, |page| sum(page, "hydrant_subscriptions", "") >= 2).await;
    let hog = state.path().join("hog");
    std::fs::write(&hog, vec![0; (SIZE - LEFT) << 20]).unwrap();

    producer.send(lines("near", 0..1)).await;
    let mut beside = Receiver::accept(&near).await;
    assert_eq!(beside.number().await, 0);
    let (mut sent, mut others) = (0, 1);
    // Fifty lines that go to the disk, and one that another drain delivers at once.
    let mut send = async || {
        producer.send(lines("full", sent..sent + 50)).await;
        producer.send(lines("near", others..others + 1)).await;
        producer.settled().await;
        assert_eq!(beside.number().await, others, "another drain goes on");
        (sent, others) = (sent + 50, others + 1);
        assert!(sent < 40_000, "the disk is never full");
        (sent, others)
    };
    let is_full = |drain: &Value| drain["disk_trouble"].is_string();
    let look = async || drain(admin, "full", |_| true).await;
    let mut told = look().await;
    let (mut at_full, _) = send().await;
    while !is_full(&told) {
        (at_full, _) = send().await;
        told = look().await;
    }
    // While it is full the ring holds what fits, and drops the rest.
    for _ in 0..250 {
        send().await;
    }
    let back = TcpListener::bind(destination).await.unwrap();
    std::fs::remove_file(&hog).unwrap();
    let freed = Instant::now();
    drain(admin, "full", |drain| !is_full(drain)).await;
    let mended = freed.elapsed();
    let (sent, others) = send().await;
    let (got, duplicates) = Receiver::accept(&back).await.through(sent - 1).await;
    let dropped = sum(&metrics(admin).await, "hydrant_dropped_envelopes_total", "stage=\"drain\"");
    let residual = sent - got.len() as u64 - dropped;
    say(&json!({
        "id": "F11", "issued": sent, "until_full": at_full, "unique": got.len(), "duplicates": duplicates, "queue_full": dropped,
        "residual": residual, "others_issued": others, "others_lost": 0, "mended_ms": mended.as_millis(), "told": told["disk_trouble"],
    })
    .to_string());
    assert_eq!(residual, 0, "what is lost is counted");
    assert!(dropped > 0, "the ring overflowed");
    assert!(mended < Duration::from_secs(5), "the disk was used again after {mended:?}");
    up.shutdown().await.unwrap();
}

#[test]
fn f36_a_drain_follows_its_name_to_another_address() {
    if !namespace::inside() {
        return namespace::run("faults::f36_a_drain_follows_its_name_to_another_address");
    }
    in_a_runtime(name_moves());
}

async fn name_moves() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    // Written in place: what is mounted is this very file.
    let leads_to = |addr: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{addr}")).unwrap();
    leads_to("127.0.0.2 drain.example\n");
    command("mount", &["--bind", hosts.to_str().unwrap(), "/etc/hosts"]);
    let first = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.3", port)).await.unwrap();
    let up = pipeline(&to("app", &format!("syslog://drain.example:{port}"), "")).await;
    let admin = up.adapters().admin;
    until(up.doppler().admin, |page| sum(page, "hydrant_subscriptions", "") >= 1).await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(lines("app", 0..10)).await;
    let mut at_first = Receiver::accept(&first).await;
    assert!(at_first.through(9).await.0.into_iter().eq(0..10));

    // It moves, and its old address takes nothing any more.
    leads_to("127.0.0.3 drain.example\n");
    drop((at_first, first));
    let moved = Instant::now();
    producer.send(lines("app", 10..20)).await;
    let mut at_second = Receiver::accept(&second).await;
    let resumed = moved.elapsed();
    let (got, _) = at_second.through(19).await;
    assert!((10..20).all(|i| got.contains(&i)), "{got:?}");

    // It leads nowhere: the error says which name, and nothing is lost until it is known again.
    leads_to("");
    drop((at_second, second));
    producer.send(lines("app", 20..30)).await;
    let told = drain(admin, "app", |drain| {
        let text = drain["last_error"]["text"].as_str().unwrap_or_default();
        text.contains("drain.example") && drain["state"] != "ok"
    })
    .await;
    let third = TcpListener::bind(("127.0.0.4", port)).await.unwrap();
    leads_to("127.0.0.4 drain.example\n");
    let known = Instant::now();
    let mut at_third = Receiver::accept(&third).await;
    let back = known.elapsed();
    let (got, _) = at_third.through(29).await;
    assert!((20..30).all(|i| got.contains(&i)), "{got:?}");
    let dropped = sum(&metrics(admin).await, "hydrant_dropped_envelopes_total", "stage=\"drain\"");
    say(&json!({
        "id": "F36 a drain's name", "issued": 30, "unique": 30, "dropped": dropped, "resumed_ms": resumed.as_millis(),
        "back_ms": back.as_millis(), "told": told["last_error"]["text"],
    })
    .to_string());
    assert_eq!(dropped, 0);
    up.shutdown().await.unwrap();
}
