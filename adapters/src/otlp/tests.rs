//! What is written, read back by message types that others made.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;
use proto::reason::Reason;
use proto::v2;

use super::series::{Counters, Histograms};
use super::*;
use crate::outcome::Outcome;

const NOW: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn config(text: &str) -> OtlpConfig {
    toml::from_str(&format!("compression = \"none\"\n{text}")).expect("a test's table is right")
}

fn preset() -> OtlpConfig {
    config("preset = \"otelcol\"")
}

/// The requests that come of these envelopes, all of which are kept.
fn requests(config: &OtlpConfig, envelopes: &[v2::Envelope]) -> Vec<Request> {
    let mut encoder = Encoder::new(config, false);
    for envelope in envelopes {
        assert_eq!(encoder.put(&envelope.encode_to_vec(), NOW), Outcome::Kept, "{envelope:?}");
    }
    encoder.flush(NOW)
}

fn put(config: &OtlpConfig, envelope: &v2::Envelope) -> Outcome {
    Encoder::new(config, true).put(&envelope.encode_to_vec(), NOW)
}

fn logs(request: &Request) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(&request.body[..]).expect("others can read it")
}

fn metrics(request: &Request) -> Vec<Metric> {
    let read = ExportMetricsServiceRequest::decode(&request.body[..]).expect("others can read it");
    read.resource_metrics.into_iter().flat_map(|of| of.scope_metrics).flat_map(|of| of.metrics).collect()
}

fn spans(request: &Request) -> Vec<Span> {
    let read = ExportTraceServiceRequest::decode(&request.body[..]).expect("others can read it");
    read.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
}

fn text(value: Option<&AnyValue>) -> &str {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn pairs(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
    attributes.iter().map(|pair| (pair.key.as_str(), text(pair.value.as_ref()))).collect()
}

fn log(text: &str) -> v2::Envelope {
    v2::Envelope::log("app", text.to_owned()).at(NOW - 5).instance("3").tag("app_name", "shop").tag("zone", "z1")
}

fn err(mut envelope: v2::Envelope) -> v2::Envelope {
    if let Some(v2::envelope::Message::Log(log)) = &mut envelope.message {
        log.r#type = v2::log::Type::Err.into();
    }
    envelope
}

#[test]
fn agents_3_3_logs_of_the_preset_are_those_of_the_original() {
    let both = [log("out").tag("trace_id", TRACE).tag("__v1_type", "x").tag("source_id", "other"), err(log("err"))];
    let made = requests(&preset(), &both);
    let [request] = &made[..] else { panic!("{made:?}") };
    let read = logs(request);
    assert_eq!(
        (request.envelopes, request.items, read.resource_logs.len()),
        (2, 2, 2),
        "each in a resource of its own"
    );
    for (of, (body, number, severity)) in
        read.resource_logs.iter().zip([("out", 9, "SEVERITY_NUMBER_INFO"), ("err", 17, "SEVERITY_NUMBER_ERROR")])
    {
        assert!(of.resource.as_ref().unwrap().attributes.is_empty());
        let [record] = &of.scope_logs[0].log_records[..] else { panic!("{of:?}") };
        assert_eq!((record.severity_number, record.severity_text.as_str()), (number, severity));
        assert_eq!(text(record.body.as_ref()), body);
        let times = (record.time_unix_nano.cast_signed(), record.observed_time_unix_nano.cast_signed());
        assert_eq!(times, (NOW - 5, NOW));
        let mut attributes = pairs(&record.attributes);
        assert_eq!(attributes[..2], [("instance_id", "3"), ("source_id", "app")], "these first");
        attributes.sort_unstable();
        let expected = [("app_name", "shop"), ("instance_id", "3"), ("source_id", "app"), ("zone", "z1")];
        assert_eq!(attributes, expected, "identifiers of traces are left out");
        assert!(record.trace_id.is_empty());
    }
}

#[test]
fn logs_of_our_own_stand_together_under_their_service() {
    let all = [
        log("1").tag("trace_id", TRACE).tag("span_id", SPAN),
        log("2").tag("trace_id", "none"),
        log("3").tag("trace_id", "none").tag("span_id", SPAN),
        v2::Envelope::log("other", "4").at(NOW),
    ];
    let made = requests(&config("resource = { \"deployment.environment.name\" = \"prod\" }"), &all);
    let read = logs(&made[0]);
    let [shop, other] = &read.resource_logs[..] else { panic!("{read:?}") };
    let expected = [("service.name", "shop"), ("service.instance.id", "3"), ("deployment.environment.name", "prod")];
    assert_eq!(pairs(&shop.resource.as_ref().unwrap().attributes), expected);
    let expected = [("service.name", "other"), ("deployment.environment.name", "prod")];
    assert_eq!(pairs(&other.resource.as_ref().unwrap().attributes), expected);
    let scope = shop.scope_logs[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("hydrant", env!("CARGO_PKG_VERSION")));
    let records = &shop.scope_logs[0].log_records;
    assert_eq!(records.iter().map(|record| text(record.body.as_ref())).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert_eq!((records[0].trace_id.len(), records[0].span_id[0]), (16, 0xb7));
    assert_eq!(records[0].severity_text, "INFO");
    assert!(records[1..].iter().all(|record| record.trace_id.is_empty()));
    assert!(pairs(&records[2].attributes).contains(&("trace_id", "none")), "what is no identifier stays");

    let made = requests(&config("resource = { \"service.name\" = \"mine\" }"), &all[..1]);
    let resource = logs(&made[0]).resource_logs[0].resource.clone().unwrap();
    assert_eq!(pairs(&resource.attributes), [("service.instance.id", "3"), ("service.name", "mine")]);
}

#[test]
fn agents_3_3_an_event_is_a_list_of_title_and_body() {
    let event = v2::Envelope::event("app", "deployed", "version 2").at(NOW);
    for config in [preset(), config("")] {
        let read = logs(&requests(&config, std::slice::from_ref(&event))[0]);
        let record = &read.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((record.severity_number, record.severity_text.as_str()), (0, ""));
        let Some(Value::KvlistValue(list)) = record.body.clone().unwrap().value else { panic!("{record:?}") };
        assert_eq!(pairs(&list.values), [("title", "deployed"), ("body", "version 2")]);
    }
}

#[test]
fn agents_3_3_counters_gauges_and_their_units() {
    let mut gauge = v2::Envelope::gauge("app", "cpu", 1.5, "percentage").at(NOW).tag("zone", "z1");
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("memory".to_owned(), v2::GaugeValue { unit: "bytes".to_owned(), value: -7.0 });
    }
    let mut counter = v2::Envelope::counter("app", "requests", 3).at(NOW);
    if let Some(v2::envelope::Message::Counter(counter)) = &mut counter.message {
        counter.total = (1 << 63) + 42;
    }
    for (config, start) in [(preset(), 0), (config(""), NOW)] {
        let made = requests(&config, &[gauge.clone(), counter.clone()]);
        assert_eq!((made[0].envelopes, made[0].items), (2, 3));
        let all: BTreeMap<String, Metric> =
            metrics(&made[0]).into_iter().map(|metric| (metric.name.clone(), metric)).collect();
        for (name, unit, value) in [("cpu", "percentage", 1.5), ("memory", "bytes", -7.0)] {
            let Some(Data::Gauge(gauge)) = &all[name].data else { panic!("{all:?}") };
            let point = &gauge.data_points[0];
            assert_eq!((all[name].unit.as_str(), point.value), (unit, Some(Number::AsDouble(value))));
            assert_eq!((point.time_unix_nano.cast_signed(), point.start_time_unix_nano), (NOW, 0));
            assert!(pairs(&point.attributes).contains(&("zone", "z1")));
        }
        let Some(Data::Sum(sum)) = &all["requests"].data else { panic!("{all:?}") };
        assert_eq!((sum.aggregation_temporality, sum.is_monotonic, all["requests"].unit.as_str()), (2, true, ""));
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Number::AsInt(42)), "without its top bit");
        assert_eq!(point.start_time_unix_nano.cast_signed(), start);
    }
    assert_eq!(
        put(
            &config(""),
            &v2::Envelope { message: Some(v2::envelope::Message::Gauge(v2::Gauge::default())), ..Default::default() }
        ),
        Outcome::Ignored
    );
}

#[test]
fn a_counter_starts_where_it_was_first_seen_and_where_it_fell() {
    let mut counters = Counters::new(std::num::NonZeroUsize::new(2).unwrap());
    assert_eq!(counters.put(1, 10, 100, None), (10, 100));
    assert_eq!(counters.put(1, 20, 150, None), (10, 150));
    assert_eq!(counters.put(1, 15, 120, None), (10, 120), "late, and no fall");
    assert_eq!(counters.put(1, 5, 90, None), (5, 90), "nothing ends before it starts");
    assert_eq!(counters.put(1, 30, 7, None), (30, 7), "it began anew");
    assert_eq!(counters.put(1, 40, 9, None), (30, 9));
    assert_eq!(counters.put(2, 10, 0, Some(3)), (9, 3), "it counts from us on");
    assert_eq!(counters.put(2, 11, 0, Some(4)), (9, 7));
    assert_eq!(counters.put(2, 10, 0, Some(1)), (9, 8), "a step counts whenever it comes");
    assert_eq!(counters.put(2, 12, 0, Some(1)), (9, 9));
    counters.put(3, 1, 1, None);
    assert_eq!((counters.len(), counters.put(1, 50, 10, None)), (2, (50, 10)), "it was forgotten");
}

#[test]
fn agents_3_3_timers_with_identifiers_are_spans() {
    let timer = |uri: &str, peer: &str| {
        let timer = v2::Envelope::timer("app", "http", NOW - SECOND, NOW).at(NOW).instance("0");
        let timer = timer.tag("trace_id", TRACE).tag("span_id", SPAN).tag("uri", uri).tag("peer_type", peer);
        timer.tag("parent_span_id", "00f067aa0ba902b7")
    };
    for (uri, peer, name, kind) in [
        ("https://shop.example/cart%20one?x=1", "Server", "/cart one", 2),
        ("/cart#top", "", "/cart", 1),
        ("https://shop.example", "Server", "http", 2),
        ("", "", "http", 1),
        ("cart", "", "http", 1),
        ("/redirect/http://evil.example/x", "", "/redirect/http://evil.example/x", 1),
        ("to http://evil.example/x", "", "http", 1),
    ] {
        for config in [preset(), config("")] {
            let made = requests(&config, &[timer(uri, peer)]);
            let [span] = &spans(&made[0])[..] else { panic!("{made:?}") };
            assert_eq!((span.name.as_str(), span.kind), (name, kind), "{uri}");
            assert_eq!((span.trace_id[0], span.trace_id.len(), span.span_id.len()), (0x0a, 16, 8));
            let times = (span.start_time_unix_nano.cast_signed(), span.end_time_unix_nano.cast_signed());
            assert_eq!(times, (NOW - SECOND, NOW));
            assert_eq!(span.status.clone().unwrap().code, 0, "unset");
            let attributes = pairs(&span.attributes);
            assert!(attributes.contains(&("uri", uri)) && !attributes.iter().any(|(key, _)| *key == "span_id"));
            let is_ours = config.preset.is_none();
            assert_eq!(span.parent_span_id.len(), if is_ours { 8 } else { 0 });
            assert_eq!(attributes.iter().any(|(key, _)| *key == "parent_span_id"), !is_ours);
        }
    }
    for config in [preset(), config("")] {
        assert_eq!(put(&config, &timer("/", "Client")), Outcome::Ignored);
        for (trace, span) in [("zz", SPAN), (TRACE, "b7"), (&TRACE[1..], SPAN), (&"0".repeat(32), SPAN)] {
            let bad = v2::Envelope::timer("app", "http", 0, 1).tag("trace_id", trace).tag("span_id", span);
            assert_eq!(put(&config, &bad), Outcome::Dropped(Reason::ConvertError), "{trace} {span}");
        }
    }
    let plain = v2::Envelope::timer("app", "sql", 0, 1).at(NOW);
    assert_eq!(put(&preset(), &plain), Outcome::Ignored, "as the original");
    assert_eq!(put(&config("timers = \"none\""), &plain), Outcome::Ignored);
    assert_eq!(put(&config("signals = [\"logs\"]"), &timer("", "")), Outcome::Ignored);
}

#[test]
fn timers_without_identifiers_are_durations() {
    let timer = |ms: i64, uri: &str| {
        let timer = v2::Envelope::timer("app", "http", NOW - ms * 1_000_000, NOW).at(NOW);
        timer.tag("uri", uri).tag("method", "GET").tag("status_code", "200")
    };
    let mut encoder = Encoder::new(&config(""), false);
    for (ms, uri) in [(3, "/a"), (30, "/b"), (20_000, "/c")] {
        assert_eq!(encoder.put(&timer(ms, uri).encode_to_vec(), NOW), Outcome::Kept);
    }
    for (again, count) in [(false, 3), (true, 4)] {
        if again {
            assert_eq!(encoder.put(&timer(3, "/d").encode_to_vec(), NOW), Outcome::Kept);
        }
        let made = encoder.flush(NOW);
        assert_eq!((made[0].envelopes, made[0].items), (if again { 1 } else { 3 }, 1));
        let all = metrics(&made[0]);
        assert_eq!((all[0].name.as_str(), all[0].unit.as_str()), ("http.duration", "s"));
        let Some(Data::Histogram(histogram)) = &all[0].data else { panic!("{all:?}") };
        assert_eq!(histogram.aggregation_temporality, 2, "since the start");
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (count, count));
        assert_eq!((point.bucket_counts.len(), point.explicit_bounds.len()), (15, 14));
        assert_eq!((point.bucket_counts[0], point.bucket_counts[3], point.bucket_counts[14]), (count - 2, 1, 1));
        assert_eq!((point.min, point.max), (Some(0.003), Some(20.0)));
        assert!((point.sum.unwrap() - 20.03 - 0.003 * (count - 2) as f64).abs() < 1e-9);
        assert!(point.start_time_unix_nano < point.time_unix_nano);
        let mut attributes = pairs(&point.attributes);
        attributes.sort_unstable();
        let expected = [("instance_id", ""), ("method", "GET"), ("source_id", "app"), ("status_code", "200")];
        assert_eq!(attributes, expected, "without the URI");
    }
    assert!(encoder.flush(NOW).is_empty());

    let made = requests(&config("timers = \"gauge\""), &[timer(250, "/a")]);
    let all = metrics(&made[0]);
    let Some(Data::Gauge(gauge)) = &all[0].data else { panic!("{all:?}") };
    assert_eq!((all[0].name.as_str(), gauge.data_points[0].value), ("http.duration", Some(Number::AsDouble(0.25))));
}

#[test]
fn a_histogram_that_finds_no_room_is_dropped_until_another_ends() {
    let mut encoder = Encoder::new(&config("max_series = 10"), false);
    let timer = |name: &'static str| v2::Envelope::timer("app", name, 0, 1).at(NOW).encode_to_vec();
    assert_eq!(encoder.put(&timer("a"), NOW), Outcome::Kept);
    assert_eq!(encoder.put(&timer("b"), NOW), Outcome::Dropped(Reason::Cardinality));
    assert_eq!((encoder.flush(NOW).len(), encoder.counts().cardinality), (1, 1));
    let later = NOW + 601 * SECOND;
    assert_eq!(encoder.put(&timer("b"), later), Outcome::Kept, "the other has ended");
    let mut histograms = Histograms::new(5);
    let long = || (vec![b'x'; 20 << 20], Vec::new(), (0, Vec::new()), 0);
    assert!(histograms.put(1, (NOW, 1.0, NOW), long) && histograms.put(2, (NOW, 1.0, NOW), long));
    assert!(!histograms.put(3, (NOW, 1.0, NOW), long), "in bytes too");
}

#[test]
fn requests_are_split_at_their_bounds() {
    let all: Vec<_> = (0..25).map(|i| log(&format!("line {i}"))).collect();
    let made = requests(&config("max_items = 10"), &all);
    assert_eq!(made.iter().map(|request| request.items).collect::<Vec<_>>(), [10, 10, 5]);
    let all: Vec<_> = (0..25).map(|i| log(&format!("{i:0>1000}"))).collect();
    let made = requests(&config("max_bytes = 4096"), &all);
    assert!(made.len() > 6 && made.iter().all(|request| request.body.len() <= 4096), "{}", made.len());
    let bodies: Vec<String> = made
        .iter()
        .flat_map(|request| logs(request).resource_logs)
        .flat_map(|of| of.scope_logs[0].log_records.clone())
        .map(|record| text(record.body.as_ref()).to_owned())
        .collect();
    assert_eq!(bodies, (0..25).map(|i| format!("{i:0>1000}")).collect::<Vec<_>>(), "in order");
    let mut encoder = Encoder::new(&config("max_items = 2"), false);
    encoder.put(&log("1").encode_to_vec(), NOW);
    assert!(!encoder.is_full());
    encoder.put(&log("2").encode_to_vec(), NOW);
    assert!(encoder.is_full());
    // A gauge of many metrics goes over several requests, and counts with the last.
    let mut gauge = v2::Envelope::gauge("app", "m0", 0.0, "").at(NOW);
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.extend((1..25).map(|i| (format!("m{i}"), v2::GaugeValue::default())));
    }
    let made = requests(&config("max_items = 10"), &[gauge]);
    let counts: Vec<_> = made.iter().map(|request| (request.items, request.envelopes)).collect();
    assert_eq!(counts, [(10, 0), (10, 0), (5, 1)]);
}

#[test]
fn an_envelope_does_not_become_a_very_large_request() {
    let mut gauge = v2::Envelope::gauge("app", "m0", 0.0, "").at(NOW);
    for i in 0..100 {
        gauge = gauge.tag(format!("tag-{i}"), "x".repeat(1000));
    }
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.extend((1..200).map(|i| (format!("m{i}"), v2::GaugeValue::default())));
    }
    assert_eq!(put(&config(""), &gauge), Outcome::Dropped(Reason::Oversize));
}

#[test]
fn bodies_are_framed_and_compressed_for_their_transport() {
    for (grpc, text) in [(false, "gzip"), (true, "gzip"), (false, "none"), (true, "none")] {
        let config: OtlpConfig = toml::from_str(&format!("compression = \"{text}\"")).unwrap();
        let mut encoder = Encoder::new(&config, grpc);
        encoder.put(&log("hello").encode_to_vec(), NOW);
        let request = encoder.flush(NOW).pop().unwrap();
        let header = |name: &str| {
            let found = request.headers.iter().find(|(known, _)| known.as_str() == name);
            found.map_or("", |(_, value)| value.to_str().unwrap()).to_owned()
        };
        let mut body = &request.body[..];
        if grpc {
            assert_eq!(request.path, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
            assert_eq!((header("content-type").as_str(), header("te").as_str()), ("application/grpc", "trailers"));
            assert_eq!(body[0], u8::from(text == "gzip"));
            assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - 5);
            body = &body[5..];
        } else {
            assert_eq!((request.path, header("content-type").as_str()), ("/v1/logs", "application/x-protobuf"));
        }
        let mut message = Vec::new();
        if text == "gzip" {
            assert_eq!(header(if grpc { "grpc-encoding" } else { "content-encoding" }), "gzip");
            GzDecoder::new(body).read_to_end(&mut message).unwrap();
        } else {
            assert_eq!(header("grpc-encoding") + &header("content-encoding"), "");
            message = body.to_vec();
        }
        let read = ExportLogsServiceRequest::decode(&message[..]).unwrap();
        assert_eq!(self::text(read.resource_logs[0].scope_logs[0].log_records[0].body.as_ref()), "hello");
    }
}

#[test]
fn what_is_not_utf_8_is_replaced_and_nonsense_is_dropped() {
    let made = requests(&config(""), &[v2::Envelope::log("app", &b"a\xffb"[..]).at(NOW)]);
    assert_eq!(text(logs(&made[0]).resource_logs[0].scope_logs[0].log_records[0].body.as_ref()), "a\u{fffd}b");
    let mut encoder = Encoder::new(&config(""), false);
    assert_eq!(encoder.put(b"\xff", NOW), Outcome::Dropped(Reason::DecodeError));
    assert_eq!(encoder.put(b"", NOW), Outcome::Ignored);
    assert!(encoder.flush(NOW).is_empty());
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{0,3}", "\\PC{0,20}", "[a-z]{200}", Just(TRACE.to_owned()), Just(SPAN.to_owned())]
}

fn any_envelope() -> impl Strategy<Value = v2::Envelope> {
    let keys = prop_oneof![
        Just("trace_id".to_owned()),
        Just("span_id".to_owned()),
        Just("uri".to_owned()),
        Just("peer_type".to_owned()),
        any_text()
    ];
    let tags = prop::collection::hash_map(keys, any_text(), 0..6);
    let gauges = prop::collection::hash_map(any_text(), (any_text(), any::<f64>()), 0..12);
    let kind = prop_oneof![
        (prop::collection::vec(any::<u8>(), 0..300), any::<bool>()).prop_map(|(bytes, is_err)| {
            let log = v2::Envelope::log("", bytes);
            if is_err { err(log) } else { log }
        }),
        (any_text(), any_text()).prop_map(|(title, body)| v2::Envelope::event("", title, body)),
        (any_text(), any::<u64>()).prop_map(|(name, delta)| v2::Envelope::counter("", name, delta)),
        gauges.prop_map(|all| {
            let metrics = all.into_iter().map(|(name, (unit, value))| (name, v2::GaugeValue { unit, value })).collect();
            let message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics }));
            v2::Envelope { message, ..Default::default() }
        }),
        (any_text(), any::<i64>(), any::<i64>())
            .prop_map(|(name, start, stop)| v2::Envelope::timer("", name, start, stop)),
    ];
    (kind, tags, any_text(), any_text(), any::<i64>()).prop_map(
        |(envelope, tags, source_id, instance_id, timestamp)| v2::Envelope {
            tags,
            source_id,
            instance_id,
            timestamp,
            ..envelope
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes: every body is read by others and within its bounds, and every envelope that was kept is in one of them.
    #[test]
    fn bounds_hold_and_sums_are_exact(
        envelopes in prop::collection::vec(any_envelope(), 0..40),
        is_preset: bool,
        is_gauge: bool,
        max_items in 1usize..20,
        max_bytes in 4096usize..9000,
    ) {
        let text = format!(
            "max_items = {max_items}\nmax_bytes = {max_bytes}\n{}{}",
            if is_preset { "preset = \"otelcol\"\n" } else { "" },
            if is_gauge { "timers = \"gauge\"\n" } else { "" },
        );
        let mut encoder = Encoder::new(&config(&text), false);
        let mut kept = 0;
        for envelope in &envelopes {
            kept += u64::from(encoder.put(&envelope.encode_to_vec(), NOW) == Outcome::Kept);
        }
        let made = encoder.flush(NOW);
        prop_assert_eq!(made.iter().map(|request| request.envelopes).sum::<u64>(), kept);
        for request in &made {
            let items = match request.signal {
                Signal::Logs => {
                    let all = logs(request).resource_logs;
                    all.iter().flat_map(|of| &of.scope_logs).map(|of| of.log_records.len()).sum()
                }
                Signal::Traces => spans(request).len(),
                Signal::Metrics => metrics(request).iter().map(|metric| match metric.data.as_ref().unwrap() {
                    Data::Gauge(gauge) => gauge.data_points.len(),
                    Data::Sum(sum) => sum.data_points.len(),
                    Data::Histogram(histogram) => histogram.data_points.len(),
                    other => panic!("{other:?}"),
                }).sum(),
            };
            prop_assert_eq!(items as u64, request.items);
            prop_assert!(items <= max_items && items > 0);
            prop_assert!(request.body.len() <= max_bytes || items == 1, "{} of {max_bytes}", request.body.len());
        }
        prop_assert!(encoder.flush(NOW).is_empty());
    }
}
