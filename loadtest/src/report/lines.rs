//! What became of lines of statsd.

use serde::Serialize;

/// Lines sent to an agent, as datagrams and as the envelopes that they became.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lines {
    /// What they become.
    pub mapping: String,
    /// Lines in a datagram.
    pub each: u64,
    /// From the first to the last.
    pub seconds: f64,
    /// Lines sent.
    pub lines: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// The agent says it read.
    pub read: u64,
    /// The agent says the kernel dropped.
    pub kernel_drops: u64,
    /// Envelopes that the agent says it made.
    pub envelopes: u64,
    /// Envelopes that it says it dropped.
    pub dropped: u64,
    /// Envelopes that the doppler says it received.
    pub received: u64,
    /// Processor time of the agent for each line, in microseconds.
    pub cpu_us: f64,
    /// The most memory that the agent took.
    pub peak_rss_bytes: u64,
}

impl Lines {
    /// Every datagram was read or dropped by the kernel, and every envelope received or dropped; classic lines are an envelope each.
    pub fn is_exact(&self) -> bool {
        let whole = self.mapping != "classic" || self.kernel_drops > 0 || self.envelopes == self.lines;
        whole && self.read + self.kernel_drops == self.datagrams && self.received + self.dropped == self.envelopes
    }
}
