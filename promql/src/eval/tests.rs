//! What queries give, case by case, and what they may not cost.

use std::cell::Cell;

use super::*;
use crate::labels::{Labels, NAME};
use crate::tree::Query;

/// A series of the source `s`: `name a=1 b=2`, and samples as (seconds, value).
fn series(labels: &str, samples: &[(i64, f64)]) -> Series {
    let mut words = labels.split(' ');
    let name = words.next().unwrap_or_default();
    let pairs = words.filter_map(|word| word.split_once('='));
    let labels = Labels::new([(NAME, name), ("source_id", "s")].into_iter().chain(pairs));
    Series { labels, samples: samples.iter().map(|(at, value)| Sample { at: at * 1000, value: *value }).collect() }
}

fn run(text: &str, span: &Span, data: &[Series], limits: &Limits) -> Result<Value, EvalError> {
    let text = text.replace("{}", r#"{source_id="s"}"#);
    let query = Query::parse(&text, limits).unwrap_or_else(|error| panic!("{text}: {error}"));
    let data = query.selects(span).iter().map(|_| data.to_vec()).collect();
    query.evaluate(span, data, limits, &|| false)
}

/// The answer at a time in seconds: `{a="1"} 5`, a line each; without the source.
fn instant(text: &str, at: i64, data: &[Series]) -> Vec<String> {
    match run(text, &Span::instant(at * 1000), data, &Limits::default()) {
        Ok(Value::Vector(elements)) => {
            let line = |element: &Element| {
                format!("{} {}", element.labels.without(|name| name == "source_id"), element.sample.value)
            };
            elements.iter().map(line).collect()
        }
        Ok(Value::Scalar(sample)) => vec![sample.value.to_string()],
        Ok(other) => vec![format!("{other:?}")],
        Err(error) => vec![error.to_string()],
    }
}

/// The answer from 0 to an end in steps, in seconds: values with their times.
fn range(text: &str, end: i64, step: i64, data: &[Series]) -> Vec<String> {
    let span = Span::range(0, end * 1000, step * 1000, &Limits::default()).unwrap();
    match run(text, &span, data, &Limits::default()) {
        Ok(Value::Matrix(series)) => {
            let point = |sample: &Sample| format!("{}@{}", sample.value, sample.at / 1000);
            let line = |series: &Series| {
                let labels = series.labels.without(|name| name == "source_id");
                format!("{labels} {}", series.samples.iter().map(point).collect::<Vec<_>>().join(" "))
            };
            series.iter().map(line).collect()
        }
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn windows_are_closed_at_both_ends() {
    let data = [series("x", &[(0, 1.0), (60, 2.0), (120, 3.0)])];
    assert_eq!(instant("count_over_time(x{}[1m])", 60, &data), ["{} 2"]);
    assert_eq!(instant("count_over_time(x{}[1m])", 61, &data), ["{} 1"]);
    assert_eq!(instant("x{}", 420, &data), ["{} 3"], "five minutes back");
    assert_eq!(instant("x{}", 421, &data), [""; 0]);
    assert_eq!(instant("x{}", -1, &data), [""; 0]);
}

#[test]
fn samples_of_one_time_all_count() {
    let data = [series("x", &[(10, 1.0), (10, 2.0), (10, 4.0), (20, 8.0), (20, 16.0)])];
    assert_eq!(instant("count_over_time(x{}[10s])", 20, &data), ["{} 5"]);
    assert_eq!(instant("sum_over_time(x{}[10s])", 20, &data), ["{} 31"]);
    assert_eq!(instant("x{}", 20, &data), ["{} 16"], "the last that came");
    assert_eq!(instant("increase(x{}[10s])", 20, &data), ["{} 15"]);
    assert_eq!(instant("rate(x{}[10s])", 19, &data), [""; 0], "one time tells no slope");
    assert_eq!(instant("irate(x{}[10s])", 20, &data), [""; 0]);
    assert_eq!(range("count_over_time(x{}[9s])", 20, 10, &data), ["{} 3@10 2@20"]);
}

#[test]
fn parts_of_a_series_are_put_together_in_order() {
    let data = [series("x a=1", &[(30, 3.0), (10, 1.0)]), series("y", &[(0, 0.0)]), series("x a=1", &[(20, 2.0)])];
    assert_eq!(range("x{}", 30, 10, &data), [r#"{a="1"} 1@10 2@20 3@30"#]);
    assert_eq!(instant("count({__name__=~\"x|y\",source_id=\"s\"})", 30, &data), ["{} 2"]);
}

#[test]
fn only_what_is_selected_is_seen() {
    let mut other = series("x a=1", &[(0, 1.0)]);
    other.labels = other.labels.with("source_id", "t");
    let data = [series("x a=2", &[(0, 1.0)]), other, series("y a=3", &[(0, 1.0)])];
    assert_eq!(instant("x{}", 0, &data), [r#"{a="2"} 1"#]);
    assert_eq!(instant("x{source_id=\"t\"}", 0, &data), [r#"{a="1"} 1"#]);
    assert_eq!(instant("x{source_id=\"s\",a!=\"2\"}", 0, &data), [""; 0]);
    let span = Span::instant(0);
    let query = Query::parse("x{source_id=\"u\"}", &Limits::default()).unwrap().with_sources(|_| vec!["t".into()]);
    let answer = query.evaluate(&span, vec![data.to_vec()], &Limits::default(), &|| false);
    assert!(
        matches!(answer, Ok(Value::Vector(elements)) if elements.len() == 1 && elements[0].labels.get("a") == Some("1"))
    );
    let none = query.with_sources(|_| Vec::new()).evaluate(&span, vec![data.to_vec()], &Limits::default(), &|| false);
    assert_eq!(none, Ok(Value::Vector(Vec::new())));
    assert_eq!(query.evaluate(&span, Vec::new(), &Limits::default(), &|| false), Ok(Value::Vector(Vec::new())));
}

#[test]
fn names_tell_series_apart_and_are_in_no_answer() {
    let data = [series("x", &[(0, 1.0)]), series("y", &[(0, 2.0)])];
    let both = r#"{__name__=~"x|y",source_id="s"}"#;
    assert_eq!(instant(both, 0, &data), ["{} 1", "{} 2"]);
    assert_eq!(instant(&format!("sum by (__name__) ({both})"), 0, &data), ["{} 1", "{} 2"]);
    let same = ["vector cannot contain metrics with the same labelset"];
    assert_eq!(instant(&format!("-{both}"), 0, &data), same);
    assert_eq!(instant(&format!("{both} + 1"), 0, &data), same);
    assert_eq!(instant(&format!("rate({both}[1m:1s])"), 0, &data), [""; 0], "nothing there, nothing alike");
    assert_eq!(instant(&format!("count_over_time({both}[1m])"), 0, &data), same);
    assert_eq!(instant(&format!("last_over_time({both}[1m])"), 0, &data), ["{} 1", "{} 2"]);
    assert_eq!(instant("label_replace(x{}, \"a\", \"$1\", \"__name__\", \"(.*)\")", 0, &data), [r#"{a="x"} 1"#]);
}

#[test]
fn subqueries_without_a_step_take_a_minute() {
    let data = [series("x", &[(0, 1.0), (60, 2.0), (90, 9.0), (120, 3.0)])];
    assert_eq!(instant("count_over_time(x{}[2m:])", 120, &data), ["{} 3"]);
    assert_eq!(instant("max_over_time(x{}[2m:])", 125, &data), ["{} 3"]);
    assert_eq!(instant("max_over_time(x{}[2m:30s])", 125, &data), ["{} 9"]);
    assert_eq!(instant("count_over_time(vector(1)[3m:1m])", -60, &[]), ["{} 4"]);
}

#[test]
fn what_does_not_change_is_the_same_at_every_step() {
    let data = [series("x", &[(0, 1.0), (10, 2.0), (20, 3.0)])];
    assert_eq!(range("x{} @ 10", 20, 10, &data), ["{} 2@0 2@10 2@20"]);
    assert_eq!(range("x{} @ end()", 20, 10, &data), ["{} 3@0 3@10 3@20"]);
    assert_eq!(range("sum_over_time(x{}[10s] @ end()) + x{}", 20, 10, &data), ["{} 6@0 7@10 8@20"]);
    assert_eq!(range("count_over_time(x{}[10s] @ 10) * time()", 20, 10, &data), ["{} 0@0 20@10 40@20"]);
    assert_eq!(range("timestamp(x{} @ 10)", 20, 10, &data), ["{} 10@0 10@10 10@20"]);
    assert_eq!(range("timestamp(-x{} @ 10)", 20, 10, &data), ["{} 0@0 10@10 20@20"]);
    assert_eq!(range("1", 20, 10, &data), ["{} 1@0 1@10 1@20"]);
}

#[test]
fn an_answer_has_the_kind_that_was_asked_for() {
    let data = [series("x", &[(0, 1.0), (10, f64::NAN)])];
    let at = Span::instant(10_000);
    let ask = |text: &str, span: &Span| run(text, span, &data, &Limits::default());
    assert_eq!(ask("2", &at), Ok(Value::Scalar(Sample { at: 10_000, value: 2.0 })));
    assert_eq!(ask("(\"a\")", &at), Ok(Value::Text(10_000, "a".to_owned())));
    assert!(matches!(ask("x{}[10s]", &at), Ok(Value::Matrix(series)) if series[0].samples.len() == 2));
    assert!(matches!(ask("x{}[10s:5s]", &at), Ok(Value::Matrix(series)) if series[0].samples.len() == 3));
    let steps = Span::range(0, 10_000, 10_000, &Limits::default()).unwrap();
    assert_eq!(ask("x{}[10s]", &steps), Err(EvalError::Kind("range vector")));
    assert_eq!(ask("\"a\"", &steps), Err(EvalError::Kind("string")));
    let empty = Span::range(1, 0, 1, &Limits::default()).unwrap();
    for text in
        ["x{}", "1", "sum(x{})", "rate(x{}[1m]) / x{}", "absent(x{})", "max_over_time(x{}[1m:1s])", "topk(1, x{})"]
    {
        assert_eq!(ask(text, &empty), Ok(Value::Matrix(Vec::new())), "{text}");
    }
    let single = Span::range(0, 0, 1, &Limits::default()).unwrap();
    assert!(matches!(ask("x{}", &single), Ok(Value::Matrix(_))));
}

#[test]
fn a_nan_of_any_kind_is_a_value() {
    let data = [series("x", &[(0, column::ABSENT), (10, -f64::NAN)])];
    assert_eq!(range("x{}", 10, 10, &data), ["{} NaN@0 NaN@10"]);
    assert_eq!(instant("count_over_time(x{}[10s])", 10, &data), ["{} 2"]);
    assert_eq!(instant("count_values(\"v\", x{})", 0, &data), [r#"{v="NaN"} 1"#]);
}

#[test]
fn labels_that_cannot_be_written_are_kept_and_can_be_quoted() {
    let data = [series("x bad.label=1", &[(0, 1.0)]), series("x bad.label=2", &[(0, 2.0)])];
    assert_eq!(instant("x{source_id=\"s\",\"bad.label\"=\"2\"}", 0, &data), [r#"{"bad.label"="2"} 2"#]);
    assert_eq!(instant("sum by (\"bad.label\") (x{})", 0, &data).len(), 2);
    assert_eq!(instant("count(label_replace(x{}, \"a\", \"$1\", \"bad.label\", \"(2)\")) by (a)", 0, &data).len(), 2);
}

#[test]
fn absence_is_told_with_labels() {
    let data = [series("x a=1", &[(0, 1.0)])];
    assert_eq!(instant("absent(x{})", 0, &data), [""; 0]);
    assert_eq!(instant("absent(y{source_id=\"s\",a=\"1\",b!=\"2\"})", 0, &data), [r#"{a="1"} 1"#]);
    assert_eq!(range("absent_over_time(x{}[10s])", 30, 10, &data), ["{} 1@20 1@30"]);
    let labels = |text: &str| match run(text, &Span::instant(0), &data, &Limits::default()) {
        Ok(Value::Vector(elements)) => elements[0].labels.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(labels("absent(y{})"), r#"{source_id="s"}"#);
    assert_eq!(labels("absent(y{source_id=~\"s|t\"})"), "{}");
}

#[test]
fn counters_are_followed_over_resets() {
    let data = [series("x", &[(0, 10.0), (10, 20.0), (20, 5.0), (30, 15.0), (40, 2.0)])];
    assert_eq!(instant("increase(x{}[40s])", 40, &data), ["{} 27"]);
    assert_eq!(instant("resets(x{}[40s])", 40, &data), ["{} 2"]);
    assert_eq!(instant("resets(x{}[20s])", 40, &data), ["{} 1"]);
    assert_eq!(instant("delta(x{}[40s])", 40, &data), ["{} -8"]);
    assert_eq!(range("resets(x{}[10s])", 40, 10, &data), ["{} 0@0 0@10 1@20 0@30 1@40"]);
}

fn wide(count: usize, steps: i64) -> Vec<Series> {
    let samples: Vec<_> = (0..steps).map(|at| (at, at as f64)).collect();
    (0..count).map(|i| series(&format!("x i={i}"), &samples)).collect()
}

#[test]
fn samples_are_bounded_as_they_are_held() {
    let data = wide(10, 100);
    let span = Span::range(0, 99_000, 1000, &Limits::default()).unwrap();
    let with = |samples: usize, text: &str| run(text, &span, &data, &Limits { samples, ..Limits::default() });
    assert!(with(1_000, "x{}").is_ok());
    assert_eq!(with(999, "x{}"), Err(EvalError::Samples { limit: 999 }));
    // Operands are given back, one after another.
    assert!(with(2_000, "x{} + x{}").is_ok() || with(3_000, "x{} + x{}").is_ok());
    assert!(with(2_100, "sum(x{}) + sum(x{}) + sum(x{}) + sum(x{}) + sum(x{}) + sum(x{})").is_ok());
    // A window counts while it is looked at.
    assert!(with(99, "count_over_time(x{source_id=\"s\",i=\"1\"}[1h]) > 1e9").is_err());
    for text in
        ["max_over_time(vector(1)[1y:1s])", "max_over_time(vector(1)[292y:1ms])", "absent_over_time(y{}[1y:1s])"]
    {
        assert_eq!(with(1_000_000, text), Err(EvalError::Samples { limit: 1_000_000 }), "{text}");
    }
}

#[test]
fn memory_is_bounded() {
    let data = wide(10, 100);
    let span = Span::range(0, 99_000, 1000, &Limits::default()).unwrap();
    let with = |bytes: usize, text: &str| run(text, &span, &data, &Limits { bytes, ..Limits::default() });
    assert!(with(1 << 20, "x{}").is_ok());
    assert_eq!(with(4_000, "x{}"), Err(EvalError::Memory { limit: 4_000 }));
    assert_eq!(with(1_500, "time() + time()"), Err(EvalError::Memory { limit: 1_500 }));
    // Each time the label is twice as long.
    let blown =
        (0..30).fold("x{}".to_owned(), |text, _| format!("label_replace({text}, \"i\", \"$1$1\", \"i\", \"(.*)\")"));
    assert_eq!(with(1 << 20, &blown), Err(EvalError::Memory { limit: 1 << 20 }));
    let joined = (0..12)
        .fold("x{}".to_owned(), |text, _| format!("label_join({text}, \"i\", \"\", \"i\", \"i\", \"i\", \"i\")"));
    assert_eq!(with(1 << 20, &joined), Err(EvalError::Memory { limit: 1 << 20 }));
    assert_eq!(with(1 << 16, "count_values(\"v\", x{} + time() * 0.37)"), Err(EvalError::Memory { limit: 1 << 16 }));
}

#[test]
fn cancelling_takes_effect_within_little_work() {
    let data = wide(100, 5_000);
    let limits = Limits { samples: 1 << 30, bytes: 1 << 30, ..Limits::default() };
    let span = Span::range(0, 4_999_000, 1000, &limits).unwrap();
    for text in [
        "x{}",
        "quantile_over_time(0.5, x{}[1h])",
        "sum by (i) (x{})",
        "topk(3, x{})",
        "x{} / on (i) x{}",
        "x{} or on () x{}",
        "max_over_time(x{}[1h:1s])",
        "count_values(\"v\", x{})",
        "histogram_quantile(0.5, label_replace(x{}, \"le\", \"$1\", \"i\", \"(.*)\"))",
    ] {
        let query = Query::parse(&text.replace("{}", r#"{source_id="s"}"#), &limits).unwrap();
        let data: Vec<_> = query.selects(&span).iter().map(|_| data.clone()).collect();
        let asked = Cell::new(0);
        let cancelled = || {
            asked.set(asked.get() + 1);
            asked.get() > 2
        };
        assert_eq!(query.evaluate(&span, data, &limits, &cancelled), Err(EvalError::Cancelled), "{text}");
        assert_eq!(asked.get(), 3, "{text}");
    }
}

#[test]
fn many_to_many_is_explained() {
    let data = [series("x a=1 b=1", &[(0, 1.0)]), series("x a=1 b=2", &[(0, 2.0)]), series("y a=1", &[(0, 3.0)])];
    assert_eq!(
        instant("y{} + on (a) x{}", 0, &data),
        [concat!(
            r#"found duplicate series for the match group {a="1"} on the right hand-side of the operation: "#,
            r#"[{__name__="x", a="1", b="2", source_id="s"}, {__name__="x", a="1", b="1", source_id="s"}]"#,
            ";many-to-many matching not allowed: matching labels must be unique on one side"
        )]
    );
    assert!(instant("x{} + on (a) y{}", 0, &data)[0].contains("many-to-one matching must be explicit"));
    assert_eq!(instant("x{} + on (a) group_left y{}", 0, &data), [r#"{a="1", b="1"} 4"#, r#"{a="1", b="2"} 5"#]);
    assert_eq!(instant("y{} + on (a) group_right x{}", 0, &data), [r#"{a="1", b="1"} 4"#, r#"{a="1", b="2"} 5"#]);
}

#[test]
fn the_deepest_query_needs_little_stack() {
    let deepest = [
        format!("x{{}}{}", " + x{}".repeat(255)),
        format!("{}x{{}}{}", "abs(-(".repeat(16), "))".repeat(16)),
        format!("{}x{{}}", "-".repeat(250)),
        format!("x{{}}{}", " ^ x{}".repeat(250)),
        format!("{}x{{}}{}", "max_over_time(sum(".repeat(16), ")[1m:1m])".repeat(16)),
    ];
    let limits = Limits { query_bytes: 1 << 20, ..Limits::default() };
    let check = move || {
        let data = wide(1, 10);
        for text in &deepest {
            let answer = run(text, &Span::instant(5_000), &data, &limits);
            assert!(answer.is_ok(), "{text}: {answer:?}");
            let written = text.replace("{}", r#"{source_id="s"}"#);
            let query = Query::parse(&written, &limits).unwrap();
            assert_eq!(Query::parse(&query.to_string(), &limits).unwrap().to_string(), query.to_string());
        }
    };
    // Threads have twice as much unless they are given less.
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap();
    thread.join().unwrap();
}
