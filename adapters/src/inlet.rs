//! What waits for a drain: what an earlier form of it left over, then its ring or its disk.
//!
//! Envelopes enter from the subscription, and leave to the drain's loop in order. Never drops.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use diode::TryRecvError;
use diode::fair::Reader;
use proto::raw::{Batch, Limits};
use tokio::time::Instant;

use crate::disk::Outlet;
use crate::subscribe::{Queued, SentAs};

/// The reading end of a drain.
pub(crate) struct Inlet {
    left_over: VecDeque<Queued>,
    buffer: Buffer,
}

enum Buffer {
    Memory(Reader<Queued>),
    Disk(Box<Outlet>),
}

/// Envelopes that were taken, to be had one by one.
pub(crate) struct Taken {
    what: What,
    next: usize,
}

enum What {
    Live(Queued),
    Stored { records: Vec<spool::Record>, now_ms: u64, since: Instant },
}

/// An envelope.
pub(crate) struct One {
    pub(crate) bytes: Bytes,
    /// When it came to this process, or was read from its disk.
    pub(crate) since: Instant,
    /// How long ago it came to the drain, in this life of the process or an earlier one.
    pub(crate) age: Duration,
    /// Its place on disk, if it has one: it stays there until it is dealt with.
    pub(crate) place: Option<u64>,
    /// When it came, in milliseconds since the Unix epoch, as its record says that has such a place.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "for ids"))]
    pub(crate) arrival_ms: Option<u64>,
    /// Under which id it was sent to a stream, if it was.
    #[cfg_attr(not(feature = "nats"), expect(dead_code, reason = "for ids"))]
    pub(crate) sent_as: Option<SentAs>,
}

impl Inlet {
    /// In memory.
    pub(crate) fn ring(ring: Reader<Queued>) -> Self {
        Self { left_over: VecDeque::new(), buffer: Buffer::Memory(ring) }
    }

    /// On disk.
    pub(crate) fn disk(outlet: Outlet) -> Self {
        Self { left_over: VecDeque::new(), buffer: Buffer::Disk(Box::new(outlet)) }
    }

    /// Waits for the oldest envelopes. `None` when nothing will come any more.
    ///
    /// # Cancel safety
    /// They are removed only by the poll that returns them.
    pub(crate) async fn recv(&mut self) -> Option<Taken> {
        if let Some(load) = self.left_over.pop_front() {
            return Some(Taken::live(load));
        }
        match &mut self.buffer {
            Buffer::Memory(ring) => ring.recv().await.map(Taken::live),
            Buffer::Disk(outlet) => outlet.recv().await,
        }
    }

    /// Takes the oldest envelopes if they are at hand.
    pub(crate) fn try_recv(&mut self) -> Result<Taken, TryRecvError> {
        match (self.left_over.pop_front(), &mut self.buffer) {
            (Some(load), _) => Ok(Taken::live(load)),
            (None, Buffer::Memory(ring)) => ring.try_recv().map(Taken::live),
            (None, Buffer::Disk(outlet)) => outlet.try_recv().map(Taken::live),
        }
    }

    /// Takes no more from the subscription. What is there can still be received.
    pub(crate) fn close(&mut self) {
        match &mut self.buffer {
            Buffer::Memory(ring) => ring.close(),
            Buffer::Disk(outlet) => outlet.close(),
        }
    }

    /// Whether it is on disk.
    pub(crate) fn is_disk(&self) -> bool {
        matches!(self.buffer, Buffer::Disk(_))
    }

    /// Whether what is on disk and not dealt with waits there for the next start of the process.
    pub(crate) fn stays(&self) -> bool {
        matches!(&self.buffer, Buffer::Disk(outlet) if outlet.stays())
    }

    /// What was received and has a place on disk is dealt with, but for the place named and those after it.
    pub(crate) fn dealt(&mut self, but_from: Option<u64>) {
        if let Buffer::Disk(outlet) = &mut self.buffer {
            outlet.dealt(but_from);
        }
    }

    /// Puts envelopes, in order, before all others. Those that have a place on disk are read again instead.
    pub(crate) fn put_back(&mut self, mut loads: VecDeque<Queued>) {
        loads.append(&mut self.left_over);
        self.left_over = loads;
        if let Buffer::Disk(outlet) = &mut self.buffer {
            outlet.rewind();
        }
    }

    /// The drain ends: what is dealt with is to be known at the next start.
    pub(crate) async fn finish(&mut self) {
        if let Buffer::Disk(outlet) = &mut self.buffer {
            outlet.finish().await;
        }
    }
}

impl Taken {
    pub(crate) fn live(load: Queued) -> Self {
        Self { what: What::Live(load), next: 0 }
    }

    /// Records that were read at `now_ms`.
    pub(crate) fn stored(records: Vec<spool::Record>, now_ms: u64) -> Self {
        Self { what: What::Stored { records, now_ms, since: Instant::now() }, next: 0 }
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        let all = match &self.what {
            What::Live(load) => load.selection.len(),
            What::Stored { records, .. } => records.len(),
        };
        all - self.next
    }

    /// The place on disk of the next one.
    pub(crate) fn place(&self) -> Option<u64> {
        match &self.what {
            What::Live(_) => None,
            What::Stored { records, .. } => records.get(self.next).map(|record| record.sequence),
        }
    }

    /// Those that are left, if they have no place on disk.
    pub(crate) fn rest(&self) -> Option<Queued> {
        let What::Live(load) = &self.what else { return None };
        let mut load = load.clone();
        if self.next > 0 {
            load.selection.retain(|i| i >= self.next);
        }
        (!load.selection.is_empty()).then_some(load)
    }

    /// The next one, at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Option<One> {
        let i = self.next;
        let one = match &self.what {
            What::Live(load) => {
                if i >= load.selection.len() {
                    return None;
                }
                let bytes = load.selection.batch().envelope_bytes(load.selection.entry(i));
                let age = now.saturating_duration_since(load.since);
                One { bytes, since: load.since, age, place: None, arrival_ms: None, sent_as: load.sent_as }
            }
            What::Stored { records, now_ms, since } => {
                let record = records.get(i)?;
                let age = Duration::from_millis(now_ms.saturating_sub(record.arrival_ms))
                    + now.saturating_duration_since(*since);
                let (bytes, place) = (record.payload.clone(), Some(record.sequence));
                One { bytes, since: *since, age, place, arrival_ms: Some(record.arrival_ms), sent_as: None }
            }
        };
        self.next += 1;
        Some(one)
    }
}
impl One {
    /// The envelope as a load of its own.
    pub(crate) fn load(envelope: Bytes, since: Instant) -> Queued {
        Queued { selection: Batch::check_one(envelope, &Limits::NONE).0.into(), since, sent_as: None }
    }
}
