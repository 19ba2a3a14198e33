//! The binding cache between a fake Cloud Controller and those who ask: from a binding to the line at its receiver.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use http::Method;
use hydrant_adapters::{BindingCacheConfig, BindingsConfig, Config, Handle, ServiceTls};
use parking_lot::Mutex;
use serde_json::{Value, json};
use telemetry::Telemetry;
use tokio_util::sync::DropGuard;
use transport::{Security, TestCerts};

use crate::bindings::{often, serve, subscribed};
use crate::drains::ask;
use crate::support::{Rig, frame, number, receiver, send};

/// A Cloud Controller that knows these rows, one to a page, or answers with something else.
struct CloudController {
    addr: SocketAddr,
    known: Arc<Mutex<Known>>,
    _server: DropGuard,
}

#[derive(Default)]
struct Known {
    rows: Vec<Value>,
    /// In place of the answer.
    instead: Option<(StatusCode, String)>,
}

#[derive(serde::Deserialize)]
struct Asked {
    batch_size: usize,
    next_id: usize,
}

impl CloudController {
    fn start() -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let answer = async |State(known): State<Arc<Mutex<Known>>>, Query(asked): Query<Asked>| {
            let known = known.lock();
            assert_eq!(asked.batch_size, 1000);
            if let Some(instead) = &known.instead {
                return instead.clone();
            }
            let page = known.rows.get(asked.next_id..asked.next_id + 1).unwrap_or_default();
            let next = Some(asked.next_id + 1).filter(|next| *next < known.rows.len());
            (StatusCode::OK, json!({ "results": page, "next_id": next }).to_string())
        };
        let router = Router::new().route("/internal/v5/syslog_drain_urls", get(answer)).with_state(Arc::clone(&known));
        let (addr, server) = serve(router, Security::Plain);
        Self { addr, known, _server: server }
    }

    fn know(&self, rows: Vec<Value>) {
        let mut known = self.known.lock();
        (known.rows, known.instead) = (rows, None);
    }

    fn cache(&self) -> BindingCacheConfig {
        let mut cache = BindingCacheConfig::new(format!("http://{}", self.addr).parse().unwrap());
        cache.listen.set_port(0);
        cache.insecure_plaintext = true;
        cache.poll_interval = Duration::from_millis(10);
        cache.addresses.allow = vec!["127.0.0.1".parse().unwrap()];
        cache
    }
}

fn row(url: &str, credential: &Value, app: &str) -> Value {
    let mut credential = credential.clone();
    credential["apps"] = json!([{ "hostname": format!("org.space.{app}"), "app_id": app }]);
    json!({ "url": url, "credentials": [credential] })
}

/// Adapters that are nothing but a cache.
async fn cache(config: BindingCacheConfig) -> (Handle, SocketAddr, Telemetry) {
    let telemetry = Telemetry::default();
    let config = Config { binding_cache: Some(config), ..Config::for_test() };
    let handle = config.bind(&telemetry).await.unwrap().spawn();
    let addr = handle.addrs().binding_cache.unwrap();
    (handle, addr, telemetry)
}

/// Waits for an answer that is as it should be.
async fn until(addr: SocketAddr, path: &str, holds: impl Fn(StatusCode, &Value) -> bool) -> Value {
    loop {
        let (status, body) = ask(addr, Method::GET, path, None).await;
        if holds(status, &body) {
            return body;
        }
        tokio::task::yield_now().await;
    }
}

async fn polled(telemetry: &Telemetry, outcome: &str, by: u64) {
    let series = format!("hydrant_binding_cache_polls_total{{outcome=\"{outcome}\"}}");
    let before = number(telemetry, &series);
    while number(telemetry, &series) < before + by {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_line_arrives_from_binding_to_unbinding_over_mutual_tls() {
    let certs = TestCerts::new();
    let controller = CloudController::start();
    let (listener, addr) = receiver().await;
    controller.know(vec![
        row("http://h:1", &json!({}), "a-0"),
        row(&format!("syslog://{addr}?drain-data=all"), &json!({ "cert": "" }), "a-1"),
    ]);
    let served =
        BindingCacheConfig { tls: Some(certs.files("binding-cache")), insecure_plaintext: false, ..controller.cache() };
    let (_cache, at, _) = cache(served).await;
    let files = certs.files("adapters");
    let tls = ServiceTls {
        ca: Some(files.ca),
        cert: Some(files.cert),
        key: Some(files.key),
        server_name: Some("binding-cache".to_owned()),
    };
    let (_, nobody) = receiver().await;
    let mut rig = Rig::start(nobody, "", |config| {
        often(config, &format!("https://{at}"));
        let bindings: &mut BindingsConfig = config.bindings.as_mut().unwrap();
        bindings.tls = Some(tls);
    })
    .await;
    let (_, sources, to_drain) = subscribed(&mut rig).await;
    assert!(sources.iter().all(|source| source == "a-1"), "{sources:?}");
    send(&to_drain, &[proto::v2::Envelope::log("a-1", "one")]).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let line = frame(&mut stream).await.unwrap();
    assert_eq!(line, "<14>1 1970-01-01T00:00:00+00:00 org.space.a-1 a-1 [] - - one\n");

    controller.known.lock().instead = Some((StatusCode::BAD_GATEWAY, String::new()));
    send(&to_drain, &[proto::v2::Envelope::log("a-1", "two")]).await;
    assert!(frame(&mut stream).await.unwrap().ends_with("two\n"));
    controller.know(Vec::new());
    assert_eq!(frame(&mut stream).await, None);
    to_drain.closed().await;
}

#[tokio::test]
async fn what_was_read_last_is_served_and_nothing_before() {
    let controller = CloudController::start();
    controller.known.lock().instead = Some((StatusCode::INTERNAL_SERVER_ERROR, String::new()));
    let (_cache, at, telemetry) = cache(controller.cache()).await;
    polled(&telemetry, "failed", 2).await;
    assert_eq!(ask(at, Method::GET, "/v2/bindings", None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(at, Method::GET, "/v2/aggregate", None).await, (StatusCode::OK, Value::Null));

    controller.know(Vec::new());
    let none = until(at, "/v2/bindings", |status, _| status == StatusCode::OK).await;
    assert_eq!(none, json!([]));
    let credential = json!({ "cert": "", "key": "", "ca": "" });
    controller.know((0..3).map(|i| row(&format!("syslog://10.0.0.{i}:1"), &credential, "a")).collect());
    let all = until(at, "/v2/bindings", |_, body| body.as_array().unwrap().len() == 3).await;
    assert_eq!(all[2], row("syslog://10.0.0.2:1", &credential, "a"));
    for nonsense in [
        "<html>".to_owned(),
        // Pages without end.
        json!({ "results": [], "next_id": 1 }).to_string(),
        json!({ "results": [], "next_id": -1 }).to_string(),
    ] {
        controller.known.lock().instead = Some((StatusCode::OK, nonsense));
        polled(&telemetry, "failed", 2).await;
        assert_eq!(ask(at, Method::GET, "/v2/bindings", None).await.1, all);
    }
    assert_eq!(number(&telemetry, "hydrant_binding_cache_drains"), 3);
}

#[tokio::test]
async fn what_cannot_be_a_drain_is_not_served() {
    let controller = CloudController::start();
    let none = json!({ "cert": "", "key": "", "ca": "" });
    let good = row("syslog://127.0.0.1:514", &none, "a");
    let mut half = good.clone();
    half["credentials"].as_array_mut().unwrap().push(json!({ "cert": "x", "key": "y", "apps": [] }));
    controller.know(vec![
        json!({ "url": "syslog://h:1", "credentials": null }),
        row("no URL", &none, "a"),
        row("http://h:1", &none, "a"),
        row("syslog://:514", &none, "a"),
        row("syslog://does-not.resolve.invalid:514", &none, "a"),
        row("syslog://127.0.0.2:514", &none, "a"),
        row("syslog://[::ffff:169.254.169.254]:514", &none, "a"),
        row("syslog-tls://10.0.0.1:514", &json!({ "ca": "x" }), "a"),
        half,
    ]);
    let (_cache, at, telemetry) = cache(controller.cache()).await;
    let served = until(at, "/v2/bindings", |status, _| status == StatusCode::OK).await;
    assert_eq!(served, json!([good]), "without the credential that cannot be used");
    for (reason, count) in [
        ("no_credentials", 1),
        ("url", 1),
        ("scheme", 1),
        ("host", 1),
        ("unresolved", 1),
        ("denied", 2),
        ("credential", 1),
        ("authority", 1),
    ] {
        let series = format!("hydrant_binding_cache_invalid_drains{{reason=\"{reason}\"}}");
        assert_eq!(number(&telemetry, &series), count, "{reason}");
    }
}

#[tokio::test]
async fn keys_of_tenants_do_not_go_out_in_plain_text() {
    let controller = CloudController::start();
    let refused = async |config: BindingCacheConfig| {
        let config = Config { binding_cache: Some(config), ..Config::for_test() };
        config.bind(&Telemetry::default()).await.unwrap_err().to_string()
    };
    let mut open = controller.cache();
    open.insecure_plaintext = false;
    assert!(refused(open.clone()).await.contains("set tls, or insecure_plaintext with a loopback address"));
    open.insecure_plaintext = true;
    open.listen = "0.0.0.0:0".parse().unwrap();
    assert!(refused(open.clone()).await.contains("set tls"));
    open.listen = "127.0.0.1:0".parse().unwrap();
    open.aggregate_drains_file = Some("/nowhere/aggregate.yml".into());
    assert!(refused(open).await.starts_with("adapters.binding_cache.aggregate_drains_file: /nowhere/aggregate.yml: "));
}
