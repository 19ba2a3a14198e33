//! Prometheus 2.42 is the judge: the same samples, the same queries, the same answers.

use std::collections::BTreeMap;

use hydrant_promql::{Limits, Query, Series, Span, json};
use serde_json::Value;

use crate::generate::Generator;
use crate::queries::{expand, picked};
use crate::samples::{self, START};
use crate::server::Prometheus;

/// What differs, and why it may.
const DIFFERENCES: [(&str, &str); 5] = [
    (r#"("text")"#, "Prometheus fails over the parentheses"),
    (r#"c{source_id="s",app="\xff"}"#, "a label is UTF-8: what is not can match nothing, and is refused"),
    (r#"ln(special{source_id="s",})"#, "Go's logarithm of numbers below 1e-308 is off"),
    (r#"log10(special{source_id="s",})"#, "Go's logarithm of numbers below 1e-308 is off"),
    (
        r#"predict_linear(c{source_id="s",}[10m] @ 1700003000, 60)"#,
        "@ fixes the window; Prometheus moves it along with the steps of a range",
    ),
];

/// When a query is asked.
#[derive(Clone, Copy, Debug)]
enum When {
    At(i64),
    Steps { start: i64, end: i64, step: i64 },
}

#[test]
fn prometheus_gives_the_same_answers() {
    let series = samples::all();
    let prometheus = Prometheus::with(&series);
    let mut generator = Generator::new(42);
    let generated: Vec<String> = (0..400).map(|_| generator.query()).collect();
    let mut tally = Tally::default();
    for (i, query) in picked().map(str::to_owned).chain(generated).map(|query| expand(&query)).enumerate() {
        for when in times(i) {
            let theirs = ask(&prometheus, &query, when);
            let ours = evaluate(&series, &query, when);
            tally.count(&query, when, &theirs, &ours);
        }
    }
    let listed: Vec<&str> = DIFFERENCES.iter().map(|(query, _)| *query).collect();
    let differing: Vec<&str> = tally.differing.keys().map(String::as_str).collect();
    let unlisted = tally.differing.iter().filter(|(query, _)| !listed.contains(&query.as_str()));
    let report: Vec<&str> = unlisted.map(|(_, report)| report.as_str()).collect();
    assert!(report.is_empty(), "{} queries differ:\n{}", report.len(), report.join("\n"));
    assert!(listed.iter().all(|query| differing.contains(query)), "no longer differing: {listed:?} / {differing:?}");
    // Else the queries would tell nothing.
    assert!(tally.queries >= 1_000 && tally.full * 2 > tally.queries, "{tally:?}");
    assert!(tally.errors * 3 < tally.queries, "{tally:?}");
}

/// Two times for each query, others for the next.
fn times(i: usize) -> [When; 2] {
    let at = [1_800_000, 3_600_000, 5_250_123, 0, 7_300_000, 3_007_500][i % 6];
    let (start, end, step) = [
        (600_000, 3_600_000, 60_000),
        (0, 7_200_000, 300_000),
        (2_900_000, 3_700_000, 7_000),
        (7_000_000, 7_700_000, 15_000),
    ][i % 4];
    [When::At(START + at), When::Steps { start: START + start, end: START + end, step }]
}

#[derive(Debug, Default)]
struct Tally {
    queries: usize,
    full: usize,
    errors: usize,
    differing: BTreeMap<String, String>,
}

impl Tally {
    fn count(&mut self, query: &str, when: When, theirs: &Value, ours: &Value) {
        self.queries += 1;
        self.errors += usize::from(theirs["status"] == "error");
        self.full += usize::from(theirs["data"]["result"].as_array().is_some_and(|result| !result.is_empty()));
        let ordered =
            matches!(when, When::At(_)) && ["sort", "topk", "bottomk"].iter().any(|word| query.starts_with(word));
        if let Some(difference) = difference(theirs, ours, ordered) {
            let report = format!("{query}\n    {when:?}\n    {difference}");
            self.differing.entry(query.to_owned()).or_insert(report);
        }
    }
}

fn ask(prometheus: &Prometheus, query: &str, when: When) -> Value {
    let seconds = |millis: i64| format!("{}.{:03}", millis / 1000, millis % 1000);
    match when {
        When::At(at) => prometheus.ask("/api/v1/query", &[("query", query), ("time", &seconds(at))]),
        When::Steps { start, end, step } => {
            let parameters =
                [("query", query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", &seconds(step))];
            prometheus.ask("/api/v1/query_range", &parameters)
        }
    }
}

/// As a caller would: asks for what the query selects, and gives no more.
fn evaluate(series: &[Series], query: &str, when: When) -> Value {
    let limits = Limits { samples: 50_000_000, bytes: 1 << 30, ..Limits::default() };
    let answer = || {
        let query = Query::parse(query, &limits).map_err(|error| error.to_string())?;
        let span = match when {
            When::At(at) => Span::instant(at),
            When::Steps { start, end, step } => {
                Span::range(start, end, step, &limits).map_err(|error| error.to_string())?
            }
        };
        let data = query.selects(&span).iter().map(|select| fetch(series, select)).collect();
        query.evaluate(&span, data, &limits, &|| false).map_err(|error| error.to_string())
    };
    let body = answer().map_or_else(|error: String| json::error("execution", &error), |value| json::success(&value));
    serde_json::from_str(&body).expect("JSON")
}

fn fetch(series: &[Series], select: &hydrant_promql::Select) -> Vec<Series> {
    let matching = series.iter().filter(|series| {
        let labels = &series.labels;
        select.sources.iter().any(|source| labels.get("source_id") == Some(source))
            && select.matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.label())))
    });
    let within = |series: &Series| Series {
        labels: series.labels.clone(),
        samples: series
            .samples
            .iter()
            .copied()
            .filter(|sample| (select.start..=select.end).contains(&sample.at))
            .collect(),
    };
    matching.map(within).collect()
}

/// What differs between two answers; `None` if nothing does.
fn difference(theirs: &Value, ours: &Value, ordered: bool) -> Option<String> {
    if theirs["status"] != ours["status"] {
        return Some(format!("theirs: {}\n    ours: {}", short(theirs), short(ours)));
    }
    if theirs["status"] == "error" {
        return None;
    }
    let (theirs, ours) = (&theirs["data"], &ours["data"]);
    if theirs["resultType"] != ours["resultType"] {
        return Some(format!("theirs is a {}, ours a {}", theirs["resultType"], ours["resultType"]));
    }
    let (theirs, ours) = (elements(theirs, ordered), elements(ours, ordered));
    if theirs.len() != ours.len() {
        let keys = |elements: &[(String, Vec<(String, String)>)]| {
            elements.iter().map(|(key, points)| format!("{key} x{}", points.len())).collect::<Vec<_>>().join(" ")
        };
        return Some(format!("theirs has {}\n    ours has {}", keys(&theirs), keys(&ours)));
    }
    theirs.iter().zip(&ours).find_map(|(theirs, ours)| {
        if theirs.0 != ours.0 || theirs.1.len() != ours.1.len() {
            return Some(format!("theirs: {} x{}\n    ours: {} x{}", theirs.0, theirs.1.len(), ours.0, ours.1.len()));
        }
        let differing =
            theirs.1.iter().zip(&ours.1).find(|(theirs, ours)| theirs.0 != ours.0 || !close(&theirs.1, &ours.1));
        differing.map(|(a, b)| format!("{}\n    theirs: {a:?}\n    ours: {b:?}", theirs.0))
    })
}

/// Labels without the name, and points as text; sorted unless the order tells something.
fn elements(data: &Value, ordered: bool) -> Vec<(String, Vec<(String, String)>)> {
    let point = |point: &Value| {
        (
            point[0].as_f64().map(|at| format!("{at:.3}")).unwrap_or_default(),
            point[1].as_str().unwrap_or_default().to_owned(),
        )
    };
    let result = &data["result"];
    if matches!(data["resultType"].as_str(), Some("scalar" | "string")) {
        return vec![(String::new(), vec![point(result)])];
    }
    let mut elements: Vec<_> = result
        .as_array()
        .into_iter()
        .flatten()
        .map(|element| {
            let labels: BTreeMap<_, _> =
                element["metric"].as_object().into_iter().flatten().filter(|(name, _)| *name != "__name__").collect();
            let points = match element["values"].as_array() {
                Some(values) => values.iter().map(point).collect(),
                None => vec![point(&element["value"])],
            };
            (format!("{labels:?}"), points)
        })
        .collect();
    if !ordered {
        elements.sort();
    }
    elements
}

fn close(theirs: &str, ours: &str) -> bool {
    let (Ok(a), Ok(b)) = (theirs.parse::<f64>(), ours.parse::<f64>()) else { return theirs == ours };
    theirs == ours || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn short(answer: &Value) -> String {
    answer.to_string().chars().take(300).collect()
}
