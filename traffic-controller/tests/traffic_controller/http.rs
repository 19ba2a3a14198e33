//! The HTTP port beside the WebSockets: the page, other paths, and who is kept out.

use std::net::SocketAddr;

use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::StatusCode;
use traffic_controller::{Config, RoleInfo};

use crate::firehose::open;

/// Sends a request with a `Host` of its own unless `headers` have one, and returns the whole answer.
pub(crate) async fn ask(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("Host: {addr}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
        request += "Connection: close\r\n";
    }
    request += "Content-Length: 0\r\n\r\n";
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_page_shows_the_roles_and_may_do_little() {
    let server = Config::for_test().bind(&Telemetry::default()).await.unwrap();
    let controller = server.with_roles(vec![RoleInfo::new("doppler", "routes <things>", &"127.0.0.1:8082")]).spawn();
    let answer = ask(controller.addrs().http, "GET", "/", &[]).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'"),
        "{head}"
    );
    assert!(!head.contains("unsafe") && head.contains("cache-control: no-store"), "{head}");
    assert!(!head.contains("access-control-"), "{head}");
    assert!(body.contains("routes &lt;things&gt;") && body.contains("127.0.0.1:8082"), "{body}");
    assert!(body.contains("hydrant tail my-app"), "{body}");
}

#[tokio::test]
async fn files_of_the_page_are_sent_once() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    for (name, content_type) in
        [("main.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")]
    {
        let path = format!("/assets/{name}");
        let answer = ask(addr, "GET", &path, &[]).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(content_type), "{answer}");
        assert!(answer.contains("cache-control: no-cache") && answer.contains("nosniff"), "{answer}");
        let tag = answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let again = ask(addr, "GET", &path, &[("If-None-Match", tag)]).await;
        assert!(again.starts_with("HTTP/1.1 304 ") && again.ends_with("\r\n\r\n"), "{again}");
    }
    for path in ["/assets/index.html", "/assets/", "/assets/../Cargo.toml", "/assets/%2e%2e%2fCargo.toml"] {
        assert!(ask(addr, "GET", path, &[]).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
}

#[tokio::test]
async fn by_itself_the_page_shows_the_ports_of_the_role() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addrs = controller.addrs();
    let page = ask(addrs.http, "GET", "/", &[]).await;
    for addr in [addrs.http, addrs.grpc, addrs.rest, addrs.admin] {
        assert!(page.contains(&addr.to_string()), "{addr} in {page}");
    }
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    for path in [
        "/firehose/",
        "/firehose",
        "/firehose/a/b",
        "/apps//stream",
        "/apps//recentlogs",
        "/apps/a/b/stream",
        "/nothing",
    ] {
        let answer = ask(addr, "GET", path, &[]).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(answer.ends_with("\r\n\r\n404 page not found\n"), "{path}: {answer}");
    }
}

/// What a browser sends for `fetch()` from a page of another origin.
const FETCH: [(&str, &str); 4] = [
    ("Origin", "https://evil.example"),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Dest", "empty"),
];

#[tokio::test]
async fn a_web_page_of_another_origin_is_refused() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addrs = controller.addrs();
    for (addr, path) in [(addrs.http, "/"), (addrs.http, "/firehose/x"), (addrs.rest, "/api/v1/info")] {
        let answer = ask(addr, "GET", path, &FETCH).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("access-control-"), "{path}: {answer}");
    }
    // What it sends for `new WebSocket()`: no Sec-Fetch headers, but always an Origin.
    for origin in ["https://evil.example", "http://127.0.0.1:1", "null", "http://localhost.evil.example"] {
        let refused = open(addrs.http, "/firehose/x", &[("origin", origin)]).await.unwrap_err();
        assert_eq!(refused, StatusCode::FORBIDDEN, "{origin}");
    }
}

#[tokio::test]
async fn a_name_that_is_made_to_point_here_is_refused() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addrs = controller.addrs();
    for addr in [addrs.http, addrs.rest] {
        let host = format!("evil.example:{}", addr.port());
        let answer = ask(addr, "GET", "/", &[("Host", &host)]).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        let refused = open(addr, "/firehose/x", &[("host", &host)]).await.unwrap_err();
        assert_eq!(refused, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn the_page_itself_and_clients_without_an_origin_are_let_in() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    let own = format!("http://{addr}");
    assert!(open(addr, "/firehose/x", &[("origin", &own)]).await.is_ok());
    assert!(open(addr, "/firehose/x", &[]).await.is_ok());
    let localhost = format!("localhost:{}", addr.port());
    assert!(ask(addr, "GET", "/", &[("Host", &localhost)]).await.starts_with("HTTP/1.1 200 "));
}
