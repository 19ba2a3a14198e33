//! Who got what: one bit per envelope, per sender.
//!
//! What enters: the marks of received envelopes, in order of arrival. What leaves: an [`Account`] that adds up. Never guesses: every
//! number is counted.

/// Sequences from here on are none that a load could have sent.
const SEQUENCES: u64 = 1 << 32;

/// What one subscriber, or one group of them, received.
///
/// Noting an envelope costs some nanoseconds; memory is one bit per envelope sent.
#[derive(Clone, Debug)]
pub struct Ledger {
    senders: Vec<Received>,
    foreign: u64,
    corrupt: u64,
    invented: u64,
}

#[derive(Clone, Debug, Default)]
struct Received {
    seen: Vec<u64>,
    duplicates: u64,
    reorders: u64,
    /// One more than the highest sequence seen.
    next: u64,
}

/// What became of the envelopes of a load, for one group of subscribers.
///
/// `issued = unique + missing` and `received = unique + duplicates + invented`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Account {
    /// Sent, by all senders.
    pub issued: u64,
    /// Received with the marks of this run.
    pub received: u64,
    /// Received at least once.
    pub unique: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received for the first time, after a later one of the same source instance on the same stream.
    pub reorders: u64,
    /// Sent, and never received.
    pub missing: u64,
    /// Marked as of this run, but never sent.
    pub invented: u64,
    /// Of this run, with a payload that was changed; also counts batches cut short. Not in `received`.
    pub corrupt: u64,
    /// Not of this run, such as the servers' own. Not in `received`.
    pub foreign: u64,
}

impl Ledger {
    /// An empty ledger for this many senders.
    pub fn new(senders: u32) -> Self {
        Self { senders: vec![Received::default(); senders as usize], foreign: 0, corrupt: 0, invented: 0 }
    }

    /// Notes an envelope of this run. True when it is the first with its sender and sequence.
    #[inline]
    pub fn note(&mut self, sender: u32, sequence: u64) -> bool {
        match self.senders.get_mut(sender as usize) {
            Some(received) if sequence < SEQUENCES => received.note(sequence),
            _ => {
                self.invented += 1;
                false
            }
        }
    }

    /// Notes an envelope that is not of this run.
    pub fn note_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Notes an envelope, or the rest of a batch, that is not what was sent.
    pub fn note_corrupt(&mut self) {
        self.corrupt += 1;
    }

    /// Adds what another member of the same group received: what both have is a duplicate.
    pub fn merge(&mut self, other: &Self) {
        self.foreign += other.foreign;
        self.corrupt += other.corrupt;
        self.invented += other.invented;
        for (mine, theirs) in self.senders.iter_mut().zip(&other.senders) {
            mine.merge(theirs);
        }
    }

    /// The account, given how many envelopes each sender sent.
    pub fn settle(&self, issued: &[u64]) -> Account {
        let mut account = Account { foreign: self.foreign, corrupt: self.corrupt, ..Account::default() };
        account.invented = self.invented;
        let none = Received::default();
        for (i, &issued) in issued.iter().enumerate() {
            let received = self.senders.get(i).unwrap_or(&none);
            let (unique, invented) = received.split(issued);
            account.issued += issued;
            account.unique += unique;
            account.missing += issued - unique;
            account.invented += invented;
            account.duplicates += received.duplicates;
            account.reorders += received.reorders;
        }
        account.received = account.unique + account.duplicates + account.invented;
        account
    }
}

impl Received {
    #[inline]
    fn note(&mut self, sequence: u64) -> bool {
        let word = (sequence / 64) as usize;
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        self.seen[word] |= bit;
        if sequence < self.next {
            self.reorders += 1;
        } else {
            self.next = sequence + 1;
        }
        true
    }

    fn merge(&mut self, other: &Self) {
        self.seen.resize(self.seen.len().max(other.seen.len()), 0);
        for (mine, theirs) in self.seen.iter_mut().zip(&other.seen) {
            self.duplicates += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        self.duplicates += other.duplicates;
        self.reorders += other.reorders;
        self.next = self.next.max(other.next);
    }

    /// How many different sequences were below `issued`, and how many were not.
    fn split(&self, issued: u64) -> (u64, u64) {
        let all: u64 = self.seen.iter().map(|word| u64::from(word.count_ones())).sum();
        let whole = (issued / 64) as usize;
        let mut below: u64 = self.seen.iter().take(whole).map(|word| u64::from(word.count_ones())).sum();
        if let Some(word) = self.seen.get(whole) {
            below += u64::from((word & ((1 << (issued % 64)) - 1)).count_ones());
        }
        (below, all - below)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn noted(sequences: &[u64]) -> Ledger {
        let mut ledger = Ledger::new(1);
        for &sequence in sequences {
            ledger.note(0, sequence);
        }
        ledger
    }

    #[test]
    fn drops_duplicates_and_reorders_are_told_apart() {
        let account = noted(&[0, 1, 3, 2, 3, 3, 7]).settle(&[8]);
        assert_eq!(
            account,
            Account { issued: 8, received: 7, unique: 5, duplicates: 2, reorders: 1, missing: 3, ..Account::default() }
        );
    }

    #[test]
    fn nothing_received_is_all_missing() {
        assert_eq!(Ledger::new(2).settle(&[64, 1]), Account { issued: 65, missing: 65, ..Account::default() });
    }

    #[test]
    fn what_was_never_sent_is_invented() {
        let mut ledger = noted(&[0, 63, 64, 65, SEQUENCES, u64::MAX]);
        ledger.note(9, 0);
        let account = ledger.settle(&[64]);
        assert_eq!((account.unique, account.invented, account.received, account.missing), (2, 5, 7, 62));
    }

    #[test]
    fn members_of_a_group_share_and_an_overlap_is_a_duplicate() {
        let mut group = noted(&[0, 2, 4]);
        group.merge(&noted(&[1, 2, 200]));
        group.note_foreign();
        group.note_corrupt();
        let account = group.settle(&[201]);
        assert_eq!((account.unique, account.duplicates, account.reorders), (5, 1, 0));
        assert_eq!((account.foreign, account.corrupt), (1, 1));
    }

    #[test]
    fn a_new_envelope_is_told_from_a_repeat() {
        let mut ledger = Ledger::new(1);
        assert!(ledger.note(0, 5));
        assert!(!ledger.note(0, 5));
        assert!(!ledger.note(1, 5), "an unknown sender's");
    }

    proptest! {
        /// Against sets and lists: any arrivals of any senders, spread over the members of a group.
        #[test]
        fn the_account_is_that_of_a_naive_count(
            issued in proptest::collection::vec(0_u64..300, 1..4),
            arrivals in proptest::collection::vec((0_usize..3, 0_u32..4, 0_u64..320), 0..600),
        ) {
            let mut members = vec![Ledger::new(issued.len() as u32); 3];
            let mut highest = std::collections::HashMap::new();
            let mut once = HashSet::new();
            let (mut reorders, mut unknown) = (0, 0);
            let mut per_member = HashSet::new();
            for &(member, sender, sequence) in &arrivals {
                members[member].note(sender, sequence);
                if sender as usize >= issued.len() {
                    unknown += 1;
                    continue;
                }
                once.insert((sender, sequence));
                if per_member.insert((member, sender, sequence)) {
                    let highest = highest.entry((member, sender)).or_insert(0);
                    reorders += u64::from(sequence + 1 < *highest);
                    *highest = (*highest).max(sequence + 1);
                }
            }
            let unique = once.iter().filter(|(sender, sequence)| *sequence < issued[*sender as usize]).count() as u64;

            let (first, rest) = members.split_first_mut().expect("three members");
            rest.iter().for_each(|member| first.merge(member));
            let account = first.settle(&issued);
            prop_assert_eq!(account.unique, unique);
            prop_assert_eq!(account.missing, issued.iter().sum::<u64>() - unique);
            prop_assert_eq!(account.invented, once.len() as u64 - unique + unknown);
            prop_assert_eq!(account.reorders, reorders);
            prop_assert_eq!(account.received, arrivals.len() as u64);
        }
    }
}
