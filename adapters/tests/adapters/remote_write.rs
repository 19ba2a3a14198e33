//! Bodies of remote-write requests, judged by Prometheus and VictoriaMetrics.

use std::time::SystemTime;

use http::{Request, StatusCode};
use hydrant_adapters::prometheus::remote_write::{self, HEADERS, Queue};
use hydrant_adapters::prometheus::series::{self, Store};
use prost::Message;
use proto::v2;

use crate::exposition::hostile;
use crate::judges::{Judge, get, request};

const MS: i64 = 1_000_000;
const SECOND: i64 = 1000 * MS;

struct Sender {
    store: Store,
    queue: Queue,
    /// In nanoseconds; the judges want times of about now.
    start: i64,
}

impl Sender {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self {
            store: Store::new(&series::Options::default()),
            queue: Queue::new(remote_write::Options::default()),
            start: i64::try_from(since.as_secs()).unwrap() * SECOND - 60 * SECOND,
        }
    }

    /// In milliseconds, `seconds` after the start.
    fn at(&self, seconds: i64) -> i64 {
        (self.start + seconds * SECOND) / MS
    }

    fn put(&mut self, seconds: i64, envelope: v2::Envelope) {
        let now = self.start + seconds * SECOND;
        self.store.put(&envelope.at(now).encode_to_vec(), now, |slot, series| self.queue.push(slot, series));
    }

    /// Ends every series without an envelope for 10 min, as of then.
    fn expire_all(&mut self, seconds: i64) {
        let ends = self.start + seconds * SECOND;
        self.store.expire(ends + 600 * SECOND, |slot, series| self.queue.end(slot, series, ends));
    }

    /// Sends what waits; the judge must take all of it.
    async fn send(&mut self, to: &Judge) {
        while let Some(next) = self.queue.next(0, true) {
            let head =
                HEADERS.iter().fold(Request::post("/api/v1/write"), |head, (name, value)| head.header(*name, *value));
            let (status, answer) = request(to.addr, head.header("user-agent", "hydrant-test"), next.body).await;
            assert_eq!(status, StatusCode::NO_CONTENT, "{answer}");
        }
    }

    /// Counters, gauges and a timer over 20 s.
    fn fill(&mut self) {
        for (seconds, value) in [(0, 1.5), (1, -2.5), (2, 1e300)] {
            self.put(
                seconds,
                v2::Envelope::gauge("app", "load", value, "percent").tag("Zone", "z é \"1\"").tag("a-b", "1"),
            );
            self.put(seconds, v2::Envelope::counter("app", "requests", 10));
        }
        for milliseconds in [4, 30, 30, 12_000] {
            self.put(3, v2::Envelope::timer("db", "query", 0, milliseconds * MS));
        }
        let now = self.start + 10 * SECOND;
        self.queue.roll_up(&self.store, now);
        self.put(20, v2::Envelope::counter("app", "requests", 10));
    }
}

/// Times in milliseconds and values of a range vector.
fn samples(series: &serde_json::Value) -> Vec<(i64, String)> {
    let pairs = series["values"].as_array().unwrap().iter();
    pairs
        .map(|pair| ((pair[0].as_f64().unwrap() * 1000.0).round() as i64, pair[1].as_str().unwrap().to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_8_2_prometheus_takes_every_sample_and_the_end_of_a_series() {
    let prometheus = Judge::prometheus(&[]).await;
    let mut sender = Sender::new();
    sender.fill();
    sender.send(&prometheus).await;
    // What was sent is there at once.
    let then = sender.at(30);
    let load =
        prometheus.query(r#"load{Zone="z é \"1\"",a_b="1",source_id="app",unit="percent"}[1m]"#, Some(then)).await;
    let expected = [(0, "1.5"), (1, "-2.5"), (2, "1e+300")];
    assert_eq!(samples(&load[0]), expected.map(|(seconds, value)| (sender.at(seconds), value.to_owned())));
    let requests = prometheus.query("requests_total[1m]", Some(then)).await;
    let expected = [(0, "10"), (1, "20"), (2, "30"), (20, "40")];
    assert_eq!(samples(&requests[0]), expected.map(|(seconds, value)| (sender.at(seconds), value.to_owned())));
    for (query, value) in [
        (r#"query_duration_seconds_bucket{le="0.005"}"#, "1"),
        (r#"query_duration_seconds_bucket{le="0.05"}"#, "3"),
        (r#"query_duration_seconds_bucket{le="+Inf"}"#, "4"),
        ("query_duration_seconds_sum", "12.064"),
        (r#"query_duration_seconds_count{source_id="db"}"#, "4"),
        ("count({__name__=~\"query_.*\"})", "14"),
    ] {
        let result = prometheus.query(query, Some(then)).await;
        assert_eq!(result[0]["value"][1], value, "{query}");
    }

    sender.expire_all(40);
    sender.send(&prometheus).await;
    for name in ["load", "requests_total", "query_duration_seconds_count", "query_duration_seconds_bucket"] {
        assert_ne!(prometheus.query(name, Some(sender.at(39))).await.len(), 0, "{name} before its end");
        assert_eq!(prometheus.query(name, Some(sender.at(41))).await.len(), 0, "{name} after its end");
    }
    // And it may come back.
    sender.put(50, v2::Envelope::gauge("app", "load", 7.0, "percent"));
    sender.send(&prometheus).await;
    assert_eq!(prometheus.query("load", Some(sender.at(51))).await[0]["value"][1], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_names_prometheus_takes_every_series() {
    let prometheus = Judge::prometheus(&[]).await;
    let mut sender = Sender::new();
    for envelope in hostile() {
        sender.put(0, envelope);
    }
    let now = sender.start;
    sender.queue.roll_up(&sender.store, now);
    let sent = sender.store.series();
    sender.send(&prometheus).await;
    let count = prometheus.query("count({__name__=~\".+\"})", Some(sender.at(1))).await;
    assert_eq!(count[0]["value"][1], sent.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_8_2_victoria_metrics_takes_every_sample_and_the_end_of_a_series() {
    let victoria = Judge::victoria_metrics().await;
    let mut sender = Sender::new();
    sender.fill();
    sender.expire_all(40);
    sender.send(&victoria).await;
    assert_eq!(get(victoria.addr, "/internal/force_flush").await.0, StatusCode::OK);
    let requests = victoria.query("requests_total[1m]", Some(sender.at(39))).await;
    let expected = [(0, "10"), (1, "20"), (2, "30"), (20, "40")];
    assert_eq!(samples(&requests[0]), expected.map(|(seconds, value)| (sender.at(seconds), value.to_owned())));
    let buckets =
        victoria.query(r#"query_duration_seconds_bucket{le="0.05",source_id="db"}"#, Some(sender.at(39))).await;
    assert_eq!(buckets[0]["value"][1], "3");
    for name in ["load", "requests_total", "query_duration_seconds_count"] {
        assert_ne!(victoria.query(name, Some(sender.at(39))).await.len(), 0, "{name} before its end");
        assert_eq!(victoria.query(name, Some(sender.at(41))).await.len(), 0, "{name} after its end");
    }
}
