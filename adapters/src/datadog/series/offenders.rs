//! Who has more series than there is room for.
//!
//! Series that found no room enter; a short list of offenders leaves, for a log line now and then. Keeps at most [`OFFENDERS`] of them.

use std::collections::{HashMap, HashSet};

use crate::prometheus::names::cut;
use crate::prometheus::series::Offender;

/// Offenders that are kept until they are asked for; further ones are counted only.
pub const OFFENDERS: usize = 16;
/// Series that are looked at to find an offender's tag.
const LOOKED_AT: usize = 1000;

/// The offenders since the last report.
#[derive(Debug, Default)]
pub(super) struct Offenders {
    by_name: HashMap<(String, String), u64>,
}

impl Offenders {
    pub(super) fn record(&mut self, metric: &str, source_id: &[u8]) {
        let source_id = String::from_utf8_lossy(&source_id[..source_id.len().min(256)]).into_owned();
        let key = (cut(metric, 256).to_owned(), source_id);
        if self.by_name.len() < OFFENDERS || self.by_name.contains_key(&key) {
            *self.by_name.entry(key).or_default() += 1;
        }
    }

    /// Takes all, most series first. `tags` gives the rendered tags of the series of a metric and source.
    pub(super) fn take<'a, T: Iterator<Item = &'a [u8]>>(&mut self, tags: impl Fn(&str, &str) -> T) -> Vec<Offender> {
        let taken = std::mem::take(&mut self.by_name).into_iter();
        let mut offenders: Vec<Offender> = taken
            .map(|((metric, source_id), refused)| {
                let label = busiest_key(tags(&metric, &source_id));
                Offender { metric, source_id, refused, label }
            })
            .collect();
        offenders.sort_by(|one, other| other.refused.cmp(&one.refused).then_with(|| one.metric.cmp(&other.metric)));
        offenders
    }
}

/// The key with most distinct values; the first by name of several.
fn busiest_key<'a>(series: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut values: HashMap<String, HashSet<String>> = HashMap::new();
    for tags in series.take(LOOKED_AT) {
        // Rendered as JSON, and seldom read: only for a report.
        let tags: Vec<String> = serde_json::from_slice(tags).unwrap_or_default();
        for (key, value) in tags.iter().filter_map(|tag| tag.split_once(':')) {
            values.entry(key.to_owned()).or_default().insert(value.to_owned());
        }
    }
    let busiest = values.iter().max_by(|(one, a), (other, b)| a.len().cmp(&b.len()).then_with(|| other.cmp(one)));
    busiest.map(|(key, _)| key.clone())
}
