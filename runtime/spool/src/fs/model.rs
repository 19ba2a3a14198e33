//! A file system in memory that forgets what was not synced.
//!
//! The calls of a spool and faults to inject enter; after [`Model::crash`] there is what a disk may hold after a power loss: of each file
//! what was synced, with an arbitrary part of what was written since, torn at any byte and with holes; of the directory the names that
//! were synced, with arbitrary ones of the later changes. One flat directory: paths are told apart by their last part.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::disk::{Change, Inode, Write};
use super::{Access, Entry, File, FileSystem, Lock, Space};

/// The model. Clones are the same file system.
#[derive(Clone, Default)]
pub struct Model {
    state: Arc<Mutex<State>>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call does nothing and gives EIO. A sync forgets for ever what it should have made durable.
    Io,
    /// The call does nothing and gives ENOSPC.
    NoSpace,
    /// A write takes half of the bytes, and says so.
    Short,
    /// The power goes: this call and all later ones give errors, until [`Model::crash`].
    PowerLoss,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    /// Names as every process sees them.
    names: BTreeMap<OsString, usize>,
    /// Names as a crash leaves them.
    synced: BTreeMap<OsString, usize>,
    changes: Vec<Change>,
    locks: BTreeSet<OsString>,
    /// Rises with each crash: what was opened before is void.
    epoch: u64,
    /// Calls that change something, so far.
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    dead: bool,
    refused: Option<&'static str>,
    capacity: Option<u64>,
    random: u64,
}

struct Handle {
    model: Model,
    inode: usize,
    epoch: u64,
}

struct Held {
    model: Model,
    name: OsString,
    epoch: u64,
}

impl Model {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls so far that change something: writes, syncs, truncations, and changes of names.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets the `call`th such call go wrong; the first has the number 1.
    pub fn inject(&self, call: u64, fault: Fault) {
        self.state().faults.insert(call, fault);
    }

    /// Forgets the faults that did not happen yet.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.refused = None;
    }

    /// Lets all reads of files whose names end so give EIO, until [`Model::heal`].
    pub fn refuse_reads_of(&self, end: &'static str) {
        self.state().refused = Some(end);
    }

    /// Bounds the bytes of all files. `None`: no bound.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// Takes the power away and gives it back. `choose(n)` picks a number below `n`, by which everything is decided that a disk may decide.
    pub fn crash(&self, mut choose: impl FnMut(u64) -> u64) {
        let mut state = self.state();
        let State { inodes, changes, synced, .. } = &mut *state;
        for inode in inodes.iter_mut() {
            inode.crash(&mut choose);
        }
        for change in changes.drain(..) {
            if choose(2) == 0 {
                change.apply(synced);
            }
        }
        state.names = state.synced.clone();
        state.locks.clear();
        state.faults.clear();
        state.epoch += 1;
        state.dead = false;
    }

    /// True between a loss of power and [`Model::crash`].
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<OsString> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file. `None`: there is none.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(&OsString::from(name)).map(|inode| state.inodes[*inode].bytes.clone())
    }

    /// Puts a file there, durably, in place of what had its name.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode::durable(bytes));
        state.names.insert(name.into(), inode);
        state.synced.insert(name.into(), inode);
    }

    /// Takes a file away, durably.
    pub fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(&OsString::from(name));
        state.synced.remove(&OsString::from(name));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: usize, epoch: u64) -> Box<dyn File> {
        Box::new(Handle { model: self.clone(), inode, epoch })
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }

    /// Counts a call that changes something, and gives what goes wrong with it.
    fn change(&mut self) -> io::Result<Option<Fault>> {
        self.alive()?;
        self.calls += 1;
        match self.faults.remove(&self.calls) {
            Some(Fault::PowerLoss) => {
                self.dead = true;
                self.alive().map(|()| None)
            }
            fault => Ok(fault),
        }
    }

    /// As [`State::change`], for calls that do nothing when something goes wrong.
    fn change_or_fail(&mut self) -> io::Result<()> {
        match self.change()? {
            Some(Fault::Io) => Err(eio()),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].bytes.len() as u64).sum()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    fn apply(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl FileSystem for Model {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.state().alive()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.alive()?;
        let entry = |(name, inode): (&OsString, &usize)| {
            let len = state.inodes[*inode].bytes.len() as u64;
            Entry { name: name.clone(), len, regular: true }
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.change_or_fail()?;
        let name = name(path)?;
        if state.names.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.room() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.apply(Change::Name(name, inode));
        Ok(self.handle(inode, state.epoch))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.alive()?;
        let inode = state.names.get(&name(path)?).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(*inode, state.epoch))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_or_fail()?;
        let (from, to) = (name(from)?, name(to)?);
        let inode = *state.names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        state.apply(Change::Rename(from, to, inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        let name = name(path)?;
        if !state.names.contains_key(&name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_or_fail()?;
        state.apply(Change::Remove(name));
        Ok(())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        let state = self.state();
        state.alive()?;
        if state.names.is_empty() { Ok(()) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change_or_fail()?;
        state.changes.clear();
        state.synced = state.names.clone();
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let state = self.state();
        state.alive()?;
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Space { total, available: total.saturating_sub(state.used()) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        state.alive()?;
        let name = name(path)?;
        if !state.locks.insert(name.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let inode = state.inodes.len();
        if !state.names.contains_key(&name) {
            state.inodes.push(Inode::default());
            state.apply(Change::Name(name.clone(), inode));
        }
        Ok(Box::new(Held { model: self.clone(), name, epoch: state.epoch }))
    }

    fn random(&self) -> u64 {
        let mut state = self.state();
        state.random += 1;
        state.random.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.model.state();
        state.alive()?;
        if state.epoch == self.epoch { Ok(state) } else { Err(io::Error::other("opened before the crash")) }
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state()?;
        let named =
            |(name, inode): (&OsString, &usize), end| *inode == self.inode && name.to_string_lossy().ends_with(end);
        if state.refused.is_some_and(|end| state.names.iter().any(|entry| named(entry, end))) {
            return Err(eio());
        }
        let bytes = &state.inodes[self.inode].bytes;
        let from = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let len = buffer.len().min(bytes.len() - from);
        buffer[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        let fault = state.change();
        let mut len = match fault {
            Ok(None) => bytes.len(),
            Ok(Some(Fault::Short)) => bytes.len().div_ceil(2),
            Ok(Some(Fault::NoSpace)) => return Err(io::ErrorKind::StorageFull.into()),
            Ok(Some(_)) => return Err(eio()),
            // Power that goes amid a write may leave any part of it.
            Err(_) => bytes.len(),
        };
        let end = state.inodes[self.inode].bytes.len() as u64;
        let room = usize::try_from(state.room().saturating_add(end.saturating_sub(offset))).unwrap_or(usize::MAX);
        if room == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        len = len.min(room);
        state.inodes[self.inode].write(Write { offset: offset as usize, bytes: bytes[..len].to_vec() });
        fault.map(|_| len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let result = state.change_or_fail();
        if !state.dead {
            state.inodes[self.inode].sync(result.is_ok());
        }
        result
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.change_or_fail()?;
        state.inodes[self.inode].truncate(len as usize);
        Ok(())
    }
}

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.model.state();
        if state.epoch == self.epoch {
            state.locks.remove(&self.name);
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::errno::Errno::EIO as i32)
}

fn name(path: &Path) -> io::Result<OsString> {
    path.file_name().map(ToOwned::to_owned).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
