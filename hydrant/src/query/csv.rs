//! An answer as CSV (RFC 4180): a sample a row, with its time, its labels and its value. Pure.

use std::collections::BTreeSet;

use promql::{Labels, Sample, Value};

use super::number::exact;
use super::ticks::rfc3339;
use crate::render::safe;

/// The answer. The first column is the time, the last the value, between them one for each label, which is empty where there is none.
/// For `eyes` nothing in it acts on a terminal.
pub(super) fn csv(value: &Value, eyes: bool) -> String {
    let none = Labels::empty();
    let rows: Vec<(&Labels, &[Sample])> = match value {
        Value::Scalar(sample) => vec![(&none, std::slice::from_ref(sample))],
        Value::Vector(elements) => {
            elements.iter().map(|one| (&one.labels, std::slice::from_ref(&one.sample))).collect()
        }
        Value::Matrix(series) => series.iter().map(|one| (&one.labels, one.samples.as_slice())).collect(),
        Value::Text(..) => Vec::new(),
    };
    let names: BTreeSet<&str> = rows.iter().flat_map(|(labels, _)| labels.iter()).map(|(name, _)| name).collect();
    let mut text = String::new();
    let cell = |text: &str| if eyes { quoted(&safe(text)) } else { quoted(text) };
    let head = ["time"].into_iter().chain(names.iter().copied()).chain(["value"]);
    text.push_str(&head.map(cell).collect::<Vec<_>>().join(","));
    text.push_str("\r\n");
    for (labels, samples) in rows {
        let labels: String =
            names.iter().map(|name| format!(",{}", cell(labels.get(name).unwrap_or_default()))).collect();
        for sample in samples {
            text.push_str(&rfc3339(sample.at));
            text.push_str(&labels);
            text.push(',');
            text.push_str(&exact(sample.value));
            text.push_str("\r\n");
        }
    }
    text
}

/// A field, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ') {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use promql::{Element, Series};

    use super::*;

    #[test]
    fn each_sample_is_a_row() {
        let sample = |at, value| Sample { at, value };
        let value = Value::Matrix(vec![
            Series { labels: Labels::new([("a", "x,\"y\"")]), samples: vec![sample(1_500, 0.5), sample(-1, f64::NAN)] },
            Series { labels: Labels::new([("b", "two\nlines\u{1b}")]), samples: vec![sample(0, -1.0)] },
        ]);
        let expected = "time,a,b,value\r\n\
            1970-01-01T00:00:01.500Z,\"x,\"\"y\"\"\",,0.5\r\n\
            1969-12-31T23:59:59.999Z,\"x,\"\"y\"\"\",,NaN\r\n\
            1970-01-01T00:00:00.000Z,,\"two\nlines\u{1b}\",-1\r\n";
        assert_eq!(csv(&value, false), expected);
        assert!(csv(&value, true).ends_with(",two\\nlines\\x1b,-1\r\n"));
        let element = Element { labels: Labels::empty(), sample: sample(0, 2.0) };
        let expected = "time,value\r\n1970-01-01T00:00:00.000Z,2\r\n";
        assert_eq!(csv(&Value::Vector(vec![element]), false), expected);
        assert_eq!(csv(&Value::Scalar(sample(0, 2.0)), false), expected);
        assert_eq!(csv(&Value::Vector(Vec::new()), false), "time,value\r\n");
    }
}
