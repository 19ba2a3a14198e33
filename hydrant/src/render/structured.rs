//! Log lines that are JSON objects, taken apart for people: message, level, then the rest in the order in which it was written. Pure.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::level::Level;

/// Objects within objects are taken apart so deep; what is deeper is shown as JSON.
const DEPTH: usize = 3;

const MESSAGES: [&str; 5] = ["message", "msg", "event", "text", "log"];
const LEVELS: [&str; 7] = ["level", "lvl", "severity", "log.level", "levelname", "loglevel", "log_level"];
const TIMES: [&str; 7] = ["time", "timestamp", "ts", "@timestamp", "t", "date", "datetime"];

/// A line that was a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structured {
    /// What it says; empty when no field is one that is known for that.
    pub(crate) message: String,
    pub(crate) level: Option<Level>,
    /// The key and text of its time, and what moment that is, in nanoseconds since the Unix epoch, if it can be read.
    pub(crate) time: Option<(String, String, Option<i64>)>,
    /// All else, by key.
    pub(crate) pairs: Vec<(String, String)>,
}

/// Takes a line apart. `None` when it is no JSON object, or one that neither says nor rates anything: that is shown as it is.
pub(crate) fn parse(text: &str) -> Option<Structured> {
    let text = text.trim();
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    let Fields(fields) = serde_json::from_str(text).ok()?;
    let mut line = Structured::default();
    let mut spoken = false;
    for (key, value) in fields {
        match &value {
            Value::String(text) if !spoken && MESSAGES.contains(&key.as_str()) => {
                text.clone_into(&mut line.message);
                spoken = true;
            }
            _ if line.level.is_none() && LEVELS.contains(&key.as_str()) && level(&value).is_some() => {
                line.level = level(&value);
            }
            Value::String(_) | Value::Number(_) if line.time.is_none() && TIMES.contains(&key.as_str()) => {
                line.time = Some((key, scalar(&value), moment(&value)));
            }
            _ => flatten(&key, &value, DEPTH, &mut line.pairs),
        }
    }
    (spoken || line.level.is_some()).then_some(line)
}

fn level(value: &Value) -> Option<Level> {
    match value {
        Value::String(name) => Level::named(name),
        Value::Number(number) => number.as_u64().and_then(Level::numbered),
        _ => None,
    }
}

fn flatten(key: &str, value: &Value, depth: usize, pairs: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if depth > 0 && !fields.is_empty() => {
            for (name, value) in fields {
                flatten(&format!("{key}.{name}"), value, depth - 1, pairs);
            }
        }
        value => pairs.push((key.to_owned(), scalar(value))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time as text, or as a number of seconds, milliseconds, microseconds or nanoseconds, whichever is within a few centuries of now.
fn moment(value: &Value) -> Option<i64> {
    let nanos = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).ok();
    match value {
        Value::String(text) => text.parse().ok().and_then(nanos),
        Value::Number(number) => {
            let number = number.as_f64()?;
            let factor = match number.abs() {
                n if n < 1e11 => 1e9,
                n if n < 1e14 => 1e6,
                n if n < 1e17 => 1e3,
                _ => 1.0,
            };
            Some((number * factor) as i64)
        }
        _ => None,
    }
}

/// The fields of an object in the order in which they were written.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Ordered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(line: &Structured) -> Vec<(&str, &str)> {
        line.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn fields_keep_their_order_and_objects_are_taken_apart() {
        let text = r#"{"ts":"2026-09-21T14:13:20Z","level":"warn","z":1,"msg":"slow","http":{"path":"/a b","code":200},"ok":true,"l":[1]}"#;
        let line = parse(text).expect("an object");
        assert_eq!((line.message.as_str(), line.level), ("slow", Some(Level::Warn)));
        assert_eq!(line.time, Some(("ts".into(), "2026-09-21T14:13:20Z".into(), Some(1_790_000_000_000_000_000))));
        assert_eq!(
            pairs(&line),
            [("z", "1"), ("http.code", "200"), ("http.path", "/a b"), ("ok", "true"), ("l", "[1]")]
        );
    }

    #[test]
    fn times_are_read_in_any_unit() {
        for time in ["1790000000", "1790000000000", "1790000000000000", "1790000000000000000", "1790000000.0"] {
            let line = parse(&format!(r#"{{"msg":"x","time":{time}}}"#)).expect("an object");
            assert_eq!(line.time.expect("a time").2, Some(1_790_000_000_000_000_000), "{time}");
        }
        let line = parse(r#"{"msg":"x","time":"noon"}"#).expect("an object");
        assert_eq!(line.time, Some(("time".into(), "noon".into(), None)));
    }

    #[test]
    fn what_is_no_line_of_a_log_stays_as_it_is() {
        for text in ["", "{", "{}", "[1]", r#"{"a":1}"#, r#"{"a":"#, "plain", r#"{"msg":5}"#] {
            assert_eq!(parse(text), None, "{text}");
        }
        let deep = format!(r#"{{"msg":"x","a":{}1{}}}"#, r#"{"b":"#.repeat(6), "}".repeat(6));
        assert_eq!(pairs(&parse(&deep).expect("an object")), [("a.b.b.b", r#"{"b":{"b":{"b":1}}}"#)]);
    }
}
