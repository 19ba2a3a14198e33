//! Tests of the bodies for Datadog, byte for byte and by their limits.

use std::collections::HashSet;
use std::io::Read;
use std::time::Duration;

use flate2::read::{GzDecoder, ZlibDecoder};
use proptest::prelude::*;
use prost::Message;
use proto::reason::Reason;
use proto::v2;
use serde_json::Value;

use super::body::Sizes;
use super::*;
use crate::outcome::Outcome;

mod schema;

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_700_000_000 * SECOND;

fn encoder(api: Api) -> Encoder {
    Encoder::new(&Options { api, host: Some("h".to_owned()), ..Options::default() })
}

fn put(encoder: &mut Encoder, envelope: &v2::Envelope) -> Outcome {
    encoder.put(&envelope.encode_to_vec(), NOW)
}

fn keep(encoder: &mut Encoder, envelopes: impl IntoIterator<Item = v2::Envelope>) {
    for envelope in envelopes {
        assert_eq!(put(encoder, &envelope), Outcome::Kept, "{envelope:?}");
    }
}

/// A gauge of several metrics.
fn gauges(source_id: &str, metrics: &[(&str, f64)]) -> v2::Envelope {
    let mut envelope = v2::Envelope::gauge(source_id, "", 0.0, "");
    let value = |value| v2::GaugeValue { unit: String::new(), value };
    let metrics = metrics.iter().map(|(name, number)| ((*name).to_owned(), value(*number))).collect();
    envelope.message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics }));
    envelope
}

/// A counter that says both.
fn counter(source_id: &str, delta: u64, total: u64) -> v2::Envelope {
    let mut envelope = v2::Envelope::counter(source_id, "c", delta);
    if let Some(v2::envelope::Message::Counter(counter)) = &mut envelope.message {
        counter.total = total;
    }
    envelope
}

fn unpacked(request: &Request) -> String {
    let mut text = String::new();
    let encoding = &request.headers.iter().find(|(name, _)| *name == "content-encoding").unwrap().1;
    match encoding.as_str() {
        "gzip" => GzDecoder::new(&request.body[..]).read_to_string(&mut text).unwrap(),
        "deflate" => ZlibDecoder::new(&request.body[..]).read_to_string(&mut text).unwrap(),
        other => panic!("{other}"),
    };
    text
}

/// The only body of a flush.
fn body(encoder: &mut Encoder) -> String {
    let requests = encoder.flush(NOW);
    assert_eq!(requests.len(), 1, "{requests:?}");
    schema::check(&requests[0], &unpacked(&requests[0]), NOW);
    unpacked(&requests[0])
}

/// Each metric of a flush at `now`, with its value and tags.
fn points(encoder: &mut Encoder, now: i64) -> Vec<(String, f64, Vec<String>)> {
    let requests = encoder.flush(now);
    let series = requests.iter().flat_map(|request| {
        let text = unpacked(request);
        schema::check(request, &text, now);
        let body: Value = serde_json::from_str(&text).unwrap();
        body["series"].as_array().unwrap().clone()
    });
    let point = |one: &Value| match &one["points"][0] {
        Value::Array(pair) => pair[1].as_f64().unwrap(),
        point => point["value"].as_f64().unwrap(),
    };
    let tags =
        |one: &Value| one["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect();
    series.map(|one| (one["metric"].as_str().unwrap().to_owned(), point(&one), tags(&one))).collect()
}

fn values(encoder: &mut Encoder, now: i64) -> Vec<(String, f64)> {
    points(encoder, now).into_iter().map(|(name, value, _)| (name, value)).collect()
}

fn named(of: &[(&str, f64)]) -> Vec<(String, f64)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

fn one_of_each() -> [v2::Envelope; 3] {
    [
        v2::Envelope::counter("app", "requests", 3).tag("zone", "z\"1\"").instance("0").at(NOW),
        v2::Envelope::gauge("app", "load avg", 1.5, "percentage").at(NOW - 5 * SECOND),
        v2::Envelope::timer("app", "sql", 0, SECOND / 2).tag("request_id", "7").at(NOW),
    ]
}

#[test]
fn contract_7_1_series_of_v2_byte_for_byte() {
    let mut encoder = encoder(Api::V2);
    keep(&mut encoder, one_of_each());
    let host = r#""resources":[{"type":"host","name":"h"}]"#;
    let plain = r#""tags":["source_id:app"]"#;
    let at = r#""points":[{"timestamp":1700000000,"value":"#;
    let expected = [
        r#"{"series":[{"metric":"requests","type":1,"interval":10,"#.to_owned(),
        format!(r#"{at}3}}],{host},"tags":["instance_id:0","source_id:app","zone:z\"1\""]}},"#),
        r#"{"metric":"load_avg","type":3,"points":[{"timestamp":1699999995,"value":1.5}],"#.to_owned(),
        format!(r#"{host},{plain},"unit":"percent"}},"#),
        format!(r#"{{"metric":"sql.duration.count","type":1,"interval":10,{at}1}}],{host},{plain}}},"#),
        format!(r#"{{"metric":"sql.duration.sum","type":3,{at}0.5}}],{host},{plain},"unit":"second"}},"#),
        format!(r#"{{"metric":"sql.duration.avg","type":3,{at}0.5}}],{host},{plain},"unit":"second"}},"#),
        format!(r#"{{"metric":"sql.duration.max","type":3,{at}0.5}}],{host},{plain},"unit":"second"}}]}}"#),
    ];
    assert_eq!(body(&mut encoder), expected.concat());
    assert_eq!(encoder.flush(NOW), []);
    assert_eq!((encoder.counts().points, encoder.series()), (6, 6));
}

#[test]
fn contract_7_1_series_of_v1_byte_for_byte() {
    let mut encoder = encoder(Api::V1);
    keep(&mut encoder, one_of_each());
    let plain = r#""host":"h","tags":["source_id:app"]}"#;
    let expected = [
        r#"{"series":[{"metric":"requests","type":"count","interval":10,"points":[[1700000000,3]],"#.to_owned(),
        r#""host":"h","tags":["instance_id:0","source_id:app","zone:z\"1\""]},"#.to_owned(),
        format!(r#"{{"metric":"load_avg","type":"gauge","points":[[1699999995,1.5]],{plain},"#),
        r#"{"metric":"sql.duration.count","type":"count","interval":10,"points":[[1700000000,1]],"#.to_owned(),
        format!(r#"{plain},{{"metric":"sql.duration.sum","type":"gauge","points":[[1700000000,0.5]],{plain},"#),
        format!(r#"{{"metric":"sql.duration.avg","type":"gauge","points":[[1700000000,0.5]],{plain},"#),
        format!(r#"{{"metric":"sql.duration.max","type":"gauge","points":[[1700000000,0.5]],{plain}]}}"#),
    ];
    assert_eq!(body(&mut encoder), expected.concat());
}

#[test]
fn contract_7_2_logs_and_events_byte_for_byte() {
    let options = Options { env: Some("prod".to_owned()), tags: vec!["team:a".to_owned()], ..Options::default() };
    let mut encoder = Encoder::new(&options);
    let log = |payload: &'static [u8]| v2::Envelope::log("guid", payload).at(NOW + 7_000_000);
    keep(
        &mut encoder,
        [
            log(b"hello \"you\"\n").tag("app_name", "shop").tag("index", "vm-1").tag("a", "1,2"),
            log(b"\xff").err(),
            v2::Envelope::event("guid", "title", "body").at(NOW),
        ],
    );
    let expected = [
        r#"[{"message":"hello \"you\"\n","ddsource":"hydrant","#,
        r#""ddtags":"a:1_2,app_name:shop,env:prod,index:vm-1,source_id:guid,team:a","hostname":"vm-1","service":"shop","#,
        r#""status":"info","timestamp":1700000000007},"#,
        "{\"message\":\"\u{fffd}\",\"ddsource\":\"hydrant\",\"ddtags\":\"env:prod,source_id:guid,team:a\",",
        r#""service":"guid","status":"error","timestamp":1700000000007},"#,
        r#"{"message":"title\nbody","ddsource":"hydrant","ddtags":"env:prod,source_id:guid,team:a","#,
        r#""service":"guid","status":"info","timestamp":1700000000000}]"#,
    ];
    assert_eq!(body(&mut encoder), expected.concat());
}

#[test]
fn requests_say_where_they_go_and_how_they_are_encoded() {
    let mut plain = encoder(Api::V2);
    let mut nozzle = Encoder::new(&Options::nozzle());
    for encoder in [&mut plain, &mut nozzle] {
        keep(encoder, [v2::Envelope::gauge("app", "g", 1.0, ""), v2::Envelope::log("app", "x")]);
    }
    let heads = |encoder: &mut Encoder| -> Vec<_> {
        let requests = encoder.flush(NOW).into_iter();
        requests
            .map(|request| (request.target, request.path, request.headers[1].1.clone(), request.envelopes))
            .collect()
    };
    let gzip = || "gzip".to_owned();
    assert_eq!(
        heads(&mut plain),
        [(Target::Series, "/api/v2/series", gzip(), 1), (Target::Logs, "/api/v2/logs", gzip(), 1)]
    );
    let deflate = || "deflate".to_owned();
    assert_eq!(
        heads(&mut nozzle),
        [(Target::Series, "/api/v1/series", deflate(), 1), (Target::Logs, "/api/v2/logs", deflate(), 1)]
    );
}

#[test]
fn counters_send_what_they_went_on_by() {
    let mut encoder = encoder(Api::V2);
    let total = |of| counter("app", 0, of).at(NOW);
    assert_eq!(put(&mut encoder, &total(100)), Outcome::Ignored, "from where to count");
    assert_eq!(encoder.flush(NOW), []);
    keep(&mut encoder, [total(103), total(110)]);
    // Both, then only a step: deltas count, and the total goes along.
    keep(&mut encoder, [counter("app", 5, 115).at(NOW), counter("app", 2, 0).at(NOW)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("c", 17.0)]));
    keep(&mut encoder, [total(118)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("c", 1.0)]));
    // It began anew; and one that is late says nothing new.
    keep(&mut encoder, [total(4), counter("app", 0, 118).at(NOW - SECOND), total(6)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("c", 6.0)]));
    keep(&mut encoder, [total(6)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("c", 0.0)]));
}

#[test]
fn counts_never_share_a_second() {
    let mut encoder = encoder(Api::V1);
    let mut seconds = Vec::new();
    for _ in 0..3 {
        keep(&mut encoder, [v2::Envelope::counter("app", "c", 1)]);
        let text = body(&mut encoder);
        let body: Value = serde_json::from_str(&text).unwrap();
        seconds.push(body["series"][0]["points"][0][0].as_i64().unwrap() - NOW / SECOND);
    }
    assert_eq!(seconds, [0, 1, 2]);
}

#[test]
fn gauges_keep_the_newest_of_a_flush_and_timers_add_up() {
    let mut encoder = encoder(Api::V2);
    let gauge = |value, at| v2::Envelope::gauge("app", "g", value, "").at(at);
    let timer = |milliseconds: i64| v2::Envelope::timer("app", "t", 0, milliseconds * 1_000_000);
    keep(&mut encoder, [gauge(1.0, NOW - SECOND), gauge(2.0, NOW), gauge(3.0, NOW - 2 * SECOND)]);
    keep(&mut encoder, [timer(250), timer(750), timer(-5)]);
    let timers =
        [("t.duration.count", 3.0), ("t.duration.sum", 1.0), ("t.duration.avg", 1.0 / 3.0), ("t.duration.max", 0.75)];
    assert_eq!(values(&mut encoder, NOW), named(&[&[("g", 2.0)][..], &timers].concat()));
    // What is older than the last flush is of a time of its own.
    keep(&mut encoder, [gauge(4.0, NOW - 3 * SECOND), timer(500)]);
    let timers = [("t.duration.count", 1.0), ("t.duration.sum", 0.5), ("t.duration.avg", 0.5), ("t.duration.max", 0.5)];
    assert_eq!(values(&mut encoder, NOW), named(&[&[("g", 4.0)][..], &timers].concat()));
}

#[test]
fn requests_are_one_series_whatever_their_paths_and_count_once() {
    let mut encoder = encoder(Api::V2);
    let http = |i: usize, peer: &str| {
        v2::Envelope::timer("app", "http", 0, SECOND)
            .tag("uri", format!("/{i}"))
            .tag("method", if i == 0 { "BREW" } else { "POUR" })
            .tag("peer_type", peer)
    };
    keep(&mut encoder, [http(0, "Server"), http(1, "Server")]);
    assert_eq!(put(&mut encoder, &http(2, "Client")), Outcome::Ignored);
    let points = points(&mut encoder, NOW);
    assert_eq!((points.len(), points[0].1), (4, 2.0));
    assert_eq!(points[0].2, ["method:OTHER", "peer_type:Server", "source_id:app"]);
}

#[test]
fn what_is_too_old_is_dropped_and_what_has_no_time_is_of_now() {
    let mut encoder = encoder(Api::V1);
    let old = Outcome::Dropped(Reason::ConvertError);
    let hour = 3600 * SECOND;
    assert_eq!(put(&mut encoder, &v2::Envelope::gauge("app", "g", 1.0, "").at(NOW - hour - 1)), old);
    assert_eq!(put(&mut encoder, &v2::Envelope::log("app", "x").at(NOW - 18 * hour - 1)), old);
    keep(
        &mut encoder,
        [
            v2::Envelope::gauge("app", "edge", 1.0, "").at(NOW - hour),
            v2::Envelope::gauge("app", "ahead", 1.0, "").at(NOW + 600 * SECOND),
            v2::Envelope::gauge("app", "far", 1.0, "").at(NOW + 601 * SECOND),
            v2::Envelope::gauge("app", "none", 1.0, ""),
        ],
    );
    let body: Value = serde_json::from_str(&body(&mut encoder)).unwrap();
    let at = |i: usize| body["series"][i]["points"][0][0].as_i64().unwrap() - NOW / SECOND;
    assert_eq!([at(0), at(1), at(2), at(3)], [-3599, 600, 0, 0]);
}

#[test]
fn what_is_no_number_is_removed() {
    let mut encoder = encoder(Api::V2);
    let all = gauges("app", &[("a", f64::NAN), ("b", f64::INFINITY)]);
    assert_eq!(put(&mut encoder, &all), Outcome::Dropped(Reason::ConvertError));
    keep(&mut encoder, [gauges("app", &[("a", f64::NAN), ("b", 1.0)])]);
    assert_eq!(values(&mut encoder, NOW), named(&[("b", 1.0)]));
    assert_eq!(encoder.counts().not_finite, 3);
}

#[test]
fn what_cannot_be_read_or_named_is_dropped_and_what_is_empty_is_ignored() {
    let mut encoder = encoder(Api::V2);
    for _ in 0..2 {
        let unnamed = v2::Envelope::counter("app", "..", 1);
        assert_eq!(put(&mut encoder, &unnamed), Outcome::Dropped(Reason::ConvertError));
    }
    assert_eq!(encoder.put(b"\x2a\xff", NOW), Outcome::Dropped(Reason::DecodeError));
    assert_eq!(encoder.put(b"\x2a\x02\x0a\xff", NOW), Outcome::Dropped(Reason::DecodeError));
    assert_eq!(put(&mut encoder, &v2::Envelope::default()), Outcome::Ignored);
    assert_eq!(put(&mut encoder, &gauges("app", &[])), Outcome::Ignored);
    assert_eq!(encoder.flush(NOW), []);
}

#[test]
fn our_tags_stand_in_place_of_the_senders_and_hosts_may_be_tags() {
    let options = Options {
        prefix: "cf.".to_owned(),
        env: Some("prod".to_owned()),
        service: Some("shop".to_owned()),
        tags: vec!["team:a,b".to_owned(), String::new()],
        ..Options::default()
    };
    let mut encoder = Encoder::new(&options);
    let gauge = v2::Envelope::gauge("app", "1st", 1.0, "");
    let tags = [("env", "x"), ("service", "x"), ("source_id", "x"), ("environment", "y"), ("e", ""), ("index", "vm")];
    keep(&mut encoder, [tags.into_iter().fold(gauge, |gauge, (key, value)| gauge.tag(key, value))]);
    let body: Value = serde_json::from_str(&body(&mut encoder)).unwrap();
    let series = &body["series"][0];
    assert_eq!((&series["metric"], &series["resources"][0]["name"]), (&"cf.1st".into(), &"vm".into()));
    let expected = ["env:prod", "environment:y", "index:vm", "service:shop", "source_id:app", "team:a_b"];
    assert_eq!(series["tags"].as_array().unwrap(), &expected.map(Value::from));
}

#[test]
fn beyond_the_limits_new_series_are_dropped_and_the_offender_is_named() {
    let limits = Limits { series: 50, series_per_source: 10, ..Limits::default() };
    let mut encoder = Encoder::new(&Options { limits, ..Options::default() });
    let gauge = |source: &str, user: usize| {
        let gauge = v2::Envelope::gauge(source, "load", 1.0, "");
        gauge.tag("user", user.to_string()).tag("zone", format!("z{}", user % 2))
    };
    for user in 0..30 {
        put(&mut encoder, &gauge("loud", user));
    }
    assert_eq!(put(&mut encoder, &gauge("loud", 29)), Outcome::Dropped(Reason::Cardinality));
    keep(&mut encoder, [gauge("quiet", 0), gauge("loud", 0)]);
    assert_eq!((encoder.series(), encoder.counts().cardinality), (11, 21));
    let offender =
        Offender { metric: "load".into(), source_id: "loud".into(), refused: 20, label: Some("user".to_owned()) };
    assert_eq!(encoder.offenders(), [offender]);
    assert_eq!(encoder.offenders(), []);
    let bytes = Limits { bytes: 100, ..Limits::default() };
    let mut encoder = Encoder::new(&Options { limits: bytes, ..Options::default() });
    let long = v2::Envelope::gauge("app", "g", 1.0, "").tag("t", "x".repeat(90));
    assert_eq!(put(&mut encoder, &long), Outcome::Dropped(Reason::Cardinality));
}

#[test]
fn series_are_forgotten_after_the_expiry_and_make_room() {
    let limits = Limits { series: 2, ..Limits::default() };
    let mut encoder = Encoder::new(&Options { limits, ..Options::default() });
    let at = |encoder: &mut Encoder, name: &str, now| {
        encoder.put(&v2::Envelope::gauge("app", name, 1.0, "").encode_to_vec(), now)
    };
    assert_eq!(at(&mut encoder, "a", NOW), Outcome::Kept);
    assert_eq!(at(&mut encoder, "b", NOW + 60 * SECOND), Outcome::Kept);
    assert_eq!(at(&mut encoder, "c", NOW), Outcome::Dropped(Reason::Cardinality));
    encoder.flush(NOW + 599 * SECOND);
    assert_eq!(encoder.series(), 2);
    encoder.flush(NOW + 660 * SECOND);
    assert_eq!(encoder.series(), 0);
    assert_eq!(at(&mut encoder, "c", NOW + 660 * SECOND), Outcome::Kept);
}

#[test]
fn series_with_the_same_text_are_one_however_their_tags_are_written() {
    let mut encoder = encoder(Api::V2);
    for value in ["a,b", "a\nb", "a_b"] {
        keep(&mut encoder, [v2::Envelope::counter("app", "c", 1).tag("t", value).tag("", value)]);
    }
    assert_eq!(values(&mut encoder, NOW), named(&[("c", 3.0)]));
}

#[test]
fn long_messages_are_cut_at_a_character() {
    let mut encoder = encoder(Api::V2);
    keep(
        &mut encoder,
        [v2::Envelope::log("app", "é".repeat(600_000)), v2::Envelope::log("app", "\u{1}".repeat(600_000))],
    );
    assert_eq!(encoder.counts().cut, 2);
    let entries: Value = serde_json::from_str(&body(&mut encoder)).unwrap();
    assert_eq!(entries[0]["message"].as_str().unwrap().len(), logs::MAX_MESSAGE);
    assert_eq!(entries[1]["message"].as_str().unwrap().len(), logs::MAX_MESSAGE / 6);
}

#[test]
fn full_bodies_of_logs_do_not_wait_and_metrics_do() {
    let mut encoder = encoder(Api::V2);
    keep(&mut encoder, [v2::Envelope::counter("app", "c", 1)]);
    keep(&mut encoder, (0..1000).map(|i| v2::Envelope::log("app", i.to_string())));
    assert!(!encoder.is_full());
    keep(&mut encoder, [v2::Envelope::log("app", "x")]);
    assert!(encoder.is_full());
    let full: Vec<_> = encoder.take_full().iter().map(|request| (request.target, request.envelopes)).collect();
    assert_eq!(full, [(Target::Logs, 1000)]);
    assert!(!encoder.is_full());
    let rest: Vec<_> = encoder.flush(NOW).iter().map(|request| (request.target, request.envelopes)).collect();
    assert_eq!(rest, [(Target::Series, 1), (Target::Logs, 1)]);
    // By length as well.
    keep(&mut encoder, (0..6).map(|_| v2::Envelope::log("app", "x".repeat(990_000))));
    assert!(encoder.is_full());
}

#[test]
fn contract_7_4_names_and_tags_of_the_nozzle() {
    let options = Options { env: Some("prod".to_owned()), tags: vec!["team:a".to_owned()], ..Options::nozzle() };
    let mut encoder = Encoder::new(&options);
    let id = "0123456789abcdef0123";
    let mut total = counter("src", 1, 42).instance("3").at(NOW);
    for (key, value) in [
        ("origin", "gorouter"),
        ("index", "vm-1"),
        ("deployment", &format!("cf-{id}")),
        ("job", &format!("router-partition-{id}")),
        ("process_instance_id", "c-1"),
        ("created_at", "today"),
        ("x", "user_data=1"),
        ("empty", ""),
    ] {
        total = total.tag(key, value);
    }
    keep(&mut encoder, [total]);
    let [before, after]: [&str; 2] = [
        r#","type":"gauge","points":[[1700000000,42]],"host":"vm-1","tags":["container_id:c-1","#,
        concat!(
            r#""deployment:cf","deployment:cf-0123456789abcdef0123","deployment:cf_prod","env:prod","index:vm-1","#,
            r#""instance_id:3","job:router","job:router-partition-0123456789abcdef0123","name:gorouter","#,
            r#""origin:gorouter","process_instance_id:c-1","source_id:src","team:a"]}"#
        ),
    ];
    let series = |name: &str| format!(r#"{{"metric":"cloudfoundry.nozzle.{name}"{before}{after}"#);
    assert_eq!(body(&mut encoder), format!(r#"{{"series":[{},{}]}}"#, series("c"), series("gorouter.c")));
}

#[test]
fn contract_7_4_names_of_bosh_and_hosts_of_the_nozzle() {
    let mut encoder = Encoder::new(&Options::nozzle());
    keep(
        &mut encoder,
        [
            v2::Envelope::gauge("s", "bosh-hm-forwarder.cpu", 1.0, ""),
            v2::Envelope::gauge("s", "bosh.healthmonitor.disk", 2.0, "").tag("origin", "o"),
        ],
    );
    let text = body(&mut encoder);
    let body: Value = serde_json::from_str(&text).unwrap();
    let series = |i: usize| (body["series"][i]["metric"].as_str().unwrap(), body["series"][i].get("host"));
    assert_eq!(series(0), ("cloudfoundry.nozzle.bosh_hm_forwarder.cpu", None));
    assert_eq!(series(1), ("bosh.healthmonitor.cpu", None));
    assert_eq!(series(2), ("bosh.healthmonitor.disk", Some(&"o".into())));
    assert_eq!(series(3), ("cloudfoundry.nozzle.o.bosh.healthmonitor.disk", Some(&"o".into())));
}

#[test]
fn contract_7_4_containers_and_what_the_nozzle_leaves_out() {
    let mut encoder = Encoder::new(&Options::nozzle());
    let metrics =
        [("cpu", 0.5), ("disk", 1.0), ("disk_quota", 2.0), ("memory", 3.0), ("memory_quota", 4.0), ("other", 5.0)];
    let container = gauges("guid", &metrics).instance("1").tag("app_name", "shop").tag("organization_id", "o");
    keep(&mut encoder, [container]);
    let mut got = points(&mut encoder, NOW);
    got.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(got[0].2, ["app_name:shop", "guid:guid", "instance:1", "org_id:o", "source_id:guid"]);
    let got: Vec<_> = got.iter().map(|(name, value, _)| (&name["cloudfoundry.nozzle.app.".len()..], *value)).collect();
    let expected =
        [("cpu.pct", 0.5), ("disk.quota", 2.0), ("disk.used", 1.0), ("memory.quota", 4.0), ("memory.used", 3.0)];
    assert_eq!(got, expected);
    assert_eq!(put(&mut encoder, &v2::Envelope::timer("app", "t", 0, 1)), Outcome::Ignored);
    assert_eq!(put(&mut encoder, &v2::Envelope::event("app", "t", "b")), Outcome::Ignored);
    // A counter that only says steps has the total that they make.
    keep(&mut encoder, [counter("s", 2, 0), counter("s", 3, 0)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("cloudfoundry.nozzle.c", 5.0)]));
    keep(&mut encoder, [counter("s", 1, 0)]);
    assert_eq!(values(&mut encoder, NOW), named(&[("cloudfoundry.nozzle.c", 6.0)]));
}

#[test]
fn bodies_that_are_too_long_on_the_wire_are_cut_in_halves() {
    let mut encoder = encoder(Api::V2);
    // Values that hardly compress.
    let noise =
        |i: u64| (0..12).map(|j| format!("{:x}", (i * 12 + j).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect::<String>();
    keep(&mut encoder, (0..9000).map(|i| v2::Envelope::counter("app", "c", 1).tag("t", noise(i))));
    let requests = encoder.flush(NOW);
    assert!(requests.len() > 1);
    let mut tags = HashSet::new();
    for request in &requests {
        assert!(request.body.len() <= 512_000);
        let body: Value = serde_json::from_str(&unpacked(request)).unwrap();
        tags.extend(body["series"].as_array().unwrap().iter().map(|series| series["tags"].to_string()));
    }
    assert_eq!(tags.len(), 9000);
    assert_eq!(requests.iter().map(|request| request.envelopes).sum::<u64>(), 9000);
}

#[test]
fn what_fits_into_no_request_is_dropped() {
    let sizes = Sizes { wire: 600, whole: 600, objects: 10 };
    let mut encoder = Encoder::with_sizes(&Options::default(), sizes, sizes);
    for _ in 0..2 {
        let wide = (0..9)
            .fold(v2::Envelope::gauge("app", "g", 1.0, ""), |gauge, i| gauge.tag(format!("t{i}"), "x".repeat(50)));
        assert_eq!(put(&mut encoder, &wide), Outcome::Dropped(Reason::Oversize));
    }
    let long = v2::Envelope::log("app", "x".repeat(600));
    assert_eq!(put(&mut encoder, &long), Outcome::Dropped(Reason::Oversize));
    keep(&mut encoder, [v2::Envelope::gauge("app", "g", 1.0, ""), v2::Envelope::log("app", "x")]);
    assert_eq!(encoder.flush(NOW).len(), 2);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[a-c,.:\"\\\\\n\u{1}é-]{0,6}", Just("x".repeat(300))]
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -10.0..10.0f64, Just(f64::NAN)]
}

fn any_envelope() -> impl Strategy<Value = v2::Envelope> {
    let name = || {
        prop_oneof![any_text(), Just("a".to_owned()), Just("http".to_owned()), Just("bosh-hm-forwarder.x".to_owned())]
    };
    let metrics = prop::collection::vec((name(), any_number()), 0..4);
    let message = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|payload| v2::Envelope::log("", payload)),
        (name(), any_text()).prop_map(|(title, body)| v2::Envelope::event("", title, body)),
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(delta, total, both)| counter(
            "",
            delta * u64::from(both),
            total
        )),
        (name(), 0u64..5).prop_map(|(name, delta)| v2::Envelope::counter("", name, delta)),
        (name(), any::<i64>(), any::<i64>()).prop_map(|(name, start, stop)| v2::Envelope::timer("", name, start, stop)),
        metrics.prop_map(|metrics| {
            let metrics: Vec<_> = metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            gauges("", &metrics)
        }),
        Just(gauges("", &[("cpu", 1.0), ("disk", 1.0), ("disk_quota", 1.0), ("memory", 1.0), ("memory_quota", 1.0)])),
    ];
    let key =
        prop_oneof![any_text(), Just("origin".to_owned()), Just("index".to_owned()), Just("deployment".to_owned())];
    let tags = prop::collection::hash_map(key, any_text(), 0..6);
    let at = prop_oneof![any::<i64>(), NOW - 4000 * SECOND..NOW + 700 * SECOND];
    (message, any_text(), any_text(), tags, at).prop_map(|(mut envelope, source_id, instance_id, tags, at)| {
        envelope.timestamp = at;
        (envelope.source_id, envelope.instance_id, envelope.tags) =
            (source_id, instance_id, tags.into_iter().collect());
        envelope
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever comes: every body is valid by the schema and within its limits, every envelope that was kept is in one of them, and what
    /// is left out by the limits of a request or of the memory is counted as such.
    #[test]
    fn limits_hold_and_sums_are_exact(
        envelopes in prop::collection::vec((any_envelope(), 0u8..20), 0..60),
        is_nozzle: bool,
        is_v1: bool,
        host in prop::option::of(any_text()),
        wire in 900usize..4000,
        objects in 1usize..20,
        series in 1usize..60,
    ) {
        let base = if is_nozzle { Options::nozzle() } else { Options::default() };
        let limits = Limits { series, ..Limits::default() };
        let api = if is_v1 { Api::V1 } else { Api::V2 };
        let options = Options { api, host, tags: vec!["a:b".to_owned()], limits, ..base };
        let of_series = Sizes { wire, whole: 2 * wire, objects: usize::MAX };
        let of_logs = Sizes { wire: usize::MAX, whole: 3 * wire, objects };
        let mut encoder = Encoder::with_sizes(&options, of_series, of_logs);
        let (mut kept, mut sent, mut now) = (0, 0, NOW);
        let check = |requests: Vec<Request>, now| {
            requests.iter().map(|request| {
                let text = unpacked(request);
                let of = if request.target == Target::Series { of_series } else { of_logs };
                assert!(request.body.len() <= of.wire && text.len() <= of.whole, "{request:?}");
                assert!(schema::check(request, &text, now) <= of.objects);
                request.envelopes
            }).sum::<u64>()
        };
        for (envelope, what) in &envelopes {
            kept += u64::from(encoder.put(&envelope.encode_to_vec(), now) == Outcome::Kept);
            match what {
                0 => {
                    sent += check(encoder.flush(now), now);
                    assert_eq!(kept, sent);
                    now += 7 * SECOND + 3;
                }
                1 => sent += check(encoder.take_full(), now),
                _ => {}
            }
        }
        sent += check(encoder.flush(now), now);
        prop_assert_eq!(kept, sent);
        prop_assert_eq!(encoder.flush(now), []);
        prop_assert!(encoder.series() <= series);
        now += Duration::from_secs(601).as_nanos() as i64;
        encoder.flush(now);
        prop_assert_eq!(encoder.series(), 0);
    }

    /// Deltas are neither lost nor counted twice, however flushes fall between them.
    #[test]
    fn counts_add_up_to_what_the_counter_went_on_by(steps in prop::collection::vec((0u64..1000, 0u8..4, any::<bool>()), 1..60)) {
        let mut encoder = encoder(Api::V2);
        let (mut total, mut sum) = (1000, 0.0);
        put(&mut encoder, &counter("app", 0, total).at(NOW));
        for (step, says, flush) in &steps {
            total += step;
            let envelope = match says {
                0 if *step > 0 => counter("app", *step, total),
                1 if *step > 0 => counter("app", *step, 0),
                _ => counter("app", 0, total),
            };
            keep(&mut encoder, [envelope.at(NOW)]);
            if *flush {
                sum += values(&mut encoder, NOW).iter().map(|(_, value)| value).sum::<f64>();
            }
        }
        sum += values(&mut encoder, NOW).iter().map(|(_, value)| value).sum::<f64>();
        prop_assert_eq!(sum, (total - 1000) as f64);
    }
}
