//! Which files there are to read: new ones, those whose place another one took, those that wait to be opened.
//!
//! A file is known by device and number, whatever it is called. When another one stands at its path, what stood there in between is looked
//! for beside it, and read from its beginning.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use telemetry::Throttle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::disk::{self, Key, Print, Stat};
use super::reader::{Reader, SAID};
use super::tracked::Tracked;
use crate::files::{Decoder, Entry, Labels, MATCH, Resume, Start};
use crate::ingress::now_ns;

/// Looks for new files cost at most this part of a processor.
const SCAN_SHARE: u32 = 200;
/// The longest time between two of them.
const SCAN_LATEST: Duration = Duration::from_secs(10);
/// Files that are known at the same time, open or not.
const KNOWN: usize = 100_000;
/// Times that a file is not found, a look for new ones between them, before it counts as gone.
const MISSES: u8 = 5;
/// By which times of files may be behind the clock, in nanoseconds.
pub(super) const CLOCK: i64 = 10_000_000;
/// For which a place may be empty, in nanoseconds, and what had it meanwhile is found when it is taken again.
const EMPTY: i64 = 60_000_000_000;
/// Before a file that has been read makes place for one that waits.
const REST: Duration = Duration::from_secs(2);

impl Reader {
    /// Looks for new files, and for those that are gone.
    pub(super) fn scan(&mut self, now: Instant) {
        static UNSEEN: Throttle = Throttle::every(SAID);
        let (mut seen, began) = (HashSet::new(), now_ns());
        for entry in 0..self.entries.len() {
            for pattern in self.entries[entry].paths.clone() {
                // The pattern was one when the configuration was read.
                for found in glob::glob_with(pattern.as_str(), MATCH).into_iter().flatten() {
                    match found {
                        Ok(path) if self.entries[entry].excludes(&path) => {}
                        Ok(path) => seen.extend(self.discover(entry, &path, now)),
                        Err(error) => {
                            self.metrics.errors.increment(1);
                            if let Some(suppressed) = UNSEEN.pass() {
                                warn!(%error, suppressed, "Directory cannot be read; trying again");
                            }
                        }
                    }
                }
            }
        }
        for file in self.files.values_mut() {
            file.is_gone = !seen.contains(&file.key);
        }
        self.look_for_closed();
        let took = now.elapsed();
        self.resume_rest(now);
        self.is_new.fill(false);
        if self.scanned == 0 {
            (self.scanned, self.scanned_next) = (began, began);
        } else if began.saturating_sub(self.scanned_next) >= EMPTY {
            (self.scanned, self.scanned_next) = (self.scanned_next, began);
        }
        self.open_waiting(now);
        self.next_scan = now + self.config.scan_interval.max((took * SCAN_SHARE).min(SCAN_LATEST));
    }

    /// Goes on with what an earlier run had begun and what has not been found where it was.
    fn resume_rest(&mut self, now: Instant) {
        let left: Vec<Entry> = std::mem::take(&mut self.resume).into_values().collect();
        let mut beside: HashMap<PathBuf, Vec<(PathBuf, Stat)>> = HashMap::new();
        let scanned = self.scanned - CLOCK;
        // All of them before what stood between them: that is what is not one of them. Since the oldest: those that ended later are known.
        let mut since: HashMap<&Path, (&Entry, i64, i64)> = HashMap::new();
        for kept in &left {
            let there = beside.entry(kept.path.clone()).or_insert_with(|| disk::siblings(&kept.path));
            self.resume_elsewhere(kept, there, now);
            let (_, modified, created) = since.entry(&kept.path).or_insert((kept, scanned, scanned));
            if !kept.has_ended {
                (*modified, *created) = (kept.modified.min(*modified), kept.created.min(*created));
            }
        }
        for (kept, modified, created) in since.into_values() {
            if let Some(entry) = self.entries.iter().position(|entry| entry.wants(&kept.home)) {
                self.find_between(entry, &kept.home, &kept.path, (modified, created), now);
            }
        }
    }

    /// Takes note of a file at a path of the configuration; which one it is.
    pub(super) fn discover(&mut self, entry: usize, path: &Path, now: Instant) -> Option<Key> {
        static CROWDED: Throttle = Throttle::every(SAID);
        let stat = match Stat::at(path) {
            Ok(Some(stat)) if path.to_str().is_some() && !disk::is_compressed(path) => stat,
            Ok(_) => return None,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.say(path, &error);
                }
                return None;
            }
        };
        if let Some(file) = self.by_key.get(&stat.key).and_then(|id| self.files.get_mut(id)) {
            // Where it is not known when files were made, this may be another one with the number of one that was deleted.
            let may_be = (file.home == path && !file.is_finished) || file.fd.is_some();
            if may_be || (file.print.bytes > 0 && disk::begins_so(path, file.print)) {
                (file.is_gone, file.is_finished) = (false, false);
                file.note_name(&stat);
                return Some(stat.key);
            }
            file.is_finished = true;
        }
        if self.files.len() >= KNOWN {
            if let Some(suppressed) = CROWDED.pass() {
                warn!(path = %path.display(), known = KNOWN, suppressed, "File is left out, too many are known; name fewer in agent.files");
            }
            return None;
        }
        let real = fs::canonicalize(path).ok().filter(|real| real.to_str().is_some())?;
        let before = self.by_home.get(path).and_then(|id| self.files.get_mut(id)).map(|file| {
            file.is_gone = true;
            (file.real.clone(), (file.modified, file.key.created))
        });
        // A place that was empty; what earlier runs had begun there is looked for once all has been seen.
        let is_new = self.scanned != 0 && !self.is_new[entry] && !self.resume.values().any(|kept| kept.home == path);
        let is_same = |kept: &Entry| kept.home == path || disk::begins_so(path, print(kept));
        let kept = match self.resume.get(&stat.key).map(is_same) {
            Some(true) => self.resume.remove(&stat.key),
            _ => None,
        };
        let is_unknown = kept.is_none();
        let begin = match &kept {
            Some(kept) => kept.resume(),
            None if self.starts_at_end(entry) => Resume { from: [stat.size; 2], ..Resume::default() },
            None => Resume::default(),
        };
        let mut file = self.track(entry, path.to_owned(), real, stat, begin, now);
        match kept {
            Some(kept) => (file.print, file.modified) = (print(&kept), kept.modified),
            None => file.at_end = self.starts_at_end(entry),
        }
        debug!(path = %path.display(), from = begin.offset(), "File is read");
        let id = self.insert(file);
        self.by_home.insert(path.to_owned(), id);
        match before {
            Some((real, times)) => self.find_between(entry, path, &real, times, now),
            None if is_new && is_unknown => {
                let since = self.scanned - CLOCK;
                let real = fs::canonicalize(path).ok()?;
                self.find_between(entry, path, &real, (since, since), now);
            }
            None => {}
        }
        Some(stat.key)
    }

    fn starts_at_end(&self, entry: usize) -> bool {
        self.is_new[entry] && self.entries[entry].start() == Start::End
    }

    fn track(&self, entry: usize, home: PathBuf, real: PathBuf, stat: Stat, begin: Resume, now: Instant) -> Tracked {
        let config = &self.entries[entry];
        let container = disk::container_name(&real);
        let labels = Labels::of(config, &home, &disk::links(&home), container.as_deref());
        let decoder = Decoder::new(config, labels, self.config.max_line_bytes.get(), begin);
        Tracked::new(entry, home, real, stat, decoder, now)
    }

    /// The same file, before anything of it has been read.
    pub(super) fn again_from_its_beginning(&self, file: &Tracked, now: Instant) -> Tracked {
        let stat = Stat { key: file.key, size: file.size, modified: file.modified, is_unlinked: false };
        let (config, labels) = (&self.entries[file.entry], file.decoder.labels().clone());
        let decoder = Decoder::new(config, labels, self.config.max_line_bytes.get(), Resume::default());
        let mut anew = Tracked::new(file.entry, file.home.clone(), file.real.clone(), stat, decoder, now);
        anew.was_open = true;
        anew
    }

    /// Goes on with a file that an earlier run had begun and that is at no path of the configuration now.
    fn resume_elsewhere(&mut self, kept: &Entry, there: &[(PathBuf, Stat)], now: Instant) {
        let Some(entry) = self.entries.iter().position(|entry| entry.wants(&kept.home)) else { return };
        let key = key(kept);
        match there.iter().find(|(_, stat)| stat.key == key) {
            Some((path, stat)) if !self.by_key.contains_key(&key) => {
                let (home, real) = (kept.home.clone(), kept.path.clone());
                let mut file = self.track(entry, home, real, *stat, kept.resume(), now);
                (file.is_gone, file.print, file.modified) = (true, print(kept), kept.modified);
                info!(path = %path.display(), from = kept.resume().offset(), "File is read on under its new name");
                self.insert(file);
            }
            // Nothing of it is missing.
            _ if kept.has_ended => {}
            _ => {
                self.metrics.vanished.increment(1);
                warn!(path = %kept.home.display(), "File is gone that had been begun; what was not read of it is lost");
            }
        }
    }

    /// Finds what stood at a path after a file that was last written to, and made, at these times. A copy of a file that was cut then is
    /// left to [`Self::copy_of`].
    pub(super) fn find_between(
        &mut self,
        entry: usize,
        home: &Path,
        real: &Path,
        (modified, created): (i64, i64),
        now: Instant,
    ) {
        let all = disk::siblings(real);
        // After the others: a copy is never larger than what it is of, until that is cut. Size and beginning of the same file: another one
        // may take the place meanwhile.
        let open = File::open(real).and_then(|file| Ok((Stat::of(&file)?.size, disk::first_of(&file)?)));
        let (size, there) = open.unwrap_or_default();
        for (path, stat) in &all {
            let is_older = stat.modified < modified || (stat.key.created < created && stat.key.created != 0);
            let is_known = self.by_key.contains_key(&stat.key) || self.resume.contains_key(&stat.key);
            if is_known || is_older || path == real || stat.size == 0 {
                continue;
            }
            let first = disk::head(path);
            let both = first.len().min(there.len());
            if stat.size <= size && first[..both] == there[..both] {
                // It is being copied aside just now, and has not been cut yet.
                continue;
            }
            let mut others = self.files.values().filter(|file| file.real == real);
            if others.any(|file| file.was_copied_to(&first, &all)) {
                continue;
            }
            debug!(path = %path.display(), "File is read that had its place between two looks");
            let mut file = self.track(entry, home.to_owned(), real.to_owned(), *stat, Resume::default(), now);
            file.is_gone = true;
            self.insert(file);
        }
    }

    /// Looks what became of files that had been read and closed, and whose place is empty or another one's.
    fn look_for_closed(&mut self) {
        let mut beside: HashMap<PathBuf, Vec<(PathBuf, Stat)>> = HashMap::new();
        for file in self.files.values_mut() {
            if file.is_gone && file.fd.is_none() && !file.is_finished && file.is_read() {
                let there = beside.entry(file.real.clone()).or_insert_with(|| disk::siblings(&file.real));
                match there.iter().find(|(_, stat)| stat.key == file.key) {
                    Some((_, stat)) => file.is_finished = !file.note_name(stat),
                    // It is being renamed, or is gone: who opens it sees which.
                    None => file.was_open = false,
                }
            }
        }
    }

    /// What a file was copied to before it was cut: it begins in the same way, has what was read, at least, and is not older than the
    /// file was when that was `modified`.
    pub(super) fn copy_of(&self, file: &Tracked, modified: i64) -> Option<(PathBuf, Stat)> {
        let read = file.decoder.position();
        disk::siblings(&file.real).into_iter().find(|(path, stat)| {
            let may_be = stat.size >= read && stat.modified >= modified && !self.by_key.contains_key(&stat.key);
            may_be && file.print.bytes > 0 && disk::begins_so(path, file.print)
        })
    }

    /// Opens files that wait, as many as there are places; those first that may not be there much longer.
    pub(super) fn open_waiting(&mut self, now: Instant) {
        let mut waiting: Vec<(bool, u64)> =
            self.files.iter().filter(|(_, file)| file.waits()).map(|(id, file)| (!file.is_gone, *id)).collect();
        if waiting.is_empty() {
            return;
        }
        waiting.sort_unstable();
        let mut places =
            self.config.max_files.get().saturating_sub(self.files.values().filter(|file| file.fd.is_some()).count());
        let mut resting = Vec::new();
        if places < waiting.len() {
            let idle = self.files.iter().filter(|(_, file)| file.may_rest(now, REST));
            resting = idle.map(|(id, file)| (file.grew, *id)).collect();
            // The one that has been quiet longest last, to be taken first.
            resting.sort_unstable_by(|a, b| b.cmp(a));
        }
        for (_, id) in waiting {
            if places == 0 {
                let Some((_, resting)) = resting.pop() else { return };
                if let Some(file) = self.files.get_mut(&resting) {
                    file.fd = None;
                }
                places = 1;
            }
            let Some(mut file) = self.files.remove(&id) else { continue };
            places -= usize::from(self.open(id, &mut file, now));
            self.files.insert(id, file);
        }
    }

    /// Opens a file; whether it is open.
    fn open(&mut self, id: u64, file: &mut Tracked, now: Instant) -> bool {
        let opened = open_as(&file.home, file.key).or_else(|error| {
            // Another one has its place, or none: it is called otherwise by now.
            let mut elsewhere = disk::siblings(&file.real).into_iter().filter(|(_, stat)| stat.key == file.key);
            let (path, _) = elsewhere.next().ok_or(error)?;
            file.is_gone = true;
            open_as(&path, file.key)
        });
        match opened {
            Ok(fd) => {
                if std::mem::take(&mut file.at_end) {
                    let max = self.config.max_line_bytes.get();
                    let from = disk::last_line(&fd, file.decoder.position(), max).unwrap_or(file.decoder.position());
                    let (config, labels) = (&self.entries[file.entry], file.decoder.labels().clone());
                    file.decoder = Decoder::new(config, labels, max, Resume { from: [from; 2], ..Resume::default() });
                    // What it begins with has not been read.
                    let _unreadable = file.print.holds(&fd);
                }
                // Whether it is the one that was begun is looked at first.
                file.misses = 0;
                file.is_doubtful = true;
                (file.grew, file.next_look) = (grew(file, &fd, now), now);
                (file.fd, file.was_open) = (Some(fd), true);
                true
            }
            // A name that is being changed may be missed by who lists them.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.misses < MISSES => {
                file.misses += 1;
                false
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.go_on_in_copy(id, file, file.modified, now) =>
            {
                file.fd.is_some()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.metrics.lost_bytes.increment(file.size.saturating_sub(file.decoder.position()));
                (file.is_finished, file.is_unlinked) = (true, true);
                self.by_key.remove(&file.key);
                false
            }
            Err(error) => {
                self.say(&file.home, &error);
                false
            }
        }
    }
}

/// When there was last something to read of a file that is opened.
fn grew(file: &Tracked, fd: &File, now: Instant) -> Instant {
    let Ok(stat) = Stat::of(fd) else { return now };
    if stat.size > file.decoder.position() {
        return now;
    }
    // Not only now: of many that an earlier run had read to their end, each would be kept open once more.
    let quiet = u64::try_from(now_ns().saturating_sub(stat.modified)).unwrap_or(0);
    now.checked_sub(Duration::from_nanos(quiet)).unwrap_or(now)
}

pub(super) fn key(kept: &Entry) -> Key {
    Key { device: kept.device, inode: kept.inode, created: kept.created }
}

fn print(kept: &Entry) -> Print {
    Print { bytes: kept.fingerprint_bytes, hash: kept.fingerprint }
}

/// Opens what a path leads to if it is the file that is meant.
fn open_as(path: &Path, key: Key) -> io::Result<File> {
    let file = File::open(path)?;
    if Stat::of(&file)?.key == key { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}
