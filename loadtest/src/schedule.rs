//! When each batch of a sender is due, and how many envelopes it holds. Pure: no clock, no timer.

use std::num::{NonZeroU32, NonZeroU64};

/// The batches of one of several senders that share a rate and a count evenly.
///
/// Batches of all senders take turns: at 1000/s in batches of 10, one of them sends every 10 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Nanoseconds since the Unix epoch at which the first sender's first batch is due.
    pub start: u64,
    /// Envelopes per second of all senders; `None` is as fast as flow control lets ("saturate").
    pub rate: Option<NonZeroU64>,
    /// Envelopes of all senders.
    pub total: u64,
    /// Envelopes per batch; the last batch of a sender may hold fewer.
    pub batch: NonZeroU32,
    /// How many senders there are.
    pub senders: NonZeroU32,
    /// Which of them this is, from 0.
    pub sender: u32,
}

/// One batch of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Sequence of its first envelope.
    pub first: u64,
    /// Envelopes in it.
    pub count: u32,
    /// Nanoseconds since the Unix epoch; `None` is at once.
    pub at: Option<u64>,
}

impl Schedule {
    /// Envelopes of this sender.
    pub fn share(&self) -> u64 {
        let senders = u64::from(self.senders.get());
        self.total / senders + u64::from(u64::from(self.sender) < self.total % senders)
    }

    /// The `index`-th batch of this sender, or `None` after the last.
    pub fn batch(&self, index: u64) -> Option<Due> {
        let size = u64::from(self.batch.get());
        let first = index.checked_mul(size)?;
        let left = self.share().checked_sub(first).filter(|left| *left > 0)?;
        let count = left.min(size) as u32;
        Some(Due { first, count, at: self.rate.map(|rate| self.due(index, rate)) })
    }

    fn due(&self, index: u64, rate: NonZeroU64) -> u64 {
        let turn = u128::from(index) * u128::from(self.senders.get()) + u128::from(self.sender);
        let after = turn * u128::from(self.batch.get()) * 1_000_000_000 / u128::from(rate.get());
        self.start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(rate: u64, total: u64, batch: u32, senders: u32, sender: u32) -> Schedule {
        Schedule {
            start: 1_000,
            rate: NonZeroU64::new(rate),
            total,
            batch: NonZeroU32::new(batch).unwrap(),
            senders: NonZeroU32::new(senders).unwrap(),
            sender,
        }
    }

    fn all(schedule: &Schedule) -> Vec<Due> {
        (0..).map_while(|index| schedule.batch(index)).collect()
    }

    #[test]
    fn senders_take_turns_at_the_rate() {
        let one = all(&schedule(1000, 40, 10, 2, 0));
        let two = all(&schedule(1000, 40, 10, 2, 1));
        assert_eq!(one.iter().map(|due| due.at.unwrap() - 1000).collect::<Vec<_>>(), [0, 20_000_000]);
        assert_eq!(two.iter().map(|due| due.at.unwrap() - 1000).collect::<Vec<_>>(), [10_000_000, 30_000_000]);
        assert_eq!(one[1], Due { first: 10, count: 10, at: Some(20_001_000) });
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let dues = all(&schedule(0, 25, 10, 1, 0));
        assert!(dues.iter().all(|due| due.at.is_none()));
        assert_eq!(dues.iter().map(|due| due.count).collect::<Vec<_>>(), [10, 10, 5]);
    }

    #[test]
    fn long_and_odd_schedules_do_not_drift_or_overflow() {
        // A third of a nanosecond per turn must not add up to an error.
        let slow = schedule(3, 3_000_000_000, 1, 1, 0);
        assert_eq!(slow.batch(2_999_999_997).unwrap().at, Some(1_000 + 999_999_999 * 1_000_000_000));
        let endless = schedule(1, u64::MAX, u32::MAX, u32::MAX, 7);
        assert_eq!(endless.batch(u64::MAX), None);
        assert!(endless.batch(1).unwrap().at.is_some());
    }

    proptest! {
        /// Whatever the split, all senders together send each of `total` envelopes once, in order, and on time.
        #[test]
        fn shares_add_up(rate in 0_u64..1_000_000, total in 0_u64..5_000, batch in 1_u32..200, senders in 1_u32..20) {
            let mut sum = 0;
            for sender in 0..senders {
                let mut next = 0;
                let mut last = None;
                for due in all(&schedule(rate, total, batch, senders, sender)) {
                    prop_assert_eq!(due.first, next);
                    prop_assert!(due.count > 0 && due.count <= batch);
                    prop_assert!(due.at.is_some() == (rate > 0) && due.at >= last);
                    next += u64::from(due.count);
                    last = due.at;
                }
                sum += next;
            }
            prop_assert_eq!(sum, total);
        }
    }
}
