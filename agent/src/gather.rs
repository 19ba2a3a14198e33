//! Envelopes to a batch, written as bytes by whatever reads a source. Pure.
//!
//! What enters: an envelope's parts. What leaves: a [`Batch`] that every hop takes, and the counts of what was over a limit. Nothing is
//! allocated per envelope.

use bytes::Bytes;
use proto::raw::{Batch, Limits, Refused, edit, wire};
use proto::reason::Reason;

/// Bytes of envelopes after which a batch is full.
const FULL_BYTES: usize = 1024 * 1024;

/// Gathers envelopes until they are taken as one batch.
#[derive(Debug, Default)]
pub struct Gather {
    /// The encoded `EnvelopeBatch`, kept for its capacity.
    batch: Vec<u8>,
    /// The envelope at hand, kept for its capacity.
    envelope: Vec<u8>,
    /// A part of it that stands behind its length.
    part: Vec<u8>,
    envelopes: usize,
    refused: Refused,
    limits: Limits,
}

/// An envelope that lacks its message. Dropping it adds nothing.
#[derive(Debug)]
pub struct Draft<'a> {
    gather: &'a mut Gather,
    tags: usize,
    over: Option<Reason>,
}

/// Tags written once for many envelopes. Those over a limit of one tag, or past the number that an envelope may have, are left out.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    encoded: Vec<u8>,
    count: usize,
}

impl Tags {
    /// Adds one. Of two with one key the last counts.
    pub fn add(&mut self, key: &str, value: &str) {
        let limits = Limits::default();
        if self.count < limits.tags && wire::bytes_len(key.len()) + wire::bytes_len(value.len()) <= limits.tag_bytes {
            edit::put_tag(&mut self.encoded, key.as_bytes(), value.as_bytes());
            self.count += 1;
        }
    }
}

impl Gather {
    /// Starts an envelope, at `timestamp` nanoseconds since the Unix epoch.
    pub fn envelope(&mut self, source_id: &str, instance_id: &str, timestamp: i64) -> Draft<'_> {
        let over = (source_id.len() > self.limits.source_id_bytes || instance_id.len() > self.limits.tag_bytes)
            .then_some(Reason::Oversize);
        self.envelope.clear();
        if timestamp != 0 {
            wire::put_varint(&mut self.envelope, 1 << 3);
            wire::put_varint(&mut self.envelope, timestamp.cast_unsigned());
        }
        if !source_id.is_empty() {
            edit::put_source_id(&mut self.envelope, source_id.as_bytes());
        }
        if !instance_id.is_empty() {
            wire::put_bytes(&mut self.envelope, 8, instance_id.as_bytes());
        }
        Draft { gather: self, tags: 0, over }
    }

    /// Counts what could not become an envelope.
    pub fn refuse(&mut self, reason: Reason) {
        self.refused.count(reason);
    }

    /// True when the batch should be taken before it grows further.
    pub fn is_full(&self) -> bool {
        self.envelopes >= self.limits.envelopes || self.batch.len() >= FULL_BYTES
    }

    /// Envelopes gathered.
    pub fn len(&self) -> usize {
        self.envelopes
    }

    /// True if nothing has been gathered or refused.
    pub fn is_empty(&self) -> bool {
        self.envelopes == 0 && self.refused.total() == 0
    }

    /// What has been gathered since the last time; `None` if that is nothing. One allocation for the bytes, two for the index.
    pub fn take(&mut self) -> Option<(Batch, Refused)> {
        if self.is_empty() {
            return None;
        }
        let mut refused = std::mem::take(&mut self.refused);
        let (batch, broken) = Batch::index(Bytes::copy_from_slice(&self.batch));
        refused += broken;
        self.batch.clear();
        self.envelopes = 0;
        Some((batch, refused))
    }
}

impl Draft<'_> {
    /// Adds a tag. Of two with one key the last counts.
    pub fn tag(&mut self, key: &str, value: &str) -> &mut Self {
        let limits = &self.gather.limits;
        self.tags += 1;
        if self.tags > limits.tags {
            self.over = Some(Reason::TooMany);
        } else if wire::bytes_len(key.len()) + wire::bytes_len(value.len()) > limits.tag_bytes {
            self.over = Some(Reason::Oversize);
        } else {
            edit::put_tag(&mut self.gather.envelope, key.as_bytes(), value.as_bytes());
        }
        self
    }

    /// Adds tags written before.
    pub fn tags(&mut self, tags: &Tags) -> &mut Self {
        self.tags += tags.count;
        if self.tags > self.gather.limits.tags {
            self.over = Some(Reason::TooMany);
        }
        self.gather.envelope.extend_from_slice(&tags.encoded);
        self
    }

    /// Ends it as a log line; `err` says that it came on stderr.
    pub fn log(self, payload: &[u8], err: bool) {
        self.end(4, |log| {
            put_text(log, 1, payload);
            put_number(log, 2, err.into());
        });
    }

    /// Ends it as a counter that has grown by `delta`, or has reached `total` where that is known.
    pub fn counter(self, name: &str, delta: u64, total: u64) {
        self.end(5, |counter| {
            put_text(counter, 1, name.as_bytes());
            put_number(counter, 2, delta);
            put_number(counter, 3, total);
        });
    }

    /// Ends it as a gauge with these names, units and values.
    pub fn gauge<'b>(self, readings: impl IntoIterator<Item = (&'b str, &'b str, f64)>) {
        self.end(6, |gauge| {
            for (name, unit, value) in readings {
                let value_len = if value.to_bits() == 0 { 0 } else { 9 };
                let unit_len = if unit.is_empty() { 0 } else { wire::bytes_len(unit.len()) };
                let reading = unit_len + value_len;
                wire::put_varint(gauge, 1 << 3 | 2);
                wire::put_varint(gauge, (wire::bytes_len(name.len()) + wire::bytes_len(reading)) as u64);
                wire::put_bytes(gauge, 1, name.as_bytes());
                wire::put_varint(gauge, 2 << 3 | 2);
                wire::put_varint(gauge, reading as u64);
                put_text(gauge, 1, unit.as_bytes());
                if value_len > 0 {
                    wire::put_varint(gauge, 2 << 3 | 1);
                    gauge.extend_from_slice(&value.to_le_bytes());
                }
            }
        });
    }

    /// Ends it as a timer from `start` to `stop`, in nanoseconds since the Unix epoch.
    pub fn timer(self, name: &str, start: i64, stop: i64) {
        self.end(7, |timer| {
            put_text(timer, 1, name.as_bytes());
            put_number(timer, 2, start.cast_unsigned());
            put_number(timer, 3, stop.cast_unsigned());
        });
    }

    /// Ends it as an event.
    pub fn event(self, title: &str, body: &str) {
        self.end(10, |event| {
            put_text(event, 1, title.as_bytes());
            put_text(event, 2, body.as_bytes());
        });
    }

    fn end(self, number: u32, message: impl FnOnce(&mut Vec<u8>)) {
        let Gather { batch, envelope, part, envelopes, refused, limits } = self.gather;
        part.clear();
        message(part);
        wire::put_bytes(envelope, number, part);
        let over = self.over.or((envelope.len() > limits.envelope_bytes).then_some(Reason::Oversize));
        if let Some(reason) = over {
            return refused.count(reason);
        }
        wire::put_bytes(batch, 1, envelope);
        *envelopes += 1;
    }
}

/// Appends a text, unless it is empty.
fn put_text(into: &mut Vec<u8>, number: u32, text: &[u8]) {
    if !text.is_empty() {
        wire::put_bytes(into, number, text);
    }
}

/// Appends a number, unless it is zero.
fn put_number(into: &mut Vec<u8>, number: u64, value: u64) {
    if value != 0 {
        wire::put_varint(into, number << 3);
        wire::put_varint(into, value);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::raw::Selection;
    use proto::v2;
    use proto::v2::envelope::Message;

    use super::*;

    fn decoded(gather: &mut Gather) -> (Vec<v2::Envelope>, Refused) {
        let (batch, refused) = gather.take().unwrap();
        let mut bytes = Vec::new();
        Selection::from(batch).put(&mut bytes);
        let (checked, broken) = Batch::check(Bytes::from(bytes.clone()), &Limits::default());
        let batch = v2::EnvelopeBatch::decode(bytes.as_slice()).unwrap().batch;
        assert_eq!((checked.len(), broken.total()), (batch.len(), 0), "every hop takes what was built");
        (batch, refused)
    }

    #[test]
    fn every_kind_is_what_other_encoders_write() {
        let mut gather = Gather::default();
        let mut draft = gather.envelope("shop", "0", 5);
        draft.tag("origin", "a").tag("origin", "b");
        draft.log(b"hello", true);
        gather.envelope("shop", "", -5).counter("orders", 3, u64::MAX);
        gather.envelope("", "", 0).gauge([("cpu", "percentage", 2.5), ("zero", "", 0.0), ("minus", "", -0.0)]);
        gather.envelope("shop", "", 1).timer("http", -1, i64::MAX);
        gather.envelope("shop", "", 1).event("title", "");
        let (envelopes, refused) = decoded(&mut gather);
        assert_eq!(refused.total(), 0);
        let log = v2::Envelope::log("shop", "hello").at(5).err().tag("origin", "b");
        assert_eq!(envelopes[0], v2::Envelope { instance_id: "0".into(), ..log });
        let message = |i: usize| envelopes[i].message.clone().unwrap();
        assert_eq!(message(1), Message::Counter(v2::Counter { name: "orders".into(), delta: 3, total: u64::MAX }));
        assert_eq!(envelopes[1].timestamp, -5);
        let Message::Gauge(gauge) = message(2) else { panic!("{envelopes:?}") };
        assert_eq!(gauge.metrics["cpu"], v2::GaugeValue { unit: "percentage".into(), value: 2.5 });
        assert_eq!(gauge.metrics["minus"].value.to_bits(), (-0.0_f64).to_bits());
        assert_eq!(gauge.metrics["zero"], v2::GaugeValue::default());
        assert_eq!(message(3), Message::Timer(v2::Timer { name: "http".into(), start: -1, stop: i64::MAX }));
        assert_eq!(message(4), Message::Event(v2::Event { title: "title".into(), body: String::new() }));
        assert!(gather.take().is_none());
    }

    #[test]
    fn what_is_over_a_limit_is_counted_and_costs_the_others_nothing() {
        let mut gather = Gather::default();
        gather.envelope("a", "", 1).log(&vec![b'x'; 1024 * 1024], false);
        gather.envelope(&"s".repeat(257), "", 1).log(b"x", false);
        gather.envelope(&"s".repeat(256), "", 1).log(b"kept", false);
        let mut draft = gather.envelope("a", "", 1);
        for i in 0..129 {
            draft.tag(&i.to_string(), "");
        }
        draft.log(b"x", false);
        let mut draft = gather.envelope("a", "", 1);
        draft.tag("k", &"v".repeat(1024));
        draft.log(b"x", false);
        let mut draft = gather.envelope("a", "", 1);
        for i in 0..128 {
            draft.tag(&i.to_string(), "");
        }
        draft.log(b"kept", false);
        let _dropped = gather.envelope("a", "", 1);
        gather.refuse(Reason::DecodeError);
        let (envelopes, refused) = decoded(&mut gather);
        assert_eq!(envelopes.len(), 2);
        assert_eq!(refused, Refused { decode_error: 1, oversize: 3, too_many: 1, ..Refused::default() });
    }
}
