//! The JSON form of answers, as clients of log-cache read it.
//!
//! What enters: a [`Value`], or an error's kind and text. What leaves: one JSON document. Times have exactly three decimals, values are
//! the shortest decimal that gives the same number back, never with an exponent (contract `log-cache.md` §3).

use std::fmt::Write;

use crate::labels::{Labels, NAME};
use crate::value::{Sample, Value};

/// Writes an answer: `{"status":"success","data":{"resultType":…,"result":…}}`.
pub fn success(value: &Value) -> String {
    let mut out = String::from(r#"{"status":"success","data":{"resultType":""#);
    match value {
        Value::Scalar(one) => {
            out.push_str(r#"scalar","result":"#);
            sample(&mut out, *one);
        }
        Value::Text(at, what) => {
            out.push_str(r#"string","result":["#);
            time(&mut out, *at);
            out.push(',');
            text(&mut out, what);
            out.push(']');
        }
        Value::Vector(elements) => {
            out.push_str(r#"vector","result":["#);
            each(&mut out, elements, |out, element| {
                metric(out, &element.labels);
                out.push_str(r#","value":"#);
                sample(out, element.sample);
                out.push('}');
            });
            out.push(']');
        }
        Value::Matrix(series) => {
            out.push_str(r#"matrix","result":["#);
            each(&mut out, series, |out, series| {
                metric(out, &series.labels);
                out.push_str(r#","values":["#);
                each(out, &series.samples, |out, one| sample(out, *one));
                out.push_str("]}");
            });
            out.push(']');
        }
    }
    out.push_str("}}");
    out
}

/// Writes an error: `{"status":"error","errorType":…,"error":…}`. The kind is a word such as `bad_data`, `internal` or `timeout`.
pub fn error(kind: &str, what: &str) -> String {
    let mut out = String::from(r#"{"status":"error","errorType":"#);
    text(&mut out, kind);
    out.push_str(r#","error":"#);
    text(&mut out, what);
    out.push('}');
    out
}

fn each<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, item);
    }
}

/// Opens an element with its labels.
fn metric(out: &mut String, labels: &Labels) {
    out.push_str(r#"{"metric":{"#);
    let labels: Vec<_> = labels.iter().filter(|(name, _)| *name != NAME).collect();
    each(out, &labels, |out, (name, value)| {
        text(out, name);
        out.push(':');
        text(out, value);
    });
    out.push('}');
}

fn sample(out: &mut String, sample: Sample) {
    out.push('[');
    time(out, sample.at);
    out.push_str(",\"");
    number(out, sample.value);
    out.push_str("\"]");
}

fn time(out: &mut String, at: i64) {
    let sign = if at < 0 { "-" } else { "" };
    let millis = at.unsigned_abs();
    let _ = write!(out, "{sign}{}.{:03}", millis / 1000, millis % 1000);
}

/// Writes a value as Go does with `'f'` and the shortest precision.
pub(crate) fn number(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}

fn text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // The last two end a line in JavaScript; the first three must not reach a page as markup.
            '<' | '>' | '&' | '\0'..'\u{20}' | '\u{7f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Element, Series};

    fn value(value: f64) -> String {
        let mut out = String::new();
        number(&mut out, value);
        out
    }

    #[test]
    fn values_are_shortest_decimals_without_exponent() {
        let cases = [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e21, "1000000000000000000000"),
            (5e-7, "0.0000005"),
            (1.5e-3, "0.0015"),
        ];
        for (number, text) in cases {
            assert_eq!(value(number), text);
        }
        assert_eq!([f64::NAN, f64::INFINITY, -f64::INFINITY].map(value), ["NaN", "+Inf", "-Inf"]);
        assert!(value(f64::MIN_POSITIVE).starts_with("0.0000"));
    }

    #[test]
    fn every_kind_of_answer_is_written() {
        let one = Sample { at: 1_000, value: 2.5 };
        let labels = Labels::new([("__name__", "cpu"), ("app", "a\"<b>\n")]);
        assert_eq!(
            success(&Value::Scalar(one)),
            r#"{"status":"success","data":{"resultType":"scalar","result":[1.000,"2.5"]}}"#
        );
        assert_eq!(
            success(&Value::Text(-1, "x".to_owned())),
            r#"{"status":"success","data":{"resultType":"string","result":[-0.001,"x"]}}"#
        );
        assert_eq!(
            success(&Value::Vector(vec![Element { labels, sample: one }])),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"app":"a\"\u003cb\u003e\n"},"value":[1.000,"2.5"]}]}}"#
        );
        let series = Series { labels: Labels::empty(), samples: vec![one, Sample { at: 61_001, value: f64::NAN }] };
        assert_eq!(
            success(&Value::Matrix(vec![series])),
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1.000,"2.5"],[61.001,"NaN"]]}]}}"#
        );
        for (value, kind) in [(Value::Vector(vec![]), "vector"), (Value::Matrix(vec![]), "matrix")] {
            let expected = format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[]}}}}"#);
            assert_eq!(success(&value), expected);
        }
    }

    #[test]
    fn errors_are_written_and_all_is_json() {
        let written = error("bad_data", "a \"b\" \u{1}\u{2028}é");
        let read: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"status": "error", "errorType": "bad_data", "error": "a \"b\" \u{1}\u{2028}é"})
        );
    }
}
