//! What a drain has in hand: lines to be written, and lines that were written but may not have been received.
//!
//! Pure: the caller writes, and says what became of it. Frames enter in order and leave in order. TCP says what the peer's kernel has
//! taken, never what the peer has read, so the last lines written are kept: a reset may have cost any of them, and brings them back to
//! the front, to be written again. They are let go
//! - when the peer closed the connection in the orderly way, having acknowledged everything ([`Window::closed`]);
//! - when more than [`KEPT_BYTES`] were written after them, or [`KEPT_FOR`] has passed, by when the kernel has either had them
//!   acknowledged or broken the connection ([`UNACKNOWLEDGED_FOR`]).
//!
//! # Careful mode
//! A peer may close after each line it reads. What it had not read of a large write is lost with it, and only the first line of each
//! connection arrives. So after a reset, lines go out one by one, each followed by a pause in which the peer could close; then four,
//! sixteen and sixty-four at a time ([`Window::quiet`]). A line that rested in such a pause on three connections is let go, which
//! bounds the repeats when each of them breaks later: it had its chances.
//!
//! A line that meets a reset on every connection stays in hand until it is given up ([`Window::pop`]): a balancer without a backend
//! takes lines and resets too.
//!
//! *Invariant*: no line is written before an earlier one that is still in hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Bytes of written lines that are kept to be written again.
pub const KEPT_BYTES: usize = 1024 * 1024;
/// How long they are kept.
pub const KEPT_FOR: Duration = Duration::from_secs(15);
/// How long the kernel lets written bytes go unacknowledged. Less than [`KEPT_FOR`]: what it gives up on is still in hand.
pub const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(10);

/// Lines in one write.
const BURST: usize = 256;
/// In careful mode, a burst grows by this factor, and above this many lines the mode ends.
const GROWTH: usize = 4;
const CAREFUL_BURST: usize = 64;
/// A line that had this many chances is let go.
const CHANCES: u8 = 3;

/// The lines of one envelope.
#[derive(Debug)]
pub struct Frame {
    /// The lines, with their octet counts.
    pub bytes: Bytes,
    /// Whose they are.
    pub source_id: Arc<str>,
    /// Whether the envelope is itself a notice about lost lines.
    pub is_notice: bool,
    /// When the envelope came to the process.
    pub since: Instant,
    /// When it will have waited too long.
    pub expires: Option<Instant>,
    /// The envelope, until its lines are written, where it would be lost otherwise.
    pub envelope: Bytes,
    /// Its place on disk, if it has one.
    pub place: Option<u64>,
    chances: u8,
    /// Written to some connection, in full.
    written: bool,
}

/// What a write did, in envelopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrote {
    /// Written for the first time.
    pub first: u64,
    /// Written again.
    pub again: u64,
    /// Written earlier, and let go now.
    pub let_go: u64,
}

/// The lines in hand.
#[derive(Debug)]
pub struct Window {
    unsent: VecDeque<Frame>,
    unsent_bytes: usize,
    sent: VecDeque<(Frame, Instant)>,
    sent_bytes: usize,
    /// How many of `unsent` were written to an earlier connection.
    returned: usize,
    /// How many of `sent` were written to the present connection.
    on_connection: usize,
    /// The burst in careful mode.
    careful: Option<usize>,
    resend: bool,
}

impl Frame {
    /// The lines of an envelope that came at `since`.
    pub fn new(bytes: Bytes, source_id: Arc<str>, is_notice: bool, since: Instant) -> Self {
        Self {
            bytes,
            source_id,
            is_notice,
            since,
            expires: None,
            envelope: Bytes::new(),
            place: None,
            chances: 0,
            written: false,
        }
    }

    /// Whether all of it was written to some connection before.
    pub fn was_written(&self) -> bool {
        self.written
    }
}

impl Window {
    /// Empty. With `resend` off, a reset brings nothing back: what was written counts as uncertain.
    pub fn new(resend: bool) -> Self {
        Self {
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            returned: 0,
            on_connection: 0,
            careful: None,
            resend,
        }
    }

    /// Puts a frame behind all others.
    pub fn push(&mut self, frame: Frame) {
        self.unsent_bytes += frame.bytes.len();
        self.unsent.push_back(frame);
    }

    /// The frames to be written, in order.
    pub fn unsent(&self) -> &VecDeque<Frame> {
        &self.unsent
    }

    /// Bytes to be written.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Frames in hand that were written, to this connection or an earlier one.
    pub fn unconfirmed(&self) -> usize {
        self.sent.len() + self.returned
    }

    /// How many frames to write next, at once.
    pub fn burst(&self) -> usize {
        self.careful.unwrap_or(BURST).min(self.unsent.len())
    }

    /// Whether a pause must follow each burst.
    pub fn is_careful(&self) -> bool {
        self.careful.is_some()
    }

    /// The first `count` unsent frames were written.
    pub fn wrote(&mut self, count: usize, now: Instant) -> Wrote {
        let mut wrote = Wrote::default();
        for mut frame in self.unsent.drain(..count) {
            if frame.written {
                wrote.again += 1;
                self.returned -= 1;
            } else {
                wrote.first += 1;
            }
            frame.written = true;
            frame.envelope = Bytes::new();
            self.unsent_bytes -= frame.bytes.len();
            self.sent_bytes += frame.bytes.len();
            self.sent.push_back((frame, now));
        }
        self.on_connection += count;
        wrote.let_go = self.prune(now);
        wrote
    }

    /// Lets go of what need not be kept any more; returns how many frames that are.
    pub fn prune(&mut self, now: Instant) -> u64 {
        let mut gone = 0;
        while let Some((_, at)) = self.sent.front() {
            // The last frame may be larger than all that is kept.
            let over = self.sent_bytes > KEPT_BYTES && self.sent.len() > 1;
            if !over && now.saturating_duration_since(*at) < KEPT_FOR {
                break;
            }
            self.let_go();
            gone += 1;
        }
        gone
    }

    /// When [`Window::prune`] will have something to do.
    pub fn prune_at(&self) -> Option<Instant> {
        self.sent.front().map(|(_, at)| *at + KEPT_FOR)
    }

    /// A pause passed after the last write, and the connection is as it was. Returns how many frames were let go.
    pub fn quiet(&mut self) -> u64 {
        let Some(burst) = self.careful else { return 0 };
        self.careful = Some(burst * GROWTH).filter(|burst| *burst <= CAREFUL_BURST);
        let skip = self.sent.len() - self.on_connection.min(self.sent.len());
        for (frame, _) in self.sent.iter_mut().skip(skip) {
            frame.chances = frame.chances.saturating_add(1);
        }
        let mut gone = 0;
        while self.sent.front().is_some_and(|(frame, _)| frame.chances >= CHANCES) {
            self.let_go();
            gone += 1;
        }
        gone
    }

    /// The connection was closed by both sides and everything written to it is acknowledged. Returns how many frames were let go.
    pub fn closed(&mut self) -> u64 {
        let gone = self.sent.len() as u64;
        self.sent.clear();
        self.sent_bytes = 0;
        self.on_connection = 0;
        gone
    }

    /// The connection broke: any frame that is kept may be lost. They come back to the front, in order; without `resend` they are let
    /// go instead. Returns how many were let go, and it is uncertain whether they arrived.
    pub fn reset(&mut self) -> u64 {
        self.on_connection = 0;
        self.sent_bytes = 0;
        if !self.resend {
            let uncertain = self.sent.len() as u64;
            self.sent.clear();
            return uncertain;
        }
        if !self.sent.is_empty() {
            self.careful = Some(1);
        }
        self.returned += self.sent.len();
        for (frame, _) in self.sent.drain(..).rev() {
            self.unsent_bytes += frame.bytes.len();
            self.unsent.push_front(frame);
        }
        0
    }

    /// Takes the first unsent frame out.
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.unsent.pop_front()?;
        self.unsent_bytes -= frame.bytes.len();
        self.returned -= usize::from(frame.written);
        Some(frame)
    }

    /// Takes the first unsent frame out if it has waited too long at `now`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Frame> {
        if self.unsent.front()?.expires.is_some_and(|expires| expires < now) { self.pop() } else { None }
    }

    /// The place on disk of the first frame in hand that has one.
    pub fn place(&self) -> Option<u64> {
        let sent = self.sent.iter().map(|(frame, _)| frame);
        sent.chain(&self.unsent).find_map(|frame| frame.place)
    }

    fn let_go(&mut self) {
        if let Some((frame, _)) = self.sent.pop_front() {
            self.sent_bytes -= frame.bytes.len();
            self.on_connection = self.on_connection.min(self.sent.len());
        }
    }
}

#[cfg(test)]
mod tests;
