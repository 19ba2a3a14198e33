//! Routes by source, in many small maps: a reader loads one, a change replaces one. What enters: a source's bytes and their hash, which
//! the index of a batch has already.

use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hashbrown::{Equivalent, HashMap};

use super::routes::Routes;

/// Maps. A change copies one of them: a thousandth of all sources.
const SHARDS: usize = 1024;

/// The routes of every source that a subscription names.
#[derive(Debug)]
pub(super) struct Sources {
    shards: Box<[ArcSwap<Shard>]>,
    /// Sources in all of them.
    len: AtomicUsize,
}

type Shard = HashMap<SourceKey, Arc<Routes>, BuildHasherDefault<AsIs>>;

/// A source's bytes with their hash.
#[derive(Clone, Debug)]
struct SourceKey {
    hash: u64,
    id: Arc<[u8]>,
}

/// A borrowed [`SourceKey`].
struct SourceRef<'a> {
    hash: u64,
    id: &'a [u8],
}

impl Default for Sources {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(), len: AtomicUsize::new(0) }
    }
}

impl Sources {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of sources.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Calls `found` with the routes of a source, if somebody names it.
    pub(super) fn with(&self, hash: u64, id: &[u8], found: impl FnOnce(&Routes)) {
        if let Some(routes) = self.shard(hash).load().get(&SourceRef { hash, id }) {
            found(routes);
        }
    }

    /// Changes the routes of a source; those that become empty go. One caller at a time.
    pub(super) fn edit(&self, source: &str, change: impl FnOnce(&mut Routes)) {
        let id = source.as_bytes();
        let hash = proto::raw::source_hash(id);
        let shard = self.shard(hash);
        let mut map = Shard::clone(&shard.load());
        let mut routes = map.get(&SourceRef { hash, id }).map_or_else(Routes::default, |routes| Routes::clone(routes));
        change(&mut routes);
        let before = map.len();
        if routes.is_empty() {
            map.remove(&SourceRef { hash, id });
        } else {
            map.insert(SourceKey { hash, id: id.into() }, Arc::new(routes));
        }
        let (gone, new) = (before.saturating_sub(map.len()), map.len().saturating_sub(before));
        shard.store(Arc::new(map));
        self.len.fetch_add(new, Ordering::Relaxed);
        self.len.fetch_sub(gone, Ordering::Relaxed);
    }

    /// By bits that a map does not look at first.
    fn shard(&self, hash: u64) -> &ArcSwap<Shard> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl PartialEq for SourceKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.id == other.id
    }
}

impl Eq for SourceKey {}

impl Hash for SourceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for SourceRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<SourceKey> for SourceRef<'_> {
    fn equivalent(&self, key: &SourceKey) -> bool {
        self.hash == key.hash && *self.id == *key.id
    }
}

/// Takes hashes as they are: they are keyed and well mixed where they are made.
#[derive(Clone, Copy, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only whole hashes are written");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriptions::routes::Group;
    use proto::selector::Rule;

    /// The number of groups of a source.
    fn groups(sources: &Sources, hash: u64, id: &str) -> usize {
        let mut count = 0;
        sources.with(hash, id.as_bytes(), |routes| count = routes.groups.iter().count());
        count
    }

    #[test]
    fn sources_are_told_apart_also_when_their_hashes_are_not() {
        let sources = Sources::default();
        let hash = proto::raw::source_hash(b"app");
        for id in 0..3 {
            sources.edit("app", |routes| routes.groups.put(id, Arc::new(Group::new(id, Rule::Log))));
        }
        assert_eq!((groups(&sources, hash, "app"), sources.len()), (3, 1));
        assert_eq!(groups(&sources, hash, "another"), 0, "the same hash is not the same source");
        assert_eq!(groups(&sources, hash ^ 1, "app"), 0);
        for id in 0..3 {
            assert!(!sources.is_empty());
            sources.edit("app", |routes| routes.groups.remove(id));
        }
        assert!(sources.is_empty() && groups(&sources, hash, "app") == 0);
    }
}
