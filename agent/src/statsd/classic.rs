//! The original's lines (contract: agents §9). Pure: a line becomes a [`Metric`]; nothing is allocated.
//!
//! ```text
//! <origin>.<name>:[+|-]<digits[.digits]>|<ms|g|c>[|@<rate>][|#<key>:<value>,...]
//! ```

use proto::raw::wire;

use super::{LineError, MAX_NAME, MAX_ORIGIN, MAX_TAG, MAX_TAGS};

/// One line, understood.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric<'a> {
    /// What stands before the first dot: the `source_id`.
    pub origin: &'a str,
    /// What stands between that dot and the colon.
    pub name: &'a str,
    /// What the number means.
    pub kind: Kind,
    /// The sign before the number, if there was one: it makes a gauge relative.
    pub sign: Option<Sign>,
    /// The number without its sign, divided by the sample rate. Infinite if too large or if the rate was 0.
    pub value: f64,
    /// The tags.
    pub tags: Tags<'a>,
}

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `c`: to be added to a running sum.
    Counter,
    /// `g`: a level, or with a sign a step from the last one.
    Gauge,
    /// `ms`: a duration. Its sign means nothing.
    Timer,
}

/// A sign before a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// The tags of a line: letters, digits, `_`, `:` and `,` up to the first other character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags<'a>(&'a str);

/// Reads one line. What it says may stand anywhere in it, the leftmost counts; what follows it is not looked at.
///
/// Costs one pass and no allocation.
///
/// # Errors
/// Nothing in the line has the form, or what has it is over a limit.
pub fn parse_line(line: &[u8]) -> Result<Metric<'_>, LineError> {
    let mut error = LineError::Form;
    let mut from = 0;
    while let Some(length) = line[from..].iter().position(|&byte| byte == b':') {
        let colon = from + length;
        match Reading::parse(&line[colon + 1..]) {
            Ok(reading) => match origin_dot(line, from, colon) {
                Some(dot) => return reading.of(origin_before(line, dot), &line[dot + 1..colon]),
                None => error = LineError::NoOrigin,
            },
            Err(LineError::Form) => {}
            Err(better) => error = better,
        }
        from = colon + 1;
    }
    Err(error)
}

/// The first dot in `from..colon` with something on both sides.
fn origin_dot(line: &[u8], from: usize, colon: usize) -> Option<usize> {
    (from..colon).find(|&at| line[at] == b'.' && at > 0 && line[at - 1] != b'.' && at + 1 < colon)
}

/// The text before `dot`, back to the dot before or the start of the line.
fn origin_before(line: &[u8], dot: usize) -> &[u8] {
    let start = line[..dot].iter().rposition(|&byte| byte == b'.').map_or(0, |at| at + 1);
    &line[start..dot]
}

/// What follows the colon.
struct Reading<'a> {
    sign: Option<Sign>,
    number: &'a [u8],
    kind: Kind,
    rate: Option<&'a [u8]>,
    tags: &'a [u8],
}

impl<'a> Reading<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, LineError> {
        let (sign, text) = match text {
            [b'+', text @ ..] => (Some(Sign::Plus), text),
            [b'-', text @ ..] => (Some(Sign::Minus), text),
            _ => (None, text),
        };
        let (number, text) = split_number(text).ok_or(LineError::Form)?;
        let (kind, text) = match text {
            [b'|', b'm', b's', text @ ..] => (Kind::Timer, text),
            [b'|', b'g', text @ ..] => (Kind::Gauge, text),
            [b'|', b'c', text @ ..] => (Kind::Counter, text),
            [b'|', ..] => return Err(LineError::Type),
            _ => return Err(LineError::Form),
        };
        let (rate, text) = match text.strip_prefix(b"|@").and_then(split_number) {
            Some((rate, text)) => (Some(rate), text),
            None => (None, text),
        };
        Ok(Self { sign, number, kind, rate, tags: text.strip_prefix(b"|#").unwrap_or_default() })
    }

    fn of(self, origin: &'a [u8], name: &'a [u8]) -> Result<Metric<'a>, LineError> {
        if origin.len() > MAX_ORIGIN {
            return Err(LineError::LongOrigin);
        }
        if name.len() > MAX_NAME {
            return Err(LineError::LongName);
        }
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| LineError::NotText);
        let (origin, name, tags) = (text(origin)?, text(name)?, Tags::parse(self.tags)?);
        let value = self.rate.map_or_else(|| decimal(self.number), |rate| decimal(self.number) / decimal(rate));
        Ok(Metric { origin, name, kind: self.kind, sign: self.sign, value, tags })
    }
}

/// Splits `digits[.digits]` off.
fn split_number(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let fraction = text[whole..].strip_prefix(b".").map_or(0, digits);
    let length = if fraction > 0 { whole + 1 + fraction } else { whole };
    (whole > 0).then(|| text.split_at(length))
}

fn decimal(number: &[u8]) -> f64 {
    let text = std::str::from_utf8(number).expect("digits and a dot are ASCII");
    text.parse().expect("digits, with a dot between them at most, are a number")
}

impl Metric<'_> {
    /// The value with its sign.
    pub fn signed(&self) -> f64 {
        if self.sign == Some(Sign::Minus) { -self.value } else { self.value }
    }
}

impl Kind {
    /// The unit of the gauge it becomes.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Timer => "ms",
        }
    }
}

impl<'a> Tags<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, LineError> {
        let ours = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b',');
        let length = text.iter().position(|byte| !ours(byte)).unwrap_or(text.len());
        let list = std::str::from_utf8(&text[..length]).expect("letters, digits, _, : and , are ASCII");
        if list.is_empty() {
            return Ok(Self::default());
        }
        for (i, tag) in list.split(',').enumerate() {
            if i == MAX_TAGS {
                return Err(LineError::ManyTags);
            }
            let (key, value) = key_value(tag).ok_or(LineError::Tag)?;
            if wire::bytes_len(key.len()) + wire::bytes_len(value.len()) > MAX_TAG {
                return Err(LineError::LongTag);
            }
        }
        Ok(Self(list))
    }

    /// Keys and values in their order. Of two with the same key the last one counts.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(',').filter_map(key_value)
    }
}

/// The first piece is the key, the second the value; further ones are not looked at.
fn key_value(tag: &str) -> Option<(&str, &str)> {
    let (key, rest) = tag.split_once(':')?;
    Some((key, rest.split_once(':').map_or(rest, |(value, _)| value)))
}
