//! Removing a spool.
//!
//! A directory enters; nothing of the spool is left in it. It never removes a file that is not the spool's, nor a spool in use.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::segment_number;
use crate::fs::FileSystem;
use crate::open::{LOCK, OWN};

/// A spool cannot be removed, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Somebody has it open.
    #[error("spool {dir} is in use")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The operating system does not let us.
    #[error("cannot remove {path}")]
    Io {
        /// A file, or the directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// Removes the spool in `dir` with all that waits in it, and the directory if nothing else is there. An absent one is no error.
///
/// # Errors
/// [`RemoveError`]; what was removed until then is gone.
pub fn remove(fs: &dyn FileSystem, dir: &Path) -> Result<(), RemoveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoveError::Io { path, source }
    };
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(dir))?,
    };
    let _lock = fs.lock(&dir.join(LOCK)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => RemoveError::InUse { dir: dir.to_owned() },
        _ => RemoveError::Io { path: dir.join(LOCK), source },
    })?;
    let ours = |name: &str| segment_number(name).is_some() || (OWN.contains(&name) && name != LOCK);
    let names = entries.iter().filter(|entry| entry.regular).filter_map(|entry| entry.name.to_str());
    // The lock goes last: until then nobody else comes in.
    for name in names.filter(|name| ours(name)).chain([LOCK]) {
        let path = dir.join(name);
        match fs.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed(&path))?,
        }
    }
    match fs.remove_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        removed => removed.map_err(failed(dir)),
    }
}
