//! What must be true of the state whenever the lock is free. For tests only: it walks everything.

use super::super::Load;
use super::super::table::NONE;
use super::State;

impl<T: Load> State<T> {
    /// Whether it tells sources apart now.
    pub(crate) fn has_table(&self) -> bool {
        self.table.is_some()
    }

    /// Panics when totals, list, table and bounds disagree.
    pub(crate) fn assert_consistent(&self) {
        let (mut envelopes, mut held, mut floor) = (0, 0, 0);
        let (mut id, mut older) = (self.first, NONE);
        while id != NONE {
            let slot = &self.slots[id as usize];
            let entry = slot.entry.as_ref().unwrap();
            assert_eq!(slot.older, older);
            assert!(entry.count > 0, "an entry without envelopes must go");
            envelopes += entry.count;
            held += entry.held;
            floor += entry.floor();
            if let Some(table) = &self.table {
                assert_eq!(entry.nodes.len(), entry.load.len());
                let live = entry.nodes.iter().enumerate().filter(|(_, node)| **node != NONE);
                assert_eq!(live.clone().count(), entry.count);
                assert!(live.clone().all(|(at, node)| table.position(*node) == (id, at)));
                assert_eq!(live.map(|(_, node)| table.weight(*node)).sum::<usize>(), entry.bytes);
                assert!(slot.dirty || !entry.is_dirty(), "what can be reclaimed is known");
            } else {
                assert!(entry.nodes.is_empty());
                assert_eq!((entry.load.len(), entry.load.bytes()), (entry.count, entry.bytes));
            }
            (older, id) = (id, slot.younger);
        }
        assert_eq!(self.last, older);
        assert_eq!((envelopes, held), (self.counters.envelopes, self.counters.bytes));
        assert!(envelopes <= self.max_envelopes && held <= self.max_bytes, "over a bound");
        assert!(self.table.is_some() || !self.is_above_half());
        assert!(self.dirty.len() <= self.slots.len() && self.sparse.is_empty());
        if let Some(table) = &self.table {
            assert_eq!(floor, self.floor);
            table.assert_consistent(envelopes);
        }
        let counters = self.counters;
        assert_eq!(counters.offered, counters.accepted + counters.rejected);
        assert_eq!(counters.accepted, counters.taken + counters.evicted + counters.envelopes as u64);
    }
}
