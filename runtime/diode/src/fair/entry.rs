//! One load in the ring, with what the ring knows of it, and on its way out.

use super::Load;
use super::table::NONE;

/// A load in the ring.
pub(super) struct Entry<T> {
    pub(super) load: T,
    /// The node of each envelope of `load`, `NONE` once it is evicted. Empty without a table.
    pub(super) nodes: Vec<u32>,
    /// Envelopes not evicted, and their bytes.
    pub(super) count: usize,
    pub(super) bytes: usize,
    /// Bytes its storage keeps alive.
    pub(super) held: usize,
    /// It has just been copied out: `held` is what these envelopes need.
    pub(super) tidy: bool,
}

/// A load on its way to the reader.
pub(super) struct Taken<T> {
    pub(super) load: T,
    pub(super) nodes: Vec<u32>,
    pub(super) count: usize,
}

impl<T: Load> Entry<T> {
    pub(super) fn piece(load: T, nodes: Vec<u32>, bytes: usize) -> Self {
        Self { count: nodes.len(), held: load.held(), bytes, load, nodes, tidy: true }
    }

    /// Bytes it would keep alive if it were copied out: no less than what it holds when that has just been done.
    pub(super) fn floor(&self) -> usize {
        if self.tidy { self.held } else { self.held.min(self.bytes) }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.floor() < self.held
    }

    /// Less than a quarter of it is left, in envelopes or in bytes.
    pub(super) fn is_sparse(&self) -> bool {
        !self.tidy && (self.count < self.nodes.len() / 4 || self.bytes < self.held / 4)
    }
}

impl<T: Load> Taken<T> {
    /// The load without what was evicted from it.
    pub(super) fn into_load(mut self) -> T {
        if self.count < self.nodes.len() {
            self.load.retain(&mut |at| self.nodes[at] != NONE);
        }
        self.load
    }
}
