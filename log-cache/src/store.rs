//! The store: recent envelopes of many sources under one byte budget.
//!
//! What enters: checked batches. What leaves: reads by time ([`Store::read`]), a summary per source ([`Store::meta`]), and readers that
//! follow arrival ([`Store::follow`]). It keeps copies of the bytes, so no batch stays alive for it; it never decodes an envelope to
//! store it, never does I/O and never looks at a clock.
//!
//! **Locks.** Sources are spread over shards by the hash of their id; each shard's mutex guards its sources, is taken once per run of
//! envelopes of one source, and never while another shard's is held. The victims' mutex guards the order of eviction; it is taken
//! before a shard's, never after. Reads copy the open segment and share the sealed ones, then work without a lock: what they hold
//! beyond its eviction is not charged. A segment that a put has filled is packed by that put, with no lock held: until it has taken its
//! place again, it is held and charged as it was.
//!
//! **Sequences.** Every envelope gets the next number of the store under its shard's lock. So numbers ascend per source, and whoever
//! reads the counter and then takes a shard's lock finds there every envelope up to that number: an envelope not yet there takes its
//! number under that lock later, and so a higher one.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use hashbrown::HashTable;
use parking_lot::Mutex;
use proto::raw::{Batch, Selection, source_hash};
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::config::Config;
use crate::prune::{Line, Shares, Victim, Victims};
use crate::seal::Seal;
use crate::sealed::Sealed;
use crate::segment::{KindSet, Kinds, MAX_ENVELOPE};
use crate::source::{Part, Passed, Source};

/// A power of two. Enough that ingress tasks rarely meet, few enough that a sweep is short.
const SHARDS: usize = 64;

/// Recent envelopes of many sources. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    shards: Box<[Shard]>,
    /// The number of the latest envelope.
    sequence: AtomicU64,
    epoch: u64,
    seal: Seal,
    /// Bytes charged to all sources that hold an envelope.
    held: AtomicUsize,
    shares: Shares,
    victims: Mutex<Victims>,
    counts: Counts,
    followed: AtomicUsize,
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<HashTable<Box<Source>>>);

#[derive(Debug, Default)]
struct Counts {
    offered: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    evicted: AtomicU64,
    read: AtomicU64,
}

/// What the store has done and what it holds, at about one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Envelopes put.
    pub offered: u64,
    /// Envelopes stored.
    pub accepted: u64,
    /// Envelopes too large for a segment.
    pub rejected: u64,
    /// Envelopes evicted for lack of room.
    pub evicted: u64,
    /// Envelopes returned by reads.
    pub read: u64,
    /// Envelopes held.
    pub envelopes: u64,
    /// Bytes of memory held.
    pub bytes: usize,
    /// Sources that hold an envelope.
    pub sources: usize,
}

/// A source in a few numbers (contract `log-cache.md` §4). Times are nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMeta {
    /// Envelopes held.
    pub count: u64,
    /// Envelopes evicted while the source was known.
    pub expired: u64,
    /// Bytes of both, as they were put.
    pub bytes: u64,
    /// The smallest timestamp held.
    pub oldest_timestamp: i64,
    /// The largest timestamp ever seen, at least 0.
    pub newest_timestamp: i64,
    /// Envelopes of the newest two segments.
    pub recent: u64,
    /// The smallest timestamp among those.
    pub recent_since: i64,
}

impl SourceMeta {
    /// Envelopes per second lately: those of the newest two segments, over the time since the oldest of them, a second at least. `now` is
    /// in nanoseconds since the Unix epoch.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub fn rate(&self, now: i64) -> f64 {
        self.recent as f64 / (now.saturating_sub(self.recent_since) as f64 / 1e9).max(1.0)
    }
}

/// What one put leaves to be done once its shard's lock is free.
#[derive(Default)]
struct After {
    victims: SmallVec<[(Line, Victim); 8]>,
    wake: SmallVec<[Arc<Notify>; 4]>,
    /// Segments to be packed, with the hash and number of their sources.
    closed: Vec<(u64, u64, Arc<Sealed>)>,
}

impl Store {
    /// An empty store with the configured budget.
    pub fn new(config: &Config) -> Self {
        let shared = Shared {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            sequence: AtomicU64::new(0),
            epoch: foldhash::fast::RandomState::default().hash_one(std::process::id()),
            seal: Seal::default(),
            held: AtomicUsize::new(0),
            shares: Shares::new(usize::try_from(config.budget).unwrap_or(usize::MAX), config.source_cap_percent),
            victims: Mutex::default(),
            counts: Counts::default(),
            followed: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Stores a copy of every envelope of `selection`, then evicts as many segments as the budget asks for.
    ///
    /// Any timestamp is taken; arrival alone decides what is evicted. One lock per run of envelopes of one source, amortised one copy of
    /// the bytes. When all puts under way have returned, no more than the budget is held. Wakes the followers of the sources.
    pub fn put(&self, selection: &Selection) {
        let batch = selection.batch();
        let mut after = After::default();
        let mut begin = 0;
        let mut rejected = 0;
        while begin < selection.len() {
            let first = selection.entry(begin);
            let id = batch.source_id(first);
            let same = |i: &usize| {
                let entry = selection.entry(*i);
                entry.source == first.source && batch.source_id(entry) == id
            };
            let run = begin..begin + 1 + (begin + 1..selection.len()).take_while(same).count();
            begin = run.end;
            rejected += self.put_run(batch, id, selection, run, &mut after);
        }
        let offered = selection.len() as u64;
        let counts = &self.shared.counts;
        counts.offered.fetch_add(offered, Relaxed);
        counts.accepted.fetch_add(offered - rejected, Relaxed);
        counts.rejected.fetch_add(rejected, Relaxed);
        if !after.victims.is_empty() {
            let mut victims = self.shared.victims.lock();
            after.victims.drain(..).for_each(|(line, victim)| victims.insert(line, victim));
        }
        after.closed.drain(..).for_each(|(hash, born, sealed)| self.shared.pack(hash, born, sealed));
        if self.shared.held.load(Relaxed) > self.shared.shares.budget() {
            self.evict();
        }
        after.wake.iter().for_each(|follower| follower.notify_one());
    }

    /// Stores a run of envelopes of one source under one lock. Returns how many were too large.
    fn put_run(
        &self,
        batch: &Batch,
        id: &[u8],
        selection: &Selection,
        run: std::ops::Range<usize>,
        after: &mut After,
    ) -> u64 {
        let shared = &*self.shared;
        let hash = selection.entry(run.start).source;
        let segment_bytes = shared.shares.segment_bytes();
        let mut table = shared.shard(hash).0.lock();
        // Numbers of envelopes that turn out too large stay unused.
        let base = shared.sequence.fetch_add(run.len() as u64, Relaxed);
        let source = table.entry(hash, |source| *source.id == *id, |source| source.hash);
        let source = source.or_insert_with(|| Box::new(Source::new(id, hash, base + 1))).into_mut();
        let came = source.is_empty();
        let mut rejected = 0;
        for (i, sequence) in run.zip(base + 1..) {
            let entry = selection.entry(i);
            if entry.size() > MAX_ENVELOPE {
                rejected += 1;
                continue;
            }
            let envelope = batch.envelope(entry);
            if let Some(closed) = source.push(entry.timestamp, entry.kind, sequence, envelope, segment_bytes) {
                after.closed.push((hash, source.born, closed));
            }
        }
        if source.is_empty() {
            shared.forget_shell(&mut table, hash, id);
            return rejected;
        }
        if came {
            shared.shares.source_came();
        }
        shared.charge(source);
        shared.shares.crossed(source, |line, victim| after.victims.push((line, victim)));
        if !source.followers.is_empty() {
            after.wake.extend(source.followers.iter().cloned());
        }
        rejected
    }

    /// Takes segments from those over their share until the budget is kept.
    fn evict(&self) {
        let shared = &*self.shared;
        let mut victims = shared.victims.lock();
        while shared.held.load(Relaxed) > shared.shares.budget() {
            let falls = shared.shares.falls();
            if victims.swept != falls {
                victims.swept = falls;
                shared.sweep(&mut victims);
            }
            // None: others are storing right now, and evict once they have.
            let Some((line, victim)) = victims.pop() else { break };
            shared.take_from(line, victim, &mut victims);
        }
    }

    /// A summary of every source that holds an envelope. O(sources + segments), one shard's lock at a time.
    pub fn meta(&self) -> Vec<(String, SourceMeta)> {
        let mut all = Vec::with_capacity(self.shared.shares.sources());
        for shard in &self.shared.shards {
            let table = shard.0.lock();
            all.extend(table.iter().filter(|source| !source.is_empty()).map(|source| {
                let (recent, recent_since) = source.recent();
                let meta = SourceMeta {
                    count: source.envelopes(),
                    expired: source.expired(),
                    bytes: source.bytes(),
                    oldest_timestamp: source.oldest(),
                    newest_timestamp: source.newest(),
                    recent,
                    recent_since,
                };
                (String::from_utf8_lossy(&source.id).into_owned(), meta)
            }));
        }
        all
    }

    /// The smallest timestamp held. O(sources + segments).
    pub fn oldest_timestamp(&self) -> Option<i64> {
        let oldest =
            |shard: &Shard| shard.0.lock().iter().filter(|source| !source.is_empty()).map(|s| s.oldest()).min();
        self.shared.shards.iter().filter_map(oldest).min()
    }

    /// What was done and what is held. Cheap.
    pub fn numbers(&self) -> Numbers {
        let counts = &self.shared.counts;
        // Evictions first: what is evicted was accepted before.
        let evicted = counts.evicted.load(Relaxed);
        let accepted = counts.accepted.load(Relaxed);
        let rejected = counts.rejected.load(Relaxed);
        Numbers {
            offered: accepted + rejected,
            accepted,
            rejected,
            evicted,
            read: counts.read.load(Relaxed),
            envelopes: accepted.saturating_sub(evicted),
            bytes: self.shared.held.load(Relaxed),
            sources: self.shared.shares.sources(),
        }
    }

    /// A random number, one per store: sequences of different stores do not compare.
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// What sequences go through that leave the process.
    pub(crate) fn seal(&self) -> &Seal {
        &self.shared.seal
    }

    /// The number of the latest envelope; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.shared.sequence.load(Relaxed)
    }

    /// The segments of a source that a read must look at.
    pub(crate) fn matching(&self, id: &[u8], start: i64, end: i64, kinds: KindSet) -> Vec<Arc<Sealed>> {
        let hash = source_hash(id);
        let table = self.shared.shard(hash).0.lock();
        let source = table.find(hash, |source| *source.id == *id);
        source.map_or_else(Vec::new, |source| source.matching(start, end, kinds))
    }

    pub(crate) fn count_read(&self, envelopes: usize) {
        self.shared.counts.read.fetch_add(envelopes as u64, Relaxed);
    }

    /// Takes `more` of the places for followed sources, of which the store has `limit`. False if they are not free.
    pub(crate) fn reserve_followed(&self, more: usize, limit: usize) -> bool {
        let taken = |now: usize| now.checked_add(more).filter(|sum| *sum <= limit);
        self.shared.followed.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    /// Gives places for followed sources back.
    pub(crate) fn release_followed(&self, places: usize) {
        self.shared.followed.fetch_sub(places, Relaxed);
    }

    /// Has `wake` notified of every put to the source, which need not exist. Returns the evicted envelopes by kind, and where a reader
    /// stands that has seen all up to `after`.
    pub(crate) fn watch(&self, id: &[u8], hash: u64, wake: &Arc<Notify>, after: Option<u64>) -> Kinds<u64> {
        let mut table = self.shared.shard(hash).0.lock();
        let source = table.entry(hash, |source| *source.id == *id, |source| source.hash);
        // A shell takes a number of its own, as two sources of one hash must differ.
        let born = || self.shared.sequence.fetch_add(1, Relaxed) + 1;
        let source = source.or_insert_with(|| Box::new(Source::new(id, hash, born()))).into_mut();
        source.followers.push(Arc::clone(wake));
        let Some(sequence) = after else { return source.evicted() };
        let passed = source.passed(sequence);
        drop(table);
        passed.counts()
    }

    /// Ends [`Store::watch`]. A source that holds nothing and has no follower is forgotten.
    pub(crate) fn unwatch(&self, id: &[u8], hash: u64, wake: &Arc<Notify>) {
        let mut table = self.shared.shard(hash).0.lock();
        if let Some(source) = table.find_mut(hash, |source| *source.id == *id) {
            source.followers.retain(|follower| !Arc::ptr_eq(follower, wake));
            if source.is_empty() {
                self.shared.forget_shell(&mut table, hash, id);
            }
        }
    }

    /// The shards, to be named to [`Store::ids`].
    pub(crate) const fn shards() -> usize {
        SHARDS
    }

    /// The sources of one shard that hold an envelope or have lost one, with their hashes. O(sources of the shard).
    pub(crate) fn ids(&self, shard: usize) -> Vec<(Box<[u8]>, u64)> {
        let table = self.shared.shards[shard].0.lock();
        let known = table.iter().filter(|source| !source.is_empty() || source.expired() > 0);
        known.map(|source| (source.id.clone(), source.hash)).collect()
    }

    /// How many envelopes of a source came in `(after, until]`, by kind, those evicted included as far as they are remembered; see
    /// [`Source::passed`].
    pub(crate) fn arrived(&self, id: &[u8], hash: u64, after: u64, until: u64) -> Kinds<u64> {
        let table = self.shared.shard(hash).0.lock();
        let found = table.find(hash, |source| *source.id == *id);
        let found: Option<(Passed, Passed)> = found.map(|source| (source.passed(until), source.passed(after)));
        drop(table);
        let Some((until, after)) = found else { return Kinds::default() };
        let mut arrived = until.counts();
        for (sum, before) in arrived.iter_mut().zip(after.counts()) {
            *sum = sum.saturating_sub(before);
        }
        arrived
    }

    /// What arrived at a source after `sequence`, at most two segments of it.
    pub(crate) fn part(&self, id: &[u8], hash: u64, sequence: u64) -> Part {
        let table = self.shared.shard(hash).0.lock();
        table.find(hash, |source| *source.id == *id).map_or_else(Part::default, |source| source.after(sequence))
    }
}

impl Shared {
    fn shard(&self, hash: u64) -> &Shard {
        // Neither the lowest nor the highest bits: the tables use those.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Brings the charge of a source in line with what it holds.
    fn charge(&self, source: &mut Source) {
        let held = if source.is_empty() { 0 } else { source.held() };
        // Two's complement: a smaller charge is added as its wrapped difference.
        self.held.fetch_add(held.wrapping_sub(source.charged), Relaxed);
        source.charged = held;
    }

    /// Removes a source that holds nothing, unless somebody follows it.
    fn forget_shell(&self, table: &mut HashTable<Box<Source>>, hash: u64, id: &[u8]) {
        if let Ok(entry) = table.find_entry(hash, |source| *source.id == *id)
            && entry.get().followers.is_empty()
        {
            entry.remove();
        }
    }

    /// Packs a segment that its source has closed, and puts it there in its place, if it is still held.
    fn pack(&self, hash: u64, born: u64, sealed: Arc<Sealed>) {
        let Some(packed) = sealed.pack().map(Arc::new) else { return };
        let mut table = self.shard(hash).0.lock();
        let source = table.find_mut(hash, |source| source.born == born);
        if let Some(source) = source
            && source.put_packed(packed)
        {
            self.charge(source);
        }
        drop(table);
        drop(sealed);
    }

    /// Evicts the oldest segment of a victim, if it still is over its line.
    fn take_from(&self, line: Line, victim: Victim, victims: &mut Victims) {
        let mut table = self.shard(victim.hash).0.lock();
        let Ok(mut entry) = table.find_entry(victim.hash, |source| source.born == victim.born) else { return };
        let source = entry.get_mut();
        let (flag, share) = match line {
            Line::Cap => (&mut source.over_cap, self.shares.cap()),
            Line::Floor => (&mut source.over_floor, self.shares.floor()),
        };
        if source.charged <= share {
            *flag = false;
            return;
        }
        if source.first_sequence() > victim.first_sequence {
            let victim = source.victim();
            victims.insert(line, victim);
            return;
        }
        let evicted = source.evict();
        self.counts.evicted.fetch_add(evicted.segment.len() as u64, Relaxed);
        self.charge(source);
        if evicted.emptied {
            self.shares.source_went();
            match line {
                Line::Cap => source.over_cap = false,
                Line::Floor => source.over_floor = false,
            }
            if source.followers.is_empty() {
                entry.remove();
            }
        } else {
            // It may be under its line now: then the next look takes it out.
            victims.insert(line, source.victim());
        }
        drop(table);
        drop(evicted.segment);
    }

    /// Puts every source over a line into its set.
    fn sweep(&self, victims: &mut Victims) {
        for shard in &self.shards {
            for source in shard.0.lock().iter_mut() {
                self.shares.crossed(source, |line, victim| victims.insert(line, victim));
            }
        }
    }
}

impl Shares {
    /// Tells the lines that a source has got over since it was last looked at.
    fn crossed(&self, source: &mut Source, mut tell: impl FnMut(Line, Victim)) {
        let victim = source.victim();
        if !source.over_floor && source.charged > self.floor() {
            source.over_floor = true;
            tell(Line::Floor, victim);
        }
        if !source.over_cap && source.charged > self.cap() {
            source.over_cap = true;
            tell(Line::Cap, victim);
        }
    }
}

impl Source {
    fn victim(&self) -> Victim {
        Victim { first_sequence: self.first_sequence(), born: self.born, hash: self.hash }
    }
}

mod kept;
#[cfg(test)]
mod tests;
