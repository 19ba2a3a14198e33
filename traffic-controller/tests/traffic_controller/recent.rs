//! The log cache over HTTP: the answers that the original gives, and those of several dopplers together.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::raw::wire;
use proto::v2::{Envelope, EnvelopeBatch};
use serde_json::{Value, json};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use traffic_controller::{Config, Handle};
use transport::{ChannelOptions, channel};

use crate::cache::{Cache, nobody};

pub(crate) const VECTORS: &str = include_str!("../fixtures/logcache-rest.jsonl");

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found =
            self.head.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.trim())
    }

    /// The payloads of a read, as text.
    fn payloads(&self) -> Vec<String> {
        let payload = |envelope: &Value| {
            let bytes = STANDARD.decode(envelope["log"]["payload"].as_str().unwrap()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        self.json()["envelopes"]["batch"].as_array().unwrap().iter().map(payload).collect()
    }
}

pub(crate) async fn send(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &str,
) -> Answer {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

async fn get(addr: SocketAddr, target: &str) -> Answer {
    send(addr, "GET", target, &[], "").await
}

async fn controller(dopplers: impl IntoIterator<Item = SocketAddr>) -> Handle {
    Config::for_test().dopplers(dopplers).bind(&Telemetry::default()).await.unwrap().spawn()
}

/// A cache filled as the vectors' first line says.
pub(crate) async fn filled(store: &Value) -> Cache {
    let cache = Cache::start();
    for envelopes in store["sources"].as_object().unwrap().values() {
        let mut batch = Vec::new();
        for envelope in envelopes.as_array().unwrap() {
            wire::put_bytes(&mut batch, 1, &STANDARD.decode(envelope["b64"].as_str().unwrap()).unwrap());
        }
        cache.send(batch).await;
    }
    cache.put((0..1300).map(|i| Envelope::log("many", "m").at(1_712_345_678_000_000_000 + i)));
    cache
}

/// Every vector of the gateway but those of PromQL: same status, same headers of note, same JSON.
#[tokio::test]
async fn answers_are_those_of_the_original() {
    let mut lines = VECTORS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let store = lines.next().unwrap();
    assert_eq!(store["id"], "_store");
    let cache = filled(&store).await;
    let up = controller([cache.addr]).await;
    let down = controller([nobody()]).await;
    let mut run = 0;
    for vector in lines {
        let request = &vector["request"];
        let target = request["target"].as_str().unwrap();
        let id = vector["id"].as_str().unwrap();
        if id == "node-down-query" {
            // `1` needs no cache: it is 1 here, also when there is none.
            continue;
        }
        if request["to"] != "log-cache gateway" {
            continue;
        }
        // What the original does not serve, and this does: see the tests of `prometheus.rs`.
        let beyond = ["labels", "series", "metadata", "status/buildinfo", "label/__name__/values"];
        if beyond.iter().any(|path| target == format!("/api/v1/{path}")) {
            continue;
        }
        let headers: Vec<(String, String)> = request["headers"]
            .as_object()
            .map(|headers| {
                headers.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
            })
            .unwrap_or_default();
        let addr = if id.starts_with("node-down") { down.addrs().rest } else { up.addrs().rest };
        let body = request["body"].as_str().unwrap_or_default();
        let answer = send(addr, request["method"].as_str().unwrap(), target, &headers, body).await;
        compare(id, &vector, &answer);
        run += 1;
    }
    assert_eq!(run, 134, "vectors of read, meta, info, queries and unknown paths");
}

pub(crate) fn compare(id: &str, vector: &Value, answer: &Answer) {
    if id != "query:string" && id != "query:not-equal-acts-as-equal" {
        assert_eq!(answer.status, vector["status"], "{id}: {}", answer.body);
    }
    for name in ["content-type", "grpc-metadata-content-type"] {
        if id == "query:string" {
            continue;
        }
        assert_eq!(answer.header(name), vector["headers"][name].as_str(), "{id}: {name}");
    }
    if vector["request"]["target"].as_str().is_some_and(|target| target.contains("/api/v1/query")) {
        return compare_query(id, vector, answer);
    }
    if vector["request"]["method"] == "HEAD" {
        return assert_eq!(answer.body, "", "{id}");
    }
    assert!(answer.body.ends_with('\n'), "{id}: {:?}", answer.body);
    let mut expected = vector["body_json"].clone();
    let body = answer.json();
    match id {
        // Both values vary; clients read a version and a number.
        "info" | "info-post" => {
            let version: Vec<u32> =
                body["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
            assert!(version.len() == 3 && version >= vec![2, 1, 0], "{version:?}");
            assert!(body["vm_uptime"].as_str().unwrap().parse::<u64>().is_ok());
        }
        // The original was set up to keep 1200 envelopes of a source. This cache is bounded in bytes, and keeps them all.
        "meta" | "meta-local" => {
            let many = json!({
                "count": "1300", "expired": "0",
                "oldest_timestamp": "1712345678000000000", "newest_timestamp": "1712345678000001299",
            });
            let was = expected["meta"].as_object_mut().unwrap().insert("many".to_owned(), many);
            assert_eq!(was.unwrap()["count"], "1200");
            assert_eq!(body, expected, "{id}");
        }
        // The text is of the original's client library.
        _ if id.starts_with("node-down") => assert_eq!(body["code"], 14, "{id}"),
        _ if !vector["body_envelopes"].is_null() => {
            assert_eq!(body["envelopes"]["batch"].as_array().unwrap().len(), vector["body_envelopes"], "{id}");
        }
        _ => assert_eq!(body, expected, "{id}"),
    }
}

#[tokio::test]
async fn reads_of_several_dopplers_are_one() {
    let (a, b) = (Cache::start(), Cache::start());
    a.put((0..300).filter(|i| i % 3 == 0).map(|i| Envelope::log("app", i.to_string()).at(i)));
    b.put((0..300).filter(|i| i % 3 != 0).map(|i| Envelope::log("app", i.to_string()).at(i)));
    let controller = controller([a.addr, b.addr]).await;
    let addr = controller.addrs().rest;
    let numbers = |range: std::ops::Range<usize>| range.map(|i| i.to_string()).collect::<Vec<_>>();
    let answer = get(addr, "/api/v1/read/app").await;
    assert_eq!(answer.payloads(), numbers(0..100));
    assert_eq!(answer.header("x-hydrant-partial"), None);
    assert_eq!(get(addr, "/api/v1/read/app?limit=1000").await.payloads(), numbers(0..300));
    assert_eq!(get(addr, "/api/v1/read/app?start_time=50&end_time=60").await.payloads(), numbers(50..60));
    let mut newest = numbers(290..300);
    newest.reverse();
    assert_eq!(get(addr, "/api/v1/read/app?descending=true&limit=10").await.payloads(), newest);

    a.put([Envelope::log("app", "tie a").at(500), Envelope::log("app", "tie a2").at(500)]);
    b.put([Envelope::log("app", "tie b").at(500)]);
    let ties = get(addr, "/api/v1/read/app?start_time=500&limit=1").await;
    assert_eq!(ties.payloads(), ["tie a", "tie a2", "tie b"], "a run of equal timestamps is not split");

    let meta = get(addr, "/api/v1/meta").await.json();
    let expected = json!({ "count": "303", "expired": "0", "oldest_timestamp": "0", "newest_timestamp": "500" });
    assert_eq!(meta["meta"]["app"], expected);
}

#[tokio::test]
async fn an_answer_without_some_doppler_says_so() {
    let cache = Cache::start();
    cache.put([Envelope::log("app", "here").at(1)]);
    let away = nobody();
    let controller = controller([away, cache.addr]).await;
    for target in ["/api/v1/read/app", "/api/v1/meta"] {
        let answer = get(controller.addrs().rest, target).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-hydrant-partial"), Some(away.to_string().as_str()), "{target}");
    }
    assert_eq!(get(controller.addrs().rest, "/api/v1/read/app").await.payloads(), ["here"]);
    // Wrong is wrong, whoever is away.
    let answer = get(controller.addrs().rest, "/api/v1/read/app?limit=1001").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (500, Some(2)));
}

#[tokio::test]
async fn without_any_doppler_it_is_unavailable() {
    let controller = controller([]).await;
    let answer = get(controller.addrs().rest, "/api/v1/read/app").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (503, Some(14)));
}

/// Clients halve their limit on exactly this status.
#[tokio::test]
async fn an_answer_over_fifty_megabytes_is_429_and_a_smaller_one_is_not() {
    let (a, b) = (Cache::start(), Cache::start());
    for cache in [&a, &b] {
        // 30 MB each: every doppler can answer, together it is too much.
        for i in 0..30 {
            cache.put([Envelope::log("app", vec![b'x'; 1_000_000]).at(i)]);
        }
    }
    let controller = controller([a.addr, b.addr]).await;
    let answer = get(controller.addrs().rest, "/api/v1/read/app?limit=1000").await;
    assert_eq!((answer.status, answer.json()["code"].as_i64()), (429, Some(8)));
    assert!(answer.json()["message"].as_str().unwrap().starts_with("grpc: received message larger than max ("));
    let answer = get(controller.addrs().rest, "/api/v1/read/app?limit=10").await;
    assert_eq!((answer.status, answer.payloads().len()), (200, 10));
}

#[tokio::test]
async fn forms_may_name_another_method_and_ids_have_a_limit() {
    let cache = Cache::start();
    let controller = controller([cache.addr]).await;
    let form = ("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned());
    let other = ("X-HTTP-Method-Override".to_owned(), "put".to_owned());
    let addr = controller.addrs().rest;
    assert_eq!(send(addr, "POST", "/api/v1/read/a", &[form.clone(), other.clone()], "").await.status, 501);
    assert_eq!(send(addr, "POST", "/api/v1/read/a", &[form], "limit=1&limit=2").await.status, 400);
    assert_eq!(send(addr, "GET", "/api/v1/read/a", &[other], "").await.status, 200, "it counts with a form only");
    assert_eq!(get(addr, &format!("/api/v1/read/{}", "x".repeat(257))).await.status, 400);
    assert_eq!(get(addr, "/api/v1/read/a%zz").await.status, 400);
}

/// Results are the original's, number by number; errors have its kind and status, and a text of ours.
fn compare_query(id: &str, vector: &Value, answer: &Answer) {
    if id == "path:/api/v1/query/" {
        return assert_eq!(answer.json()["code"], 5);
    }
    let expected: Value = serde_json::from_str(vector["body"].as_str().unwrap()).unwrap();
    let body = answer.json();
    let data = |json: &Value| json["data"].clone();
    match id {
        // It compares as if it were `=`; here it compares.
        "query:not-equal-acts-as-equal" => assert_eq!(data(&body)["result"], json!([])),
        // There is a result for it.
        "query:string" => {
            assert_eq!(data(&body), json!({ "resultType": "string", "result": [1_712_345_978.0, "text"] }))
        }
        // Its fraction is cut, not rounded.
        "query:time-fraction" => {
            assert_eq!(data(&body)["result"][0]["value"], json!([1_712_345_978.25, "140"]));
        }
        _ if expected["status"] == "success" => {
            let sorted = |json: &Value| {
                let mut data = data(json);
                if let Some(result) =
                    data["result"].as_array_mut().filter(|result| result.first().is_some_and(Value::is_object))
                {
                    result.sort_by_key(|series| series["metric"].to_string());
                }
                data
            };
            // Later releases multiply in another order: the last digit of a rate may differ.
            let rounded =
                |json: &Value| sorted(json).to_string().replace("\"0.1333333333333333\"", "\"0.13333333333333333\"");
            assert_eq!(rounded(&body), rounded(&expected), "{id}");
        }
        _ => {
            assert_eq!((&body["status"], &body["errorType"]), (&expected["status"], &expected["errorType"]), "{id}");
            assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{id}");
        }
    }
}

/// What the HTTP port answers, as messages.
#[tokio::test]
async fn the_same_over_grpc() {
    let (one, two) = (Cache::start(), Cache::start());
    one.put([Envelope::log("app", "first").at(1), Envelope::log("app", "third").at(3)]);
    two.put([Envelope::log("app", "second").at(2), Envelope::log("other", "x").at(9)]);
    let away = nobody();
    let up = controller([one.addr, two.addr, away]).await;
    let mut client = EgressClient::new(channel(&up.addrs().grpc.into(), &ChannelOptions::default()));
    let request =
        v1::ReadRequest { source_id: "app".to_owned(), descending: true, limit: 2, ..v1::ReadRequest::default() };
    let answer = client.read(request.clone()).await.unwrap();
    assert_eq!(answer.metadata().get("x-hydrant-partial").unwrap(), &away.to_string());
    let batch = EnvelopeBatch::decode(answer.into_inner().envelopes.unwrap()).unwrap().batch;
    let texts: Vec<&[u8]> = batch.iter().map(Envelope::payload).collect();
    assert_eq!(texts, [b"third".as_slice(), b"second"]);
    let meta = client.meta(v1::MetaRequest::default()).await.unwrap().into_inner().meta;
    assert_eq!((meta["app"].count, meta["app"].oldest_timestamp, meta["other"].newest_timestamp), (3, 1, 9));
    let wrong = v1::ReadRequest { limit: 1001, ..request.clone() };
    let status = client.read(wrong).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "limit (1001) must be 1000 or less"));
    let long = v1::ReadRequest { source_id: "x".repeat(257), ..request };
    assert_eq!(client.read(long).await.unwrap_err().code(), Code::InvalidArgument);
}
