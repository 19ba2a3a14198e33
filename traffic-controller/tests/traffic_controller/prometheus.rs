//! Queries over several caches: merged, bounded, told apart by who asks; over HTTP and gRPC (contract `log-cache.md` §3).

use std::net::SocketAddr;

use proto::logcache::v1::prom_ql::{self, instant_query_result, range_query_result};
use proto::logcache::v1::prom_ql_querier_client::PromQlQuerierClient;
use proto::v2::Envelope;
use serde_json::{Value, json};
use telemetry::Telemetry;
use tonic::Code;
use traffic_controller::{Config, Handle};
use transport::{ChannelOptions, channel};

use crate::auth::rest;
use crate::cache::{Cache, nobody};

const SECOND: i64 = 1_000_000_000;

async fn controller(dopplers: impl IntoIterator<Item = SocketAddr>) -> Handle {
    Config::for_test().dopplers(dopplers).bind(&Telemetry::default()).await.unwrap().spawn()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// The status and the JSON of an answer.
async fn ask(addr: SocketAddr, path: &str, params: &[(&str, &str)]) -> (u16, Value) {
    let query: Vec<String> = params.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let answer = rest(addr, &format!("/api/v1/{path}?{}", query.join("&")), &[]).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn query(addr: SocketAddr, query: &str, time: f64) -> Value {
    let (status, json) = ask(addr, "query", &[("query", query), ("time", &time.to_string())]).await;
    assert_eq!(status, 200, "{query}: {json}");
    json["data"]["result"].clone()
}

fn gauge(source: &str, name: &str, value: f64, second: i64) -> Envelope {
    Envelope::gauge(source, name, value, "u").at(second * SECOND)
}

/// One series in two caches, as after a doppler was away, and another in one.
#[tokio::test]
async fn samples_of_all_dopplers_are_one_series() {
    let (one, two) = (Cache::start(), Cache::start());
    one.put((0..50).map(|i| gauge("app", "g", i as f64, 1000 + i)));
    two.put((50..100).map(|i| gauge("app", "g", i as f64, 1000 + i)));
    two.put([gauge("app", "other", 7.0, 1090).instance("1")]);
    let up = controller([one.addr, two.addr]).await;
    let rest = up.addrs().rest;
    let value = |text: &str| json!([{ "metric": { "source_id": "app" }, "value": [1099.5, text] }]);
    assert_eq!(query(rest, r#"count_over_time(g{source_id="app"}[5m])"#, 1099.5).await, value("100"));
    assert_eq!(query(rest, r#"sum_over_time(g{source_id="app"}[100s])"#, 1099.5).await, value("4950"));
    assert_eq!(
        query(rest, r#"sum(g{source_id="app"}) + sum(other{source_id="app"})"#, 1099.5).await[0]["value"][1],
        "106"
    );
    let range = [("query", r#"g{source_id="app"} > 0"#), ("start", "1040"), ("end", "1060.5"), ("step", "5s")];
    let (_, json) = ask(rest, "query_range", &range).await;
    let values: Vec<(f64, String)> = serde_json::from_value(json["data"]["result"][0]["values"].clone()).unwrap();
    let expected: Vec<(f64, String)> =
        (0..5).map(|i| (1040.0 + 5.0 * f64::from(i), (40 + 5 * i).to_string())).collect();
    assert_eq!(values, expected);
    assert!(json.get("warnings").is_none());
}

#[tokio::test]
async fn who_could_not_be_asked_is_named_and_nobody_at_all_is_an_error() {
    let one = Cache::start();
    one.put([gauge("app", "g", 3.0, 1000)]);
    let away = nobody();
    let up = controller([one.addr, away]).await;
    let params = [("query", r#"g{source_id="app"}"#), ("time", "1001")];
    let (status, json) = ask(up.addrs().rest, "query", &params).await;
    assert_eq!((status, &json["data"]["result"][0]["value"][1]), (200, &json!("3")));
    assert!(json["warnings"][0].as_str().unwrap().contains(&away.to_string()), "{json}");
    let up = controller([away]).await;
    let (status, json) = ask(up.addrs().rest, "query", &params).await;
    assert_eq!((status, &json["status"]), (503, &json!("error")));
}

#[tokio::test]
async fn what_there_is_can_be_listed() {
    let one = Cache::start();
    one.put([
        gauge("app", "cpu.load", 1.0, 1000).tag("job", "web").instance("0"),
        Envelope::counter("app", "hits", 1).at(1000 * SECOND).tag("job", "api"),
        Envelope::timer("other", "http", 0, 5).at(1000 * SECOND),
        Envelope::log("quiet", "no metrics").at(1000 * SECOND),
    ]);
    let up = controller([one.addr]).await;
    let rest = up.addrs().rest;
    let data = async |path: &str, params: &[(&str, &str)]| {
        let (status, json) = ask(rest, path, params).await;
        assert_eq!((status, &json["status"]), (200, &json!("success")), "{path}: {json}");
        json["data"].clone()
    };
    assert_eq!(data("labels", &[]).await, json!(["__name__", "instance_id", "job", "source_id"]));
    assert_eq!(data("label/__name__/values", &[]).await, json!(["cpu_load", "hits", "http"]));
    assert_eq!(data("label/source_id/values", &[]).await, json!(["app", "other", "quiet"]));
    let hits = [("match[]", r#"{__name__="hits"}"#)];
    assert_eq!(data("label/job/values", &hits).await, json!(["api"]));
    assert_eq!(data("series", &hits).await, json!([{ "__name__": "hits", "job": "api", "source_id": "app" }]));
    let other = [("match[]", r#"{source_id="other"}"#), ("start", "900"), ("end", "1100")];
    assert_eq!(data("series", &other).await, json!([{ "__name__": "http", "source_id": "other" }]));
    assert_eq!(data("series", &[other[0], ("start", "2000"), ("end", "3000")]).await, json!([]));
    let metadata = data("metadata", &[]).await;
    assert_eq!(metadata["hits"], json!([{ "type": "counter", "help": "", "unit": "" }]));
    assert_eq!(metadata["cpu_load"][0]["unit"], "u");
    assert_eq!(data("metadata", &[("metric", "http")]).await.as_object().unwrap().len(), 1);
    assert_eq!(data("status/buildinfo", &[]).await["version"], "2.42.0");
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_and_hurt_nobody() {
    let one = Cache::start();
    for some in 0..4 {
        one.put((some * 5000..(some + 1) * 5000).map(|i| gauge("app", "g", 1.0, 1000 + i / 20)));
    }
    let up = controller([one.addr]).await;
    let page = up.addrs().http;
    let deep = format!("{}1{}", "(".repeat(3000), ")".repeat(3000));
    let wide = format!("1{}", "+1".repeat(2500));
    let long = format!(r#"g{{source_id="app",x=~"{}"}}"#, "a".repeat(300));
    let range = |query, step| [("query", query), ("start", "1000"), ("end", "2000"), ("step", step)];
    for (path, params, status, what) in [
        ("query", vec![("query", "g{")], 400, "unexpected"),
        ("query", vec![("query", "g")], 400, "does not have a 'source_id' label"),
        ("query", vec![("query", r#"g{source_id!="app"}"#)], 400, "source_id"),
        ("query", vec![("query", deep.as_str())], 400, "quer"),
        ("query", vec![("query", wide.as_str())], 400, "quer"),
        ("query", vec![("query", long.as_str())], 400, "regular expression"),
        ("query", vec![("query", "1"), ("time", "noon")], 400, "noon"),
        ("query_range", range("1", "0").to_vec(), 400, "step"),
        ("query_range", range("1", "-5").to_vec(), 400, "step"),
        ("query_range", range("1", "0.0000001").to_vec(), 400, "step"),
        ("query_range", vec![("query", "1"), ("start", "0"), ("end", "1e12"), ("step", "1")], 400, "11000"),
        ("query_range", range(r#"g{source_id="app"}[5m]"#, "60").to_vec(), 400, "range vector"),
        ("query", vec![("query", r#"max_over_time(g{source_id="app"}[100000d:1ms])"#)], 500, "samples"),
        ("query", vec![("query", r#"g{source_id="app"} + on() group_left() g{source_id="app"}[5m]"#)], 400, ""),
        ("series", vec![], 400, "match[]"),
        ("series", vec![("match[]", "sum(x)")], 400, "selector"),
        ("labels", vec![("start", "yesterday")], 400, "yesterday"),
    ] {
        let (got, json) = ask(page, path, &params).await;
        let error = json["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(what), "{path} {params:.100?}: {got} {error}");
        assert_eq!(query(page, r#"count(g{source_id="app"})"#, 1500.0).await[0]["value"][1], "1");
    }
}

#[tokio::test]
async fn the_same_over_grpc() {
    let one = Cache::start();
    one.put((0..10).map(|i| gauge("app", "g", i as f64, 1000 + i).instance("0")));
    let up = controller([one.addr]).await;
    // From a traffic controller and from a cache itself.
    for addr in [up.addrs().grpc, one.addr] {
        let mut client = PromQlQuerierClient::new(channel(&addr.into(), &ChannelOptions::default()));
        let instant =
            |query: &str, time: &str| prom_ql::InstantQueryRequest { query: query.to_owned(), time: time.to_owned() };
        let answer = client.instant_query(instant(r#"g{source_id="app"}"#, "1009.5")).await.unwrap().into_inner();
        let Some(instant_query_result::Result::Vector(vector)) = answer.result else { panic!("{answer:?}") };
        assert_eq!(vector.samples[0].metric["instance_id"], "0");
        let point = vector.samples[0].point.as_ref().unwrap();
        assert_eq!((point.time.as_str(), point.value), ("1009.500", 9.0));
        let answer = client.instant_query(instant("time()", "5")).await.unwrap().into_inner();
        assert!(matches!(answer.result, Some(instant_query_result::Result::Scalar(scalar)) if scalar.value == 5.0));
        let range = prom_ql::RangeQueryRequest {
            query: r#"sum(g{source_id="app"})"#.to_owned(),
            start: "1000".to_owned(),
            end: "1004.5".to_owned(),
            step: "2s".to_owned(),
        };
        let answer = client.range_query(range.clone()).await.unwrap().into_inner();
        let Some(range_query_result::Result::Matrix(matrix)) = answer.result else { panic!("{answer:?}") };
        let values: Vec<f64> = matrix.series[0].points.iter().map(|point| point.value).collect();
        assert_eq!(values, [0.0, 2.0, 4.0]);
        for wrong in [instant("g", ""), instant("g{", ""), instant("1", "noon")] {
            assert_eq!(client.instant_query(wrong).await.unwrap_err().code(), Code::Unknown);
        }
        let wrong = prom_ql::RangeQueryRequest { step: "0".to_owned(), ..range };
        assert_eq!(client.range_query(wrong).await.unwrap_err().code(), Code::Unknown);
    }
}
