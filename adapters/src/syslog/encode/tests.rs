//! Tests of `encode`.

use std::collections::BTreeMap;

use super::names::MAX_PROCID;
use super::time::date;
use super::*;
use crate::syslog::config::DrainUrl;

/// The message of one envelope, with its octet count.
fn frame(query: &str, hostname: &str, envelope: &v2::Envelope) -> String {
    let mut out = Vec::new();
    let options = DrainUrl::parse(&format!("syslog://drain:514{query}")).unwrap().options;
    encode(&mut Encoder::new(&options, hostname, true, Style::default()), envelope, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn encode(encoder: &mut Encoder, envelope: &v2::Envelope, out: &mut Vec<u8>) -> Result<usize, Unencodable> {
    encoder.encode(&Parts::read(&envelope.encode_to_vec(), &mut Vec::new()).unwrap(), out)
}

fn log(payload: &'static str) -> v2::Envelope {
    v2::Envelope::log("app-tcp", payload).at(1_700_000_000_123_456_789)
}

fn bare() -> Style {
    Style { framing: Framing::None, ..Style::default() }
}

fn plain(envelope: &v2::Envelope) -> Result<String, Unencodable> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&Options::default(), "h", true, bare());
    encoder.kinds = Kinds::ALL;
    encode(&mut encoder, envelope, &mut out).map(|_| String::from_utf8(out).unwrap())
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
    if let Some(v2::envelope::Message::Counter(counter)) = &mut counter.message {
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
    let mut encoder = Encoder::new(&Options::default(), "bad host", true, Style::default());
    assert_eq!(encode(&mut encoder, &log("x"), &mut out), Err(Unencodable::Header("HOSTNAME")));
    assert_eq!(out, b"before");
    // Tags that are not sent cannot spoil a line.
    let mut encoder = Encoder::new(&Options::default(), "h", false, bare());
    assert_eq!(encode(&mut encoder, &log("x").tag("a b", "v"), &mut out), Ok(1));
}

#[test]
fn a_gauge_gives_its_metrics_in_the_order_of_their_names() {
    let metrics = BTreeMap::from([("b", 2.0), ("a", 1.0), ("c", 1e20)]);
    let metrics =
        metrics.into_iter().map(|(name, value)| (name.to_owned(), v2::GaugeValue { value, unit: String::new() }));
    let message = Some(v2::envelope::Message::Gauge(v2::Gauge { metrics: metrics.collect() }));
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
    assert_eq!(
        plain(&v2::Envelope { message: Some(v2::envelope::Message::Gauge(v2::Gauge::default())), ..none }).unwrap(),
        ""
    );
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
    let mut times = Times::new("+00:00");
    let mut stamp = |seconds: i64| {
        let mut out = Vec::new();
        times.put(&mut out, seconds * 1_000_000_000);
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

/// The messages of one envelope in a style.
fn styled(style: Style, envelope: &v2::Envelope) -> (String, u64) {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&Options::default(), "h", true, style);
    encode(&mut encoder, envelope, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), encoder.take_cut())
}

#[test]
fn with_line_feeds_a_message_is_one_line() {
    let style = Style { framing: Framing::LineFeed, ..Style::default() };
    let line = |payload: &'static str| styled(style.clone(), &v2::Envelope::log("a", payload).tag("k", "1\n2")).0;
    let before = "<14>1 1970-01-01T00:00:00+00:00 h a [] - [tags@47450 k=\"1#0122\"] ";
    for (payload, text) in [("one", "one"), ("one\n", "one"), ("one\ntwo\n\n", "one#012two#012"), ("", "")] {
        assert_eq!(line(payload), format!("{before}{text}\n"));
    }
}

#[test]
fn a_style_adds_what_a_receiver_asks_for() {
    let style = Style {
        framing: Framing::LineFeed,
        zulu: true,
        prefix: "[token] ".to_owned(),
        element: "id@1 tag=\"x\"".to_owned(),
        max_bytes: None,
    };
    let log = v2::Envelope::log("a", "hello").at(1_700_000_000_500_000_000);
    let start = "[token] <14>1 2023-11-14T22:13:20.5Z h a [] - [id@1 tag=\"x\"]";
    assert_eq!(styled(style.clone(), &log).0, format!("{start} hello\n"));
    assert_eq!(styled(style.clone(), &log.tag("k", "v")).0, format!("{start}[tags@47450 k=\"v\"] hello\n"));
    let event = v2::Envelope::event("a", "t", "b").at(1_700_000_000_500_000_000);
    assert_eq!(styled(style, &event).0, format!("{start}[event@47450 title=\"t\" body=\"b\"] \n"));
}

#[test]
fn a_long_message_loses_its_tags_first_and_then_its_end() {
    let header = "<14>1 1970-01-01T00:00:00+00:00 h a [] - ";
    let style =
        |room: usize| Style { framing: Framing::None, max_bytes: Some(header.len() + room), ..Style::default() };
    let log = v2::Envelope::log("a", "äöü").tag("k", "v");
    let whole = "[tags@47450 k=\"v\"] äöü\n";
    assert_eq!(styled(style(whole.len()), &log), (format!("{header}{whole}"), 0));
    assert_eq!(styled(style(whole.len() - 1), &log), (format!("{header}- äöü\n"), 1));
    assert_eq!(styled(style(9), &log), (format!("{header}- äöü\n"), 1));
    assert_eq!(styled(style(8), &log), (format!("{header}- äö\n"), 1), "not within a character");
    assert_eq!(styled(style(7), &log), (format!("{header}- äö\n"), 1));
    assert_eq!(styled(style(6), &log), (format!("{header}- ä\n"), 1));
}

#[test]
fn what_has_no_text_to_cut_is_left_out_when_it_is_too_long() {
    let style = || Style { framing: Framing::Datagram, max_bytes: Some(600), ..Style::default() };
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&Options { kinds: Kinds::ALL, ..Options::default() }, "h", true, style());
    let event = v2::Envelope::event("a", "t", "b".repeat(600));
    assert_eq!(encode(&mut encoder, &event, &mut out), Err(Unencodable::TooLong));
    assert!(out.is_empty());
    // It fits without its tags.
    let tagged = v2::Envelope::event("a", "t", "b".repeat(400)).tag("k", "v".repeat(400));
    assert_eq!(encode(&mut encoder, &tagged, &mut out), Ok(1));
    // Of a gauge those lines that fit.
    let mut gauge = v2::Envelope::gauge("a", "x".repeat(600), 1.0, "");
    assert_eq!(encode(&mut encoder, &gauge, &mut Vec::new()), Err(Unencodable::TooLong));
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("y".to_owned(), v2::GaugeValue { unit: String::new(), value: 2.0 });
    }
    assert_eq!(encode(&mut encoder, &gauge, &mut Vec::new()), Ok(1));
    // Text that is none is cut near its end, and not to nothing.
    let mut bytes = Vec::new();
    let binary = v2::Envelope::log("a", vec![0x80; 1000]);
    assert_eq!(encode(&mut encoder, &binary, &mut bytes), Ok(1));
    assert!(bytes.len() > 590, "{}", bytes.len());
}

/// An envelope within the limits of an agent that would be gigabytes of lines.
#[test]
fn a_gauge_of_many_values_and_large_tags_is_refused() {
    let mut gauge = v2::Envelope::gauge("a", "0", 1.0, "");
    for i in 0..100 {
        gauge = gauge.tag(format!("k{i}"), "v".repeat(1000));
    }
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.extend((1..100).map(|i| (i.to_string(), v2::GaugeValue::default())));
    }
    assert_eq!(plain(&gauge), Err(Unencodable::TooLong));
}

#[test]
fn datagrams_are_told_apart_by_their_lengths() {
    let style = Style { framing: Framing::Datagram, ..Style::default() };
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&Options { kinds: Kinds::ALL, ..Options::default() }, "h", true, style);
    let mut gauge = v2::Envelope::gauge("a", "x", 1.0, "");
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut gauge.message {
        gauge.metrics.insert("y".to_owned(), v2::GaugeValue { unit: String::new(), value: 2.0 });
    }
    assert_eq!(encode(&mut encoder, &gauge, &mut out), Ok(2));
    let (mut rest, mut datagrams) = (out.as_slice(), Vec::new());
    while let Some((len, more)) = rest.split_first_chunk() {
        let (datagram, more) = more.split_at(u32::from_be_bytes(*len) as usize);
        datagrams.push(std::str::from_utf8(datagram).unwrap());
        rest = more;
    }
    let line = |name, value| {
        format!("<14>1 1970-01-01T00:00:00+00:00 h a [] - [gauge@47450 name=\"{name}\" value=\"{value}\" unit=\"\"] ")
    };
    assert_eq!(datagrams, [line("x", 1), line("y", 2)]);
}

/// Whatever order and pieces an encoder writes, the line is that of the envelope which a reader decodes.
#[test]
fn an_envelope_is_read_as_protobuf_readers_read_it() {
    let line = |bytes: &[u8]| {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&Options { kinds: Kinds::ALL, ..Options::default() }, "h", true, bare());
        let mut spare = Vec::new();
        Parts::read(bytes, &mut spare)
            .and_then(|parts| encoder.encode(&parts, &mut out))
            .map(|_| String::from_utf8(out).unwrap())
    };
    let piece = |envelope: v2::Envelope| envelope.encode_to_vec();
    let twice = |one: v2::Envelope, other: v2::Envelope| {
        let bytes = [piece(one), piece(other)].concat();
        let decoded = v2::Envelope::decode(bytes.as_slice()).unwrap();
        assert_eq!(line(&bytes), line(&decoded.encode_to_vec()), "{decoded:?}");
        line(&bytes).unwrap()
    };
    // The last tag of a key, the last scalar.
    let tagged = twice(log("x").tag("k", "1").tag("a", "2").at(5), v2::Envelope::default().tag("k", "3"));
    assert!(tagged.contains("[tags@47450 a=\"2\" k=\"3\"]"), "{tagged}");
    // The last message, and the pieces of one message together.
    assert!(twice(log("x"), v2::Envelope::counter("a", "n", 3)).contains("counter@47450"));
    assert!(twice(log("x").err(), log("y")).contains("<11>1"));
    assert!(twice(v2::Envelope::counter("a", "n", 3), v2::Envelope::counter("a", "", 4)).contains("name=\"n\""));
    // Keys that begin alike are told apart, and stand in order.
    let long =
        piece(log("x").tag("organization_name", "1").tag("organization_id", "2").tag("organi", "3").tag("o", "4"));
    let order = "[tags@47450 o=\"4\" organi=\"3\" organization_id=\"2\" organization_name=\"1\"]";
    assert!(line(&long).unwrap().contains(order), "{:?}", line(&long));
    // What is not well-formed, and text that is none.
    assert_eq!(line(b"\x22\x05ab"), Err(Unencodable::Malformed));
    assert_eq!(
        line(&[&piece(log("x"))[..], b"\x4a\x07\x0a\x01k\x12\x02\xff\xfe"].concat()),
        Err(Unencodable::Malformed)
    );
    assert_eq!(line(b"\x2a\x03\x0a\x01\xff"), Err(Unencodable::Malformed), "the name of a counter");
    assert_eq!(line(b""), Ok(String::new()), "an envelope without a message has no line");
}

/// Names are remembered by instance; whatever else changes is seen.
#[test]
fn names_are_those_of_the_envelope_and_not_of_one_before() {
    let of = |encoder: &mut Encoder, envelope: &v2::Envelope| {
        let mut out = Vec::new();
        encode(encoder, envelope, &mut out).map(|_| String::from_utf8(out).unwrap())
    };
    let fresh = || Encoder::new(&Options { kinds: Kinds::ALL, ..Options::default() }, "h", true, bare());
    let base = || log("x").instance("1").tag("source_type", "APP").tag("app_name", "shop");
    let envelopes = [
        base(),
        base(),
        base().instance("2"),
        base().instance("11"),
        base().tag("source_type", "RTR"),
        base().tag("app_name", ""),
        base().tag("app_name", "sho").tag("space_name", "p"),
        base().tag("organization_name", "shop").tag("app_name", ""),
        log("x").instance("1").tag("source_type", "APP"),
        log("x").instance("1").tag("source_type", "bad\u{1}"),
        log("x").instance("a b"),
        log("x").instance("1APP"),
        v2::Envelope::counter("app-tcp", "n", 1).instance("1").tag("source_type", "APP").tag("app_name", "shop"),
        log("x").instance("1").tag("app_name", "x".repeat(2000)),
    ];
    let mut encoder = fresh();
    for one in &envelopes {
        for other in &envelopes {
            // Often enough in a row for its tags to be remembered.
            for envelope in [one, one, one, other, one, other] {
                assert_eq!(of(&mut encoder, envelope), of(&mut fresh(), envelope));
            }
        }
    }
}

#[test]
fn of_a_key_that_stands_twice_the_last_counts_and_is_not_remembered() {
    let fresh = || Encoder::new(&Options::default(), "h", true, bare());
    let of = |encoder: &mut Encoder, bytes: &[u8]| {
        let (mut out, mut spare) = (Vec::new(), Vec::new());
        encoder.encode(&Parts::read(bytes, &mut spare).unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let entry =
        |value: &str| v2::Envelope { tags: [("k".to_owned(), value.to_owned())].into(), ..v2::Envelope::default() };
    let base = log("x").instance("1").encode_to_vec();
    let with = |values: &[&str]| {
        let appended = values.iter().map(|value| entry(value).encode_to_vec());
        [base.clone(), appended.collect::<Vec<_>>().concat()].concat()
    };
    let all = [with(&["a", "b"]), with(&["b", "a"]), with(&["a"]), with(&["a", "a"]), with(&[])];
    let mut encoder = fresh();
    for one in &all {
        for other in &all {
            for bytes in [one, one, one, other, one, other] {
                assert_eq!(of(&mut encoder, bytes), of(&mut fresh(), bytes));
            }
        }
    }
    assert!(of(&mut encoder, &all[0]).contains("k=\"b\""));
}
