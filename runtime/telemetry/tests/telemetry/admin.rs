//! The admin endpoint as Prometheus, an orchestrator and a hostile page see it.

use std::convert::Infallible;
use std::net::SocketAddr;

use hydrant_telemetry::{AdminConfig, Readiness, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::Handle;

type AdminHandle = Handle<SocketAddr, (), Infallible>;

fn start(config: &AdminConfig<0>, telemetry: &Telemetry, readiness: &Readiness) -> AdminHandle {
    let admin = config.bind("test.admin.listen", telemetry, readiness).unwrap();
    Handle::spawn(admin.addr(), |stop: CancellationToken| async move {
        let tracker = TaskTracker::new();
        admin.serve(&tracker, stop).await;
        tracker.close();
        tracker.wait().await;
        Ok(())
    })
}

async fn send(addr: SocketAddr, method: &str, path: &str, headers: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(addr: SocketAddr, path: &str) -> String {
    send(addr, "GET", path, "host: localhost\r\n").await
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let telemetry = Telemetry::default();
    telemetry.counter("hydrant_received_envelopes_total", "Envelopes received.", &[]).increment(41);
    let admin = start(&AdminConfig::any_port(), &telemetry, &Readiness::default());
    let answer = get(admin.addrs(), "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    for line in [
        "# TYPE hydrant_received_envelopes_total counter",
        "hydrant_received_envelopes_total 41",
        "# HELP hydrant_connections_open Connections open now, handshakes included.",
        "hydrant_connections_open{listener=\"admin\"} 1",
        "hydrant_connections_accepted_total{listener=\"admin\"} 1",
        "hydrant_connections_refused_total{listener=\"admin\",reason=\"source_address\"} 0",
    ] {
        assert!(answer.lines().any(|found| found == line), "missing {line:?} in\n{answer}");
    }
    admin.shutdown().await.unwrap();
}

#[tokio::test]
async fn live_is_always_ok_and_ready_follows_the_latches() {
    let readiness = Readiness::default();
    let (grpc, cache) = (readiness.latch("grpc"), readiness.latch("cache"));
    let admin = start(&AdminConfig::any_port(), &Telemetry::default(), &readiness);
    let addr = admin.addrs();
    let answer = get(addr, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: grpc, cache\n"), "{answer}");
    assert!(get(addr, "/live").await.starts_with("HTTP/1.1 200"));
    grpc.ready();
    cache.ready();
    let answer = get(addr, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok\n"), "{answer}");
    readiness.stopping();
    let answer = get(addr, "/ready").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("not ready: stopping\n"), "{answer}");
    assert!(get(addr, "/live").await.ends_with("\r\n\r\nok\n"), "it lives while it drains");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let admin = start(&AdminConfig::any_port(), &Telemetry::default(), &Readiness::default());
    for path in ["/", "/metric", "/metrics/", "/ready/x"] {
        let answer = get(admin.addrs(), path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(answer.ends_with("this port answers /metrics, /live and /ready\n"), "{path}: {answer}");
    }
    let answer = send(admin.addrs(), "POST", "/metrics", "host: localhost\r\ncontent-length: 0\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    let answer = send(admin.addrs(), "HEAD", "/live", "host: localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn web_pages_learn_nothing() {
    let admin = start(&AdminConfig::any_port(), &Telemetry::default(), &Readiness::default());
    for path in ["/metrics", "/live", "/ready", "/"] {
        for headers in ["host: evil.example\r\n", "host: localhost\r\norigin: http://evil.example\r\n", ""] {
            let answer = send(admin.addrs(), "GET", path, headers).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{path} {headers:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn on_all_addresses_probes_are_open_and_metrics_only_by_choice() {
    let foreign = "host: doppler-0.internal:14825\r\n";
    for open in [false, true] {
        let telemetry = Telemetry::default();
        let listen = "0.0.0.0:0".parse().unwrap();
        let config = AdminConfig { listen, insecure_metrics_for_any_host: open };
        let admin = start(&config, &telemetry, &Readiness::default());
        let addr = (std::net::Ipv4Addr::LOCALHOST, admin.addrs().port()).into();
        for probe in ["/live", "/ready"] {
            assert!(send(addr, "GET", probe, foreign).await.starts_with("HTTP/1.1 200"), "{probe}");
        }
        let answer = send(addr, "GET", "/metrics", foreign).await;
        assert!(answer.starts_with(if open { "HTTP/1.1 200" } else { "HTTP/1.1 403" }), "{answer}");
        let shown = telemetry.render().contains("hydrant_insecure_mode{choice=\"metrics_for_any_host\"} 1\n");
        assert_eq!(shown, open);
    }
}

#[tokio::test]
async fn a_busy_port_names_the_key() {
    let (telemetry, readiness) = (Telemetry::default(), Readiness::default());
    let first = AdminConfig::<0>::default().bind("agent.admin.listen", &telemetry, &readiness).unwrap();
    let second = AdminConfig::<0> { listen: first.addr(), ..AdminConfig::default() };
    let error = second.bind("doppler.admin.listen", &telemetry, &readiness).unwrap_err().to_string();
    assert!(error.starts_with(&format!("doppler.admin.listen: {} is already in use", first.addr())), "{error}");
}
