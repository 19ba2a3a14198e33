//! An envelope in, RFC 5424 messages out (contract: syslog drains §1).
//!
//! Pure: no I/O and no clock. A log, counter, timer or event gives one message, a gauge one for each of its metrics, in the order of
//! their names; other envelopes, and those that the drain's options leave out, give none. The bytes are those of the contract, with
//! one exception that it leaves open: a source type too long to stand in PROCID together with an instance is cut (see [`Encoder`]).

use proto::decimal::{SYSLOG_EXPONENT, general};
use proto::raw::Kind;
use proto::v2;
use proto::v2::envelope::Message;
use smallvec::SmallVec;

use super::config::{Kinds, LogTypes, Options};

/// The longest header fields, in bytes (RFC 5424 §6). Longer ones are cut.
const MAX_HOSTNAME: usize = 255;
const MAX_APP_NAME: usize = 48;
const MAX_PROCID: usize = 128;
/// The longest part of a host name made of tags.
const MAX_HOSTNAME_PART: usize = 63;

/// The Cloud Foundry Foundation's enterprise number.
const ENTERPRISE: &str = "@47450";

/// What stands around a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Its length in decimal and a space before it (RFC 6587 §3.4.1): for TCP and TLS.
    #[default]
    OctetCount,
    /// A line feed after it and none in it (RFC 6587 §3.4.2): one in a payload or value becomes `#012`, as rsyslog writes it.
    LineFeed,
    /// Its length in four bytes, big-endian, and no line feed at its end: for the client, which makes a datagram of it (RFC 5426).
    Datagram,
    /// Its length in four bytes, big-endian: for the client, which makes the body of a request of it.
    Post,
    /// Nothing: for the body of a request that holds many.
    None,
}

/// How the messages of one drain look, beyond what the contract says. The default is the contract's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// What stands around a message.
    pub framing: Framing,
    /// Timestamps end in `Z`, not in `+00:00`.
    pub zulu: bool,
    /// Stands before each message.
    pub prefix: String,
    /// The inside of a structured data element before all others; empty is none.
    pub element: String,
    /// The longest message. A longer one loses its tags first, and then the end of its text.
    pub max_bytes: Option<usize>,
}

/// Why an envelope has no form as a message. It never will have one: it is dropped and counted as `convert_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencodable {
    /// A header field may hold visible ASCII only.
    #[error("{0} holds something else than visible ASCII characters")]
    Header(&'static str),
    /// The key of a tag is the name of a parameter: visible ASCII without `=`, `]` and `"`.
    #[error("a tag's key holds something else than visible ASCII characters, or one of =, ] and \"")]
    TagKey,
}

/// Makes messages for one drain.
///
/// Decisions of ours where the contract has none: the messages of a gauge come in the order of their names; a source type of 126 bytes
/// or more with an instance is cut to 125, so that PROCID becomes `[type/]`, as with a type of exactly 125.
#[derive(Debug)]
pub struct Encoder {
    kinds: Kinds,
    log_types: LogTypes,
    hostname: String,
    metadata: bool,
    style: Style,
    header: Vec<u8>,
    message: Vec<u8>,
    /// Messages that were cut and not yet told.
    cut: u64,
}

type Tags<'a> = SmallVec<[(&'a str, &'a str); 16]>;

impl Encoder {
    /// For a drain with these options; `hostname` is used for envelopes whose tags name no app, space and organization. `metadata`
    /// says whether tags are sent where the options do not.
    pub fn new(options: &Options, hostname: &str, metadata: bool, style: Style) -> Self {
        Self {
            kinds: options.kinds,
            log_types: options.log_types.clone(),
            hostname: hostname.to_owned(),
            metadata: options.metadata.unwrap_or(metadata),
            style,
            header: Vec::new(),
            message: Vec::new(),
            cut: 0,
        }
    }

    /// How many messages were longer than [`Style::max_bytes`] since this was last asked.
    pub fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Appends the messages of `envelope` to `out` and returns how many there are.
    ///
    /// Costs a copy of the payload and of the tags; allocates only for envelopes of more than 16 tags or for long messages.
    ///
    /// # Errors
    /// [`Unencodable`]; `out` is then as it was.
    pub fn encode(&mut self, envelope: &v2::Envelope, out: &mut impl bytes::BufMut) -> Result<usize, Unencodable> {
        let Some(message) = &envelope.message else { return Ok(0) };
        if !self.admits(message, envelope) {
            return Ok(0);
        }
        let mut tags: Tags<'_> = envelope.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        tags.sort_unstable();
        self.set_header(envelope, message, &tags)?;
        if !self.metadata {
            tags.clear();
        }
        if !tags.iter().all(|(key, _)| is_parameter_name(key)) {
            return Err(Unencodable::TagKey);
        }
        match message {
            Message::Log(log) => {
                let is_bare = self.style.element.is_empty();
                self.put(out, &tags, |out, tags| {
                    put_tags(out, tags);
                    if is_bare && tags.is_empty() {
                        out.push(b'-');
                    }
                    out.push(b' ');
                    put_payload(out, &log.payload);
                });
            }
            Message::Counter(counter) => {
                let (total, delta) = (counter.total.to_string(), counter.delta.to_string());
                self.put_metric(
                    out,
                    &tags,
                    "counter",
                    &[("name", &counter.name), ("total", &total), ("delta", &delta)],
                );
            }
            Message::Gauge(gauge) => {
                let mut metrics: SmallVec<[(&str, &v2::GaugeValue); 8]> =
                    gauge.metrics.iter().map(|(name, value)| (name.as_str(), value)).collect();
                metrics.sort_unstable_by_key(|(name, _)| *name);
                for (name, metric) in &metrics {
                    let value = general(metric.value, SYSLOG_EXPONENT);
                    self.put_metric(out, &tags, "gauge", &[("name", name), ("value", &value), ("unit", &metric.unit)]);
                }
                return Ok(metrics.len());
            }
            Message::Timer(timer) => {
                let (start, stop) = (timer.start.to_string(), timer.stop.to_string());
                self.put_metric(out, &tags, "timer", &[("name", &timer.name), ("start", &start), ("stop", &stop)]);
            }
            Message::Event(event) => {
                self.put_metric(out, &tags, "event", &[("title", &event.title), ("body", &event.body)]);
            }
        }
        Ok(1)
    }

    fn admits(&self, message: &Message, envelope: &v2::Envelope) -> bool {
        let kind = match message {
            Message::Log(_) => Kind::Log,
            Message::Counter(_) => Kind::Counter,
            Message::Gauge(_) => Kind::Gauge,
            Message::Timer(_) => Kind::Timer,
            Message::Event(_) => Kind::Event,
        };
        let source_type = || envelope.tags.get("source_type").map(String::as_str);
        self.kinds.contains(kind) && (kind != Kind::Log || self.log_types.admits(source_type()))
    }

    /// Everything before the structured data: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID `.
    fn set_header(&mut self, envelope: &v2::Envelope, message: &Message, tags: &Tags<'_>) -> Result<(), Unencodable> {
        let out = &mut self.header;
        out.clear();
        out.extend_from_slice(match message {
            Message::Log(log) if log.r#type == i32::from(v2::log::Type::Err) => b"<11>1 ",
            Message::Log(log) if log.r#type != i32::from(v2::log::Type::Out) => b"<-1>1 ",
            _ => b"<14>1 ",
        });
        put_timestamp(out, envelope.timestamp, if self.style.zulu { "Z" } else { "+00:00" });
        field(out, "HOSTNAME", MAX_HOSTNAME, |out| put_hostname(out, tags, &self.hostname))?;
        field(out, "APP-NAME", MAX_APP_NAME, |out| out.extend_from_slice(envelope.source_id.as_bytes()))?;
        field(out, "PROCID", MAX_PROCID, |out| match message {
            Message::Log(_) => put_log_procid(out, tag(tags, "source_type"), &envelope.instance_id),
            _ => {
                out.push(b'[');
                out.extend_from_slice(envelope.instance_id.as_bytes());
                out.push(b']');
            }
        })?;
        out.extend_from_slice(b" - ");
        Ok(())
    }

    /// A message of one element, the tags, and no text.
    fn put_metric(&mut self, out: &mut impl bytes::BufMut, tags: &Tags<'_>, id: &str, parameters: &[(&str, &str)]) {
        self.put(out, tags, |out, tags| {
            put_element(out, id, parameters.iter().copied());
            put_tags(out, tags);
            out.extend_from_slice(b" \n");
        });
    }

    /// Writes one message: the header, and what `rest` puts after it.
    fn put(&mut self, out: &mut impl bytes::BufMut, tags: &Tags<'_>, rest: impl Fn(&mut Vec<u8>, &Tags<'_>)) {
        self.make(tags, &rest);
        if let Some(max) = self.style.max_bytes
            && self.message.len() > max
        {
            self.cut += 1;
            self.make(&Tags::new(), &rest);
            cut(&mut self.message, max);
        }
        match self.style.framing {
            Framing::OctetCount => {
                put_decimal(out, self.message.len());
                out.put_u8(b' ');
            }
            Framing::Datagram | Framing::Post => {
                if self.style.framing == Framing::Datagram {
                    self.message.pop();
                }
                out.put_u32(u32::try_from(self.message.len()).unwrap_or(u32::MAX));
            }
            Framing::LineFeed | Framing::None => {}
        }
        out.put_slice(&self.message);
    }

    fn make(&mut self, tags: &Tags<'_>, rest: impl Fn(&mut Vec<u8>, &Tags<'_>)) {
        let (message, style) = (&mut self.message, &self.style);
        message.clear();
        message.extend_from_slice(style.prefix.as_bytes());
        message.extend_from_slice(&self.header);
        if !style.element.is_empty() {
            message.push(b'[');
            message.extend_from_slice(style.element.as_bytes());
            message.push(b']');
        }
        rest(message, tags);
        if style.framing == Framing::LineFeed {
            escape_line_feeds(message);
        }
    }
}

/// Every line feed but the last becomes `#012`.
fn escape_line_feeds(message: &mut Vec<u8>) {
    let last = message.len().saturating_sub(1);
    if message[..last].contains(&b'\n') {
        let mut escaped: Vec<u8> = Vec::with_capacity(message.len() + 64);
        for line in message[..last].split_inclusive(|byte| *byte == b'\n') {
            match line.split_last() {
                Some((b'\n', line)) => {
                    escaped.extend_from_slice(line);
                    escaped.extend_from_slice(b"#012");
                }
                _ => escaped.extend_from_slice(line),
            }
        }
        escaped.push(b'\n');
        *message = escaped;
    }
}

/// Cuts a message to `max` bytes, its last line feed among them, and not within a character.
fn cut(message: &mut Vec<u8>, max: usize) {
    if message.len() > max {
        let mut end = max.saturating_sub(1);
        while end > 0 && message[end] & 0b1100_0000 == 0b1000_0000 {
            end -= 1;
        }
        message.truncate(end);
        message.push(b'\n');
    }
}

/// One header field with the space before it: `-` when empty, cut to `max`, and then visible ASCII throughout.
fn field(out: &mut Vec<u8>, name: &'static str, max: usize, put: impl FnOnce(&mut Vec<u8>)) -> Result<(), Unencodable> {
    out.push(b' ');
    let start = out.len();
    put(out);
    if out.len() == start {
        out.push(b'-');
    }
    out.truncate(start + max);
    if out[start..].iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(Unencodable::Header(name)) }
}

fn is_parameter_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"'))
}

fn tag<'a>(tags: &Tags<'a>, key: &str) -> &'a str {
    tags.binary_search_by(|(name, _)| (*name).cmp(key)).map_or("", |found| tags[found].1)
}

/// `org.space.app` out of the tags; the drain's own name when they name none of the three (contract §1.2).
fn put_hostname(out: &mut Vec<u8>, tags: &Tags<'_>, fallback: &str) {
    let keys = ["organization_name", "space_name", "app_name"];
    if !keys.iter().any(|key| tags.binary_search_by(|(name, _)| (*name).cmp(key)).is_ok()) {
        return out.extend_from_slice(fallback.as_bytes());
    }
    for (i, key) in keys.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        let start = out.len();
        put_clean(out, tag(tags, key), |byte| byte.is_ascii_alphanumeric());
        out.truncate(start + MAX_HOSTNAME_PART);
    }
}

/// `[TYPE/instance]` (contract §1.3).
fn put_log_procid(out: &mut Vec<u8>, source_type: &str, instance: &str) {
    out.push(b'[');
    let start = out.len();
    put_clean(out, source_type, |byte| byte.is_ascii_graphic());
    out[start..].make_ascii_uppercase();
    if !instance.is_empty() {
        out.truncate(start + MAX_PROCID - 3);
        let room = MAX_PROCID - 3 - (out.len() - start);
        out.push(b'/');
        out.extend_from_slice(&instance.as_bytes()[..instance.len().min(room)]);
    }
    out.push(b']');
}

/// Writes a run of white space as one `-`, keeps `-` and what `keep` admits, and takes `-` off the end.
fn put_clean(out: &mut Vec<u8>, text: &str, keep: impl Fn(u8) -> bool) {
    let start = out.len();
    let mut space = false;
    for byte in text.bytes() {
        let is_space = byte.is_ascii_whitespace();
        if is_space && !space || byte == b'-' {
            out.push(b'-');
        } else if keep(byte) {
            out.push(byte);
        }
        space = is_space;
    }
    while out.len() > start && out.last() == Some(&b'-') {
        out.pop();
    }
}

fn put_tags(out: &mut Vec<u8>, tags: &Tags<'_>) {
    if !tags.is_empty() {
        put_element(out, "tags", tags.iter().copied());
    }
}

fn put_element<'a>(out: &mut Vec<u8>, id: &str, parameters: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push(b'[');
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(ENTERPRISE.as_bytes());
    for (name, value) in parameters {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        put_escaped(out, value.as_bytes());
        out.push(b'"');
    }
    out.push(b']');
}

fn put_escaped(out: &mut Vec<u8>, mut value: &[u8]) {
    while let Some(at) = value.iter().position(|byte| matches!(byte, b'\\' | b'"' | b']')) {
        out.extend_from_slice(&value[..at]);
        out.extend_from_slice(&[b'\\', value[at]]);
        value = &value[at + 1..];
    }
    out.extend_from_slice(value);
}

/// The payload without its NUL bytes, with a line feed at its end.
fn put_payload(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    for part in payload.split(|byte| *byte == 0) {
        out.extend_from_slice(part);
    }
    if out.len() == start || out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
}

fn put_decimal(out: &mut impl bytes::BufMut, mut value: usize) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// `2023-11-14T22:13:20.123456+00:00`: microseconds, cut off and not rounded, without zeros at their end; then `zone`.
fn put_timestamp(out: &mut Vec<u8>, nanoseconds: i64, zone: &str) {
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let micros = nanoseconds.rem_euclid(1_000_000_000) / 1000;
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    // The years of an i64 of nanoseconds are 1677 to 2262.
    put_padded(out, year, 4);
    out.push(b'-');
    put_padded(out, month, 2);
    out.push(b'-');
    put_padded(out, day, 2);
    out.push(b'T');
    put_padded(out, second / 3600, 2);
    out.push(b':');
    put_padded(out, second / 60 % 60, 2);
    out.push(b':');
    put_padded(out, second % 60, 2);
    if micros > 0 {
        out.push(b'.');
        put_padded(out, micros, 6);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.extend_from_slice(zone.as_bytes());
}

fn put_padded(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Counts from the 1st of March of the year 0, so that the leap day is the last of a year and every 400 years are alike.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let era = days.div_euclid(DAYS_IN_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, over and over: 153 in five of them.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
