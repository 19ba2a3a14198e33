//! Following through the traffic controller: one stream over several dopplers' caches.

use std::net::SocketAddr;

use prost::Message as _;
use proto::hydrant::v1;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tonic::{Code, Streaming};
use traffic_controller::{Config, Handle};
use transport::{ChannelOptions, channel};

use crate::cache::{Cache, nobody, put};

async fn controller(dopplers: impl IntoIterator<Item = SocketAddr>) -> Handle {
    Config::for_test().dopplers(dopplers).bind(&Telemetry::default()).await.unwrap().spawn()
}

fn of(source_ids: &[&str]) -> v1::FollowRequest {
    let source_ids = source_ids.iter().map(|id| (*id).to_owned()).collect();
    v1::FollowRequest { source_ids, ..v1::FollowRequest::default() }
}

struct Reader {
    stream: Streaming<v1::FollowFrame>,
    cursors: Vec<v1::Cursor>,
    missing: Vec<String>,
}

impl Reader {
    async fn open(controller: &Handle, request: v1::FollowRequest) -> Self {
        let mut client = FollowClient::new(channel(&controller.addrs().grpc.into(), &ChannelOptions::default()));
        let stream = client.follow(request).await.unwrap().into_inner();
        Self { stream, cursors: Vec::new(), missing: Vec::new() }
    }

    async fn frame(&mut self) -> Option<v1::FollowFrame> {
        let frame = self.stream.message().await.expect("a good status")?;
        assert_eq!(frame.gap, None);
        if let Some(cursor) = &frame.cursor {
            self.cursors.retain(|known| known.doppler != cursor.doppler);
            self.cursors.push(cursor.clone());
        }
        self.missing.extend(frame.missing.iter().cloned());
        Some(frame)
    }

    /// What comes before the mark.
    async fn history(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let frame = self.frame().await.expect("not the end");
            if frame.live {
                return all;
            }
            all.extend(texts(&frame));
        }
    }

    /// The next `count` lines.
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(texts(&self.frame().await.expect("not the end")));
        }
        all
    }
}

fn texts(frame: &v1::FollowFrame) -> Vec<String> {
    let batch = EnvelopeBatch::decode(frame.batch.clone()).unwrap().batch;
    batch.iter().map(|envelope| String::from_utf8(envelope.payload().to_vec()).unwrap()).collect()
}

fn line(i: i64) -> Envelope {
    Envelope::log("app", i.to_string()).at(i)
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[tokio::test]
async fn history_of_all_dopplers_by_timestamp_then_live() {
    let (a, b) = (Cache::start(), Cache::start());
    a.put((0..5000).filter(|i| i % 7 < 3).map(line));
    b.put((0..5000).filter(|i| i % 7 >= 3).map(line));
    b.put([Envelope::log("other", "not asked for").at(1)]);
    let controller = controller([a.addr, b.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    assert_eq!(reader.history().await, numbers(0..5000));
    for i in 5000..5010 {
        [&a, &b][i as usize % 2].put([line(i)]);
        assert_eq!(reader.lines(1).await, [i.to_string()]);
    }
    let mut known: Vec<&str> = reader.cursors.iter().map(|cursor| cursor.doppler.as_str()).collect();
    known.sort_unstable();
    let mut addresses = [a.addr.to_string(), b.addr.to_string()];
    addresses.sort_unstable();
    assert_eq!(known, addresses);
}

#[tokio::test]
async fn one_who_comes_back_goes_on_from_its_cursors() {
    let (a, b) = (Cache::start(), Cache::start());
    a.put((0..10).map(line));
    b.put((10..20).map(line));
    let controller = controller([a.addr, b.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    assert_eq!(reader.history().await, numbers(0..20));
    let after = reader.cursors.clone();
    drop(reader);
    a.put([line(20)]);
    b.put([line(21)]);
    let mut reader = Reader::open(&controller, v1::FollowRequest { after, ..of(&["app"]) }).await;
    assert_eq!(reader.history().await, numbers(20..22));
}

#[tokio::test]
async fn a_doppler_that_goes_and_comes_back_leaves_no_gap_and_no_repeat() {
    let (a, b) = (Cache::start(), Cache::start());
    a.put([line(0)]);
    b.put([line(1)]);
    let controller = controller([a.addr, b.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    assert_eq!(reader.history().await, numbers(0..2));

    let (addr, store) = a.stop().await;
    // While it is away it still stores, as one does that only cannot be reached; and the other one is heard.
    put(&store, (2..5).map(line));
    b.put([line(100)]);
    assert_eq!(reader.lines(1).await, ["100"]);
    while reader.missing.is_empty() {
        reader.frame().await.expect("not the end");
    }
    assert_eq!(reader.missing, [addr.to_string()]);

    let a = Cache::start_on(addr, store);
    assert_eq!(reader.lines(3).await, numbers(2..5));
    a.put([line(5)]);
    assert_eq!(reader.lines(1).await, ["5"]);
    b.put([line(6)]);
    assert_eq!(reader.lines(1).await, ["6"]);
}

#[tokio::test]
async fn one_that_is_away_from_the_start_is_named_and_heard_when_it_comes() {
    let a = Cache::start();
    a.put([line(0)]);
    let away = nobody();
    let controller = controller([away, a.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    assert_eq!(reader.history().await, ["0"]);
    assert_eq!(reader.missing, [away.to_string()]);
    let late = Cache::start_on(away, log_cache::Store::new(&log_cache::Config::default()));
    late.put([line(1)]);
    assert_eq!(reader.lines(1).await, ["1"]);
}

#[tokio::test]
async fn history_alone_ends_even_without_some_doppler() {
    let a = Cache::start();
    a.put((0..3).map(line));
    let controller = controller([a.addr, nobody()]).await;
    let mut reader =
        Reader::open(&controller, v1::FollowRequest { history_only: true, start_time: 1, ..of(&["app"]) }).await;
    assert_eq!(reader.history().await, ["1", "2"]);
    assert_eq!(reader.frame().await, None);
    assert_eq!(reader.missing.len(), 1);
}

#[tokio::test]
async fn a_source_that_does_not_exist_yet_is_waited_for() {
    let a = Cache::start();
    let controller = controller([a.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    assert_eq!(reader.history().await, Vec::<String>::new());
    a.put([line(7)]);
    assert_eq!(reader.lines(1).await, ["7"]);
}

#[tokio::test]
async fn a_stop_ends_streams_with_ok() {
    let a = Cache::start();
    let controller = controller([a.addr]).await;
    let mut reader = Reader::open(&controller, of(&["app"])).await;
    reader.history().await;
    let (stopped, end) = tokio::join!(controller.shutdown(), reader.frame());
    stopped.unwrap();
    assert_eq!(end, None);
}

#[tokio::test]
async fn following_nothing_or_too_much_is_refused() {
    let controller = controller([]).await;
    let mut client = FollowClient::new(channel(&controller.addrs().grpc.into(), &ChannelOptions::default()));
    let many: Vec<String> = (0..65).map(|i| i.to_string()).collect();
    for source_ids in [vec![], many, vec!["x".repeat(257)]] {
        let request = v1::FollowRequest { source_ids, ..v1::FollowRequest::default() };
        assert_eq!(client.follow(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
