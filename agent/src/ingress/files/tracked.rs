//! One file that is read: how far, and where it is now.

use std::fs::File;
use std::path::PathBuf;

use tokio::time::Instant;

use super::disk::{self, Key, Print, Stat};
use super::flight::Flight;
use crate::files::{Decoder, Entry, PerStream};

/// One file.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The entry of the configuration that it is of.
    pub(super) entry: usize,
    /// Where it was found first.
    pub(super) home: PathBuf,
    /// The same without links, then: what has or had its place stands beside that.
    pub(super) real: PathBuf,
    pub(super) key: Key,
    /// Nothing while it waits to be opened.
    pub(super) fd: Option<File>,
    /// To be looked at whether it is the one that was begun.
    pub(super) is_doubtful: bool,
    /// Times that it was not found when it was to be opened.
    pub(super) misses: u8,
    /// It has been open.
    pub(super) was_open: bool,
    /// To be begun with the line that is being written.
    pub(super) at_end: bool,
    /// When it was last looked at.
    pub(super) size: u64,
    /// The same.
    pub(super) modified: i64,
    pub(super) decoder: Decoder,
    pub(super) flight: PerStream<Flight>,
    pub(super) print: Print,
    /// No path of the configuration leads to it any more.
    pub(super) is_gone: bool,
    /// No path at all does.
    pub(super) is_unlinked: bool,
    /// Nothing more will be read of it.
    pub(super) is_finished: bool,
    /// When it last had something to read.
    pub(super) grew: Instant,
    /// Before this it is not looked at.
    pub(super) next_look: Instant,
    /// Its size when nothing of what it had could be used.
    pub(super) stalled: u64,
    /// It was said that it is behind.
    pub(super) told_behind: bool,
}

impl Tracked {
    /// One that was just found.
    pub(super) fn new(entry: usize, home: PathBuf, real: PathBuf, stat: Stat, decoder: Decoder, now: Instant) -> Self {
        Self {
            entry,
            home,
            real,
            key: stat.key,
            fd: None,
            is_doubtful: false,
            misses: 0,
            was_open: false,
            at_end: false,
            size: stat.size,
            modified: stat.modified,
            decoder,
            flight: PerStream::default(),
            print: Print::default(),
            is_gone: false,
            is_unlinked: false,
            is_finished: false,
            grew: now,
            next_look: now,
            stalled: u64::MAX,
            told_behind: false,
        }
    }

    /// Where each stream begins that has not left for a doppler.
    pub(super) fn from(&self) -> PerStream<u64> {
        let held = self.decoder.held_from();
        std::array::from_fn(|stream| self.flight[stream].from().unwrap_or(held[stream]))
    }

    /// Bytes that have not left for a doppler.
    pub(super) fn behind(&self) -> u64 {
        let [out, err] = self.from();
        if self.is_finished && !self.is_under_way() { 0 } else { self.size.saturating_sub(out.min(err)) }
    }

    /// Some of it is in the ring, or on its way.
    pub(super) fn is_under_way(&self) -> bool {
        self.flight.iter().any(|flight| flight.from().is_some())
    }

    /// Nothing of it will be read or asked for any more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_finished && !self.is_under_way()
    }

    /// All that is there has been read, as far as was seen.
    pub(super) fn is_read(&self) -> bool {
        self.size <= self.decoder.position() || self.size == self.stalled
    }

    /// It should be open, and is not.
    pub(super) fn waits(&self) -> bool {
        self.fd.is_none() && !self.is_finished && !(self.was_open && self.is_read())
    }

    /// It would lose nothing if it were closed for a while.
    pub(super) fn may_rest(&self, now: Instant, quiet: std::time::Duration) -> bool {
        let idle = now.saturating_duration_since(self.grew) >= quiet;
        self.fd.is_some()
            && idle
            && !self.is_doubtful
            && self.is_read()
            && !self.is_unlinked
            && !self.decoder.holds_some()
    }

    /// Looks whether any name leads to it.
    pub(super) fn look_for_names(&mut self) {
        if let Some(Ok(stat)) = self.fd.as_ref().map(Stat::of) {
            self.is_unlinked = stat.is_unlinked;
        }
    }

    /// Of one that is closed: notes what its name says. Whether it is to be opened: what has changed since it was read may be all of it.
    pub(super) fn note_name(&mut self, stat: &Stat) -> bool {
        if self.fd.is_some() {
            return false;
        }
        self.was_open &= stat.modified == self.modified && stat.size == self.size;
        self.size = self.size.max(stat.size);
        !self.was_open
    }

    /// Its beginning is another one than it was; `elsewhere` says where it is if it is not open.
    fn was_cut(&self, elsewhere: &[(PathBuf, Stat)]) -> bool {
        let mut print = self.print;
        match (&self.fd, elsewhere.iter().find(|(_, stat)| stat.key == self.key)) {
            (Some(fd), _) => !print.holds(fd).unwrap_or(true),
            (None, Some((path, _))) => !disk::begins_so(path, print),
            // It is being renamed, or is gone: it goes on with the copy when it is opened.
            (None, None) => true,
        }
    }

    /// Whether a file that begins with `first` is a copy of this one, made before it was cut.
    pub(super) fn was_copied_to(&self, first: &[u8], elsewhere: &[(PathBuf, Stat)]) -> bool {
        self.print.bytes > 0 && self.print.fits(first) && self.was_cut(elsewhere)
    }

    /// It cannot be read by who comes later, and has not been read to its end.
    pub(super) fn is_last_chance(&self) -> bool {
        self.is_unlinked && !self.is_finished
    }

    /// Notes where the envelopes begin that went to the frame at hand.
    pub(super) fn note(&mut self, frame: u64) {
        for (flight, from) in self.flight.iter_mut().zip(self.decoder.take_handed()) {
            if let Some(from) = from {
                flight.add(frame, from);
            }
        }
    }

    /// What is kept of it.
    pub(super) fn kept(&self) -> Entry {
        Entry {
            home: self.home.clone(),
            path: self.real.clone(),
            device: self.key.device,
            inode: self.key.inode,
            fingerprint_bytes: self.print.bytes,
            fingerprint: self.print.hash,
            from: self.from(),
            handed_to: self.decoder.held_from(),
            modified: self.modified,
            created: self.key.created,
            has_ended: self.has_ended(),
        }
    }
}
