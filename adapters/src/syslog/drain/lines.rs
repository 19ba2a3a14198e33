//! The pure half of a drain: from the ring to lines, and from lines that cannot be delivered to counts.
//!
//! Loads enter from the ring without waiting; frames leave to the window. Whatever leaves neither way is counted here, and recorded for
//! its owner.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::reason::Reason;
use proto::v2;
use tokio::time::Instant;
use tracing::debug;

use super::{Drain, Ended};
use crate::inlet::{One, Taken};
use crate::notice;
use crate::syslog::encode::{Parts, Unencodable};
use crate::syslog::window::Frame;

/// Lines are made ahead of the connection up to this many envelopes, and this many bytes.
const AHEAD: (usize, usize) = (512, 128 * 1024);
/// The same where many go into one request: as many as one should hold.
pub(super) const REQUEST: (usize, usize) = (8192, 512 * 1024);
/// Lines are made in pieces of memory of this size at most: a drain that has few lines takes little.
const CHUNK: usize = 64 * 1024;

/// The name of the source of the last line: most often the next line has the same one.
#[derive(Debug)]
pub(super) struct LastSource(Arc<str>);

impl Default for LastSource {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl LastSource {
    fn name(&mut self, source_id: &[u8]) -> Arc<str> {
        if self.0.as_bytes() != source_id {
            self.0 = Arc::from(String::from_utf8_lossy(source_id));
        }
        Arc::clone(&self.0)
    }
}

impl Drain {
    /// Whether more lines are to be made.
    pub(super) fn has_room(&self) -> bool {
        let ahead = if self.destination.scheme.gathers() { REQUEST } else { AHEAD };
        self.window.unsent().len() < ahead.0 && self.window.unsent_bytes() < ahead.1
    }

    /// Makes lines of what was taken from the ring, and takes more if there is more, up to [`AHEAD`].
    pub(super) fn encode(&mut self) {
        let now = Instant::now();
        let mut filtered = 0;
        while self.has_room() {
            let Some(taken) = &mut self.in_hand else {
                match self.inlet.try_recv() {
                    Ok(taken) => self.in_hand = Some(taken),
                    Err(_) => break,
                }
                continue;
            };
            let left = taken.len();
            let Some(One { bytes, since, age, place, .. }) = taken.next(now) else {
                self.in_hand = None;
                continue;
            };
            let rest = bytes.len() * left;
            let expiry = self.retry.expiry(place.is_some());
            if expiry.is_some_and(|expiry| age > expiry) {
                self.lose_encoded(bytes, Reason::Expired);
                continue;
            }
            let mut spare = Vec::new();
            let Ok(envelope) = Parts::read(&bytes, &mut spare) else {
                self.metrics.dropped(Reason::DecodeError, 1);
                continue;
            };
            // A line is longer than its envelope, but seldom twice as long.
            if self.chunk.capacity() < 2 * bytes.len() {
                self.chunk.reserve((2 * rest).clamp(2 * bytes.len(), CHUNK.max(2 * bytes.len())));
            }
            match self.encoder.encode(&envelope, &mut self.chunk) {
                Ok(0) => filtered += 1,
                Ok(_) => {
                    let is_notice = notice::is_notice(envelope.payload());
                    let lines = self.chunk.split().freeze();
                    let source_id = self.last_source.name(envelope.source_id());
                    let mut frame = Frame::new(lines, source_id, is_notice, since);
                    frame.expires = expiry.map(|expiry| now + expiry.saturating_sub(age));
                    frame.place = place;
                    if place.is_none() {
                        frame.envelope = bytes.clone();
                    }
                    self.window.push(frame);
                }
                Err(Unencodable::Malformed) => self.metrics.dropped(Reason::DecodeError, 1),
                Err(error) => {
                    debug!(drain = %self.name, %error, "Envelope has no form as a syslog line");
                    let is_notice = notice::is_notice(envelope.payload());
                    let source_id = self.last_source.name(envelope.source_id());
                    let too_long = error == Unencodable::TooLong;
                    self.lose(&source_id, is_notice, if too_long { Reason::Oversize } else { Reason::ConvertError });
                }
            }
        }
        if filtered > 0 {
            self.metrics.filtered(filtered);
        }
        let cut = self.encoder.take_cut();
        if cut > 0 {
            self.metrics.cut(cut);
        }
    }

    /// Leaves what was not written to whatever goes on in this drain's place.
    pub(super) fn hand_over(mut self) -> Ended {
        // What may be lost with the connection went to the old place.
        self.link_broke();
        self.let_written_go();
        let mut rest = VecDeque::new();
        while let Some(frame) = self.window.pop() {
            if frame.place.is_none() {
                rest.push_back(One::load(frame.envelope, frame.since));
            }
        }
        rest.extend(self.in_hand.take().as_ref().and_then(Taken::rest));
        self.inlet.put_back(rest);
        Ended { drained: self.drained, rest: Some(self.inlet) }
    }

    /// Lines that were written and may be lost are not written again.
    fn let_written_go(&mut self) {
        while self.window.unsent().front().is_some_and(Frame::was_written) {
            self.window.pop();
            self.metrics.uncertain(1);
        }
        self.tell_unconfirmed();
        self.tell_inlet();
    }

    /// Counts what will not be delivered.
    pub(super) fn count_rest(&mut self) {
        self.inlet.close();
        // What comes back now has no connection to go to.
        self.link_broke();
        if !self.inlet.stays() {
            self.let_written_go();
        }
        self.tell_inlet();
        while let Some(frame) = self.window.pop() {
            // What is on disk stays there for the next start; some of it may have been written.
            if frame.place.is_none() || frame.was_written() {
                self.lose_frame(&frame, Reason::ShutdownDeadline);
            }
        }
        loop {
            if let Some(mut taken) = self.in_hand.take() {
                while let Some(one) = taken.next(Instant::now()) {
                    if one.place.is_none() {
                        self.lose_encoded(one.bytes, Reason::ShutdownDeadline);
                    }
                }
            }
            match self.inlet.try_recv() {
                Ok(taken) => self.in_hand = Some(taken),
                Err(_) => break,
            }
        }
        if self.drained.dropped > 0 {
            tracing::error!(drain = %self.name, url = %self.url, dropped = self.drained.dropped, "Drain stopped before it was empty");
        }
    }

    /// Drops lines that were never written, or counts written ones as uncertain.
    pub(super) fn lose_frame(&mut self, frame: &Frame, reason: Reason) {
        if frame.was_written() {
            self.metrics.uncertain(1);
            self.tell_unconfirmed();
        } else {
            self.lose(&frame.source_id, frame.is_notice, reason);
        }
    }

    fn lose_encoded(&mut self, bytes: Bytes, reason: Reason) {
        match v2::Envelope::decode(bytes) {
            Ok(envelope) => self.lose(&envelope.source_id, notice::is_notice(envelope.payload()), reason),
            Err(_) => self.lose("", true, reason),
        }
    }

    fn lose(&mut self, source_id: &str, is_notice: bool, reason: Reason) {
        self.metrics.dropped(reason, 1);
        if reason == Reason::ShutdownDeadline {
            self.drained.dropped += 1;
        }
        if !is_notice {
            self.losses.record(source_id, reason, 1);
        }
    }
}
