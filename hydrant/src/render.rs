//! An envelope as a line for people, or as JSON for programs. Pure.
//!
//! Other people's logs are shown, not obeyed: control characters, escape sequences and characters that reorder text are written out.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::v2;
use proto::v2::envelope::Message;

/// How envelopes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// Time, source and instance, then the line.
    #[default]
    Text,
    /// The payload of log lines and nothing else, byte for byte.
    Raw,
    /// One JSON object a line, as the HTTP endpoints have it.
    Json,
}

const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Appends `envelope` in `form`, with its line end; nothing if it has nothing to show in it.
pub fn put(into: &mut Vec<u8>, envelope: &v2::Envelope, form: Form, colour: bool, zone: &TimeZone) {
    match form {
        Form::Raw => {
            if let Some(Message::Log(log)) = &envelope.message {
                into.extend_from_slice(&log.payload);
                if !log.payload.ends_with(b"\n") {
                    into.push(b'\n');
                }
            }
        }
        Form::Json => {
            // Writing to a vector fails for nobody.
            if proto::json::to_writer(&mut *into, &proto::json::Json(envelope)).is_ok() {
                into.push(b'\n');
            }
        }
        Form::Text => into.extend_from_slice(text(envelope, colour, zone).as_bytes()),
    }
}

fn text(envelope: &v2::Envelope, colour: bool, zone: &TimeZone) -> String {
    let paint = |code: &'static str| if colour { code } else { "" };
    let mut line = String::with_capacity(128);
    line.push_str(paint(DIM));
    put_time(&mut line, envelope.timestamp, zone);
    line.push_str(paint(RESET));
    line.push(' ');
    line.push_str(paint(CYAN));
    put_safely(&mut line, if envelope.source_id.is_empty() { "-" } else { &envelope.source_id });
    if !envelope.instance_id.is_empty() {
        line.push('/');
        put_safely(&mut line, &envelope.instance_id);
    }
    line.push_str(paint(RESET));
    line.push(' ');
    let is_err = matches!(&envelope.message, Some(Message::Log(log)) if log.r#type() == v2::log::Type::Err);
    line.push_str(if is_err { paint(RED) } else { "" });
    put_message(&mut line, envelope.message.as_ref());
    line.push_str(if is_err { paint(RESET) } else { "" });
    line.push('\n');
    line
}

fn put_message(line: &mut String, message: Option<&Message>) {
    match message {
        Some(Message::Log(log)) => {
            let payload = log.payload.strip_suffix(b"\n").unwrap_or(&log.payload);
            put_safely(line, &String::from_utf8_lossy(payload));
        }
        Some(Message::Counter(counter)) => {
            put_safely(line, &counter.name);
            let _infallible = write!(line, " total={} delta={}", counter.total, counter.delta);
        }
        Some(Message::Gauge(gauge)) => {
            let mut metrics: Vec<_> = gauge.metrics.iter().collect();
            metrics.sort_by_key(|(name, _)| name.as_str());
            for (i, (name, metric)) in metrics.into_iter().enumerate() {
                line.push_str(if i == 0 { "" } else { ", " });
                put_safely(line, name);
                let _infallible = write!(line, "={}", metric.value);
                if !metric.unit.is_empty() {
                    line.push(' ');
                    put_safely(line, &metric.unit);
                }
            }
        }
        Some(Message::Timer(timer)) => {
            put_safely(line, &timer.name);
            let took =
                std::time::Duration::from_nanos(u64::try_from(timer.stop.saturating_sub(timer.start)).unwrap_or(0));
            let _infallible = write!(line, " took {took:?}");
        }
        Some(Message::Event(event)) => {
            put_safely(line, &event.title);
            line.push_str(": ");
            put_safely(line, &event.body);
        }
        None => line.push_str("(empty envelope)"),
    }
}

fn put_time(line: &mut String, nanos: i64, zone: &TimeZone) {
    // Every i64 of nanoseconds is a time that a calendar has.
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
    let _infallible = write!(line, "{}", time.strftime("%Y-%m-%d %H:%M:%S%.3f"));
}

/// Appends `text` with everything written out that would act on a terminal: C0 and C1 controls but the tab, delete, and the
/// characters that change the direction of text.
pub fn put_safely(line: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '\t' => line.push(char),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                let _infallible = write!(line, "\\x{:02x}", u32::from(char));
            }
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                let _infallible = write!(line, "\\u{{{:x}}}", u32::from(char));
            }
            _ => line.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(envelope: &v2::Envelope, form: Form, colour: bool) -> String {
        let mut out = Vec::new();
        put(&mut out, envelope, form, colour, &TimeZone::UTC);
        String::from_utf8(out).expect("UTF-8")
    }

    const AT: i64 = 1_790_000_000_123_456_789;

    #[test]
    fn each_kind_has_its_line() {
        for (envelope, line) in [
            (v2::Envelope::log("app", "hello\n").instance("2"), "app/2 hello"),
            (v2::Envelope::counter("app", "requests", 3), "app requests total=0 delta=3"),
            (v2::Envelope::gauge("app", "cpu", 0.25, "%"), "app cpu=0.25 %"),
            (v2::Envelope::timer("app", "http", 0, 1_500_000), "app http took 1.5ms"),
            (v2::Envelope::event("app", "crash", "exit 1"), "app crash: exit 1"),
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
    fn what_would_act_on_a_terminal_is_written_out() {
        let envelope = v2::Envelope::log("a\x1bpp", "\x1b]0;title\x07\u{9b}31m\u{202e}evil\r\nnext\ttab \u{7f}").at(AT);
        let line = shown(&envelope, Form::Text, false);
        assert_eq!(
            line,
            "2026-09-21 14:13:20.123 a\\x1bpp \\x1b]0;title\\x07\\x9b31m\\u{202e}evil\\r\\nnext\ttab \\x7f\n"
        );
        let coloured = shown(&v2::Envelope::log("app", "\x1b[0m").at(AT).err(), Form::Text, true);
        assert_eq!(coloured.matches('\x1b').count(), 6, "only our own: {coloured:?}");
    }

    #[test]
    fn any_time_can_be_shown() {
        for nanos in [i64::MIN, -1, 0, i64::MAX] {
            assert!(shown(&v2::Envelope::log("app", "x").at(nanos), Form::Text, false).ends_with(" app x\n"));
        }
    }
}
