//! Tests of `encode`.

use std::collections::BTreeMap;

use super::*;
use crate::syslog::config::DrainUrl;

/// The message of one envelope, with its octet count.
fn frame(query: &str, hostname: &str, envelope: &v2::Envelope) -> String {
    let mut out = Vec::new();
    let options = DrainUrl::parse(&format!("syslog://drain:514{query}")).unwrap().options;
    Encoder::new(&options, hostname, true).encode(envelope, Framing::OctetCount, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn log(payload: &'static str) -> v2::Envelope {
    v2::Envelope::log("app-tcp", payload).at(1_700_000_000_123_456_789)
}

fn plain(envelope: &v2::Envelope) -> Result<String, Unencodable> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&Options::default(), "h", true);
    encoder.kinds = Kinds::ALL;
    encoder.encode(envelope, Framing::None, &mut out).map(|_| String::from_utf8(out).unwrap())
}

/// The lines of contract §1.7.
#[test]
fn observed_lines() {
    let all = "?drain-data=all";
    let tagged = log("hello world")
        .instance("0")
        .tag("app_name", "café-app-")
        .tag("deployment", "cf")
        .tag("organization_id", "o-1")
        .tag("organization_name", "my org")
        .tag("origin", "rep")
        .tag("source_type", "APP/PROC/WEB")
        .tag("space_name", "dev_space");
    let line = "265 <14>1 2023-11-14T22:13:20.123456+00:00 my-org.devspace.caf-app app-tcp [APP/PROC/WEB/0] - [tags@47450 \
                app_name=\"café-app-\" deployment=\"cf\" organization_id=\"o-1\" organization_name=\"my org\" origin=\"rep\" \
                source_type=\"APP/PROC/WEB\" space_name=\"dev_space\"] hello world\n";
    assert_eq!(frame(all, "h", &tagged), line);
    let err = log("err\0nul\nmulti\n").err().instance("1").tag("source_type", "APP");
    let line = "120 <11>1 2023-11-14T22:13:20.123456+00:00 org.space.app-host app-tcp [APP/1] - [tags@47450 source_type=\"APP\"] errnul\nmulti\n";
    assert_eq!(frame("", "org.space.app-host", &err), line);
    let line = "74 <14>1 2023-11-14T22:13:20.123456+00:00 org.space.app-host app-tcp [] - - \n";
    assert_eq!(frame("", "org.space.app-host", &log("")), line);

    let at = |envelope: v2::Envelope, instance: &str| envelope.at(1_700_000_000_123_456_789).instance(instance);
    let gauge = at(v2::Envelope::gauge("app-tls", "cpu", 0.25, "percentage"), "2").tag("origin", "rep");
    let line = "141 <14>1 2023-11-14T22:13:20.123456+00:00 h.tls app-tls [2] - [gauge@47450 name=\"cpu\" value=\"0.25\" unit=\"percentage\"][tags@47450 origin=\"rep\"] \n";
    assert_eq!(frame(all, "h.tls", &gauge), line);
    let mut counter = at(v2::Envelope::counter("app-tls", "requests", 3), "3");
    if let Some(Message::Counter(counter)) = &mut counter.message {
        counter.total = 10;
    }
    let line = "113 <14>1 2023-11-14T22:13:20.123456+00:00 h.tls app-tls [3] - [counter@47450 name=\"requests\" total=\"10\" delta=\"3\"] \n";
    assert_eq!(frame(all, "h.tls", &counter), line);
    let timer = at(v2::Envelope::timer("app-tls", "http", 1, 2), "4").tag("peer_type", "Client");
    let line = "136 <14>1 2023-11-14T22:13:20.123456+00:00 h.tls app-tls [4] - [timer@47450 name=\"http\" start=\"1\" stop=\"2\"][tags@47450 peer_type=\"Client\"] \n";
    assert_eq!(frame(all, "h.tls", &timer), line);
    let event = at(v2::Envelope::event("app-tls", "t\"x", "b]y\\z"), "5");
    let line = "102 <14>1 2023-11-14T22:13:20.123456+00:00 h.tls app-tls [5] - [event@47450 title=\"t\\\"x\" body=\"b\\]y\\\\z\"] \n";
    assert_eq!(frame(all, "h.tls", &event), line);
    let first = v2::Envelope::log("app-a", "a").instance("0").tag("source_type", "APP");
    let line = "83 <14>1 1970-01-01T00:00:00+00:00 - app-a [APP/0] - [tags@47450 source_type=\"APP\"] a\n";
    assert_eq!(frame("", "", &first), line);
}

#[test]
fn a_source_type_too_long_for_its_instance_is_cut() {
    for length in [126, 127, 128, 204, 5000] {
        let line = plain(&log("x").instance("77").tag("source_type", "T".repeat(length))).unwrap();
        let procid = line.split(' ').nth(4).unwrap();
        assert_eq!(procid, format!("[{}/]", "T".repeat(125)));
        assert_eq!(procid.len(), MAX_PROCID);
    }
}

#[test]
fn what_can_never_be_a_message_is_an_error_and_leaves_nothing() {
    let header = |name| Err(Unencodable::Header(name));
    assert_eq!(plain(&log("x").instance("a b")), header("PROCID"));
    assert_eq!(plain(&v2::Envelope::log("a b", "x")), header("APP-NAME"));
    assert_eq!(plain(&v2::Envelope::log("ä", "x")), header("APP-NAME"));
    assert_eq!(plain(&v2::Envelope::counter("s", "n", 1).instance("é")), header("PROCID"));
    for key in ["a b", "ä", "a=b", "a]", "a\"", "\u{7f}"] {
        assert_eq!(plain(&log("x").tag(key, "v")), Err(Unencodable::TagKey), "{key}");
    }
    let mut out = b"before".to_vec();
    let mut encoder = Encoder::new(&Options::default(), "bad host", true);
    assert_eq!(encoder.encode(&log("x"), Framing::OctetCount, &mut out), Err(Unencodable::Header("HOSTNAME")));
    assert_eq!(out, b"before");
    // Tags that are not sent cannot spoil a line.
    let mut encoder = Encoder::new(&Options::default(), "h", false);
    assert_eq!(encoder.encode(&log("x").tag("a b", "v"), Framing::None, &mut out), Ok(1));
}

#[test]
fn a_gauge_gives_its_metrics_in_the_order_of_their_names() {
    let metrics = BTreeMap::from([("b", 2.0), ("a", 1.0), ("c", 1e20)]);
    let metrics =
        metrics.into_iter().map(|(name, value)| (name.to_owned(), v2::GaugeValue { value, unit: String::new() }));
    let message = Some(Message::Gauge(v2::Gauge { metrics: metrics.collect() }));
    let gauge = v2::Envelope { source_id: "s".to_owned(), message, ..v2::Envelope::default() };
    let lines = plain(&gauge).unwrap();
    let values: Vec<_> = lines.lines().map(|line| line.split_once("name=").unwrap().1).collect();
    assert_eq!(
        values,
        ["\"a\" value=\"1\" unit=\"\"] ", "\"b\" value=\"2\" unit=\"\"] ", "\"c\" value=\"1e+20\" unit=\"\"] "]
    );
}

#[test]
fn what_the_options_leave_out_gives_nothing() {
    let none = v2::Envelope::default();
    assert_eq!(plain(&none).unwrap(), "");
    assert_eq!(plain(&v2::Envelope { message: Some(Message::Gauge(v2::Gauge::default())), ..none }).unwrap(), "");
    assert_eq!(frame("?drain-data=metrics", "h", &log("x")), "");
    assert_eq!(frame("?include-log-types=RTR", "h", &log("x").tag("source_type", "APP/PROC/WEB")), "");
    assert_ne!(frame("?include-log-types=app", "h", &log("x").tag("source_type", "APP/PROC/WEB")), "");
    assert_ne!(
        frame(
            "?exclude-log-types=APP&drain-data=all",
            "h",
            &v2::Envelope::counter("s", "n", 1).tag("source_type", "APP")
        ),
        ""
    );
}

#[test]
fn dates_are_those_of_the_calendar() {
    let stamp = |seconds: i64| {
        let mut out = Vec::new();
        put_timestamp(&mut out, seconds * 1_000_000_000);
        String::from_utf8(out).unwrap()
    };
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59+00:00"),
        (951_782_400, "2000-02-29T00:00:00+00:00"),
        (951_868_800, "2000-03-01T00:00:00+00:00"),
        (1_709_164_800, "2024-02-29T00:00:00+00:00"),
        (4_107_542_400, "2100-03-01T00:00:00+00:00"),
        (4_107_456_000, "2100-02-28T00:00:00+00:00"),
        (1_735_689_599, "2024-12-31T23:59:59+00:00"),
    ] {
        assert_eq!(stamp(seconds), text);
    }
    // Every day of 500 years follows the one before it.
    let mut last = date(-100_001);
    for day in -100_000..84_000 {
        let (y, m, d) = date(day);
        let next_day = (y, m, d) == (last.0, last.1, last.2 + 1);
        let next_month = (y, m, d) == (last.0, last.1 + 1, 1) && last.2 >= 28;
        let next_year = (y, m, d) == (last.0 + 1, 1, 1) && (last.1, last.2) == (12, 31);
        assert!(next_day || next_month || next_year, "{last:?} {:?}", (y, m, d));
        last = (y, m, d);
    }
}
