//! Drains that are added, changed and taken away while others run, over the admin port as `hydrant drain` asks for it.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use proto::v2;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Rig, check_laws, frame, line, lines, number, receiver, send};

/// One request of HTTP/1.1, as any client sends it.
pub(crate) async fn ask(admin: SocketAddr, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let stream = TcpStream::connect(admin).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut request = Request::builder().method(method).uri(path).header("host", admin.to_string());
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    request = request.header("connection", "close");
    let body = body.map(Value::to_string).unwrap_or_default();
    let exchange = async {
        let response = sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    };
    let ((status, body), _closed) = tokio::join!(exchange, connection);
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn rig(dir: &Path) -> Rig {
    let (_, nobody) = receiver().await;
    let dir = dir.to_owned();
    Rig::start(nobody, "", |config| {
        config.drains[0].sources = vec!["other".to_owned()];
        config.state_dir = Some(dir);
    })
    .await
}

pub(crate) async fn until(admin: SocketAddr, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (_, drain) = ask(admin, Method::GET, &format!("/v1/drains/{name}"), None).await;
        if holds(&drain) {
            return drain;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_is_added_delivers_is_kept_for_the_next_start_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let (listener, addr) = receiver().await;
    let wanted = json!({ "url": format!("syslog://canary:canary@{addr}?drain-data=all"), "sources": ["app"] });
    let (status, added) = ask(admin, Method::PUT, "/v1/drains/logs", Some(&wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    assert_eq!(added["url"], format!("syslog://{addr}"), "no user name, password or option is shown");
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    assert_eq!((request.shard_id.as_str(), request.selectors.len()), ("hydrant-drain-logs", 5));

    send(&to_drain, &lines(0..3)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..3 {
        assert_eq!(line(&mut stream).await, Some(i));
    }
    let shown = until(admin, "logs", |drain| drain["delivered"] == 3).await;
    assert_eq!((&shown["state"], &shown["origin"], &shown["received"]), (&json!("ok"), &json!("api"), &json!(3)));
    assert_eq!(shown["backlog"], json!({ "envelopes": 0, "bytes": 0 }));
    let (_, all) = ask(admin, Method::GET, "/v1/drains", None).await;
    let names: Vec<_> = all["drains"].as_array().unwrap().iter().map(|drain| drain["name"].clone()).collect();
    assert_eq!(names, ["logs", "test"]);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);

    let mut rig = self::rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    assert_eq!(request.shard_id, "hydrant-drain-logs", "it is there again");
    send(&to_drain, &lines(3..5)).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(line(&mut stream).await, Some(3));
    let (status, _) = ask(admin, Method::DELETE, "/v1/drains/logs", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(line(&mut stream).await, Some(4), "what it had received is delivered");
    assert_eq!(line(&mut stream).await, None, "then it closes");
    to_drain.closed().await;
    assert_eq!(ask(admin, Method::GET, "/v1/drains/logs", None).await.0, StatusCode::NOT_FOUND);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
    let kept = std::fs::read_to_string(dir.path().join("drains.json")).unwrap();
    assert_eq!(kept, "{\"drains\":[]}");
}

#[tokio::test]
async fn what_waits_goes_where_the_new_form_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let (dead, addr) = receiver().await;
    drop(dead);
    let to = |addr: SocketAddr| json!({ "url": format!("syslog://{addr}"), "sources": ["app"] });
    assert_eq!(ask(admin, Method::PUT, "/v1/drains/logs", Some(&to(addr))).await.0, StatusCode::CREATED);
    let (_, to_drain) = rig.subscriptions.recv().await.unwrap();
    // More than a drain takes into its hands.
    for hundred in 0..20 {
        send(&to_drain, &lines(100 * hundred..100 * (hundred + 1))).await;
    }
    let shown = until(admin, "logs", |drain| drain["received"] == 2000 && drain["state"] == "degraded").await;
    assert!(shown["last_error"]["text"].as_str().unwrap().contains("refused"), "{shown}");

    let (listener, addr) = receiver().await;
    let (status, shown) = ask(admin, Method::PUT, "/v1/drains/logs", Some(&to(addr))).await;
    assert_eq!((status, &shown["url"]), (StatusCode::OK, &json!(format!("syslog://{addr}"))));
    let (mut stream, _) = listener.accept().await.unwrap();
    for i in 0..2000 {
        assert_eq!(line(&mut stream).await, Some(i), "in order, none lost and none twice");
    }
    send(&to_drain, &lines(2000..2001)).await;
    assert_eq!(line(&mut stream).await, Some(2000), "the subscription is the same");
    let shown = until(admin, "logs", |drain| drain["delivered"] == 2001).await;
    assert_eq!((&shown["state"], &shown["dropped"]), (&json!("ok"), &json!({})));
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test]
async fn another_source_needs_another_subscription_and_a_pattern_is_looked_at_here() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let (listener, addr) = receiver().await;
    let url = format!("syslog://{addr}");
    ask(admin, Method::PUT, "/v1/drains/logs", Some(&json!({ "url": url, "sources": ["app"] }))).await;
    let (_, to_drain) = rig.subscriptions.recv().await.unwrap();
    let body = json!({ "url": url, "source_patterns": ["web-*"], "tags": { "space": "prod" } });
    ask(admin, Method::PUT, "/v1/drains/logs", Some(&body)).await;
    to_drain.closed().await;
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    assert!(request.selectors.iter().all(|selector| selector.source_id.is_empty()), "{request:?}");
    let of = |source_id: &'static str, space: &'static str| v2::Envelope::log(source_id, source_id).tag("space", space);
    send(&to_drain, &[of("web-1", "prod"), of("db", "prod"), of("web-2", "test"), of("web-3", "prod")]).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    assert!(frame(&mut stream).await.unwrap().ends_with("web-1\n"));
    assert!(frame(&mut stream).await.unwrap().ends_with("web-3\n"));
    let shown = until(admin, "logs", |drain| drain["delivered"] == 2).await;
    assert_eq!(shown["filtered"], 2);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_words_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let put = async |body: Value| {
        let (status, answer) = ask(admin, Method::PUT, "/v1/drains/logs", Some(&body)).await;
        (status.as_u16(), answer["error"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
    };
    let refused = |(status, error): (u16, String), expected: u16, part: &str| {
        assert_eq!(status, expected, "{error}");
        assert!(error.contains(part) && !error.contains("canary"), "{error}");
    };
    refused(put(json!({ "url": "http://canary@h:1" })).await, 400, "write syslog://host:port");
    refused(
        put(json!({ "url": "syslog://h:1", "source": ["a"] })).await,
        400,
        "unknown field `source`, expected one of",
    );
    refused(put(json!({ "url": "syslog://h:1", "name": "x" })).await, 400, "another than that of the path");
    refused(put(json!({ "sources": [] })).await, 400, "missing field `url`");
    refused(put(json!([])).await, 400, "must be an object");
    refused(
        put(json!({ "url": "syslog-tls://h:1", "tls": { "ca": "/nowhere/ca.pem" } })).await,
        400,
        "/nowhere/ca.pem",
    );
    refused(put(json!({ "url": "syslog://h:1", "token": "canary" })).await, 400, "token");
    refused(put(json!({ "url": "syslog://h:1", "sources": ["x".repeat(70_000)] })).await, 413, "more than 65536 bytes");
    let own = json!({ "url": "syslog://h:1" });
    let (status, answer) = ask(admin, Method::PUT, "/v1/drains/test", Some(&own)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(ask(admin, Method::DELETE, "/v1/drains/test", None).await.0, StatusCode::CONFLICT);
    assert_eq!(ask(admin, Method::DELETE, "/v1/drains/none", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(admin, Method::GET, "/v1/drains", None).await.1["drains"].as_array().unwrap().len(), 1);
    rig.shutdown().await;
}

#[tokio::test]
async fn without_a_directory_none_can_be_added() {
    let (_listener, addr) = receiver().await;
    let rig = Rig::start(addr, "", |_| {}).await;
    let body = json!({ "url": "syslog://h:1" });
    let (status, answer) = ask(rig.adapters.addrs().admin, Method::PUT, "/v1/drains/logs", Some(&body)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["error"].as_str().unwrap().contains("set adapters.state_dir"), "{answer}");
    rig.shutdown().await;
}

#[tokio::test]
async fn a_test_sends_one_line_and_says_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(dir.path()).await;
    let admin = rig.adapters.addrs().admin;
    let (listener, addr) = receiver().await;
    let body = json!({ "url": format!("syslog://{addr}") });
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let line = frame(&mut stream).await.unwrap();
        assert_eq!(frame(&mut stream).await, None, "one line");
        line
    };
    let (line, (status, said)) = tokio::join!(heard, ask(admin, Method::POST, "/v1/test", Some(&body)));
    assert_eq!((status, &said["ok"]), (StatusCode::OK, &json!(true)), "{said}");
    assert!(line.contains(" hydrant [LGR/0] ") && line.contains("hydrant drain test"), "{line}");

    // The drain of the file has nobody to talk to.
    let (_, said) = ask(admin, Method::POST, "/v1/drains/test/test", None).await;
    assert_eq!((&said["ok"], &said["step"]), (&json!(false), &json!("connect")), "{said}");
    assert!(said["error"].as_str().unwrap().contains("refused"), "{said}");
    assert_eq!(number(&rig.telemetry, "hydrant_delivered_envelopes_total{stage=\"drain\"}"), 0, "it is no envelope");
    rig.shutdown().await;
}
