//! Tests of `syslog`.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use prost::Message as _;
use proto::v2;
use proto::v2::envelope::Message;

use super::*;
use crate::Gather;

/// 2026-09-21T14:13:20Z.
const NOW: i64 = 1_790_000_000_000_000_000;
const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

fn of(source_id: Option<&str>, line: &[u8]) -> (v2::Envelope, bool) {
    let mut gather = Gather::default();
    let clock = Clock { now_ns: NOW, offset_seconds: 2 * 3_600 };
    let parsed = Maker::new(source_id.map(str::to_owned)).put(line, FROM, clock, &mut gather);
    let (batch, refused) = gather.take().unwrap();
    assert_eq!((batch.len(), refused.total()), (1, 0));
    (v2::Envelope::decode(batch.envelope(&batch.entries()[0])).unwrap(), parsed)
}

fn log(envelope: &v2::Envelope) -> (&[u8], bool) {
    let Some(Message::Log(log)) = &envelope.message else { panic!("no log: {envelope:?}") };
    (&log.payload, log.r#type == i32::from(v2::log::Type::Err))
}

fn tags(envelope: &v2::Envelope) -> BTreeMap<&str, &str> {
    envelope.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[test]
fn rfc_5424_with_everything() {
    let line = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog 812 ID47 [exampleSDID@32473 iut=\"3\" \
                eventSource=\"App\\\"lication\\]\" eventID=\"1011\"][examplePriority@32473 class=\"high\"] \u{feff}An app\u{f6}";
    let (envelope, parsed) = of(None, line.as_bytes());
    assert!(parsed);
    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("evntslog", "mymachine.example.com"));
    assert_eq!(envelope.timestamp, 1_065_910_455_003_000_000);
    assert_eq!(log(&envelope), ("An app\u{f6}".as_bytes(), false));
    let expected = [
        ("app_name", "evntslog"),
        ("exampleSDID@32473.eventID", "1011"),
        ("exampleSDID@32473.eventSource", "App\"lication]"),
        ("exampleSDID@32473.iut", "3"),
        ("examplePriority@32473.class", "high"),
        ("facility", "local4"),
        ("host", "mymachine.example.com"),
        ("msg_id", "ID47"),
        ("origin", "syslog"),
        ("proc_id", "812"),
        ("severity", "notice"),
        ("source_type", "SYSLOG"),
    ];
    assert_eq!(tags(&envelope), BTreeMap::from(expected));
}

#[test]
fn rfc_5424_with_nothing() {
    let (envelope, parsed) = of(None, b"<11>1 - - - - - -");
    assert!(parsed);
    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("10.1.2.3", ""));
    assert_eq!((envelope.timestamp, log(&envelope)), (NOW, (&b""[..], true)));
    let (envelope, _) = of(None, b"<11>1 - web-1 - - - - said");
    assert_eq!(envelope.source_id, "web-1", "without a program it is the host's");
    let (envelope, _) = of(Some("rack"), b"<11>1 - web-1 nginx - - - said");
    assert_eq!((envelope.source_id.as_str(), envelope.tags["app_name"].as_str()), ("rack", "nginx"));
}

#[test]
fn rfc_3164_is_in_this_machines_zone_and_the_year_nearest_to_now() {
    let (envelope, parsed) = of(None, b"<34>Sep 21 16:13:20 web-1 su[230]: 'su root' failed");
    assert!(parsed);
    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str(), envelope.timestamp), ("su", "web-1", NOW));
    assert_eq!((log(&envelope), envelope.tags["proc_id"].as_str()), ((&b"'su root' failed"[..], true), "230"));
    let (envelope, parsed) = of(None, b"<38>2026-09-21T16:13:20 web-1 prg[7]: x");
    assert!(parsed);
    assert_eq!((envelope.source_id.as_str(), envelope.timestamp), ("prg", NOW), "ISO 8601 without a zone");
    let (envelope, _) = of(None, b"<34>Dec 31 23:59:59 web-1 cron: x");
    assert_eq!(envelope.timestamp, 1_798_754_399_000_000_000, "this year's end is nearer than last year's");
    let (envelope, _) = of(None, b"<34>Feb  1 00:00:00 web-1 cron: x");
    assert_eq!(envelope.timestamp, 1_801_432_800_000_000_000, "and next February nearer than this one");
}

#[test]
fn what_resembles_no_message_is_a_log_as_it_stands() {
    for (line, said, err) in [
        (&b"panic: oh no"[..], &b"panic: oh no"[..], false),
        (b"<3>no header at all", b"no header at all", true),
        (b"<999>1 x", b"<999>1 x", false),
        (b"<13", b"<13", false),
        (b"\xff\xfe\x00binary", b"\xff\xfe\x00binary", false),
    ] {
        let (envelope, parsed) = of(None, line);
        assert_eq!((log(&envelope), parsed), ((said, err), line.starts_with(b"<3>")), "{}", line.escape_ascii());
        assert_eq!((envelope.source_id.as_str(), envelope.timestamp), ("10.1.2.3", NOW));
        assert_eq!(envelope.tags.contains_key("syslog_unparsed"), !parsed);
    }
}

#[test]
fn bytes_that_are_no_utf8_stay_in_what_was_said() {
    let (envelope, _) = of(None, b"<14>1 2003-10-11T22:14:15.003Z h a - - - caf\xe9!");
    assert_eq!((envelope.source_id.as_str(), log(&envelope).0), ("a", &b"caf\xe9!"[..]));
    let (envelope, _) = of(None, b"<14>1 2003-10-11T22:14:15.003Z h\xe9 a - - - caf\xe9!");
    assert_eq!(log(&envelope).0, "caf\u{fffd}!".as_bytes(), "a header that is none is read with marks");
}

#[test]
fn long_fields_are_cut_and_what_is_too_much_is_said() {
    let data: String =
        (0..150).map(|i| format!(" k{i}=\"{}\"", "v".repeat(if i == 99 { 2_000 } else { 70 }))).collect();
    let name = "a".repeat(40);
    let line = format!("<14>1 2003-10-11T22:14:15Z {} {name} - - [id{data}] x", "h".repeat(255));
    let (envelope, parsed) = of(None, line.as_bytes());
    assert!(parsed);
    assert_eq!((envelope.tags["id.k99"].len(), envelope.tags["structured_data_cut"].as_str()), (512, "50"));
    assert!(!envelope.tags.contains_key("id.k100"));
    let (envelope, _) = of(Some(&"s".repeat(300)), b"<14>1 - - - - - - x");
    assert_eq!(envelope.source_id.len(), 256);
}

#[test]
fn what_was_said_is_whole_whatever_it_ends_in_and_however_long_it_is() {
    for end in ["\u{3000}", "\u{a0}", "\u{85}", "\u{b}", "\u{e4}\u{2003}"] {
        let (envelope, _) = of(None, format!("<34>1 - - - - - - hello{end}").as_bytes());
        assert_eq!(log(&envelope).0, format!("hello{end}").as_bytes());
    }
    let long = "] word".repeat(9_000);
    let (envelope, _) = of(None, format!("<34>1 - h a - - [x y=\"z\"] {long}").as_bytes());
    assert_eq!((log(&envelope).0, envelope.tags["x.y"].as_str()), (long.as_bytes(), "z"));
}

#[test]
fn structured_data_that_is_none_costs_no_more_than_its_bytes() {
    // Each bracket could be the end of an element that goes on to the end: looked at again and again, this takes minutes.
    let line = format!("<34>1 - - - - - {}", "[x a\" b=\"]".repeat(90_000));
    let (envelope, _) = of(None, line.as_bytes());
    assert!(log(&envelope).0.len() > 800_000);
}

#[test]
fn a_time_with_a_year_and_no_zone_is_this_machines() {
    let (envelope, _) = of(None, b"<34>Sep 21 2026 16:13:20 web-1 su[230]: x");
    assert_eq!((envelope.source_id.as_str(), envelope.timestamp), ("su", NOW));
}

#[test]
fn a_blank_message_is_none() {
    let mut gather = Gather::default();
    let clock = Clock { now_ns: NOW, offset_seconds: 0 };
    assert!(Maker::new(None).put(b" \r\n", FROM, clock, &mut gather));
    assert!(gather.take().is_none());
}

/// What a stream gives when it comes in pieces: messages, and `None` for one over the bound of a hundred bytes.
fn read(stream: &[u8], piece: usize) -> Vec<Option<String>> {
    let (mut deframer, mut buffer, mut found) = (Deframer::new(100), Vec::new(), Vec::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let (step, taken) = deframer.next(&buffer[done..]);
            done += taken;
            match step {
                Step::Message(message) => found.push(Some(message.escape_ascii().to_string())),
                Step::Oversize => found.push(None),
                Step::More => break,
            }
        }
        buffer.drain(..done);
    }
    found.extend(deframer.last(&buffer).map(|last| Some(last.escape_ascii().to_string())));
    found
}

#[test]
fn messages_are_told_apart_by_length_or_by_line_feed_each_for_itself() {
    for piece in [1, 2, 7, 10_000] {
        let long = "x".repeat(5_000);
        let stream =
            format!("3 <1>5 a\nb c<2>line\r\n\n<3>nul\0\n5000 {long}4 last{long}\n12:34 is a line\n2 ab<4>end");
        let found = read(stream.as_bytes(), piece);
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        let expected = [
            Some("<1>"),
            Some("a\\nb c"),
            Some("<2>line\\r"),
            Some("<3>nul"),
            None,
            Some("last"),
            None,
            Some("12:34 is a line"),
            Some("ab"),
            Some("<4>end"),
        ];
        assert_eq!(found, expected, "in pieces of {piece}");
    }
}

#[test]
fn a_stream_that_ends_within_a_message_has_lost_it() {
    for (stream, within) in [("", false), ("\n", false), ("1", true), ("10 ab", true), ("9999999 ab", false)] {
        let mut deframer = Deframer::new(100);
        let mut rest = stream.as_bytes();
        loop {
            let (step, taken) = deframer.next(rest);
            rest = &rest[taken..];
            if step == Step::More {
                break;
            }
        }
        assert_eq!(deframer.is_within_message(rest) && deframer.last(rest).is_none(), within, "{stream:?}");
    }
}

#[test]
fn the_fuzz_seeds_keep_what_is_promised() {
    for (target, fuzz) in
        [("syslog_frame", fuzz_stream as fn(&[u8])), ("rfc5424", fuzz_message), ("rfc3164", fuzz_message)]
    {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut count = 0;
        for seed in std::fs::read_dir(&seeds).unwrap() {
            fuzz(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 5, "{count} seeds in {}", seeds.display());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_log(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_message(&bytes);
    }

    #[test]
    fn any_near_message_is_a_log(
        text in r#"<[0-9]{1,4}>([0-9]{0,2} )?(-|[A-Z][a-z]{2} [ 0-9]{2} [0-9:]{5,8}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,12}(Z|\+[0-9]{2}:[0-9]{2})?)( [a-zé\[\]0-9:-]{0,8}){0,5}( \[[a-z]{0,3}( [a-z]="[a-z\\\]"]{0,4}")*\]?)? ?.{0,9}"#
    ) {
        fuzz_message(text.as_bytes());
    }

    #[test]
    fn however_a_stream_is_cut_the_same_messages_come_out(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(0), b'0'..=b'9', any::<u8>()], 0..400),
        piece in 1_u8..40,
    ) {
        fuzz_stream(&[&[piece][..], &stream].concat());
    }
}
