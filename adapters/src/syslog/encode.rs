//! An envelope in, RFC 5424 messages out (contract: syslog drains §1).
//!
//! Pure: no I/O and no clock. A log, counter, timer or event gives one message, a gauge one for each of its metrics, in the order of
//! their names; other envelopes, and those that the drain's options leave out, give none. The bytes are those of the contract, with
//! one exception that it leaves open: a source type too long to stand in PROCID together with an instance is cut (see [`Encoder`]).

use prost::Message;
use proto::decimal::{SYSLOG_EXPONENT, general};
use proto::raw::Kind;
use proto::v2;
use smallvec::SmallVec;

use self::names::Names;
pub use self::parts::Parts;
use self::parts::{Log, Tag, find};
use self::time::Times;
use super::config::{Kinds, LogTypes, Options};

mod memo;
mod names;
mod parts;
mod time;

/// The most bytes that the lines of one gauge may take, their values not counted.
const MAX_LINES: usize = 4 * 1024 * 1024;
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

/// Why an envelope has no form as a message. It never will have one: it is dropped, and counted as `convert_error`, `decode_error`
/// or `oversize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencodable {
    /// A header field may hold visible ASCII only.
    #[error("{0} holds something else than visible ASCII characters")]
    Header(&'static str),
    /// The key of a tag is the name of a parameter: visible ASCII without `=`, `]` and `"`.
    #[error("a tag's key holds something else than visible ASCII characters, or one of =, ] and \"")]
    TagKey,
    /// Not well-formed on the wire, or text that is not UTF-8.
    #[error("the envelope is not well-formed")]
    Malformed,
    /// A metric or event that does not fit into a line even without tags: cut, it would be none. Or a gauge that makes too many lines.
    #[error("the lines of the envelope are too long")]
    TooLong,
}

/// Makes messages for one drain.
///
/// Decisions of ours where the contract has none: the messages of a gauge come in the order of their names; a source type of 126 bytes
/// or more with an instance is cut to 125, so that PROCID becomes `[type/]`, as with a type of exactly 125.
#[derive(Debug)]
pub struct Encoder {
    kinds: Kinds,
    log_types: LogTypes,
    metadata: bool,
    style: Style,
    names: Names,
    times: Times,
    header: Vec<u8>,
    /// The tags of the envelope at hand as one element; empty without tags.
    tags: Vec<u8>,
    message: Vec<u8>,
    /// Messages that were cut and not yet told.
    cut: u64,
}

impl Encoder {
    /// For a drain with these options; `hostname` is used for envelopes whose tags name no app, space and organization. `metadata`
    /// says whether tags are sent where the options do not.
    pub fn new(options: &Options, hostname: &str, metadata: bool, style: Style) -> Self {
        Self {
            kinds: options.kinds,
            log_types: options.log_types.clone(),
            metadata: options.metadata.unwrap_or(metadata),
            names: Names::new(hostname),
            times: Times::new(if style.zulu { "Z" } else { "+00:00" }),
            style,
            header: Vec::new(),
            tags: Vec::new(),
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
    /// Costs a copy of the payload and of the tags; allocates only for envelopes of more than 16 tags or for long messages, and for
    /// what is no log.
    ///
    /// # Errors
    /// [`Unencodable`]; `out` is then as it was.
    pub fn encode(&mut self, envelope: &Parts<'_>, out: &mut impl bytes::BufMut) -> Result<usize, Unencodable> {
        let Some((kind, bytes)) = envelope.message else { return Ok(0) };
        if !self.kinds.contains(kind) {
            return Ok(0);
        }
        let log =
            if kind == Kind::Log { Log::read(bytes).map_err(|_| Unencodable::Malformed)? } else { Log::default() };
        if !self.set_header_and_tags(envelope, kind, log)? {
            return Ok(0);
        }
        match kind {
            Kind::None => Ok(0),
            Kind::Log => {
                let is_bare = self.style.element.is_empty();
                self.put(out, true, |out, tags| {
                    out.extend_from_slice(if is_bare && tags.is_empty() { b"-" } else { tags });
                    out.push(b' ');
                    put_payload(out, log.payload);
                });
                Ok(1)
            }
            Kind::Counter => {
                let counter: v2::Counter = decode(bytes)?;
                let (total, delta) = (counter.total.to_string(), counter.delta.to_string());
                self.put_metric(out, "counter", &[("name", &counter.name), ("total", &total), ("delta", &delta)])
                    .then_some(1)
                    .ok_or(Unencodable::TooLong)
            }
            Kind::Gauge => {
                let gauge: v2::Gauge = decode(bytes)?;
                let mut metrics: SmallVec<[(&str, &v2::GaugeValue); 8]> =
                    gauge.metrics.iter().map(|(name, value)| (name.as_str(), value)).collect();
                metrics.sort_unstable_by_key(|(name, _)| *name);
                if metrics.len() * (self.header.len() + self.tags.len()) > MAX_LINES {
                    return Err(Unencodable::TooLong);
                }
                let mut lines = 0;
                for (name, metric) in &metrics {
                    let value = general(metric.value, SYSLOG_EXPONENT);
                    let parameters = [("name", *name), ("value", value.as_str()), ("unit", metric.unit.as_str())];
                    lines += usize::from(self.put_metric(out, "gauge", &parameters));
                }
                if lines == 0 && !metrics.is_empty() { Err(Unencodable::TooLong) } else { Ok(lines) }
            }
            Kind::Timer => {
                let timer: v2::Timer = decode(bytes)?;
                let (start, stop) = (timer.start.to_string(), timer.stop.to_string());
                self.put_metric(out, "timer", &[("name", &timer.name), ("start", &start), ("stop", &stop)])
                    .then_some(1)
                    .ok_or(Unencodable::TooLong)
            }
            Kind::Event => {
                let event: v2::Event = decode(bytes)?;
                self.put_metric(out, "event", &[("title", &event.title), ("body", &event.body)])
                    .then_some(1)
                    .ok_or(Unencodable::TooLong)
            }
        }
    }

    /// Everything before the structured data: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID `, and the tags. False when the drain does
    /// not take logs with such tags.
    fn set_header_and_tags(&mut self, envelope: &Parts<'_>, kind: Kind, log: Log<'_>) -> Result<bool, Unencodable> {
        self.header.clear();
        self.header.extend_from_slice(match kind {
            Kind::Log if log.kind == i32::from(v2::log::Type::Err) => b"<11>1 ",
            Kind::Log if log.kind != i32::from(v2::log::Type::Out) => b"<-1>1 ",
            _ => b"<14>1 ",
        });
        self.times.put(&mut self.header, envelope.timestamp);
        self.tags.clear();
        let is_log = kind == Kind::Log;
        if let Some((names, memo)) = self.names.known(envelope, is_log) {
            self.header.extend_from_slice(names);
            self.tags.extend_from_slice(&memo.element);
            return Ok(memo.admits_log || !is_log);
        }
        let tags = envelope.tags();
        let source_type = || std::str::from_utf8(find(&tags, "source_type")?.value).ok();
        let admits_log = self.log_types.admits_all() || self.log_types.admits(source_type());
        if is_log && !admits_log {
            return Ok(false);
        }
        self.header.extend_from_slice(self.names.of(envelope, &tags, is_log)?);
        if self.metadata {
            put_tags(&mut self.tags, &tags)?;
        }
        self.names.learn(envelope, tags.len(), &self.tags, admits_log);
        Ok(true)
    }

    /// A message of one element, the tags, and no text. False when it is too long.
    fn put_metric(&mut self, out: &mut impl bytes::BufMut, id: &str, parameters: &[(&str, &str)]) -> bool {
        self.put(out, false, |out, tags| {
            put_element(out, id, true, parameters.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            out.extend_from_slice(tags);
            out.extend_from_slice(b" \n");
        })
    }

    /// Writes one message: the header, and what `rest` puts after it. False when it is too long, and has no text to be cut.
    fn put(&mut self, out: &mut impl bytes::BufMut, has_text: bool, rest: impl Fn(&mut Vec<u8>, &[u8])) -> bool {
        self.make(&rest);
        if let Some(max) = self.style.max_bytes
            && self.message.len() > max
        {
            self.cut += 1;
            // They stand in the way of this line only: of a gauge, others follow.
            let tags = std::mem::take(&mut self.tags);
            self.make(&rest);
            self.tags = tags;
            if self.message.len() > max && !has_text {
                return false;
            }
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
        true
    }

    fn make(&mut self, rest: impl Fn(&mut Vec<u8>, &[u8])) {
        let (message, style) = (&mut self.message, &self.style);
        message.clear();
        message.extend_from_slice(style.prefix.as_bytes());
        message.extend_from_slice(&self.header);
        if !style.element.is_empty() {
            message.push(b'[');
            message.extend_from_slice(style.element.as_bytes());
            message.push(b']');
        }
        rest(message, &self.tags);
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
        // A character has four bytes at most; what has more such is no text.
        for _ in 0..3 {
            end -= usize::from(end > 0 && message[end] & 0b1100_0000 == 0b1000_0000);
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

fn is_parameter_name(key: &[u8]) -> bool {
    key.iter().fold(true, |so_far, byte| so_far & PARAMETER_NAME[usize::from(*byte)])
}

/// The bytes that may stand in the name of a parameter.
static PARAMETER_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"');
        byte += 1;
    }
    table
};

/// What [`look`] finds.
const SPECIAL: u8 = 1;
const NOT_ASCII: u8 = 0x80;

/// Whether a value holds something to escape, and something else than ASCII: one pass without a branch for each byte.
fn look(value: &[u8]) -> u8 {
    value.iter().fold(0, |so_far, byte| {
        so_far | (byte & NOT_ASCII) | u8::from(*byte == b'\\') | u8::from(*byte == b'"') | u8::from(*byte == b']')
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Unencodable> {
    M::decode(bytes).map_err(|_| Unencodable::Malformed)
}

/// `org.space.app` (contract §1.2).
fn put_hostname(out: &mut Vec<u8>, names: [&[u8]; 3]) {
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        let start = out.len();
        put_clean(out, name, |byte| byte.is_ascii_alphanumeric());
        out.truncate(start + MAX_HOSTNAME_PART);
    }
}

/// `[TYPE/instance]` (contract §1.3).
fn put_log_procid(out: &mut Vec<u8>, source_type: &[u8], instance: &[u8], max: usize) {
    out.push(b'[');
    let start = out.len();
    put_clean(out, source_type, |byte| byte.is_ascii_graphic());
    out[start..].make_ascii_uppercase();
    if !instance.is_empty() {
        out.truncate(start + max - 3);
        let room = max - 3 - (out.len() - start);
        out.push(b'/');
        out.extend_from_slice(&instance[..instance.len().min(room)]);
    }
    out.push(b']');
}

/// Writes a run of white space as one `-`, keeps `-` and what `keep` admits, and takes `-` off the end.
fn put_clean(out: &mut Vec<u8>, text: &[u8], keep: impl Fn(u8) -> bool) {
    let start = out.len();
    let mut space = false;
    for &byte in text {
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

/// `[tags@47450 …]`, or nothing without tags.
fn put_tags(out: &mut Vec<u8>, tags: &[Tag<'_>]) -> Result<(), Unencodable> {
    let mut looks = 0;
    for tag in tags {
        if !is_parameter_name(tag.key) {
            return Err(Unencodable::TagKey);
        }
        looks |= look(tag.value);
    }
    if looks & NOT_ASCII != 0 && !tags.iter().all(|tag| std::str::from_utf8(tag.value).is_ok()) {
        return Err(Unencodable::Malformed);
    }
    if !tags.is_empty() {
        put_element(out, "tags", looks & SPECIAL != 0, tags.iter().map(|tag| (tag.key, tag.value)));
    }
    Ok(())
}

fn put_element<'a>(out: &mut Vec<u8>, id: &str, escape: bool, parameters: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    out.push(b'[');
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(ENTERPRISE.as_bytes());
    for (name, value) in parameters {
        out.push(b' ');
        out.extend_from_slice(name);
        out.extend_from_slice(b"=\"");
        if escape {
            put_escaped(out, value);
        } else {
            out.extend_from_slice(value);
        }
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
    if payload.contains(&0) {
        payload.split(|byte| *byte == 0).for_each(|part| out.extend_from_slice(part));
    } else {
        out.extend_from_slice(payload);
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

#[cfg(test)]
mod tests;
