//! Drains over UDP: each message a datagram, and what can be known of it.

use std::net::SocketAddr;

use hydrant_adapters::Config;
use proto::v2;
use tokio::net::UdpSocket;

use crate::support::{Rig, check_laws, lines, number};

async fn socket(addr: SocketAddr) -> UdpSocket {
    UdpSocket::bind(addr).await.unwrap()
}

fn over_udp(addr: SocketAddr, query: &str) -> impl FnOnce(&mut Config) {
    let url = format!("syslog-udp://{addr}{query}").parse().unwrap();
    move |config| config.drains[0].url = url
}

async fn datagram(socket: &UdpSocket) -> String {
    let mut bytes = vec![0; 65_536];
    let len = socket.recv(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[tokio::test]
async fn each_message_is_a_datagram_without_a_line_feed() {
    let receiver = socket("127.0.0.1:0".parse().unwrap()).await;
    let addr = receiver.local_addr().unwrap();
    let rig = Rig::start(addr, "", over_udp(addr, "?drain-data=all")).await;
    let mut gauge = v2::Envelope::gauge("app", "a", 1.0, "");
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("b".to_owned(), v2::GaugeValue { unit: String::new(), value: 2.0 });
    }
    rig.send(&[v2::Envelope::log("app", "one\ntwo\n"), gauge]).await;
    let header = "<14>1 1970-01-01T00:00:00+00:00 - app [] - ";
    assert_eq!(datagram(&receiver).await, format!("{header}- one\ntwo"));
    assert_eq!(datagram(&receiver).await, format!("{header}[gauge@47450 name=\"a\" value=\"1\" unit=\"\"] "));
    assert_eq!(datagram(&receiver).await, format!("{header}[gauge@47450 name=\"b\" value=\"2\" unit=\"\"] "));
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 2);
    assert_eq!(number(&telemetry, "hydrant_link_confirmed_total{link=\"drain\"}"), 2);
    check_laws(&telemetry);
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_is_cut_and_counted() {
    let receiver = socket("127.0.0.1:0".parse().unwrap()).await;
    let addr = receiver.local_addr().unwrap();
    let rig = Rig::start(addr, "", over_udp(addr, "")).await;
    rig.send(&[v2::Envelope::log("app", vec![b'x'; 100_000]).tag("k", "v"), v2::Envelope::log("app", "next")]).await;
    let long = datagram(&receiver).await;
    assert_eq!(long.len(), 2047, "2048 with the line feed that a datagram does without");
    assert!(long.contains("] - - xxx"), "without its tags");
    assert!(datagram(&receiver).await.ends_with(" next"));
    let (_, telemetry) = rig.shutdown().await;
    assert_eq!(number(&telemetry, "hydrant_drain_cut_lines_total"), 1);
    check_laws(&telemetry);
}

/// The receiver's machine answers that nobody listens: nothing is lost until somebody does.
#[tokio::test]
async fn lines_wait_for_somebody_to_listen() {
    let bound = socket("127.0.0.1:0".parse().unwrap()).await;
    let addr = bound.local_addr().unwrap();
    drop(bound);
    let rig = Rig::start(addr, "", over_udp(addr, "")).await;
    rig.send(&lines(0..200)).await;
    while !rig.telemetry.render().contains("hydrant_drain_state{drain=\"f9e6e6ef197c2b25\"} 1") {
        tokio::task::yield_now().await;
    }
    let receiver = socket(addr).await;
    for i in 0..200 {
        assert!(datagram(&receiver).await.ends_with(&format!(" line {i}")));
    }
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0);
    assert_eq!(number(&telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 200);
    assert!(number(&telemetry, "hydrant_link_requeued_total{link=\"drain\"}") > 0);
    check_laws(&telemetry);
}
