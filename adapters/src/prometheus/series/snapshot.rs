//! All series of a store at one time, for whoever shows them.
//!
//! A store enters, in parts if it must not be locked for long; copies of values and references to labels leave, to be written down
//! without it. Never copies a label.

use std::sync::Arc;

use super::{Family, Store, Value};
use crate::prometheus::labels::Labels;

/// All series at one time, or being copied.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By name; none before all series are there.
    pub(crate) families: Vec<Arc<Family>>,
    /// The id of the family, the labels, the value; in no order.
    pub(crate) series: Vec<(u32, Arc<Labels>, Value)>,
    /// The next slot to copy.
    next: usize,
    /// How often series had ended in the store.
    epoch: u64,
}

impl Store {
    /// All series as they are now. O(series): copies values and counts references, some 10 ms for 100 000.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        while self.copy(&mut snapshot, usize::MAX) {}
        snapshot
    }

    /// Goes on with a snapshot by up to `most` series, so that a lock need not be held for all of them. Gives false when it is done.
    /// Begins anew if series have ended since the last call; what came since may be in it or not.
    pub fn copy(&self, snapshot: &mut Snapshot, most: usize) -> bool {
        if snapshot.epoch != self.epoch {
            *snapshot = Snapshot { epoch: self.epoch, ..Snapshot::default() };
        }
        let end = self.slots.len().min(snapshot.next.saturating_add(most));
        snapshot.series.reserve(self.slots.len() - snapshot.series.len().min(self.slots.len()));
        let part = self.slots[snapshot.next..end].iter().flatten();
        snapshot.series.extend(part.map(|series| (series.family.id, Arc::clone(&series.labels), series.value.clone())));
        snapshot.next = end;
        if end < self.slots.len() {
            return true;
        }
        let own = Arc::new(self.context.own_labels());
        snapshot.series.extend(self.own.iter().map(|(family, value)| (family.id, Arc::clone(&own), value)));
        snapshot.families = self.families.iter().map(Arc::clone).collect();
        snapshot.families.sort_unstable_by(|one, other| one.name().cmp(other.name()));
        false
    }
}
