//! How many series there may be, and who wants more.
//!
//! Series that found no room enter; a short list of offenders leaves, for a log line now and then. Keeps at most [`OFFENDERS`] of them.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::Series;
use crate::prometheus::names;

/// How much a store holds. What finds no room is dropped and counted; what is there stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series as Prometheus counts them: a histogram is 14, a summary 6. 100 000.
    pub series: usize,
    /// The same of one metric name and one `source_id`. 10 000.
    pub series_per_source: usize,
    /// Bytes of the labels of all series. 128 MiB.
    pub label_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 100_000, series_per_source: 10_000, label_bytes: 128 << 20 }
    }
}

/// Offenders that are kept until they are asked for; further ones are counted only.
pub const OFFENDERS: usize = 16;
/// Series that are looked at to find an offender's label.
const LOOKED_AT: usize = 1000;

/// A source whose metric has had more series than there is room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// The name of the metric.
    pub metric: String,
    /// Its source.
    pub source_id: String,
    /// Series that found no room since the last report; each may be counted more than once.
    pub refused: u64,
    /// The label with most distinct values among up to 1000 of its series that are there. `None` when there are none.
    pub label: Option<String>,
}

/// The offenders since the last report.
#[derive(Debug, Default)]
pub(super) struct Offenders {
    by_name: HashMap<(String, String), u64>,
}

impl Offenders {
    pub(super) fn record(&mut self, metric: &str, source_id: &[u8]) {
        let source_id = String::from_utf8_lossy(&source_id[..source_id.len().min(256)]).into_owned();
        let key = (names::cut(metric, 256).to_owned(), source_id);
        if self.by_name.len() < OFFENDERS || self.by_name.contains_key(&key) {
            *self.by_name.entry(key).or_default() += 1;
        }
    }

    /// Takes all, most series first. Costs a look at every series for each of them.
    pub(super) fn take<'a>(&mut self, series: &(impl Iterator<Item = &'a Series> + Clone)) -> Vec<Offender> {
        let taken = std::mem::take(&mut self.by_name).into_iter();
        let mut offenders: Vec<Offender> = taken
            .map(|((metric, source_id), refused)| {
                let of = |series: &&Series| {
                    series.name() == metric && series.labels.iter().any(|label| label == ("source_id", &source_id))
                };
                let label = busiest_label(series.clone().filter(of));
                Offender { metric, source_id, refused, label }
            })
            .collect();
        offenders.sort_by(|one, other| other.refused.cmp(&one.refused).then_with(|| one.metric.cmp(&other.metric)));
        offenders
    }
}

/// The label with most distinct values; the first by name of several.
fn busiest_label<'a>(series: impl Iterator<Item = &'a Series>) -> Option<String> {
    let mut values: HashMap<&str, HashSet<&str, RandomState>, RandomState> = HashMap::default();
    for series in series.take(LOOKED_AT) {
        for (name, value) in series.labels.iter() {
            values.entry(name).or_default().insert(value);
        }
    }
    let busiest = values.iter().max_by(|(one, a), (other, b)| a.len().cmp(&b.len()).then_with(|| other.cmp(one)));
    busiest.map(|(name, _)| (*name).to_owned())
}
