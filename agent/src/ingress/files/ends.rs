//! Where files end: those that nobody writes to any more, and those that were cut and began anew.
//!
//! What enters: files whose time has come, as [`Reader`] finds. What leaves: the rest of their lines, to the frame at hand; nothing that
//! had been read is read again.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use tokio::time::Instant;

use super::discovery::CLOCK;
use super::disk;
use super::reader::{Reader, warn_of};
use super::tracked::Tracked;
use crate::ingress::now_ns;

impl Reader {
    /// Reads the end of a file that nobody will write to. Somebody may have since it was looked at: then it is no end yet.
    pub(super) fn finish(&mut self, id: u64, file: &mut Tracked, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let position = file.decoder.position();
        let read = file.fd.as_ref().map_or(Ok(0), |fd| disk::read_at(fd, &mut buffer, position));
        let rest = &buffer[..read.unwrap_or(0)];
        if !rest.is_empty() && position + rest.len() as u64 > file.size {
            self.buffer = buffer;
            (file.grew, file.next_look, file.stalled) = (now, now, u64::MAX);
            return;
        }
        file.decoder.finish(rest, now_ns(), &mut self.gather, |line, error| warn_of(&file.home, line, error));
        self.metrics.read_bytes.increment(rest.len() as u64);
        self.buffer = buffer;
        self.note(id, file);
        self.close_full();
        (file.is_finished, file.fd, self.is_dirty) = (true, None, true);
        if file.is_unlinked && self.by_key.get(&file.key) == Some(&id) {
            // Its number is given out again.
            self.by_key.remove(&file.key);
        }
    }

    /// A file was cut, or another one stands in its place. What had been copied aside before is read to its end there.
    /// `seen` is what its size had been, and when it had been written to.
    pub(super) fn began_anew(&mut self, id: u64, file: &mut Tracked, seen: (u64, i64), now: Instant) {
        self.metrics.truncated.increment(1);
        let ((size, modified), created) = (seen, file.key.created);
        let mut anew = self.again_from_its_beginning(file, now);
        anew.fd = file.fd.take();
        let has_copy = self.go_on_in_copy(id, file, modified, now);
        let new = self.insert(anew);
        if self.by_home.get(&file.home) == Some(&id) {
            self.by_home.insert(file.home.clone(), new);
        }
        if !has_copy {
            self.metrics.lost_bytes.increment(size.saturating_sub(file.decoder.position()));
            self.finish(id, file, now);
        }
        let modified = if has_copy { file.modified } else { modified };
        self.find_between(file.entry, &file.home, &file.real, (modified, created), now);
    }

    /// Goes on with what had been copied aside of a file that had been written to at `modified` when it was last looked at. Whether there
    /// is a copy.
    pub(super) fn go_on_in_copy(&mut self, id: u64, file: &mut Tracked, modified: i64, now: Instant) -> bool {
        let Some((path, stat)) = self.copy_of(file, modified) else { return false };
        self.by_key.remove(&file.key);
        file.fd = File::open(&path).ok();
        (file.key, file.size, file.modified) = (stat.key, stat.size, stat.modified);
        (file.is_gone, file.is_unlinked, file.was_open, file.grew, file.stalled) =
            (true, false, file.fd.is_some(), now, u64::MAX);
        self.by_key.insert(stat.key, id);
        true
    }

    /// Forgets files that have been read to their end and have left. Not those that would be found again by who looks what stood at a path
    /// after one that is still read, or while it was empty: by their times nobody has read them.
    pub(super) fn forget_ended(&mut self) {
        if !self.files.values().any(Tracked::has_ended) {
            return;
        }
        let mut oldest: HashMap<&Path, i64> = HashMap::new();
        for file in self.files.values().filter(|file| !file.has_ended()) {
            let modified = oldest.entry(&file.real).or_insert(i64::MAX);
            *modified = file.modified.min(*modified);
        }
        let scanned = self.scanned - CLOCK;
        let may_be_found = |id: &u64, file: &Tracked| {
            let is_last = self.by_key.get(&file.key) == Some(id) && !file.is_unlinked;
            let written = file.modified.max(file.key.created).saturating_add(CLOCK);
            let since = oldest.get(file.real.as_path()).map_or(scanned, |oldest| scanned.min(*oldest));
            is_last && written >= since
        };
        let ended = self.files.iter().filter(|(id, file)| file.has_ended() && !may_be_found(id, file));
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(file) = self.files.remove(&id) {
                self.forget(id, &file);
            }
        }
    }

    fn forget(&mut self, id: u64, file: &Tracked) {
        if self.by_key.get(&file.key) == Some(&id) {
            self.by_key.remove(&file.key);
        }
        if self.by_home.get(&file.home) == Some(&id) {
            self.by_home.remove(&file.home);
        }
        self.is_dirty = true;
    }
}
