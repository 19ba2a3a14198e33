//! Tests of `series`.

use prost::Message;
use proto::v2;

use super::*;
use crate::prometheus::exposition::Page;

const NOW: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;
const FIREHOSE: Naming = Naming::FirehoseExporter { retro_compat: true, enable_delta: false };

fn store(naming: Naming) -> Store {
    Store::new(&Options { naming, ..Options::default() })
}

fn put(store: &mut Store, envelope: &v2::Envelope) -> Outcome {
    store.put(&envelope.encode_to_vec(), NOW, |_, _| {})
}

/// The samples on the page, without the firehose_exporter's own.
fn samples(store: &Store) -> Vec<String> {
    let text = Page::new(store.snapshot()).text();
    let own = |line: &str| line.starts_with("firehose_total_") || line.starts_with("firehose_last_");
    text.lines().filter(|line| !line.starts_with('#') && !own(line)).map(str::to_owned).collect()
}

fn total(name: &str, total: u64) -> v2::Envelope {
    let mut envelope = v2::Envelope::counter("app", name, 0);
    let Some(v2::envelope::Message::Counter(counter)) = &mut envelope.message else { unreachable!() };
    counter.total = total;
    envelope
}

fn request(source_id: &str, status: &str, milliseconds: i64) -> v2::Envelope {
    let envelope = v2::Envelope::timer(source_id, "http", 0, milliseconds * 1_000_000).instance("3");
    envelope
        .tag("status_code", status)
        .tag("method", "get")
        .tag("uri", "https://shop.example.org/cart?id=7")
        .tag("request_id", "r")
}

#[test]
fn contract_8_1_a_counter_is_its_total_and_deltas_add_up() {
    let mut store = store(Naming::Plain);
    for (envelope, value) in [
        (v2::Envelope::counter("app", "requests", 3), 3),
        (v2::Envelope::counter("app", "requests", 4), 7),
        (total("requests", 100), 100),
        (v2::Envelope::counter("app", "requests", 1), 101),
        // A reset is passed on.
        (total("requests", 5), 5),
        (total("requests", 0), 0),
    ] {
        assert_eq!(put(&mut store, &envelope), Outcome::Kept);
        assert_eq!(samples(&store), [format!("requests_total{{source_id=\"app\"}} {value}")]);
    }
}

#[test]
fn contract_8_1_a_gauge_has_its_unit_as_a_label_and_a_series_for_each_of_its_metrics() {
    let mut store = store(FIREHOSE);
    let mut envelope = v2::Envelope::gauge("app", "cpu", 12.5, "percentage").instance("0").tag("origin", "rep");
    let Some(v2::envelope::Message::Gauge(gauge)) = &mut envelope.message else { unreachable!() };
    gauge.metrics.insert("queueDepth".to_owned(), v2::GaugeValue { unit: String::new(), value: -1.0 });
    put(&mut store, &envelope);
    let labels = "{instance_id=\"0\",origin=\"rep\",source_id=\"app\"";
    assert_eq!(
        samples(&store),
        [
            format!("firehose_container_metric_cpu_percentage{labels},unit=\"percentage\"}} 12.5"),
            format!("firehose_value_metric_rep_queue_depth{labels}}} -1"),
        ]
    );
}

#[test]
fn contract_8_1_enable_delta_adds_the_last_step() {
    let mut store = store(Naming::FirehoseExporter { retro_compat: false, enable_delta: true });
    put(&mut store, &v2::Envelope::counter("app", "requests", 3));
    put(&mut store, &v2::Envelope::counter("app", "requests", 4));
    assert_eq!(
        samples(&store),
        ["firehose_requests_delta{source_id=\"app\"} 4", "firehose_requests_total{source_id=\"app\"} 7"]
    );
}

#[test]
fn contract_8_1_http_rollups_of_the_firehose_exporter() {
    let mut store = store(FIREHOSE);
    let app =
        |status| request("app", status, 30).tag("app_id", "g").tag("content_length", "1000").tag("origin", "gorouter");
    put(&mut store, &app("200"));
    put(&mut store, &app("200"));
    put(&mut store, &app("404"));
    let guid = "c0ffee00-1111-2222-3333-444455556666";
    assert_eq!(put(&mut store, &request(guid, "200", 1)), Outcome::Ignored);
    assert_eq!(put(&mut store, &request("gorouter", "200", 1).tag("peer_type", "Client")), Outcome::Ignored);
    let got = samples(&store);
    let labels = |rest: &str| {
        let (before, after) =
            ("{app_id=\"g\",application_id=\"g\",host=\"shop.example.org\"", "method=\"GET\",node_index=\"0\"");
        format!("{before}{rest},{after},origin=\"cf_app\",scheme=\"https\",source_id=\"app\"")
    };
    for line in [
        format!("firehose_http_total{},status_code=\"200\"}} 2", labels("")),
        format!("firehose_http_total{},status_code=\"404\"}} 1", labels("")),
        format!("firehose_http_duration_seconds_bucket{},le=\"0.025\"}} 0", labels("")),
        format!("firehose_http_duration_seconds_bucket{},le=\"0.05\"}} 3", labels("")),
        format!("firehose_http_duration_seconds_bucket{},le=\"+Inf\"}} 3", labels("")),
        format!("firehose_http_duration_seconds_sum{}}} 0.09", labels("")),
        format!("firehose_http_response_size_bytes_sum{},status_code=\"200\"}} 2000", labels("")),
        format!("firehose_http_response_size_bytes_count{},status_code=\"200\"}} 2", labels("")),
    ] {
        assert!(got.contains(&line), "{line} is missing from {got:#?}");
    }
    assert_eq!(got.len(), 2 + 14 + 2 * 6);
}

#[test]
fn requests_are_counted_by_app_and_class_of_status() {
    let mut store = store(Naming::Plain);
    for (status, method) in [("200", "get"), ("204", "GET"), ("503", "BREW"), ("", "GET")] {
        put(&mut store, &request("app", status, 7).tag("method", method).tag("app_name", "shop"));
    }
    assert_eq!(put(&mut store, &request("app", "200", 1).tag("peer_type", "Client")), Outcome::Ignored);
    let got = samples(&store);
    let labels = "app_name=\"shop\",source_id=\"app\"";
    for line in [
        format!("http_requests_total{{{labels},status_class=\"2xx\"}} 2"),
        format!("http_requests_total{{{labels},status_class=\"5xx\"}} 1"),
        format!("http_requests_total{{{labels},status_class=\"other\"}} 1"),
        format!("http_request_duration_seconds_bucket{{{labels},le=\"0.01\"}} 4"),
        format!("http_request_duration_seconds_count{{{labels}}} 4"),
    ] {
        assert!(got.contains(&line), "{line} is missing from {got:#?}");
    }
    assert_eq!(got.len(), 3 + 14);
}

#[test]
fn http_timers_can_be_left_out_and_be_told_apart_by_instance() {
    let mut none = Store::new(&Options { http: None, ..Options::default() });
    assert_eq!(put(&mut none, &request("app", "200", 1)), Outcome::Ignored);
    let http = Some(Http { by_instance: true, ..Http::default() });
    let mut store = Store::new(&Options { http, ..Options::default() });
    put(&mut store, &request("app", "200", 1));
    assert!(samples(&store).iter().all(|line| line.contains("instance_id=\"3\"")));
}

#[test]
fn other_timers_are_histograms_without_labels_that_never_repeat() {
    let mut store = store(Naming::Plain);
    for i in 0..3 {
        let timer =
            v2::Envelope::timer("app", "sql.query", 0, 40_000_000).tag("request_id", i.to_string()).tag("db", "main");
        assert_eq!(put(&mut store, &timer), Outcome::Kept);
    }
    let got = samples(&store);
    assert!(got.contains(&"sql_query_duration_seconds_count{db=\"main\",source_id=\"app\"} 3".to_owned()), "{got:?}");
    assert_eq!((got.len(), store.series()), (14, 14));
    assert_eq!(put(&mut super::tests::store(FIREHOSE), &v2::Envelope::timer("app", "sql", 0, 1)), Outcome::Ignored);
}

#[test]
fn logs_and_events_are_passed_over_and_what_cannot_be_read_or_named_is_dropped() {
    let mut store = store(Naming::Plain);
    assert_eq!(put(&mut store, &v2::Envelope::log("app", "x")), Outcome::Ignored);
    assert_eq!(put(&mut store, &v2::Envelope::event("app", "t", "b")), Outcome::Ignored);
    assert_eq!(put(&mut store, &v2::Envelope::default()), Outcome::Ignored);
    assert_eq!(store.put(b"\x2a\xff", NOW, |_, _| {}), Outcome::Dropped(Reason::DecodeError));
    for _ in 0..2 {
        assert_eq!(put(&mut store, &v2::Envelope::counter("app", "..", 1)), Outcome::Dropped(Reason::ConvertError));
    }
    assert_eq!((store.series(), store.counts().unnamed), (0, 2));
}

#[test]
fn what_is_older_than_the_series_is_passed_over_but_a_step_counts() {
    let mut store = store(Naming::Plain);
    put(&mut store, &v2::Envelope::gauge("app", "g", 1.0, "").at(NOW - SECOND));
    put(&mut store, &v2::Envelope::gauge("app", "g", 2.0, "").at(NOW - 2 * SECOND));
    // Of the future, and without a time: of now.
    put(&mut store, &v2::Envelope::gauge("app", "g", 3.0, "").at(NOW + 3600 * SECOND));
    put(&mut store, &v2::Envelope::gauge("app", "g", 4.0, ""));
    put(&mut store, &v2::Envelope::counter("app", "c", 2).at(NOW - SECOND));
    put(&mut store, &v2::Envelope::counter("app", "c", 3).at(NOW - 2 * SECOND));
    assert_eq!(samples(&store), ["c_total{source_id=\"app\"} 5", "g{source_id=\"app\"} 4"]);
    assert_eq!((store.counts().late, store.counts().updates), (1, 5));
}

#[test]
fn envelopes_with_the_same_labels_are_one_series_however_their_tags_are_written() {
    let mut store = store(Naming::Plain);
    let mut slots = Vec::new();
    for tag in ["a-b", "a.b"] {
        let envelope =
            v2::Envelope::counter("app", "c", 1).tag(tag, "1").tag("__x", tag).tag("empty", "").encode_to_vec();
        store.put(&envelope, NOW, |slot, _| slots.push(slot));
    }
    assert_eq!(slots, [0, 0]);
    assert_eq!(samples(&store), ["c_total{a_b=\"1\",source_id=\"app\"} 2"]);
}

#[test]
fn series_end_after_the_expiry_and_make_room() {
    let limits = Limits { series: 2, ..Limits::default() };
    let mut store = Store::new(&Options { limits, ..Options::default() });
    let at = |store: &mut Store, name: &str, now| {
        store.put(&v2::Envelope::gauge("app", name, 1.0, "").at(NOW).encode_to_vec(), now, |_, _| {})
    };
    assert_eq!(at(&mut store, "a", NOW), Outcome::Kept);
    assert_eq!(at(&mut store, "b", NOW + 60 * SECOND), Outcome::Kept);
    assert_eq!(at(&mut store, "c", NOW), Outcome::Dropped(Reason::Cardinality));
    let mut ended = Vec::new();
    store.expire(NOW + 599 * SECOND, |_, series| ended.push(series.name().to_owned()));
    assert!(ended.is_empty());
    store.expire(NOW + 600 * SECOND, |_, series| ended.push(series.name().to_owned()));
    assert_eq!((ended.as_slice(), store.series()), (&["a".to_owned()][..], 1));
    assert_eq!(at(&mut store, "c", NOW + 600 * SECOND), Outcome::Kept);
    assert_eq!(samples(&store), ["b{source_id=\"app\"} 1", "c{source_id=\"app\"} 1"]);
    store.expire(NOW + 3600 * SECOND, |_, _| {});
    assert_eq!((store.series(), store.label_bytes, store.known.len(), store.by_source.len()), (0, 0, 0, 0));
    assert!(store.snapshot().families.is_empty() && store.by_labels.is_empty());
}

#[test]
fn beyond_the_limits_new_series_are_dropped_and_the_offender_is_named() {
    let limits = Limits { series: 50, series_per_source: 10, ..Limits::default() };
    let mut store = Store::new(&Options { limits, ..Options::default() });
    let gauge = |source: &str, user: usize| {
        v2::Envelope::gauge(source, "load", 1.0, "").tag("user", user.to_string()).tag("zone", format!("z{}", user % 2))
    };
    for user in 0..30 {
        put(&mut store, &gauge("loud", user));
    }
    assert_eq!(put(&mut store, &gauge("quiet", 0)), Outcome::Kept, "another source has room");
    assert_eq!(put(&mut store, &gauge("loud", 0)), Outcome::Kept, "what is there stays");
    assert_eq!((store.series(), store.counts().cardinality), (11, 20));
    let offender = Offender {
        metric: "load".to_owned(),
        source_id: "loud".to_owned(),
        refused: 20,
        label: Some("user".to_owned()),
    };
    assert_eq!(store.offenders(), [offender]);
    assert_eq!(store.offenders(), []);
    for source in 0..100 {
        put(&mut store, &gauge(&source.to_string(), 0));
    }
    assert_eq!(store.series(), 50);
    assert_eq!(store.offenders().len(), OFFENDERS);
}

#[test]
fn labels_are_bounded_in_bytes_and_the_look_up_in_entries() {
    let limits = Limits { series: 10, label_bytes: 100, ..Limits::default() };
    let mut store = Store::new(&Options { limits, ..Options::default() });
    assert_eq!(
        put(&mut store, &v2::Envelope::gauge("app", "g", 1.0, "").tag("t", "x".repeat(90))),
        Outcome::Dropped(Reason::Cardinality)
    );
    for i in 0..5000 {
        // Tags that leave no trace in the labels.
        put(&mut store, &v2::Envelope::gauge("app", "g", 1.0, "").tag("__i", i.to_string()));
    }
    assert!(store.known.len() <= 2 * 10 + 1024, "{}", store.known.len());
    assert_eq!(store.series(), 1);
}

#[test]
fn contract_8_1_the_firehose_exporters_own_series() {
    let mut store = store(FIREHOSE);
    put(&mut store, &v2::Envelope::gauge("app", "cpu", 1.0, ""));
    put(&mut store, &v2::Envelope::counter("app", "c", 1));
    put(&mut store, &v2::Envelope::log("app", "x"));
    put(&mut store, &v2::Envelope::counter("app", "", 1));
    store.lost(7, NOW);
    // Nobody else can have these names.
    put(&mut store, &v2::Envelope::gauge("app", "x", 1.0, "").tag("origin", "o"));
    let text = Page::new(store.snapshot()).text();
    for line in [
        "firehose_total_envelopes_received 5",
        "firehose_total_envelopes_dropped 8",
        "firehose_last_envelope_received_timestamp 1700000000",
        "firehose_total_metrics_received 3",
        "firehose_total_metrics_dropped 1",
        "firehose_total_container_metrics_received 1",
        "firehose_total_value_metrics_received 1",
        "firehose_last_http_metric_received_timestamp 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} is missing from {text}");
    }
}

#[test]
fn a_snapshot_in_parts_begins_anew_when_series_have_ended() {
    let mut store = store(Naming::Plain);
    for i in 0..10 {
        put(&mut store, &v2::Envelope::gauge("app", format!("g{i}"), 1.0, ""));
    }
    let mut snapshot = Snapshot::default();
    assert!(store.copy(&mut snapshot, 4));
    store.expire(NOW + 600 * SECOND, |_, _| {});
    store.put(&v2::Envelope::gauge("app", "later", 1.0, "").encode_to_vec(), NOW + 600 * SECOND, |_, _| {});
    while store.copy(&mut snapshot, 4) {}
    assert_eq!((snapshot.series.len(), snapshot.families.len()), (1, 1));
}
