//! Drains that apps' owners bind: read from a cache, kept while it is away, gone when they are unbound, and each with its own trust.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use http::Method;
use hydrant_adapters::{BindingsConfig, Config, ServiceTls};
use parking_lot::Mutex;
use proto::raw::Outgoing;
use proto::v2;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use transport::{Security, TestCerts, bind, serve_http};

use crate::drains::ask;
use crate::support::{Rig, check_laws, frame, number, receiver, send};

/// A binding cache that says what it is told to.
pub(crate) struct Cache {
    pub(crate) addr: SocketAddr,
    said: Arc<Mutex<Said>>,
    _server: DropGuard,
}

struct Said {
    status: StatusCode,
    bindings: String,
    aggregate: String,
}

impl Cache {
    pub(crate) fn start(security: Security) -> Self {
        let said = Said { status: StatusCode::OK, bindings: "[]".to_owned(), aggregate: "null".to_owned() };
        let said = Arc::new(Mutex::new(said));
        let answer = |of: fn(&Said) -> String| {
            get(move |State(said): State<Arc<Mutex<Said>>>| async move {
                let said = said.lock();
                (said.status, of(&said))
            })
        };
        let router = Router::new()
            .route("/v2/bindings", answer(|said| said.bindings.clone()))
            .route("/v2/aggregate", answer(|said| said.aggregate.clone()))
            .with_state(Arc::clone(&said));
        let (addr, server) = serve(router, security);
        Self { addr, said, _server: server }
    }

    /// Each row is a URL, a credential, and the app's id.
    fn say(&self, bindings: &[(&str, &Value, &str)]) {
        let rows = bindings.iter().map(|(url, credential, app)| {
            let mut credential = (*credential).clone();
            credential["apps"] = json!([{ "hostname": format!("org.space.{app}"), "app_id": app }]);
            json!({ "url": url, "credentials": [credential] })
        });
        self.said.lock().bindings = Value::Array(rows.collect()).to_string();
    }
}

pub(crate) fn serve(router: Router, security: Security) -> (SocketAddr, DropGuard) {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let listener = bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.addr();
    let incoming = listener.incoming(security, &tracker, stop.clone());
    let (connections, until) = (tracker.clone(), stop.clone());
    tracker.spawn(async move { serve_http(incoming, router, &connections, &until).await });
    (addr, stop.drop_guard())
}

/// Adapters that read bindings often, and let drains of apps go to 127.0.0.1.
pub(crate) fn often(config: &mut Config, url: &str) {
    config.drains[0].sources = vec!["other".to_owned()];
    let mut bindings = BindingsConfig::new(url.parse().unwrap());
    bindings.interval = Duration::from_millis(10);
    bindings.addresses.allow = vec!["127.0.0.1".parse().unwrap()];
    config.bindings = Some(bindings);
}

async fn rig(cache: &Cache) -> Rig {
    rig_with(cache, |_| {}).await
}

async fn rig_with(cache: &Cache, adjust: impl FnOnce(&mut BindingsConfig)) -> Rig {
    let (_, nobody) = receiver().await;
    Rig::start(nobody, "", |config| {
        often(config, &format!("http://{}", cache.addr));
        adjust(config.bindings.as_mut().unwrap());
    })
    .await
}

/// The next subscription of a binding: the drain's name, the sources it asks for, and where to send.
pub(crate) async fn subscribed(rig: &mut Rig) -> (String, Vec<String>, mpsc::Sender<Outgoing>) {
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    let name = request.shard_id.strip_prefix("hydrant-drain-").unwrap().to_owned();
    assert!(name.starts_with("binding-"), "{name}");
    (name, request.selectors.into_iter().map(|selector| selector.source_id).collect(), to_drain)
}

/// Waits until the drain of a binding, of whatever name, is as it should be.
async fn until(rig: &Rig, holds: impl Fn(&Value) -> bool) -> Value {
    let admin = rig.adapters.addrs().admin;
    loop {
        let (_, all) = ask(admin, Method::GET, "/v1/drains", None).await;
        let found = all["drains"].as_array().unwrap().iter().find(|drain| drain["origin"] == "binding" && holds(drain));
        if let Some(found) = found {
            return found.clone();
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until a counter is past what it is now.
async fn counted(rig: &Rig, series: &str, by: u64) {
    let before = rig.number(series);
    while rig.number(series) < before + by {
        tokio::task::yield_now().await;
    }
}

fn log(app: &str, text: &str) -> [v2::Envelope; 1] {
    [v2::Envelope::log(app, text.to_owned())]
}

const ANSWERED: &str = "hydrant_bindings_refreshes_total{outcome=\"ok\"}";
const FAILED: &str = "hydrant_bindings_refreshes_total{outcome=\"failed\"}";

fn none() -> Value {
    json!({ "cert": "", "key": "", "ca": "" })
}

/// A receiver over TLS, and a credential that trusts it.
async fn tls_receiver(certs: &TestCerts) -> (TcpListener, SocketAddr, TlsAcceptor, Value) {
    let (listener, addr) = receiver().await;
    let ca = std::fs::read_to_string(certs.files("receiver").ca).unwrap();
    let acceptor = certs.identity("receiver").https_config().into();
    (listener, addr, acceptor, json!({ "cert": "", "key": "", "ca": ca }))
}

#[tokio::test]
async fn a_binding_is_a_drain_until_it_is_unbound() {
    let cache = Cache::start(Security::Plain);
    let (listener, addr) = receiver().await;
    let url = format!("syslog://canary:canary@{addr}?token=canary");
    cache.say(&[(&url, &none(), "a-1")]);
    let mut rig = rig(&cache).await;
    let admin = rig.adapters.addrs().admin;
    let (name, sources, to_drain) = subscribed(&mut rig).await;
    assert!(!sources.is_empty() && sources.iter().all(|source| source == "a-1"), "{sources:?}");
    send(&to_drain, &log("a-1", "one")).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    let line = frame(&mut stream).await.unwrap();
    assert_eq!(line, "<14>1 1970-01-01T00:00:00+00:00 org.space.a-1 a-1 [] - - one\n");

    let shown = until(&rig, |drain| drain["delivered"] == 1).await;
    assert_eq!((&shown["name"], &shown["url"]), (&json!(name), &json!(format!("syslog://{addr}"))));
    for (method, body) in [(Method::DELETE, None), (Method::PUT, Some(json!({ "url": "syslog://h:1" })))] {
        let (status, error) = ask(admin, method, &format!("/v1/drains/{name}"), body.as_ref()).await;
        assert_eq!(status, StatusCode::CONFLICT, "{error}");
    }
    assert_eq!(rig.number("hydrant_bindings"), 1);

    // With lines that wait: they are delivered.
    send(&to_drain, &log("a-1", "two")).await;
    cache.say(&[]);
    assert!(frame(&mut stream).await.unwrap().ends_with("two\n"));
    assert_eq!(frame(&mut stream).await, None, "then it closes");
    to_drain.closed().await;
    counted(&rig, ANSWERED, 1).await;
    assert_eq!(rig.number("hydrant_bindings"), 0);
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test]
async fn while_the_cache_is_away_or_makes_no_sense_all_stays_as_it_is() {
    let cache = Cache::start(Security::Plain);
    let ((listener, addr), (everything, other)) = (receiver().await, receiver().await);
    cache.say(&[(&format!("syslog://{addr}"), &none(), "a-1")]);
    let credential = json!({ "cert": "", "key": "", "ca": "", "apps": null });
    let aggregate = json!([{ "url": "" }, { "url": format!("syslog://{other}"), "credentials": [credential] }]);
    cache.said.lock().aggregate = aggregate.to_string();
    let mut rig = rig_with(&cache, |bindings| bindings.addresses.deny_private = true).await;
    let (one, two) = (subscribed(&mut rig).await, subscribed(&mut rig).await);
    let (app, all) = if one.1[0] == "a-1" { (one, two) } else { (two, one) };
    assert!(all.1.iter().all(String::is_empty), "everything: {:?}", all.1);

    cache.said.lock().status = StatusCode::INTERNAL_SERVER_ERROR;
    counted(&rig, FAILED, 3).await;
    {
        let mut said = cache.said.lock();
        (said.status, said.bindings, said.aggregate) = (StatusCode::OK, "<html>".to_owned(), "[1]".to_owned());
    }
    counted(&rig, FAILED, 3).await;
    send(&app.2, &log("a-1", "of the app")).await;
    assert!(frame(&mut listener.accept().await.unwrap().0).await.unwrap().ends_with("of the app\n"));
    send(&all.2, &log("a-2", "of another")).await;
    let line = frame(&mut everything.accept().await.unwrap().0).await.unwrap();
    assert_eq!(
        line, "<14>1 1970-01-01T00:00:00+00:00 - a-2 [] - - of another\n",
        "an aggregate drain has no host name"
    );

    // One endpoint alone answers: its drains follow it, the others stay.
    cache.said.lock().aggregate = "null".to_owned();
    all.2.closed().await;
    send(&app.2, &log("a-1", "still there")).await;
    until(&rig, |drain| drain["delivered"] == 2).await;
    drop(cache);
    counted(&rig, FAILED, 3).await;
    assert_eq!(rig.number("hydrant_bindings"), 1);
}

#[tokio::test]
async fn no_binding_trusts_what_only_another_one_carries() {
    let (ours, theirs) = (TestCerts::new(), TestCerts::new());
    let cache = Cache::start(Security::Plain);
    let (listener, addr, acceptor, right) = tls_receiver(&ours).await;
    let (.., wrong) = tls_receiver(&theirs).await;
    let url = format!("syslog-tls://{addr}");
    cache.say(&[(&url, &right, "a-1")]);
    let mut rig = rig(&cache).await;
    let (_, _, to_drain) = subscribed(&mut rig).await;
    send(&to_drain, &log("a-1", "one")).await;
    let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
    assert!(frame(&mut stream).await.unwrap().contains(" org.space.a-1 "));

    // The authority of the first is in use in this process, and the second does not trust it.
    cache.say(&[(&url, &right, "a-1"), (&url, &wrong, "a-2")]);
    let (name, _, to_other) = subscribed(&mut rig).await;
    send(&to_other, &log("a-2", "two")).await;
    let (socket, _) = listener.accept().await.unwrap();
    assert!(acceptor.accept(socket).await.is_err());
    let shown = until(&rig, |drain| drain["name"] == name && drain["state"] != "ok").await;
    let error = shown["last_error"]["text"].as_str().unwrap();
    assert!(error.contains("of no authority in the ca of the binding"), "{error}");

    // With another credential it is another drain, that does.
    cache.say(&[(&url, &right, "a-1"), (&url, &right, "a-2")]);
    let (new_name, _, to_other) = subscribed(&mut rig).await;
    assert_ne!(name, new_name);
    send(&to_other, &log("a-2", "three")).await;
    let mut arrived = String::new();
    while !arrived.ends_with("three\n") {
        // The old one tries a few times more to deliver what it has.
        if let Ok(mut stream) = acceptor.accept(listener.accept().await.unwrap().0).await {
            arrived = frame(&mut stream).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_drain_of_an_app_does_not_go_where_it_may_not() {
    let cache = Cache::start(Security::Plain);
    let (listener, addr) = receiver().await;
    cache.say(&[(&format!("syslog://localhost:{}", addr.port()), &none(), "a-1")]);
    let mut rig = rig_with(&cache, |bindings| bindings.addresses.allow.clear()).await;
    let (name, _, to_drain) = subscribed(&mut rig).await;
    send(&to_drain, &log("a-1", "one")).await;
    let shown = until(&rig, |drain| drain["state"] == "broken").await;
    let error = shown["last_error"]["text"].as_str().unwrap();
    assert!(error.contains("is not allowed for drains of apps: it is a loopback address"), "{error}");
    assert!(error.contains("adapters.bindings.addresses.allow"), "{error}");
    // Neither does a test of it.
    let admin = rig.adapters.addrs().admin;
    let (_, said) = ask(admin, Method::POST, &format!("/v1/drains/{name}/test"), None).await;
    assert_eq!((&said["ok"], &said["step"]), (&json!(false), &json!("connect")), "{said}");
    let nobody = std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_pending())).await;
    assert!(nobody, "nobody connected");
    assert_eq!(rig.number("hydrant_drain_connects_total"), 0);
}

#[tokio::test]
async fn what_cannot_be_a_drain_is_counted_once_and_the_rest_runs() {
    let cache = Cache::start(Security::Plain);
    let (_listener, addr) = receiver().await;
    let good = format!("syslog://{addr}");
    let bad = json!({ "cert": "x", "key": "y", "ca": "" });
    let no_authority = json!({ "cert": "", "key": "", "ca": "x" });
    let mut rows = vec![
        ("http://h:1".to_owned(), none(), "a-1"),
        ("syslog-udp://h:1".to_owned(), none(), "a-1"),
        ("syslog://h".to_owned(), none(), "a-1"),
        (format!("syslog-tls://{addr}"), bad, "a-2"),
        (format!("syslog-tls://{addr}"), no_authority, "a-2"),
        (good.clone(), none(), "a-2"),
        (good.clone(), none(), ""),
    ];
    rows.extend((0..6).map(|i| (format!("ftp://h:{i}"), none(), "a-3")));
    rows.push((good, none(), "a-3"));
    let rows: Vec<(&str, &Value, &str)> =
        rows.iter().map(|(url, credential, app)| (url.as_str(), credential, *app)).collect();
    cache.say(&rows);
    let mut rig = rig(&cache).await;
    let (_, sources, _) = subscribed(&mut rig).await;
    assert!(sources.iter().all(|source| source == "a-2"), "{sources:?}");
    counted(&rig, ANSWERED, 3).await;
    assert_eq!(rig.number("hydrant_bindings"), 1);
    for (reason, count) in
        [("scheme", 2 + 5), ("url", 1), ("credential", 1), ("authority", 1), ("app", 1), ("app_limit", 2), ("limit", 0)]
    {
        let series = format!("hydrant_bindings_invalid_total{{reason=\"{reason}\"}}");
        assert_eq!(rig.number(&series), count, "{reason}");
    }
    // The owners are told, once each, and nothing of the platform's.
    let mut told = Vec::new();
    while told.len() < 12 {
        let notice = rig.notices.recv().await.unwrap();
        assert_eq!((notice.instance_id.as_str(), notice.tags["source_type"].as_str()), ("0", "LGR"));
        told.push((notice.source_id.clone(), String::from_utf8(notice.payload().to_vec()).unwrap()));
    }
    told.sort();
    let of = |app: &str| told.iter().filter(|(id, _)| id == app).map(|(_, text)| text.as_str()).collect::<Vec<_>>();
    assert_eq!(
        of("a-1"),
        [
            "Cannot parse syslog drain URL.",
            "Invalid Scheme http for syslog drain url http://h:1",
            "Invalid Scheme syslog-udp for syslog drain url syslog-udp://h:1",
        ]
    );
    let tls = format!("syslog-tls://{addr}");
    assert_eq!(
        of("a-2"),
        [format!("failed to load certificate for {tls}"), format!("failed to load root CA for {tls}")]
    );
    assert_eq!(of("a-3")[0], "Invalid Scheme ftp for syslog drain url ftp://h:0");
    assert_eq!(of("a-3")[5], "syslog drain url ftp://h:5 is not used: the app has as many drains as it may have");
    assert_eq!(of("a-3").len(), 7);
    counted(&rig, ANSWERED, 3).await;
    assert!(rig.notices.try_recv().is_err(), "they are not told again");
}

#[tokio::test]
async fn the_cache_is_asked_over_mutual_tls() {
    let (certs, strangers) = (TestCerts::new(), TestCerts::new());
    let cache = Cache::start(Security::MutualTls(certs.identity("binding-cache")));
    let (_listener, addr) = receiver().await;
    cache.say(&[(&format!("syslog://{addr}"), &none(), "a-1")]);
    let tls = |certs: &TestCerts| {
        let files = certs.files("drains");
        ServiceTls {
            ca: Some(files.ca),
            cert: Some(files.cert),
            key: Some(files.key),
            server_name: Some("binding-cache".to_owned()),
        }
    };
    let start = async |tls: ServiceTls| {
        let (_, nobody) = receiver().await;
        let url = format!("https://{}", cache.addr);
        Rig::start(nobody, "", |config| {
            often(config, &url);
            config.bindings.as_mut().unwrap().tls = Some(tls);
        })
        .await
    };
    let mut rig = start(tls(&certs)).await;
    assert_eq!(subscribed(&mut rig).await.1[0], "a-1");
    let page = rig.telemetry.render();
    assert!(page.contains("hydrant_certificate_not_after_timestamp_seconds{certificate=\"adapters_bindings\"}"));
    drop(rig);
    let wrong = ServiceTls { ca: tls(&certs).ca, ..tls(&strangers) };
    let rig = start(wrong).await;
    counted(&rig, FAILED, 2).await;
    assert_eq!(number(&rig.telemetry, ANSWERED), 0);
}
