//! The connection on a paused clock, over a pipe: pings, deadlines, closes. The client is written by hand, so that it can keep
//! silent where a library would answer.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::Bounds;
use prost::Message as _;
use proto::raw::{Batch, Limits, Selection};
use proto::{events, v2};
use telemetry::Telemetry;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::*;
use crate::fan_in::Subscription;
use crate::fan_in::rings::Ring;
use crate::firehose::feed::V1Feed;
use crate::firehose::frames::{Converter, Endpoint, Filter};

const BOUNDS: Bounds =
    Bounds { envelopes: NonZeroUsize::new(10_000).unwrap(), bytes: NonZeroUsize::new(16 * 1024 * 1024).unwrap() };

/// A served connection: its client's end, what feeds it, and how it ends.
struct Served {
    client: Client,
    ring: Arc<Ring>,
    telemetry: Telemetry,
    end: JoinHandle<End>,
}

/// Serves a firehose over a pipe that holds `pipe` bytes.
fn serve_over(pipe: usize) -> Served {
    let telemetry = Telemetry::default();
    let metrics = Metrics::register(&telemetry);
    let (ring, subscription) = Subscription::fed(BOUNDS, &metrics);
    let (client, server) = duplex(pipe);
    let converter = Converter::new(Endpoint::Firehose { id: "a".to_owned(), filter: Filter::All });
    let feed = V1Feed::new(subscription, converter, metrics.clone());
    let end = TaskTracker::new()
        .spawn(async move { serve(server, &HttpConfig::default(), feed, metrics, &mut Grant::all()).await });
    Served { client: Client(client), ring, telemetry, end }
}

/// The client's end: frames as they stand on the wire.
struct Client(DuplexStream);

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

impl Client {
    /// The next frame; `None` at the end of the stream.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let opcode = self.0.read_u8().await.ok()?;
        let size = match self.0.read_u8().await.ok()? {
            126 => usize::from(self.0.read_u16().await.ok()?),
            size => usize::from(size),
        };
        let mut payload = vec![0; size];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((opcode, payload))
    }

    /// The next data frame, decoded; pings before it are answered.
    async fn envelope(&mut self) -> events::Envelope {
        loop {
            match self.frame().await.expect("a frame") {
                (PING, _) => self.send(PONG, b"").await,
                (opcode, payload) => {
                    assert_eq!(opcode, BINARY);
                    return events::Envelope::decode(payload.as_slice()).expect("a v1 envelope");
                }
            }
        }
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let size = u8::try_from(payload.len()).unwrap();
        // Masked with zeros, which leaves the payload as it is.
        let mut frame = vec![opcode, 0x80 | size, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }
}

fn logs(count: usize, size: usize) -> Selection {
    let mut bytes = Vec::new();
    for i in 0..count {
        let envelope = v2::Envelope::log("a", vec![b'x'; size]).at(i64::try_from(i).unwrap());
        proto::raw::wire::put_bytes(&mut bytes, 1, &envelope.encode_to_vec());
    }
    Selection::from(Batch::check(bytes.into(), &Limits::default()).0)
}

fn push(ring: &Ring, part: Selection) {
    ring.writer().push(part, |_, _| panic!("the ring is large enough")).expect("the ring is open");
}

/// The value of a metric as `/metrics` would show it; 0 when it is not there.
fn value(telemetry: &Telemetry, series: &str) -> u64 {
    let text = telemetry.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().expect("a whole number"))
}

#[tokio::test(start_paused = true)]
async fn the_first_ping_comes_at_once_and_the_next_15_s_after_each_pong() {
    let Served { mut client, ring: _ring, .. } = serve_over(64 * 1024);
    let began = Instant::now();
    assert_eq!(client.frame().await.unwrap(), (PING, vec![]));
    assert_eq!(began.elapsed(), Duration::ZERO);
    tokio::time::advance(Duration::from_secs(4)).await;
    client.send(PONG, b"").await;
    assert_eq!(client.frame().await.unwrap(), (PING, vec![]));
    let second = began.elapsed();
    assert!((Duration::from_secs(19)..Duration::from_millis(19_010)).contains(&second), "{second:?}");
    client.send(PONG, b"anything").await;
    assert_eq!(client.frame().await.unwrap(), (PING, vec![]));
    let third = began.elapsed() - second;
    assert!((Duration::from_secs(15)..Duration::from_millis(15_010)).contains(&third), "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ping_unanswered_for_30_s_closes_with_1008_and_the_reason() {
    let Served { mut client, ring: _ring, end, .. } = serve_over(64 * 1024);
    let began = Instant::now();
    assert_eq!(client.frame().await.unwrap().0, PING);
    let (opcode, payload) = client.frame().await.unwrap();
    let after = began.elapsed();
    assert!((Duration::from_secs(30)..Duration::from_millis(30_010)).contains(&after), "{after:?}");
    assert_eq!((opcode, &payload[..2]), (CLOSE, 1008_u16.to_be_bytes().as_slice()));
    assert_eq!(payload[2..], *b"Client did not respond to ping before keep-alive timeout expired.");
    assert!(client.frame().await.is_none());
    assert!(matches!(end.await.unwrap(), End::Unanswered));
}

#[tokio::test(start_paused = true)]
async fn envelopes_arrive_in_order_and_at_once() {
    let Served { mut client, ring, telemetry, .. } = serve_over(1024 * 1024);
    let began = Instant::now();
    push(&ring, logs(600, 100));
    for i in 0..600 {
        assert_eq!(client.envelope().await.timestamp, Some(i));
    }
    push(&ring, logs(1, 5));
    assert_eq!(client.envelope().await.log_message.unwrap().message, b"xxxxx".as_slice());
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing waits for a timer");
    assert_eq!(value(&telemetry, "hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}"), 601);
    assert_eq!(value(&telemetry, "hydrant_websocket_frames_total"), 601);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_does_not_read_is_cut_after_5_s_and_what_it_loses_is_counted() {
    let Served { mut client, ring, telemetry, end } = serve_over(4096);
    let began = Instant::now();
    assert_eq!(client.frame().await.unwrap().0, PING);
    client.send(PONG, b"").await;
    push(&ring, logs(1000, 1000));
    assert!(matches!(end.await.unwrap(), End::Slow));
    let after = began.elapsed();
    assert!(
        (Duration::from_secs(6)..Duration::from_millis(6_010)).contains(&after),
        "5 s, and 1 s to read again: {after:?}"
    );
    let delivered = value(&telemetry, "hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}");
    let series = "hydrant_dropped_envelopes_total{stage=\"traffic_controller\",reason=\"slow_consumer\"}";
    assert_eq!(delivered + value(&telemetry, series), 1000);
    let mut read = 0;
    while let Some((BINARY, _)) = client.frame().await {
        read += 1;
    }
    assert!(read < delivered, "the rest was in the buffer, and there is no close frame");
}

#[tokio::test(start_paused = true)]
async fn a_cut_consumer_that_reads_again_in_time_gets_the_rest_and_a_close() {
    let Served { mut client, ring, telemetry, end } = serve_over(4096);
    assert_eq!(client.frame().await.unwrap().0, PING);
    client.send(PONG, b"").await;
    push(&ring, logs(1000, 1000));
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let mut read = 0;
    let close = loop {
        match client.frame().await.unwrap() {
            (BINARY, _) => read += 1,
            other => break other,
        }
    };
    assert_eq!(close, (CLOSE, 1000_u16.to_be_bytes().to_vec()));
    assert_eq!(value(&telemetry, "hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}"), read);
    client.send(CLOSE, &1000_u16.to_be_bytes()).await;
    assert!(matches!(end.await.unwrap(), End::Slow));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_reads_slowly_is_not_cut() {
    let Served { mut client, ring, .. } = serve_over(4096);
    push(&ring, logs(100, 2000));
    for i in 0..100 {
        assert_eq!(client.envelope().await.timestamp, Some(i));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_few_envelopes_to_a_consumer_that_does_not_read_are_cut_by_the_write_deadline() {
    let Served { client: _client, ring, end, .. } = serve_over(64);
    push(&ring, logs(3, 1000));
    let began = Instant::now();
    assert!(matches!(end.await.unwrap(), End::Slow));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn when_the_routers_end_the_rest_is_sent_and_the_close_is_1000() {
    let Served { mut client, ring, telemetry, end } = serve_over(64 * 1024);
    push(&ring, logs(300, 10));
    ring.writer().close();
    for i in 0..300 {
        assert_eq!(client.envelope().await.timestamp, Some(i));
    }
    assert_eq!(client.frame().await.unwrap(), (CLOSE, 1000_u16.to_be_bytes().to_vec()));
    client.send(CLOSE, &1000_u16.to_be_bytes()).await;
    assert!(client.frame().await.is_none());
    assert!(matches!(end.await.unwrap(), End::Stopped));
    assert_eq!(value(&telemetry, "hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}"), 300);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_is_answered() {
    let Served { mut client, ring: _ring, end, .. } = serve_over(64 * 1024);
    assert_eq!(client.frame().await.unwrap().0, PING);
    client.send(CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(client.frame().await.unwrap(), (CLOSE, 1000_u16.to_be_bytes().to_vec()));
    assert!(client.frame().await.is_none());
    assert!(matches!(end.await.unwrap(), End::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_is_thrown_away_and_a_large_frame_ends_it() {
    let Served { mut client, ring, end, .. } = serve_over(64 * 1024);
    client.send(0x81, b"hello").await;
    client.send(BINARY, b"hello").await;
    push(&ring, logs(1, 10));
    assert_eq!(client.envelope().await.timestamp, Some(0));
    // 4097 bytes.
    let mut frame = vec![BINARY, 0x80 | 126, 0x10, 0x01, 0, 0, 0, 0];
    frame.resize(frame.len() + 4097, b'x');
    client.0.write_all(&frame).await.unwrap();
    assert_eq!(client.frame().await.unwrap(), (CLOSE, 1009_u16.to_be_bytes().to_vec()));
    assert!(matches!(end.await.unwrap(), End::Broken(Error::Capacity(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_ends_the_session_and_the_rest_is_counted() {
    let Served { client, ring, telemetry, end } = serve_over(4096);
    push(&ring, logs(100, 1000));
    drop(client);
    assert!(matches!(end.await.unwrap(), End::Broken(_)));
    let delivered = value(&telemetry, "hydrant_delivered_envelopes_total{stage=\"traffic_controller\"}");
    let series = "hydrant_dropped_envelopes_total{stage=\"traffic_controller\",reason=\"peer_lost\"}";
    assert_eq!(delivered + value(&telemetry, series), 100);
}
