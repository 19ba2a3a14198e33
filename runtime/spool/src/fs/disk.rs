//! The real file system.
//!
//! Paths enter; files leave, opened without following a link and without waiting for a pipe's other end.

use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statvfs::statvfs;

use super::{Access, Entry, File, FileSystem, Lock, Space};

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

struct Locked {
    _file: fs::File,
}

impl FileSystem for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => self.sync_dir(above(dir)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && above(dir) != dir && !above(dir).exists() => {
                self.create_dir(above(dir))?;
                self.create_dir(dir)
            }
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(about) => {
                    entries.push(Entry { name: entry.file_name(), len: about.len(), regular: about.is_file() })
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options().write(true).create_new(true).open(path)?))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        match options().write(access == Access::Overwrite).open(path) {
            Ok(file) => Ok(Box::new(file)),
            // A link is not one of our files.
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => Err(io::ErrorKind::NotFound.into()),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let about = statvfs(dir)?;
        let block = about.fragment_size();
        Ok(Space {
            total: about.blocks().saturating_mul(block),
            available: about.blocks_available().saturating_mul(block),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = options().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever removes a spool removes this file under its lock: a lock on what has no name any more excludes nobody.
        let (ours, named) = (file.metadata()?, fs::symlink_metadata(path));
        match named {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Box::new(Locked { _file: file })),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn random(&self) -> u64 {
        // The keys of a hasher come from the operating system.
        RandomState::new().build_hasher().finish()
    }
}

impl File for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Lock for Locked {}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
    options
}

/// The directory that holds `dir`.
fn above(dir: &Path) -> &Path {
    match dir.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => dir,
    }
}
