//! A line as container runtimes of Kubernetes write it: `<RFC 3339 time> <stdout|stderr> <P|F>[:…] <text>`. Pure.

use proto::rfc3339;

/// A line, understood. Its text is a part of it, or a part of a part: `P` says that more follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CriLine<'a> {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Whether it came on stderr.
    pub err: bool,
    /// Whether the text goes on in the next line of the same stream.
    pub more: bool,
    /// The text.
    pub text: &'a [u8],
}

/// Why a line is none of a container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    /// No time before the first space.
    #[error("it does not begin with a time such as 2024-04-05T19:34:38.123456789Z")]
    Time,
    /// Another stream.
    #[error("its second word is neither stdout nor stderr")]
    Stream,
    /// Another tag.
    #[error("its third word is neither P nor F, for a part and for a whole line")]
    Tag,
}

/// Reads one line, without its line feed. No allocation.
///
/// # Errors
/// The first of its words that is not as it should be.
pub fn cri_line(line: &[u8]) -> Result<CriLine<'_>, CriError> {
    let space = memchr::memchr(b' ', line).ok_or(CriError::Time)?;
    let timestamp = rfc3339::parse(&line[..space]).ok_or(CriError::Time)?;
    let rest = &line[space + 1..];
    let (err, rest) = match (rest.strip_prefix(b"stdout "), rest.strip_prefix(b"stderr ")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(CriError::Stream),
    };
    // A whole line without a text may lack the space too.
    let (tags, text) = match memchr::memchr(b' ', rest) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let more = match tags {
        [b'F'] | [b'F', b':', ..] => false,
        [b'P'] | [b'P', b':', ..] => true,
        _ => return Err(CriError::Tag),
    };
    Ok(CriLine { timestamp, err, more, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_712_345_678_000_000_000;

    fn line(text: &str) -> Result<CriLine<'_>, CriError> {
        cri_line(text.as_bytes())
    }

    #[test]
    fn every_part_of_a_line_is_read() {
        let whole = |timestamp, err, more, text| Ok(CriLine { timestamp, err, more, text });
        assert_eq!(
            line("2024-04-05T19:34:38.000000007Z stdout F hello  you "),
            whole(SECOND + 7, false, false, b"hello  you ".as_slice())
        );
        assert_eq!(line("2024-04-05T21:34:38.5+02:00 stderr P a"), whole(SECOND + 500_000_000, true, true, b"a"));
        assert_eq!(line("2024-04-05T19:34:38Z stdout F:x:y a"), whole(SECOND, false, false, b"a"));
        assert_eq!(line("2024-04-05T19:34:38Z stdout F "), whole(SECOND, false, false, b""));
        assert_eq!(line("2024-04-05T19:34:38Z stdout F"), whole(SECOND, false, false, b""));
        let bytes = b"2024-04-05T19:34:38Z stdout F \xff\x00";
        assert_eq!(cri_line(bytes).unwrap().text, b"\xff\x00", "any bytes are a text");
    }

    #[test]
    fn a_line_of_something_else_is_named() {
        for (text, error) in [
            ("", CriError::Time),
            ("hello", CriError::Time),
            ("hello you", CriError::Time),
            ("2024-13-05T19:34:38Z stdout F a", CriError::Time),
            ("2024-04-05T19:34:38Z", CriError::Time),
            ("2024-04-05T19:34:38Z stdin F a", CriError::Stream),
            ("2024-04-05T19:34:38Z stdout", CriError::Stream),
            ("2024-04-05T19:34:38Z stdout X a", CriError::Tag),
            ("2024-04-05T19:34:38Z stdout FX a", CriError::Tag),
            ("2024-04-05T19:34:38Z stdout  a", CriError::Tag),
        ] {
            assert_eq!(line(text), Err(error), "{text}");
        }
    }
}
