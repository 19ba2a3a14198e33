//! The machine's own numbers, under the names that a system metrics agent gives them (contract: agents §8.4). Pure.
//!
//! What enters: texts of `/proc` and `/sys`, and what the kernel says of file systems. What leaves: gauges, each in an envelope of its own,
//! as a scraper makes them (contract: agents §8.3). A number that is not known is left out, never written as zero.

mod config;
pub(crate) mod cpu;
pub(crate) mod disk;
mod fuzz;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod report;

pub use config::{HostConfig, HostDisks};
pub use fuzz::fuzz;

/// What can be unreadable on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `/proc/stat`.
    Cpu,
    /// `/sys/devices/system/cpu`.
    Topology,
    /// `/proc/meminfo`.
    Memory,
    /// `/proc/loadavg`.
    Load,
    /// `/proc/net/dev`.
    Network,
    /// `/proc/net/snmp`.
    Protocols,
    /// `/proc/self/mountinfo`, `/proc/diskstats` and the mounts themselves.
    Disk,
    /// What the instance's supervisor says of it.
    Health,
}

impl Part {
    /// Every part, in declaration order.
    pub(crate) const ALL: [Part; 8] =
        [Part::Cpu, Part::Topology, Part::Memory, Part::Load, Part::Network, Part::Protocols, Part::Disk, Part::Health];

    /// The part as metrics spell it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Part::Cpu => "cpu",
            Part::Topology => "topology",
            Part::Memory => "memory",
            Part::Load => "load",
            Part::Network => "network",
            Part::Protocols => "protocols",
            Part::Disk => "disk",
            Part::Health => "health",
        }
    }
}
