//! `histogram_quantile` over classic histograms: cumulative counts by the label `le`.

use std::collections::hash_map::Entry;

use super::column::{Column, Map, merge, present};
use super::{Eval, EvalError};
use crate::labels::Labels;
use crate::span::Line;
use crate::tree::Node;

/// The label with a bucket's upper bound.
const BOUND: &str = "le";

/// An upper bound and how many observations are not above it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

impl Eval<'_> {
    pub(super) fn histogram_quantile(&self, q: &Node, buckets: &Node, line: Line) -> Result<Vec<Column>, EvalError> {
        let q = self.scalar(q, line)?;
        let columns = self.vector(buckets, line)?;
        let (mut histograms, mut by_labels): (Vec<(Labels, Vec<_>)>, Map<_, _>) = (Vec::new(), Map::default());
        for column in &columns {
            self.meter.work(128)?;
            let Some(bound) = column.labels.get(BOUND).and_then(|bound| bound.parse::<f64>().ok()) else { continue };
            let labels = column.labels.without(|name| name == BOUND);
            self.meter.bytes(labels.bytes())?;
            let histogram = match by_labels.entry(labels.clone()) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => {
                    histograms.push((labels, Vec::new()));
                    *entry.insert(histograms.len() - 1)
                }
            };
            histograms[histogram].1.push((bound, column));
        }
        let mut quantiles = Vec::with_capacity(histograms.len());
        let mut buckets = Vec::new();
        for (labels, mut members) in histograms {
            members.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut result = Column::new(&self.meter, labels.without_name(), line.count)?;
            for (row, value) in result.values.iter_mut().enumerate() {
                self.meter.work(8 * members.len())?;
                buckets.clear();
                let there = members.iter().filter_map(|(bound, column)| Some((*bound, present(column.values[row])?)));
                buckets.extend(there.map(|(bound, count)| Bucket { bound, count }));
                if !buckets.is_empty() {
                    *value = bucket_quantile(q[row], &mut buckets);
                }
            }
            quantiles.push(result);
        }
        merge(&self.meter, quantiles)
    }
}

/// The quantile of a histogram whose buckets are sorted by bound: within a bucket observations are taken to be spread evenly.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return f64::NAN;
    }
    // Two spellings of one bound make one bucket.
    buckets.dedup_by(|later, kept| {
        let same = later.bound == kept.bound;
        if same {
            kept.count += later.count;
        }
        same
    });
    // Counts of different scrapes may fall where they should not.
    let mut most = buckets[0].count;
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count > most {
            most = bucket.count;
        } else if bucket.count < most {
            bucket.count = most;
        }
    }
    let last = buckets.len() - 1;
    if last == 0 || buckets[last].count == 0.0 {
        return f64::NAN;
    }
    let rank = q * buckets[last].count;
    let found =
        buckets[..last].partition_point(|bucket| bucket.count.partial_cmp(&rank).is_none_or(|order| order.is_lt()));
    if found == last {
        return buckets[last - 1].bound;
    }
    let Bucket { bound: end, count } = buckets[found];
    if found == 0 {
        return if end <= 0.0 { end } else { end * (rank / count) };
    }
    let Bucket { bound: start, count: below } = buckets[found - 1];
    start + (end - start) * ((rank - below) / (count - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(q: f64, buckets: &[(f64, f64)]) -> f64 {
        let mut buckets = buckets.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect();
        bucket_quantile(q, &mut buckets)
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn quantiles_interpolate_within_buckets() {
        let buckets = [(1.0, 10.0), (2.0, 30.0), (4.0, 40.0), (INF, 40.0)];
        assert_eq!([0.0, 0.125, 0.5, 0.75, 1.0].map(|q| quantile(q, &buckets)), [0.0, 0.5, 1.5, 2.0, 4.0]);
        assert_eq!([-1.0, 2.0].map(|q| quantile(q, &buckets)), [-INF, INF]);
        assert_eq!(quantile(0.9, &[(-2.0, 5.0), (INF, 5.0)]), -2.0);
        assert_eq!(quantile(1.0, &[(1.0, 5.0), (INF, 6.0)]), 1.0);
    }

    #[test]
    fn broken_histograms_are_mended_or_give_nan() {
        assert_eq!(quantile(0.5, &[(1.0, 5.0), (1.0, 5.0), (2.0, 4.0), (INF, 10.0)]), 0.5);
        for buckets in [&[(INF, 5.0)][..], &[(1.0, 5.0)], &[(1.0, 0.0), (INF, 0.0)], &[]] {
            assert!(quantile(0.5, buckets).is_nan(), "{buckets:?}");
        }
    }
}
