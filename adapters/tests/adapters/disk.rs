//! Drains that buffer on disk: what was taken survives the process and the outage of its destination.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;

use http::{Method, StatusCode};
use hydrant_adapters::{Buffer, Config};
use proto::v2;
use serde_json::json;
use tokio::net::TcpListener;

use crate::drains::{ask, until};
use crate::support::{Rig, check_laws, frame, line, lines, number, receiver, send};

async fn rig(dir: &Path, destination: SocketAddr, adjust: impl FnOnce(&mut Config)) -> Rig {
    let dir = dir.to_owned();
    Rig::start(destination, "", |config| {
        config.drains[0].buffer = Buffer::Disk;
        // The disk of a machine that runs tests may be nearly full.
        config.drains[0].disk.keep_free_percent = 0;
        config.state_dir = Some(dir);
        adjust(config);
    })
    .await
}

/// An address where nobody listens, and a way to listen there later.
pub(crate) async fn nobody() -> SocketAddr {
    receiver().await.1
}

pub(crate) async fn listen(addr: SocketAddr) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket.listen(16).unwrap()
}

fn on_disk(rig: &Rig) -> u64 {
    number(&rig.telemetry, "hydrant_queue_depth_envelopes{queue=\"drain_disk\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_disk_outlives_the_process_and_is_delivered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let addr = nobody().await;
    let rig = self::rig(dir.path(), addr, |_| {}).await;
    for hundred in 0..5 {
        rig.send(&lines(100 * hundred..100 * (hundred + 1))).await;
    }
    let admin = rig.adapters.addrs().admin;
    until(admin, "test", |drain| drain["disk"]["envelopes"] == 500 && drain["state"] == "degraded").await;
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0, "a stop leaves them on disk");
    let waits = number(&telemetry, "hydrant_queue_depth_envelopes{queue=\"drain_disk\"}");
    assert_eq!(waits, 500);

    let listener = listen(addr).await;
    let rig = self::rig(dir.path(), addr, |_| {}).await;
    rig.send(&lines(500..600)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..600 {
        assert_eq!(line(&mut stream).await, Some(i), "none lost, none twice, in order");
    }
    drop(stream);
    // What was written and taken is dealt with once the connection has ended in order, and soon known to the disk.
    while on_disk(&rig) > 0 {
        tokio::task::yield_now().await;
    }
    rig.shutdown().await;
    let rig = self::rig(dir.path(), addr, |_| {}).await;
    rig.send(&lines(600..601)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(line(&mut stream).await, Some(600), "what was delivered does not come again");
    drop(stream);
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_buffer_keeps_what_it_has_and_the_ring_drops_fairly() {
    let dir = tempfile::tempdir().unwrap();
    let addr = nobody().await;
    let rig = self::rig(dir.path(), addr, |config| {
        config.drains[0].disk.bytes = NonZeroU64::new(16 << 20).unwrap();
        config.drains[0].ring.bytes = NonZeroUsize::new(1 << 20).unwrap();
    })
    .await;
    // 24 MB for a buffer of 16 MiB and a ring of 1 MiB.
    let text = "x".repeat(10_000);
    let of = |i: usize| v2::Envelope::log("loud", format!("{text} {i}"));
    for tens in 0..240 {
        rig.send(&(10 * tens..10 * (tens + 1)).map(of).collect::<Vec<_>>()).await;
        let all_taken = |rig: &Rig| {
            let offered = number(&rig.telemetry, "hydrant_queue_offered_total{queue=\"drain\"}");
            let waiting = number(&rig.telemetry, "hydrant_queue_depth_envelopes{queue=\"drain\"}");
            offered == 10 * (tens as u64 + 1) && (waiting == 0 || on_disk(rig) > 1300)
        };
        while !all_taken(&rig) {
            tokio::task::yield_now().await;
        }
    }
    rig.send(&[v2::Envelope::log("quiet", "quiet 0")]).await;
    let admin = rig.adapters.addrs().admin;
    until(admin, "test", |drain| drain["received"] == 2401 && drain["dropped"]["queue_full"].is_u64()).await;
    let listener = listen(addr).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut got = BTreeSet::new();
    loop {
        let frame = frame(&mut stream).await.unwrap();
        let (what, number) = frame.trim_end().rsplit_once(' ').unwrap();
        if what.ends_with("quiet") {
            break;
        }
        assert!(got.insert(number.parse::<u64>().unwrap()), "{number} came twice");
    }
    let kept = got.iter().zip(0..).take_while(|(number, i)| **number == *i).count();
    assert!(kept > 1300, "the disk kept the oldest: {kept}");
    let lost = number(&rig.telemetry, "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"}");
    assert_eq!(got.len() as u64 + lost, 2400, "and the ring counted the rest");
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_used_makes_a_drain_in_memory_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("buffers"), "in the way").unwrap();
    let (listener, addr) = receiver().await;
    let rig = self::rig(dir.path(), addr, |_| {}).await;
    rig.send(&lines(0..3)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..3 {
        assert_eq!(line(&mut stream).await, Some(i));
    }
    let shown = until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 3).await;
    assert!(shown["disk_trouble"].as_str().unwrap().contains("cannot open spool"), "{shown}");
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_on_disk_changes_and_goes_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = self::rig(dir.path(), nobody().await, |_| {}).await;
    let admin = rig.adapters.addrs().admin;
    let to = |addr: SocketAddr| json!({ "url": format!("syslog://{addr}"), "buffer": "disk", "disk": { "keep_free_percent": 0 } });
    let (status, answer) = ask(admin, Method::PUT, "/v1/drains/mine", Some(&to(nobody().await))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (_, to_drain) = rig.subscriptions.recv().await.unwrap();
    send(&to_drain, &lines(0..100)).await;
    until(admin, "mine", |drain| drain["disk"]["envelopes"] == 100).await;

    let (listener, addr) = receiver().await;
    assert_eq!(ask(admin, Method::PUT, "/v1/drains/mine", Some(&to(addr))).await.0, StatusCode::OK);
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..100 {
        assert_eq!(line(&mut stream).await, Some(i));
    }
    let memory = json!({ "url": format!("syslog://{addr}") });
    let (status, answer) = ask(admin, Method::PUT, "/v1/drains/mine", Some(&memory)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["error"].as_str().unwrap().contains("take it away and add it again"), "{answer}");
    let mut large = to(addr);
    large["disk"]["bytes"] = json!(5_u64 << 30);
    let (_, answer) = ask(admin, Method::PUT, "/v1/drains/other", Some(&large)).await;
    assert!(answer["error"].as_str().unwrap().contains("adapters.disk_bytes is 4294967296"), "{answer}");

    let buffers = || std::fs::read_dir(dir.path().join("buffers")).unwrap().count();
    assert_eq!(buffers(), 2);
    ask(admin, Method::DELETE, "/v1/drains/mine", None).await;
    assert_eq!(line(&mut stream).await, None);
    drop(stream);
    while buffers() > 1 {
        tokio::task::yield_now().await;
    }
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

/// A receiver that keeps its end open does not make delivered lines lost ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_goes_drops_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = self::rig(dir.path(), nobody().await, |_| {}).await;
    let admin = rig.adapters.addrs().admin;
    let (listener, addr) = receiver().await;
    let body = json!({ "url": format!("syslog://{addr}"), "buffer": "disk", "disk": { "keep_free_percent": 0 } });
    ask(admin, Method::PUT, "/v1/drains/mine", Some(&body)).await;
    let (_, to_drain) = rig.subscriptions.recv().await.unwrap();
    send(&to_drain, &lines(0..100)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..100 {
        assert_eq!(line(&mut stream).await, Some(i));
    }
    until(admin, "mine", |drain| drain["delivered"] == 100).await;
    ask(admin, Method::DELETE, "/v1/drains/mine", None).await;
    let (status, answer) = ask(admin, Method::PUT, "/v1/drains/mine", Some(&body)).await;
    assert_eq!(status, StatusCode::CONFLICT, "its files are still in use: {answer}");
    while ask(admin, Method::PUT, "/v1/drains/mine", Some(&body)).await.0 != StatusCode::CREATED {}
    let dropped = "hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"shutdown_deadline\"}";
    assert_eq!(number(&rig.telemetry, dropped), 0);
    drop(stream);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}
