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

    /// Puts the envelopes of `more` behind these.
    pub fn append(&mut self, more: Self) {
        self.parts.extend(more.parts);
    }

    /// The parts, in order.
    pub fn parts(&self) -> &[Selection] {
        &self.parts
    }

    /// The parts, in order, to go other ways.
    pub fn into_parts(self) -> Vec<Selection> {
        self.parts
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
#[derive(Clone, Debug, Default)]
pub struct OutgoingFrame {
    /// One more than the last frame's.
    pub sequence: u64,
    /// The envelopes.
    pub batch: Outgoing,
    /// In the first frame of a stream: its sender, as (process, stream). Such a frame has no batch.
    pub sender: Option<(u64, u64)>,
    /// Ask to be acknowledged only when what came before has left for those subscribed. Such a frame has no batch.
    pub flush: bool,
}

impl OutgoingFrame {
    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        let sequence = 1 + varint_len(self.sequence);
        let batch = if self.batch.is_empty() { 0 } else { bytes_len(self.batch.wire_len()) };
        let sender = self.sender.map_or(0, |sender| bytes_len(sender_len(sender)));
        sequence + batch + sender + if self.flush { 2 } else { 0 }
    }

    /// Appends the encoded frame.
    pub fn put(&self, into: &mut impl BufMut) {
        put_varint(into, 1 << 3 | WireType::Varint as u64);
        put_varint(into, self.sequence);
        if !self.batch.is_empty() {
            put_varint(into, 2 << 3 | WireType::Len as u64);
            put_varint(into, self.batch.wire_len() as u64);
            self.batch.put(into);
        }
        if let Some(sender) = self.sender {
            put_varint(into, 3 << 3 | WireType::Len as u64);
            put_varint(into, sender_len(sender) as u64);
            for (number, value) in [(1, sender.0), (2, sender.1)] {
                put_varint(into, number << 3 | WireType::Varint as u64);
                put_varint(into, value);
            }
        }
        if self.flush {
            put_varint(into, 4 << 3 | WireType::Varint as u64);
            put_varint(into, 1);
        }
    }
}

fn sender_len((process, stream): (u64, u64)) -> usize {
    2 + varint_len(process) + varint_len(stream)
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::hydrant::v1::{IngressFrame, Sender};
    use crate::raw::Batch;

    #[test]
    fn a_frame_is_what_prost_reads() {
        let batch = Outgoing::from(Selection::from(Batch::index(bytes::Bytes::from_static(&[0x0a, 0, 0x0a, 0])).0));
        let large = u64::MAX;
        for frame in [
            OutgoingFrame { sequence: 300, batch, ..OutgoingFrame::default() },
            OutgoingFrame { sequence: 7, sender: Some((large, 3)), ..OutgoingFrame::default() },
            OutgoingFrame { sequence: 8, flush: true, ..OutgoingFrame::default() },
            OutgoingFrame::default(),
        ] {
            let mut bytes = Vec::new();
            frame.put(&mut bytes);
            assert_eq!(bytes.len(), frame.wire_len());
            let read = IngressFrame::decode(bytes.as_slice()).expect("well-formed");
            assert_eq!(
                (read.sequence, read.flush, read.batch.len()),
                (frame.sequence, frame.flush, frame.batch.wire_len())
            );
            assert_eq!(read.sender, frame.sender.map(|(process, stream)| Sender { process, stream }));
        }
    }
}
