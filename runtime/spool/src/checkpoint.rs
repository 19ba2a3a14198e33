//! The checkpoint file: how far delivery has come, durably.
//!
//! A checkpoint enters and is on disk when the call returns. It is written beside the old one and renamed over it, so that there is
//! always one or the other; only on a full disk it is written in place.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::{CHECKPOINT, Checkpoint};
use crate::fs::{Access, File, FileSystem};
use crate::walk::read_full;

pub(crate) const NAME: &str = "checkpoint";
pub(crate) const TEMPORARY: &str = "checkpoint.tmp";

/// The checkpoint is not durable. What was acknowledged since the last one comes again after a restart.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub struct CheckpointError {
    /// The file.
    pub path: PathBuf,
    /// What the operating system says.
    pub source: io::Error,
}

/// What was found where the checkpoint should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// A checkpoint that holds.
    Used,
    /// Nothing, as in a new spool.
    Missing,
    /// Something that is no checkpoint. Delivery starts at the oldest record: what was delivered comes again, nothing is lost.
    Unusable,
}

/// Reads the checkpoint. An error says that there may be one, and that the disk or the rights keep it from us.
pub(crate) fn read(fs: &dyn FileSystem, dir: &Path) -> io::Result<(Option<Checkpoint>, CheckpointState)> {
    let file = match fs.open(&dir.join(NAME), Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, CheckpointState::Missing)),
        Err(error) => return Err(error),
    };
    // One byte more shows that the file is longer.
    let mut bytes = [0; CHECKPOINT + 1];
    let len = match read_full(&*file, &mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => 0,
        len => len?,
    };
    let found = Checkpoint::parse(&bytes[..len]);
    Ok((found, found.map_or(CheckpointState::Unusable, |_| CheckpointState::Used)))
}

/// Makes `checkpoint` the durable one.
pub(crate) fn write(fs: &dyn FileSystem, dir: &Path, checkpoint: Checkpoint) -> Result<(), CheckpointError> {
    let path = dir.join(NAME);
    let written = match replace(fs, dir, &path, checkpoint) {
        // A full disk must not keep what is delivered from being deleted. Torn, it is unusable: repeats, no loss.
        Err(error) if is_full(&error) => overwrite(fs, dir, &path, checkpoint).map_err(|_| error),
        written => written,
    };
    written.map_err(|source| CheckpointError { path, source })
}

/// Writes all of `bytes`, however many calls it takes.
pub(crate) fn write_all(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// True for errors that space would cure.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn replace(fs: &dyn FileSystem, dir: &Path, path: &Path, checkpoint: Checkpoint) -> io::Result<()> {
    let temporary = dir.join(TEMPORARY);
    match fs.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = fs.create(&temporary)?;
    write_all(&*file, &checkpoint.encode(), 0)?;
    file.sync()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(dir)
}

fn overwrite(fs: &dyn FileSystem, dir: &Path, path: &Path, checkpoint: Checkpoint) -> io::Result<()> {
    let file = fs.open(path, Access::Overwrite)?;
    write_all(&*file, &checkpoint.encode(), 0)?;
    file.sync()?;
    // It may be the new one already, under a name that is not durable.
    fs.sync_dir(dir)
}
