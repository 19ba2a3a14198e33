//! How much of the platform's time a caller may take: look-ups under way, of one caller and of all, and a rate.
//!
//! What enters: who wants to look something up, and when. What leaves: a turn, given back when it is dropped, or a refusal at once.
//! Nobody waits here: whoever sends too much is told so, and holds up no other. Callers are told apart by the digests of their tokens;
//! the least recent of very many are forgotten, and then begin anew.

use std::hash::RandomState;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::super::Denied;
use super::super::secret::Digest;

/// Callers that are remembered.
const CALLERS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");

/// How much of its rate a caller that was quiet may take at once.
const BURST: Duration = Duration::from_secs(10);

/// The bounds.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Look-ups under way, of all callers.
    pub(super) all: NonZeroU32,
    /// Of one.
    pub(super) caller: NonZeroU32,
    /// Of one, in a second.
    pub(super) rate: NonZeroU32,
}

/// Who is looking up how much.
pub(super) struct Limits {
    bounds: Bounds,
    all: Arc<Semaphore>,
    /// Held to count one look-up in or out.
    callers: Mutex<LruCache<Digest, Caller, RandomState>>,
}

struct Caller {
    under_way: u32,
    /// When all that it has taken will have been within its rate.
    even: Instant,
}

/// One look-up. Dropping it ends it.
pub(super) struct Turn {
    limits: Arc<Limits>,
    caller: Digest,
    _of_all: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        let all = usize::try_from(bounds.all.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let callers = Mutex::new(LruCache::with_hasher(CALLERS, RandomState::new()));
        Arc::new(Self { bounds, all: Arc::new(Semaphore::new(all)), callers })
    }

    /// A look-up of `caller` that begins `now`.
    ///
    /// # Errors
    /// [`Denied::Limited`]: it must come again later.
    pub(super) fn enter(self: &Arc<Self>, caller: Digest, now: Instant) -> Result<Turn, Denied> {
        let mut callers = self.callers.lock();
        let known = callers.get_or_insert_mut(caller, || Caller { under_way: 0, even: now });
        if known.under_way >= self.bounds.caller.get() || known.even > now + BURST {
            return Err(Denied::Limited);
        }
        let of_all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Denied::Limited)?;
        known.under_way += 1;
        known.even = known.even.max(now) + Duration::from_secs(1) / self.bounds.rate.get();
        Ok(Turn { limits: Arc::clone(self), caller, _of_all: of_all })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // One that was forgotten meanwhile may have begun anew: its count is then too low by this one, never below nothing.
        if let Some(known) = self.limits.callers.lock().peek_mut(&self.caller) {
            known.under_way = known.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: u32, caller: u32, rate: u32) -> Arc<Limits> {
        let count = |value| NonZeroU32::new(value).unwrap();
        Limits::new(Bounds { all: count(all), caller: count(caller), rate: count(rate) })
    }

    #[test]
    fn so_many_at_once_of_one_caller_and_of_all() {
        let (limits, now) = (limits(3, 2, 100), Instant::now());
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let turns = [limits.enter(one, now).unwrap(), limits.enter(one, now).unwrap()];
        assert_eq!(limits.enter(one, now).err(), Some(Denied::Limited));
        let last = limits.enter(other, now).unwrap();
        assert_eq!(limits.enter(other, now).err(), Some(Denied::Limited), "three of all");
        drop(last);
        drop(turns);
        assert!(limits.enter(one, now).is_ok());
    }

    #[test]
    fn so_many_in_a_second_and_ten_seconds_worth_at_once() {
        let (limits, start) = (limits(9, 9, 2), Instant::now());
        let one = Digest::of(b"one");
        let taken = |at| (0..100).take_while(|_| limits.enter(one, at).is_ok()).count();
        assert_eq!(taken(start), 21);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + Duration::from_secs(1)), 2);
        assert!(limits.enter(Digest::of(b"other"), start).is_ok(), "each has a rate of its own");
        assert_eq!(taken(start + Duration::from_secs(60)), 21);
    }

    #[test]
    fn very_many_callers_are_forgotten() {
        let (limits, now) = (limits(9, 1, 1), Instant::now());
        let held = limits.enter(Digest::of(b"first"), now).unwrap();
        for caller in 0..=CALLERS.get() {
            drop(limits.enter(Digest::of(&caller.to_be_bytes()), now).unwrap());
        }
        assert_eq!(limits.callers.lock().len(), CALLERS.get());
        drop(held);
        assert!(limits.enter(Digest::of(b"first"), now).is_ok());
    }
}
