//! Tests of `exposition`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use prost::Message;
use proto::v2;

use super::*;
use crate::prometheus::names::Naming;
use crate::prometheus::series::{Options, Store};

const NOW: i64 = 1_700_000_000_000_000_000;

fn page(envelopes: &[v2::Envelope], naming: Naming) -> String {
    let mut store = Store::new(&Options { naming, ..Options::default() });
    for envelope in envelopes {
        store.put(&envelope.encode_to_vec(), NOW, |_, _| {});
    }
    Page::new(store.snapshot()).text()
}

#[test]
fn contract_8_1_a_page_is_text_format_0_0_4() {
    let timer = |milliseconds: i64| v2::Envelope::timer("db", "query", 0, milliseconds * 1_000_000);
    let text = page(
        &[
            v2::Envelope::gauge("b", "temp", f64::NAN, "K"),
            v2::Envelope::counter("a", "requests", 3).tag("path", "C:\\x \"y\"\nz"),
            v2::Envelope::gauge("a", "temp", f64::INFINITY, "K"),
            v2::Envelope::gauge("c", "temp", -1.5e-9, ""),
            timer(4),
            timer(250),
            timer(12_000),
        ],
        Naming::Plain,
    );
    let expected = r#"# HELP query_duration_seconds Timer envelopes: from start to stop.
# TYPE query_duration_seconds histogram
query_duration_seconds_bucket{source_id="db",le="0.005"} 1
query_duration_seconds_bucket{source_id="db",le="0.01"} 1
query_duration_seconds_bucket{source_id="db",le="0.025"} 1
query_duration_seconds_bucket{source_id="db",le="0.05"} 1
query_duration_seconds_bucket{source_id="db",le="0.1"} 1
query_duration_seconds_bucket{source_id="db",le="0.25"} 2
query_duration_seconds_bucket{source_id="db",le="0.5"} 2
query_duration_seconds_bucket{source_id="db",le="1"} 2
query_duration_seconds_bucket{source_id="db",le="2.5"} 2
query_duration_seconds_bucket{source_id="db",le="5"} 2
query_duration_seconds_bucket{source_id="db",le="10"} 2
query_duration_seconds_bucket{source_id="db",le="+Inf"} 3
query_duration_seconds_sum{source_id="db"} 12.254
query_duration_seconds_count{source_id="db"} 3
# HELP requests_total Counter envelopes: the total.
# TYPE requests_total counter
requests_total{path="C:\\x \"y\"\nz",source_id="a"} 3
# HELP temp Gauge envelopes: the newest value.
# TYPE temp gauge
temp{source_id="b",unit="K"} NaN
temp{source_id="a",unit="K"} +Inf
temp{source_id="c"} -1.5e-9
"#;
    assert_eq!(text, expected);
    assert_eq!(page(&[], Naming::Plain), "");
}

#[test]
fn a_name_of_two_types_is_two_families() {
    let text = page(
        &[
            v2::Envelope::counter("a", "x", 1),
            v2::Envelope::gauge("a", "x_total", 2.0, ""),
            v2::Envelope::gauge("a", "y", 0.0, ""),
        ],
        Naming::Plain,
    );
    let families = parse(&text).unwrap();
    let types: Vec<_> = families.iter().map(|(name, family)| (name.as_str(), family.of.as_str())).collect();
    assert_eq!(types, [("x_total", "counter"), ("x_total_gauge", "gauge"), ("y", "gauge")]);
}

#[test]
fn a_long_page_comes_in_pieces() {
    let envelopes: Vec<_> =
        (0..3000).map(|i| v2::Envelope::gauge(format!("source-{i}"), "g", f64::from(i), "")).collect();
    let mut store = Store::new(&Options::default());
    for envelope in &envelopes {
        store.put(&envelope.encode_to_vec(), NOW, |_, _| {});
    }
    let pieces: Vec<String> = Page::new(store.snapshot()).collect();
    assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() < PIECE + 4096 && piece.ends_with('\n')));
    assert_eq!(parse(&pieces.concat()).unwrap()["g"].samples.len(), 3000);
}

/// Labels: names and values.
type Pairs = Vec<(String, String)>;

/// A family as the parser of this test reads it.
#[derive(Debug, Default)]
struct Read {
    of: String,
    /// By name and labels, as text.
    samples: BTreeMap<(String, Pairs), f64>,
}

/// Reads a page strictly: groups in one piece, known types, names that fit, labels once, no sample twice, whole histograms.
fn parse(text: &str) -> Result<BTreeMap<String, Read>, String> {
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let (mut current, mut helped) = (String::new(), String::new());
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("no line feed at the end".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').ok_or(line)?.0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').ok_or(line)?;
            if name != helped
                || families.contains_key(name)
                || !["counter", "gauge", "histogram", "summary"].contains(&of)
            {
                return Err(format!("bad type: {line}"));
            }
            let suffixes: &[&str] = match of {
                "histogram" => &["", "_bucket", "_sum", "_count"],
                "summary" => &["", "_sum", "_count"],
                _ => &[""],
            };
            for suffix in suffixes {
                if !names.insert(format!("{name}{suffix}")) {
                    return Err(format!("{name}{suffix} is in two families"));
                }
            }
            current = name.to_owned();
            families.insert(current.clone(), Read { of: of.to_owned(), ..Read::default() });
        } else {
            let family = families.get_mut(&current).ok_or(line)?;
            let (name, labels, value) = sample(line).ok_or(line)?;
            let suffix = name.strip_prefix(&current).ok_or(line)?;
            let fits = match family.of.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                "summary" => ["", "_sum", "_count"].contains(&suffix),
                _ => suffix.is_empty(),
            };
            if !fits || family.samples.insert((name, labels), value).is_some() {
                return Err(format!("a sample twice, or in the wrong family: {line}"));
            }
        }
    }
    for (name, family) in &families {
        if family.of == "histogram" {
            check_histogram(name, family)?;
        }
    }
    Ok(families)
}

fn check_histogram(name: &str, family: &Read) -> Result<(), String> {
    let mut buckets: BTreeMap<Pairs, Vec<(f64, f64)>> = BTreeMap::new();
    for ((sample, labels), value) in &family.samples {
        if sample.ends_with("_bucket") {
            let le =
                labels.iter().find(|(name, _)| name == "le").ok_or("no le")?.1.replace("+Inf", "inf").parse().unwrap();
            let others = labels.iter().filter(|(name, _)| name != "le").cloned().collect();
            buckets.entry(others).or_default().push((le, *value));
        }
    }
    for (labels, mut of) in buckets {
        of.sort_by(|one, other| one.0.total_cmp(&other.0));
        let count = family.samples.get(&(format!("{name}_count"), labels.clone())).ok_or("no count")?;
        let sum = family.samples.contains_key(&(format!("{name}_sum"), labels));
        if !sum || of.len() != 12 || of[11] != (f64::INFINITY, *count) || !of.is_sorted_by(|a, b| a.1 <= b.1) {
            return Err(format!("broken histogram: {name} {of:?}"));
        }
    }
    Ok(())
}

fn sample(line: &str) -> Option<(String, Pairs, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let valid = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut labels: Pairs = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !valid(label) || value.is_empty() || labels.iter().any(|(other, _)| other == label) {
                return None;
            }
            labels.push((label.to_owned(), value));
            match after.split_at_checked(1)? {
                (",", after) => inside = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => return None,
            }
        }
    }
    // All but what a bucket or quantile adds is sorted.
    let own = labels.iter().map(|(name, _)| name).filter(|name| !["le", "quantile"].contains(&name.as_str()));
    let value = rest.strip_prefix(' ')?.replace("Inf", "inf").parse().ok()?;
    (valid(name) && own.is_sorted()).then(|| (name.to_owned(), labels, value))
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

fn envelope() -> impl Strategy<Value = v2::Envelope> {
    // Few distinct names, so that they clash.
    let name = prop_oneof!["[a-c]{1,2}", "[a-b](_total|_sum|_count|_bucket|_gauge|_duration_seconds)", ".{0,8}"];
    let tags = prop::collection::vec(("[a-cA-C_.é-]{0,3}|le|quantile|unit|source_id", ".{0,4}"), 0..6);
    let kind = (0..4u8, any::<f64>(), any::<u64>(), prop_oneof![Just("http".to_owned()), "[a-b]{1}"]);
    (name, tags, kind, "[a-b]{0,1}").prop_map(|(name, tags, (kind, float, int, timer), source)| {
        let envelope = match kind {
            0 => v2::Envelope::counter(source, name, int),
            1 => v2::Envelope::gauge(source, name, float, if int % 2 == 0 { "" } else { "bytes" }),
            2 => v2::Envelope::timer(source, timer, 0, int.cast_signed() >> 32)
                .tag("content_length", (int % 1000).to_string()),
            _ => v2::Envelope::timer(source, name, 0, int.cast_signed()),
        };
        tags.into_iter().fold(envelope, |envelope, (key, value)| envelope.tag(key, value))
    })
}

proptest! {
    /// Whatever the envelopes, the page parses.
    #[test]
    fn every_page_parses(envelopes in prop::collection::vec(envelope(), 0..60)) {
        let firehose = |retro_compat| Naming::FirehoseExporter { retro_compat, enable_delta: true };
        for naming in [Naming::Plain, firehose(true), firehose(false)] {
            let text = page(&envelopes, naming);
            if let Err(error) = parse(&text) {
                return Err(TestCaseError::fail(format!("{error}\n{text}")));
            }
        }
    }
}
