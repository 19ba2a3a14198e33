//! The one door to the file system, so that tests can close it at any moment.
//!
//! Calls enter; `io::Result`s leave. [`Disk`] is the real one; the model (feature `test-util`) forgets what was not synced. An
//! implementation never retries and never follows a symbolic link in the last part of a path.

mod disk;
#[cfg(any(test, feature = "test-util"))]
mod model;

use std::ffi::OsString;
use std::io;
use std::path::Path;

pub use self::disk::Disk;
#[cfg(any(test, feature = "test-util"))]
pub use self::model::{Fault, Model};

/// What a spool asks of a file system.
pub trait FileSystem: Send + Sync {
    /// Makes a directory with mode 0700, and those above it, durably. It may exist.
    ///
    /// # Errors
    /// As the operating system has them.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// What a directory holds, in any order. What vanishes meanwhile is left out.
    ///
    /// # Errors
    /// As the operating system has them.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a file with mode 0600 that must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, and as the operating system has them.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file, to read or also to overwrite it.
    ///
    /// # Errors
    /// `NotFound`, and as the operating system has them.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>>;
    /// Gives a file another name in the same directory, in place of what had it. Durable with [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// As the operating system has them.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable with [`FileSystem::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`, and as the operating system has them.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, and as the operating system has them.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable: which there are, and which are gone.
    ///
    /// # Errors
    /// As the operating system has them.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The size of the file system that holds `dir`, and what is free of it.
    ///
    /// # Errors
    /// As the operating system has them.
    fn space(&self, dir: &Path) -> io::Result<Space>;
    /// Takes the exclusive lock of a file, which is made when absent. Dropping what is returned gives it back.
    ///
    /// # Errors
    /// `WouldBlock` when somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// A random number that nobody outside can guess.
    fn random(&self) -> u64;
}

/// An open file.
pub trait File: Send + Sync {
    /// Reads at `offset`; 0 at the end.
    ///
    /// # Errors
    /// As the operating system has them.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at `offset`, maybe less than all.
    ///
    /// # Errors
    /// As the operating system has them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes content and length durable. After an error, what was written since the last success may be gone, whatever a later call says.
    ///
    /// # Errors
    /// As the operating system has them.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// As the operating system has them.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// Holds a lock while it lives.
pub trait Lock: Send + Sync {}

/// What an open file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading, and writing over what is there.
    Overwrite,
}

/// Something in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the directory.
    pub name: OsString,
    /// Length in bytes.
    pub len: u64,
    /// A regular file: no link, directory or device.
    pub regular: bool,
}

/// Room in a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total: u64,
    /// What an unprivileged process may still use.
    pub available: u64,
}
