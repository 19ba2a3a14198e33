//! What is in the agent's ring: a part of a batch, and who wants to know what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use diode::fair::Load;
use parking_lot::Mutex;
use proto::raw::Selection;
use tokio::sync::mpsc;

/// Envelopes on their way to a doppler.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) selection: Selection,
    /// Kept until the envelopes have left for a doppler.
    pub(crate) ticket: Option<Arc<Ticket>>,
}

impl From<Selection> for Parcel {
    fn from(selection: Selection) -> Self {
        Self { selection, ticket: None }
    }
}

impl Load for Parcel {
    fn len(&self) -> usize {
        self.selection.len()
    }

    fn source(&self, i: usize) -> u64 {
        Load::source(&self.selection, i)
    }

    fn weight(&self, i: usize) -> usize {
        Load::weight(&self.selection, i)
    }

    fn bytes(&self) -> usize {
        Load::bytes(&self.selection)
    }

    fn held(&self) -> usize {
        Load::held(&self.selection)
    }

    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        Load::retain(&mut self.selection, keep);
    }

    fn copy_out(&self, kept: &[usize]) -> Self {
        Self { selection: Load::copy_out(&self.selection, kept), ticket: self.ticket.clone() }
    }
}

/// The fate of one frame of an acknowledged stream, reported when the last part of the frame is gone.
#[derive(Debug)]
pub(crate) struct Ticket {
    sequence: u64,
    envelopes: u64,
    dropped: AtomicU64,
    /// Nobody knows what became of the frame.
    void: AtomicBool,
    /// Where the envelopes go that had to leave the ring, if somebody puts them in again.
    dropped_to: Option<Dropped>,
    report: mpsc::Sender<Fate>,
}

/// Envelopes of a frame that had to leave the ring.
pub(crate) type Dropped = Arc<Mutex<Vec<Bytes>>>;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has left the ring.
    Settled {
        sequence: u64,
        /// Envelopes that left for a doppler.
        delivered: u64,
        /// Envelopes that had to leave the ring.
        dropped: u64,
    },
    /// The agent stopped with some of it.
    Unknown {
        /// Of the frame.
        sequence: u64,
    },
}

impl Ticket {
    /// A ticket for `envelopes`. `report` must have room for it: a stream gives out no more tickets than that.
    pub(crate) fn new(sequence: u64, envelopes: u64, report: mpsc::Sender<Fate>) -> Arc<Self> {
        Self::with(sequence, envelopes, None, report)
    }

    /// The same, and envelopes that have to leave the ring go to `dropped`.
    pub(crate) fn keeping(sequence: u64, envelopes: u64, dropped: Dropped, report: mpsc::Sender<Fate>) -> Arc<Self> {
        Self::with(sequence, envelopes, Some(dropped), report)
    }

    fn with(sequence: u64, envelopes: u64, dropped_to: Option<Dropped>, report: mpsc::Sender<Fate>) -> Arc<Self> {
        let (dropped, void) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { sequence, envelopes, dropped, void, dropped_to, report })
    }

    /// Counts the `i`-th envelope of a part of the frame, which will not leave. Allocates nothing but a place in a list.
    pub(crate) fn drop_one(&self, part: &Selection, i: usize) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(dropped) = &self.dropped_to {
            dropped.lock().push(part.batch().envelope_bytes(part.entry(i)));
        }
    }

    /// Gives up knowing: the stop's deadline left some of the frame behind.
    pub(crate) fn void(&self) {
        self.void.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let dropped = *self.dropped.get_mut();
        let fate = if *self.void.get_mut() {
            Fate::Unknown { sequence: self.sequence }
        } else {
            Fate::Settled { sequence: self.sequence, delivered: self.envelopes - dropped, dropped }
        };
        // The stream may be gone: then nobody asks.
        let _gone = self.report.try_send(fate);
    }
}
