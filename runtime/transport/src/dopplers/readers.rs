//! One reader for each doppler of a set, as dopplers come and go.
//!
//! What enters: the live set. What leaves: a call for each doppler that is to be read from now on, with what is known of it. It reads
//! nothing itself, and knows nothing of what readers know.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Address, Dopplers, MAX_DOPPLERS, Stay};

/// What is known of dopplers that nobody reads now. Cloning shares it.
#[derive(Debug)]
pub struct Met<K>(Arc<Mutex<HashMap<Address, K>>>);

impl<K> Clone for Met<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Met<K> {
    /// Keeps what a reader that ends knows of its doppler, for the next one.
    pub fn put(&self, address: &Address, known: K) {
        let mut all = self.0.lock();
        if all.len() < MAX_DOPPLERS || all.contains_key(address) {
            all.insert(address.clone(), known);
        }
    }

    fn take(&self, address: &Address) -> Option<K> {
        self.0.lock().remove(address)
    }
}

impl Dopplers {
    /// Calls `start` for each doppler that nobody reads, now and as the set changes, until `stop`. A reader gets what was known of its
    /// doppler: `present` of one that is in the set from the beginning, `newcomer` of one that comes, or what the reader before it has
    /// [put](Met::put). Its [`Stay`] tells it when its doppler has left the set.
    pub async fn read_each<K: Clone>(
        mut self,
        (present, newcomer): (K, K),
        stop: &CancellationToken,
        mut start: impl FnMut(Address, K, Stay, Met<K>),
    ) {
        let (met, mut read) = (Met(Arc::default()), HashMap::<Address, Stay>::new());
        let mut current = self.current();
        current.iter().for_each(|address| met.put(address, present.clone()));
        loop {
            // One that has left the set is read to its end.
            read.retain(|address, stay| stay.set(current.contains(address)));
            for address in current.iter().filter(|address| !read.contains_key(*address)).cloned().collect::<Vec<_>>() {
                let (stay, known) = (Stay::default(), met.take(&address).unwrap_or_else(|| newcomer.clone()));
                start(address.clone(), known, stay.clone(), met.clone());
                read.insert(address, stay);
            }
            match stop.run_until_cancelled(self.changed()).await {
                Some(changed) => current = changed,
                None => return,
            }
        }
    }
}
