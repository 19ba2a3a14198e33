//! Text as Datadog takes it: JSON strings and numbers, names of metrics, tags.
//!
//! Whatever senders wrote enters; what needs no further check leaves. Never keeps anything.

use std::borrow::Cow;
use std::io::Write;

use crate::prometheus::names::cut;

/// Characters of a metric's name (contract: syslog drains §7.1); longer ones are cut.
pub(super) const MAX_NAME: usize = 200;
/// Characters of a tag, its key and colon included; longer ones are cut.
pub(super) const MAX_TAG: usize = 200;
/// Characters of its key, so that something is left of its value.
const MAX_KEY: usize = 100;

/// Appends a JSON string with its quotes.
pub(super) fn put_string(into: &mut Vec<u8>, text: &str) {
    into.push(b'"');
    put_escaped(into, text, usize::MAX);
    into.push(b'"');
}

/// Appends the inside of a JSON string, at most `max` bytes of it and whole characters. True if it was cut.
pub(super) fn put_escaped(into: &mut Vec<u8>, text: &str, max: usize) -> bool {
    let mut room = max;
    let mut rest = text;
    loop {
        let special = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\');
        let run = &rest[..special.unwrap_or(rest.len())];
        let fitting = cut(run, room);
        into.extend_from_slice(fitting.as_bytes());
        if fitting.len() < run.len() {
            return true;
        }
        room -= run.len();
        let Some(at) = special else { return false };
        let mut escape = *b"\\u00xx";
        let escape: &[u8] = match rest.as_bytes()[at] {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            control => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                escape[4] = HEX[usize::from(control >> 4)];
                escape[5] = HEX[usize::from(control & 15)];
                &escape
            }
        };
        if escape.len() > room {
            return true;
        }
        into.extend_from_slice(escape);
        room -= escape.len();
        rest = &rest[at + 1..];
    }
}

/// Appends a finite number: shortest digits that read back the same, with an exponent for what is very large or small.
pub(super) fn put_number(into: &mut Vec<u8>, value: f64) {
    let written = if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
        write!(into, "{value:e}")
    } else {
        write!(into, "{value}")
    };
    written.expect("writing to a Vec cannot fail");
}

/// Appends a whole number.
pub(super) fn put_integer(into: &mut Vec<u8>, value: impl std::fmt::Display) {
    write!(into, "{value}").expect("writing to a Vec cannot fail");
}

/// The name of a metric: ASCII letters, digits, `_` and `.`, others become `_`; begins with a letter, what comes before goes away; at
/// most `max` characters. `None` for a metric without a letter or digit in its own name.
pub(super) fn metric(prefix: &str, name: &str, max: usize) -> Option<Box<str>> {
    if !name.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let fitting = prefix.chars().chain(name.chars()).map(|c| if fits(c) { c } else { '_' });
    let made: String = fitting.skip_while(|c| !c.is_ascii_alphabetic()).take(max).collect();
    (!made.is_empty()).then(|| made.into())
}

/// `key:value`, safe; `None` if one of them is empty.
pub(super) fn tag(key: &[u8], value: &[u8]) -> Option<String> {
    if key.is_empty() || value.is_empty() {
        return None;
    }
    // Never more than the bytes of so many characters.
    let lossy = |text: &[u8]| safe(&String::from_utf8_lossy(&text[..text.len().min(4 * MAX_TAG + 4)]));
    let mut tag = lossy(key);
    shorten(&mut tag, MAX_KEY);
    tag.push(':');
    tag.push_str(&lossy(value));
    shorten(&mut tag, MAX_TAG);
    Some(tag)
}

/// A whole tag that somebody configured; `None` if it is empty.
pub(super) fn whole_tag(tag: &str) -> Option<String> {
    let mut tag = safe(tag.trim());
    shorten(&mut tag, MAX_TAG);
    (!tag.is_empty()).then_some(tag)
}

/// Text of a sender's as it may stand for a host or a service: at most as long as a tag.
pub(super) fn name(text: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(&text[..text.len().min(MAX_TAG + 4)]) {
        Cow::Borrowed(text) => cut(text, MAX_TAG).into(),
        Cow::Owned(mut text) => {
            text.truncate(cut(&text, MAX_TAG).len());
            text.into()
        }
    }
}

/// Tags are told apart by commas in `ddtags`, and control characters stand in none.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c == ',' || c.is_control() { '_' } else { c }).collect()
}

fn shorten(tag: &mut String, max: usize) {
    if let Some((end, _)) = tag.char_indices().nth(max) {
        tag.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, max: usize) -> (String, bool) {
        let mut into = Vec::new();
        let was_cut = put_escaped(&mut into, text, max);
        (String::from_utf8(into).unwrap(), was_cut)
    }

    #[test]
    fn strings_are_escaped_and_cut_between_characters() {
        assert_eq!(escaped("a\"\\\n\r\t\u{1}\u{1f}é", 99), (r#"a\"\\\n\r\t\u0001\u001fé"#.to_owned(), false));
        assert_eq!(escaped("aéb", 2), ("a".to_owned(), true));
        assert_eq!(escaped("aéb", 3), ("aé".to_owned(), true));
        assert_eq!(escaped("aéb", 4), ("aéb".to_owned(), false));
        assert_eq!(escaped("a\nb", 2), ("a".to_owned(), true));
        assert_eq!(escaped("a\n", 3), ("a\\n".to_owned(), false));
        assert_eq!(escaped("", 0), (String::new(), false));
    }

    #[test]
    fn contract_7_1_names_of_metrics() {
        for (prefix, name, expected) in [
            ("", "cpu", Some("cpu")),
            ("", "Requests.p-99", Some("Requests.p_99")),
            ("", "_9lives é", Some("lives__")),
            ("cf.", "9lives", Some("cf.9lives")),
            ("cf.", "..", None),
            ("cf.", "", None),
            ("", "99", None),
        ] {
            assert_eq!(metric(prefix, name, MAX_NAME).as_deref(), expected, "{prefix}{name}");
        }
        assert_eq!(metric("cf.", &"x".repeat(300), MAX_NAME).unwrap().len(), MAX_NAME);
    }

    #[test]
    fn tags_hold_no_comma_and_no_control_character() {
        assert_eq!(tag(b"a,b", "c\n,é".as_bytes()).unwrap(), "a_b:c__é");
        assert_eq!(tag(b"a", b"\xff").unwrap(), "a:\u{fffd}");
        assert_eq!((tag(b"", b"x"), tag(b"x", b"")), (None, None));
        assert_eq!(tag(b"a", "é".repeat(500).as_bytes()).unwrap().chars().count(), MAX_TAG);
        assert_eq!(tag("é".repeat(500).as_bytes(), b"1").unwrap(), format!("{}:1", "é".repeat(MAX_KEY)));
        assert_eq!((whole_tag(" team:a,b "), whole_tag(" ")), (Some("team:a_b".to_owned()), None));
    }

    #[test]
    fn names_of_hosts_are_cut_between_characters() {
        assert_eq!(name("é".repeat(150).as_bytes()), "é".repeat(100));
        assert_eq!(name(b"a\xff"), "a\u{fffd}");
    }

    #[test]
    fn numbers_read_back_the_same() {
        for value in [0.0, -0.0, 1.5, -2.25, 1e300, 5e-324, f64::MAX, 123_456_789.125, 1e21, 1e-7] {
            let mut text = Vec::new();
            put_number(&mut text, value);
            let read: f64 = serde_json::from_slice(&text).unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{}", String::from_utf8_lossy(&text));
        }
    }
}
