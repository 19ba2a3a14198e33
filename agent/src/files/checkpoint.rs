//! How far each file has been read, as it is kept on disk. Pure.
//!
//! One line says what it is, how long, and its checksum; JSON follows. A file that was damaged, or cut, is never taken for another one's
//! numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::decoder::Resume;

const HEAD: &str = "hydrant agent files 1";

/// Everything that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Checkpoint {
    /// The entries of the configuration that there were, by their paths: a further one is new.
    pub known: Vec<String>,
    /// In nanoseconds since the Unix epoch: of what was written before, all has been found. Of what was written since, those files that
    /// have been read are among `files`.
    pub scanned: i64,
    /// The files.
    pub files: Vec<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Entry {
    /// Where it was first found: what its lines are called depends on that.
    pub home: PathBuf,
    /// The same without links, when it was found.
    pub path: PathBuf,
    /// The device that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Bytes that `fingerprint` is of, from its beginning.
    pub fingerprint_bytes: u16,
    /// What they are.
    pub fingerprint: u64,
    /// Where stdout and stderr go on. A plain file is all stdout.
    pub from: [u64; 2],
    /// Up to where each had been handed on: what lies between may have been sent.
    pub handed_to: [u64; 2],
    /// When it was last written to, in nanoseconds since the Unix epoch.
    pub modified: i64,
    /// When it was made, likewise; 0 where that is not known.
    pub created: i64,
    /// It had been read to its end, and nobody wrote to it any more.
    pub has_ended: bool,
}

impl Entry {
    /// Where to go on.
    pub fn resume(&self) -> Resume {
        Resume { from: self.from, handed_to: self.handed_to }
    }
}

/// Why what is on disk is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Something else, or of a later form.
    #[error("it does not begin with {HEAD:?}, its length and its checksum")]
    Head,
    /// Cut or changed.
    #[error("its length or its checksum is not what its first line says")]
    Damaged,
    /// Not what this program writes.
    #[error("it says something else than expected: {0}")]
    Content(#[from] serde_json::Error),
}

impl Checkpoint {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("paths that are no text are kept out, and the rest is numbers");
        let mut bytes = format!("{HEAD} {} {:08x}\n", body.len(), crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are not what [`Self::encode`] gave.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let end = memchr::memchr(b'\n', bytes).ok_or(CheckpointError::Head)?;
        let (head, body) = (&bytes[..end], &bytes[end + 1..]);
        if !head.starts_with(HEAD.as_bytes()) {
            return Err(CheckpointError::Head);
        }
        let expected = format!("{HEAD} {} {:08x}", body.len(), crc32c::crc32c(body));
        if head != expected.as_bytes() {
            return Err(CheckpointError::Damaged);
        }
        Ok(serde_json::from_slice(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Checkpoint {
        let entry = Entry {
            home: "/var/log/a.log".into(),
            path: "/var/lib/a.log".into(),
            device: 1,
            inode: u64::MAX,
            fingerprint_bytes: 256,
            fingerprint: u64::MAX - 1,
            from: [7, 9],
            handed_to: [12, 9],
            modified: -1,
            created: 0,
            has_ended: true,
        };
        Checkpoint { known: vec!["/var/log/*.log".into()], scanned: 5, files: vec![entry] }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Checkpoint::decode(&some().encode()).unwrap(), some());
        assert_eq!(Checkpoint::decode(&Checkpoint::default().encode()).unwrap(), Checkpoint::default());
        assert_eq!(some().files[0].resume().offset(), 7);
    }

    #[test]
    fn no_single_damage_passes() {
        let bytes = some().encode();
        for i in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..i]).is_err(), "cut at {i}");
            for bit in [1, 0x80] {
                let mut damaged = bytes.clone();
                damaged[i] ^= bit;
                assert!(Checkpoint::decode(&damaged).is_err(), "bit of {i}");
            }
        }
        assert!(Checkpoint::decode(&[bytes.as_slice(), b" "].concat()).is_err());
        let body = b"{}";
        let other = format!("{HEAD} {} {:08x}\n{{}}", body.len(), crc32c::crc32c(body));
        assert!(matches!(Checkpoint::decode(other.as_bytes()), Err(CheckpointError::Content(_))));
    }
}
