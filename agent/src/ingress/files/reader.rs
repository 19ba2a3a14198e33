//! Reads all files, a round at a time: looks for new ones, reads what was written, hands it on in frames. Blocks on the disk.
//!
//! What enters: bytes of files, and what became of frames. What leaves: frames for the ring, and a checkpoint that never claims more than
//! what has left for a doppler. Nothing is read while too much is under way, or the ring is half full: files wait on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use diode::fair::Bounds;
use telemetry::Throttle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use super::discovery::key;
use super::disk::{self, Key, Print, Stat};
use super::frames::Frame;
use super::report::TELL;
use super::store::Store;
use super::tracked::Tracked;
use crate::files::{Checkpoint, Entry, FileReadingConfig, FilesConfig, FilesMetrics, LineError, MAX_RAW};
use crate::gather::Gather;
use crate::ingress::Intake;
use crate::ingress::now_ns;
use crate::parcel::Fate;

/// Bytes that one round reads, more or less.
const ROUND_BYTES: usize = 4 * 1024 * 1024;
/// After which an event that may go on is handed on.
const SILENCE: Duration = Duration::from_secs(1);
/// After which a file that was renamed, and one that was deleted, has been read to its end.
const RENAMED_QUIET: Duration = Duration::from_secs(10);
const DELETED_QUIET: Duration = Duration::from_secs(2);
/// After which a file is looked at less often.
const QUIET: Duration = Duration::from_secs(10);
const QUIET_LOOK: Duration = Duration::from_secs(1);
/// Between two warnings of the same kind.
pub(super) const SAID: Duration = Duration::from_secs(10);
/// Bytes of a line shown in a warning.
const SHOWN: usize = 100;

/// What there is to do after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More is there.
    Now,
    /// Nothing is there, or too much is under way: as told, or when something has left.
    Wait(Duration),
    /// The agent stops, and nothing is left that could not be read later.
    Done,
}

/// All files.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) entries: Vec<FilesConfig>,
    pub(super) config: FileReadingConfig,
    pub(super) metrics: FilesMetrics,
    pub(super) intake: Intake,
    pub(super) store: Store,
    /// What may be in the ring when more is read.
    pub(super) half: Bounds,
    /// By number, in the order in which they were found.
    pub(super) files: BTreeMap<u64, Tracked>,
    next_file: u64,
    pub(super) by_key: HashMap<Key, u64>,
    /// The last that was found at a path.
    pub(super) by_home: HashMap<PathBuf, u64>,
    /// What an earlier run had begun and this one has not found yet.
    pub(super) resume: HashMap<Key, Entry>,
    /// Entries that were not there at the last start.
    pub(super) is_new: Vec<bool>,
    /// Paths that another file has taken.
    pub(super) taken: Vec<(usize, PathBuf)>,
    pub(super) frames: HashMap<u64, Frame>,
    /// The number of the frame at hand.
    pub(super) frame: u64,
    pub(super) gather: Gather,
    /// Whose envelopes are in it.
    pub(super) gathered: Vec<u64>,
    /// Frames that the ring gave up some of.
    pub(super) again: VecDeque<u64>,
    pub(super) under_way: usize,
    pub(super) report: mpsc::Sender<Fate>,
    pub(super) buffer: Vec<u8>,
    /// Where the next round begins.
    cursor: u64,
    order: Vec<u64>,
    pub(super) next_scan: Instant,
    /// When that was done, longer ago than a place stays empty between two files; in nanoseconds since the Unix epoch, 0 before the first
    /// start's. What was written before has been found.
    pub(super) scanned: i64,
    /// Likewise: what follows.
    pub(super) scanned_next: i64,
    next_checkpoint: Instant,
    next_tell: Instant,
    pub(super) is_dirty: bool,
    pub(super) is_stopping: bool,
}

impl Reader {
    /// Reads nothing yet. `kept` is what an earlier run left.
    pub(super) fn new(
        entries: Vec<FilesConfig>,
        config: FileReadingConfig,
        (store, kept): (Store, Option<Checkpoint>),
        half: Bounds,
        (intake, metrics): (Intake, FilesMetrics),
        report: mpsc::Sender<Fate>,
    ) -> Self {
        let kept = kept.unwrap_or_default();
        let is_new = entries.iter().map(|entry| !kept.known.contains(&entry.name())).collect();
        let scanned = kept.scanned;
        let resume = kept.files.into_iter().map(|entry| (key(&entry), entry)).collect();
        let now = Instant::now();
        Self {
            entries,
            config,
            metrics,
            intake,
            store,
            half,
            files: BTreeMap::new(),
            next_file: 0,
            by_key: HashMap::new(),
            by_home: HashMap::new(),
            resume,
            is_new,
            taken: Vec::new(),
            frames: HashMap::new(),
            frame: 0,
            gather: Gather::default(),
            gathered: Vec::new(),
            again: VecDeque::new(),
            under_way: 0,
            report,
            buffer: vec![0; MAX_RAW],
            cursor: 0,
            order: Vec::new(),
            next_scan: now,
            scanned,
            scanned_next: scanned,
            next_checkpoint: now,
            next_tell: now + TELL,
            is_dirty: true,
            is_stopping: false,
        }
    }

    /// Reads a part of what there is. When the agent stops, only what could not be read later: files that no name leads to.
    pub(super) fn round(&mut self, stopping: bool) -> Next {
        self.is_stopping = stopping;
        let now = Instant::now();
        if !stopping {
            if now >= self.next_scan {
                self.scan(now);
            }
            self.put_again();
            self.open_waiting(now);
        } else {
            self.files.values_mut().for_each(Tracked::look_for_names);
        }
        let next = self.read(now);
        if !stopping {
            for (entry, path) in std::mem::take(&mut self.taken) {
                self.discover(entry, &path, now);
                self.open_waiting(now);
            }
            if now >= self.next_tell {
                self.tell();
                self.next_tell = now + TELL;
            }
        }
        self.close_frame();
        self.show();
        if self.is_dirty && now >= self.next_checkpoint {
            self.keep();
            self.next_checkpoint = now + self.config.checkpoint_interval;
        }
        next
    }

    fn read(&mut self, now: Instant) -> Next {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend(self.files.range(self.cursor..).chain(self.files.range(..self.cursor)).map(|(id, _)| *id));
        let (mut budget, mut more) = (ROUND_BYTES, false);
        for id in &order {
            let has_room = self.has_room();
            if budget == 0 || !has_room {
                (self.cursor, more) = (*id, has_room);
                break;
            }
            let Some(mut file) = self.files.remove(id) else { continue };
            let read = self.look(*id, &mut file, now);
            budget = budget.saturating_sub(read);
            more |= read >= MAX_RAW;
            self.files.insert(*id, file);
        }
        self.order = order;
        match (self.is_stopping, more) {
            (_, true) => Next::Now,
            (true, false) if !self.files.values().any(Tracked::is_last_chance) => Next::Done,
            _ => Next::Wait(self.config.poll_interval),
        }
    }

    /// Reads a buffer of a file, if there is that much; how much it was.
    fn look(&mut self, id: u64, file: &mut Tracked, now: Instant) -> usize {
        if file.is_finished || (now < file.next_look && !self.is_stopping) {
            return 0;
        }
        let Some(fd) = &file.fd else { return 0 };
        let stat = match Stat::of(fd) {
            Ok(stat) => stat,
            Err(error) => return self.fail(file, &error),
        };
        file.is_unlinked = stat.is_unlinked;
        if self.is_stopping && !stat.is_unlinked {
            return 0;
        }
        let doubtful = std::mem::take(&mut file.is_doubtful) || stat.modified != file.modified;
        let seen @ (size, looked) = (file.size, file.modified);
        (file.size, file.modified) = (stat.size, stat.modified);
        if doubtful && file.print.bytes == 0 && (stat.modified != looked || stat.size < size) {
            // What it had before its first line that is seen may have been copied aside and cut.
            self.find_between(file.entry, &file.home, &file.real, (looked, looked), now);
        }
        let Some(fd) = &file.fd else { return 0 };
        let position = file.decoder.position();
        if stat.size > position && (stat.size != file.stalled || doubtful) {
            return self.take_in(id, file, now, seen);
        }
        let changed = stat.size < position || (doubtful && !file.print.holds(fd).unwrap_or(true));
        if changed {
            self.began_anew(id, file, seen, now);
            return 0;
        }
        self.rest(id, file, now);
        0
    }

    /// Reads on where there is something to read. `seen` is what its size was before, and when it had been written to.
    fn take_in(&mut self, id: u64, file: &mut Tracked, now: Instant, seen: (u64, i64)) -> usize {
        let Some(fd) = &file.fd else { return 0 };
        let mut buffer = std::mem::take(&mut self.buffer);
        // The bytes first: if the file was cut meanwhile, its beginning tells.
        let read = disk::read_at(fd, &mut buffer, file.decoder.position());
        if let (0, 0, Ok(read)) = (file.print.bytes, file.decoder.position(), &read) {
            file.print = Print::of(&buffer[..*read]);
        }
        let holds = file.print.holds(fd);
        let read = match (read, holds) {
            (Ok(read), Ok(true)) => read,
            (Ok(_), Ok(false)) => {
                self.buffer = buffer;
                self.began_anew(id, file, seen, now);
                return 0;
            }
            (Err(error), _) | (_, Err(error)) => {
                self.buffer = buffer;
                return self.fail(file, &error);
            }
        };
        let mut at = 0;
        loop {
            at += file
                .decoder
                .feed(&buffer[at..read], now_ns(), &mut self.gather, |line, error| warn_of(&file.home, line, error));
            self.note(id, file);
            if !self.close_full() {
                break;
            }
        }
        self.buffer = buffer;
        self.metrics.read_bytes.increment(at as u64);
        file.stalled = if at == 0 { file.size } else { u64::MAX };
        file.grew = now;
        self.is_dirty = true;
        if !file.is_gone && !file.is_unlinked && !self.is_stopping {
            let there = Stat::at(&file.home).ok().flatten();
            if there.is_none_or(|there| there.key != file.key) {
                file.is_gone = true;
            }
            if there.is_some_and(|there| there.key != file.key) {
                self.taken.push((file.entry, file.home.clone()));
            }
        }
        read
    }

    /// Nothing came.
    fn rest(&mut self, id: u64, file: &mut Tracked, now: Instant) {
        let quiet = now.saturating_duration_since(file.grew);
        let enough = if file.is_unlinked { DELETED_QUIET } else { RENAMED_QUIET };
        if (file.is_unlinked && self.is_stopping) || ((file.is_unlinked || file.is_gone) && quiet >= enough) {
            self.finish(id, file, now);
        } else if quiet >= SILENCE && file.decoder.holds_some() {
            file.decoder.silence(&mut self.gather);
            self.note(id, file);
            self.close_full();
        }
        if quiet >= QUIET {
            file.next_look = now + QUIET_LOOK;
        }
    }

    /// A file could not be read: it waits to be opened again.
    fn fail(&mut self, file: &mut Tracked, error: &io::Error) -> usize {
        self.say(&file.home, error);
        (file.fd, file.was_open) = (None, false);
        0
    }

    /// Counts and tells what could not be read.
    pub(super) fn say(&self, path: &std::path::Path, error: &io::Error) {
        static UNREADABLE: Throttle = Throttle::every(SAID);
        self.metrics.errors.increment(1);
        if let Some(suppressed) = UNREADABLE.pass() {
            warn!(path = %path.display(), %error, suppressed, "File cannot be read; trying again");
        }
    }

    /// Adds a file; its number.
    pub(super) fn insert(&mut self, file: Tracked) -> u64 {
        let id = self.next_file;
        self.next_file += 1;
        self.by_key.insert(file.key, id);
        self.files.insert(id, file);
        self.is_dirty = true;
        id
    }
}

pub(super) fn warn_of(path: &std::path::Path, line: &[u8], error: LineError) {
    static BAD_LINE: Throttle = Throttle::every(SAID);
    if let Some(suppressed) = BAD_LINE.pass() {
        let shown = line[..line.len().min(SHOWN)].escape_ascii();
        warn!(path = %path.display(), line = %shown, %error, suppressed, "Line of a file dropped");
    }
}
