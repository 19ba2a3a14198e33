//! Drains of metrics, end to end: to Prometheus and VictoriaMetrics by remote-write, and to a page that Prometheus' tools read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proto::v2;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::drains::{ask, until};
use crate::judges::{Judge, get};
use crate::support::{Rig, check_laws, number, send};

fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

fn gauge(source_id: &'static str, value: f64) -> v2::Envelope {
    v2::Envelope::gauge(source_id, "queue.depth", value, "messages").at(now_ns()).instance("0").tag("deployment", "cf")
}

async fn rig(url: String) -> Rig {
    Rig::start("127.0.0.1:1".parse().unwrap(), "", move |config| {
        config.drains[0].url = url.parse().unwrap();
        config.drains[0].metrics.flush = Duration::from_millis(20);
    })
    .await
}

async fn a_store_takes_what_a_drain_sends(judge: Judge) {
    let rig = rig(format!("remote-write+http://{}", judge.addr)).await;
    let admin = rig.adapters.addrs().admin;
    let kinds = rig.request.selectors.len();
    assert_eq!(kinds, 3, "counters, gauges and timers");
    let counter = v2::Envelope::counter("web", "requests", 7).at(now_ns()).tag("deployment", "cf");
    rig.send(&[gauge("web", 1.5), gauge("db", 3.25), counter]).await;
    until(admin, "test", |drain| drain["delivered"] == 3).await;
    let value = judge.value("queue_depth{source_id=\"db\",deployment=\"cf\",unit=\"messages\"}").await;
    assert_eq!(value, "3.25");
    assert_eq!(judge.value("queue_depth{source_id=\"web\",instance_id=\"0\"}").await, "1.5");
    assert_eq!(judge.value("requests_total{source_id=\"web\"}").await, "7");
    let (status, said) = ask(admin, Method::POST, "/v1/drains/test/test", None).await;
    assert_eq!((status, &said["ok"]), (StatusCode::OK, &json!(true)), "{said}");
    assert_eq!(judge.value("hydrant_drain_test{source_id=\"hydrant\"}").await, "1");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_what_a_drain_writes() {
    a_store_takes_what_a_drain_sends(Judge::prometheus(&[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn victoria_metrics_takes_what_a_drain_writes() {
    a_store_takes_what_a_drain_sends(Judge::victoria_metrics().await).await;
}

/// A store that answers as it is told, and then with 204.
struct Moody {
    addr: SocketAddr,
    /// What each request was answered, and its headers.
    asked: Arc<Mutex<Vec<(u16, http::HeaderMap)>>>,
    /// The path of each, and its body.
    bodies: Arc<Mutex<Vec<(String, Bytes)>>>,
    _tasks: JoinSet<()>,
}

impl Moody {
    async fn start(answers: &[(u16, Option<&'static str>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(answers.iter().rev().copied().collect::<Vec<_>>()));
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let bodies = Arc::<Mutex<Vec<_>>>::default();
        let (seen, came, mut tasks) = (Arc::clone(&asked), Arc::clone(&bodies), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answers, seen, came) = (Arc::clone(&answers), Arc::clone(&seen), Arc::clone(&came));
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let (answers, seen, came) = (Arc::clone(&answers), Arc::clone(&seen), Arc::clone(&came));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        came.lock().push((head.uri.to_string(), body));
                        let (status, after) = answers.lock().pop().unwrap_or((204, None));
                        seen.lock().push((status, head.headers));
                        let mut response = Response::builder().status(status);
                        if let Some(after) = after {
                            response = response.header("retry-after", after);
                        }
                        Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from("said in words"))).unwrap())
                    }
                });
                connections.spawn(async move {
                    let _closed = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { addr, asked, bodies, _tasks: tasks }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_8_2_what_is_tried_again_and_what_is_not() {
    let store = Moody::start(&[(503, None), (429, Some("1")), (500, None)]).await;
    let rig = rig(format!("remote-write+http://{}", store.addr)).await;
    let admin = rig.adapters.addrs().admin;
    rig.send(&[gauge("web", 1.0)]).await;
    until(admin, "test", |drain| drain["delivered"] == 1 && drain["state"] == "ok").await;
    let statuses: Vec<u16> = store.asked.lock().iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [503, 429, 500, 204]);
    let headers = store.asked.lock()[0].1.clone();
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-encoding"), "snappy");
    assert_eq!(header("content-type"), "application/x-protobuf");
    assert_eq!(header("x-prometheus-remote-write-version"), "0.1.0");
    assert!(header("user-agent").starts_with("hydrant/"));
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);

    for (status, state) in [(400, "degraded"), (401, "broken"), (404, "broken"), (413, "degraded")] {
        let store = Moody::start(&[(status, None)]).await;
        let rig = self::rig(format!("remote-write+http://{}", store.addr)).await;
        let admin = rig.adapters.addrs().admin;
        rig.send(&[gauge("web", 1.0)]).await;
        let shown = until(admin, "test", |drain| drain["dropped"]["rejected_permanent"] == 1).await;
        assert_eq!(shown["state"], state, "{status}");
        assert_eq!(shown["last_error"]["text"].as_str().unwrap().split(' ').nth(3).unwrap(), status.to_string());
        rig.send(&[gauge("web", 2.0)]).await;
        until(admin, "test", |drain| drain["delivered"] == 1 && drain["state"] == "ok").await;
        let (_, telemetry) = rig.shutdown().await;
        check_laws(&telemetry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_with_requests_and_is_shown_nowhere() {
    let store = Moody::start(&[]).await;
    let url = format!("remote-write+http://{}/push?tenant=canary", store.addr);
    let rig = Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
        let text = format!("name = \"test\"\nurl = \"{url}\"\ntoken = \"canary+/=\"\nmetrics.flush = \"20ms\"\n");
        config.drains = vec![toml::from_str(&text).unwrap()];
    })
    .await;
    rig.send(&[gauge("web", 1.0)]).await;
    let shown = until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 1).await;
    assert_eq!(shown["url"], format!("remote-write+http://{}/…", store.addr));
    assert_eq!(store.asked.lock()[0].1["authorization"], "Bearer canary+/=");
    assert!(!shown.to_string().contains("canary") && !rig.telemetry.render().contains("canary"));
    rig.shutdown().await;
}

/// The intake is made from its published form (contract §7): the real one asks for an account.
#[tokio::test(flavor = "multi_thread")]
async fn datadog_7_metrics_and_logs_go_to_their_intakes_with_the_key() {
    let intake = Moody::start(&[]).await;
    let rig = Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
        let url = format!("datadog+http://{}/base?drain-data=all", intake.addr);
        let text = format!(
            "name = \"test\"\nurl = \"{url}\"\ntoken = \"canary\"\n[datadog]\ninterval = \"20ms\"\ntags = [\"team:a\"]\n"
        );
        config.drains = vec![toml::from_str(&text).unwrap()];
    })
    .await;
    assert_eq!(rig.request.selectors.len(), 5, "everything");
    rig.send(&[gauge("web", 1.5), v2::Envelope::log("web", "hello").at(now_ns())]).await;
    let shown = until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 2).await;
    assert!(!shown.to_string().contains("canary"), "{shown}");
    let mut bodies = std::mem::take(&mut *intake.bodies.lock());
    bodies.sort();
    let [(logs, log), (series, metric)] = &bodies[..] else { panic!("{bodies:?}") };
    assert_eq!((logs.as_str(), series.as_str()), ("/base/api/v2/logs", "/base/api/v2/series"));
    assert!(intake.asked.lock().iter().all(|(_, headers)| headers["dd-api-key"] == "canary"));
    let json = |body: &Bytes| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut text).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let (log, metric) = (json(log), json(metric));
    assert_eq!((&log[0]["message"], &log[0]["service"]), (&json!("hello"), &json!("web")));
    assert_eq!(metric["series"][0]["metric"], "queue.depth");
    assert_eq!(metric["series"][0]["points"][0]["value"], 1.5);
    assert!(metric["series"][0]["tags"].as_array().unwrap().contains(&json!("team:a")), "{metric}");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn datadog_7_what_each_answer_means() {
    for (status, kept) in [(403, false), (413, false), (400, false), (429, true), (408, true), (503, true)] {
        let intake = Moody::start(&[(status, None)]).await;
        let rig = Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
            let url = format!("datadog+http://{}", intake.addr);
            let text = format!("name = \"test\"\nurl = \"{url}\"\ntoken = \"k\"\ndatadog.interval = \"20ms\"\n");
            config.drains = vec![toml::from_str(&text).unwrap()];
        })
        .await;
        rig.send(&[gauge("web", 1.5)]).await;
        let counted = if kept { "delivered" } else { "dropped" };
        let shown = until(rig.adapters.addrs().admin, "test", |drain| match kept {
            true => drain["delivered"] == 1,
            false => drain["dropped"]["rejected_permanent"] == 1,
        })
        .await;
        assert!(shown["last_error"]["text"].as_str().unwrap().contains(&status.to_string()), "{counted}: {shown}");
        let (_, telemetry) = rig.shutdown().await;
        check_laws(&telemetry);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_wait_for_a_dead_store_go_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
        config.state_dir = Some(dir.path().to_owned());
    })
    .await;
    let admin = rig.adapters.addrs().admin;
    let to = |addr: &str| json!({ "url": format!("remote-write+http://{addr}"), "metrics": { "flush": "20ms" } });
    let (status, answer) = ask(admin, Method::PUT, "/v1/drains/tsdb", Some(&to("127.0.0.1:1"))).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let (_, to_drain) = rig.subscriptions.recv().await.unwrap();
    send(&to_drain, &[gauge("web", 1.0)]).await;
    until(admin, "tsdb", |drain| drain["state"] == "degraded").await;
    send(&to_drain, &[gauge("db", 2.0)]).await;
    let judge = Judge::prometheus(&[]).await;
    ask(admin, Method::PUT, "/v1/drains/tsdb", Some(&to(&judge.addr.to_string()))).await;
    until(admin, "tsdb", |drain| drain["delivered"] == 2).await;
    assert_eq!(judge.value("queue_depth{source_id=\"web\"}").await, "1");
    assert_eq!(judge.value("queue_depth{source_id=\"db\"}").await, "2");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_came_and_its_address_is_free_afterwards() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rig = rig(format!("prometheus://{free}")).await;
    rig.send(&[gauge("web", 1.5), v2::Envelope::log("web", "no metric")]).await;
    let shown = until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 1).await;
    assert_eq!(shown["filtered"], 1);
    let page = get(free, "/metrics").await.1;
    let line = "queue_depth{deployment=\"cf\",instance_id=\"0\",source_id=\"web\",unit=\"messages\"} 1.5";
    assert!(page.lines().any(|shown| shown == line), "{page}");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);
    assert_eq!(number(&telemetry, "hydrant_link_unconfirmed_envelopes{link=\"drain\"}"), 0);
    TcpListener::bind(free).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_on_disk_outlive_a_stop_while_the_store_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let rig = async |addr: SocketAddr| {
        Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
            let drain = &mut config.drains[0];
            drain.url = format!("remote-write+http://{addr}").parse().unwrap();
            drain.metrics.flush = Duration::from_millis(20);
            drain.buffer = hydrant_adapters::Buffer::Disk;
            drain.disk.keep_free_percent = 0;
            config.state_dir = Some(dir.path().to_owned());
        })
        .await
    };
    let away = rig("127.0.0.1:1".parse().unwrap()).await;
    away.send(&[gauge("web", 1.0), gauge("db", 2.0), v2::Envelope::log("web", "no metric")]).await;
    let admin = away.adapters.addrs().admin;
    until(admin, "test", |drain| drain["state"] == "degraded" && drain["disk"]["envelopes"] != 0).await;
    let (drained, telemetry) = away.shutdown().await;
    assert_eq!(drained.dropped, 0);
    let waiting = number(&telemetry, "hydrant_queue_depth_envelopes{queue=\"drain_disk\"}");
    assert!(waiting >= 2, "they wait for the next start: {waiting}");
    let judge = Judge::prometheus(&[]).await;
    let back = rig(judge.addr).await;
    back.send(&[gauge("new", 3.0)]).await;
    until(back.adapters.addrs().admin, "test", |drain| drain["delivered"] == 3 && drain["disk"]["envelopes"] == 0)
        .await;
    for (source_id, value) in [("web", "1"), ("db", "2"), ("new", "3")] {
        assert_eq!(judge.value(&format!("queue_depth{{source_id=\"{source_id}\"}}")).await, value);
    }
    back.shutdown().await;
}

#[test]
fn what_does_not_go_together_is_refused() {
    let error = |text: &str| {
        let text = format!("[[drains]]\nname = \"x\"\n{text}");
        toml::from_str::<hydrant_adapters::Config>(&text).unwrap().check().unwrap_err().to_string()
    };
    assert!(error("url = \"syslog://h:1\"\nmetrics.namespace = \"a\"").contains("which takes no series of Prometheus"));
    assert!(error("url = \"remote-write+https://h\"\npreset = \"splunk\"").contains("which takes no lines"));
    assert!(error("url = \"prometheus://h:1\"").contains("write an address of this machine and a port"));
    assert!(error("url = \"prometheus://127.0.0.1:1\"\ntoken = \"a\"").contains("nobody is shown one"));
    assert!(
        error("url = \"remote-write+http://h:1\"\nmetrics.flush = \"2h\"")
            .contains("metrics.flush of the drain \"x\" is 1ms to 1h")
    );
    assert!(error("url = \"datadog://datadoghq.eu\"").contains("needs the API key"));
    assert!(error("url = \"syslog://h:1\"\ndatadog.host = \"a\"").contains("write datadog://"));
    assert!(error("url = \"remote-write+http://h:1\"\ntls = {}").contains("has a tls table"));
}
