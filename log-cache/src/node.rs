//! A cache node as those see it who bring it envelopes: its store, and where sources are placed on several nodes the others too.
//!
//! What enters: checked batches. What leaves: puts to the store.

use proto::raw::Selection;

use crate::store::Store;

/// Takes envelopes in. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Node {
    store: Store,
}

impl From<Store> for Node {
    /// A node alone: everything is its own.
    fn from(store: Store) -> Self {
        Self { store }
    }
}

impl Node {
    /// Stores what is its own.
    pub fn put(&self, selection: &Selection) {
        self.store.put(selection);
    }
}
