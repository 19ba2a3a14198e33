//! Where it is kept how far files have been read. Blocks.
//!
//! What is written takes the place of what was there at once, or not at all. One process alone writes: it holds a lock.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::error;

use crate::files::Checkpoint;

const NAME: &str = "agent-files.json";

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No directory.
    #[error("agent.file_reading.state_dir is not set; say where it is to be kept how far files have been read")]
    None,
    /// One that cannot be used.
    #[error("agent.file_reading.state_dir: {path:?}: {source}")]
    Unusable {
        /// What cannot be used.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// One that is in use.
    #[error("agent.file_reading.state_dir: {0:?} is used by another agent; give each a directory of its own")]
    Taken(PathBuf),
}

/// A directory that is ours.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// Held as long as this lives.
    _lock: File,
}

impl Store {
    /// Makes the directory if it is not there; what it keeps, and nothing if that is nothing, or damaged.
    ///
    /// # Errors
    /// It cannot be read or written, or another process uses it.
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<Checkpoint>), StoreError> {
        let unusable = |path: PathBuf| move |source| StoreError::Unusable { path, source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable(dir.to_owned()))?;
        let lock = dir.join("agent-files.lock");
        let file = private().create(true).open(&lock).map_err(unusable(lock.clone()))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::Taken(dir.to_owned()),
            TryLockError::Error(source) => StoreError::Unusable { path: lock, source },
        })?;
        let store = Self { dir: dir.to_owned(), _lock: file };
        let path = store.dir.join(NAME);
        let kept = match fs::read(&path) {
            Ok(bytes) => match Checkpoint::decode(&bytes) {
                Ok(kept) => Some(kept),
                Err(error) => {
                    let aside = store.dir.join("agent-files.damaged");
                    fs::rename(&path, &aside).map_err(unusable(path))?;
                    error!(%error, aside = %aside.display(), "How far files had been read cannot be understood; they are read as at a first start");
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(path)(error)),
        };
        Ok((store, kept))
    }

    /// Replaces what is kept; on disk when it returns.
    ///
    /// # Errors
    /// The system's; then what was there is there still.
    pub(super) fn write(&self, checkpoint: &Checkpoint) -> io::Result<()> {
        let new = self.dir.join("agent-files.new");
        let mut file = private().create(true).truncate(true).open(&new)?;
        file.write_all(&checkpoint.encode())?;
        file.sync_data()?;
        fs::rename(&new, self.dir.join(NAME))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// What is kept names paths: nobody else's business.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_at_the_next_start_and_damage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let kept = Checkpoint { known: vec!["/a".to_owned()], scanned: 7, files: Vec::new() };
        let (store, none) = Store::open(&state).unwrap();
        assert_eq!(none, None);
        assert!(matches!(Store::open(&state), Err(StoreError::Taken(_))), "one process alone");
        store.write(&Checkpoint::default()).unwrap();
        store.write(&kept).unwrap();
        drop(store);
        let (store, found) = Store::open(&state).unwrap();
        assert_eq!(found, Some(kept));
        drop(store);
        fs::write(state.join(NAME), "hydrant").unwrap();
        let (_store, none) = Store::open(&state).unwrap();
        assert_eq!(none, None);
        assert_eq!(fs::read(state.join("agent-files.damaged")).unwrap(), b"hydrant");
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&file).unwrap_err().to_string();
        assert!(error.starts_with("agent.file_reading.state_dir: ") && error.contains("/file"), "{error}");
    }
}
