//! What an encoded envelope says: the names, values and payloads of its message.
//!
//! What enters: envelopes that have passed the walker, or what a packed segment keeps of them: their fields without source, time and
//! labels. What leaves: parts of them, borrowed. Reads what a decoder would: later fields of a message replace or join earlier ones, and
//! a member of the oneof that was replaced does not count. Never fails: it ends where a message stops being well-formed.

use proto::raw::Kind;
use proto::raw::wire::{Fields, WireType};

/// One value of a counter, a gauge or a timer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Metric<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) unit: &'a [u8],
    /// The total of a counter, the value of a gauge, nanoseconds of a timer (contract `log-cache.md` §3).
    pub(crate) value: f64,
}

/// Calls `visit` with every metric of an envelope of this kind. Entries of a gauge come as they stand; of a name that is there twice the
/// later one counts.
pub(crate) fn metrics<'a>(kind: Kind, envelope: &'a [u8], mut visit: impl FnMut(Metric<'a>)) {
    match kind {
        Kind::Counter | Kind::Timer => {
            let (mut name, mut second, mut third): (&[u8], u64, u64) = (&[], 0, 0);
            each_part(envelope, kind, |message| {
                let mut fields = Fields::new(message);
                while let Some((number, value)) = next(&mut fields) {
                    match (number, value) {
                        (1, Value::Bytes(bytes)) => name = bytes,
                        (2, Value::Number(number)) => second = number,
                        (3, Value::Number(number)) => third = number,
                        _ => {}
                    }
                }
            });
            #[expect(clippy::cast_precision_loss, reason = "samples are floating-point numbers")]
            let value = match kind {
                Kind::Counter => third as f64,
                // Start and stop are signed.
                _ => third.cast_signed().wrapping_sub(second.cast_signed()) as f64,
            };
            visit(Metric { name, unit: &[], value });
        }
        Kind::Gauge => each_part(envelope, kind, |message| {
            let mut fields = Fields::new(message);
            while let Some((number, value)) = next(&mut fields) {
                if let (1, Value::Bytes(entry)) = (number, value) {
                    visit(gauge_entry(entry));
                }
            }
        }),
        Kind::None | Kind::Log | Kind::Event => {}
    }
}

fn gauge_entry(entry: &[u8]) -> Metric<'_> {
    let mut metric = Metric { name: &[], unit: &[], value: 0.0 };
    let mut fields = Fields::new(entry);
    while let Some((number, value)) = next(&mut fields) {
        match (number, value) {
            (1, Value::Bytes(name)) => metric.name = name,
            (2, Value::Bytes(value)) => {
                let mut fields = Fields::new(value);
                while let Some((number, value)) = next(&mut fields) {
                    match (number, value) {
                        (1, Value::Bytes(unit)) => metric.unit = unit,
                        (2, Value::Double(value)) => metric.value = value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    metric
}

/// The payload of a log envelope.
pub(crate) fn payload(envelope: &[u8]) -> &[u8] {
    let mut payload: &[u8] = &[];
    each_part(envelope, Kind::Log, |message| payload = text(message).unwrap_or(payload));
    payload
}

/// Calls `part` with every occurrence of the oneof member that `kind` names since another one was set last: what a reader merges.
pub(crate) fn each_part<'a>(envelope: &'a [u8], kind: Kind, mut part: impl FnMut(&'a [u8])) {
    let wanted = match kind {
        Kind::Log => 4,
        Kind::Counter => 5,
        Kind::Gauge => 6,
        Kind::Timer => 7,
        Kind::Event => 10,
        Kind::None => return,
    };
    // What a packed segment keeps of nearly every envelope: its member alone.
    let mut fields = Fields::new(envelope);
    if let (Ok((number, WireType::Len)), Ok(message)) = (fields.key(), fields.bytes())
        && number == wanted
        && fields.is_done()
    {
        return part(message);
    }
    // As nearly every envelope is: one member.
    let (mut only, mut members) = (None, 0);
    for_each(envelope, |number, _, field| {
        if is_member(number) {
            members += 1;
            only = Some((number, field));
        }
    });
    match (members, only) {
        (0, _) | (_, None) => {}
        (1, Some((number, field))) => {
            if number == wanted {
                part(content(field));
            }
        }
        _ => {
            let (mut last_other, mut at) = (0, 0);
            for_each(envelope, |number, _, field| {
                at += field.len();
                if is_member(number) && number != wanted {
                    last_other = at;
                }
            });
            for_each(&envelope[last_other..], |number, _, field| {
                if number == wanted {
                    part(content(field));
                }
            });
        }
    }
}

/// The last value of field 1: the payload of a log; the name in a counter, a timer or an entry of a gauge's map.
pub(crate) fn text(message: &[u8]) -> Option<&[u8]> {
    let mut last = None;
    for_each(message, |number, wire_type, field| {
        if (number, wire_type) == (1, WireType::Len) {
            last = Some(content(field));
        }
    });
    last
}

/// The number of a member of the envelope's oneof.
pub(crate) fn is_member(number: u32) -> bool {
    matches!(number, 4..=7 | 10)
}

/// Calls `visit` with every field, its key included.
pub(crate) fn for_each<'a>(message: &'a [u8], mut visit: impl FnMut(u32, WireType, &'a [u8])) {
    let mut fields = Fields::new(message);
    while !fields.is_done() {
        let begin = fields.position();
        let Ok((number, wire_type)) = fields.key() else { return };
        if fields.skip(number, wire_type).is_err() {
            return;
        }
        visit(number, wire_type, &message[begin..fields.position()]);
    }
}

/// What a length-delimited field holds.
pub(crate) fn content(field: &[u8]) -> &[u8] {
    let mut fields = Fields::new(field);
    match fields.key().and_then(|_| fields.bytes()) {
        Ok(bytes) => bytes,
        Err(_) => &[],
    }
}

enum Value<'a> {
    Bytes(&'a [u8]),
    Number(u64),
    Double(f64),
    Other,
}

fn next<'a>(fields: &mut Fields<'a>) -> Option<(u32, Value<'a>)> {
    if fields.is_done() {
        return None;
    }
    let (number, wire_type) = fields.key().ok()?;
    let value = match wire_type {
        WireType::Len => Value::Bytes(fields.bytes().ok()?),
        WireType::Varint => Value::Number(fields.varint().ok()?),
        WireType::Fixed64 => Value::Double(f64::from_le_bytes(fields.fixed(8).ok()?.try_into().ok()?)),
        WireType::StartGroup | WireType::EndGroup | WireType::Fixed32 => {
            fields.skip(number, wire_type).ok()?;
            Value::Other
        }
    };
    Some((number, value))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::v2::Envelope;

    use super::*;

    fn all(kind: Kind, envelope: &[u8]) -> Vec<(String, String, f64)> {
        let mut found = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        metrics(kind, envelope, |metric| found.push((text(metric.name), text(metric.unit), metric.value)));
        found
    }

    #[test]
    fn values_are_the_total_the_gauge_and_the_duration() {
        let counter = Envelope::counter("s", "hits", 3).encode_to_vec();
        assert_eq!(all(Kind::Counter, &counter), [("hits".into(), String::new(), 0.0)], "no total, so none");
        let gauge = Envelope::gauge("s", "cpu", 1.5, "percentage").encode_to_vec();
        assert_eq!(all(Kind::Gauge, &gauge), [("cpu".into(), "percentage".into(), 1.5)]);
        let timer = Envelope::timer("s", "http", -5, 20).encode_to_vec();
        assert_eq!(all(Kind::Timer, &timer), [("http".into(), String::new(), 25.0)]);
        assert!(all(Kind::Log, &Envelope::log("s", "x").encode_to_vec()).is_empty());
    }

    #[test]
    fn a_payload_is_the_last_one() {
        let mut envelope = Envelope::log("s", "first").encode_to_vec();
        envelope.extend(Envelope::log("", "second").encode_to_vec());
        assert_eq!(payload(&envelope), b"second");
        envelope.extend(Envelope::counter("", "c", 1).encode_to_vec());
        assert_eq!(payload(&envelope), b"", "no log any more");
    }

    #[test]
    fn what_is_broken_ends_it() {
        for end in 0..40 {
            let gauge = Envelope::gauge("s", "cpu", 1.5, "percentage").encode_to_vec();
            all(Kind::Gauge, &gauge[..end.min(gauge.len())]);
            all(Kind::Timer, &gauge[..end.min(gauge.len())]);
        }
    }
}
