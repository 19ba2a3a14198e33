//! Series as a page in Prometheus' text format 0.0.4.
//!
//! A [`Snapshot`] enters; pieces of a page leave, some 64 KiB each, so that no page stands in memory as a whole. One group per family,
//! by name, with its help and type; within a family the order of the store. Samples have no timestamps: a page says what is. Cannot
//! fail: names were checked when the series was made, values are escaped here, and a name has one type
//! ([`Family`](super::series::Family)).

use std::fmt::Write;

use super::labels::Labels;
use super::series::{BUCKETS, Family, QUANTILES, Snapshot, Value};

/// The `Content-Type` of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A piece is handed out when it is this long, in bytes; it is longer by one series at most.
const PIECE: usize = 64 * 1024;

/// A page being written: an iterator of its pieces.
#[derive(Debug)]
pub struct Page {
    snapshot: Snapshot,
    /// Indices of series, family by family.
    order: Vec<u32>,
    /// How many of `order` each family has, in the order of the families.
    counts: Vec<u32>,
    family: usize,
    /// Of `order`, written.
    written: usize,
    /// Of this family, written.
    of_family: u32,
}

impl Page {
    /// Begins a page. O(series).
    pub fn new(snapshot: Snapshot) -> Self {
        let ids = snapshot.families.iter().map(|family| family.id as usize + 1).max().unwrap_or_default();
        let mut place = vec![usize::MAX; ids];
        for (i, family) in snapshot.families.iter().enumerate() {
            place[family.id as usize] = i;
        }
        let mut counts = vec![0; snapshot.families.len()];
        for (id, ..) in &snapshot.series {
            counts[place[*id as usize]] += 1;
        }
        let mut next = Vec::with_capacity(counts.len());
        let mut sum = 0;
        for count in &counts {
            next.push(sum as usize);
            sum += count;
        }
        let mut order = vec![0; snapshot.series.len()];
        for (i, (id, ..)) in snapshot.series.iter().enumerate() {
            let at = &mut next[place[*id as usize]];
            order[*at] = i as u32;
            *at += 1;
        }
        Self { snapshot, order, counts, family: 0, written: 0, of_family: 0 }
    }

    /// The whole page.
    pub fn text(self) -> String {
        self.collect()
    }
}

impl Iterator for Page {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut piece = String::new();
        while piece.len() < PIECE {
            let Some(family) = self.snapshot.families.get(self.family) else { break };
            if self.of_family == self.counts[self.family] {
                (self.family, self.of_family) = (self.family + 1, 0);
                continue;
            }
            if piece.capacity() == 0 {
                piece.reserve(PIECE + PIECE / 16);
            }
            if self.of_family == 0 {
                put_head(&mut piece, family);
            }
            let (_, labels, value) = &self.snapshot.series[self.order[self.written] as usize];
            put_series(&mut piece, family.name(), labels, value);
            self.written += 1;
            self.of_family += 1;
        }
        (!piece.is_empty()).then_some(piece)
    }
}

fn put_head(page: &mut String, family: &Family) {
    page.push_str("# HELP ");
    page.push_str(family.name());
    page.push(' ');
    put_escaped(page, family.help(), false);
    page.push_str("\n# TYPE ");
    page.push_str(family.name());
    page.push(' ');
    page.push_str(family.of().as_str());
    page.push('\n');
}

fn put_series(page: &mut String, name: &str, labels: &Labels, value: &Value) {
    match value {
        Value::Counter(total) => put_count(page, name, "", labels, None, *total),
        Value::Gauge(value) => put_sample(page, name, "", labels, None, *value),
        Value::Histogram(histogram) => {
            let cumulative = histogram.cumulative();
            let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
            for (bound, count) in bounds.zip(cumulative) {
                put_count(page, name, "_bucket", labels, Some(("le", bound)), count);
            }
            put_sample(page, name, "_sum", labels, None, histogram.sum());
            put_count(page, name, "_count", labels, None, histogram.count());
        }
        Value::Summary(summary) => {
            for quantile in QUANTILES {
                put_sample(page, name, "", labels, Some(("quantile", quantile)), summary.quantile(quantile));
            }
            put_sample(page, name, "_sum", labels, None, summary.sum());
            put_count(page, name, "_count", labels, None, summary.count());
        }
    }
}

fn put_sample(page: &mut String, name: &str, suffix: &str, labels: &Labels, extra: Option<(&str, f64)>, value: f64) {
    put_key(page, name, suffix, labels, extra);
    put_float(page, value);
    page.push('\n');
}

/// The same for a whole number, digit by digit.
fn put_count(page: &mut String, name: &str, suffix: &str, labels: &Labels, extra: Option<(&str, f64)>, count: u64) {
    put_key(page, name, suffix, labels, extra);
    writeln!(page, "{count}").expect("writing to a String cannot fail");
}

/// `name{labels} `.
fn put_key(page: &mut String, name: &str, suffix: &str, labels: &Labels, extra: Option<(&str, f64)>) {
    page.push_str(name);
    page.push_str(suffix);
    let mut before = '{';
    for (name, value) in labels.iter() {
        page.push(before);
        page.push_str(name);
        page.push_str("=\"");
        put_escaped(page, value, true);
        page.push('"');
        before = ',';
    }
    if let Some((name, value)) = extra {
        page.push(before);
        page.push_str(name);
        page.push_str("=\"");
        put_float(page, value);
        page.push('"');
        before = ',';
    }
    page.push_str(if before == ',' { "} " } else { " " });
}

/// Escapes backslashes, line feeds and, in the value of a label, quotes.
fn put_escaped(page: &mut String, text: &str, quotes: bool) {
    let special = |byte: &u8| *byte == b'\\' || *byte == b'\n' || (quotes && *byte == b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| special(&byte)) {
        page.push_str(&rest[..at]);
        page.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            _ => "\\\"",
        });
        rest = &rest[at + 1..];
    }
    page.push_str(rest);
}

/// A number as Go reads it: shortest digits that read back the same, with an exponent for what is very large or small.
pub(super) fn put_float(page: &mut String, value: f64) {
    let written = if value.is_nan() {
        write!(page, "NaN")
    } else if value.is_infinite() {
        write!(page, "{}", if value > 0.0 { "+Inf" } else { "-Inf" })
    } else if value != 0.0 && !(1e-5..1e21).contains(&value.abs()) {
        write!(page, "{value:e}")
    } else {
        write!(page, "{value}")
    };
    written.expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests;
