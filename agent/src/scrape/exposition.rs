//! A page of metrics, read (Prometheus text format 0.0.4, OpenMetrics 1.0). Pure.
//!
//! What enters: a page. What leaves: its samples, each with what it is a part of, or the first line that is wrong. Names and labels
//! borrow from the page; only labels with escapes are copied.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use memchr::{memchr, memchr2};
use proto::raw::source_hash;

/// Labels of one sample: each is compared with those before it, and an envelope has no more tags.
const MAX_LABELS: usize = 128;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0, which ends with `# EOF`.
    OpenMetrics,
}

/// What a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A level, of a gauge or of a metric without a type.
    Gauge,
    /// A count that only grows.
    Counter,
    /// A histogram's or summary's sum.
    Sum,
    /// A histogram's or summary's count.
    Count,
    /// A histogram's bucket.
    Bucket,
    /// A summary's quantile.
    Quantile,
    /// A part of a gauge histogram, or an info or a state of a state set: a level of its own.
    Part,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// As it stands in its line.
    pub name: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Its value.
    pub value: f64,
    /// The unit that the page says its family has.
    pub unit: &'a str,
    /// Not on the page: the sum or count, of zero, of a family whose name this is.
    pub missing: bool,
    labels: Range<u32>,
}

/// The samples of a page.
#[derive(Clone, Debug, Default)]
pub struct Page<'a> {
    samples: Vec<Sample<'a>>,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Histograms and summaries, by family and labels, that lack their sum or count: told as zero.
    missing: Vec<Sample<'a>>,
}

/// Why a page gives nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PageError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not text.
    #[error("it is not UTF-8")]
    NotText,
    /// The page was cut, perhaps.
    #[error("the page ends without a line feed; it may have been cut")]
    Cut,
    /// The page was cut, perhaps.
    #[error("the page ends without # EOF; it may have been cut")]
    NoEof,
    /// Something after the end.
    #[error("something follows # EOF")]
    AfterEof,
    /// A web page.
    #[error("it looks like HTML; is this the address of a web page?")]
    Html,
    /// A name that is none.
    #[error("a metric's name is wanted, of letters, digits, _ and :")]
    Name,
    /// Labels that are none.
    #[error("labels are wanted, as in {{name=\"value\"}}")]
    Labels,
    /// The same label again.
    #[error("a label stands there twice")]
    LabelTwice,
    /// More labels than a sample may have.
    #[error("it has more than {MAX_LABELS} labels")]
    ManyLabels,
    /// A value that is none.
    #[error("a number is wanted")]
    Value,
    /// Something after the value.
    #[error("nothing but a time may follow the value")]
    Rest,
    /// A type that is none.
    #[error("an unknown type")]
    Type,
    /// A second type or help, or a type after samples.
    #[error("a second TYPE or HELP of this metric, or one after its samples")]
    Again,
    /// A bucket without `le`, a quantile without `quantile`.
    #[error("a bucket's le or a summary's quantile is wanted, and a number in it")]
    Bound,
    /// More than may be.
    #[error("the page has more series than agent.scrape.max_series")]
    TooMany,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Gauge,
    Counter,
    Histogram,
    Summary,
    GaugeHistogram,
    Info,
    StateSet,
}

struct Parser<'a> {
    format: Format,
    max: usize,
    page: Page<'a>,
    types: HashMap<&'a str, Family, foldhash::fast::RandomState>,
    units: HashMap<&'a str, &'a str, foldhash::fast::RandomState>,
    helps: HashSet<&'a str, foldhash::fast::RandomState>,
    /// Names that have samples.
    sampled: HashSet<&'a str, foldhash::fast::RandomState>,
    /// Of histograms and summaries: which of sum and count came, by family and labels.
    groups: HashMap<(&'a str, u64), Group, foldhash::fast::RandomState>,
    order: Vec<(&'a str, u64)>,
}

#[derive(Default)]
struct Group {
    has_sum: bool,
    has_count: bool,
    labels: Range<u32>,
}

impl<'a> Page<'a> {
    /// Reads a page of at most `max` series.
    ///
    /// # Errors
    /// The first line that is wrong. A page is taken whole or not at all: a part of it would show metrics as gone that are not.
    pub fn parse(bytes: &'a [u8], format: Format, max: usize) -> Result<Self, PageError> {
        let text = std::str::from_utf8(bytes).map_err(|error| PageError {
            line: bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1,
            problem: Problem::NotText,
        })?;
        let mut parser = Parser {
            format,
            max,
            page: Page::default(),
            types: HashMap::default(),
            units: HashMap::default(),
            helps: HashSet::default(),
            sampled: HashSet::default(),
            groups: HashMap::default(),
            order: Vec::new(),
        };
        let (mut rest, mut line, mut ended) = (text, 0, false);
        while !rest.is_empty() {
            line += 1;
            let at = |problem| PageError { line, problem };
            if ended {
                return Err(at(Problem::AfterEof));
            }
            let end = memchr(b'\n', rest.as_bytes());
            let this = &rest[..end.unwrap_or(rest.len())];
            rest = end.map_or("", |end| &rest[end + 1..]);
            if format == Format::OpenMetrics && this == "# EOF" {
                ended = true;
                continue;
            }
            if end.is_none() {
                return Err(at(Problem::Cut));
            }
            parser.line(this).map_err(at)?;
        }
        if format == Format::OpenMetrics && !ended {
            return Err(PageError { line: line + 1, problem: Problem::NoEof });
        }
        Ok(parser.finish())
    }

    /// The samples, and zeros for what histograms and summaries lack.
    pub fn samples(&self) -> impl Iterator<Item = &Sample<'a>> {
        self.samples.iter().chain(&self.missing)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.samples.len() + self.missing.len()
    }

    /// True if the page had none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The labels of a sample of this page.
    pub fn labels(&self, sample: &Sample<'_>) -> &[(&'a str, Cow<'a, str>)] {
        &self.labels[sample.labels.start as usize..sample.labels.end as usize]
    }
}

impl<'a> Parser<'a> {
    fn line(&mut self, line: &'a str) -> Result<(), Problem> {
        let line = line.trim_matches([' ', '\t', '\r']);
        match line.as_bytes().first() {
            None => Ok(()),
            Some(b'#') => self.comment(&line[1..]),
            Some(b'<') => Err(Problem::Html),
            Some(_) => self.sample(line),
        }
    }

    fn comment(&mut self, text: &'a str) -> Result<(), Problem> {
        let mut words = text.trim_start_matches([' ', '\t']).splitn(3, [' ', '\t']);
        let (keyword, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !matches!(keyword, "TYPE" | "HELP" | "UNIT") {
            return Ok(());
        }
        if !is_name(name) {
            return Err(Problem::Name);
        }
        let value = words.next().unwrap_or_default().trim_matches([' ', '\t']);
        match keyword {
            "HELP" if !self.helps.insert(name) => Err(Problem::Again),
            "TYPE" => {
                let family = self.family(value).ok_or(Problem::Type)?;
                if self.sampled.contains(name) || self.types.insert(name, family).is_some() {
                    return Err(Problem::Again);
                }
                Ok(())
            }
            "UNIT" => {
                self.units.insert(name, value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn family(&self, word: &str) -> Option<Family> {
        // The original's reader takes types in any case.
        let lower = word.to_ascii_lowercase();
        let word = if self.format == Format::Text { lower.as_str() } else { word };
        Some(match (word, self.format) {
            ("gauge", _) | ("untyped", Format::Text) | ("unknown", Format::OpenMetrics) => Family::Gauge,
            ("counter", _) => Family::Counter,
            ("histogram", _) => Family::Histogram,
            ("summary", _) => Family::Summary,
            ("gaugehistogram", Format::OpenMetrics) => Family::GaugeHistogram,
            ("info", Format::OpenMetrics) => Family::Info,
            ("stateset", Format::OpenMetrics) => Family::StateSet,
            _ => return None,
        })
    }

    fn sample(&mut self, line: &'a str) -> Result<(), Problem> {
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if !is_name(name) {
            return Err(Problem::Name);
        }
        let start = self.page.labels.len();
        let rest = match rest.trim_start_matches([' ', '\t']).strip_prefix('{') {
            Some(labels) => self.labels(labels, start)?,
            None => rest,
        };
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let value = words.next().and_then(number).ok_or(Problem::Value)?;
        self.time(words)?;
        if self.page.samples.len() >= self.max {
            return Err(Problem::TooMany);
        }
        let labels = start as u32..self.page.labels.len() as u32;
        let Some((family, kind)) = self.place(name) else {
            // Part of a family, and nothing that is told.
            self.page.labels.truncate(start);
            return Ok(());
        };
        self.sampled.insert(family);
        if matches!(kind, Kind::Bucket | Kind::Quantile) {
            let bound = if kind == Kind::Bucket { "le" } else { "quantile" };
            let found = self.page.labels[start..].iter().find(|(label, _)| *label == bound);
            found.and_then(|(_, value)| number(value)).ok_or(Problem::Bound)?;
        }
        if matches!(kind, Kind::Bucket | Kind::Quantile | Kind::Sum | Kind::Count) {
            self.group(family, kind, labels.clone());
        }
        let unit = self.units.get(family).copied().unwrap_or_default();
        self.page.samples.push(Sample { name, kind, value, unit, missing: false, labels });
        Ok(())
    }

    /// What may follow a value: a time, and in OpenMetrics an exemplar.
    fn time(&self, mut words: impl Iterator<Item = &'a str>) -> Result<(), Problem> {
        let Some(word) = words.next() else { return Ok(()) };
        if self.format == Format::OpenMetrics {
            // An exemplar's labels may have spaces in them; nothing of it is told.
            let exemplar = |word: &str| word == "#" || word.starts_with('{');
            if exemplar(word) {
                return Ok(());
            }
            number(word).ok_or(Problem::Rest)?;
            return if words.next().is_none_or(exemplar) { Ok(()) } else { Err(Problem::Rest) };
        }
        word.parse::<i64>().map_err(|_| Problem::Rest)?;
        if words.next().is_some() { Err(Problem::Rest) } else { Ok(()) }
    }

    /// The family of a name and what a sample of it is; nothing for what is not told.
    fn place(&self, name: &'a str) -> Option<(&'a str, Kind)> {
        if self.is_created(name) {
            return None;
        }
        let kind = match self.types.get(name) {
            Some(Family::Gauge) => Kind::Gauge,
            Some(Family::StateSet | Family::Info) => Kind::Part,
            Some(Family::Summary) => Kind::Quantile,
            // In OpenMetrics a counter's sample has a suffix.
            Some(Family::Counter) => Kind::Counter,
            Some(Family::Histogram | Family::GaugeHistogram) | None => return Some(self.part(name)),
        };
        Some((name, kind))
    }

    fn part(&self, name: &'a str) -> (&'a str, Kind) {
        let of = |suffix: &str| {
            let family = name.strip_suffix(suffix)?;
            Some((family, *self.types.get(family)?))
        };
        for (suffix, wanted, kind) in [
            ("_bucket", Family::Histogram, Kind::Bucket),
            ("_sum", Family::Histogram, Kind::Sum),
            ("_count", Family::Histogram, Kind::Count),
            ("_sum", Family::Summary, Kind::Sum),
            ("_count", Family::Summary, Kind::Count),
            ("_bucket", Family::GaugeHistogram, Kind::Part),
            ("_gsum", Family::GaugeHistogram, Kind::Part),
            ("_gcount", Family::GaugeHistogram, Kind::Part),
            ("_info", Family::Info, Kind::Part),
        ] {
            if let Some((family, _)) = of(suffix).filter(|(_, found)| *found == wanted) {
                return (family, kind);
            }
        }
        // In the text format a counter's name is the whole of it.
        match of("_total") {
            Some((family, Family::Counter)) if self.format == Format::OpenMetrics => (family, Kind::Counter),
            _ => (name, Kind::Gauge),
        }
    }

    /// The time at which a series began: OpenMetrics has it as a sample.
    fn is_created(&self, name: &str) -> bool {
        self.format == Format::OpenMetrics
            && name.strip_suffix("_created").is_some_and(|family| self.types.contains_key(family))
    }

    fn labels(&mut self, mut rest: &'a str, start: usize) -> Result<&'a str, Problem> {
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if let Some(rest) = rest.strip_prefix('}') {
                return Ok(rest);
            }
            if self.page.labels.len() - start >= MAX_LABELS {
                return Err(Problem::ManyLabels);
            }
            let (name, after) = rest.split_once('=').ok_or(Problem::Labels)?;
            let name = name.trim_end_matches([' ', '\t']);
            if !is_name(name) || name.contains(':') {
                return Err(Problem::Labels);
            }
            if self.page.labels[start..].iter().any(|(label, _)| *label == name) {
                return Err(Problem::LabelTwice);
            }
            let after = after.trim_start_matches([' ', '\t']).strip_prefix('"').ok_or(Problem::Labels)?;
            let (value, after) = quoted(after).ok_or(Problem::Labels)?;
            self.page.labels.push((name, value));
            rest = after.trim_start_matches([' ', '\t']);
            rest = match rest.as_bytes().first() {
                Some(b',') => &rest[1..],
                Some(b'}') => rest,
                _ => return Err(Problem::Labels),
            };
        }
    }

    /// Remembers that a part of a histogram or summary came.
    fn group(&mut self, family: &'a str, kind: Kind, labels: Range<u32>) {
        let all = &self.page.labels[labels.start as usize..labels.end as usize];
        let hash = all
            .iter()
            .filter(|(label, _)| !matches!((kind, *label), (Kind::Bucket, "le") | (Kind::Quantile, "quantile")))
            // The order of labels says nothing.
            .map(|(label, value)| source_hash(label.as_bytes()).wrapping_mul(31) ^ source_hash(value.as_bytes()))
            .fold(0_u64, u64::wrapping_add);
        let key = (family, hash);
        let group = self.groups.entry(key).or_insert_with(|| {
            self.order.push(key);
            Group { labels, ..Group::default() }
        });
        group.has_sum |= kind == Kind::Sum;
        group.has_count |= kind == Kind::Count;
    }

    fn finish(mut self) -> Page<'a> {
        for key in &self.order {
            let group = &self.groups[key];
            for (has, kind) in [(group.has_sum, Kind::Sum), (group.has_count, Kind::Count)] {
                if !has {
                    let labels = group.labels.clone();
                    self.page.missing.push(Sample { name: key.0, kind, value: 0.0, unit: "", missing: true, labels });
                }
            }
        }
        self.page
    }
}

/// What stands up to the closing quote, without escapes, and what follows it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = memchr2(b'"', b'\\', text.as_bytes())?;
    if text.as_bytes()[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = text[..end].to_owned();
    let mut chars = text[end..].char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((Cow::Owned(value), &text[end + at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    bytes.next().is_some_and(first) && bytes.all(|byte| first(byte) || byte.is_ascii_digit())
}

pub(super) fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}
