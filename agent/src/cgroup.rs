//! What containers use, from a cgroup v2 tree (contract: agents §10.2). Pure.
//!
//! What enters: paths and texts of the tree, names of log directories. What leaves: gauges that become a v1 `ContainerMetric`, and a second
//! gauge for what that has no room for. What a cgroup does not know is left out: disk use and CPU entitlements are not in it.

mod config;
pub(crate) mod metrics;
pub(crate) mod names;
mod pattern;
pub(crate) mod report;
pub(crate) mod stat;

pub use config::ContainersConfig;
pub use pattern::{Pattern, PatternError};
