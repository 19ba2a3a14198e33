//! The page, judged by promtool and by a Prometheus that scrapes it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, StatusCode};
use hydrant_adapters::prometheus::names::Naming;
use hydrant_adapters::prometheus::series::{Options, Store};
use hydrant_adapters::prometheus::serve::{Endpoint, Shared};
use parking_lot::Mutex;
use prost::Message;
use proto::v2;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::judges::{Judge, get, promtool, request};

const NOW: i64 = 1_700_000_000_000_000_000;
const MS: i64 = 1_000_000;

/// A page that is served until this is dropped.
struct Served {
    addr: SocketAddr,
    store: Shared,
    _stop: DropGuard,
}

fn serve(naming: Naming, envelopes: &[v2::Envelope]) -> Served {
    let store: Shared = Arc::new(Mutex::new(Store::new(&Options { naming, ..Options::default() })));
    for envelope in envelopes {
        store.lock().put(&envelope.encode_to_vec(), NOW, |_, _| {});
    }
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let endpoint = Endpoint::bind("test", "127.0.0.1:0".parse().unwrap(), false, Arc::clone(&store)).unwrap();
    let addr = endpoint.addr();
    let (connections, stopped) = (tracker.clone(), stop.clone());
    tracker.spawn(async move { endpoint.serve(&connections, stopped).await });
    Served { addr, store, _stop: stop.drop_guard() }
}

fn envelopes() -> Vec<v2::Envelope> {
    let request = |status: &str, milliseconds: i64| {
        let timer =
            v2::Envelope::timer("app", "http", 0, milliseconds * MS).tag("status_code", status).tag("method", "GET");
        timer.tag("app_id", "app").tag("content_length", "512").tag("uri", "http://shop.example/a?b=c")
    };
    vec![
        v2::Envelope::counter("app", "requests", 3).tag("origin", "shop").tag("path", "C:\\x \"y\"\nz é"),
        v2::Envelope::counter("app", "requests", 4).tag("origin", "shop").tag("path", "C:\\x \"y\"\nz é"),
        v2::Envelope::counter("app", "big", 1 << 62).tag("origin", "shop"),
        v2::Envelope::gauge("app", "memory", 1.5e9, "bytes").instance("0").tag("origin", "rep"),
        v2::Envelope::gauge("app", "tiny", -1.25e-9, "").tag("origin", "shop"),
        v2::Envelope::gauge("app", "nothing", f64::NAN, "").tag("origin", "shop"),
        v2::Envelope::timer("db", "query", 0, 4 * MS),
        v2::Envelope::timer("db", "query", 0, 250 * MS),
        v2::Envelope::timer("db", "query", 0, 12_000 * MS),
        request("200", 30),
        request("200", 30),
        request("503", 800),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_what_was_sent() {
    let plain = serve(Naming::Plain, &envelopes());
    let firehose = serve(Naming::FirehoseExporter { retro_compat: true, enable_delta: false }, &envelopes());
    let (status, page) = get(plain.addr, "/metrics").await;
    assert_eq!((status, promtool(&page).await), (StatusCode::OK, String::new()), "{page}");
    // The contract's names are what promtool advises against; that is all it has to say.
    let (_, page) = get(firehose.addr, "/metrics").await;
    let advice = ["metric name should not include type", "counter metrics should have \"_total\" suffix"];
    let said = promtool(&page).await;
    assert!(said.lines().all(|line| advice.iter().any(|known| line.contains(known))), "{said}");

    let prometheus = Judge::prometheus(&[("plain", plain.addr), ("firehose", firehose.addr)]).await;
    for (query, value) in [
        // In PromQL, as on the page, with its escapes.
        (r#"requests_total{path="C:\\x \"y\"\nz é",source_id="app"}"#, "7"),
        ("big_total", "4611686018427387904"),
        (r#"memory{unit="bytes",instance_id="0",origin="rep"}"#, "1500000000"),
        ("tiny", "-1.25e-9"),
        ("nothing", "NaN"),
        (r#"query_duration_seconds_bucket{le="0.1"}"#, "1"),
        (r#"query_duration_seconds_bucket{le="0.25"}"#, "2"),
        (r#"query_duration_seconds_bucket{le="+Inf"}"#, "3"),
        ("query_duration_seconds_sum", "12.254"),
        ("query_duration_seconds_count", "3"),
        ("histogram_quantile(0.5, query_duration_seconds_bucket)", "0.175"),
        (r#"http_requests_total{app_id="app",status_class="2xx"}"#, "2"),
        (r#"http_requests_total{app_id="app",status_class="5xx"}"#, "1"),
        (r#"http_request_duration_seconds_bucket{app_id="app",le="0.05"}"#, "2"),
        ("firehose_counter_event_shop_requests_total", "7"),
        (r#"firehose_container_metric_memory_bytes{job="firehose"}"#, "1500000000"),
        (r#"firehose_http_total{status_code="503",host="shop.example",application_id="app"}"#, "1"),
        (r#"firehose_http_response_size_bytes_count{status_code="200"}"#, "2"),
        ("firehose_total_envelopes_received", "12"),
    ] {
        let (got, value): (f64, f64) = (prometheus.value(query).await.parse().unwrap(), value.parse().unwrap());
        assert!(got == value || (got.is_nan() && value.is_nan()), "{query}: {got}, not {value}");
    }

    // The page is what is: a reset is seen, and what has ended is gone.
    let reset = v2::Envelope::counter("app", "requests", 0).tag("origin", "shop").tag("path", "C:\\x \"y\"\nz é");
    plain.store.lock().put(&reset.encode_to_vec(), NOW, |_, _| {});
    while prometheus.value("requests_total").await != "0" {}
    plain.store.lock().expire(NOW + 600_000 * MS, |_, _| {});
    while !prometheus.query("memory", None).await.is_empty() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_answers_its_path_and_says_so_elsewhere() {
    let served = serve(Naming::Plain, &envelopes());
    let (status, text) = get(served.addr, "/").await;
    assert_eq!((status, text.as_str()), (StatusCode::NOT_FOUND, "not found; this port answers /metrics\n"));
    let (status, text) = request(served.addr, Request::head("/metrics"), Vec::new()).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, ""));
    let (status, _) = request(served.addr, Request::post("/metrics"), Vec::new()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}

/// Names and labels that clash, hold what they must not, or belong to others.
pub(crate) fn hostile() -> Vec<v2::Envelope> {
    let names = [
        "x",
        "x_sum",
        "x_count",
        "x_bucket",
        "x_total",
        "x_gauge",
        "1st",
        "é€",
        "a\"b\\\n{}",
        "_",
        "__name__",
        "up",
        " ",
        "http",
    ];
    let mut envelopes = Vec::new();
    for name in names {
        envelopes.push(v2::Envelope::counter("app", name, 1));
        envelopes.push(v2::Envelope::gauge("app", name, f64::NEG_INFINITY, "a\"\\\n"));
        envelopes.push(v2::Envelope::timer("app", name, MS, 0).tag("le", "1").tag("quantile", "x"));
        let tagged =
            v2::Envelope::gauge("", name, 5e-324, "").tag(name, "v").tag("__name__", "spoofed").tag("le", "+Inf");
        envelopes
            .push(tagged.tag("a.b", "1").tag("a-b", "2").tag("A", "upper").tag("source_id", "spoofed").tag("e", ""));
    }
    envelopes
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_names_the_page_can_be_read() {
    let prefixed = Naming::FirehoseExporter { retro_compat: false, enable_delta: true };
    let (plain, firehose) = (serve(Naming::Plain, &hostile()), serve(prefixed, &hostile()));
    for served in [&plain, &firehose] {
        let page = get(served.addr, "/metrics").await.1;
        let said = promtool(&page).await;
        assert!(!said.contains("error") && !said.contains("invalid"), "{said}\n{page}");
    }
    let prometheus = Judge::prometheus(&[("plain", plain.addr), ("firehose", firehose.addr)]).await;
    for job in ["plain", "firehose"] {
        // The page is taken as a whole or not at all.
        assert_eq!(prometheus.value(&format!("up{{job=\"{job}\",instance=~\"127.*\"}} == 1")).await, "1");
    }
}
