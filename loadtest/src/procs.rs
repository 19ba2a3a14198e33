//! The server processes of a scenario: started as children, measured through `/proc`, stopped by SIGTERM.
//!
//! A server prints its addresses as one JSON line once it listens. Nothing is left behind: a child is killed when its handle is
//! dropped.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A server listens by then, or it does not work.
const READY: Duration = Duration::from_secs(30);

/// A server has drained by then, or it is killed.
const DRAINED: Duration = Duration::from_secs(30);

/// `/proc/<pid>/stat` counts in hundredths of a second on every Linux that this runs on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// Why a server process could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// The program could not be started.
    #[error("{name}: cannot start {program}: {source}; build it with `cargo build --release`", program = program.display())]
    Start {
        /// Which server.
        name: String,
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It did not print its addresses.
    #[error("{name} did not say where it listens{said}")]
    NotReady {
        /// Which server.
        name: String,
        /// The end of what it wrote to standard error, on lines of their own.
        said: String,
    },
    /// It did not say where it listens for something that is needed.
    #[error("{name} did not say where its {part} listens; it said {said}")]
    NoAddress {
        /// Which server.
        name: String,
        /// The part.
        part: String,
        /// The line of JSON.
        said: Value,
    },
    /// It could not be measured or stopped.
    #[error("{name}: {source}")]
    Gone {
        /// Which server.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    pid: u32,
    addrs: Value,
}

impl Server {
    /// Starts `program` and waits until it has said where it listens. Its standard error goes to `<dir>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started, or ends or stays silent instead.
    pub async fn start(
        name: &str,
        program: &Path,
        args: &[OsString],
        dir: &Path,
        tracker: &TaskTracker,
    ) -> Result<Self, ProcError> {
        let failed = |source| ProcError::Start { name: name.to_owned(), program: program.to_owned(), source };
        let log = dir.join(format!("{name}.log"));
        let mut command = Command::new(program);
        // What a developer has set for servers of their own must not change what is measured.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HYDRANT_")) {
            command.env_remove(name);
        }
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(failed)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let not_ready = || ProcError::NotReady { name: name.to_owned(), said: last_lines(&log) };
        let pid = child.id().ok_or_else(not_ready)?;
        let mut lines = BufReader::new(child.stdout.take().expect("piped just above")).lines();
        let first = timeout(READY, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let addrs = first.and_then(|line| serde_json::from_str(&line).ok()).ok_or_else(not_ready)?;
        // What else it prints must not fill the pipe.
        tracker.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { name: name.to_owned(), child, pid, addrs })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where `part` of `role` listens, such as `grpc` of `doppler`.
    ///
    /// # Errors
    /// The server did not say.
    pub fn addr(&self, role: &str, part: &str) -> Result<SocketAddr, ProcError> {
        let of_role = self.addrs.get(role).unwrap_or(&self.addrs);
        of_role.get(part).and_then(Value::as_str).and_then(|addr| addr.parse().ok()).ok_or_else(|| {
            ProcError::NoAddress { name: self.name.clone(), part: part.to_owned(), said: self.addrs.clone() }
        })
    }

    /// Asks it to stop and waits until it has drained; kills it when it takes longer than 30 s.
    ///
    /// # Errors
    /// The operating system refused.
    pub async fn stop(mut self) -> Result<ExitStatus, ProcError> {
        let gone = |source| ProcError::Gone { name: self.name.clone(), source };
        // An error says that it has ended already.
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM);
        if let Ok(ended) = timeout(DRAINED, self.child.wait()).await {
            return ended.map_err(gone);
        }
        self.child.kill().await.map_err(gone)?;
        self.child.wait().await.map_err(gone)
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Processor time, of the process and of the kernel for it.
    pub cpu: Duration,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The most resident memory so far.
    pub peak_rss_bytes: u64,
}

impl Sample {
    /// Measures a process of this machine.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let unreadable = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        Ok(Self {
            cpu: cpu(&stat).ok_or_else(unreadable)?,
            rss_bytes: kilobytes(&status, "VmRSS:").ok_or_else(unreadable)?,
            peak_rss_bytes: kilobytes(&status, "VmHWM:").ok_or_else(unreadable)?,
        })
    }
}

/// `utime` and `stime`, the 14th and 15th field. The second, the program's name, may hold spaces and parentheses.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    let (user, system) = (ticks.next()??, ticks.next()??);
    Some(TICK * user + TICK * system)
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// The end of a log, for an error's text.
fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].iter().fold(String::new(), |said, line| said + "\n  " + line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_odd_names() {
        let stat = "42 (a) (b c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 3 0 1000 1 1\n";
        assert_eq!(cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!(cpu("42 (a) S"), None);
        assert_eq!(kilobytes("Name:\ta\nVmHWM:\t   2048 kB\n", "VmHWM:"), Some(2 * 1024 * 1024));
    }

    #[test]
    fn this_process_can_be_measured() {
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.peak_rss_bytes >= sample.rss_bytes);
        assert!(Sample::of(u32::MAX).is_err());
    }

    fn sh(script: &str) -> Vec<OsString> {
        vec!["-c".into(), script.into()]
    }

    #[tokio::test]
    async fn a_server_says_where_it_listens_and_stops_when_asked() {
        let (dir, tracker) = (tempfile::tempdir().unwrap(), TaskTracker::new());
        let script = "echo '{\"grpc\":\"127.0.0.1:7\",\"doppler\":{\"admin\":\"127.0.0.1:8\"}}'; exec sleep 100";
        let server = Server::start("doppler", Path::new("/bin/sh"), &sh(script), dir.path(), &tracker).await.unwrap();
        assert_eq!(server.addr("relay", "grpc").unwrap(), "127.0.0.1:7".parse().unwrap());
        assert_eq!(server.addr("doppler", "admin").unwrap(), "127.0.0.1:8".parse().unwrap());
        assert!(server.addr("doppler", "grpc").is_err());
        assert!(Sample::of(server.pid()).is_ok());
        assert!(!server.stop().await.unwrap().success(), "sleep ends by the signal");
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn a_server_that_fails_is_quoted() {
        let (dir, tracker) = (tempfile::tempdir().unwrap(), TaskTracker::new());
        let start =
            Server::start("agent", Path::new("/bin/sh"), &sh("echo no such key >&2"), dir.path(), &tracker).await;
        assert_eq!(start.unwrap_err().to_string(), "agent did not say where it listens\n  no such key");
        let start = Server::start("agent", Path::new("/nowhere/hydrant"), &[], dir.path(), &tracker).await;
        assert!(start.unwrap_err().to_string().contains("cargo build --release"));
    }
}
