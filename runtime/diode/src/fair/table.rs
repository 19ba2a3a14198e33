//! Who holds how much of a fair ring, and where each source's oldest envelope is.
//!
//! Enters: envelopes, in the order in which they stand in the ring. Leaves: always the oldest of a source, whether it was taken or
//! evicted. It holds numbers only, never an envelope, and frees what it knows of an envelope the moment that leaves.
//!
//! - One [`Node`] per envelope, in one slab, chained by source from old to new.
//! - One [`Account`] per source for the first `limit` sources; account 0 is *the remainder*, all sources beyond that together. An
//!   envelope stays in the account it entered; an account ends when its last envelope leaves, and its place is free for another.
//! - A [`Ranking`] of accounts by bytes, brought up to date only when somebody must lose: below the bounds a push or a take merely
//!   notes which accounts it changed.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Load;
use super::ranking::{Rank, Ranking};

/// No node, no entry, no account.
pub(super) const NONE: u32 = u32::MAX;
/// The account of all sources that have none of their own.
const REMAINDER: u32 = 0;

/// Places in [`Table::recent`].
const RECENT: usize = 1024;

/// One envelope of the ring. 20 bytes.
#[derive(Clone, Copy)]
struct Node {
    /// The next younger of the same account; in a free node, the next free one.
    next: u32,
    account: u32,
    weight: u32,
    /// Where it is: which load, and its index there.
    entry: u32,
    at: u32,
}

struct Account {
    source: u64,
    bytes: u64,
    oldest: u32,
    newest: u32,
    /// It is in `changed`.
    changed: bool,
}

/// Who is to lose next, and who comes after.
pub(super) struct Loudest {
    pub(super) account: u32,
    next: Option<Rank>,
}

pub(super) struct Table {
    nodes: Vec<Node>,
    free: u32,
    accounts: Vec<Account>,
    vacant: Vec<u32>,
    by_source: HashMap<u64, u32, RandomState>,
    /// Where the account of a source was last found, by the lowest bits of the source. Saves most look-ups in `by_source`.
    recent: Box<[u32; RECENT]>,
    limit: usize,
    ranking: Ranking,
    /// Accounts whose bytes are not those they are ranked by, once each.
    changed: Vec<u32>,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        let remainder = Account { source: u64::MAX, bytes: 0, oldest: NONE, newest: NONE, changed: false };
        Self {
            nodes: Vec::new(),
            free: NONE,
            accounts: vec![remainder],
            vacant: Vec::new(),
            by_source: HashMap::default(),
            recent: Box::new([REMAINDER; RECENT]),
            limit,
            ranking: Ranking::default(),
            changed: Vec::new(),
        }
    }

    /// Enters all envelopes of the ring's newest load, and returns their nodes and bytes. O(1) per envelope.
    pub(super) fn enter<T: Load>(&mut self, load: &T, entry: u32) -> (Vec<u32>, usize) {
        let mut nodes = Vec::with_capacity(load.len());
        let mut bytes = 0;
        let mut run: Option<(u64, u32)> = None;
        for at in 0..load.len() {
            let source = load.source(at);
            let account = match run {
                Some((same, account)) if same == source => account,
                _ => {
                    let account = self.account_of(source);
                    run = Some((source, account));
                    account
                }
            };
            let weight = u32::try_from(load.weight(at)).unwrap_or(u32::MAX);
            bytes += weight as usize;
            nodes.push(self.append(Node { next: NONE, account, weight, entry, at: at as u32 }));
        }
        (nodes, bytes)
    }

    /// Removes envelopes, each the oldest of its account when its turn comes. `NONE` is skipped.
    pub(super) fn leave(&mut self, nodes: &[u32]) {
        for &id in nodes.iter().filter(|id| **id != NONE) {
            let account = self.nodes[id as usize].account;
            debug_assert_eq!(self.accounts[account as usize].oldest, id, "envelopes of one account leave oldest first");
            self.remove_oldest(account);
        }
    }

    /// The account that holds most and so is to lose its oldest envelope.
    ///
    /// Brings the ranking up to date first: O(log sources) per account changed since the last time, and never more than ranking
    /// all of them anew.
    pub(super) fn loudest(&mut self) -> Option<Loudest> {
        if self.changed.len() > self.accounts.len() / 8 + 1 {
            let held = self.accounts.iter().enumerate().filter(|(_, account)| account.oldest != NONE);
            let ranks = held.map(|(id, account)| account.rank(id as u32));
            self.ranking.rebuild(ranks, self.accounts.len());
            self.changed.drain(..).for_each(|id| self.accounts[id as usize].changed = false);
        } else {
            while let Some(id) = self.changed.pop() {
                let account = &mut self.accounts[id as usize];
                account.changed = false;
                if account.oldest == NONE {
                    self.ranking.remove(id);
                } else {
                    self.ranking.set(account.rank(id));
                }
            }
        }
        self.ranking.first().map(|account| Loudest { account, next: self.ranking.second() })
    }

    /// Whether that account still holds most, if no other has changed since. O(1).
    pub(super) fn is_still(&self, loudest: &Loudest) -> bool {
        let account = &self.accounts[loudest.account as usize];
        account.oldest != NONE && loudest.next.is_none_or(|next| account.rank(loudest.account).is_before(&next))
    }

    /// Where an account's oldest envelope is, the load and the index there, and its bytes.
    pub(super) fn oldest(&self, account: u32) -> (u32, usize, usize) {
        let node = &self.nodes[self.accounts[account as usize].oldest as usize];
        (node.entry, node.at as usize, node.weight as usize)
    }

    pub(super) fn remove_oldest(&mut self, id: u32) {
        let account = &mut self.accounts[id as usize];
        let node = &mut self.nodes[account.oldest as usize];
        account.bytes -= u64::from(node.weight);
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = std::mem::replace(&mut account.oldest, next);
        if next == NONE && id != REMAINDER {
            let source = account.source;
            self.by_source.remove(&source);
            self.vacant.push(id);
        }
        self.note(id);
    }

    /// Bytes an envelope was entered with.
    pub(super) fn weight(&self, node: u32) -> usize {
        self.nodes[node as usize].weight as usize
    }

    /// Says where envelopes are now: all of a load, in order.
    pub(super) fn moved(&mut self, nodes: &[u32], entry: u32) {
        for (at, &node) in nodes.iter().enumerate() {
            let node = &mut self.nodes[node as usize];
            node.entry = entry;
            node.at = at as u32;
        }
    }

    /// Adds a node at the young end of its account's chain.
    // Inlined, the node goes from registers into the slab. By way of the stack it is written in parts and read as a whole, which stalls.
    #[inline(always)]
    fn append(&mut self, node: Node) -> u32 {
        let id = if self.free == NONE {
            self.nodes.push(node);
            (self.nodes.len() - 1) as u32
        } else {
            let id = self.free;
            self.free = self.nodes[id as usize].next;
            self.nodes[id as usize] = node;
            id
        };
        let account = &mut self.accounts[node.account as usize];
        account.bytes += u64::from(node.weight);
        if account.oldest == NONE {
            account.oldest = id;
        } else {
            self.nodes[account.newest as usize].next = id;
        }
        account.newest = id;
        self.note(node.account);
        id
    }

    /// Notes that an account's bytes have changed.
    fn note(&mut self, id: u32) {
        let account = &mut self.accounts[id as usize];
        if !account.changed {
            account.changed = true;
            self.changed.push(id);
        }
    }

    /// The account an envelope of `source` enters, opened if there is room for it.
    #[inline]
    fn account_of(&mut self, source: u64) -> u32 {
        let recent = self.recent[source as usize % RECENT];
        let account = &self.accounts[recent as usize];
        if account.source == source && account.oldest != NONE && recent != REMAINDER {
            return recent;
        }
        let account = self.find_or_open(source);
        self.recent[source as usize % RECENT] = account;
        account
    }

    fn find_or_open(&mut self, source: u64) -> u32 {
        if let Some(account) = self.by_source.get(&source) {
            return *account;
        }
        if self.by_source.len() >= self.limit {
            return REMAINDER;
        }
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.accounts.push(Account { source, bytes: 0, oldest: NONE, newest: NONE, changed: false });
            (self.accounts.len() - 1) as u32
        });
        self.accounts[id as usize].source = source;
        self.by_source.insert(source, id);
        id
    }
}

impl Account {
    fn rank(&self, id: u32) -> Rank {
        Rank::new(id, self.bytes, self.source, id == REMAINDER)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
impl Table {
    /// Which load an envelope is in, and its index there.
    pub(super) fn position(&self, node: u32) -> (u32, usize) {
        let node = &self.nodes[node as usize];
        (node.entry, node.at as usize)
    }

    /// Panics when chains and accounts disagree, or when they do not hold this many envelopes.
    pub(super) fn assert_consistent(&self, envelopes: usize) {
        let mut nodes = 0;
        for (id, account) in self.accounts.iter().enumerate() {
            let (mut node, mut bytes) = (account.oldest, 0);
            while node != NONE {
                nodes += 1;
                bytes += u64::from(self.nodes[node as usize].weight);
                node = self.nodes[node as usize].next;
            }
            assert_eq!(bytes, account.bytes);
            assert_eq!(account.changed, self.changed.contains(&(id as u32)));
            if id as u32 != REMAINDER && account.oldest != NONE {
                assert_eq!(self.by_source[&account.source], id as u32);
            }
        }
        assert_eq!(nodes, envelopes);
        let own = self.accounts.iter().skip(1).filter(|account| account.oldest != NONE).count();
        assert_eq!((own, own + self.vacant.len()), (self.by_source.len(), self.accounts.len() - 1));
        assert!(own <= self.limit);
    }
}
