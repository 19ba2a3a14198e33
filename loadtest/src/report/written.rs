//! What became of metrics on their way to a store.

use serde::Serialize;

/// What became of the samples of a drain of metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// The receiver.
    pub to: String,
    /// From the first sample sent to the last one dealt with.
    pub seconds: f64,
    /// Samples sent.
    pub sent: u64,
    /// The drain says it delivered.
    pub delivered: u64,
    /// The drain, or the doppler for it, says it dropped.
    pub dropped: u64,
    /// The receiver counted, if it is one that does.
    pub counted: Option<u64>,
    /// Requests that it answered.
    pub requests: Option<u64>,
    /// Bytes of their bodies, compressed.
    pub bytes: Option<u64>,
    /// Bodies that it could not read.
    pub bad: u64,
    /// Processor time of the adapters for each sample, in microseconds.
    pub cpu_us: f64,
    /// The most memory that the adapters took.
    pub peak_rss_bytes: u64,
}

impl Written {
    /// Every sample was delivered or counted as dropped, and the receiver has those that were delivered.
    pub fn is_exact(&self) -> bool {
        self.sent == self.delivered + self.dropped
            && self.bad == 0
            && self.counted.is_none_or(|counted| counted == self.delivered)
    }
}
