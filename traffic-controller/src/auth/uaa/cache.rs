//! Good answers, kept for a while: no more of them than there is room for, the least used going first. Refusals are never kept: what
//! was just allowed must not stay refused.

use std::hash::{Hash, RandomState};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Answers by what was asked.
pub(super) struct Cache<K, V> {
    ttl: Duration,
    /// With the time of each answer. Held for one look-up or one insertion.
    known: Mutex<LruCache<K, (Instant, V), RandomState>>,
}

impl<K: Hash + Eq, V: Copy> Cache<K, V> {
    /// Keeps `room` answers, each for `ttl`.
    pub(super) fn new(ttl: Duration, room: NonZeroUsize) -> Self {
        Self { ttl, known: Mutex::new(LruCache::with_hasher(room, RandomState::new())) }
    }

    /// The answer to `asked`, unless it is too old at `now`.
    pub(super) fn get(&self, asked: &K, now: Instant) -> Option<V> {
        let mut known = self.known.lock();
        let (at, answer) = *known.get(asked)?;
        if now.saturating_duration_since(at) < self.ttl {
            return Some(answer);
        }
        known.pop(asked);
        None
    }

    /// Keeps an answer that came for a question of the time `now`.
    pub(super) fn put(&self, asked: K, answer: V, now: Instant) {
        self.known.lock().put(asked, (now, answer));
    }

    /// How long answers are kept.
    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How many there are, those too old included.
    pub(super) fn len(&self) -> usize {
        self.known.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn cache(room: usize) -> Cache<u32, char> {
        Cache::new(TTL, NonZeroUsize::new(room).unwrap())
    }

    #[test]
    fn an_answer_lasts_so_long_from_the_question_on_however_often_it_is_read() {
        let (cache, start) = (cache(2), Instant::now());
        cache.put(1, 'a', start);
        for seconds in [0, 30, 59] {
            assert_eq!(cache.get(&1, start + Duration::from_secs(seconds)), Some('a'));
        }
        assert_eq!(cache.get(&1, start + TTL), None);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn the_least_used_goes_when_there_is_no_room() {
        let (cache, now) = (cache(2), Instant::now());
        cache.put(1, 'a', now);
        cache.put(2, 'b', now);
        assert_eq!(cache.get(&1, now), Some('a'));
        cache.put(3, 'c', now);
        assert_eq!((cache.get(&1, now), cache.get(&2, now), cache.get(&3, now)), (Some('a'), None, Some('c')));
        assert_eq!(cache.len(), 2);
    }
}
