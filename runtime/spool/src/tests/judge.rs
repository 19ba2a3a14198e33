//! Knows what was promised about a spool, and holds it to that.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::fs::Fault;

/// Something that is done to a spool.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Appends so many records.
    Append(u64),
    Commit,
    Take,
    Read(usize, usize),
    /// Acknowledges so many percent of what is read.
    Ack(u64),
    Checkpoint,
    Rewind,
    /// Lets one of the next calls go wrong.
    Fail(u64, Fault),
    Heal,
    /// The process ends and starts again.
    Kill,
    /// The power goes, and the disk keeps what the seed says.
    Crash(u64),
}

/// A spool, and what must be true of it.
pub(super) struct Judge {
    pub(super) fs: Model,
    options: Options,
    ends: Option<(Writer, Reader)>,
    /// Records so far: each has its number as its arrival.
    numbers: u64,
    /// Committed: sequence to number. These must come.
    committed: BTreeMap<u64, u64>,
    /// Appended: these may come, when none with their sequence was committed.
    appended: BTreeSet<(u64, u64)>,
    waiting: Vec<(u64, u64)>,
    acked: u64,
    /// A durable checkpoint is at least here: nothing below may come again after a restart.
    durable: u64,
    /// The highest sequence that was ever acknowledged.
    most_acked: u64,
    /// A full disk may have made it write over the checkpoint in place.
    overwritten: bool,
    /// The last sequence read or passed over.
    at: u64,
    opened_bytes: u64,
}

impl Judge {
    pub(super) fn new(options: Options) -> Self {
        let fs = Model::new();
        let (writer, reader, _) = open_with(&fs, options.clone());
        Self {
            fs,
            options,
            ends: Some((writer, reader)),
            numbers: 0,
            committed: BTreeMap::new(),
            appended: BTreeSet::new(),
            waiting: Vec::new(),
            acked: 0,
            durable: 0,
            most_acked: 0,
            overwritten: false,
            at: 0,
            opened_bytes: 0,
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        let (writer, reader) = self.ends.as_mut().unwrap();
        match step {
            Step::Append(records) => {
                for _ in 0..*records {
                    let number = self.numbers + 1;
                    if let Ok(sequence) = writer.append(number, &payload(number)) {
                        self.numbers = number;
                        self.waiting.push((sequence, number));
                        self.appended.insert((sequence, number));
                    }
                }
            }
            Step::Commit => {
                if let Ok(committed) = writer.commit() {
                    assert_eq!(committed.records, self.waiting.len() as u64);
                    for (sequence, number) in self.waiting.drain(..) {
                        assert_eq!(self.committed.insert(sequence, number), None, "a sequence is given once");
                    }
                }
            }
            Step::Take => {
                let taken = writer.take_uncommitted();
                let taken = taken.iter().map(|record| (record.sequence, record.arrival_ms));
                assert!(taken.eq(self.waiting.drain(..)));
            }
            Step::Read(bytes, records) => _ = self.read(*bytes, *records),
            Step::Ack(percent) => {
                let through = self.acked + self.at.saturating_sub(self.acked) * percent / 100;
                self.acked = self.acked.max(through);
                self.most_acked = self.most_acked.max(through);
                let _ = reader.ack(through);
            }
            Step::Checkpoint => {
                if reader.checkpoint().is_ok() {
                    self.durable = self.durable.max(self.acked);
                }
            }
            Step::Rewind => {
                reader.rewind();
                self.at = self.acked;
            }
            Step::Fail(calls, fault) => {
                self.overwritten |= *fault == Fault::NoSpace;
                self.fs.inject(self.fs.calls() + calls, *fault);
            }
            Step::Heal => self.fs.heal(),
            Step::Kill if self.fs.is_dead() => {}
            Step::Kill => self.reopen(|_| {}),
            Step::Crash(seed) => {
                let mut numbers = *seed;
                self.reopen(|fs| fs.crash(|n| split_mix(&mut numbers) % n));
            }
        }
        self.hold_sums();
    }

    /// Reads everything that is left, and holds that nothing is missing.
    pub(super) fn finish(&mut self) {
        self.fs.heal();
        while self.read(500, 20) {}
        let last = self.committed.keys().next_back().copied().unwrap_or(0);
        assert!(self.at >= last, "the end is {} and not {last}", self.at);
        self.hold_sums();
    }

    /// Reads a batch and holds it to what was promised. False when there was none.
    fn read(&mut self, bytes: usize, records: usize) -> bool {
        let (_, reader) = self.ends.as_mut().unwrap();
        let Ok(batch) = reader.read(bytes, records) else { return false };
        let mut missing = 0;
        let mut expected = self.at + 1;
        for record in &batch.records {
            let (sequence, number) = (record.sequence, record.arrival_ms);
            assert!(sequence >= expected, "{sequence} comes again or out of order, after {}", expected - 1);
            assert_eq!(record.payload, payload(number), "corrupted");
            match self.committed.get(&sequence) {
                Some(committed) => assert_eq!(number, *committed, "another record at {sequence}"),
                None => assert!(self.appended.contains(&(sequence, number)), "invented: {number} at {sequence}"),
            }
            missing += self.hold_missing(expected..sequence);
            expected = sequence + 1;
        }
        missing += self.hold_missing(expected..batch.through + 1);
        assert!(batch.lost <= missing);
        self.at = batch.through;
        !batch.records.is_empty() || batch.lost > 0
    }

    /// Holds that what did not come was never committed.
    fn hold_missing(&self, gap: std::ops::Range<u64>) -> u64 {
        for sequence in gap.clone() {
            assert!(!self.committed.contains_key(&sequence), "committed {sequence} is lost");
        }
        gap.end.saturating_sub(gap.start)
    }

    fn reopen(&mut self, between: impl FnOnce(&Model)) {
        self.ends = None;
        between(&self.fs);
        let open = || open(Arc::new(self.fs.clone()), Path::new("spool"), self.options.clone());
        // The power may go while it opens.
        let opened = open().or_else(|_| {
            self.fs.crash(|n| n / 2);
            open()
        });
        let (writer, reader, recovered) = opened.unwrap();
        if self.overwritten {
            self.durable = self.durable.min(recovered.acked);
        }
        assert!(self.durable <= recovered.acked, "a durable checkpoint is gone");
        assert!(recovered.acked <= self.most_acked, "acknowledged by nobody");
        self.opened_bytes = recovered.bytes;
        (self.acked, self.at) = (recovered.acked, recovered.acked);
        self.waiting.clear();
        self.ends = Some((writer, reader));
    }

    fn hold_sums(&self) {
        let depth = self.ends.as_ref().unwrap().0.stats().depth();
        assert_eq!(depth.appended, depth.committed + depth.uncommitted + depth.taken);
        assert_eq!(depth.recovered + depth.committed, depth.acked + depth.lost + depth.records);
        assert_eq!(depth.uncommitted, self.waiting.len() as u64);
        assert!(depth.bytes <= self.options.max_bytes.max(self.opened_bytes), "{} bytes", depth.bytes);
        let files = self.fs.files();
        let segments = files.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(".seg"));
        let on_disk: usize = segments.map(|name| self.fs.contents(name).unwrap().len()).sum();
        assert!(on_disk as u64 <= depth.bytes, "{on_disk} on disk, {} counted", depth.bytes);
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
