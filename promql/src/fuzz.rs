//! The property that the fuzz target holds on arbitrary bytes, and that a test replays over its seed corpus.

use std::cell::Cell;

use crate::eval::EvalError;
use crate::labels::{Labels, NAME};
use crate::limits::Limits;
use crate::span::Span;
use crate::tree::Query;
use crate::value::{Sample, Series, Value};

/// Takes `bytes` as a query and evaluates it at one time and over a range.
///
/// # Panics
/// When what is read does not print as something that reads the same, or when an answer is beyond the limits.
pub fn query(bytes: &[u8]) {
    let limits = Limits { points: 100, samples: 20_000, bytes: 4 << 20, ..Limits::default() };
    let text = String::from_utf8_lossy(bytes);
    let Ok(query) = Query::parse(&text, &limits) else { return };
    let printed = query.to_string();
    // What is printed may be longer than what was read.
    let again = Query::parse(&printed, &Limits { query_bytes: 1 << 20, ..limits });
    match again {
        Ok(again) => assert_eq!(again.to_string(), printed),
        Err(error) => assert!(printed.contains("source_id!~"), "{printed}: {error}"),
    }
    let spans = [Span::instant(600_000), Span::range(0, 900_000, 30_000, &limits).expect("within the limits")];
    for span in spans {
        let data = query.selects(&span).iter().map(|_| series()).collect();
        let asked = Cell::new(0);
        let answer = query.evaluate(&span, data, &limits, &|| {
            asked.set(asked.get() + 1);
            asked.get() > 200
        });
        match answer {
            Ok(Value::Matrix(series)) => {
                let samples: usize = series.iter().map(|series| series.samples.len()).sum();
                assert!(samples <= limits.samples, "{samples} samples of {printed}");
            }
            Ok(_) => {}
            Err(error) => assert!(error != EvalError::Cancelled || asked.get() > 200, "{printed}"),
        }
    }
}

/// Counters with resets, buckets, and values that are no numbers.
fn series() -> Vec<Series> {
    let one = |i: usize| {
        let bound = ["1", "2", "+Inf"][i % 3];
        let labels = [(NAME, ["x", "y"][i % 2]), ("source_id", "s"), ("a", ["1", "2", "3"][i / 4]), ("le", bound)];
        let value = |n: usize| if i == 0 && n == 7 { f64::NAN } else { ((n * (i + 3)) % 17) as f64 - 2.0 };
        let samples = (0..60).map(|n| Sample { at: n as i64 * 15_000, value: value(n) });
        Series { labels: Labels::new(labels), samples: samples.collect() }
    };
    (0..12).map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds_the_property() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/promql_query");
        let mut replayed = 0;
        for seed in std::fs::read_dir(seeds).expect("the corpus is part of the repository") {
            let seed = seed.expect("a seed").path();
            super::query(&std::fs::read(seed).expect("a seed"));
            replayed += 1;
        }
        assert!(replayed >= 20, "only {replayed} seeds were replayed");
    }
}
