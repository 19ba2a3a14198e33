//! Datagrams to batches, within the limits. Pure.
//!
//! What enters: datagrams. What leaves: a batch of what was understood and the counts of what was not. It never stops at a bad line.

use bytes::Bytes;
use proto::raw::{Batch, Limits, Refused};
use proto::reason::Reason;

use super::{Aggregator, LineError, MAX_DATAGRAM, MAX_LINES, lines, parse_line};

/// Bytes of envelopes after which a batch is full.
const FULL_BYTES: usize = 1024 * 1024;

/// Gathers the envelopes of some datagrams.
#[derive(Debug)]
pub struct Collector {
    aggregator: Aggregator,
    /// The encoded `EnvelopeBatch`, kept for its capacity.
    batch: Vec<u8>,
    envelopes: usize,
    refused: Refused,
    /// Envelopes that a batch may have, by the limits of any hop.
    max_envelopes: usize,
}

impl Collector {
    /// An empty one.
    pub fn new(aggregator: Aggregator) -> Self {
        let max_envelopes = Limits::default().envelopes;
        Self { aggregator, batch: Vec::new(), envelopes: 0, refused: Refused::default(), max_envelopes }
    }

    /// Takes a datagram that arrived at `now_ns`, in nanoseconds since the Unix epoch. `bad` is told each line that is not understood.
    pub fn add(&mut self, datagram: &[u8], now_ns: i64, mut bad: impl FnMut(&[u8], LineError)) {
        if datagram.len() > MAX_DATAGRAM {
            self.refused.oversize += 1;
            return;
        }
        let mut lines = lines(datagram);
        for line in lines.by_ref().take(MAX_LINES) {
            match parse_line(line) {
                Ok(metric) => {
                    self.aggregator.apply(metric, now_ns, &mut self.batch);
                    self.envelopes += 1;
                }
                Err(error) => {
                    self.count(error.reason());
                    bad(line, error);
                }
            }
        }
        self.refused.too_many += lines.count() as u32;
    }

    fn count(&mut self, reason: Reason) {
        match reason {
            Reason::Oversize => self.refused.oversize += 1,
            Reason::TooMany => self.refused.too_many += 1,
            _ => self.refused.decode_error += 1,
        }
    }

    /// True when there is no room for the lines of another datagram: take the batch first.
    pub fn is_full(&self) -> bool {
        self.envelopes + MAX_LINES > self.max_envelopes || self.batch.len() >= FULL_BYTES
    }

    /// What has been gathered since the last time; `None` if that is nothing. One allocation for the bytes, two for the index.
    pub fn take(&mut self) -> Option<(Batch, Refused)> {
        let mut refused = std::mem::take(&mut self.refused);
        if self.envelopes == 0 && refused.total() == 0 {
            return None;
        }
        let (batch, broken) = Batch::index(Bytes::copy_from_slice(&self.batch));
        refused += broken;
        self.batch.clear();
        self.envelopes = 0;
        Some((batch, refused))
    }
}
