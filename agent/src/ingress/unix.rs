//! A Unix datagram socket at a path: bound over what a dead process left, never over a live one, and removed at the end.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Why a Unix socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum UnixSocketError {
    /// Somebody reads it.
    #[error("{key}: another process listens on {}; give this one another path", path.display())]
    InUse {
        /// The configuration key.
        key: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// What is there is no socket.
    #[error("{key}: {} is there and is no socket; remove it, or give another path", path.display())]
    NoSocket {
        /// The configuration key.
        key: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// What the operating system said.
    #[error("{key}: cannot listen on {}: {source}", path.display())]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Removes the socket's file when dropped.
#[derive(Debug)]
pub(crate) struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // A file that is gone, or in a directory that is, needs no removing.
        let _gone = fs::remove_file(&self.0);
    }
}

/// Binds the path, for whom `mode` lets send.
///
/// # Errors
/// See [`UnixSocketError`].
pub(crate) fn bind(
    key: &'static str,
    path: &Path,
    mode: u32,
    receive_buffer_bytes: usize,
) -> Result<(Socket, Removed), UnixSocketError> {
    let path = path.to_owned();
    match fs::symlink_metadata(&path) {
        Ok(there) if !there.file_type().is_socket() => return Err(UnixSocketError::NoSocket { key, path }),
        Ok(_) => match UnixDatagram::unbound().and_then(|probe| probe.connect(&path)) {
            Ok(()) => return Err(UnixSocketError::InUse { key, path }),
            // Nobody reads it: a process that was killed left it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if let Err(source) = fs::remove_file(&path) {
                    return Err(UnixSocketError::Bind { key, path, source });
                }
            }
            // Somebody's of another kind, or one that is not ours to try.
            Err(source) => return Err(UnixSocketError::Bind { key, path, source }),
        },
        Err(_nothing_there) => {}
    }
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_recv_buffer_size(receive_buffer_bytes.min(i32::MAX as usize))?;
        socket.bind(&SockAddr::unix(&path)?)?;
        fs::set_permissions(&path, Permissions::from_mode(mode & 0o777))?;
        Ok(socket)
    };
    match open() {
        Ok(socket) => Ok((socket, Removed(path))),
        Err(source) => Err(UnixSocketError::Bind { key, path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("statsd.sock");
        let (first, removed) = bind("key", &path, 0o622, 1 << 16).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
        let error = bind("key", &path, 0o666, 1 << 16).unwrap_err();
        assert!(matches!(error, UnixSocketError::InUse { .. }), "{error}");
        drop(first);
        // The file is still there.
        let (_second, _) = bind("key", &path, 0o666, 1 << 16).unwrap();
        drop(removed);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stream.sock");
        let theirs = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = bind("key", &path, 0o666, 1 << 16).unwrap_err();
        assert!(matches!(error, UnixSocketError::Bind { .. }), "{error}");
        assert!(path.exists() && std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(theirs);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "mine").unwrap();
        let error = bind("agent.statsd.unix", &path, 0o666, 1).unwrap_err().to_string();
        assert!(error.starts_with("agent.statsd.unix: ") && error.contains("is no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        let error = bind("agent.statsd.unix", &dir.path().join("no/such"), 0o666, 1).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
