//! The JSON form of answers, as clients of log-cache read it.
//!
//! What enters: a [`Value`], or an error's kind and text. What leaves: one JSON document. Times have exactly three decimals, values are
//! the shortest decimal that gives the same number back, never with an exponent (contract `log-cache.md` §3).

use std::fmt::{self, Write};

use crate::labels::{Labels, NAME};
use crate::value::{Sample, Value};

/// An answer as text: `{"status":"success","data":{"resultType":…,"result":…}}`.
pub fn success(value: &Value) -> String {
    let mut out = String::new();
    let _ = write_success(&mut out, value);
    out
}

/// Writes an answer. A sample may take 350 bytes: who has to bound the whole gives something that refuses to be written to.
///
/// # Errors
///
/// Those of `out`.
pub fn write_success(out: &mut impl Write, value: &Value) -> fmt::Result {
    out.write_str(r#"{"status":"success","data":{"resultType":""#)?;
    match value {
        Value::Scalar(one) => {
            out.write_str(r#"scalar","result":"#)?;
            sample(out, *one)?;
        }
        Value::Text(at, what) => {
            out.write_str(r#"string","result":["#)?;
            time(out, *at)?;
            out.write_str(",")?;
            text(out, what)?;
            out.write_str("]")?;
        }
        Value::Vector(elements) => {
            out.write_str(r#"vector","result":["#)?;
            each(out, elements, |out, element| {
                metric(out, &element.labels)?;
                out.write_str(r#","value":"#)?;
                sample(out, element.sample)?;
                out.write_str("}")
            })?;
            out.write_str("]")?;
        }
        Value::Matrix(series) => {
            out.write_str(r#"matrix","result":["#)?;
            each(out, series, |out, series| {
                metric(out, &series.labels)?;
                out.write_str(r#","values":["#)?;
                each(out, &series.samples, |out, one| sample(out, *one))?;
                out.write_str("]}")
            })?;
            out.write_str("]")?;
        }
    }
    out.write_str("}}")
}

/// An error as text: `{"status":"error","errorType":…,"error":…}`. The kind is a word such as `bad_data`, `internal` or `timeout`.
pub fn error(kind: &str, what: &str) -> String {
    let mut out = String::from(r#"{"status":"error","errorType":"#);
    let _ = text(&mut out, kind);
    out.push_str(r#","error":"#);
    let _ = text(&mut out, what);
    out.push('}');
    out
}

/// Items with commas between them.
fn each<W: Write, T>(out: &mut W, items: &[T], mut write: impl FnMut(&mut W, &T) -> fmt::Result) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.write_str(",")?;
        }
        write(out, item)?;
    }
    Ok(())
}

/// Opens an element with its labels.
fn metric(out: &mut impl Write, labels: &Labels) -> fmt::Result {
    out.write_str(r#"{"metric":{"#)?;
    let labels: Vec<_> = labels.iter().filter(|(name, _)| *name != NAME).collect();
    each(out, &labels, |out, (name, value)| {
        text(out, name)?;
        out.write_str(":")?;
        text(out, value)
    })?;
    out.write_str("}")
}

fn sample(out: &mut impl Write, sample: Sample) -> fmt::Result {
    out.write_str("[")?;
    time(out, sample.at)?;
    out.write_str(",\"")?;
    number(out, sample.value)?;
    out.write_str("\"]")
}

fn time(out: &mut impl Write, at: i64) -> fmt::Result {
    let sign = if at < 0 { "-" } else { "" };
    let millis = at.unsigned_abs();
    write!(out, "{sign}{}.{:03}", millis / 1000, millis % 1000)
}

/// Writes a value as Go does with `'f'` and the shortest precision.
pub(crate) fn number(out: &mut impl Write, value: f64) -> fmt::Result {
    match value {
        value if value.is_nan() => out.write_str("NaN"),
        value if value.is_infinite() => out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
        value => write!(out, "{value}"),
    }
}

fn text(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            // The last two end a line in JavaScript; the first three must not reach a page as markup.
            '<' | '>' | '&' | '\0'..'\u{20}' | '\u{7f}' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(c))?
            }
            _ => out.write_char(c)?,
        }
    }
    out.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Element, Series};

    fn value(value: f64) -> String {
        let mut out = String::new();
        number(&mut out, value).unwrap();
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
