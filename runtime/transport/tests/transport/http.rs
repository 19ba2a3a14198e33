//! The HTTP server: limits, upgrades, stopping, and the rule for local ports on the wire.

use axum::Router;
use axum::routing::get;
use hydrant_transport::{ChannelOptions, LocalOnly, Security, TestCerts, connect};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::support::{ask, http_server, listener, patiently, raw, until};

const CLOSE: &str = "host: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn requests_know_their_connection() {
    let (server, stats) = http_server(listener(), Security::Plain, Router::new());
    let answer = raw(server.addrs(), &format!("GET /peer HTTP/1.1\r\n{CLOSE}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("tls=false cert=false from=127.0.0.1"), "{answer}");
    until(|| stats.open() == 0).await;
}

#[tokio::test]
async fn https_speaks_http_2_where_agreed_and_asks_for_no_certificate() {
    let certs = TestCerts::new();
    let listener = listener();
    let router = Router::new().route("/x", axum::routing::post(|| async { "h2" }));
    let (server, _stats) = http_server(listener, Security::Https(certs.server_identity("gateway")), router);
    let options = ChannelOptions::tls(certs.identity("anyone"), "gateway");
    let channel = connect(&server.addrs().into(), &options).await.unwrap();
    assert_eq!(ask(&channel, "/x").await.unwrap(), "200 h2");
    drop(channel);
    patiently(server.shutdown()).await.unwrap();
}

/// The clock is paused: the head's deadline is the only timer, so the idle runtime jumps to it.
#[tokio::test(start_paused = true)]
async fn a_request_head_has_five_seconds() {
    let (server, stats) = http_server(listener(), Security::Plain, Router::new());
    let begun = tokio::time::Instant::now();
    let mut slow = TcpStream::connect(server.addrs()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 5);
    until(|| stats.open() == 0).await;
}

#[tokio::test]
async fn bad_requests_end_their_own_connection_only() {
    let (server, _stats) = http_server(listener(), Security::Plain, Router::new());
    let answer = raw(server.addrs(), "\x16\x03\x01 not http\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = "x".repeat(40 * 1024);
    let mut client = TcpStream::connect(server.addrs()).await.unwrap();
    // The server stops reading early: the write or the read may meet its reset.
    let _ = client.write_all(format!("GET / HTTP/1.1\r\nlong: {long}\r\n{CLOSE}").as_bytes()).await;
    let mut start = [0; 12];
    if patiently(client.read_exact(&mut start)).await.is_ok() {
        assert_eq!(&start, b"HTTP/1.1 431");
    }
    let token = "t".repeat(16 * 1024);
    let answer = raw(server.addrs(), &format!("GET /peer HTTP/1.1\r\nauthorization: {token}\r\n{CLOSE}")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "a 16 KiB token fits: {answer}");
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_connection_and_is_counted() {
    async fn broken() -> &'static str {
        panic!("a handler that breaks")
    }
    let (server, stats) = http_server(listener(), Security::Plain, Router::new().route("/broken", get(broken)));
    assert_eq!(raw(server.addrs(), &format!("GET /broken HTTP/1.1\r\n{CLOSE}")).await, "");
    until(|| stats.panicked() == 1 && stats.open() == 0).await;
    assert!(raw(server.addrs(), &format!("GET /peer HTTP/1.1\r\n{CLOSE}")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_upgraded_connection_belongs_to_its_handler() {
    let upgrade = async |mut request: axum::extract::Request| {
        let taken = hyper::upgrade::on(&mut request);
        TASKS.spawn(async move {
            let mut socket = TokioIo::new(taken.await.unwrap());
            let byte = socket.read_u8().await.unwrap();
            socket.write_u8(byte + 1).await.unwrap();
        });
        http::Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "plus-one")
            .body(axum::body::Body::empty())
            .unwrap()
    };
    static TASKS: std::sync::LazyLock<tokio_util::task::TaskTracker> =
        std::sync::LazyLock::new(tokio_util::task::TaskTracker::new);
    let (server, stats) = http_server(listener(), Security::Plain, Router::new().route("/up", get(upgrade)));
    let mut client = TcpStream::connect(server.addrs()).await.unwrap();
    let request = "GET /up HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: plus-one\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(patiently(client.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    assert_eq!(stats.open(), 1, "it keeps its place in the budget");
    patiently(server.shutdown()).await.unwrap();
    client.write_u8(41).await.unwrap();
    assert_eq!(patiently(client.read_u8()).await.unwrap(), 42, "a stop leaves it to its handler");
    until(|| stats.open() == 0).await;
}

#[tokio::test]
async fn a_stop_finishes_the_request_in_hand_and_closes_idle_connections() {
    let (arrived, has_arrived) = oneshot::channel();
    let (go, may_go) = oneshot::channel::<()>();
    let once = std::sync::Mutex::new(Some((arrived, may_go)));
    let slow = async move || {
        let (arrived, may_go) = once.lock().unwrap().take().unwrap();
        arrived.send(()).unwrap();
        may_go.await.unwrap();
        "finished"
    };
    let slow = std::sync::Arc::new(slow);
    let router = Router::new().route("/slow", get(move || async move { slow().await }));
    let (server, _stats) = http_server(listener(), Security::Plain, router);
    let addr = server.addrs();
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET /peer HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(patiently(idle.read_u8()).await.unwrap(), b'H');

    let (answer, ()) = tokio::join!(raw(addr, "GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n"), async {
        has_arrived.await.unwrap();
        server.stop();
        let mut rest = Vec::new();
        patiently(idle.read_to_end(&mut rest)).await.unwrap();
        go.send(()).unwrap();
    });
    assert!(answer.ends_with("finished"), "{answer}");
    patiently(server.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_local_port_answers_only_local_names_and_pages() {
    let listener = listener();
    let port = listener.addr().port();
    let rule = LocalOnly::on(listener.addr());
    let router = rule.protect(Router::new().route("/firehose", get(|| async { "secret" })));
    let (server, _stats) = http_server(listener, Security::Plain, router);
    let get = async |headers: &str| {
        raw(server.addrs(), &format!("GET /firehose HTTP/1.1\r\n{headers}connection: close\r\n\r\n")).await
    };
    let own = get(&format!("host: localhost:{port}\r\norigin: http://localhost:{port}\r\n")).await;
    assert!(own.starts_with("HTTP/1.1 200") && own.ends_with("secret"), "{own}");
    assert!(!own.to_ascii_lowercase().contains("access-control"), "{own}");
    for foreign in [
        format!("host: localhost:{port}\r\norigin: http://evil.example\r\n"),
        format!("host: evil.example:{port}\r\n"),
        String::new(),
    ] {
        let answer = get(&foreign).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{foreign}: {answer}");
        assert!(!answer.contains("secret") && !answer.contains("evil"), "{answer}");
        assert_eq!(answer.split("\r\n\r\n").nth(1).unwrap().lines().count(), 1, "one line says why");
    }
    let answer = raw(server.addrs(), "GET /nowhere HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "paths that do not exist are guarded too: {answer}");
}
