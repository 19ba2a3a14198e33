//! Series and samples as contract `log-cache.md` §3 maps envelopes to them.

use promql::{Limits, Query, Span};
use prost::Message as _;
use proto::raw::Batch;
use proto::v2::{self, Envelope};

use super::*;
use crate::config::Config;

const SECOND: i64 = 1_000_000_000;

fn store(envelopes: impl AsRef<[Envelope]>) -> Store {
    let store = Store::new(&Config::with_budget(64 << 20));
    for some in envelopes.as_ref().chunks(500) {
        let encoded = v2::EnvelopeBatch { batch: some.to_vec() }.encode_to_vec();
        let (batch, refused) = Batch::check(encoded.into(), &proto::raw::Limits::default());
        assert_eq!(refused.total(), 0);
        store.put(&batch.into());
    }
    store
}

const LIMITS: SelectLimits = SelectLimits { samples: 1_000_000, series: 1000 };

/// What one selector of source `app` finds from second `start` to second `end`, as `labels: time value, …` without the source.
fn select(store: &Store, selector: &str, (start, end): (i64, i64)) -> Vec<String> {
    let query = Query::parse(selector, &Limits::default()).unwrap();
    let matchers = query.selects(&Span::instant(0)).remove(0).matchers;
    let select = Select {
        source_id: "app".to_owned(),
        matchers,
        start: start * 1000,
        end: end * 1000,
        before: None,
        labels_only: false,
    };
    store.select(&select, LIMITS).unwrap().iter().map(text).collect()
}

fn text(series: &Selected) -> String {
    let labels: Vec<String> = series
        .labels
        .iter()
        .filter(|(label, _)| *label != SOURCE)
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let samples: Vec<String> =
        series.samples.iter().map(|sample| format!("{}@{}", sample.value, sample.at / 1000)).collect();
    format!("{}: {}", labels.join(","), samples.join(" "))
}

fn counter(name: &str, total: u64) -> Envelope {
    let mut counter = Envelope::counter("app", name, 1);
    let Some(v2::envelope::Message::Counter(message)) = &mut counter.message else { unreachable!() };
    message.total = total;
    counter
}

#[test]
fn values_are_totals_gauges_and_nanoseconds() {
    let store = store(vec![
        counter("hits", 7).at(5 * SECOND),
        Envelope::gauge("app", "cpu", 0.5, "percentage").at(6 * SECOND).instance("3"),
        Envelope::timer("app", "http", 10, 35).at(7 * SECOND).tag("status", "200"),
        Envelope::log("app", "hits").at(5 * SECOND),
        Envelope::gauge("other", "cpu", 9.0, "").at(6 * SECOND),
    ]);
    let found = |selector| select(&store, selector, (0, 10));
    assert_eq!(found(r#"hits{source_id="app"}"#), ["__name__=hits: 7@5"]);
    assert_eq!(found(r#"cpu{source_id="app"}"#), ["__name__=cpu,instance_id=3: 0.5@6"]);
    assert_eq!(found(r#"http{source_id="app"}"#), ["__name__=http,status=200: 25@7"]);
    assert_eq!(found(r#"{source_id="app",__name__=~".+"}"#).len(), 3);
}

#[test]
fn every_matcher_is_right_on_every_label() {
    let gauge = |code: &str, instance: &str| {
        Envelope::gauge("app", "http", 1.0, "").at(SECOND).tag("code", code).instance(instance).tag("bad.label", "x")
    };
    let store = store(vec![gauge("200", "0"), gauge("204", "1"), gauge("500", "0"), {
        Envelope::gauge("app", "http", 1.0, "").at(SECOND)
    }]);
    let count = |matcher: &str| select(&store, &format!(r#"{{source_id="app",{matcher}}}"#), (0, 10)).len();
    assert_eq!(count(r#"code!="200""#), 3);
    assert_eq!(count(r#"code=~"2..""#), 2);
    assert_eq!(count(r#"code!~"2..""#), 2);
    assert_eq!(count(r#"code="",__name__="http""#), 1);
    assert_eq!(count(r#"code=~".*",__name__="http""#), 4);
    assert_eq!(count(r#"instance_id="0""#), 2);
    assert_eq!(count(r#"instance_id!="0",__name__="http""#), 2);
    assert_eq!(count(r#"__name__!="http""#), 0);
}

#[test]
fn times_are_whole_seconds_and_samples_of_one_second_are_all_kept() {
    let at = |nanos: i64, value: f64| Envelope::gauge("app", "g", value, "").at(nanos);
    let store =
        store(vec![at(9_999_999_999, 4.0), at(2_000_000_001, 2.0), at(2_000_000_000, 1.0), at(2_999_999_999, 3.0)]);
    let found = |range| select(&store, r#"g{source_id="app"}"#, range);
    assert_eq!(found((0, 100)), ["__name__=g: 1@2 2@2 3@2 4@9"]);
    assert_eq!(found((2, 2)), ["__name__=g: 1@2 2@2 3@2"]);
    assert_eq!(found((3, 8)), [] as [String; 0]);
    assert_eq!(found((9, 9)), ["__name__=g: 4@9"]);
    // What comes in the moment of a query, or later, is not seen by it.
    let seen = |before| {
        let (source_id, start, end) = ("app".to_owned(), 0, 100_000);
        let select = Select { source_id, matchers: Vec::new(), start, end, before, labels_only: false };
        store.select(&select, LIMITS).unwrap().iter().map(|series| series.samples.len()).sum::<usize>()
    };
    assert_eq!([None, Some(2000), Some(2001), Some(10_000)].map(seen), [4, 0, 2, 4]);
}

#[test]
fn names_are_made_fit_and_names_that_become_one_are_one_series() {
    let gauge = |name: &str, value| Envelope::gauge("app", name, value, "").at(SECOND);
    let store = store(vec![gauge("9a.b", 1.0), gauge("_a/b", 2.0), gauge("a./b", 3.0)]);
    assert_eq!(select(&store, r#"_a_b{source_id="app"}"#, (0, 10)), ["__name__=_a_b: 1@1 2@1"]);
    assert_eq!(select(&store, r#"a__b{source_id="app"}"#, (0, 10)), ["__name__=a__b: 3@1"]);
}

/// Packed or not, in whatever order the tags come, late or not.
#[test]
fn many_samples_of_several_series_over_many_segments() {
    let line = |i: i64| {
        let tags = [("a", i % 3), ("b", i % 2), ("c", 0)];
        let turned = (0..3).map(|at| tags[(at + i as usize) % 3]);
        let envelope = Envelope::gauge("app", "g", i as f64, "ms").at((i ^ 1) * SECOND);
        turned.fold(envelope, |envelope, (key, value)| envelope.tag(key, value.to_string()))
    };
    let store = store((0..6000).map(line).collect::<Vec<_>>());
    let found = select(&store, r#"g{source_id="app",b="1"}"#, (100, 5000));
    assert_eq!(found.len(), 3);
    for (series, a) in found.iter().zip(0..) {
        let samples: Vec<String> = (100..=5000_i64)
            .filter(|at| (at ^ 1) % 2 == 1 && (at ^ 1) % 3 == a)
            .map(|at| format!("{}@{at}", at ^ 1))
            .collect();
        assert_eq!(*series, format!("__name__=g,a={a},b=1,c=0: {}", samples.join(" ")));
    }
}

#[test]
fn too_much_is_an_error_and_labels_alone_are_not_much() {
    let store =
        store((0..500).map(|i| Envelope::gauge("app", format!("g{}", i % 50), 1.0, "u").at(i)).collect::<Vec<_>>());
    let matchers = || {
        let query = Query::parse(r#"{source_id="app",__name__=~"g.*"}"#, &Limits::default()).unwrap();
        query.selects(&Span::instant(0)).remove(0).matchers
    };
    let select = |labels_only| Select {
        source_id: "app".to_owned(),
        matchers: matchers(),
        start: 0,
        end: 1000,
        before: None,
        labels_only,
    };
    let limits = |samples, series| SelectLimits { samples, series };
    assert_eq!(store.select(&select(false), limits(499, 50)), Err(SelectError::Samples(499)));
    assert_eq!(store.select(&select(false), limits(500, 49)), Err(SelectError::Series(49)));
    assert_eq!(store.select(&select(false), limits(500, 50)).unwrap().len(), 50);
    let labels = store.select(&select(true), limits(0, 50)).unwrap();
    assert!(labels.len() == 50 && labels.iter().all(|series| series.samples.is_empty() && series.unit == "u"));
}

#[test]
fn ranges_at_the_edges_of_time_are_no_trouble() {
    let store = store(vec![
        Envelope::gauge("app", "g", 1.0, "").at(i64::MAX),
        Envelope::gauge("app", "g", 2.0, "").at(i64::MIN),
    ]);
    let query = Query::parse(r#"g{source_id="app"}"#, &Limits::default()).unwrap();
    for (start, end) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0), (i64::MAX, i64::MAX), (i64::MIN, i64::MIN)]
    {
        let matchers = query.selects(&Span::instant(0)).remove(0).matchers;
        store
            .select(
                &Select { source_id: "app".to_owned(), matchers, start, end, before: None, labels_only: false },
                LIMITS,
            )
            .unwrap();
    }
}
