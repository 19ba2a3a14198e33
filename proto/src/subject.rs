//! Subjects of NATS: where an envelope goes in a stream, and how those who read it ask for a part of them.
//!
//! ```text
//! PREFIX.KIND.SOURCE_ID.INSTANCE_ID        hydrant.log.my-app.0
//! ```
//!
//! Kinds stand first, as there are five of them and most readers want one; then a source, then its instances. `hydrant.log.>` is all
//! logs, `hydrant.*.my-app.*` all of one source. An id is one token, whatever it holds: bytes other than ASCII letters, digits, `-` and
//! `_` are written as `%` and two hexadecimal digits, and an empty id is a lone `%`. Pure.

use crate::raw::Kind;

/// The tag of an envelope that came out of a stream: its value is the stream's name. Drains to that stream leave such envelopes out.
pub const STREAM_TAG: &str = "nats_stream";

/// The longest id that is written whole, in bytes: that of a source. A longer one, which only an instance may have, is cut: the subject
/// is for choosing, and the envelope has it whole.
pub const MAX_ID: usize = 256;

/// The longest prefix, in bytes.
pub const MAX_PREFIX: usize = 128;

/// The name of a kind in subjects.
pub const fn kind_token(kind: Kind) -> &'static str {
    match kind {
        Kind::None => "none",
        Kind::Log => "log",
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Timer => "timer",
        Kind::Event => "event",
    }
}

/// Appends the token of an id.
pub fn put_id(into: &mut String, id: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if id.is_empty() {
        into.push('%');
    }
    for &byte in &id[..id.len().min(MAX_ID)] {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(HEX[usize::from(byte >> 4)]));
            into.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// The token of an id.
pub fn id_token(id: &[u8]) -> String {
    let mut token = String::with_capacity(id.len() + 1);
    put_id(&mut token, id);
    token
}

/// The id of a token. `None` for what [`put_id`] does not write.
pub fn id_of(token: &str) -> Option<Vec<u8>> {
    if token == "%" {
        return Some(Vec::new());
    }
    let mut id = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (&[high, low], after) = after.split_first_chunk()?;
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            id.push(digit(high)? << 4 | digit(low)?);
            rest = after;
        } else {
            id.push(byte);
            rest = after;
        }
    }
    (!id.is_empty() && id_token(&id) == token).then_some(id)
}

/// The subject of an envelope.
pub fn subject(prefix: &str, kind: Kind, source_id: &[u8], instance_id: &[u8]) -> String {
    let mut subject = String::with_capacity(prefix.len() + source_id.len() + instance_id.len() + 12);
    subject.push_str(prefix);
    subject.push('.');
    subject.push_str(kind_token(kind));
    subject.push('.');
    put_id(&mut subject, source_id);
    subject.push('.');
    put_id(&mut subject, instance_id);
    subject
}

/// The subjects of one kind and one source, or of all where they are `None`.
pub fn filter(prefix: &str, kind: Option<Kind>, source_id: Option<&[u8]>) -> String {
    let source = source_id.map_or_else(|| "*".to_owned(), id_token);
    format!("{prefix}.{}.{source}.*", kind.map_or("*", kind_token))
}

/// Whether everything that `wanted` stands for is in `pattern` too. Both may hold `*` for any token, and `>` at their end for any
/// number of them from one on.
pub fn covers(pattern: &str, wanted: &str) -> bool {
    let (mut patterns, mut tokens) = (pattern.split('.'), wanted.split('.'));
    loop {
        match (patterns.next(), tokens.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other && one != "*" => {}
            _ => return false,
        }
    }
}

/// Why a text is no prefix of subjects; `None` if it is one.
pub fn prefix_fault(prefix: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.bytes().all(plain) {
        Some("it is 1 to 128 ASCII letters, digits, - and _, with dots between words")
    } else if prefix.split('.').any(str::is_empty) {
        Some("it has a dot at an end, or two in a row")
    } else {
        None
    }
}

/// Why a text is no name of a stream or consumer; `None` if it is one.
pub fn name_fault(name: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=255).contains(&name.len()) && name.bytes().all(plain);
    (!fits).then_some("a name is 1 to 255 ASCII letters, digits, - and _")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_readable_where_they_can_be() {
        for (id, token) in [
            ("my-app_1", "my-app_1"),
            ("", "%"),
            ("%", "%25"),
            ("a.b", "a%2Eb"),
            ("*", "%2A"),
            (">", "%3E"),
            ("a b\n", "a%20b%0A"),
            ("é", "%C3%A9"),
            ("\0", "%00"),
        ] {
            assert_eq!(id_token(id.as_bytes()), token);
            assert_eq!(id_of(token).as_deref(), Some(id.as_bytes()));
        }
        for token in ["", "%2", "%2e", "a.b", "%41", "é", "%%"] {
            assert_eq!(id_of(token), None, "{token}");
        }
        assert_eq!(subject("hydrant", Kind::Log, b"a.b", b""), "hydrant.log.a%2Eb.%");
        let long = "ä".repeat(512);
        assert_eq!(id_token(long.as_bytes()).len(), 3 * MAX_ID);
    }

    #[test]
    fn a_pattern_covers_what_it_stands_for() {
        for (pattern, wanted, covered) in [
            ("hydrant.>", "hydrant.log.*.*", true),
            (">", "hydrant.log.*.*", true),
            ("hydrant.*.*.*", "hydrant.log.*.*", true),
            ("hydrant.log.*.*", "hydrant.*.*.*", false),
            ("hydrant.log.app.*", "hydrant.log.*.*", false),
            ("hydrant.log.>", "hydrant.counter.*.*", false),
            ("hydrant.log.*", "hydrant.log.*.*", false),
            ("hydrant.log.*.*.>", "hydrant.log.*.*", false),
            ("hydrant.*", "hydrant.>", false),
            ("hydrant.>", "hydrant.>", true),
            ("other.>", "hydrant.log.*.*", false),
        ] {
            assert_eq!(covers(pattern, wanted), covered, "{pattern} {wanted}");
        }
    }

    #[test]
    fn names_and_prefixes_are_checked() {
        assert!(["a", "cf.prod.hydrant", "A-1_b"].into_iter().all(|prefix| prefix_fault(prefix).is_none()));
        let long = "x".repeat(129);
        assert!(["", ".", "a.", "a..b", "a.*", ">", "a b", "ä", &long].into_iter().all(|p| prefix_fault(p).is_some()));
        assert!(["LOGS", "a-b_1"].into_iter().all(|name| name_fault(name).is_none()));
        assert!(["", "a.b", "a/b", "*", "a b", &"x".repeat(256)].into_iter().all(|name| name_fault(name).is_some()));
    }

    proptest! {
        /// Any id up to the limit is one valid token and comes back; two ids never share one.
        #[test]
        fn any_id_comes_back(id in prop::collection::vec(any::<u8>(), 0..=MAX_ID), text in ".{0,64}") {
            for id in [&id[..], &text.as_bytes()[..text.len().min(MAX_ID)]] {
                let token = id_token(id);
                prop_assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_%".contains(&byte)));
                prop_assert_eq!(id_of(&token), Some(id.to_vec()));
                let one = filter("hydrant", Some(Kind::Log), Some(id));
                prop_assert!(covers(&one, &subject("hydrant", Kind::Log, id, id)));
            }
        }

        /// Whatever token is read gives the same token back.
        #[test]
        fn a_token_has_one_id(token in "[%0-9A-Fa-f.*>]{0,12}") {
            if let Some(id) = id_of(&token) {
                prop_assert_eq!(id_token(&id), token);
            }
        }
    }
}
