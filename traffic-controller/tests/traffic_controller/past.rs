//! `/apps/{guid}/recentlogs`, `/apps/{guid}/containermetrics`, `/set-cookie` and the access log (contract: traffic controller v1 §2.5, §4, §5).

use std::net::SocketAddr;

use prost::Message as _;
use proto::{events, v2};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use traffic_controller::Config;

use crate::cache::{Cache, nobody};
use crate::http::ask;

const GUID: &str = "b3015d69-09cd-476d-aace-ad2d824d5ab7";

/// The whole answer to a client that waits for it.
async fn answer(addr: SocketAddr, path: &str) -> Vec<u8> {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    answer
}

/// The head of an answer, and the envelopes of its multipart body.
async fn parts(addr: SocketAddr, path: &str) -> (String, Vec<events::Envelope>) {
    let answer = answer(addr, path).await;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = (String::from_utf8(answer[..end].to_vec()).unwrap(), &answer[end + 4..]);
    let boundary = head.split("multipart/x-protobuf; boundary=").nth(1).unwrap_or_else(|| panic!("{head}"));
    let boundary = format!("--{}", boundary.split("\r\n").next().unwrap());
    let (mut all, mut rest) = (Vec::new(), body);
    while let Some(at) = rest.windows(boundary.len()).position(|bytes| bytes == boundary.as_bytes()) {
        let part = &rest[..at];
        if let Some(part) = part.strip_prefix(b"\r\n\r\n") {
            all.push(events::Envelope::decode(part.strip_suffix(b"\r\n").unwrap()).unwrap());
        }
        rest = &rest[at + boundary.len()..];
    }
    assert_eq!(rest, b"--\r\n");
    (head, all)
}

#[tokio::test]
async fn section_5_recent_logs_are_the_newest_first() {
    let caches = [Cache::start(), Cache::start()];
    let controller = Config::for_test().dopplers(caches.iter().map(|cache| cache.addr));
    let controller = controller.bind(&Telemetry::default()).await.unwrap().spawn();
    for i in 0..10 {
        caches[i % 2].put([v2::Envelope::log(GUID, format!("{i}\r\n")).at(i as i64 - 3)]);
    }
    caches[0].put([v2::Envelope::counter(GUID, "c", 1), v2::Envelope::log("other", "x")]);
    let http = controller.addrs().http;
    let (head, all) = parts(http, &format!("/apps/{GUID}/recentlogs")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let lines: Vec<_> = all.into_iter().map(|one| one.log_message.unwrap().message).collect();
    assert_eq!(lines, (0..10).rev().map(|i| format!("{i}\r\n")).collect::<Vec<_>>());
    let (_, all) = parts(http, &format!("/apps/{GUID}/recentlogs?limit=3")).await;
    assert_eq!(all.len(), 3);
    let (_, all) = parts(http, "/apps/nobody/recentlogs").await;
    assert!(all.is_empty());
}

#[tokio::test]
async fn section_5_container_metrics_are_the_latest_of_each_instance() {
    let cache = Cache::start();
    let controller = Config::for_test().dopplers([cache.addr]).bind(&Telemetry::default()).await.unwrap().spawn();
    let gauge = |instance: &str, at: i64, cpu: f64| {
        let mut envelope = v2::Envelope::gauge(GUID, "cpu", cpu, "percentage").instance(instance).at(at);
        if let Some(v2::envelope::Message::Gauge(gauge)) = &mut envelope.message {
            for name in ["memory", "disk", "memory_quota", "disk_quota"] {
                gauge.metrics.insert(name.to_owned(), v2::GaugeValue { unit: "bytes".to_owned(), value: 7.0 });
            }
        }
        envelope
    };
    cache.put([gauge("0", 1, 1.0), gauge("1", 2, 2.0), gauge("0", 3, 3.0)]);
    let (_, all) = parts(controller.addrs().http, &format!("/apps/{GUID}/containermetrics")).await;
    let metrics: Vec<_> = all.into_iter().map(|one| one.container_metric.unwrap()).collect();
    let shown: Vec<_> = metrics.iter().map(|metric| (metric.instance_index, metric.cpu_percentage)).collect();
    assert_eq!(shown, [(0, 3.0), (1, 2.0)]);
    assert_eq!((metrics[0].application_id.as_str(), metrics[0].memory_bytes), (GUID, 7));
}

#[tokio::test]
async fn section_5_without_a_cache_the_answer_says_why() {
    let controller = Config::for_test().dopplers([nobody()]).bind(&Telemetry::default()).await.unwrap().spawn();
    let answer = answer(controller.addrs().http, &format!("/apps/{GUID}/recentlogs")).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.split("\r\n\r\n").nth(1).is_some_and(|body| body.len() > 5), "{answer}");
}

#[tokio::test]
async fn section_2_5_set_cookie_answers_forms_and_queries_and_nothing_larger() {
    let mut config = Config::for_test();
    config.http.cookie_domain = Some("doppler.example".to_owned());
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    let own = format!("http://{addr}");
    let answer = ask(addr, "PUT", "/set-cookie?CookieName=a&CookieValue=b", &[("Origin", &own)]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(head.contains("set-cookie: a=b; domain=doppler.example; httponly; secure; samesite=lax\r\n"), "{answer}");
    assert!(head.contains(&format!("access-control-allow-origin: {own}\r\n")), "{answer}");
    assert!(head.contains("access-control-allow-credentials: true\r\n"), "{answer}");
    assert!(head.contains("access-control-allow-headers: content-type\r\n"), "{answer}");
    let preflight = ask(addr, "OPTIONS", "/set-cookie", &[]).await;
    assert!(preflight.starts_with("HTTP/1.1 400 "), "{preflight}");
    assert!(preflight.to_ascii_lowercase().contains("access-control-allow-origin: \r\n"), "{preflight}");

    let post = async |size: usize| {
        let form = format!("CookieName=a&CookieValue={}", "x".repeat(size - 25));
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let head = format!(
            "POST /set-cookie HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {size}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(post(4096).await.starts_with("HTTP/1.1 200 "));
    assert!(post(4097).await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn section_4_every_request_is_a_line_of_the_access_log_before_it_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let config = Config { access_log: Some(path.clone()), ..Config::for_test() };
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let addrs = controller.addrs();
    ask(addrs.http, "GET", "/nothing?a='b'&c", &[("X-Forwarded-For", "10.0.0.9"), ("Authorization", "bearer s3cret")])
        .await;
    ask(addrs.rest, "POST", "/api/v1/info", &[]).await;
    ask(addrs.gateway, "GET", "/v2/read", &[]).await;
    controller.shutdown().await.unwrap();
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = log.lines().collect();
    let begins = |product: &str, name: &str| format!("CEF:0|cloud_foundry|{product}|1.0|{name}|{name}|0|rt=");
    assert!(
        lines[0].starts_with(&begins("loggregator_trafficcontroller", "GET /nothing?a=&#39;b&#39;&amp;c")),
        "{log}"
    );
    assert!(lines[0].contains(" src=10.0.0.9 spt=0 "), "{log}");
    assert!(lines[1].starts_with(&begins("log_cache", "POST /api/v1/info")), "{log}");
    assert!(lines[2].contains("GET /v2/read"), "{log}");
    assert!(!log.contains("s3cret") && lines.len() == 3, "{log}");
}
