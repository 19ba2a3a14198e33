//! What the statsd front can be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transport::duration_text;

/// The `[agent.statsd]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StatsdConfig {
    /// Whether to listen; true.
    pub enabled: bool,
    /// Where to listen, over UDP; 127.0.0.1:8125. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Sockets that share the port, each read by a task of its own; 1, at most 64. More are for more than one core can read.
    pub sockets: NonZeroUsize,
    /// A Unix datagram socket to listen on too; none. Removed at the stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix: Option<PathBuf>,
    /// Who may send to the Unix socket; 0o666, as anybody on the machine may send to the port.
    pub unix_mode: u32,
    /// Bytes that the kernel is asked to hold for each socket; 4 MiB. It may grant less, and says so in the log.
    pub receive_buffer_bytes: NonZeroUsize,
    /// What counters, gauges and timers become; `"classic"`.
    pub mapping: Mapping,
    /// The source of every metric, whose name stays whole. Absent: what stands before the first dot of its name. A tag `source_id` wins over
    /// both where tags are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// What a minus before a gauge's number means where the mapping is native; `"subtract"`.
    pub negative_gauges: NegativeGauges,
    /// How often what is summed up is told; `"10s"`.
    #[serde(with = "duration_text")]
    pub flush_interval: Duration,
    /// Series remembered, of each mapping; 10 000. Past that the one longest unused is told and forgotten.
    pub max_series: NonZeroUsize,
    /// Values of one timer or members of one set kept between two flushes; 10 000. Of more timer values a random sample is kept.
    pub max_values: NonZeroUsize,
}

/// What counters, gauges and timers become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mapping {
    /// A gauge for each line, as the original has it: a counter's running sum, a gauge's level, a timer's value.
    #[default]
    Classic,
    /// What they are, at every flush: counters with what was added, gauges with their level, timers with their summary. Tags are kept.
    Native,
}

/// What a minus before a gauge's number means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NegativeGauges {
    /// So much less than before, as Etsy's clients mean it.
    #[default]
    Subtract,
    /// A level below zero, as DogStatsD's clients mean it. A plus is no step either.
    Set,
}

impl Default for StatsdConfig {
    fn default() -> Self {
        let some = |value| NonZeroUsize::new(value).expect("not zero");
        Self {
            enabled: true,
            listen: (Ipv4Addr::LOCALHOST, 8125).into(),
            sockets: NonZeroUsize::MIN,
            unix: None,
            unix_mode: 0o666,
            receive_buffer_bytes: some(4 * 1024 * 1024),
            mapping: Mapping::default(),
            source_id: None,
            negative_gauges: NegativeGauges::default(),
            flush_interval: Duration::from_secs(10),
            max_series: some(10_000),
            max_values: some(10_000),
        }
    }
}
