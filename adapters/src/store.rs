//! The drains that were added while running, in a file for the next start.
//!
//! What people asked for enters, as they wrote it, with its secrets; the same leaves at the next start. A change is on the disk before it
//! is answered: the file is written anew beside the old one, and takes its place. Only its owner may read it. A file that cannot be
//! understood is set aside and told of; it never keeps the adapters from starting. A directory belongs to one process at a time.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// The file in the directory.
const FILE: &str = "drains.json";
/// Where a file goes that cannot be understood.
const ASIDE: &str = "drains.json.unreadable";

/// A drain as somebody wrote it. It holds secrets: it is never shown.
pub(crate) type Written = Map<String, Value>;

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    /// Guards the drains by name. Held while the file is written: changes are few, and come one after the other.
    drains: Mutex<BTreeMap<String, Written>>,
    /// Keeps other processes away for as long as it is open.
    _lock: File,
}

/// Why drains cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory or a file in it cannot be read or written.
    #[error("adapters.state_dir: {}: {source}", path.display())]
    File {
        /// The directory or file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process keeps its drains there.
    #[error("adapters.state_dir: {} belongs to another process that runs; give each its own", .0.display())]
    InUse(PathBuf),
}

/// Whether drains can be kept in `dir`, which is made if need be.
///
/// # Errors
/// Why not.
pub fn can_keep_drains(dir: &Path) -> Result<(), StoreError> {
    Store::open(dir).map(|_closed| ())
}

impl Store {
    /// Makes the directory if need be, and reads what an earlier run left.
    ///
    /// # Errors
    /// The directory or the file cannot be read or written. Not a file that has no sense.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let error = |path: &Path| {
            let path = path.to_owned();
            |source| StoreError::File { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error(dir))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(error(&path))?;
        lock.try_lock().map_err(|held| match held {
            TryLockError::WouldBlock => StoreError::InUse(dir.to_owned()),
            TryLockError::Error(source) => error(&path)(source),
        })?;
        let path = dir.join(FILE);
        let drains = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_or_else(|| set_aside(dir), Ok).map_err(error(&path))?,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(error(&path)(source)),
        };
        Ok(Self { dir: dir.to_owned(), drains: Mutex::new(drains), _lock: lock })
    }

    /// All of them.
    pub(crate) fn drains(&self) -> Vec<Written> {
        self.drains.lock().values().cloned().collect()
    }

    /// Whether it keeps a drain of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.drains.lock().contains_key(name)
    }

    /// Keeps a drain, in place of one of the same name. Blocks while it writes.
    ///
    /// # Errors
    /// The file cannot be written: then all is as before.
    pub(crate) fn put(&self, name: &str, drain: Written) -> Result<(), StoreError> {
        self.change(|drains| {
            drains.insert(name.to_owned(), drain);
        })
    }

    /// Keeps it no more. Blocks while it writes.
    ///
    /// # Errors
    /// The file cannot be written: then all is as before.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.change(|drains| {
            drains.remove(name);
        })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Written>)) -> Result<(), StoreError> {
        let mut drains = self.drains.lock();
        let mut changed = drains.clone();
        change(&mut changed);
        let all: Vec<Value> = changed.values().cloned().map(Value::Object).collect();
        let text = serde_json::json!({ "drains": all }).to_string();
        self.write(text.as_bytes()).map_err(|source| StoreError::File { path: self.dir.join(FILE), source })?;
        *drains = changed;
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join("drains.json.new");
        // What an earlier run left half-written may not be ours to read.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// `{"drains": [{"name": …}, …]}`.
fn parse(bytes: &[u8]) -> Option<BTreeMap<String, Written>> {
    let mut whole: Written = serde_json::from_slice(bytes).ok()?;
    let Some(Value::Array(drains)) = whole.remove("drains") else { return None };
    let named = |drain| {
        let Value::Object(drain) = drain else { return None };
        Some((drain.get("name")?.as_str()?.to_owned(), drain))
    };
    drains.into_iter().map(named).collect()
}

fn set_aside(dir: &Path) -> io::Result<BTreeMap<String, Written>> {
    let aside = dir.join(ASIDE);
    fs::rename(dir.join(FILE), &aside)?;
    tracing::error!(file = %aside.display(), "The file of added drains makes no sense and was set aside; add the drains again");
    Ok(BTreeMap::new())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn drain(name: &str) -> Written {
        let Value::Object(drain) = serde_json::json!({ "name": name, "token": "secret" }) else { unreachable!() };
        drain
    }

    #[test]
    fn what_was_put_is_there_at_the_next_start_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("state");
        let store = Store::open(&dir).unwrap();
        store.put("b", drain("b")).unwrap();
        store.put("a", drain("a")).unwrap();
        store.remove("b").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
        let error = Store::open(&dir).unwrap_err().to_string();
        assert!(error.contains("belongs to another process"), "{error}");
        drop(store);
        assert_eq!(Store::open(&dir).unwrap().drains(), [drain("a")]);
    }

    #[test]
    fn a_file_without_sense_is_set_aside() {
        for text in ["", "{}", "{\"drains\":[{}]}", "{\"drains\":{}}", "[1]", "{\"drains\":[{\"name\":1}]}", "\u{0}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Store::open(dir.path()).unwrap().drains().is_empty(), "{text:?}");
            assert_eq!(fs::read_to_string(dir.path().join(ASIDE)).unwrap(), text);
        }
    }

    #[test]
    fn a_change_that_cannot_be_written_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put("a", drain("a")).unwrap();
        // A directory in the way: no file can be made there, whoever runs this.
        fs::create_dir(dir.path().join("drains.json.new")).unwrap();
        let error = store.put("b", drain("b")).unwrap_err().to_string();
        assert!(error.starts_with("adapters.state_dir: ") && error.contains("drains.json: "), "{error}");
        assert_eq!(store.drains(), [drain("a")]);
    }
}
