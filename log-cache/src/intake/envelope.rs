//! From a message to encoded envelopes, as the original makes them (contract `log-cache.md` §7). Pure.
//!
//! What enters: a [`Line`] and the time at which it came. What leaves: envelopes, appended to an encoded `EnvelopeBatch`: one for each
//! element that is a metric, or a log line where there is none. Nothing is allocated but the room they take.

use proto::raw::edit;
use proto::raw::wire::{self, WireType};
use proto::reason::Reason;

use super::line::{Element, Line, put_unescaped};
use super::number;

/// Metrics in one message, at most. Each becomes an envelope with all of the message's tags, so this bounds what a byte can cost.
pub(super) const MAX_METRICS: usize = 16;

/// Bytes that usual messages need.
const USUAL: usize = 4 * 1024;

/// PRIVAL of a line to standard error: facility user, severity error.
const STANDARD_ERROR: u8 = 11;

/// Makes envelopes. It keeps the scratch space of one connection.
#[derive(Debug, Default)]
pub(super) struct Maker {
    /// The envelope in hand.
    envelope: Vec<u8>,
    /// Its member.
    message: Vec<u8>,
    /// A value without its escapes.
    text: Vec<u8>,
}

/// What an element of structured data is, by what its id begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Tags,
    Counter,
    Gauge,
    Timer,
    Event,
}

impl Is {
    fn of(id: &[u8]) -> Option<Self> {
        let named: [(&[u8], Self); 5] = [
            (b"tags", Self::Tags),
            (b"counter", Self::Counter),
            (b"gauge", Self::Gauge),
            (b"timer", Self::Timer),
            (b"event", Self::Event),
        ];
        named.into_iter().find(|(prefix, _)| id.starts_with(prefix)).map(|(_, is)| is)
    }
}

impl Maker {
    /// Gives back room that only large messages need.
    pub(super) fn shrink(&mut self) {
        [&mut self.envelope, &mut self.message, &mut self.text].into_iter().for_each(|scratch| {
            scratch.clear();
            scratch.shrink_to(USUAL);
        });
    }

    /// Appends the envelopes of `line` to `into`, an encoded `EnvelopeBatch`, and returns how many. `received`, nanoseconds since the Unix
    /// epoch, is the time of a message without one. `trim` takes white space off both ends of a payload, not only one line feed.
    ///
    /// # Errors
    /// [`Reason::ConvertError`]: it lacks what an envelope needs, or has an element or a number that is none. [`Reason::TooMany`]: metrics.
    /// Nothing is appended then.
    pub(super) fn put(
        &mut self,
        line: &Line<'_>,
        received: i64,
        trim: bool,
        into: &mut Vec<u8>,
    ) -> Result<usize, Reason> {
        let mut metrics = 0;
        for element in line.elements() {
            metrics += usize::from(Is::of(element.id).ok_or(Reason::ConvertError)? != Is::Tags);
        }
        if metrics > MAX_METRICS {
            return Err(Reason::TooMany);
        }
        self.put_head(line, received).ok_or(Reason::ConvertError)?;
        let head = self.envelope.len();
        if metrics == 0 {
            self.put_log(line, trim).ok_or(Reason::ConvertError)?;
            wire::put_bytes(into, 1, &self.envelope);
            return Ok(1);
        }
        let before = into.len();
        for element in line.elements() {
            let member = match Is::of(element.id) {
                None | Some(Is::Tags) => continue,
                Some(Is::Counter) => self.counter(&element).map(|()| 5),
                Some(Is::Gauge) => self.gauge(&element).map(|()| 6),
                Some(Is::Timer) => self.timer(&element).map(|()| 7),
                Some(Is::Event) => self.event(&element).map(|()| 10),
            };
            let Some(member) = member else {
                into.truncate(before);
                return Err(Reason::ConvertError);
            };
            self.envelope.truncate(head);
            wire::put_bytes(&mut self.envelope, member, &self.message);
            wire::put_bytes(into, 1, &self.envelope);
        }
        Ok(metrics)
    }

    /// Begins an envelope with everything but its member.
    fn put_head(&mut self, line: &Line<'_>, received: i64) -> Option<()> {
        let Self { envelope, text, .. } = self;
        envelope.clear();
        put_number(envelope, 1, line.timestamp.unwrap_or(received).cast_unsigned());
        edit::put_source_id(envelope, line.app_name?);
        put_some(envelope, 8, instance(line.process?));
        for element in line.elements().filter(|element| Is::of(element.id) == Some(Is::Tags)) {
            for param in element.params() {
                text.clear();
                put_unescaped(text, param.value);
                edit::put_tag(envelope, param.name, text);
            }
        }
        Some(())
    }

    fn put_log(&mut self, line: &Line<'_>, trim: bool) -> Option<()> {
        let message = (!line.message.is_empty()).then_some(line.message)?;
        let payload = if trim { trimmed(message) } else { message.strip_suffix(b"\n").unwrap_or(message) };
        self.message.clear();
        put_some(&mut self.message, 1, payload);
        put_number(&mut self.message, 2, u64::from(line.priority == STANDARD_ERROR));
        wire::put_bytes(&mut self.envelope, 4, &self.message);
        Some(())
    }

    fn counter(&mut self, element: &Element<'_>) -> Option<()> {
        self.begin(element, b"name");
        put_number(&mut self.message, 2, number::unsigned(element.get(b"delta")?)?);
        put_number(&mut self.message, 3, number::unsigned(element.get(b"total")?)?);
        Some(())
    }

    fn gauge(&mut self, element: &Element<'_>) -> Option<()> {
        let value = number::float(element.get(b"value")?)?;
        self.text.clear();
        put_unescaped(&mut self.text, element.get(b"unit")?);
        // A `GaugeValue`, in the entry of the map, in the gauge.
        let inner = wire::bytes_len(self.text.len()) + 1 + 8;
        let name = element.get(b"name").unwrap_or_default();
        let name_len = name.len() - escapes(name);
        let Self { message, text, .. } = self;
        message.clear();
        put_key(message, 1, WireType::Len);
        wire::put_varint(message, (wire::bytes_len(name_len) + wire::bytes_len(inner)) as u64);
        put_key(message, 1, WireType::Len);
        wire::put_varint(message, name_len as u64);
        put_unescaped(message, name);
        put_key(message, 2, WireType::Len);
        wire::put_varint(message, inner as u64);
        wire::put_bytes(message, 1, text);
        put_key(message, 2, WireType::Fixed64);
        message.extend_from_slice(&value.to_le_bytes());
        Some(())
    }

    fn timer(&mut self, element: &Element<'_>) -> Option<()> {
        self.begin(element, b"name");
        put_number(&mut self.message, 2, number::signed(element.get(b"start")?)?.cast_unsigned());
        put_number(&mut self.message, 3, number::signed(element.get(b"stop")?)?.cast_unsigned());
        Some(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other members")]
    fn event(&mut self, element: &Element<'_>) -> Option<()> {
        self.begin(element, b"title");
        self.put_text(element, b"body", 2);
        Some(())
    }

    /// Begins a member with a text as its first field.
    fn begin(&mut self, element: &Element<'_>, name: &[u8]) {
        self.message.clear();
        self.put_text(element, name, 1);
    }

    /// Appends the text of a parameter to the member; one that is not there is empty.
    fn put_text(&mut self, element: &Element<'_>, name: &[u8], number: u32) {
        self.text.clear();
        put_unescaped(&mut self.text, element.get(name).unwrap_or_default());
        put_some(&mut self.message, number, &self.text);
    }
}

/// The instance in a PROCID: what follows the last slash within the brackets.
fn instance(process: &[u8]) -> &[u8] {
    let is_bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let start = process.iter().position(|byte| !is_bracket(byte)).unwrap_or(process.len());
    let end = process.iter().rposition(|byte| !is_bracket(byte)).map_or(start, |last| last + 1);
    let inner = &process[start..end];
    inner.iter().rposition(|byte| *byte == b'/').map_or(inner, |slash| &inner[slash + 1..])
}

/// Without the white space at both ends: Unicode's, where it is text, else that of ASCII.
fn trimmed(message: &[u8]) -> &[u8] {
    match std::str::from_utf8(message) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => {
            let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
            let start = message.iter().position(|byte| !is_space(byte)).unwrap_or(message.len());
            let end = message.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
            &message[start..end]
        }
    }
}

/// Backslashes in a value that only escape.
fn escapes(value: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while let Some(next) = value[at..].iter().position(|byte| *byte == b'\\') {
        count += 1;
        at = (at + next + 2).min(value.len());
    }
    count
}

fn put_key(into: &mut Vec<u8>, number: u32, wire_type: WireType) {
    wire::put_varint(into, u64::from(number) << 3 | wire_type as u64);
}

/// Appends a number, unless it is zero.
fn put_number(into: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_key(into, number, WireType::Varint);
        wire::put_varint(into, value);
    }
}

/// Appends a text, unless it is empty.
fn put_some(into: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        wire::put_bytes(into, number, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use proto::v2::{Envelope, EnvelopeBatch};

    use super::*;

    fn made(line: &[u8]) -> Result<Vec<Envelope>, Reason> {
        let mut bytes = Vec::new();
        let made = Line::parse(line).and_then(|line| Maker::default().put(&line, 7, true, &mut bytes));
        assert_eq!(made.is_err(), bytes.is_empty());
        let batch = EnvelopeBatch::decode(&bytes[..]).unwrap().batch;
        made.map(|count| assert_eq!(count, batch.len())).map(|()| batch)
    }

    #[test]
    fn several_metrics_are_several_envelopes_with_the_same_tags() {
        let line = "<14>1 - h app [2] - [tags@1 a=\"\\]\"][gauge@1 name=\"c\\\\\" value=\"0.5\" unit=\"%\"][tags@1 b=\"\"]\
                    [counter@1 name=\"r\" delta=\"1\" total=\"2\"][timer@1 name=\"t\" start=\"-1\" stop=\"3\"]\
                    [event@1 title=\"x\" body=\"y\\\"\"] text";
        let about = |envelope: Envelope| envelope.at(7).instance("2").tag("a", "]").tag("b", "");
        let mut counter = Envelope::counter("app", "r", 1);
        if let Some(proto::v2::envelope::Message::Counter(counter)) = &mut counter.message {
            counter.total = 2;
        }
        let expected = [
            Envelope::gauge("app", "c\\", 0.5, "%"),
            counter,
            Envelope::timer("app", "t", -1, 3),
            Envelope::event("app", "x", "y\""),
        ];
        assert_eq!(made(line.as_bytes()).unwrap(), expected.map(about));
    }

    #[test]
    fn one_bad_metric_costs_its_message_and_so_do_too_many() {
        let bad = "<14>1 - h app [2] - [counter@1 name=\"r\" delta=\"1\" total=\"2\"][timer@1 name=\"t\"]";
        assert_eq!(made(bad.as_bytes()), Err(Reason::ConvertError));
        let many = |count: usize| format!("<14>1 - h app [2] - {}", "[event title=\"x\"]".repeat(count));
        assert_eq!(made(many(MAX_METRICS).as_bytes()).unwrap().len(), MAX_METRICS);
        assert_eq!(made(many(MAX_METRICS + 1).as_bytes()), Err(Reason::TooMany));
    }

    #[test]
    fn a_payload_keeps_its_inner_space_and_without_trimming_all_but_one_line_feed() {
        assert_eq!(trimmed(b"\t a \n b\x0b\n"), b"a \n b");
        assert_eq!(trimmed("\u{a0}é\u{2003}".as_bytes()), "é".as_bytes());
        assert_eq!(trimmed(b" \xff\x0b\n"), b"\xff");
        let line = Line::parse(b"<14>1 - h app 1 - -  a\n\n").unwrap();
        let mut bytes = Vec::new();
        Maker::default().put(&line, 7, false, &mut bytes).unwrap();
        assert_eq!(EnvelopeBatch::decode(&bytes[..]).unwrap().batch[0].payload(), b" a\n");
    }

    proptest! {
        /// Any bytes either are refused or become as many envelopes as is said, and cost no more room than a fixed multiple of theirs.
        #[test]
        fn any_bytes_cost_no_more_than_what_they_are(
            head in "(<[0-9]{1,3}>[0-9] )?[-0-9TZ:.+]{1,30} h [a-z]{1,3} [a-z0-9/\\[\\]]{1,5} - ",
            body in proptest::collection::vec(any::<u8>(), 0..200),
            elements in "(\\[(tags|gauge|counter|timer|event)@1( (name|value|unit|delta|total|start|stop|body)=\"([a-c0-9]|\\\\\\\\|\\\\\"){0,3}\"){0,4}\\]){0,20}",
        ) {
            let line = [head.as_bytes(), elements.as_bytes(), b" ", &body].concat();
            for line in [&line[..], &body] {
                let mut bytes = Vec::new();
                if let Ok(line) = Line::parse(line) {
                    let _refused = Maker::default().put(&line, 7, true, &mut bytes);
                }
                prop_assert!(bytes.len() <= (2 * line.len() + 32) * MAX_METRICS);
                prop_assert!(EnvelopeBatch::decode(&bytes[..]).is_ok() || std::str::from_utf8(line).is_err());
            }
            let _any = made(&line[..0]);
        }
    }
}
