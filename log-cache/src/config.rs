//! Configuration of the cache.

use std::path::PathBuf;

/// How much the cache keeps.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keep recent envelopes; true. Without, reads and follows find nothing.
    pub enabled: bool,
    /// Bytes of memory for envelopes and their index together; 60 % of 1 GiB.
    pub budget: u64,
    /// A directory to write what is held to at a stop, and to read it from at the next start; none. A doppler and a cache node need one
    /// each. The file there is no larger than the budget.
    pub snapshot: Option<PathBuf>,
    /// Percent of the budget that one source may hold before it is the first to give when room is needed; 5.
    pub source_cap_percent: u8,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, budget: 1024 * 1024 * 1024 * 6 / 10, snapshot: None, source_cap_percent: 5 }
    }
}

impl Config {
    /// The defaults with another budget, in bytes.
    #[must_use]
    pub fn with_budget(budget: u64) -> Self {
        Self { budget, ..Self::default() }
    }
}
