//! The v1 transport: `plumbing.DopplerIngestor` and `plumbing.Doppler` (contract: loggregator v2 §1.3, §2, §4.1, §5.4).

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use prost::Message as _;
use proto::codec::Wire;
use proto::events::{self, envelope::EventType};
use proto::plumbing::doppler_client::DopplerClient;
use proto::plumbing::doppler_ingestor_client::DopplerIngestorClient;
use proto::plumbing::filter::Message as Type;
use proto::plumbing::{BatchResponse, EnvelopeData, Filter, LogFilter, MetricFilter, Response, SubscriptionRequest};
use proto::v1::from_v1;
use proto::v2::{self, Envelope};
use tokio::time::timeout;
use tonic::Streaming;

use crate::client::{Doppler, counters, gauges, logs};

const LOG: Option<Type> = Some(Type::Log(LogFilter {}));
const METRIC: Option<Type> = Some(Type::Metric(MetricFilter {}));

/// A v1 subscription.
struct Subscriber {
    stream: Streaming<Wire>,
    ready: VecDeque<Vec<u8>>,
}

impl Subscriber {
    async fn open(doppler: &Doppler, app_id: &str, message: Option<Type>, shard_id: &str) -> Self {
        let filter = Some(Filter { app_id: app_id.to_owned(), message });
        let request = SubscriptionRequest { shard_id: shard_id.to_owned(), filter };
        let answer = DopplerClient::new(doppler.channel()).batch_subscribe(request).await.unwrap();
        Self { stream: answer.into_inner(), ready: VecDeque::new() }
    }

    /// The next payload; `None` at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        while self.ready.is_empty() {
            let message = timeout(Duration::from_secs(60), self.stream.message()).await.expect("in time").unwrap();
            self.ready.extend(BatchResponse::decode(message?.0).unwrap().payload.iter().map(|bytes| bytes.to_vec()));
        }
        self.ready.pop_front()
    }

    async fn take(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await.expect("the stream is open"));
        }
        all
    }

    async fn rest(mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(payload) = self.next().await {
            all.push(payload);
        }
        all
    }
}

/// Sends payloads on one Pusher stream, and finishes it.
async fn push(doppler: &Doppler, payloads: &[Vec<u8>]) {
    let messages: Vec<Wire> = payloads
        .iter()
        .map(|payload| Wire(EnvelopeData { payload: payload.clone().into() }.encode_to_vec().into()))
        .collect();
    DopplerIngestorClient::new(doppler.channel()).pusher(stream::iter(messages)).await.unwrap();
}

fn event(event_type: EventType) -> events::Envelope {
    events::Envelope {
        origin: "test".to_owned(),
        event_type: event_type.into(),
        timestamp: Some(7),
        deployment: Some("cf".to_owned()),
        job: Some("cell".to_owned()),
        ..events::Envelope::default()
    }
}

fn log(app_id: &str, text: &str) -> Vec<u8> {
    let message = events::LogMessage {
        message: text.to_owned().into(),
        message_type: events::log_message::MessageType::Out.into(),
        timestamp: 7,
        app_id: Some(app_id.to_owned()),
        ..events::LogMessage::default()
    };
    let mut payload = events::Envelope { log_message: Some(message), ..event(EventType::LogMessage) }.encode_to_vec();
    // A field that nobody knows here: it must survive.
    payload.extend_from_slice(&[0xf8, 0x7f, 1]);
    payload
}

fn container(app_id: &str) -> Vec<u8> {
    let metric = events::ContainerMetric { application_id: app_id.to_owned(), ..events::ContainerMetric::default() };
    events::Envelope { container_metric: Some(metric), ..event(EventType::ContainerMetric) }.encode_to_vec()
}

fn counter(name: &str) -> Vec<u8> {
    let counter = events::CounterEvent { name: name.to_owned(), delta: 1, total: Some(2) };
    events::Envelope { counter_event: Some(counter), ..event(EventType::CounterEvent) }.encode_to_vec()
}

fn request(app: Option<events::Uuid>) -> Vec<u8> {
    let request = events::HttpStartStop { application_id: app, ..events::HttpStartStop::default() };
    events::Envelope { http_start_stop: Some(request), ..event(EventType::HttpStartStop) }.encode_to_vec()
}

#[tokio::test]
async fn payloads_come_out_as_they_went_in_to_those_whose_filter_takes_them() {
    const APP: &str = "b3015d69-09cd-476d-aace-ad2d824d5ab7";
    let doppler = Doppler::with(|config| config.cache.enabled = false).await;
    let app = events::Uuid::parse(APP);
    let all =
        [log(APP, "a"), log("other", "b"), container(APP), counter("c"), request(app), request(None), log("", "d")];
    // Filters, and which of `all` they take.
    let cases: [(&str, Option<Type>, &[usize]); 9] = [
        ("", None, &[0, 1, 2, 3, 4, 5, 6]),
        ("", LOG, &[0, 1, 6]),
        ("", METRIC, &[2, 3, 4, 5]),
        (APP, None, &[0, 2, 4]),
        (APP, LOG, &[0]),
        (APP, METRIC, &[2, 4]),
        ("other", None, &[1]),
        ("system", None, &[3, 5]),
        ("system", LOG, &[]),
    ];
    let mut subscribers = Vec::new();
    for (app_id, message, _) in &cases {
        subscribers.push(Subscriber::open(&doppler, app_id, *message, "").await);
    }
    push(&doppler, &all).await;
    let read = futures_util::future::join_all(subscribers.into_iter().map(Subscriber::rest));
    let ((_, numbers), got) = tokio::join!(doppler.shutdown(), read);
    for ((app_id, message, expected), got) in cases.iter().zip(got) {
        let expected: Vec<_> = expected.iter().map(|at| all[*at].clone()).collect();
        assert_eq!(got, expected, "{app_id:?} {message:?}");
    }
    assert_eq!(numbers.received(), 7);
    assert_eq!(numbers.get("hydrant_router_matched_total"), 7);
    assert_eq!(numbers.get("hydrant_router_copies_total"), 23);
    assert_eq!(numbers.delivered(), 23);
}

/// Shared out within one filter, never between filters of different types or apps.
#[tokio::test]
async fn a_shard_is_shared_within_one_filter() {
    let doppler = Doppler::start().await;
    let mut shared = Vec::new();
    for message in [LOG, LOG, None, METRIC] {
        shared.push(Subscriber::open(&doppler, "", message, "s").await);
    }
    let lines: Vec<_> = (0..1_000).map(|i| log("app", &i.to_string())).collect();
    push(&doppler, &lines).await;
    let read = futures_util::future::join_all(shared.into_iter().map(Subscriber::rest));
    let (_, got) = tokio::join!(doppler.shutdown(), read);
    let [first, second, alone, metrics]: [_; 4] = got.try_into().unwrap();
    assert_eq!(first.len() + second.len(), 1_000);
    assert!(first.len().abs_diff(second.len()) <= 64, "{} and {}", first.len(), second.len());
    assert_eq!(alone, lines);
    assert!(metrics.is_empty());
}

#[tokio::test]
async fn one_payload_a_message_for_subscribe() {
    let doppler = Doppler::start().await;
    let request = SubscriptionRequest::default();
    let mut stream = DopplerClient::new(doppler.channel()).subscribe(request).await.unwrap().into_inner();
    let lines: Vec<_> = (0..50).map(|i| log("app", &i.to_string())).collect();
    push(&doppler, &lines).await;
    for line in &lines {
        assert_eq!(Response::decode(stream.message().await.unwrap().unwrap().0).unwrap().payload, line.as_slice());
    }
}

/// What is no envelope is counted and costs nobody else anything, whichever version they speak.
#[tokio::test]
async fn bad_payloads_cost_only_themselves() {
    let doppler = Doppler::start().await;
    let mut v2 = doppler.subscribe(vec![logs("")]).await;
    let mut v1 = Subscriber::open(&doppler, "", None, "").await;
    let mut bad_text = log("app", "x");
    let at = bad_text.windows(3).position(|bytes| bytes == b"app").unwrap();
    bad_text[at] = 0xff;
    let without_origin = vec![0x10, 8];
    let bad = [
        vec![0xff; 10],
        bad_text,
        without_origin,
        Vec::new(),
        log(&"a".repeat(257), "a long name"),
        log("app", &"x".repeat(1 << 20)),
    ];
    let good = log("app", "good");
    for payload in bad {
        push(&doppler, &[payload, good.clone()]).await;
    }
    assert_eq!(v1.take(6).await, vec![good.clone(); 6]);
    assert_eq!(v2.take(6).await, vec![from_v1(&good).unwrap(); 6]);
    let numbers = doppler.numbers().await;
    assert_eq!(numbers.received(), 12);
    assert_eq!(numbers.dropped("decode_error"), 4);
    assert_eq!(numbers.dropped("oversize"), 2);
    assert_eq!(numbers.get("hydrant_router_matched_total"), 6);
}

#[tokio::test]
async fn v1_becomes_v2_for_those_who_want_it() {
    let doppler = Doppler::with(|config| config.cache.enabled = false).await;
    let mut all = doppler.subscribe(vec![logs(""), counters("", ""), gauges("", &[])]).await;
    let mut one = doppler.subscribe(vec![counters("cf/cell", "c")]).await;
    let payloads = [log("app", "line"), counter("c"), container("app"), counter("d")];
    push(&doppler, &payloads).await;
    let expected: Vec<Envelope> = payloads.iter().map(|payload| from_v1(payload).unwrap()).collect();
    assert_eq!(all.take(4).await, expected);
    assert_eq!(one.take(1).await, expected[1..2]);
}

/// An error is a log in v2 and a metric in v1: those who want metrics alone get it, also by way of v2.
#[tokio::test]
async fn an_error_is_a_metric_again() {
    let doppler = Doppler::start().await;
    let mut metrics = Subscriber::open(&doppler, "", METRIC, "").await;
    let error = events::Error { source: "s".to_owned(), code: 5, message: "broken".to_owned() };
    let error = events::Envelope { error: Some(error), ..event(EventType::Error) };
    let envelope = from_v1(&error.encode_to_vec()).unwrap();
    doppler.send([vec![Envelope::log("app", "a line"), envelope]]).await;
    let got = events::Envelope::decode(&metrics.next().await.unwrap()[..]).unwrap();
    assert_eq!(got.error, error.error);
    assert_eq!(doppler.numbers().await.get("hydrant_router_matched_total"), 1);
}

#[tokio::test]
async fn v1_enters_the_cache() {
    let doppler = Doppler::start().await;
    push(&doppler, &[log("app", "line")]).await;
    assert_eq!(doppler.numbers().await.get("hydrant_cache_inserted_total"), 1);
}

#[tokio::test]
async fn v2_becomes_v1_for_those_who_want_it() {
    let doppler = Doppler::start().await;
    let mut firehose = Subscriber::open(&doppler, "", None, "").await;
    let mut app = Subscriber::open(&doppler, "app", LOG, "").await;
    let gauge = |name: &str| (name.to_owned(), v2::GaugeValue { unit: "ms".to_owned(), value: 1.0 });
    let metrics = v2::Gauge { metrics: [gauge("a"), gauge("b")].into() };
    let gauge = Envelope { message: Some(v2::envelope::Message::Gauge(metrics)), ..Envelope::log("app", "") };
    let event = v2::Event { title: "t".to_owned(), body: "b".to_owned() };
    let event = Envelope { message: Some(v2::envelope::Message::Event(event)), ..Envelope::log("app", "") };
    let sent =
        vec![Envelope::log("app", "one"), Envelope::log("other", "two"), gauge, event, Envelope::log("app", "three")];
    doppler.send([sent]).await;
    let types = |payloads: &[Vec<u8>]| -> Vec<String> {
        let name = |payload: &Vec<u8>| {
            let envelope = events::Envelope::decode(&payload[..]).unwrap();
            let text = envelope.log_message.map(|log| String::from_utf8(log.message.to_vec()).unwrap());
            text.or(envelope.value_metric.map(|metric| metric.name)).unwrap()
        };
        payloads.iter().map(name).collect()
    };
    assert_eq!(types(&firehose.take(5).await), ["one", "two", "a", "b", "three"]);
    assert_eq!(types(&app.take(2).await), ["one", "three"]);
    let numbers = doppler.numbers().await;
    // The event has no form in v1.
    assert_eq!(numbers.dropped("convert_error"), 1);
    assert_eq!(numbers.get("hydrant_router_matched_total"), 4);
    assert_eq!(numbers.get("hydrant_router_unmatched_total"), 1);
    assert_eq!(numbers.get("hydrant_router_copies_total"), 7);
}
