//! Sequences as followers get them: each number stands for one other, and how far two are apart tells nothing. Pure.
//!
//! The insertion sequence counts the envelopes of all sources. In a cursor it would tell whoever reads one source how much comes from the
//! others meanwhile. So it leaves under a permutation that only its store knows, and comes back through it.

use std::hash::{BuildHasher, RandomState};

/// Rounds of the Feistel network: with a keyed hash in each, four make a permutation that cannot be told from a random one.
const ROUNDS: u8 = 4;

/// A permutation of all numbers, another one for each value. Costs four short hashes.
#[derive(Debug, Default)]
pub(crate) struct Seal(RandomState);

impl Seal {
    /// What stands for `sequence`.
    pub(crate) fn seal(&self, sequence: u64) -> u64 {
        let (left, right) =
            (0..ROUNDS).fold(halves(sequence), |(left, right), round| (right, left ^ self.round(round, right)));
        whole(left, right)
    }

    /// What `sealed` stands for; of a number that was never given out, some number.
    pub(crate) fn open(&self, sealed: u64) -> u64 {
        let (left, right) =
            (0..ROUNDS).rev().fold(halves(sealed), |(left, right), round| (right ^ self.round(round, left), left));
        whole(left, right)
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        halves(self.0.hash_one((round, half))).1
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is taken apart")]
fn halves(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

fn whole(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Nothing is lost on the way out and back.
        #[test]
        fn what_was_sealed_is_opened(sequence: u64) {
            let seal = Seal::default();
            proptest::prop_assert_eq!(seal.open(seal.seal(sequence)), sequence);
        }
    }

    #[test]
    fn neighbours_are_not_near_and_stores_do_not_agree() {
        let (seal, other) = (Seal::default(), Seal::default());
        let sealed: Vec<u64> = (0..1000).map(|sequence| seal.seal(sequence)).collect();
        assert!(sealed.windows(2).filter(|two| two[0].abs_diff(two[1]) < 1 << 40).count() < 5);
        assert!(sealed.windows(2).filter(|two| two[0] < two[1]).count() < 600);
        assert_ne!(sealed, (0..1000).map(|sequence| other.seal(sequence)).collect::<Vec<_>>());
    }
}
