//! A line of Docker's `json-file` driver: `{"log":"…\n","stream":"stdout","time":"…"}`. Pure.

use proto::rfc3339;

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Attributes of one line that become tags.
pub(super) const MAX_ATTRS: usize = 64;
/// Bytes of one attribute, key and value together. A longer one is left out.
pub(super) const MAX_ATTR: usize = 1_000;

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerLine<'a> {
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// Whether it came on stderr.
    pub err: bool,
    /// Whether the text goes on in the next line of the same stream.
    pub more: bool,
    /// The text, without its line feed.
    pub text: Cow<'a, str>,
    /// What the container was started to have said of it.
    pub attrs: Attrs,
}

/// Keys and values.
pub type Attrs = Vec<(String, String)>;

/// Why a line is none of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerError {
    /// No object with the fields.
    #[error("it is no JSON object with log, stream and time")]
    Json,
    /// A time of another form.
    #[error("its time is not as RFC 3339 has it, such as 2024-04-05T19:34:38.123456789Z")]
    Time,
    /// Another stream.
    #[error("its stream is neither stdout nor stderr")]
    Stream,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    log: Text<'a>,
    #[serde(borrow)]
    stream: Text<'a>,
    #[serde(borrow)]
    time: Text<'a>,
    #[serde(default, deserialize_with = "some_attrs")]
    attrs: Attrs,
}

/// Borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads one line. Allocates only for escapes and attributes.
///
/// # Errors
/// What it lacks.
pub fn docker_line(line: &[u8]) -> Result<DockerLine<'_>, DockerError> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|_| DockerError::Json)?;
    let timestamp = rfc3339::parse(fields.time.0.as_bytes()).ok_or(DockerError::Time)?;
    let err = match &*fields.stream.0 {
        "stdout" => false,
        "stderr" => true,
        _ => return Err(DockerError::Stream),
    };
    let mut text = fields.log.0;
    let more = !text.ends_with('\n');
    match &mut text {
        Cow::Borrowed(text) => *text = text.strip_suffix('\n').unwrap_or(text),
        Cow::Owned(text) if !more => drop(text.pop()),
        Cow::Owned(_) => {}
    }
    Ok(DockerLine { timestamp, err, more, text, attrs: fields.attrs })
}

/// The first [`MAX_ATTRS`] with text values; others are left out.
fn some_attrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Attrs, D::Error> {
    struct Map;

    impl<'de> Visitor<'de> for Map {
        type Value = Attrs;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> Result<Attrs, E> {
            Ok(Attrs::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attrs, A::Error> {
            let mut attrs = Attrs::new();
            while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                if let serde_json::Value::String(value) = value
                    && key.len() + value.len() <= MAX_ATTR
                    && attrs.len() < MAX_ATTRS
                {
                    attrs.push((key, value));
                }
            }
            Ok(attrs)
        }
    }

    deserializer.deserialize_any(Map)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_712_345_678_000_000_000;

    #[test]
    fn every_part_of_a_line_is_read() {
        let line = br#"{"log":"a \"b\" \u00e9\n","stream":"stderr","attrs":{"tag":"x","n":1},"time":"2024-04-05T19:34:38.000000007Z"}"#;
        let expected = DockerLine {
            timestamp: SECOND + 7,
            err: true,
            more: false,
            text: "a \"b\" é".into(),
            attrs: vec![("tag".into(), "x".into())],
        };
        assert_eq!(docker_line(line), Ok(expected));
        let part =
            docker_line(br#"{"log":"plain","stream":"stdout","time":"2024-04-05T19:34:38Z","attrs":null}"#).unwrap();
        assert!(part.more && !part.err && matches!(part.text, Cow::Borrowed("plain")), "{part:?}");
        let empty =
            docker_line(br#"{"log":"\n","stream":"stdout","time":"2024-04-05T19:34:38Z","other":[{}]}"#).unwrap();
        assert_eq!((empty.more, &*empty.text), (false, ""));
    }

    #[test]
    fn attributes_are_bounded() {
        let many: Vec<_> = (0..100).map(|i| format!("\"k{i}\":\"v\"")).collect();
        let long = "x".repeat(MAX_ATTR);
        let line = format!(
            r#"{{"log":"\n","stream":"stdout","time":"2024-04-05T19:34:38Z","attrs":{{"long":"{long}",{}}}}}"#,
            many.join(",")
        );
        let attrs = docker_line(line.as_bytes()).unwrap().attrs;
        assert_eq!((attrs.len(), attrs[0].0.as_str()), (MAX_ATTRS, "k0"));
    }

    #[test]
    fn a_line_of_something_else_is_named() {
        for (text, error) in [
            ("", DockerError::Json),
            ("2024-04-05T19:34:38Z stdout F a", DockerError::Json),
            (r#"{"log":"a\n","stream":"stdout"}"#, DockerError::Json),
            (r#"{"log":"a\n","stream":"stdout","time":"yesterday"}"#, DockerError::Time),
            (r#"{"log":"a\n","stream":"stdin","time":"2024-04-05T19:34:38Z"}"#, DockerError::Stream),
            (r#"{"log":"a\n","stream":"stdout","time":"2024-04-05T19:34:38Z"} x"#, DockerError::Json),
        ] {
            assert_eq!(docker_line(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(
            docker_line(b"{\"log\":\"\xff\\n\",\"stream\":\"stdout\",\"time\":\"2024-04-05T19:34:38Z\"}"),
            Err(DockerError::Json)
        );
    }
}
