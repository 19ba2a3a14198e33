//! What the file system says: which files there are, what they are, what stands beside them. Blocks.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use twox_hash::XxHash64;

use crate::files::docker_id;

/// Bytes of a file that tell it from another one with the same number.
const PRINT: usize = 256;
/// Symbolic links that are followed to learn a file's names.
const LINKS: usize = 8;
/// Bytes of what Docker keeps of a container.
const MAX_CONTAINER: u64 = 1024 * 1024;
/// How the names of compressed files end, and of those that are being compressed.
const COMPRESSED: [&str; 9] = ["gz", "bz2", "xz", "zst", "lz4", "zip", "Z", "br", "tmp"];

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) device: u64,
    /// Given out again once the file is deleted and nobody has it open.
    pub(super) inode: u64,
    /// When it was made, in nanoseconds since the Unix epoch; 0 where the file system does not say.
    pub(super) created: i64,
}

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) key: Key,
    pub(super) size: u64,
    /// When it was last written to, in nanoseconds since the Unix epoch.
    pub(super) modified: i64,
    /// No name leads to it any more.
    pub(super) is_unlinked: bool,
}

impl Stat {
    /// Of what a path leads to; nothing where that is no regular file.
    ///
    /// # Errors
    /// There is none, or it cannot be looked at.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        let found = fs::metadata(path)?;
        Ok(found.is_file().then(|| Self::from(&found)))
    }

    /// Of an open file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&Metadata> for Stat {
    fn from(found: &Metadata) -> Self {
        let created = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let created = created.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        Self {
            key: Key { device: found.dev(), inode: found.ino(), created },
            size: found.size(),
            modified: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
            is_unlinked: found.nlink() == 0,
        }
    }
}

/// The first bytes of a file, up to [`PRINT`]. None of less than a line: others begin so too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print {
    pub(super) bytes: u16,
    pub(super) hash: u64,
}

impl Print {
    /// Of a file that begins with these bytes.
    pub(super) fn of(first: &[u8]) -> Self {
        let first = &first[..first.len().min(PRINT)];
        if first.len() < PRINT && memchr::memchr(b'\n', first).is_none() {
            return Self::default();
        }
        Self { bytes: first.len() as u16, hash: hash(first) }
    }

    /// Whether a file that begins with these bytes begins so.
    pub(super) fn fits(self, first: &[u8]) -> bool {
        let known = usize::from(self.bytes);
        known == 0 || (first.len() >= known && hash(&first[..known]) == self.hash)
    }

    /// Whether the file still begins so; takes in what it begins with besides, if that was less.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn holds(&mut self, file: &File) -> io::Result<bool> {
        let first = first_of(file)?;
        if !self.fits(&first) {
            return Ok(false);
        }
        if first.len() > usize::from(self.bytes) {
            *self = Self::of(&first);
        }
        Ok(true)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// Whether what a path leads to begins so.
pub(super) fn begins_so(path: &Path, print: Print) -> bool {
    print.fits(&head(path))
}

/// The first bytes of what a path leads to, as many as a print is of; none if it cannot be read.
pub(super) fn head(path: &Path) -> Vec<u8> {
    File::open(path).and_then(|file| first_of(&file)).unwrap_or_default()
}

/// The first bytes of a file, as many as a print is of.
///
/// # Errors
/// It cannot be read.
pub(super) fn first_of(file: &File) -> io::Result<Vec<u8>> {
    let mut first = vec![0; PRINT];
    let read = read_at(file, &mut first, 0)?;
    first.truncate(read);
    Ok(first)
}

/// Reads until the buffer is full or the file ends; how much that was.
///
/// # Errors
/// The system's.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Where the line begins that ends at or behind the end of the file: behind its last line feed, as far back as `within` bytes.
///
/// # Errors
/// It cannot be read.
pub(super) fn last_line(file: &File, size: u64, within: usize) -> io::Result<u64> {
    let from = size.saturating_sub(within as u64);
    let mut bytes = vec![0; usize::try_from(size - from).unwrap_or(within)];
    let read = read_at(file, &mut bytes, from)?;
    Ok(match memchr::memrchr(b'\n', &bytes[..read]) {
        Some(at) => from + at as u64 + 1,
        None if from == 0 => 0,
        None => size,
    })
}

/// Whether the name is that of a compressed file.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|end| COMPRESSED.contains(&end))
}

/// The file itself and those of its directory whose names are its name and more, as those are called that took its place before; the one
/// written to longest ago first.
pub(super) fn siblings(real: &Path) -> Vec<(PathBuf, Stat)> {
    let (Some(dir), Some(name)) = (real.parent(), real.file_name()) else { return Vec::new() };
    let name = name.as_bytes();
    let is_one = |other: &OsStr| match other.as_bytes().strip_prefix(name) {
        Some([]) => true,
        Some([next, ..]) => matches!(next, b'.' | b'-' | b'_'),
        None => false,
    };
    let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
    let paths = found.filter_map(Result::ok).filter(|one| is_one(&one.file_name())).map(|one| one.path());
    let paths = paths.filter(|path| !is_compressed(path));
    let mut all: Vec<(PathBuf, Stat)> =
        paths.filter_map(|path| Some((Stat::at(&path).ok()??, path))).map(|(stat, path)| (path, stat)).collect();
    all.sort_by_key(|(_, stat)| stat.modified);
    all
}

/// The further names that symbolic links lead to.
pub(super) fn links(path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut at = path.to_owned();
    while let Ok(next) = fs::read_link(&at)
        && names.len() < LINKS
    {
        at = at.parent().map_or(next.clone(), |dir| dir.join(&next));
        names.push(at.clone());
    }
    names
}

/// What Docker calls the container whose log this is.
pub(super) fn container_name(real: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Container {
        #[serde(rename = "Name")]
        name: String,
    }

    docker_id(real)?;
    let path = real.parent()?.join("config.v2.json");
    if Stat::at(&path).ok()??.size > MAX_CONTAINER {
        return None;
    }
    let Container { name } = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let name = name.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_print_grows_with_its_file_and_tells_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut print = Print::default();
        for (content, holds, bytes) in
            [("", true, 0), ("one", true, 0), ("one\ntwo", true, 7), ("one\n", false, 7), ("two two two", false, 7)]
        {
            fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!((print.holds(&file).unwrap(), print.bytes), (holds, bytes), "{content}");
        }
        fs::write(&path, "x".repeat(1_000)).unwrap();
        let mut print = Print::default();
        assert!(print.holds(&File::open(&path).unwrap()).unwrap());
        assert_eq!(print.bytes, 256);
    }

    #[test]
    fn siblings_are_those_that_had_the_place_before() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.log", "a.log.1", "a.log-2024", "a.log.2.gz", "a.logs", "b.log", "a.log.3.tmp"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("a.log.d")).unwrap();
        let found = siblings(&dir.path().join("a.log"));
        let mut names: Vec<_> = found.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a.log", "a.log-2024", "a.log.1"]);
    }

    #[test]
    fn the_line_that_is_being_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (content, at) in [("", 0), ("one", 0), ("one\n", 4), ("one\ntwo", 4), (&"x".repeat(100), 100)] {
            fs::write(&path, content).unwrap();
            assert_eq!(last_line(&File::open(&path).unwrap(), content.len() as u64, 50).unwrap(), at, "{content}");
        }
    }

    #[test]
    fn docker_says_what_a_container_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("0123456789abcdef".repeat(4));
        fs::create_dir(&container).unwrap();
        let log = container.join("x-json.log");
        assert_eq!(container_name(&log), None);
        fs::write(container.join("config.v2.json"), "{\"ID\":\"x\",\"Name\":\"/shop-web-1\"}").unwrap();
        assert_eq!(container_name(&log).as_deref(), Some("shop-web-1"));
        fs::write(container.join("config.v2.json"), "{\"Name\":7}").unwrap();
        assert_eq!(container_name(&log), None);
        std::os::unix::fs::symlink(&log, dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("link", dir.path().join("other")).unwrap();
        assert_eq!(links(&dir.path().join("other")), [dir.path().join("link"), log]);
    }
}
