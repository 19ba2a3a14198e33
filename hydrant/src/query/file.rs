//! A file that is there whole or not at all.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Puts `text` into a file, in the place of what was there. Whoever looks meanwhile sees the one or the other.
///
/// # Errors
/// Those of the file system; then the file is as it was.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    let put = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let put = put.and_then(|()| std::fs::rename(&beside, path));
    if put.is_err() {
        let _in_vain = std::fs::remove_file(&beside);
    }
    put
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.svg");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        let taken = dir.path().join("taken");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write(&taken, "x").is_err());
        assert!(write(&dir.path().join("no/such.svg"), "x").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    }
}
