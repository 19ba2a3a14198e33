//! The fair ring's state: what the mutex guards. The algorithm and its proof are in the module docs of [`super`].
//!
//! Enters: a load, already copied out if it kept too little. Leaves: the oldest load, or envelopes on their way out. It never
//! waits, wakes or frees a load's storage: loads that are done with go to the caller, who drops them outside the lock.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use super::entry::{Entry, Taken};
use super::table::{NONE, Table};
use super::{Bounds, Counters, Load, PIECE};

pub(super) struct State<T> {
    pub(super) counters: Counters,
    pub(super) closed: bool,
    pub(super) writers: usize,
    /// Left by a reader that found nothing; taken by the push or close that changes that.
    pub(super) waker: Option<Waker>,
    max_envelopes: usize,
    max_bytes: usize,
    sources: usize,
    /// All loads, in a list from `first` (the oldest) to `last`.
    slots: Vec<Slot<T>>,
    vacant: Vec<u32>,
    first: u32,
    last: u32,
    /// Above half full: who holds what. Then every entry has `nodes`, else none has.
    table: Option<Box<Table>>,
    /// Envelopes pushed and taken before the table was built.
    built_at: u64,
    /// With a table: the sum of [`Entry::floor`], what would be kept alive after copying out all that can be.
    floor: usize,
    /// Slots whose entry holds dead bytes, in the order in which that was noticed. A slot is in here at most once; what it holds
    /// may have changed since.
    dirty: VecDeque<u32>,
    /// Slots whose entry has become sparse during this push.
    sparse: Vec<u32>,
    /// The table has been dropped: give the memory of the list back too, once it is empty.
    swollen: bool,
}

struct Slot<T> {
    entry: Option<Entry<T>>,
    older: u32,
    younger: u32,
    dirty: bool,
}

impl<T: Load> State<T> {
    pub(super) fn new(bounds: Bounds, sources: usize) -> Self {
        let mut state = Self {
            counters: Counters::default(),
            closed: false,
            writers: 1,
            waker: None,
            max_envelopes: 0,
            max_bytes: 0,
            sources,
            slots: Vec::new(),
            vacant: Vec::new(),
            first: NONE,
            last: NONE,
            table: None,
            built_at: 0,
            floor: 0,
            dirty: VecDeque::new(),
            sparse: Vec::new(),
            swollen: false,
        };
        state.set_bounds(bounds);
        state
    }

    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.max_envelopes = bounds.envelopes.get().min(u32::MAX as usize / 2);
        self.max_bytes = bounds.bytes.get();
    }

    /// Appends a load that has envelopes, and makes room for it. Loads that are done with go to `done`.
    pub(super) fn push(&mut self, load: T, bytes: usize, evicted: &mut dyn FnMut(&T, usize), done: &mut Vec<T>) {
        let mut entry = Entry { count: load.len(), held: load.held(), bytes, load, nodes: Vec::new(), tidy: false };
        self.counters.accepted += entry.count as u64;
        self.counters.envelopes += entry.count;
        self.counters.bytes += entry.held;
        let id = self.vacate();
        if let Some(table) = &mut self.table {
            (entry.nodes, entry.bytes) = table.enter(&entry.load, id);
            self.floor += entry.floor();
        }
        let is_dirty = entry.is_dirty();
        self.put_after(self.last, id, entry);
        match self.table {
            Some(_) if is_dirty => self.mark_dirty(id),
            Some(_) => {}
            None if self.is_above_half() => self.build_table(),
            None => return,
        }
        self.make_room(evicted, done);
    }

    /// Envelopes and bytes of the oldest load.
    pub(super) fn front(&self) -> Option<(usize, usize)> {
        let slot = self.slots.get(self.first as usize)?;
        slot.entry.as_ref().map(|entry| (entry.count, entry.bytes))
    }

    /// Takes the oldest load.
    pub(super) fn take(&mut self) -> Option<Taken<T>> {
        if self.first == NONE {
            return None;
        }
        let Entry { load, nodes, count, .. } = self.remove(self.first);
        if let Some(table) = &mut self.table {
            table.leave(&nodes);
        }
        self.counters.taken += count as u64;
        self.counters.envelopes -= count;
        if self.table.is_some() && self.is_below_quarter() && self.has_paid_for_a_scan() {
            self.drop_table();
        }
        if self.swollen && self.first == NONE {
            self.swollen = false;
            (self.slots, self.vacant, self.dirty) = Default::default();
        }
        Some(Taken { load, nodes, count })
    }

    /// Empties the ring for good and counts what was in it as evicted.
    pub(super) fn discard(&mut self) -> Vec<T> {
        self.closed = true;
        self.counters.evicted += self.counters.envelopes as u64;
        self.counters.envelopes = 0;
        self.counters.bytes = 0;
        self.table = None;
        (self.first, self.last, self.floor) = (NONE, NONE, 0);
        (self.vacant, self.dirty, self.sparse) = Default::default();
        mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.entry).map(|entry| entry.load).collect()
    }

    // Making room

    /// Evicts envelopes and copies out loads until both bounds hold, no more of either than needed.
    ///
    /// It ends: between two evictions each entry is copied out at most once, and evictions end with the last envelope.
    fn make_room(&mut self, evicted: &mut dyn FnMut(&T, usize), done: &mut Vec<T>) {
        while self.is_over() {
            self.evict(evicted, done);
            while let Some(id) = self.sparse.pop() {
                if self.slots[id as usize].entry.as_ref().is_some_and(Entry::is_sparse) {
                    self.copy_out(id, done);
                }
            }
            // What is held beyond the floor is dirty, so there is one; if a load has lied about its size, the floor has risen.
            if self.counters.bytes > self.max_bytes
                && let Some(id) = self.next_dirty()
            {
                self.copy_out(id, done);
            }
        }
    }

    /// Evicts envelopes, each the oldest of the source that then holds most, until what is left would fit.
    fn evict(&mut self, evicted: &mut dyn FnMut(&T, usize), done: &mut Vec<T>) {
        while self.would_be_over() {
            let table = self.table.as_mut().expect("a ring over a bound is above half full");
            let loudest = table.loudest().expect("a ring over a bound has an envelope");
            while self.would_be_over() && self.table.as_ref().is_some_and(|table| table.is_still(&loudest)) {
                self.evict_oldest(loudest.account, evicted, done);
            }
        }
    }

    /// Evicts one envelope. Its bytes are free when its load goes or is copied out.
    fn evict_oldest(&mut self, account: u32, evicted: &mut dyn FnMut(&T, usize), done: &mut Vec<T>) {
        let Some(table) = &mut self.table else { return };
        let (id, at, weight) = table.oldest(account);
        let slot = &mut self.slots[id as usize];
        let entry = slot.entry.as_mut().expect("a node is of an entry in the ring");
        evicted(&entry.load, at);
        table.remove_oldest(account);
        self.counters.evicted += 1;
        self.counters.envelopes -= 1;
        self.floor -= entry.floor();
        entry.nodes[at] = NONE;
        entry.count -= 1;
        entry.bytes -= weight;
        entry.tidy = false;
        self.floor += entry.floor();
        if entry.count == 0 {
            done.push(self.remove(id).load);
            return;
        }
        if entry.is_sparse() && self.sparse.last() != Some(&id) {
            self.sparse.push(id);
        }
        if !slot.dirty && entry.is_dirty() {
            self.mark_dirty(id);
        }
    }

    /// Replaces an entry by copies of what it keeps, each of at most [`PIECE`] bytes or one envelope.
    fn copy_out(&mut self, id: u32, done: &mut Vec<T>) {
        let table = self.table.as_ref().expect("only a ring over a bound copies out");
        let slot = &self.slots[id as usize];
        let entry = slot.entry.as_ref().expect("the caller has seen the entry");
        let before = slot.older;
        let mut pieces = Vec::with_capacity(entry.bytes / PIECE + 2);
        let (mut kept, mut bytes) = (Vec::with_capacity(entry.count), 0);
        let piece = |kept: &[usize], bytes| {
            Entry::piece(entry.load.copy_out(kept), kept.iter().map(|at| entry.nodes[*at]).collect(), bytes)
        };
        for (at, &node) in entry.nodes.iter().enumerate().filter(|(_, node)| **node != NONE) {
            let weight = table.weight(node);
            if !kept.is_empty() && bytes + weight > PIECE {
                pieces.push(piece(&kept, bytes));
                kept.clear();
                bytes = 0;
            }
            kept.push(at);
            bytes += weight;
        }
        pieces.push(piece(&kept, bytes));
        // Everything of the caller's that could panic is done.
        done.push(self.remove(id).load);
        let mut last = before;
        for piece in pieces {
            self.counters.bytes += piece.held;
            self.floor += piece.floor();
            let id = self.vacate();
            if let Some(table) = &mut self.table {
                table.moved(&piece.nodes, id);
            }
            self.put_after(last, id, piece);
            last = id;
        }
    }

    fn mark_dirty(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        if !mem::replace(&mut slot.dirty, true) {
            self.dirty.push_back(id);
        }
    }

    fn next_dirty(&mut self) -> Option<u32> {
        while let Some(id) = self.dirty.pop_front() {
            let slot = &mut self.slots[id as usize];
            slot.dirty = false;
            if slot.entry.as_ref().is_some_and(Entry::is_dirty) {
                return Some(id);
            }
        }
        None
    }

    // The table

    fn is_over(&self) -> bool {
        self.counters.envelopes > self.max_envelopes || self.counters.bytes > self.max_bytes
    }

    /// Over a bound even if all that can be copied out were.
    fn would_be_over(&self) -> bool {
        self.counters.envelopes > self.max_envelopes || self.floor > self.max_bytes
    }

    fn is_above_half(&self) -> bool {
        self.counters.envelopes > self.max_envelopes / 2 || self.counters.bytes > self.max_bytes / 2
    }

    fn is_below_quarter(&self) -> bool {
        self.counters.envelopes <= self.max_envelopes / 4 && self.counters.bytes <= self.max_bytes / 4
    }

    /// Whether as much has happened since the table was built as building it anew would cost.
    fn has_paid_for_a_scan(&self) -> bool {
        self.counters.accepted + self.counters.taken - self.built_at >= self.counters.envelopes as u64
    }

    /// Enters everything in the ring, oldest first.
    fn build_table(&mut self) {
        self.built_at = self.counters.accepted + self.counters.taken;
        let mut table = Box::new(Table::new(self.sources));
        let mut id = self.first;
        while id != NONE {
            let slot = &mut self.slots[id as usize];
            let next = slot.younger;
            let entry = slot.entry.as_mut().expect("the list holds entries");
            (entry.nodes, entry.bytes) = table.enter(&entry.load, id);
            self.floor += entry.floor();
            if entry.is_dirty() {
                self.mark_dirty(id);
            }
            id = next;
        }
        self.table = Some(table);
    }

    /// Forgets who holds what. Evicted envelopes that are still in a load are taken out of it: nothing else knows of them.
    fn drop_table(&mut self) {
        self.table = None;
        self.floor = 0;
        self.swollen = true;
        let mut id = self.first;
        while id != NONE {
            let slot = &mut self.slots[id as usize];
            let entry = slot.entry.as_mut().expect("the list holds entries");
            let nodes = mem::take(&mut entry.nodes);
            if entry.count < nodes.len() {
                entry.load.retain(&mut |at| nodes[at] != NONE);
            }
            entry.tidy = false;
            id = slot.younger;
        }
    }

    // The list

    /// A slot for an entry that is about to be put there.
    fn vacate(&mut self) -> u32 {
        self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot { entry: None, older: NONE, younger: NONE, dirty: false });
            (self.slots.len() - 1) as u32
        })
    }

    /// Links an entry in after `older`, or first if that is `NONE`.
    fn put_after(&mut self, older: u32, id: u32, entry: Entry<T>) {
        let younger = if older == NONE {
            mem::replace(&mut self.first, id)
        } else {
            mem::replace(&mut self.slots[older as usize].younger, id)
        };
        if younger == NONE {
            self.last = id;
        } else {
            self.slots[younger as usize].older = id;
        }
        let slot = &mut self.slots[id as usize];
        (slot.entry, slot.older, slot.younger) = (Some(entry), older, younger);
    }

    /// Unlinks an entry. Its envelopes stay counted; what it holds does not.
    fn remove(&mut self, id: u32) -> Entry<T> {
        let slot = &mut self.slots[id as usize];
        let entry = slot.entry.take().expect("the caller has seen the entry");
        let (older, younger) = (slot.older, slot.younger);
        if older == NONE {
            self.first = younger;
        } else {
            self.slots[older as usize].younger = younger;
        }
        if younger == NONE {
            self.last = older;
        } else {
            self.slots[younger as usize].older = older;
        }
        self.vacant.push(id);
        self.counters.bytes -= entry.held;
        if self.table.is_some() {
            self.floor -= entry.floor();
        }
        entry
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod check;
