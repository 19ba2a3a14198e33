//! Drains to an OpenTelemetry collector, over gRPC and HTTP: to gRPC's C core with the messages as OpenTelemetry publishes them.

use std::process::Stdio;

use http::{Method, StatusCode};
use hydrant_adapters::{Config, DrainTls};
use proto::v2;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use transport::TestCerts;

use crate::drains::{ask, until};
use crate::judges::tool;
use crate::support::{Rig, check_laws, send};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
/// A time that is not now, to the nanosecond.
const AT: i64 = 1_700_000_000_123_456_789;

/// A running receiver.
pub(crate) struct Collector {
    pub(crate) port: u16,
    pub(crate) told: Lines<BufReader<ChildStdout>>,
    pub(crate) child: Child,
}

impl Collector {
    pub(crate) async fn start(transport: &str, answers: &[&str]) -> Self {
        Self::start_at(transport, 0, ["-", "-", "-"], answers).await
    }

    /// On this port, with these files.
    pub(crate) async fn start_at(transport: &str, port: u16, files: [&str; 3], answers: &[&str]) -> Self {
        let mut child = Command::new(tool("venv/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/adapters/otlp.py"))
            .args([transport, &port.to_string()])
            .args(files)
            .args(answers)
            // Handshakes that are to fail are no news.
            .env("GRPC_VERBOSITY", "NONE")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = told.next_line().await.unwrap();
        let port = first.expect("opentelemetry-proto is missing: run scripts/tools otlp").parse().unwrap();
        Self { port, told, child }
    }

    /// What it was sent next.
    pub(crate) async fn next(&mut self) -> Value {
        serde_json::from_str(&self.told.next_line().await.unwrap().unwrap()).unwrap()
    }
}

/// Adapters with a drain to `127.0.0.1:PORT`, whose table is `more`.
pub(crate) async fn rig(scheme: &str, port: u16, more: &str) -> Rig {
    rig_with(scheme, port, more, |_| {}).await
}

pub(crate) async fn rig_with(scheme: &str, port: u16, more: &str, adjust: impl FnOnce(&mut Config)) -> Rig {
    let text = format!("name = \"test\"\nurl = \"{scheme}://127.0.0.1:{port}\"\notlp.max_age = \"20ms\"\n{more}");
    Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
        config.drains = vec![toml::from_str(&text).unwrap()];
        adjust(config);
    })
    .await
}

pub(crate) fn log(text: impl Into<String>) -> v2::Envelope {
    v2::Envelope::log("guid-1", text.into()).at(AT).instance("2").tag("app_name", "shop").tag("zone", "z1")
}

fn err(text: &'static str) -> v2::Envelope {
    let mut envelope = log(text);
    if let Some(v2::envelope::Message::Log(log)) = &mut envelope.message {
        log.r#type = v2::log::Type::Err.into();
    }
    envelope
}

/// One of each kind: eight envelopes, of which one is no span.
fn every_kind() -> Vec<v2::Envelope> {
    let of = |envelope: v2::Envelope| envelope.at(AT).instance("2").tag("app_name", "shop").tag("zone", "z1");
    let mut gauge = of(v2::Envelope::gauge("guid-1", "cpu", 12.5, "percentage"));
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("memory".to_owned(), v2::GaugeValue { unit: "bytes".to_owned(), value: 1e9 });
    }
    let mut counter = of(v2::Envelope::counter("guid-1", "requests", 3));
    if let Some(v2::envelope::Message::Counter(counter)) = &mut counter.message {
        counter.total = 42;
    }
    let span = of(v2::Envelope::timer("guid-1", "http", AT - 250_000_000, AT));
    let span = span.tag("uri", "https://shop.example/cart?id=1").tag("peer_type", "Server");
    let bad = of(v2::Envelope::timer("guid-1", "http", 0, 1)).tag("trace_id", "nonsense").tag("span_id", SPAN);
    vec![
        log("grüße"),
        err("oops"),
        of(v2::Envelope::event("guid-1", "deployed", "version 2")),
        counter,
        gauge,
        span.tag("trace_id", TRACE).tag("span_id", SPAN),
        of(v2::Envelope::timer("guid-1", "sql", AT - 30_000_000, AT)),
        bad,
    ]
}

/// Attributes as an object.
fn pairs(list: &Value) -> Value {
    let pair = |pair: &Value| (pair["key"].as_str().unwrap().to_owned(), pair["value"]["stringValue"].clone());
    Value::Object(list.as_array().into_iter().flatten().map(pair).collect::<Map<_, _>>())
}

/// Everything that came, by signal: the resource of each record beside it, with attributes as objects.
pub(crate) fn records(requests: &[Value], signal: &str) -> Vec<(Value, Value)> {
    let (of, scopes, items) = match signal {
        "logs" => ("resourceLogs", "scopeLogs", "logRecords"),
        "metrics" => ("resourceMetrics", "scopeMetrics", "metrics"),
        _ => ("resourceSpans", "scopeSpans", "spans"),
    };
    let mut all = Vec::new();
    for resource in requests.iter().filter(|request| request["signal"] == signal) {
        for group in resource["message"][of].as_array().unwrap() {
            for scope in group[scopes].as_array().unwrap() {
                for record in scope[items].as_array().unwrap() {
                    all.push((pairs(&group["resource"]["attributes"]), record.clone()));
                }
            }
        }
    }
    all
}

fn attributes(more: &Value) -> Value {
    let mut all = json!({ "instance_id": "2", "source_id": "guid-1", "app_name": "shop", "zone": "z1" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// Takes the attributes out of a record, so that the rest can be compared in any order of those.
fn split(mut record: Value) -> (Value, Value) {
    let attributes = record.as_object_mut().unwrap().remove("attributes").unwrap_or_default();
    (pairs(&attributes), record)
}

async fn every_kind_arrives(transport: &str, preset: bool) {
    let mut collector = Collector::start(transport, &[]).await;
    let more = if preset { "otlp.preset = \"otelcol\"" } else { "otlp.headers = { x-tenant = \"a b\" }" };
    let rig = rig(&format!("otlp+{transport}"), collector.port, more).await;
    assert_eq!(rig.request.selectors.len(), 5, "everything");
    rig.send(&every_kind()).await;
    let mut requests = Vec::new();
    let (logs, metrics) = (3, if preset { 3 } else { 4 });
    while records(&requests, "logs").len() < logs
        || records(&requests, "metrics").len() < metrics
        || records(&requests, "traces").is_empty()
    {
        requests.push(collector.next().await);
    }
    let resource = match preset {
        true => json!({}),
        false => json!({ "service.name": "shop", "service.instance.id": "2" }),
    };
    let all: Vec<Value> =
        ["logs", "metrics", "traces"].iter().flat_map(|signal| records(&requests, signal)).map(|(of, _)| of).collect();
    assert!(all.iter().all(|of| *of == resource), "{all:?}");
    if !preset {
        assert!(requests.iter().all(|request| request["headers"]["x-tenant"] == "a b"), "{requests:?}");
        assert!(requests.iter().all(|request| {
            let agent = request["headers"]["user-agent"].as_str().unwrap();
            agent.starts_with("hydrant/")
        }));
    }
    if transport == "http" {
        let encoding = if preset { Value::Null } else { json!("gzip") };
        assert!(requests.iter().all(|request| request["headers"]["content-encoding"] == encoding));
        let path = |signal: &str| requests.iter().any(|request| request["path"] == format!("/v1/{signal}"));
        assert!(path("logs") && path("metrics") && path("traces"));
    }

    let mut bodies = Vec::new();
    for (_, record) in records(&requests, "logs") {
        let (of, mut record) = split(record);
        assert_eq!(of, attributes(&json!({})));
        let observed = record.as_object_mut().unwrap().remove("observedTimeUnixNano").unwrap();
        assert!(observed.as_str().unwrap().parse::<i64>().unwrap() > AT);
        assert_eq!(record["timeUnixNano"], AT.to_string());
        record.as_object_mut().unwrap().remove("timeUnixNano");
        bodies.push(record);
    }
    let text = |name: &str| if preset { format!("SEVERITY_NUMBER_{name}") } else { name.to_owned() };
    let list = [("title", "deployed"), ("body", "version 2")]
        .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
    let expected = [
        json!({ "severityNumber": "SEVERITY_NUMBER_INFO", "severityText": text("INFO"), "body": { "stringValue": "grüße" } }),
        json!({ "severityNumber": "SEVERITY_NUMBER_ERROR", "severityText": text("ERROR"), "body": { "stringValue": "oops" } }),
        json!({ "body": { "kvlistValue": { "values": list } } }),
    ];
    assert_eq!(bodies, expected);

    let mut metrics: Vec<Value> = records(&requests, "metrics").into_iter().map(|(_, metric)| metric).collect();
    metrics.sort_by_key(|metric| metric["name"].as_str().unwrap().to_owned());
    for metric in &mut metrics {
        let data = ["gauge", "sum", "histogram"].into_iter().find(|data| !metric[data].is_null()).unwrap();
        let (of, point) = split(metric[data]["dataPoints"][0].take());
        assert_eq!(of, attributes(&json!({})), "{metric}");
        metric[data]["dataPoints"] = point;
    }
    let mut sum = json!({ "timeUnixNano": AT.to_string(), "asInt": "42" });
    if !preset {
        sum["startTimeUnixNano"] = json!(AT.to_string());
    }
    let gauge = |value: f64| json!({ "dataPoints": { "timeUnixNano": AT.to_string(), "asDouble": value } });
    let mut expected = vec![
        json!({ "name": "cpu", "unit": "percentage", "gauge": gauge(12.5) }),
        json!({ "name": "memory", "unit": "bytes", "gauge": gauge(1e9) }),
        json!({ "name": "requests", "sum": {
            "dataPoints": sum, "isMonotonic": true, "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE" } }),
    ];
    if !preset {
        let bounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let counts: Vec<&str> = (0..15).map(|i| if i == 3 { "1" } else { "0" }).collect();
        let point = json!({
            "startTimeUnixNano": (AT - 30_000_001).to_string(), "timeUnixNano": AT.to_string(), "count": "1", "sum": 0.03,
            "bucketCounts": counts, "explicitBounds": bounds, "min": 0.03, "max": 0.03,
        });
        expected.push(json!({ "name": "sql.duration", "unit": "s", "histogram": {
            "dataPoints": point, "aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE" } }));
    }
    assert_eq!(metrics, expected);

    let (_, span) = records(&requests, "traces").pop().unwrap();
    let (of, span) = split(span);
    assert_eq!(of, attributes(&json!({ "uri": "https://shop.example/cart?id=1", "peer_type": "Server" })));
    let expected = json!({
        "traceId": "CvdlGRbNQ92ESOshHIAxnA==", "spanId": "t61rcWkgMzE=", "name": "/cart", "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": (AT - 250_000_000).to_string(), "endTimeUnixNano": AT.to_string(), "status": {},
    });
    assert_eq!(span, expected);

    let admin = rig.adapters.addrs().admin;
    let shown = until(admin, "test", |drain| drain["delivered"].as_u64().unwrap() + u64::from(preset) == 7).await;
    assert_eq!(shown["dropped"], json!({ "convert_error": 1 }), "the span with bad identifiers alone");
    assert_eq!(shown["state"], "ok");
    let (status, said) = ask(admin, Method::POST, "/v1/drains/test/test", None).await;
    assert_eq!((status, &said["ok"]), (StatusCode::OK, &json!(true)), "{said}");
    let test = collector.next().await;
    assert_eq!(records(&[test], "metrics")[0].1["name"], "hydrant_drain_test");
    let (drained, telemetry) = rig.shutdown().await;
    assert_eq!(drained.dropped, 0);
    check_laws(&telemetry);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_arrives_over_grpc() {
    every_kind_arrives("grpc", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_arrives_over_http() {
    every_kind_arrives("http", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_3_3_every_kind_arrives_as_from_the_original() {
    every_kind_arrives("grpc", true).await;
    every_kind_arrives("http", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_on_both_sides() {
    for transport in ["grpc", "http"] {
        let certs = TestCerts::new();
        let (server, client) = (certs.files("otel-collector"), certs.files("drain"));
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let files = [path(&server.cert), path(&server.key), path(&server.ca)];
        let files = [files[0].as_str(), files[1].as_str(), files[2].as_str()];
        let mut collector = Collector::start_at(transport, 0, files, &[]).await;
        let scheme = format!("otlp+{transport}s");
        let tls = |name: &str, shows: bool| DrainTls {
            ca: Some(client.ca.clone()),
            cert: shows.then(|| client.cert.clone()),
            key: shows.then(|| client.key.clone()),
            server_name: Some(name.to_owned()),
            insecure_skip_verify: false,
        };
        let rig = rig_with(&scheme, collector.port, "", |config| {
            config.drains[0].tls = Some(tls("otel-collector", true));
        })
        .await;
        rig.send(&[log("over TLS")]).await;
        let came = collector.next().await;
        assert_eq!(records(&[came], "logs")[0].1["body"]["stringValue"], "over TLS");
        until(rig.adapters.addrs().admin, "test", |drain| drain["delivered"] == 1).await;
        let (_, telemetry) = rig.shutdown().await;
        check_laws(&telemetry);
        for (name, shows, expected) in [
            ("other.example", true, "the server's certificate is not for other.example"),
            ("otel-collector", false, ""),
        ] {
            let rig =
                rig_with(&scheme, collector.port, "", |config| config.drains[0].tls = Some(tls(name, shows))).await;
            rig.send(&[log("never")]).await;
            let shown = until(rig.adapters.addrs().admin, "test", |drain| !drain["last_error"].is_null()).await;
            let text = shown["last_error"]["text"].as_str().unwrap();
            assert!(text.contains(expected), "{text}");
            assert!(shown["delivered"] == 0 && shown["state"] != "ok", "{shown}");
            rig.adapters.shutdown().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_split_at_their_bounds() {
    let mut collector = Collector::start("grpc", &[]).await;
    let rig = rig("otlp+grpc", collector.port, "otlp.max_items = 10\notlp.signals = [\"logs\"]").await;
    assert_eq!(rig.request.selectors.len(), 2, "logs and events");
    rig.send(&(0..25).map(|i| log(format!("{i}"))).collect::<Vec<_>>()).await;
    let mut came = Vec::new();
    while came.len() < 25 {
        let logs = records(&[collector.next().await], "logs");
        assert!(logs.len() <= 10, "{}", logs.len());
        came.extend(logs.into_iter().map(|(_, log)| log["body"]["stringValue"].as_str().unwrap().to_owned()));
    }
    assert_eq!(came, (0..25).map(|i| i.to_string()).collect::<Vec<_>>(), "in order");
    let (_, telemetry) = rig.shutdown().await;
    check_laws(&telemetry);

    let mut collector = Collector::start("http", &[]).await;
    let rig = self::rig("otlp+http", collector.port, "otlp.max_bytes = 8192").await;
    rig.send(&(0..25).map(|i| log(format!("{i:0>1000}"))).collect::<Vec<_>>()).await;
    let mut came = 0;
    while came < 25 {
        let request = collector.next().await;
        assert!(request["whole"].as_u64().unwrap() <= 8192 && request["wire"].as_u64() < request["whole"].as_u64());
        came += records(&[request], "logs").len();
    }
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_added_tested_and_taken_away_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let mut collector = Collector::start("grpc", &[]).await;
    let mut rig = Rig::start("127.0.0.1:1".parse().unwrap(), "", |config| {
        config.state_dir = Some(dir.path().to_owned());
    })
    .await;
    let admin = rig.adapters.addrs().admin;
    let wanted = json!({
        "url": format!("otlp+grpc://canary:canary@127.0.0.1:{}?drain-data=logs&canary=1", collector.port),
        "otlp": { "max_age": "20ms", "headers": { "x-key": "canary" }, "resource": { "team": "payments" } },
    });
    let (status, added) = ask(admin, Method::PUT, "/v1/drains/otel", Some(&wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    assert_eq!(added["url"], format!("otlp+grpc://127.0.0.1:{}", collector.port));
    let (request, to_drain) = rig.subscriptions.recv().await.unwrap();
    assert_eq!(request.selectors.len(), 2, "logs and events");
    send(&to_drain, &[log("hello")]).await;
    let came = collector.next().await;
    assert_eq!(
        (&came["headers"]["x-key"], &came["headers"]["authorization"]),
        (&json!("canary"), &json!("Basic Y2FuYXJ5OmNhbmFyeQ=="))
    );
    let (resource, _) = records(&[came], "logs").pop().unwrap();
    assert_eq!(resource["team"], "payments");
    let (_, said) = ask(admin, Method::POST, "/v1/drains/otel/test", None).await;
    assert_eq!(said["ok"], true, "{said}");
    let shown = until(admin, "otel", |drain| drain["delivered"] == 1).await;
    assert!(!format!("{added}{shown}{said}").contains("canary"));
    for (table, text) in [
        (json!({ "headers": { "content-type": "canary" } }), "content-type is written by hydrant itself"),
        (json!({ "header": {} }), "`headers`"),
        (json!({ "max_bytes": 1 }), "it is 4096 to 4194304"),
        (json!({ "signals": ["metrics"] }), "would send nothing"),
    ] {
        let wanted = json!({ "url": "otlp+http://127.0.0.1:1?drain-data=logs", "otlp": table });
        let (status, refused) = ask(admin, Method::PUT, "/v1/drains/otel", Some(&wanted)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let error = refused["error"].as_str().unwrap();
        assert!(error.contains(text) && !error.contains("canary"), "{error}");
    }
    let (status, _) = ask(admin, Method::DELETE, "/v1/drains/otel", None).await;
    assert_eq!(status, StatusCode::OK);
    rig.shutdown().await;
}

#[test]
fn what_does_not_go_together_is_refused() {
    let error = |text: &str| {
        let text = format!("[[drains]]\nname = \"x\"\n{text}");
        match toml::from_str::<Config>(&text) {
            Ok(config) => config.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    };
    assert!(error("url = \"syslog://h:1\"\notlp.timers = \"gauge\"").contains("has an otlp table"));
    assert!(error("url = \"otlp+grpc://h\"\npreset = \"splunk\"").contains("which takes no lines"));
    assert!(error("url = \"otlp+grpc://h\"\nmetrics.namespace = \"a\"").contains("takes no series"));
    assert!(error("url = \"otlp+grpc://h\"\ntls = {}").contains("has a tls table"));
    assert!(error("url = \"otlp+grpc://h/v1/logs\"").contains("write otlp+http:// or otlp+https://"));
    assert!(error("url = \"otlp://h\"").contains("otlp+grpc://host:port"));
    assert!(
        error("url = \"otlp+http://h\"\notlp.max_age = \"2h\"")
            .contains("otlp.max_age of the drain \"x\" is 1ms to 1h")
    );
    for (url, port) in [("otlp+grpc", 4317), ("otlp+grpcs", 4317), ("otlp+http", 4318), ("otlp+https", 4318)] {
        let url: hydrant_adapters::syslog::config::DrainUrl = format!("{url}://h").parse().unwrap();
        assert_eq!(url.address.port(), port);
    }
}
