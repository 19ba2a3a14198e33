//! What the model's disk remembers of a file and of the directory's names.
//!
//! Writes and changes of names enter; what survives a crash leaves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::mem;

/// Bytes that reach the disk together or not at all. Small, so that small tests have many.
const BLOCK: usize = 32;

/// A file.
#[derive(Default)]
pub(super) struct Inode {
    /// As every process sees it.
    pub(super) bytes: Vec<u8>,
    /// As it was when last synced.
    synced: Vec<u8>,
    /// What was done since.
    pending: Vec<Write>,
}

/// A write; a truncation is one without bytes.
pub(super) struct Write {
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
}

/// A change of names.
pub(super) enum Change {
    /// A new file.
    Name(OsString, usize),
    /// Another name for a file.
    Rename(OsString, OsString, usize),
    /// No file of that name any more.
    Remove(OsString),
}

impl Inode {
    pub(super) fn durable(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), synced: bytes.to_vec(), pending: Vec::new() }
    }

    pub(super) fn write(&mut self, write: Write) {
        put(&mut self.bytes, write.offset, &write.bytes);
        self.pending.push(write);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.pending.push(Write { offset: len, bytes: Vec::new() });
    }

    /// Syncs, or fails to: then what was pending is clean in memory and never reaches the disk.
    pub(super) fn sync(&mut self, succeeds: bool) {
        for write in mem::take(&mut self.pending) {
            match write.bytes.len() {
                _ if !succeeds => {}
                0 => self.synced.truncate(write.offset),
                _ => put(&mut self.synced, write.offset, &write.bytes),
            }
        }
    }

    /// Loses what the disk chooses to lose.
    pub(super) fn crash(&mut self, choose: &mut impl FnMut(u64) -> u64) {
        for write in mem::take(&mut self.pending) {
            if write.bytes.is_empty() {
                if choose(2) == 0 {
                    self.synced.truncate(write.offset);
                }
                continue;
            }
            // Mostly a prefix, as disks have it; else blocks here and there. A block that is missing is a hole of what was there before.
            let torn = choose(write.bytes.len() as u64 + 1) as usize;
            match choose(4) {
                0 => {}
                1 => put(&mut self.synced, write.offset, &write.bytes),
                2 => put(&mut self.synced, write.offset, &write.bytes[..torn]),
                _ => {
                    for (at, block) in write.bytes.chunks(BLOCK).enumerate() {
                        if choose(2) == 0 {
                            put(&mut self.synced, write.offset + at * BLOCK, block);
                        }
                    }
                }
            }
        }
        self.bytes = self.synced.clone();
    }
}

impl Change {
    pub(super) fn apply(&self, names: &mut BTreeMap<OsString, usize>) {
        match self {
            Self::Name(name, inode) => _ = names.insert(name.clone(), *inode),
            Self::Remove(name) => _ = names.remove(name),
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// Puts bytes into others, with zeros between when they lie behind the end.
fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}
