//! Whatever comes in: an answer within the limits or an error, never a panic, and never more work than was let through.

use std::cell::Cell;

use hydrant_promql::{EvalError, Labels, Limits, Query, Sample, Series, Span, Value, json};
use proptest::prelude::*;

use crate::generate::Generator;
use crate::queries::{expand, picked};

fn limits() -> Limits {
    Limits { points: 300, samples: 50_000, bytes: 8 << 20, ..Limits::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Text of any kind is read or refused.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = Query::parse(&text, &limits());
    }

    /// Text made of what queries are made of.
    #[test]
    fn any_words_are_read_or_refused(words in prop::collection::vec(prop::sample::select(WORDS), 0..60), gap in prop::sample::select(&["", " "][..])) {
        let _ = Query::parse(&words.join(gap), &limits());
    }

    /// Patterns made of what patterns are made of, matched and expanded.
    #[test]
    fn any_pattern_is_read_or_refused(
        words in prop::collection::vec(prop::sample::select(PATTERNS), 0..20),
        template in prop::collection::vec(prop::sample::select(TEMPLATES), 0..8),
    ) {
        let (pattern, template) = (words.concat().replace('`', ""), template.concat());
        let text = format!("label_replace(x{{source_id=\"s\",app=~`{pattern}|a`}}, \"b\", \"{template}\", \"app\", `{pattern}`)");
        let Ok(query) = Query::parse(&text, &limits()) else { return Ok(()) };
        let labels = Labels::new([("__name__", "x"), ("source_id", "s"), ("app", "a")]);
        let series = Series { labels, samples: vec![Sample { at: 0, value: 1.0 }] };
        let answer = query.evaluate(&Span::instant(0), vec![vec![series]], &limits(), &|| false);
        prop_assert!(matches!(answer, Ok(Value::Vector(elements)) if elements.len() <= 1));
    }

    /// Queries with a few characters changed; those that are read print as something that reads the same.
    #[test]
    fn queries_with_mistakes_are_read_or_refused(seed in 0_u64..1 << 32, edits in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(WORDS)), 0..3)) {
        let mut text: Vec<char> = query(seed).chars().collect();
        for (place, word) in &edits {
            let at = place.index(text.len() + 1);
            let end = (at + seed as usize % 3).min(text.len());
            text.splice(at..end, word.chars());
        }
        let text: String = text.into_iter().collect();
        if let Ok(query) = Query::parse(&text, &Limits { query_bytes: 1 << 20, ..limits() }) {
            let printed = query.to_string();
            match Query::parse(&printed, &Limits { query_bytes: 1 << 20, ..limits() }) {
                Ok(again) => prop_assert_eq!(again.to_string(), printed),
                // Matchers of sources that exclude each other leave none, which cannot be written.
                Err(error) => prop_assert!(printed.contains("source_id!~"), "{}: {} ({})", printed, error, text),
            }
        }
    }

    /// Queries of every kind, over whatever samples, at whatever times.
    #[test]
    fn any_query_over_any_samples_stays_within_its_limits(seed in 0_u64..1 << 32, series in any_series(), span in any_span()) {
        let limits = limits();
        let Ok(query) = Query::parse(&query(seed), &limits) else { return Ok(()) };
        let data = query.selects(&span).iter().map(|_| series.clone()).collect();
        // A question is asked every 65,536 units of work.
        let asked = Cell::new(0);
        let answer = query.evaluate(&span, data, &limits, &|| {
            asked.set(asked.get() + 1);
            asked.get() > 500
        });
        match answer {
            Ok(value) => {
                prop_assert!(samples(&value) <= limits.samples + limits.points);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&json::success(&value)).is_ok());
            }
            Err(error) => prop_assert!(error != EvalError::Cancelled || asked.get() == 501),
        }
    }
}

const WORDS: &[&str] = &[
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "=",
    "!=",
    "=~",
    "!~",
    "==",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "<",
    "@",
    "offset ",
    "5m",
    "1h30m",
    "300y",
    "1",
    "0",
    "1e300",
    "0x1f",
    "Inf",
    "NaN",
    "sum",
    "topk",
    "count_values",
    "by ",
    "on ",
    "ignoring ",
    "group_left ",
    "bool ",
    "and ",
    "or ",
    "unless ",
    "x",
    "rate",
    "label_replace",
    "holt_winters",
    "time",
    "start",
    "end",
    "fill",
    "smoothed",
    "anchored",
    "source_id",
    "__name__",
    "\"s\"",
    "\"(.*)\"",
    "'a'",
    "`b`",
    "\"\\xff\"",
    "\"",
    "x{source_id=\"s\"}",
    "x{source_id=\"s\"}[5m]",
    "#",
    "\n",
    "é",
    "\u{0}",
    "$1",
];

const PATTERNS: &[&str] = &[
    "a",
    ".",
    "*",
    "+",
    "?",
    "|",
    "(",
    ")",
    "(?:",
    "(?i)",
    "(?s:",
    "(?P<n>",
    "(?=",
    "[",
    "]",
    "[^",
    "[:",
    ":]",
    "[[:alpha:]]",
    "-",
    "^",
    "$",
    "{",
    "}",
    "{2}",
    "{2,",
    ",3}",
    "{1001}",
    "&&",
    "~~",
    "--",
    "\\",
    "\\d",
    "\\W",
    "\\s",
    "\\b",
    "\\B",
    "\\pL",
    "\\p{Greek}",
    "\\p{",
    "\\x4",
    "\\x{61}",
    "\\x{",
    "\\101",
    "\\0",
    "\\9",
    "\\Q",
    "\\E",
    "\\C",
    "\\z",
    "\\<",
    "é",
    "\n",
    "#",
    " ",
];

const TEMPLATES: &[&str] = &["$1", "${n}", "$$", "$", "${", "}", "x", "$0", "$99", "é"];

/// One of those picked by hand, or a generated one.
fn query(seed: u64) -> String {
    let picked = picked().nth(seed as usize % (2 * picked().count()));
    expand(&picked.map_or_else(|| Generator::new(seed).query(), str::to_owned))
}

fn samples(value: &Value) -> usize {
    match value {
        Value::Matrix(series) => series.iter().map(|series| series.samples.len()).sum(),
        Value::Vector(elements) => elements.len(),
        Value::Scalar(_) | Value::Text(..) => 1,
    }
}

fn any_series() -> impl Strategy<Value = Vec<Series>> {
    let name = prop::sample::select(
        &["c", "g", "one", "two", "info", "h_bucket", "special", "early", "later", "sparse", "jitter", "dates"][..],
    );
    let label = (
        prop::sample::select(&["app", "instance", "code", "le", "zone", "bad.label"][..]),
        prop::sample::select(&["a", "b", "1", "200", "+Inf", ""][..]),
    );
    let series = (name, prop::collection::vec(label, 0..4), prop::collection::vec((any_time(), any_value()), 0..60));
    let series = series.prop_map(|(name, labels, samples)| Series {
        labels: Labels::new([("__name__", name), ("source_id", "s")].into_iter().chain(labels)),
        samples: samples.into_iter().map(|(at, value)| Sample { at, value }).collect(),
    });
    prop::collection::vec(series, 0..12)
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => -1e3..1e3,
        2 => prop::sample::select(&[0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e-310][..]),
        1 => any::<u64>().prop_map(f64::from_bits),
    ]
}

fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        10 => 1_700_000_000_000..1_700_000_900_000_i64,
        2 => (1_700_000_000..1_700_000_060_i64).prop_map(|seconds| seconds * 1000),
        1 => any::<i64>(),
        1 => prop::sample::select(&[i64::MIN, i64::MAX, 0, -1, 1][..]),
    ]
}

fn any_span() -> impl Strategy<Value = Span> {
    prop_oneof![
        any_time().prop_map(Span::instant),
        (any_time(), 0..900_000_i64, 1..60_000_i64).prop_filter_map("a range", |(start, length, step)| {
            Span::range(start, start.saturating_add(length), step, &limits()).ok()
        }),
        (any_time(), any_time(), any::<i64>()).prop_filter_map("a range", |(start, end, step)| Span::range(
            start,
            end,
            step,
            &limits()
        )
        .ok()),
    ]
}
