//! Endpoints against the contract's tables: requests, filters, and what becomes of each kind of envelope.

use prost::Message as _;
use proto::events;
use proto::raw::{Batch, Limits};

use super::*;

const GUID: &str = "b3015d69-09cd-476d-aace-ad2d824d5ab7";

fn firehose(filter: Filter) -> Endpoint {
    Endpoint::Firehose { id: "my-id".to_owned(), filter }
}

fn app(guid: &str) -> Endpoint {
    Endpoint::App { guid: guid.to_owned() }
}

/// The frames that `endpoint` makes of `envelopes`, decoded, and what it left.
fn frames(endpoint: Endpoint, envelopes: &[v2::Envelope]) -> (Vec<events::Envelope>, VecDeque<Frame>, Left) {
    let mut bytes = Vec::new();
    for envelope in envelopes {
        proto::raw::wire::put_bytes(&mut bytes, 1, &envelope.encode_to_vec());
    }
    let (batch, refused) = Batch::check(bytes.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    let mut frames = VecDeque::new();
    let left = Converter::new(endpoint).put(&Selection::from(batch), &mut frames);
    let decode = |frame: &Frame| events::Envelope::decode(frame.message.clone().into_data()).expect("a v1 envelope");
    (frames.iter().map(decode).collect(), frames, left)
}

fn gauges(source_id: &str, names: &[&str]) -> v2::Envelope {
    let metric = |name: &&str| ((*name).to_owned(), v2::GaugeValue { unit: "u".to_owned(), value: 1.5 });
    let gauge = v2::Gauge { metrics: names.iter().map(metric).collect() };
    let message = Some(v2::envelope::Message::Gauge(gauge));
    v2::Envelope { source_id: source_id.to_owned(), message, ..v2::Envelope::default() }
}

const CONTAINER: [&str; 5] = ["cpu", "memory", "disk", "memory_quota", "disk_quota"];

fn error() -> v2::Envelope {
    v2::Envelope::log("a", "went wrong").tag("__v1_type", "Error").tag("source", "s").tag("code", "7")
}

#[test]
fn the_filter_is_the_first_one_of_the_query() {
    for (query, filter) in [
        (None, Filter::All),
        (Some(""), Filter::All),
        (Some("filter-type=logs"), Filter::Logs),
        (Some("filter-type=metrics"), Filter::Metrics),
        (Some("a=b&filter-type=metrics&filter-type=logs"), Filter::Metrics),
        (Some("filter%2Dtype=%6Cogs"), Filter::Logs),
        (Some("filter-type=LOGS"), Filter::All),
        (Some("filter-type"), Filter::All),
        (Some("x-filter-type=logs"), Filter::All),
    ] {
        assert_eq!(Filter::from_query(query), filter, "{query:?}");
    }
}

#[test]
fn a_firehose_is_shared_by_id_and_filter_and_with_nobody_else() {
    let shard = |filter| firehose(filter).request().shard_id;
    assert_eq!(shard(Filter::All), "firehose/all/my-id");
    assert_eq!(shard(Filter::Logs), "firehose/logs/my-id");
    assert_eq!(shard(Filter::Metrics), "firehose/metrics/my-id");
    assert_eq!(app(GUID).request().shard_id, "");
}

#[test]
fn endpoints_ask_for_the_kinds_they_can_show() {
    let kinds = |endpoint: Endpoint, source_id: &str| -> Vec<Kind> {
        let rules = endpoint.request().selectors;
        assert!(rules.iter().all(|rule| rule.source_id == source_id));
        rules
            .iter()
            .map(|rule| proto::selector::Selector::from_wire(rule).expect("it has a message").rule.kind())
            .collect()
    };
    let all = [Kind::Log, Kind::Counter, Kind::Gauge, Kind::Timer];
    assert_eq!(kinds(firehose(Filter::All), ""), all);
    assert_eq!(kinds(firehose(Filter::Metrics), ""), all);
    assert_eq!(kinds(firehose(Filter::Logs), ""), [Kind::Log]);
    assert_eq!(kinds(app(GUID), GUID), [Kind::Log, Kind::Gauge, Kind::Timer]);
}

#[test]
fn filters_go_by_the_v1_type() {
    let envelopes = [v2::Envelope::log("a", "line"), error(), v2::Envelope::counter("a", "c", 1), gauges("a", &["x"])];
    let types = |filter| {
        let (frames, _, left) = frames(firehose(filter), &envelopes);
        (frames.iter().map(|frame| frame.event_type()).collect::<Vec<_>>(), left.filtered)
    };
    let (log, error) = (EventType::LogMessage, EventType::Error);
    let (counter, value) = (EventType::CounterEvent, EventType::ValueMetric);
    assert_eq!(types(Filter::All), (vec![log, error, counter, value], 0));
    assert_eq!(types(Filter::Logs), (vec![log], 3));
    assert_eq!(types(Filter::Metrics), (vec![error, counter, value], 1));
}

#[test]
fn an_app_stream_shows_what_v1_routes_to_the_app() {
    let timer = v2::Envelope::timer(GUID, "http", 1, 2).tag("request_id", GUID);
    let envelopes =
        [v2::Envelope::log(GUID, "line"), gauges(GUID, &CONTAINER), timer.clone(), gauges(GUID, &["custom"]), error()];
    let (shown, _, left) = frames(app(GUID), &envelopes);
    let types: Vec<_> = shown.iter().map(|frame| frame.event_type()).collect();
    assert_eq!(types, [EventType::LogMessage, EventType::ContainerMetric, EventType::HttpStartStop]);
    assert_eq!(left.filtered, 2);

    // A request whose source is no UUID belongs to no app.
    let mut other = timer;
    other.source_id = "my-app".to_owned();
    let (shown, _, left) = frames(app("my-app"), &[other, v2::Envelope::log("my-app", "line")]);
    assert_eq!((shown.len(), left.filtered), (1, 1));
}

#[test]
fn the_last_frame_of_an_envelope_completes_it() {
    let (_, frames, left) =
        frames(firehose(Filter::All), &[gauges("a", &["x", "y", "z"]), v2::Envelope::log("a", "b")]);
    let envelopes: Vec<_> = frames.iter().map(|frame| frame.envelopes).collect();
    assert_eq!(envelopes, [0, 0, 1, 1]);
    assert_eq!(left, Left::default());
}

#[test]
fn what_has_no_v1_form_is_counted() {
    let (shown, _, left) = frames(firehose(Filter::All), &[gauges("a", &[]), v2::Envelope::log("a", "")]);
    assert_eq!(shown.len(), 1);
    assert_eq!(left, Left { no_form: 1, ..Left::default() });
    assert_eq!(left.dropped()[0], (Reason::ConvertError, 1));
}
