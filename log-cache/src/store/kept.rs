//! What a snapshot keeps of a store, source by source, and how it comes back.

use std::sync::atomic::Ordering::Relaxed;

use proto::raw::source_hash;

use super::Store;
use crate::packed::Broken;
use crate::snapshot::Record;
use crate::source::{Snapshot, Source};

impl Store {
    /// A source as a snapshot keeps it; `None` if it holds nothing.
    pub(crate) fn record(&self, id: &[u8], hash: u64) -> Option<Snapshot> {
        let table = self.shared.shard(hash).0.lock();
        table.find(hash, |source| *source.id == *id).filter(|source| !source.is_empty()).map(|source| source.record())
    }

    /// Puts back what a snapshot kept of a source, behind what it holds, then evicts what the budget asks for. To be called before
    /// anything else is put.
    ///
    /// # Errors
    /// [`Broken`]: it came before what the source holds.
    pub(crate) fn put_record(&self, record: Record) -> Result<(), Broken> {
        let shared = &*self.shared;
        let (Some(first), Some(last)) = (record.segments.first(), record.segments.last()) else { return Ok(()) };
        let (first, last) = (first.first_sequence(), last.last_sequence());
        let envelopes = record.segments.iter().map(|segment| segment.len() as u64).sum();
        let hash = source_hash(&record.id);
        let mut crossed = Vec::new();
        let mut table = shared.shard(hash).0.lock();
        let source = table.entry(hash, |source| *source.id == *record.id, |source| source.hash);
        let born = || shared.sequence.fetch_add(1, Relaxed) + 1;
        let source = source.or_insert_with(|| Box::new(Source::new(&record.id, hash, born()))).into_mut();
        if source.is_empty() {
            shared.shares.source_came();
        } else if source.last_sequence() >= first {
            return Err(Broken);
        }
        source.put_record(record);
        shared.charge(source);
        shared.shares.crossed(source, |line, victim| crossed.push((line, victim)));
        drop(table);
        shared.sequence.fetch_max(last, Relaxed);
        shared.counts.offered.fetch_add(envelopes, Relaxed);
        shared.counts.accepted.fetch_add(envelopes, Relaxed);
        let mut victims = shared.victims.lock();
        crossed.into_iter().for_each(|(line, victim)| victims.insert(line, victim));
        drop(victims);
        if shared.held.load(Relaxed) > shared.shares.budget() {
            self.evict();
        }
        Ok(())
    }
}
