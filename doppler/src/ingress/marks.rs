//! How far each sender's frames have been taken, so that what is sent again after a break is taken once.
//!
//! What enters: who sends (contract: `hydrant.proto`, `Sender`). What leaves: the one mark of that sender and stream, shared by every
//! connection that claims it; a frame is looked at and published under its lock, so a late frame of an old connection and its repeat on
//! the new one cannot both pass. Bounded: the marks longest unused are forgotten, and then a repeat passes as new.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use proto::hydrant::v1::Sender;

/// Streams whose marks are kept: three of each of twenty thousand agents.
const KEPT: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// The marks of all senders. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct Marks(Arc<Mutex<LruCache<(u64, u64), Mark>>>);

/// The highest sequence taken from one stream; `None` before its first frame. Locked while a frame is published, never across an await.
pub(super) type Mark = Arc<Mutex<Option<u64>>>;

impl Default for Marks {
    fn default() -> Self {
        // Not allocated ahead: most dopplers see far fewer.
        let mut marks = LruCache::unbounded();
        marks.resize(KEPT);
        Self(Arc::new(Mutex::new(marks)))
    }
}

impl Marks {
    /// The mark of a sender's stream.
    pub(super) fn of(&self, sender: Sender) -> Mark {
        Arc::clone(self.0.lock().get_or_insert((sender.process, sender.stream), Mark::default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_one_mark_and_marks_are_bounded() {
        let marks = Marks::default();
        let sender = |process, stream| Sender { process, stream };
        *marks.of(sender(1, 1)).lock() = Some(7);
        assert_eq!(*marks.of(sender(1, 1)).lock(), Some(7));
        assert_eq!(*marks.of(sender(1, 2)).lock(), None);
        for process in 2..2 + KEPT.get() as u64 {
            marks.of(sender(process, 1));
        }
        assert_eq!(marks.0.lock().len(), KEPT.get());
        assert_eq!(*marks.of(sender(1, 1)).lock(), None, "the longest unused is forgotten");
    }
}
