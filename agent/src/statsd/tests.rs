//! Tests of `statsd`.

mod native;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use prost::Message as _;
use proto::raw::Refused;
use proto::v2;
use proto::v2::envelope::Message;
use regex::bytes::Regex;

use super::*;
use crate::gather::Gather;

const NOW: i64 = 1_790_000_000_000_000_000;

fn aggregator(max_series: usize) -> Aggregator {
    Aggregator::new(NonZeroUsize::new(max_series).unwrap())
}

/// One for one socket.
fn collector(settings: Settings) -> Collector {
    Collector::new(State::new(settings, NonZeroUsize::MIN))
}

/// Lines told to be bad.
type Bad = Vec<(Vec<u8>, LineError)>;

/// What a collector makes of one datagram.
fn collect(collector: &mut Collector, datagram: &[u8]) -> (Vec<v2::Envelope>, Refused, Bad) {
    let mut bad = Vec::new();
    collector.add(datagram, NOW, |line, error| bad.push((line.to_vec(), error)));
    let Some((batch, refused)) = collector.take() else { return Default::default() };
    let envelopes = batch.entries().iter().map(|entry| v2::Envelope::decode(batch.envelope(entry)).unwrap());
    (envelopes.collect(), refused, bad)
}

/// The only value of a gauge, with its unit.
fn reading(envelope: &v2::Envelope) -> (&str, &str, f64) {
    let Some(Message::Gauge(gauge)) = &envelope.message else { panic!("no gauge: {envelope:?}") };
    assert_eq!(gauge.metrics.len(), 1);
    let (name, metric) = gauge.metrics.iter().next().unwrap();
    (name, &metric.unit, metric.value)
}

fn value_of(aggregator: &mut Aggregator, line: &str) -> f64 {
    let mut gather = Gather::default();
    aggregator.apply(parse_line(line.as_bytes()).unwrap(), NOW, &mut gather);
    let envelopes = gathered(&mut gather);
    assert_eq!(envelopes.len(), 1);
    reading(&envelopes[0]).2
}

fn gathered(gather: &mut Gather) -> Vec<v2::Envelope> {
    let (batch, _) = gather.take().unwrap();
    batch.entries().iter().map(|entry| v2::Envelope::decode(batch.envelope(entry)).unwrap()).collect()
}

/// Vectors in which hydrant decides otherwise, and what it says to the last line.
const OTHERWISE: [(&str, LineError); 4] = [
    // A name of 2 000 bytes is over the limit.
    ("long-name-2000", LineError::LongName),
    // Tags that are no pair: nothing is sent.
    ("tag-bare", LineError::Tag),
    ("tag-trailing-comma", LineError::Tag),
    ("tag-key-with-dash", LineError::Tag),
];

#[test]
fn the_vectors_captured_on_the_wire_come_out_the_same() {
    let vectors: Vec<serde_json::Value> = include_str!("../../tests/fixtures/statsd.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(vectors.len(), 85);
    // One collector for all, as one process had them all.
    let mut collector = collector(Settings::default());
    let mut otherwise = 0;
    for vector in &vectors {
        let id = vector["id"].as_str().unwrap();
        for step in vector["steps"].as_array().unwrap() {
            let bytes = |text: &serde_json::Value| STANDARD.decode(text.as_str().unwrap()).unwrap();
            let (envelopes, refused, bad) = collect(&mut collector, &bytes(&step["datagram"]));
            if let Some((_, error)) = OTHERWISE.iter().find(|(other, _)| *other == id) {
                assert_eq!((envelopes.len(), bad.len(), bad[0].1, refused.total()), (0, 1, *error, 1), "{id}");
                otherwise += 1;
                continue;
            }
            if matches!(id, "event-datadog" | "service-check") {
                // The original knows neither.
                assert_eq!((envelopes.len(), bad.len()), (1, 0), "{id}");
                continue;
            }
            let expected = step["output"].as_array().unwrap().iter().map(|output| {
                let envelope = v2::Envelope::decode(&*bytes(&output["b64"])).unwrap();
                v2::Envelope { timestamp: NOW, ..envelope }
            });
            assert_eq!(envelopes, expected.collect::<Vec<_>>(), "{id}: {}", step["text"]);
            assert_eq!(refused.total(), bad.len() as u64, "{id}");
        }
    }
    assert_eq!(otherwise, OTHERWISE.len());
}

#[test]
fn a_refused_line_says_what_would_be_right() {
    for (line, error) in [
        (&b"shop.orders"[..], LineError::Form),
        (b"shop.orders:1e3|c", LineError::Form),
        (b"_e{5,4}:title|text", LineError::Form),
        (b"shop.size:5|h", LineError::Type),
        (b"shop.size:5|m", LineError::Type),
        (b"orders:1|c", LineError::NoOrigin),
        (b".orders:1|c", LineError::NoOrigin),
        (b"shop.:1|c", LineError::NoOrigin),
        (b"sh\xffp.orders:1|c", LineError::NotText),
        (b"shop.ord\xc3:1|c", LineError::NotText),
        (b"shop.orders:1|c|#,a:1", LineError::Tag),
    ] {
        assert_eq!(parse_line(line), Err(error), "{}", line.escape_ascii());
    }
    // What is not read need not be text.
    assert!(parse_line(b"\xff.\xff:x.shop.orders:1|c").is_err());
    assert_eq!(parse_line(b"\xff.shop.orders:x.pay.orders:1|c\xff").unwrap().origin, "orders:x");
}

#[test]
fn limits_hold_at_the_limit_and_one_past_it() {
    let line = |origin: usize, name: usize| format!("{}.{}:1|c", "o".repeat(origin), "n".repeat(name)).into_bytes();
    assert_eq!(parse_line(&line(MAX_ORIGIN, MAX_NAME)).unwrap().name.len(), MAX_NAME);
    assert_eq!(parse_line(&line(MAX_ORIGIN + 1, MAX_NAME)), Err(LineError::LongOrigin));
    assert_eq!(parse_line(&line(MAX_ORIGIN, MAX_NAME + 1)), Err(LineError::LongName));
    assert_eq!(parse_line(&line(1, 60_000)), Err(LineError::LongName));

    let tags = |count: usize| format!("a.b:1|c|#{}", vec!["k:v"; count].join(",")).into_bytes();
    assert_eq!(parse_line(&tags(MAX_TAGS)).unwrap().tags.iter().count(), MAX_TAGS);
    assert_eq!(parse_line(&tags(MAX_TAGS + 1)), Err(LineError::ManyTags));
    assert_eq!(parse_line(&tags(10_000)), Err(LineError::ManyTags));

    // Key and value are framed with two bytes and three.
    let tag = |value: usize| format!("a.b:1|c|#k:{}", "v".repeat(value)).into_bytes();
    assert!(parse_line(&tag(MAX_TAG - 6)).is_ok());
    assert_eq!(parse_line(&tag(MAX_TAG - 5)), Err(LineError::LongTag));
    assert_eq!(parse_line(&tag(60_000)), Err(LineError::LongTag));
    fuzz(&tag(MAX_TAG - 6));
}

#[test]
fn a_datagram_gives_up_to_a_thousand_lines_and_counts_the_rest() {
    let mut collector = collector(Settings::default());
    for (count, rest) in [(999, 0), (1_000, 0), (1_001, 1), (8_000, 7_000)] {
        let (envelopes, refused, bad) = collect(&mut collector, "a.b:1|c\n".repeat(count).as_bytes());
        assert_eq!((envelopes.len(), refused.too_many, bad.len()), (count - rest, rest as u32, 0), "{count} lines");
    }
    let blank = format!("{}a.b:1|c", "\n\r\n".repeat(2_000));
    assert_eq!(collect(&mut collector, blank.as_bytes()).0.len(), 1, "blank lines do not count");
}

#[test]
fn a_datagram_over_the_limit_is_refused_whole() {
    let mut collector = collector(Settings::default());
    let mut datagram = b"a.b:1|c\n".to_vec();
    datagram.resize(MAX_DATAGRAM, b'\n');
    assert_eq!(collect(&mut collector, &datagram).0.len(), 1);
    datagram.push(b'\n');
    let (envelopes, refused, _) = collect(&mut collector, &datagram);
    assert_eq!((envelopes.len(), refused.oversize, refused.total()), (0, 1, 1));
}

#[test]
fn a_collector_is_full_before_a_datagram_could_overfill_its_batch() {
    let mut collector = collector(Settings::default());
    let thousand = "a.b:1|c\n".repeat(1_000);
    for _ in 0..9 {
        assert!(!collector.is_full());
        collector.add(thousand.as_bytes(), NOW, |_, _| ());
    }
    collector.add(b"a.b:1|c", NOW, |_, _| ());
    assert!(collector.is_full(), "9 001 and a thousand are more than 10 000");
    assert_eq!(collector.take().unwrap().0.len(), 9_001);
    assert!(!collector.is_full());
    assert!(collector.take().is_none());

    let large = format!("{}.{}:1|g", "o".repeat(MAX_ORIGIN), "n".repeat(MAX_NAME));
    let datagram = vec![large; 84].join("\n");
    let mut datagrams = 0;
    while !collector.is_full() {
        collector.add(datagram.as_bytes(), NOW, |_, _| ());
        datagrams += 1;
    }
    assert!((5..=16).contains(&datagrams), "a MiB of envelopes is enough, {datagrams} datagrams");
}

#[test]
fn past_the_bound_only_the_longest_unused_series_starts_again() {
    let mut aggregator = aggregator(10_000);
    for i in 0..10_000 {
        assert_eq!(value_of(&mut aggregator, &format!("a.n{i}:5|{}", if i % 2 == 0 { "c" } else { "g" })), 5.0);
    }
    assert_eq!(value_of(&mut aggregator, "a.n0:1|c"), 6.0);
    assert_eq!(aggregator.series(), 10_000);
    assert_eq!(value_of(&mut aggregator, "a.one-more:1|c"), 1.0);
    assert_eq!(aggregator.series(), 10_000);
    assert_eq!(value_of(&mut aggregator, "a.n0:1|c"), 7.0, "used since");
    for i in 2..10_000 {
        let kind = if i % 2 == 0 { "c" } else { "g" };
        assert_eq!(value_of(&mut aggregator, &format!("a.n{i}:+1|{kind}")), 6.0, "n{i}");
    }
    assert_eq!(value_of(&mut aggregator, "a.n1:+1|g"), 1.0, "this one was the longest unused");
    assert_eq!(aggregator.series(), 10_000);
}

#[test]
fn a_million_names_stay_within_the_bound() {
    let mut aggregator = aggregator(100);
    let (mut line, mut gather) = (String::new(), Gather::default());
    for i in 0..1_000_000 {
        line.clear();
        write!(line, "a.{i}:1|c").unwrap();
        aggregator.apply(parse_line(line.as_bytes()).unwrap(), NOW, &mut gather);
        if i % 50 == 0 {
            aggregator.apply(parse_line(b"a.kept:1|c").unwrap(), NOW, &mut gather);
            gather.take();
        }
    }
    assert_eq!(aggregator.series(), 100);
    assert_eq!(value_of(&mut aggregator, "a.kept:0|c"), 20_000.0, "what is in use is not forgotten");
}

#[test]
fn timers_take_no_series() {
    let mut aggregator = aggregator(1);
    assert_eq!(value_of(&mut aggregator, "a.n:1|c"), 1.0);
    assert_eq!(value_of(&mut aggregator, "a.t:1|ms"), 1.0);
    assert_eq!(value_of(&mut aggregator, "a.n:1|c"), 2.0);
}

/// A line as it is meant.
#[derive(Clone, Debug)]
struct Model {
    origin: String,
    name: String,
    sign: Option<Sign>,
    number: u32,
    fraction: Option<u16>,
    kind: Kind,
    rate: Option<u8>,
    tags: Vec<(String, String)>,
    rest: &'static str,
}

fn model() -> impl Strategy<Value = Model> {
    (
        ("[a-zA-Zö0-9 _:/-]{1,20}", "[a-zA-Z0-9ß.]([a-zA-Z0-9ß_. @/-]{0,20})"),
        (prop::option::of(prop::sample::select(&[Sign::Plus, Sign::Minus][..])), any::<u32>(), any::<Option<u16>>()),
        prop::sample::select(&[Kind::Counter, Kind::Gauge, Kind::Timer][..]),
        prop::option::of(1_u8..),
        prop::collection::vec(("[A-Za-z0-9_]{0,8}", "[A-Za-z0-9_]{0,8}"), 0..6),
        prop::sample::select(&["", " ", "|", "|@2", "|#a:b", "-x", ".", ":1|c"][..]),
    )
        .prop_map(|((origin, name), (sign, number, fraction), kind, rate, tags, rest)| Model {
            origin,
            name,
            sign,
            number,
            fraction,
            kind,
            rate,
            tags,
            rest,
        })
}

impl Model {
    fn line(&self) -> String {
        let mut line = format!("{}.{}:", self.origin, self.name);
        line += match self.sign {
            None => "",
            Some(Sign::Plus) => "+",
            Some(Sign::Minus) => "-",
        };
        line += &self.number();
        line += match self.kind {
            Kind::Counter => "|c",
            Kind::Gauge => "|g",
            Kind::Timer => "|ms",
        };
        if let Some(rate) = self.rate {
            write!(line, "|@0.{rate:03}").unwrap();
        }
        if !self.tags.is_empty() {
            let tags: Vec<_> = self.tags.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            write!(line, "|#{}", tags.join(",")).unwrap();
            // Anything else could belong to the last tag.
            line += " ";
        } else if self.rest == "|@2" || self.rest == "|#a:b" || (self.rest == "." && self.rate.is_some()) {
            line += "!";
        }
        line + self.rest
    }

    fn number(&self) -> String {
        match self.fraction {
            None => self.number.to_string(),
            Some(fraction) => format!("{}.{fraction}", self.number),
        }
    }
}

/// The grammar of the contract, as an expression.
fn grammar() -> Regex {
    let number = r"([0-9]+(?:\.[0-9]+)?)";
    Regex::new(&format!(r"(?s-u)([^.]+)\.([^:]+):([+-])?{number}\|(ms|g|c)(?:\|@{number})?(?:\|#([A-Za-z0-9_:,]*))?"))
        .unwrap()
}

#[test]
fn the_fuzz_seeds_keep_what_is_promised() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/statsd_datagram");
    let mut count = 0;
    for seed in std::fs::read_dir(&seeds).unwrap() {
        fuzz(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 100, "{count} seeds in {}", seeds.display());
}

proptest! {
    /// Whatever arrives, every line of it is an envelope that all hops take, or counted.
    #[test]
    fn any_bytes_are_taken_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&bytes);
    }

    /// The same for text that looks like statsd.
    #[test]
    fn any_near_lines_are_taken_or_counted(text in r"([a-z.]{0,4}[.:|]|[0-9+.-]{1,3}|\|(c|g|ms)|\|@|\|#|,|\n|\xc3){0,60}") {
        fuzz(text.as_bytes());
    }

    /// What was meant is what is read.
    #[test]
    fn a_line_reads_as_it_was_meant(model in model()) {
        let line = model.line();
        let metric = parse_line(line.as_bytes()).unwrap();
        let number: f64 = model.number().parse().unwrap();
        let value = model.rate.map_or(number, |rate| number / format!("0.{rate:03}").parse::<f64>().unwrap());
        prop_assert_eq!((metric.origin, metric.name), (&*model.origin, &*model.name));
        prop_assert_eq!((metric.kind, metric.sign, metric.value), (model.kind, model.sign, value));
        let tags: Vec<_> = metric.tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        prop_assert_eq!(&tags, &model.tags);

        let mut gather = Gather::default();
        aggregator(1).apply(metric, NOW, &mut gather);
        let envelope = gathered(&mut gather).remove(0);
        prop_assert_eq!((envelope.timestamp, &*envelope.source_id, &*envelope.instance_id), (NOW, &*model.origin, ""));
        let written: BTreeMap<_, _> = envelope.tags.clone().into_iter().collect();
        let mut meant = BTreeMap::from([("origin".to_owned(), model.origin.clone())]);
        meant.extend(model.tags.clone());
        prop_assert_eq!(written, meant);
        let signed = if model.sign == Some(Sign::Minus) && model.kind != Kind::Timer { -value } else { value };
        prop_assert_eq!(reading(&envelope), (&*model.name, model.kind.unit(), signed));
    }

    /// The parser finds what the grammar's leftmost match finds.
    #[test]
    fn the_parser_and_the_grammar_agree(
        parts in prop::collection::vec(
            prop::sample::select(&["a", "b", ".", ".", ":", ":", "1", "20", "|", "|c", "|g", "|ms", "|@", "0.5", "|#", "k:v", ",", "+", "-", " "][..]),
            0..16,
        ),
        around in prop::option::of((0_usize..30, model())),
    ) {
        // A line that is right, with a part of another one put in somewhere; or parts alone.
        let mut line = parts.concat();
        if let Some((at, model)) = around {
            let whole = model.line();
            let at = (0..=at.min(whole.len())).rev().find(|&at| whole.is_char_boundary(at)).unwrap();
            line = format!("{}{line}{}", &whole[..at], &whole[at..]);
        }
        let Some(found) = grammar().captures(line.as_bytes()) else {
            prop_assert!(parse_line(line.as_bytes()).is_err(), "{line}");
            return Ok(());
        };
        let group = |i: usize| found.get(i).map(|group| std::str::from_utf8(group.as_bytes()).unwrap());
        let tags: Vec<_> = group(7).unwrap_or_default().split(',').collect();
        let tags = if tags == [""] { Vec::new() } else { tags };
        if tags.iter().any(|tag| !tag.contains(':')) {
            prop_assert_eq!(parse_line(line.as_bytes()), Err(LineError::Tag), "{}", line);
            return Ok(());
        }
        let metric = parse_line(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let number = |i: usize| group(i).map(|number| number.parse::<f64>().unwrap());
        let value = number(4).unwrap() / number(6).unwrap_or(1.0);
        prop_assert_eq!((Some(metric.origin), Some(metric.name)), (group(1), group(2)), "{}", line);
        prop_assert!(metric.value == value || (metric.value.is_nan() && value.is_nan()), "{}", line);
        prop_assert_eq!(metric.sign, group(3).map(|sign| if sign == "-" { Sign::Minus } else { Sign::Plus }), "{}", line);
        prop_assert!(metric.kind.unit().starts_with(group(5).unwrap()), "{}", line);
        let read: Vec<_> = metric.tags.iter().collect();
        let meant = tags.iter().map(|tag| tag.split(':')).map(|mut pieces| (pieces.next().unwrap(), pieces.next().unwrap()));
        prop_assert_eq!(read, meant.collect::<Vec<_>>(), "{}", line);
    }
}
