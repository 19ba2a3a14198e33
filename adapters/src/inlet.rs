//! What waits for a drain: what an earlier form of it left over, then its ring.
//!
//! Envelopes enter from the subscription, and leave to the drain's loop in order. Never drops.

use std::collections::VecDeque;

use diode::TryRecvError;
use diode::fair::Reader;

use crate::subscribe::Queued;

/// The reading end of a drain.
pub(crate) struct Inlet {
    left_over: VecDeque<Queued>,
    ring: Reader<Queued>,
}

impl Inlet {
    pub(crate) fn new(ring: Reader<Queued>) -> Self {
        Self { left_over: VecDeque::new(), ring }
    }

    /// Waits for the oldest load. `None` when nothing will come any more.
    ///
    /// # Cancel safety
    /// A load is removed only by the poll that returns it.
    pub(crate) async fn recv(&mut self) -> Option<Queued> {
        match self.left_over.pop_front() {
            Some(load) => Some(load),
            None => self.ring.recv().await,
        }
    }

    /// Takes the oldest load if there is one.
    pub(crate) fn try_recv(&mut self) -> Result<Queued, TryRecvError> {
        match self.left_over.pop_front() {
            Some(load) => Ok(load),
            None => self.ring.try_recv(),
        }
    }

    /// Takes no more from the subscription. What is there can still be received.
    pub(crate) fn close(&mut self) {
        self.ring.close();
    }

    /// Puts loads, in order, before all others.
    pub(crate) fn put_back(&mut self, mut loads: VecDeque<Queued>) {
        loads.append(&mut self.left_over);
        self.left_over = loads;
    }
}
