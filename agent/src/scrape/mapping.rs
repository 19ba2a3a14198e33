//! Samples to envelopes (contract: agents §8.3). Pure.
//!
//! Gauges and what has no type become gauges, with the label `unit` as their unit; counters become counters with their total; of
//! histograms and summaries the sum is a gauge, count and buckets are counters, quantiles gauges. Labels become tags, over those of the
//! configuration. A label `source_id` is the source.

use std::collections::BTreeMap;

use proto::reason::Reason;

use super::exposition::{Kind, Page, Sample, number};
use super::go;
use crate::gather::Gather;

/// What a target's metrics are labelled with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The source; empty for the default.
    pub source_id: String,
    /// The source of what has none.
    pub default_source_id: String,
    /// The instance of all.
    pub instance_id: String,
    /// Labels that metrics have unless they have their own.
    pub labels: BTreeMap<String, String>,
}

/// Gathers an envelope for each sample, at `now_ns` nanoseconds since the Unix epoch; `full` is called whenever `gather` should be emptied. A
/// count that is below zero or no number becomes nothing and is counted.
pub fn map(page: &Page<'_>, target: &Labels, now_ns: i64, gather: &mut Gather, mut full: impl FnMut(&mut Gather)) {
    let (mut bound, mut name) = (String::new(), String::new());
    for sample in page.samples() {
        put(page, sample, target, now_ns, gather, (&mut bound, &mut name));
        if gather.is_full() {
            full(gather);
        }
    }
}

fn put(
    page: &Page<'_>,
    sample: &Sample<'_>,
    target: &Labels,
    now_ns: i64,
    gather: &mut Gather,
    (bound, name): (&mut String, &mut String),
) {
    let counts = matches!(sample.kind, Kind::Counter | Kind::Count | Kind::Bucket);
    let total = go::count(sample.value);
    if counts && total.is_none() {
        return gather.refuse(Reason::DecodeError);
    }
    let labels = page.labels(sample);
    let own = |key: &str| labels.iter().find(|(label, _)| *label == key).map(|(_, value)| value.as_ref());
    let source = match own("source_id") {
        Some("") => &target.default_source_id,
        Some(source) => source,
        None if target.source_id.is_empty() => &target.default_source_id,
        None => &target.source_id,
    };
    let is_level = sample.kind == Kind::Gauge;
    let unit = if is_level { own("unit").or_else(|| target.labels.get("unit").map(String::as_str)) } else { None };
    let left_out = |key: &str| is_level && key == "unit";
    let mut draft = gather.envelope(source, &target.instance_id, now_ns);
    for (key, value) in &target.labels {
        if own(key).is_none() && !left_out(key) {
            draft.tag(key, value);
        }
    }
    for (key, value) in labels {
        let is_bound = match sample.kind {
            Kind::Bucket => *key == "le",
            Kind::Quantile => *key == "quantile",
            // Told of a bucket's or quantile's group, which lacks them.
            Kind::Sum | Kind::Count => {
                if (*key == "le" || *key == "quantile") && sample.missing {
                    continue;
                }
                false
            }
            _ => false,
        };
        if *key == "source_id" || left_out(key) {
        } else if is_bound && let Some(value) = number(value) {
            go::shortest(value, bound);
            draft.tag(key, bound);
        } else {
            draft.tag(key, value);
        }
    }
    let name = full_name(sample, name);
    match total.filter(|_| counts) {
        Some(total) => draft.counter(name, 0, total),
        None => draft.gauge([(name, unit.unwrap_or(sample.unit), sample.value)]),
    }
}

/// The sample's name; that of a sum or count that the page lacks is made.
fn full_name<'a>(sample: &'a Sample<'_>, scratch: &'a mut String) -> &'a str {
    if !sample.missing {
        return sample.name;
    }
    scratch.clear();
    scratch.extend([sample.name, if sample.kind == Kind::Sum { "_sum" } else { "_count" }]);
    scratch
}
