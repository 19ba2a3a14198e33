//! How many consumers may be there at once: a place for each, given back when it goes.

use std::num::NonZeroU32;
use std::sync::Arc;

use metrics::{Counter, Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one kind of consumer.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    held: Gauge,
    turned_away: Counter,
}

/// One consumer's place. Dropping it gives it back.
pub(crate) struct Place {
    held: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// `most` places; `held` shows how many are taken, `turned_away` counts those who found none.
    pub(crate) fn new(most: NonZeroU32, held: Gauge, turned_away: Counter) -> Self {
        let most = usize::try_from(most.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(most)), held, turned_away }
    }

    /// A place, unless all are taken. Never waits.
    pub(crate) fn admit(&self) -> Option<Place> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.turned_away.increment(1);
            return None;
        };
        self.held.increment(1);
        Some(Place { held: self.held.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.decrement(1);
    }
}
