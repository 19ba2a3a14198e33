//! `/v2/read` and `/v2/stream`: the sections of the contract (loggregator v2 §12), and what we add to them.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use proto::v2;
use proto::v2::selector::Message as Select;
use serde_json::{Value, json};
use telemetry::Telemetry;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::StatusCode;
use traffic_controller::{Config, Handle};

use crate::cache::{Cache, put};
use crate::doppler::Doppler;
use crate::firehose::{self, open};
use crate::http::ask;

async fn controller(config: Config) -> Handle {
    config.bind(&Telemetry::default()).await.unwrap().spawn()
}

/// An open stream of events.
struct Sse {
    head: String,
    body: BufReader<TcpStream>,
    read: Vec<u8>,
}

impl Sse {
    async fn open(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let socket = TcpStream::connect(addr).await.unwrap();
        let mut body = BufReader::new(socket);
        let mut request = format!("GET {target} HTTP/1.1\r\nHost: {addr}\r\n");
        headers.iter().for_each(|(name, value)| request += &format!("{name}: {value}\r\n"));
        body.get_mut().write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(body.read_line(&mut head).await.unwrap() > 0, "{head}");
        }
        Self { head, body, read: Vec::new() }
    }

    /// The next event without its blank line; `None` at the end of the body.
    async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event = self.read.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(event).unwrap());
            }
            let mut size = String::new();
            self.body.read_line(&mut size).await.unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.body.read_exact(&mut chunk).await.unwrap();
            if size == 0 {
                assert!(self.read.is_empty());
                return None;
            }
            self.read.extend_from_slice(&chunk[..size]);
        }
    }

    /// The payloads of the next event, which is a batch, and the place behind it.
    async fn lines(&mut self) -> (Vec<String>, Option<String>) {
        let event = self.event().await.expect("an event");
        let data = event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event}"));
        let (data, id) = data.split_once("\nid: ").map_or((data, None), |(data, id)| (data, Some(id.to_owned())));
        (payloads(&serde_json::from_str(data).unwrap()), id)
    }
}

/// The payloads of `{"batch":[…]}`.
fn payloads(value: &Value) -> Vec<String> {
    let payload = |envelope: &Value| STANDARD.decode(envelope["log"]["payload"].as_str().unwrap()).unwrap();
    let batch = value["batch"].as_array().unwrap_or_else(|| panic!("{value}"));
    batch.iter().map(|envelope| String::from_utf8(payload(envelope)).unwrap()).collect()
}

#[tokio::test]
async fn section_12_1_the_query_becomes_selectors() {
    let mut doppler = Doppler::start();
    let controller = controller(Config::for_test().dopplers([doppler.addr])).await;
    let query = "/v2/read?gauge.name=cpu,memory&log&counter&counter.name=c&source_id=a&source_id=b&shard_id=s&deterministic_name=d";
    let sse = Sse::open(controller.addrs().gateway, query, &[]).await;
    let head = sse.head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    for header in ["content-type: text/event-stream\r\n", "cache-control: no-cache\r\n", "connection: keep-alive\r\n"] {
        assert!(head.contains(header), "{head}");
    }
    let request = doppler.stream().await.request;
    assert_eq!((request.shard_id.as_str(), request.deterministic_name.as_str()), ("s", "d"));
    assert!(request.use_preferred_tags);
    let kinds: Vec<_> = request.selectors.into_iter().map(|one| (one.source_id, one.message.unwrap())).collect();
    let expected = |source: &str| {
        let names = vec!["cpu".to_owned(), "memory".to_owned()];
        [
            (source.to_owned(), Select::Log(v2::LogSelector {})),
            (source.to_owned(), Select::Counter(v2::CounterSelector { name: "c".to_owned() })),
            (source.to_owned(), Select::Gauge(v2::GaugeSelector { names })),
        ]
    };
    assert_eq!(kinds, [expected("a"), expected("b")].concat());
}

#[tokio::test]
async fn section_12_3_what_is_wrong_is_said_in_the_contracts_words() {
    let controller = controller(Config::for_test()).await;
    for (method, target, status, error, message) in [
        ("POST", "/v2/read?log", 405, "method_not_allowed", "method not allowed"),
        ("GET", "/v2/read", 400, "empty_query", "query cannot be empty"),
        ("GET", "/v2/read?source_id=a", 400, "missing_envelope_type", "query must provide at least one envelope type"),
    ] {
        for addr in [controller.addrs().gateway, controller.addrs().http] {
            let answer = ask(addr, method, target, &[]).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            let head = answer.to_ascii_lowercase();
            assert!(head.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
            assert!(head.contains("x-content-type-options: nosniff\r\n"), "{answer}");
            let body = format!("\r\n\r\n{{\"message\":\"{message}\",\"error\":\"{error}\"}}\n\n");
            assert!(answer.ends_with(&body), "{answer}");
        }
    }
    let answer = ask(controller.addrs().gateway, "GET", "/v1/read?log", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n404 page not found\n"), "{answer}");
}

#[tokio::test]
async fn section_12_4_batches_are_events_and_the_end_of_the_server_ends_the_body() {
    let mut doppler = Doppler::start();
    let controller = controller(Config::for_test().dopplers([doppler.addr])).await;
    let mut sse = Sse::open(controller.addrs().gateway, "/v2/read?log&gauge", &[]).await;
    let stream = doppler.stream().await;
    stream.send(&[v2::Envelope::log("a", "<one>\n").at(5).tag("k", "v")]).await;
    let event = sse.event().await.unwrap();
    assert!(!event.contains("id:"), "{event}");
    let value: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    let envelope = json!({ "timestamp": "5", "source_id": "a", "instance_id": "", "deprecated_tags": {}, "tags": { "k": "v" },
        "log": { "payload": STANDARD.encode("<one>\n"), "type": "OUT" } });
    assert_eq!(value, json!({ "batch": [envelope] }));
    drop(stream);
    controller.shutdown().await.unwrap();
    assert_eq!(sse.event().await, None);
}

#[tokio::test]
async fn section_12_4_heartbeats_and_the_closing_event() {
    let mut config = Config::for_test();
    config.gateway.heartbeat = Duration::from_millis(40);
    config.gateway.stream_timeout = Duration::from_millis(200);
    let controller = controller(config).await;
    let mut sse = Sse::open(controller.addrs().gateway, "/v2/read?log", &[]).await;
    let mut beats = 0;
    loop {
        let event = sse.event().await.expect("the closing event comes last");
        if event == "event: closing\ndata: closing due to stream timeout" {
            break;
        }
        let seconds = event.strip_prefix("event: heartbeat\ndata: ").unwrap_or_else(|| panic!("{event}"));
        assert!(seconds.parse::<u64>().unwrap() > 1_700_000_000);
        beats += 1;
    }
    assert!(beats >= 2, "{beats}");
    assert_eq!(sse.event().await, None);
}

#[tokio::test]
async fn a_stream_of_events_that_broke_goes_on_where_it_was() {
    let cache = Cache::start();
    let controller = controller(Config::for_test().dopplers([cache.addr])).await;
    cache.put((0..3).map(|i| v2::Envelope::log("a", format!("{i}")).at(i)));
    let gateway = controller.addrs().gateway;
    let mut sse = Sse::open(gateway, "/v2/read?log&source_id=a&start_time=1", &[]).await;
    let (lines, id) = sse.lines().await;
    assert_eq!(lines, ["1", "2"]);
    drop(sse);
    // Late, and missed by whoever asks by time.
    cache.put([v2::Envelope::log("a", "late").at(0), v2::Envelope::log("b", "other").at(9)]);
    let mut sse = Sse::open(gateway, "/v2/read?log&source_id=a&resume", &[("Last-Event-ID", &id.unwrap())]).await;
    assert_eq!(sse.lines().await.0, ["late"]);
    put(&cache.store, [v2::Envelope::log("a", "live").at(10)]);
    assert_eq!(sse.lines().await.0, ["live"]);
}

/// The next object of a JSON stream.
async fn object(client: &mut firehose::Client) -> Value {
    loop {
        match client.next().await.expect("a message").expect("a good message") {
            Message::Ping(_) => {}
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_json_stream_is_live_by_itself_and_shares_what_dopplers_send() {
    let mut doppler = Doppler::start();
    let controller = controller(Config::for_test().dopplers([doppler.addr])).await;
    let mut client = open(controller.addrs().http, "/v2/stream?log&source_id=a", &[]).await.unwrap();
    let stream = doppler.stream().await;
    stream.send(&[v2::Envelope::log("a", "one"), v2::Envelope::log("a", "two")]).await;
    let value = object(&mut client).await;
    assert_eq!(payloads(&value), ["one", "two"]);
    assert!(value.get("cursor").is_none());
}

#[tokio::test]
async fn a_json_stream_with_a_start_is_history_then_the_mark_then_live_and_goes_on_from_its_cursor() {
    let cache = Cache::start();
    let controller = controller(Config::for_test().dopplers([cache.addr])).await;
    cache.put((0..5).map(|i| v2::Envelope::log("a", format!("{i}")).at(i)));
    let http = controller.addrs().http;
    let mut client = open(http, "/v2/stream?log&source_id=a&start_time=3", &[]).await.unwrap();
    let value = object(&mut client).await;
    assert_eq!(payloads(&value), ["3", "4"]);
    assert_eq!(object(&mut client).await, json!({ "live": true }));
    cache.put([v2::Envelope::log("a", "live").at(9)]);
    let value = object(&mut client).await;
    assert_eq!(payloads(&value), ["live"]);
    drop(client);
    cache.put([v2::Envelope::log("a", "meanwhile").at(9), v2::Envelope::counter("a", "c", 1)]);
    let after = format!("/v2/stream?log&source_id=a&after={}", value["cursor"].as_str().unwrap());
    let mut client = open(http, &after, &[]).await.unwrap();
    assert_eq!(payloads(&object(&mut client).await), ["meanwhile"]);
}

#[tokio::test]
async fn dopplers_that_cannot_be_asked_are_named_and_those_without_a_cache_are_live() {
    let (mut original, gone) = (Doppler::start(), Doppler::start().die().await);
    let controller = controller(Config::for_test().dopplers([original.addr, gone])).await;
    let mut client = open(controller.addrs().http, "/v2/stream?log&source_id=a&start_time=-1h", &[]).await.unwrap();
    let stream = original.stream().await;
    assert_eq!(stream.request.selectors.len(), 1);
    stream.send(&[v2::Envelope::log("a", "live")]).await;
    let mut seen = [false; 3];
    while seen != [true; 3] {
        let value = object(&mut client).await;
        seen[0] |= value == json!({ "missing": [gone.to_string()] });
        seen[1] |= value == json!({ "live": true });
        seen[2] |= value.get("batch").is_some_and(|_| payloads(&value) == ["live"]);
    }
}

#[tokio::test]
async fn a_json_stream_that_asks_for_nothing_good_is_refused_before_it_opens() {
    let controller = controller(Config::for_test()).await;
    for target in
        ["/v2/stream", "/v2/stream?source_id=a", "/v2/stream?log&resume", "/v2/stream?log&source_id=a&after=x"]
    {
        let refused = open(controller.addrs().http, target, &[]).await.unwrap_err();
        assert_eq!(refused, StatusCode::BAD_REQUEST, "{target}");
    }
    let origin = [("origin", "https://evil.example")];
    assert_eq!(open(controller.addrs().http, "/v2/stream?log", &origin).await.unwrap_err(), StatusCode::FORBIDDEN);
    let plain = ask(controller.addrs().http, "GET", "/v2/stream?log", &[]).await;
    assert!(plain.starts_with("HTTP/1.1 400 "), "{plain}");
}

#[tokio::test]
async fn more_streams_than_may_be_are_turned_away() {
    let mut config = Config::for_test();
    config.gateway.max_consumers = std::num::NonZeroU32::MIN;
    let controller = controller(config).await;
    let first = Sse::open(controller.addrs().gateway, "/v2/read?log", &[]).await;
    let answer = ask(controller.addrs().gateway, "GET", "/v2/read?log", &[]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\"error\":\"streaming_unavailable\"}\n\n"), "{answer}");
    assert_eq!(
        open(controller.addrs().http, "/v2/stream?log", &[]).await.unwrap_err(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    drop(first);
}

#[tokio::test]
async fn a_consumer_of_events_that_does_not_read_is_cut_and_the_pipeline_is_told() {
    let mut doppler = Doppler::start();
    let mut config = Config::for_test().dopplers([doppler.addr]);
    config.http.slow_consumer_timeout = Duration::from_millis(100);
    let telemetry = Telemetry::default();
    let server = config.bind(&telemetry).await.unwrap();
    let told = server.losses();
    let controller = server.spawn();
    let sse =
        Sse::open(controller.addrs().gateway, "/v2/read?log&source_id=a", &[("X-Forwarded-For", "10.1.2.3")]).await;
    let stream = doppler.stream().await;
    let batch: Vec<_> = (0..8).map(|_| v2::Envelope::log("a", vec![b'x'; 100_000])).collect();
    let fill = async {
        loop {
            stream.send(&batch).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = told.event() => {}
        () = fill => unreachable!("it goes on"),
    }
    let events = told.take_events();
    let Some(v2::envelope::Message::Event(event)) = &events[0].message else { panic!("{events:?}") };
    assert_eq!(event.title, "Traffic Controller has disconnected slow consumer");
    assert!(event.body.contains("X-Forwarded-For: 10.1.2.3\nPath: /v2/read?log&source_id=a\n"), "{}", event.body);
    assert!(telemetry.render().contains("hydrant_slow_consumers_total 1"));
    drop(sse);
}
