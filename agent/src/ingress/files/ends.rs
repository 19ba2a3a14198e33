//! Where files end: those that nobody writes to any more, and those that were cut and began anew.
//!
//! What enters: files whose time has come, as [`Reader`] finds. What leaves: the rest of their lines, to the frame at hand; nothing that
//! had been read is read again.

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
    pub(super) fn began_anew(&mut self, id: u64, file: &mut Tracked, seen: u64, now: Instant) {
        self.metrics.truncated.increment(1);
        let copy = self.copy_of(file);
        let mut anew = self.again_from_its_beginning(file, now);
        anew.fd = file.fd.take();
        let new = self.insert(anew);
        if self.by_home.get(&file.home) == Some(&id) {
            self.by_home.insert(file.home.clone(), new);
        }
        match copy {
            Some((path, stat)) => {
                file.fd = std::fs::File::open(&path).ok();
                (file.key, file.size, file.modified, file.created) = (stat.key, stat.size, stat.modified, stat.created);
                (file.is_gone, file.is_unlinked, file.was_open, file.grew, file.stalled) =
                    (true, false, true, now, u64::MAX);
                self.by_key.insert(stat.key, id);
                self.find_between(file.entry, &file.home, &file.real, (stat.modified, stat.created), now);
            }
            None => {
                self.metrics.lost_bytes.increment(seen.saturating_sub(file.decoder.position()));
                self.finish(id, file, now);
            }
        }
    }

    /// Whether its times do not tell it from one that had its place after it: then it is remembered, not to be read again.
    pub(super) fn may_be_found_again(&self, id: u64, file: &Tracked) -> bool {
        let is_last = self.by_key.get(&file.key) == Some(&id) && !file.is_unlinked;
        let after = self.by_home.get(&file.home).and_then(|id| self.files.get(id));
        is_last && after.is_some_and(|after| after.modified <= file.modified.max(file.created).saturating_add(CLOCK))
    }

    pub(super) fn forget(&mut self, id: u64, file: &Tracked) {
        if self.by_key.get(&file.key) == Some(&id) {
            self.by_key.remove(&file.key);
        }
        if self.by_home.get(&file.home) == Some(&id) {
            self.by_home.remove(&file.home);
        }
        self.is_dirty = true;
    }
}
