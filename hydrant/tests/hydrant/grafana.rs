//! What Grafana's Prometheus data source asks, in its order, of a Prometheus and of hydrant side by side: with the same samples they give
//! the same answers.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use proto::v2::Envelope;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::harness::{Producer, pipeline, tool};

const SAMPLES: i64 = 120;
const STEP: i64 = 5;

/// The samples, as seconds: the same numbers go to both.
fn samples(begin: i64) -> impl Iterator<Item = (i64, &'static str, f64)> {
    (0..SAMPLES).flat_map(move |i| {
        let at = begin + i * STEP;
        [("0", (i % 7) as f64 + 0.5), ("1", (i * i % 11) as f64)].map(|(instance, value)| (at, instance, value))
    })
}

/// A Prometheus that holds them.
async fn prometheus(dir: &std::path::Path, begin: i64) -> (Child, SocketAddr) {
    let (text, data, config) = (dir.join("samples.txt"), dir.join("data"), dir.join("prometheus.yml"));
    let mut metrics = String::new();
    for instance in ["0", "1"] {
        for (at, of, value) in samples(begin) {
            if of == instance {
                writeln!(metrics, "load{{source_id=\"shop\",instance_id=\"{instance}\",job=\"web\"}} {value} {at}")
                    .unwrap();
            }
        }
    }
    std::fs::write(&text, metrics + "# EOF\n").unwrap();
    std::fs::write(&config, "").unwrap();
    let mut promtool = Command::new(tool("bin/promtool"));
    let made =
        promtool.args(["tsdb", "create-blocks-from", "openmetrics"]).args([&text, &data]).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(tool("bin/prometheus"))
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={listen}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    loop {
        if let Some((200, _)) = ask(listen, "GET", "/-/ready", &[]).await {
            return (child, listen);
        }
        tokio::task::yield_now().await;
    }
}

/// As Grafana asks: parameters in the URL, or as a form. Nothing if nobody listens yet.
async fn ask(addr: SocketAddr, method: &str, path: &str, params: &[(&str, &str)]) -> Option<(u16, Value)> {
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let params: Vec<String> =
        params.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let params = params.join("&");
    let request = if method == "POST" {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{params}",
            params.len()
        )
    } else {
        format!("GET {path}?{params} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")
    };
    let mut socket = TcpStream::connect(addr).await.ok()?;
    socket.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // A chunked body is one JSON document between its chunk sizes.
    let json = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body.split("\r\n").enumerate().filter(|(i, _)| i % 2 == 1).map(|(_, chunk)| chunk).collect()
    } else {
        body.to_owned()
    };
    Some((status, serde_json::from_str(&json).unwrap_or(Value::Null)))
}

/// A method, a path, and parameters.
type Asked<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);

/// What is to be equal: data without the name of the metric, which hydrant leaves out of results, and in one order.
fn comparable(mut json: Value) -> Value {
    let result = json.pointer_mut("/data/result").and_then(Value::as_array_mut);
    if let Some(result) = result.filter(|result| result.first().is_some_and(Value::is_object)) {
        for series in result.iter_mut() {
            series["metric"].as_object_mut().unwrap().remove("__name__");
        }
        result.sort_by_key(|series| series["metric"].to_string());
    }
    floats(&mut json);
    json
}

/// A time is the same number with decimals and without.
fn floats(json: &mut Value) {
    match json {
        Value::Number(number) => *json = number.as_f64().into(),
        Value::Array(all) => all.iter_mut().for_each(floats),
        Value::Object(all) => all.values_mut().for_each(floats),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grafana_asks_is_answered_as_by_prometheus() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let begin = now - SAMPLES * STEP - 10;
    let dir = tempfile::tempdir().unwrap();
    let (_child, theirs) = prometheus(dir.path(), begin).await;
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let envelope = |(at, instance, value): (i64, &str, f64)| {
        Envelope::gauge("shop", "load", value, "").at(at * 1_000_000_000).instance(instance).tag("job", "web")
    };
    producer.send(samples(begin).map(envelope).collect()).await;
    producer.settled().await;
    let ours = up.traffic_controller().http;

    let (start, end) = ((begin - 5).to_string(), (begin + SAMPLES * STEP + 5).to_string());
    let middle = format!("{}.5", begin + SAMPLES * STEP / 2);
    let span = [("start", start.as_str()), ("end", end.as_str())];
    let load = r#"load{source_id="shop"}"#;
    let rate = r#"sum by (instance_id) (rate(load{source_id="shop"}[1m]))"#;
    let quantile = r#"quantile_over_time(0.9, load{source_id="shop",instance_id=~"0|1"}[2m])"#;
    let matching = ("match[]", load);
    let instant = |query| vec![("query", query), ("time", middle.as_str())];
    let range = |query| vec![("query", query), span[0], span[1], ("step", "15")];
    let sequence: Vec<Asked<'_>> = vec![
        // The test of a data source, and what it finds out about it.
        ("POST", "/api/v1/query", instant("1+1")),
        ("GET", "/api/v1/status/buildinfo", vec![]),
        // The builder: names, labels, values.
        ("GET", "/api/v1/label/__name__/values", [vec![matching], span.to_vec()].concat()),
        ("GET", "/api/v1/labels", [vec![matching], span.to_vec()].concat()),
        ("POST", "/api/v1/labels", [vec![matching], span.to_vec()].concat()),
        ("GET", "/api/v1/label/instance_id/values", [vec![matching], span.to_vec()].concat()),
        ("GET", "/api/v1/series", [vec![matching], span.to_vec()].concat()),
        ("POST", "/api/v1/series", [vec![matching], span.to_vec()].concat()),
        // A panel: instant and range, both ways.
        ("POST", "/api/v1/query", instant(load)),
        ("GET", "/api/v1/query", instant(rate)),
        ("POST", "/api/v1/query_range", range(rate)),
        ("GET", "/api/v1/query_range", range(load)),
        ("POST", "/api/v1/query_range", range(quantile)),
        ("POST", "/api/v1/query_range", range(r#"vector(0) or load{source_id="nobody"}"#)),
        // Mistakes.
        ("POST", "/api/v1/query", instant("sum(")),
        ("POST", "/api/v1/query_range", vec![("query", "1"), span[0], span[1], ("step", "0")]),
    ];
    for (method, path, params) in &sequence {
        let expected = ask(theirs, method, path, params).await.unwrap();
        let got = ask(ours, method, path, params).await.unwrap();
        let what = format!("{method} {path} {params:?}");
        assert_eq!(got.0, expected.0, "{what}: {} instead of {}", got.1, expected.1);
        assert_eq!(got.1["status"], expected.1["status"], "{what}");
        if expected.0 != 200 {
            assert_eq!(got.1["errorType"], expected.1["errorType"], "{what}");
            continue;
        }
        if path.ends_with("buildinfo") {
            let fields = |json: &Value| json["data"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(fields(&got.1), fields(&expected.1), "{what}");
            continue;
        }
        let (got, expected) = (comparable(got.1), comparable(expected.1));
        assert_eq!(got["data"], expected["data"], "{what}");
        assert_ne!(expected["data"].to_string().len(), 2, "{what}: there is something to compare");
    }
    up.shutdown().await.unwrap();
}
