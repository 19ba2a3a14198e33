//! A part of a batch: what one subscription keeps of it.

use bytes::{Bytes, BytesMut};

use super::batch::{Batch, Entry};
use super::wire;

/// Some or all envelopes of one batch, in order. It keeps the whole batch alive until [`Selection::compact`] copies it out.
#[derive(Clone, Debug)]
pub struct Selection {
    batch: Batch,
    /// Indices into the batch, ascending; `None` is all.
    keep: Option<Vec<u32>>,
}

impl From<Batch> for Selection {
    fn from(batch: Batch) -> Self {
        Self { batch, keep: None }
    }
}

impl Selection {
    /// The envelopes of `batch` at `keep`, which must be ascending indices into it.
    pub fn new(batch: Batch, keep: Vec<u32>) -> Self {
        debug_assert!(keep.is_sorted() && keep.last().is_none_or(|last| (*last as usize) < batch.len()));
        let keep = (keep.len() < batch.len()).then_some(keep);
        Self { batch, keep }
    }

    /// The batch it is a part of.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Number of envelopes.
    pub fn len(&self) -> usize {
        self.keep.as_ref().map_or(self.batch.len(), Vec::len)
    }

    /// True when it has no envelope.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`-th envelope's entry.
    ///
    /// # Panics
    /// When `i` is not below [`Selection::len`].
    pub fn entry(&self, i: usize) -> &Entry {
        let index = self.keep.as_ref().map_or(i, |keep| keep[i] as usize);
        &self.batch.entries()[index]
    }

    /// The entries, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> + Clone {
        (0..self.len()).map(|i| self.entry(i))
    }

    /// The encoded envelopes, in order.
    pub fn envelopes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.entries().map(|entry| self.batch.envelope(entry))
    }

    /// True when every envelope of the batch is kept.
    pub fn is_whole(&self) -> bool {
        self.keep.is_none()
    }

    /// Forgets the envelopes for which `keep` says false. It is asked once for each, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let kept: Vec<u32> = match &self.keep {
            None => (0..self.batch.len()).filter(|i| keep(*i)).map(|i| i as u32).collect(),
            Some(all) => all.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, index)| *index).collect(),
        };
        self.keep = (kept.len() < self.batch.len()).then_some(kept);
    }

    /// Bytes of the envelopes kept.
    pub fn kept(&self) -> usize {
        self.entries().map(Entry::size).sum()
    }

    /// Bytes kept alive: the whole batch, its index and the indices of this part.
    pub fn held(&self) -> usize {
        self.batch.held() + self.keep.as_ref().map_or(0, |keep| keep.capacity() * size_of::<u32>())
    }

    /// Copies what is kept into a batch of its own.
    pub fn compact(&self) -> Self {
        self.batch.copy_of(self.entries()).into()
    }

    /// Splits off what follows the first `at` envelopes; nothing if there are no more.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Option<Self> {
        let len = self.len();
        if at >= len {
            return None;
        }
        let index = |i: usize| self.keep.as_ref().map_or(i as u32, |keep| keep[i]);
        let rest = (at..len).map(index).collect();
        let first = (0..at).map(index).collect();
        let batch = self.batch.clone();
        self.keep = Some(first);
        Some(Self { batch, keep: Some(rest) })
    }

    /// Bytes of this part as an encoded `EnvelopeBatch`.
    pub fn wire_len(&self) -> usize {
        if self.is_whole() {
            return self.batch.wire_len();
        }
        self.entries().map(|entry| wire::bytes_len(entry.size())).sum()
    }

    /// This part as an encoded `EnvelopeBatch`: shared if it is all of a batch in the shortest form, else one copy.
    pub fn encode(&self) -> Bytes {
        let size = self.wire_len();
        if self.is_whole() && size == self.batch.bytes().len() {
            return self.batch.bytes().clone();
        }
        let mut out = BytesMut::with_capacity(size);
        self.put(&mut out);
        out.freeze()
    }

    /// Appends this part to an encoded `EnvelopeBatch`. Neighbours in the batch are written in one piece.
    pub fn put(&self, into: &mut impl bytes::BufMut) {
        let all = self.batch.bytes();
        let mut run = 0..0;
        for entry in self.entries() {
            match entry.framed() {
                Some(framed) if framed.start == run.end => run.end = framed.end,
                Some(framed) => {
                    into.put_slice(&all[run]);
                    run = framed;
                }
                None => {
                    into.put_slice(&all[run]);
                    run = 0..0;
                    wire::put_bytes(into, 1, self.batch.envelope(entry));
                }
            }
        }
        into.put_slice(&all[run]);
    }
}

impl diode::fair::Load for Selection {
    fn len(&self) -> usize {
        self.len()
    }

    fn source(&self, i: usize) -> u64 {
        self.entry(i).source
    }

    fn weight(&self, i: usize) -> usize {
        wire::bytes_len(self.entry(i).size()) + size_of::<Entry>()
    }

    fn bytes(&self) -> usize {
        self.wire_len() + self.len() * size_of::<Entry>()
    }

    fn held(&self) -> usize {
        self.held()
    }

    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        self.retain(keep);
    }

    fn copy_out(&self, kept: &[usize]) -> Self {
        self.batch.copy_of(kept.iter().map(|i| self.entry(*i))).into()
    }
}
