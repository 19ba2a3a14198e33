//! `/firehose/{id}` and `/apps/{guid}/stream` with a WebSocket client.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use proto::events::envelope::EventType;
use proto::selector::Selector;
use proto::{events, raw, v2};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use traffic_controller::{Config, Handle};

use crate::doppler::{Doppler, Stream};
use crate::http::ask;

pub(crate) type Client = WebSocketStream<TcpStream>;

const GUID: &str = "b3015d69-09cd-476d-aace-ad2d824d5ab7";

/// Opens a WebSocket with more headers than a client needs; the answer's status where it is refused.
pub(crate) async fn open(addr: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, StatusCode> {
    let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    match client_async(request, TcpStream::connect(addr).await.unwrap()).await {
        Ok((client, answer)) => {
            assert!(answer.headers().get("sec-websocket-extensions").is_none());
            Ok(client)
        }
        Err(Error::Http(answer)) => Err(answer.status()),
        Err(error) => panic!("{error}"),
    }
}

/// A traffic controller with a doppler, and a client with the stream that the doppler sees of it.
async fn consumer(path: &str) -> (Handle, Doppler, Stream, Client) {
    let mut doppler = Doppler::start();
    let controller = Config::for_test().dopplers([doppler.addr]).bind(&Telemetry::default()).await.unwrap().spawn();
    let client = open(controller.addrs().http, path, &[]).await.unwrap();
    let stream = doppler.stream().await;
    (controller, doppler, stream, client)
}

/// The next message that is no ping.
async fn message(client: &mut Client) -> Message {
    loop {
        match client.next().await.expect("a message").expect("a good message") {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

/// The next envelope.
async fn envelope(client: &mut Client) -> events::Envelope {
    match message(client).await {
        Message::Binary(payload) => events::Envelope::decode(payload).expect("a v1 envelope"),
        other => panic!("{other:?}"),
    }
}

fn closed(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

fn kinds(request: &v2::EgressBatchRequest) -> Vec<raw::Kind> {
    request.selectors.iter().map(|selector| Selector::from_wire(selector).unwrap().rule.kind()).collect()
}

#[tokio::test]
async fn a_firehose_shows_every_kind_as_the_dropsonde_it_becomes() {
    let (_controller, _doppler, stream, mut client) = consumer("/firehose/my-id").await;
    assert_eq!(stream.request.shard_id, "firehose/all/my-id");
    assert!(stream.request.selectors.iter().all(|selector| selector.source_id.is_empty()));
    assert!(!kinds(&stream.request).contains(&raw::Kind::Event));

    let log = v2::Envelope::log("my-app", "hello").at(5).instance("3").tag("origin", "rep").tag("source_type", "APP");
    let timer = v2::Envelope::timer(GUID, "http", 1, 2).tag("request_id", GUID).tag("method", "GET");
    stream.send(&[log.err(), v2::Envelope::counter("c", "requests", 7).instance("1")]).await;
    stream.send(&[timer, v2::Envelope::gauge("g", "temperature", 21.5, "C")]).await;

    let log = envelope(&mut client).await;
    assert_eq!((log.origin.as_str(), log.timestamp, log.event_type()), ("rep", Some(5), EventType::LogMessage));
    let message = log.log_message.unwrap();
    assert_eq!((message.message.as_ref(), message.app_id(), message.source_instance()), (&b"hello"[..], "my-app", "3"));
    assert_eq!((message.source_type(), message.message_type()), ("APP", events::log_message::MessageType::Err));
    let counter = envelope(&mut client).await;
    assert_eq!(counter.tags["instance_id"], "1");
    let counter = counter.counter_event.unwrap();
    assert_eq!((counter.name.as_str(), counter.delta), ("requests", 7));
    let request = envelope(&mut client).await.http_start_stop.unwrap();
    assert_eq!((request.start_timestamp, request.stop_timestamp), (1, 2));
    assert_eq!(request.request_id.low, 7_874_487_913_786_704_307);
    let value = envelope(&mut client).await.value_metric.unwrap();
    assert_eq!((value.name.as_str(), value.value, value.unit.as_str()), ("temperature", 21.5, "C"));
}

#[tokio::test]
async fn filters_ask_for_what_they_show_and_show_nothing_else() {
    let error = v2::Envelope::log("a", "bad").tag("__v1_type", "Error").tag("code", "3");
    let mixed = [v2::Envelope::log("a", "line"), error, v2::Envelope::counter("a", "c", 1)];

    let (_controller, _doppler, stream, mut client) = consumer("/firehose/x?filter-type=logs").await;
    assert_eq!((stream.request.shard_id.as_str(), kinds(&stream.request)), ("firehose/logs/x", vec![raw::Kind::Log]));
    stream.send(&mixed).await;
    stream.send(&[v2::Envelope::log("a", "end")]).await;
    assert_eq!(envelope(&mut client).await.log_message.unwrap().message, b"line".as_slice());
    assert_eq!(envelope(&mut client).await.log_message.unwrap().message, b"end".as_slice());

    let (_controller, _doppler, stream, mut client) = consumer("/firehose/x?filter-type=metrics").await;
    assert_eq!(stream.request.shard_id, "firehose/metrics/x");
    stream.send(&mixed).await;
    assert_eq!(envelope(&mut client).await.error.unwrap().code, 3);
    assert_eq!(envelope(&mut client).await.event_type(), EventType::CounterEvent);
}

#[tokio::test]
async fn an_app_stream_is_of_one_app_and_shared_with_nobody() {
    let (_controller, _doppler, stream, mut client) = consumer(&format!("/apps/{GUID}/stream")).await;
    assert_eq!(stream.request.shard_id, "");
    assert!(stream.request.selectors.iter().all(|selector| selector.source_id == GUID));
    assert_eq!(kinds(&stream.request), [raw::Kind::Log, raw::Kind::Gauge, raw::Kind::Timer]);
    stream.send(&[v2::Envelope::gauge(GUID, "custom", 1.0, ""), v2::Envelope::log(GUID, "line")]).await;
    assert_eq!(envelope(&mut client).await.log_message.unwrap().message, b"line".as_slice());
}

#[tokio::test]
async fn a_client_that_closes_is_answered_and_its_streams_are_closed() {
    let (_controller, _doppler, stream, mut client) = consumer("/firehose/x").await;
    client.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await.unwrap();
    assert_eq!(message(&mut client).await, closed(CloseCode::Normal, ""));
    stream.closed().await;
}

#[tokio::test]
async fn a_client_that_vanishes_closes_its_streams() {
    let (_controller, _doppler, stream, client) = consumer("/firehose/x").await;
    drop(client);
    stream.closed().await;
}

#[tokio::test]
async fn pings_come_again_after_each_pong() {
    let mut config = Config::for_test();
    config.http.ping_interval = Duration::from_millis(1);
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let mut client = open(controller.addrs().http, "/firehose/x", &[]).await.unwrap();
    for _ in 0..3 {
        // The library answers each with the next read.
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Ping(bytes::Bytes::new()));
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_with_1008() {
    let mut config = Config::for_test();
    config.http.pong_timeout = Duration::from_millis(50);
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /firehose/x HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let frames = &answer[answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4..];
    let reason = b"Client did not respond to ping before keep-alive timeout expired.";
    let mut expected = vec![0x89, 0, 0x88, u8::try_from(2 + reason.len()).unwrap(), 0x03, 0xf0];
    expected.extend_from_slice(reason);
    assert_eq!(frames, expected);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_what_it_loses_is_counted() {
    let mut doppler = Doppler::start();
    let mut config = Config::for_test().dopplers([doppler.addr]);
    config.http.slow_consumer_timeout = Duration::from_millis(100);
    // No time to read again: the cut is at once.
    config.http.write_timeout = Duration::from_millis(100);
    let telemetry = Telemetry::default();
    let controller = config.bind(&telemetry).await.unwrap().spawn();
    let mut client = open(controller.addrs().http, "/firehose/x", &[]).await.unwrap();
    let stream = doppler.stream().await;
    let large = v2::Envelope::log("a", vec![b'x'; 500_000]);
    let mut sent = 0;
    // Until the traffic controller closes the stream: more than the kernel holds in sockets.
    loop {
        tokio::select! {
            biased;
            () = stream.closed() => break,
            () = stream.send(std::slice::from_ref(&large)) => sent += 1,
        }
    }
    let mut read = 0;
    let cut = loop {
        match client.next().await {
            Some(Ok(Message::Binary(_))) => read += 1,
            Some(Ok(Message::Ping(_))) => {}
            other => break other,
        }
    };
    assert!(!matches!(cut, Some(Ok(Message::Close(_)))), "cut without a close frame: {cut:?}");
    assert!(read < sent);
    let drained = controller.shutdown().await.unwrap();
    assert_eq!(drained.flushed, 0);
    let text = telemetry.render();
    assert!(text.contains("hydrant_slow_consumers_total 1"), "{text}");
    let value = |series: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.expect(series).parse().unwrap()
    };
    let dropped =
        |reason| value(&format!("hydrant_dropped_envelopes_total{{stage=\"traffic_controller\",reason=\"{reason}\"}}"));
    assert!(dropped("slow_consumer") > 0);
    assert_eq!(
        value("hydrant_received_envelopes_total{stage=\"traffic_controller\"}"),
        value("hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}")
            + dropped("slow_consumer")
            + dropped("queue_full")
            + dropped("peer_lost")
    );
}

#[tokio::test]
async fn consumers_beyond_the_bound_are_answered_503() {
    let mut config = Config::for_test();
    config.http.max_consumers = NonZeroU32::new(1).unwrap();
    let telemetry = Telemetry::default();
    let controller = config.bind(&telemetry).await.unwrap().spawn();
    let addr = controller.addrs().http;
    let mut first = open(addr, "/firehose/x", &[]).await.unwrap();
    assert_eq!(open(addr, "/firehose/y", &[]).await.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(open(addr, &format!("/apps/{GUID}/stream"), &[]).await.unwrap_err(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(telemetry.render().contains("hydrant_websocket_rejected_total 2"));
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    // The place is given back when the session's task has ended, which is after its last frame: ask until then.
    while open(addr, "/firehose/y", &[]).await.is_err() {}
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_as_the_contract_says() {
    let controller = Config::for_test().bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().http;
    for (method, path) in [("GET", "/firehose/x".to_owned()), ("POST", format!("/apps/{GUID}/stream"))] {
        let answer = ask(addr, method, &path, &[]).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("sec-websocket-version: 13\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nBad Request\n"), "{answer}");
    }
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = ask(addr, "POST", "/firehose/x", &handshake).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn a_stop_sends_what_is_left_and_closes_with_1000() {
    let (controller, _doppler, stream, mut client) = consumer("/firehose/x").await;
    let many: Vec<_> = (0..500).map(|i| v2::Envelope::log("a", i.to_string()).at(i)).collect();
    stream.send(&many).await;
    // The first one tells that all of its batch have arrived.
    assert_eq!(envelope(&mut client).await.timestamp, Some(0));
    let (drained, ()) = tokio::join!(controller.shutdown(), async {
        for i in 1..500 {
            assert_eq!(envelope(&mut client).await.timestamp, Some(i));
        }
        assert_eq!(message(&mut client).await, closed(CloseCode::Normal, ""));
        client.flush().await.unwrap();
        assert!(client.next().await.is_none());
    });
    assert_eq!(drained.unwrap().dropped, 0);
    stream.closed().await;
}
