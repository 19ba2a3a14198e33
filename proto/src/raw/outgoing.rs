//! What one outgoing `EnvelopeBatch` is made of.

use bytes::BufMut;
use prost::Message;

use super::batch::Entry;
use super::selection::Selection;
use super::wire::{WireType, bytes_len, put_varint, varint_len};
use crate::hydrant::v1::SubscribeFrame;

/// Parts of batches that leave as one `EnvelopeBatch`. The receiver sees exactly the bytes their senders wrote.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    parts: Vec<Selection>,
}

impl From<Vec<Selection>> for Outgoing {
    fn from(parts: Vec<Selection>) -> Self {
        Self { parts }
    }
}

impl From<Selection> for Outgoing {
    fn from(part: Selection) -> Self {
        Self { parts: vec![part] }
    }
}

impl Outgoing {
    /// Packs parts into messages of at most `envelopes` envelopes and `bytes` bytes, in order; a single larger envelope goes alone.
    pub fn bounded(parts: impl IntoIterator<Item = Selection>, envelopes: usize, bytes: usize) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let (mut count, mut size) = (envelopes, bytes);
        for part in parts {
            let mut rest = Some(part);
            while let Some(mut part) = rest.take().filter(|part| !part.is_empty()) {
                if all.is_empty() || count + part.len() > envelopes || size + part.wire_len() > bytes {
                    all.push(Self::default());
                    (count, size) = (0, 0);
                    if part.len() > envelopes || part.wire_len() > bytes {
                        rest = part.split_off(fitting(&part, envelopes, bytes));
                    }
                }
                (count, size) = (count + part.len(), size + part.wire_len());
                all.last_mut().expect("one was pushed").parts.push(part);
            }
        }
        all
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Selection] {
        &self.parts
    }

    /// Number of envelopes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Selection::len).sum()
    }

    /// True when it holds no envelope.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Selection::is_empty)
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        self.parts.iter().map(Selection::wire_len).sum()
    }

    /// Appends the encoded `EnvelopeBatch`.
    pub fn put(&self, into: &mut impl BufMut) {
        for part in &self.parts {
            part.put(into);
        }
    }
}

/// A `hydrant.v1.IngressFrame` on its way out: its batch is written straight into the gRPC frame.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// 1 for the first frame of a stream, then one more each.
    pub sequence: u64,
    /// The envelopes.
    pub batch: Outgoing,
}

impl OutgoingFrame {
    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        1 + varint_len(self.sequence) + bytes_len(self.batch.wire_len())
    }

    /// Appends the encoded frame.
    pub fn put(&self, into: &mut impl BufMut) {
        put_varint(into, 1 << 3 | WireType::Varint as u64);
        put_varint(into, self.sequence);
        put_varint(into, 2 << 3 | WireType::Len as u64);
        put_varint(into, self.batch.wire_len() as u64);
        self.batch.put(into);
    }
}

/// A `hydrant.v1.SubscribeFrame` on its way out: its batch is written straight into the gRPC frame.
#[derive(Clone, Debug, Default)]
pub struct OutgoingSubscribeFrame {
    /// Everything but the batch, which must be empty here.
    pub frame: SubscribeFrame,
    /// The envelopes.
    pub batch: Outgoing,
}

impl OutgoingSubscribeFrame {
    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        let batch = self.batch.wire_len();
        self.frame.encoded_len() + if batch > 0 { bytes_len(batch) } else { 0 }
    }

    /// Appends the encoded frame.
    pub fn put(&self, into: &mut impl BufMut) {
        debug_assert!(self.frame.batch.is_empty(), "the batch stands beside the frame");
        self.frame.encode_raw(into);
        let batch = self.batch.wire_len();
        if batch > 0 {
            put_varint(into, 1 << 3 | WireType::Len as u64);
            put_varint(into, batch as u64);
            self.batch.put(into);
        }
    }
}

/// The first envelopes of `part` that keep within the bounds, at least one.
fn fitting(part: &Selection, envelopes: usize, bytes: usize) -> usize {
    let mut size = 0;
    let fits = |entry: &&Entry| {
        size += bytes_len(entry.size());
        size <= bytes
    };
    part.entries().take(envelopes).take_while(fits).count().max(1)
}
