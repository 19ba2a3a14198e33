//! Which account holds most: a binary heap whose members can be found and moved.
//!
//! Enters: an account's rank, whenever that has changed. Leaves: the account that comes first. It keeps ranks of its own, so it is in
//! order at all times, whatever has happened to the accounts since.

use super::table::NONE;

/// What an account is ranked by.
#[derive(Clone, Copy)]
pub(super) struct Rank {
    /// One number, so that a comparison costs no branch: from the top, 63 bits of bytes, one that is set for all but the remainder, and
    /// the source inverted. A tie goes to the lower source, the remainder last: the order is total.
    key: u128,
    account: u32,
}

#[derive(Default)]
pub(super) struct Ranking {
    heap: Vec<Rank>,
    /// Where in the heap an account is, by account; `NONE` if it is not.
    places: Vec<u32>,
}

impl Ranking {
    /// The account that holds most. O(1).
    pub(super) fn first(&self) -> Option<u32> {
        self.heap.first().map(|rank| rank.account)
    }

    /// The rank of the account after the first. O(1).
    pub(super) fn second(&self) -> Option<Rank> {
        match self.heap.get(1..)? {
            [left, right, ..] if right.is_before(left) => Some(*right),
            rest => rest.first().copied(),
        }
    }

    /// Ranks an account, new or not. O(log n).
    pub(super) fn set(&mut self, rank: Rank) {
        let account = rank.account as usize;
        if account >= self.places.len() {
            self.places.resize(account + 1, NONE);
        }
        if self.places[account] == NONE {
            self.heap.push(rank);
            self.rise(self.heap.len() - 1, rank);
        } else {
            self.change(self.places[account] as usize, rank);
        }
    }

    /// Takes an account out, if it is in. O(log n).
    pub(super) fn remove(&mut self, account: u32) {
        let Some(place) = self.places.get_mut(account as usize).filter(|place| **place != NONE) else { return };
        let place = std::mem::replace(place, NONE) as usize;
        let last = self.heap.pop().expect("a place is in the heap");
        if place < self.heap.len() {
            self.change(place, last);
        }
    }

    /// Ranks these accounts, all below `accounts`, and no others. O(n).
    pub(super) fn rebuild(&mut self, ranks: impl Iterator<Item = Rank>, accounts: usize) {
        self.heap.clear();
        self.heap.extend(ranks);
        self.places.clear();
        self.places.resize(accounts, NONE);
        for (place, rank) in self.heap.iter().enumerate() {
            self.places[rank.account as usize] = place as u32;
        }
        for place in (0..self.heap.len() / 2).rev() {
            self.sink(place, self.heap[place]);
        }
    }

    fn change(&mut self, place: usize, rank: Rank) {
        if place > 0 && rank.is_before(&self.heap[(place - 1) / 2]) {
            self.rise(place, rank);
        } else {
            self.sink(place, rank);
        }
    }

    fn rise(&mut self, mut place: usize, rank: Rank) {
        while place > 0 {
            let above = (place - 1) / 2;
            if !rank.is_before(&self.heap[above]) {
                break;
            }
            self.put(place, self.heap[above]);
            place = above;
        }
        self.put(place, rank);
    }

    fn sink(&mut self, mut place: usize, rank: Rank) {
        loop {
            let left = 2 * place + 1;
            let below = match self.heap.get(left..) {
                // Added, not chosen by a branch that nothing could predict.
                Some([a, b, ..]) => left + usize::from(b.is_before(a)),
                Some([_]) => left,
                _ => break,
            };
            if !self.heap[below].is_before(&rank) {
                break;
            }
            self.put(place, self.heap[below]);
            place = below;
        }
        self.put(place, rank);
    }

    fn put(&mut self, place: usize, rank: Rank) {
        self.heap[place] = rank;
        self.places[rank.account as usize] = place as u32;
    }
}

impl Rank {
    pub(super) fn new(account: u32, bytes: u64, source: u64, is_remainder: bool) -> Self {
        let key = u128::from(bytes) << 65 | u128::from(!is_remainder) << 64 | u128::from(!source);
        Self { key, account }
    }

    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.key > other.key
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is set, removed and rebuilt: the first is the one that a search finds.
        #[test]
        fn the_first_is_the_greatest(steps in prop::collection::vec((0_u32..12, 0_u64..6, 0..20), 0..200)) {
            let mut ranking = Ranking::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let rank = |account: u32, bytes| Rank::new(account, bytes, u64::from(account), account == 0);
            for (account, bytes, step) in steps {
                match step {
                    0..=12 => {
                        model.insert(account, bytes);
                        ranking.set(rank(account, bytes));
                    }
                    13..=18 => {
                        model.remove(&account);
                        ranking.remove(account);
                    }
                    _ => ranking.rebuild(model.iter().map(|(account, bytes)| rank(*account, *bytes)), 12),
                }
                let most = model.values().max();
                let first = model.iter().filter(|(_, bytes)| Some(*bytes) == most).min_by_key(|(id, _)| (**id == 0, **id));
                prop_assert_eq!(ranking.first(), first.map(|(account, _)| *account));
                prop_assert_eq!(ranking.heap.len(), model.len());
                if let Some(first) = ranking.first() {
                    let second = ranking.second().map(|rank| rank.account);
                    ranking.remove(first);
                    prop_assert_eq!(second, ranking.first());
                    ranking.set(rank(first, model[&first]));
                }
            }
        }
    }
}
