//! A web page of another origin cannot read anything: the requests that a browser makes for one are refused on every HTTP port.

use std::net::SocketAddr;

use crate::harness::{Answer, get, pipeline, request};

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

async fn as_page(addr: SocketAddr, path: &str, host: &str, origin: Option<&str>, upgrade: bool) -> Answer {
    let mut headers = vec![("Host", host), ("User-Agent", "Mozilla/5.0"), ("Accept", "*/*")];
    headers.extend(origin.map(|origin| ("Origin", origin)));
    if upgrade {
        headers.extend(UPGRADE);
    }
    request(addr, "GET", path, &headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_nothing() {
    let up = pipeline("").await;
    let (http, rest) = (up.traffic_controller().http, up.traffic_controller().rest);
    let admins = [up.agent().admin, up.doppler().admin, up.traffic_controller().admin, up.adapters().admin]
        .map(|addr| (addr, "/metrics"));
    let plain = [(http, "/"), (rest, "/api/v1/meta"), (rest, "/api/v1/read/app"), (rest, "/api/v1/info")];
    for (addr, path) in plain.into_iter().chain(admins) {
        assert_eq!(get(addr, path).await.status, 200, "{addr}{path}: local clients are served");
        let own = addr.to_string();
        let localhost = format!("localhost:{}", addr.port());
        let rebound = format!("attacker.example:{}", addr.port());
        for (host, origin) in [
            // fetch() from another page, from a sandboxed frame, from another port of this machine.
            (own.as_str(), Some("https://attacker.example")),
            (own.as_str(), Some("null")),
            (localhost.as_str(), Some("http://localhost:1")),
            // A name of the attacker's that now resolves to loopback.
            (rebound.as_str(), None),
            (rebound.as_str(), Some("http://attacker.example")),
        ] {
            let answer = as_page(addr, path, host, origin, false).await;
            assert_eq!(answer.status, 403, "{addr}{path} Host {host} Origin {origin:?}: {}", answer.head);
            assert!(!answer.head.to_ascii_lowercase().contains("access-control-allow"), "{}", answer.head);
        }
    }
    for path in ["/firehose/page", "/apps/5b7d1c9e-4c1f-4b0c-9a51-5e3f6c0f7a11/stream"] {
        let own = http.to_string();
        let answer = as_page(http, path, &own, Some("https://attacker.example"), true).await;
        assert_eq!(answer.status, 403, "{}", answer.head);
        let answer = as_page(http, path, "attacker.example", None, true).await;
        assert_eq!(answer.status, 403, "{}", answer.head);
    }
    up.shutdown().await.unwrap();
}
