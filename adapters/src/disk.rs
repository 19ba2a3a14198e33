//! The disk buffer of a drain: between its ring and its loop.
//!
//! ```text
//! ring ──► pump ──► spool ──► outlet ──► the drain's loop
//!             └──── lane ───────┘
//! ```
//!
//! Envelopes enter from the ring. [`pump`] commits them to a [`spool`] and [`outlet`] reads them back, so that what was taken from the ring
//! survives the process and a long outage of the destination. A spool that is full takes no more: the ring holds what comes next, and
//! drops fairly. A disk that cannot be written is no reason to lose: while it lasts, envelopes go past it, through the lane, once the spool is
//! empty; the drain is then as one in memory, and says so. Nothing here runs on the threads of the runtime that blocks on a disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use diode::fair::Reader;
use parking_lot::Mutex;
use spool::fs::{Disk, FileSystem};
use spool::{Options, Stats};
use telemetry::{QueueNumbers, Throttle};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub(crate) use self::outlet::Outlet;
pub(crate) use self::pump::Pump;
use crate::metrics::DrainMetrics;
use crate::notice::Losses;
use crate::subscribe::Queued;

mod outlet;
mod pump;

/// What both ends of one buffer know.
#[derive(Debug)]
struct Shared {
    drain: String,
    /// Everything up to and with this sequence can be read.
    committed: AtomicU64,
    /// Everything up to and with this sequence was read.
    read: AtomicU64,
    /// More was committed.
    more: Notify,
    /// Space has come back.
    room: Notify,
    state: Arc<Mutex<Option<String>>>,
}

/// A buffer that is open: its ends, and what is asked about it.
pub(crate) struct Buffer {
    pub(crate) pump: Pump,
    pub(crate) outlet: Outlet,
    pub(crate) view: View,
}

/// A look at a buffer from outside.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) dir: PathBuf,
    stats: Stats,
    /// Guards why the disk is not used now, if it is not.
    trouble: Arc<Mutex<Option<String>>>,
}

/// What a drain's buffer is made of.
pub(crate) struct Wanted<'a> {
    pub(crate) drain: &'a str,
    /// The directory for all buffers.
    pub(crate) state_dir: &'a Path,
    pub(crate) max_bytes: u64,
    pub(crate) keep_free: u8,
    pub(crate) ring: Reader<Queued>,
    pub(crate) metrics: DrainMetrics,
    pub(crate) losses: Arc<Losses>,
    pub(crate) tracker: TaskTracker,
    /// The process stops: what is on disk waits there for the next start.
    pub(crate) closing: CancellationToken,
}

/// The directory of a drain's buffer: named by a hash, as a name may hold anything.
pub(crate) fn dir_of(state_dir: &Path, drain: &str) -> PathBuf {
    use std::fmt::Write;
    let mut name = String::with_capacity(32);
    for byte in &digest(&SHA256, drain.as_bytes()).as_ref()[..16] {
        write!(name, "{byte:02x}").expect("writing to a String cannot fail");
    }
    state_dir.join("buffers").join(name)
}

/// Tells of buffers that belong to none of these drains: what is in them is delivered to nobody. Blocks on the disk.
pub(crate) fn tell_of_others<'a>(state_dir: &Path, drains: impl Iterator<Item = &'a str>) {
    let known: Vec<PathBuf> = drains.map(|drain| dir_of(state_dir, drain)).collect();
    let Ok(dirs) = std::fs::read_dir(state_dir.join("buffers")) else { return };
    for dir in dirs.flatten().map(|entry| entry.path()).filter(|dir| !known.contains(dir)) {
        let waits = spool::inspect(&Disk, &dir).map_or(0, |report| report.records);
        warn!(dir = %dir.display(), envelopes = waits, "A buffer belongs to no drain: configure the drain again, or remove the directory");
    }
}

/// Opens a drain's buffer, or makes it. Blocks on the disk.
///
/// # Errors
/// Why it cannot be used, with the ring it was to read.
pub(crate) fn open(wanted: Wanted<'_>) -> Result<Buffer, (String, Reader<Queued>)> {
    let Wanted { drain, state_dir, max_bytes, keep_free, ring, metrics, losses, tracker, closing } = wanted;
    let dir = dir_of(state_dir, drain);
    let (writer, reader, found) =
        match spool::open(Arc::new(Disk), &dir, Options { keep_free, ..Options::with_max_bytes(max_bytes) }) {
            Ok(opened) => opened,
            Err(error) => return Err((with_causes(&error), ring)),
        };
    if found.records > 0 || found.torn > 0 || found.unreadable > 0 {
        let spool::Recovered { records, lost, torn, unreadable, checkpoint, .. } = found;
        info!(
            drain,
            records,
            lost,
            torn,
            unreadable,
            ?checkpoint,
            "Drain goes on with what an earlier run left on disk"
        );
    }
    let stats = writer.stats();
    let trouble = Arc::<Mutex<Option<String>>>::default();
    let shared = Arc::new(Shared {
        drain: drain.to_owned(),
        committed: AtomicU64::new(found.acked + found.records),
        read: AtomicU64::new(found.acked),
        more: Notify::new(),
        room: Notify::new(),
        state: Arc::clone(&trouble),
    });
    let (lane, passed) = mpsc::channel(1);
    let pump = Pump::new(writer, ring, lane, Arc::clone(&shared), metrics.clone(), losses, tracker.clone());
    let outlet = Outlet::new(reader, passed, shared, found.acked, metrics, tracker, closing);
    Ok(Buffer { pump, outlet, view: View { dir, stats, trouble } })
}

impl View {
    /// Envelopes and bytes on disk.
    pub(crate) fn depth(&self) -> (u64, u64) {
        let depth = self.stats.depth();
        (depth.records, depth.bytes)
    }

    /// Why the disk is not used now, if it is not.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// As a queue: what an earlier run left was accepted then.
    pub(crate) fn numbers(&self) -> QueueNumbers {
        let depth = self.stats.depth();
        let accepted = depth.recovered + depth.committed;
        QueueNumbers {
            offered: accepted + depth.taken,
            accepted,
            rejected: depth.taken,
            taken: depth.acked,
            evicted: depth.lost,
            envelopes: usize::try_from(depth.records).unwrap_or(usize::MAX),
            bytes: usize::try_from(depth.bytes).unwrap_or(usize::MAX),
        }
    }

    /// Removes the files. Blocks.
    pub(crate) fn remove(&self) {
        let fs: &dyn FileSystem = &Disk;
        if let Err(error) = spool::remove(fs, &self.dir) {
            warn!(dir = %self.dir.display(), error = with_causes(&error), "The buffer of a drain that is gone cannot be removed");
        }
    }
}

impl Shared {
    fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether the disk has something that was not read.
    fn has_unread(&self) -> bool {
        self.committed() > self.read.load(Ordering::Acquire)
    }

    /// Everything up to and with `through` can be read.
    fn commit(&self, through: u64) {
        self.committed.store(through, Ordering::Release);
        self.more.notify_one();
    }

    /// The disk works, or does not. Said once each.
    fn set_trouble(&self, trouble: Option<String>) {
        static SAID: Throttle = Throttle::every(Duration::from_secs(10));
        let mut state = self.state.lock();
        match (&*state, &trouble) {
            (None, Some(error)) => {
                if let Some(suppressed) = SAID.pass() {
                    tracing::error!(drain = %self.drain, error, suppressed, "Drain cannot use its disk and buffers in memory");
                }
            }
            (Some(_), None) => info!(drain = %self.drain, "Drain uses its disk again"),
            _ => {}
        }
        *state = trouble;
    }
}

/// Milliseconds since the Unix epoch, now.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An error and what caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
