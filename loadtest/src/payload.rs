//! The envelopes of a load: encoded once per sender, patched per send, recognised at the other end.
//!
//! A log's payload is text of a fixed layout, so that a drain or a terminal on the way shows something readable:
//!
//! ```text
//! loadtest <run, 16 hex digits> <sender, 8> <sequence, 16> <scheduled time, 16> abcdefg…
//! ```
//!
//! Sending an envelope costs its patched digits and one copy into the frame; reading one costs a comparison and its digits. Neither
//! allocates or decodes.

use std::sync::Arc;

use bytes::BufMut;
use proto::codec::Write;
use proto::raw::Malformed;
use proto::raw::wire::{Fields, WireType, put_bytes};
use proto::v2;

const MAGIC: &[u8] = b"loadtest ";
const SENDER_AT: usize = MAGIC.len() + 17;
const SEQUENCE_AT: usize = SENDER_AT + 9;
const SCHEDULED_AT: usize = SEQUENCE_AT + 17;
const FILLER_AT: usize = SCHEDULED_AT + 17;

/// Timestamps from here on, to the end of `i64`, take nine bytes on the wire. Reached in 1972.
pub(crate) const NINE_BYTES: u64 = 1 << 56;

/// What every envelope of a load looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Shape {
    /// Bytes of a log's payload. Less than 69, which the marks take, counts as 69.
    pub payload_bytes: usize,
    /// Tags of each envelope.
    pub tags: usize,
}

impl Default for Shape {
    /// The shape that this project's figures are for: 200 bytes and ten tags, about 433 bytes in all.
    fn default() -> Self {
        Self { payload_bytes: 200, tags: 10 }
    }
}

impl Shape {
    fn filler(self) -> Vec<u8> {
        (b'a'..=b'z').cycle().take(self.payload_bytes.saturating_sub(FILLER_AT)).collect()
    }
}

/// What one envelope of a load says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which sender, from 0.
    pub sender: u32,
    /// Counts the sender's envelopes, from 0.
    pub sequence: u64,
    /// When it should have been sent: nanoseconds since the Unix epoch.
    pub scheduled: u64,
}

/// One sender's envelope, encoded, and where to patch it.
#[derive(Debug)]
pub struct Template {
    /// As field 1 of an `EnvelopeBatch`.
    frame: Vec<u8>,
    timestamp_at: usize,
    sequence_at: usize,
    scheduled_at: usize,
}

impl Template {
    /// Encodes the envelope of `sender`, who speaks as (`source_id`, `instance_id`).
    pub fn new(run: u64, sender: u32, source_id: &str, instance_id: &str, shape: Shape) -> Arc<Self> {
        let mut payload = format!("loadtest {run:016x} {sender:08x} {:016x} {:016x} ", 0, 0).into_bytes();
        payload.extend(shape.filler());
        let mut envelope =
            v2::Envelope::log(source_id, payload.clone()).at(NINE_BYTES.cast_signed()).instance(instance_id);
        for (key, value) in TAGS.iter().take(shape.tags) {
            envelope = envelope.tag(*key, *value);
        }
        for extra in TAGS.len()..shape.tags {
            envelope = envelope.tag(format!("tag-{extra:04}"), format!("value-{extra:04}"));
        }
        let mut encoded = Vec::with_capacity(envelope.size());
        envelope.write(&mut encoded);
        let mut frame = Vec::with_capacity(encoded.len() + 6);
        put_bytes(&mut frame, 1, &encoded);

        let envelope_at = frame.len() - encoded.len();
        let payload_at = envelope_at + payload_at(&encoded).expect("encoded just above, with a payload");
        // The timestamp is field 1, which encoders write first: its key takes one byte.
        Arc::new(Self {
            frame,
            timestamp_at: envelope_at + 1,
            sequence_at: payload_at + SEQUENCE_AT,
            scheduled_at: payload_at + SCHEDULED_AT,
        })
    }

    /// `count` envelopes from sequence `first` on, all due at `scheduled`, which also becomes their timestamp.
    pub fn load(self: &Arc<Self>, first: u64, count: u32, scheduled: u64) -> Load {
        Load { template: Arc::clone(self), first, count, scheduled }
    }

    /// Bytes of one envelope without its framing.
    pub fn envelope_bytes(&self) -> usize {
        self.frame.len() + 1 - self.timestamp_at
    }
}

/// An `EnvelopeBatch` to send. Written straight into the outgoing frame.
#[derive(Clone, Debug)]
pub struct Load {
    template: Arc<Template>,
    first: u64,
    count: u32,
    scheduled: u64,
}

impl Write for Load {
    fn size(&self) -> usize {
        self.count as usize * self.template.frame.len()
    }

    fn write(&self, into: &mut impl BufMut) {
        let template = &*self.template;
        let mut frame = template.frame.clone();
        put_nine_byte_varint(&mut frame[template.timestamp_at..], self.scheduled);
        put_hex::<16>(&mut frame[template.scheduled_at..], self.scheduled);
        for sequence in self.first..self.first + u64::from(self.count) {
            put_hex::<16>(&mut frame[template.sequence_at..], sequence);
            into.put_slice(&frame);
        }
    }
}

/// What a [`Reader`] makes of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is of this run, and whole.
    Ours(Mark),
    /// It is of this run, but its payload is not what was sent.
    Corrupt,
    /// It is none of this run.
    Foreign,
}

/// Recognises the envelopes of one run. Remembers what the last envelope had, as the next mostly has it too.
#[derive(Clone, Debug)]
pub struct Reader {
    prefix: [u8; SENDER_AT],
    filler: Vec<u8>,
    payload_at: usize,
    sender: ([u8; 8], u32),
    scheduled: ([u8; 16], u64),
}

impl Reader {
    /// A reader for envelopes of `run` with this `shape`.
    pub fn new(run: u64, shape: Shape) -> Self {
        let mut prefix = [b' '; SENDER_AT];
        prefix[..MAGIC.len()].copy_from_slice(MAGIC);
        put_hex::<16>(&mut prefix[MAGIC.len()..], run);
        Self { prefix, filler: shape.filler(), payload_at: 0, sender: ([b'0'; 8], 0), scheduled: ([b'0'; 16], 0) }
    }

    /// Reads one encoded envelope.
    pub fn read(&mut self, envelope: &[u8]) -> Found {
        let begins = |at: usize| envelope.get(at..).is_some_and(|payload| payload.starts_with(&self.prefix));
        if !begins(self.payload_at) {
            match payload_at(envelope) {
                Some(at) if begins(at) => self.payload_at = at,
                _ => return Found::Foreign,
            }
        }
        let payload = &envelope[self.payload_at..];
        self.marks(payload).map_or(Found::Corrupt, Found::Ours)
    }

    /// Reads one message that has the payload of an envelope somewhere in it, mostly where the last one had it.
    pub fn read_within(&mut self, message: &[u8]) -> Found {
        let begins = |at: usize| message.get(at..).is_some_and(|payload| payload.starts_with(&self.prefix));
        if !begins(self.payload_at) {
            match message.windows(SENDER_AT).position(|window| window == self.prefix) {
                Some(at) => self.payload_at = at,
                None => return Found::Foreign,
            }
        }
        self.marks(&message[self.payload_at..]).map_or(Found::Corrupt, Found::Ours)
    }

    /// Reads one line that has the payload of an envelope somewhere in it, as a drain writes it.
    pub fn read_line(&mut self, line: &[u8]) -> Found {
        let Some(at) = line.windows(SENDER_AT).position(|window| window == self.prefix) else { return Found::Foreign };
        self.marks(&line[at..]).map_or(Found::Corrupt, Found::Ours)
    }

    fn marks(&mut self, payload: &[u8]) -> Option<Mark> {
        if !payload.get(FILLER_AT..)?.starts_with(&self.filler) {
            return None;
        }
        let sender = payload[SENDER_AT..].first_chunk()?;
        if *sender != self.sender.0 {
            self.sender = (*sender, u32::try_from(hex(sender)?).ok()?);
        }
        let scheduled = payload[SCHEDULED_AT..].first_chunk()?;
        if *scheduled != self.scheduled.0 {
            self.scheduled = (*scheduled, hex(scheduled)?);
        }
        let sequence = hex(payload[SEQUENCE_AT..].first_chunk::<16>()?)?;
        Some(Mark { sender: self.sender.1, sequence, scheduled: self.scheduled.1 })
    }
}

/// Calls `each` with every encoded envelope of an `EnvelopeBatch`, in order.
///
/// # Errors
/// The batch is not well-formed from some point on; what stands before it has been handed out.
pub fn for_each_envelope(batch: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Malformed> {
    let mut fields = Fields::new(batch);
    while !fields.is_done() {
        match fields.key()? {
            (1, WireType::Len) => each(fields.bytes()?),
            (number, wire_type) => fields.skip(number, wire_type)?,
        }
    }
    Ok(())
}

/// Where the payload of a log envelope begins: field 1 of field 4.
fn payload_at(envelope: &[u8]) -> Option<usize> {
    let (log, log_at) = field(envelope, 4)?;
    let (_, at) = field(log, 1)?;
    Some(log_at + at)
}

/// The last length-delimited field of this number, and where its value begins.
fn field(message: &[u8], wanted: u32) -> Option<(&[u8], usize)> {
    let mut found = None;
    let mut fields = Fields::new(message);
    while !fields.is_done() {
        match fields.key().ok()? {
            (number, WireType::Len) if number == wanted => {
                let value = fields.bytes().ok()?;
                found = Some((value, fields.position() - value.len()));
            }
            (number, wire_type) => fields.skip(number, wire_type).ok()?,
        }
    }
    found
}

fn put_hex<const N: usize>(into: &mut [u8], value: u64) {
    for (i, digit) in into[..N].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(value >> (4 * (N - 1 - i))) as usize & 15];
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    const NIBBLES: [u8; 256] = {
        let mut nibbles = [0x80; 256];
        let mut i = 0;
        while i < 16 {
            nibbles[b"0123456789abcdef"[i] as usize] = i as u8;
            i += 1;
        }
        nibbles
    };
    let mut bad = 0;
    let mut value = 0;
    for &digit in digits {
        let nibble = NIBBLES[usize::from(digit)];
        bad |= nibble;
        value = value << 4 | u64::from(nibble & 15);
    }
    (bad & 0x80 == 0).then_some(value)
}

/// Overwrites a timestamp that takes nine bytes.
pub(crate) fn put_nine_byte_varint(into: &mut [u8], value: u64) {
    let value = value.clamp(NINE_BYTES, i64::MAX.cast_unsigned());
    for (i, byte) in into[..9].iter_mut().enumerate() {
        *byte = (value >> (7 * i)) as u8 & 0x7f | if i < 8 { 0x80 } else { 0 };
    }
}

/// Tags as an agent of a platform sets them; together with 200 bytes of payload they make an envelope of about 433 bytes.
const TAGS: [(&str, &str); 10] = [
    ("deployment", "cf-prod"),
    ("job", "diego-cell"),
    ("index", "6f2c1b9a"),
    ("ip", "10.0.16.37"),
    ("origin", "rep"),
    ("org_name", "acme"),
    ("space_name", "live"),
    ("app_name", "storefront"),
    ("process_type", "web"),
    ("process_instance", "0"),
];

#[cfg(test)]
mod tests;
