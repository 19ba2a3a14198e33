//! Envelopes and the lines that they become.

use super::palette::RESET;
use super::*;

fn shown(envelope: &v2::Envelope, form: Form, colour: bool) -> String {
    let mut out = Vec::new();
    let mut printer = Printer { colour, ..Printer::new(form, TimeZone::UTC) };
    printer.put(&mut out, envelope);
    String::from_utf8(out).expect("UTF-8")
}

const AT: i64 = 1_790_000_000_123_456_789;

#[test]
fn each_kind_has_its_line() {
    for (envelope, line) in [
        (v2::Envelope::log("app", "hello\n").instance("2"), "app/2 hello"),
        (v2::Envelope::log("app", "oh\n").err(), "app ! oh"),
        (v2::Envelope::counter("app", "requests", 3), "app requests total=0 delta=3"),
        (v2::Envelope::gauge("app", "cpu", 0.25, "%"), "app cpu=0.25 %"),
        (v2::Envelope::timer("app", "http", 0, 1_500_000), "app http took 1.5ms"),
        (v2::Envelope::event("app", "crash", "exit 1"), "app crash: exit 1"),
        (v2::Envelope::event("app", MARKER, "3 envelopes of app lost here"), "-- 3 envelopes of app lost here --"),
        (v2::Envelope::default(), "- (empty envelope)"),
    ] {
        assert_eq!(shown(&envelope.at(AT), Form::Text, false), format!("2026-09-21 14:13:20.123 {line}\n"));
    }
}

#[test]
fn raw_is_the_payload_and_json_the_envelope() {
    let envelope = v2::Envelope::log("app", "a\x1b[31mb").at(AT);
    assert_eq!(shown(&envelope, Form::Raw, false), "a\x1b[31mb\n");
    assert_eq!(shown(&v2::Envelope::counter("app", "c", 1), Form::Raw, false), "");
    let json: serde_json::Value = serde_json::from_str(&shown(&envelope, Form::Json, true)).expect("JSON");
    assert_eq!(json["source_id"], "app");
    assert_eq!(json["timestamp"], AT.to_string());
}

#[test]
fn a_template_has_what_an_envelope_has() {
    let envelope = v2::Envelope::log("app", "WARN: x\x1b").at(AT).instance("2").tag("zone", "z1").err();
    let form: Form = "template={time}|{source}|{instance}|{type}|{level}|{message}|{tag.zone}|{tag.none}"
        .parse()
        .expect("a template");
    assert_eq!(shown(&envelope, form, true), "2026-09-21T14:13:20.123+00:00|app|2|err|WARN|WARN: x\\x1b|z1|\n");
    assert!("template={what}".parse::<Form>().expect_err("no such name").contains("{tag.NAME}"));
    assert!("yaml".parse::<Form>().expect_err("no such form").contains("text, raw, json"));
}

#[test]
fn a_line_of_json_is_message_first_and_its_time_goes_where_it_repeats() {
    let line = |text: &str| shown(&v2::Envelope::log("app", text.to_owned()).at(AT), Form::Text, false);
    let text = r#"{"ts":1790000000.5,"level":"info","msg":"served","path":"/a","took":"1 ms","empty":"","n":5}"#;
    assert_eq!(line(text), "2026-09-21 14:13:20.123 app INFO served path=/a took=\"1 ms\" empty=\"\" n=5\n");
    let text = r#"{"time":"2020-01-01T00:00:00Z","msg":"a\u001b\nb"}"#;
    assert_eq!(line(text), "2026-09-21 14:13:20.123 app a\\x1b\\nb time=2020-01-01T00:00:00Z\n");
    assert_eq!(line(r#"{"a":1}"#), "2026-09-21 14:13:20.123 app {\"a\":1}\n");
}

#[test]
fn for_eyes_names_stand_in_a_column_and_the_date_once() {
    let mut printer = Printer { eyes: true, ..Printer::new(Form::Text, TimeZone::UTC) };
    let mut out = Vec::new();
    let trace = r#"{"msg":"broke","stack":"at a\n  at b\u001b"}"#;
    for envelope in [
        v2::Envelope::log("app", "one").at(AT),
        v2::Envelope::log("a", "two").at(AT).err(),
        v2::Envelope::log("a", trace).at(AT + 86_400_000_000_000),
    ] {
        printer.put(&mut out, &envelope);
    }
    assert!(printer.note(&mut out, "gap"));
    let expected = "-- Monday, 21 September 2026 --\n14:13:20.123 app   one\n14:13:20.123 a   ! two\n\
                    -- Tuesday, 22 September 2026 --\n14:13:20.123 a     broke\n    stack:\n      at a\n        at b\\x1b\n-- gap --\n";
    assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
}

#[test]
fn what_would_act_on_a_terminal_is_written_out() {
    let envelope = v2::Envelope::log("a\x1bpp", "\x1b]0;title\x07\u{9b}31m\u{202e}evil\r\nnext\ttab \u{7f}").at(AT);
    let line = shown(&envelope, Form::Text, false);
    assert_eq!(line, "2026-09-21 14:13:20.123 a\\x1bpp \\x1b]0;title\\x07\\x9b31m\\u{202e}evil\\r\\nnext\ttab \\x7f\n");
    let coloured = shown(&v2::Envelope::log("app", "\x1b[0m").at(AT).err(), Form::Text, true);
    assert_eq!(coloured.matches('\x1b').count(), 2 * coloured.matches(RESET).count(), "only our own: {coloured:?}");
    let json = r#"{"msg":"\u001b[31m","k\u001b":"v\u001b x"}"#;
    assert!(!shown(&v2::Envelope::log("app", json).at(AT), Form::Text, false).contains('\x1b'));
}

#[test]
fn any_time_can_be_shown() {
    for nanos in [i64::MIN, -1, 0, i64::MAX] {
        assert!(shown(&v2::Envelope::log("app", "x").at(nanos), Form::Text, false).ends_with(" app x\n"));
    }
}
