//! Who gets what of one batch: positions as bits, one set for each subscription, so that an envelope that several selectors admit goes into
//! a ring once. What enters: a batch and a table. What leaves: selections, into the rings, and what that came to.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::Arc;

use proto::loss::Losses;
use proto::raw::{Batch, Selection};

use crate::subscriptions::{ById, Positions, Subscription, TOLD_SOURCES, Table};

/// What one table's rings did with a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Put {
    pub(super) copies: u64,
    pub(super) evicted: u64,
    pub(super) rejected: u64,
}

impl AddAssign for Put {
    fn add_assign(&mut self, more: Self) {
        self.copies += more.copies;
        self.evicted += more.evicted;
        self.rejected += more.rejected;
    }
}

/// Sorts a batch by who gets what, and puts it into their rings.
#[derive(Debug)]
pub(super) struct Sorter {
    /// Positions in the batch in hand.
    scratch: Vec<u32>,
    picks: Vec<Pick>,
    /// Where in `picks` a subscription is.
    by_id: HashMap<u64, usize, ById>,
    /// Empty sets, ready to be used again.
    spare: Vec<Vec<u64>>,
    /// Which positions of the batch that was put last somebody got.
    pub(super) matched: Vec<u64>,
    lost: Losses,
}

impl Default for Sorter {
    fn default() -> Self {
        Self {
            scratch: Vec::new(),
            picks: Vec::new(),
            by_id: HashMap::default(),
            spare: Vec::new(),
            matched: Vec::new(),
            lost: Losses::new(TOLD_SOURCES),
        }
    }
}

/// What one subscription gets of the batch in hand: one bit a position.
#[derive(Debug)]
struct Pick {
    subscription: Arc<Subscription>,
    bits: Vec<u64>,
}

impl Sorter {
    pub(super) fn put(&mut self, table: &Table, batch: &Batch) -> Put {
        let Self { scratch, picks, by_id, spare, matched, lost } = self;
        let words = batch.len().div_ceil(64);
        table.matches(batch, scratch, |subscription, positions| {
            let at = *by_id.entry(subscription.id()).or_insert_with(|| {
                let mut bits = spare.pop().unwrap_or_default();
                bits.resize(words, 0);
                picks.push(Pick { subscription: Arc::clone(subscription), bits });
                picks.len() - 1
            });
            set(&mut picks[at].bits, positions);
        });

        matched.clear();
        matched.resize(words, 0);
        let mut put = Put::default();
        for Pick { subscription, mut bits } in picks.drain(..) {
            let count: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
            if count > 0 {
                union(matched, &bits);
                let (evicted, rejected) = subscription.push(select(batch, &bits, count), lost);
                put += Put { copies: count as u64, evicted, rejected };
            }
            bits.clear();
            spare.push(bits);
        }
        by_id.clear();
        put
    }
}

/// Sets in `all` what is set in `more`.
pub(super) fn union(all: &mut [u64], more: &[u64]) {
    all.iter_mut().zip(more).for_each(|(all, word)| *all |= word);
}

pub(super) fn set_one(bits: &mut [u64], position: u32) {
    bits[position as usize / 64] |= 1 << (position % 64);
}

/// The positions that are set, in order.
pub(super) fn ones(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(word, bits)| {
        let mut bits = *bits;
        std::iter::from_fn(move || {
            let at = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(word * 64 + at)
        })
    })
}

fn set(bits: &mut [u64], positions: Positions<'_>) {
    match positions {
        Positions::Some(some) => {
            for position in some {
                set_one(bits, *position);
            }
        }
        Positions::Range(from, to) => {
            for (word, bits) in bits.iter_mut().enumerate().take(to.div_ceil(64)).skip(from / 64) {
                let low = from.saturating_sub(word * 64);
                let high = (to - word * 64).min(64);
                *bits |= (u64::MAX >> (64 - (high - low))) << low;
            }
        }
    }
}

fn select(batch: &Batch, bits: &[u64], count: usize) -> Selection {
    if count == batch.len() {
        return Selection::from(batch.clone());
    }
    let mut keep = Vec::with_capacity(count);
    keep.extend(ones(bits).map(|at| at as u32));
    Selection::new(batch.clone(), keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_set_exactly_their_bits() {
        for (from, to) in [(0, 1), (0, 64), (0, 65), (63, 65), (64, 128), (70, 130), (5, 6), (127, 128), (0, 192)] {
            let mut bits = [0; 3];
            set(&mut bits, Positions::Range(from, to));
            let positions: Vec<usize> = (0..192).filter(|i| bits[i / 64] >> (i % 64) & 1 == 1).collect();
            assert_eq!(positions, (from..to).collect::<Vec<_>>());
        }
    }
}
