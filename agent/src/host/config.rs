//! What the host's metrics can be told.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transport::duration_text;

/// The `[agent.host]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Whether to read the machine's numbers; false.
    pub enabled: bool,
    /// How often, at least a second; `"15s"`.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// The source that they belong to, and their tag `origin`; `"system_metrics_agent"`, as the original has it.
    pub source_id: String,
    /// Where procfs is mounted; `/proc`.
    pub proc_root: PathBuf,
    /// Where sysfs is mounted; `/sys`.
    pub sys_root: PathBuf,
    /// Network interfaces whose names begin with one of these, 64 at most; `["eth", "en", "wl", "ib", "bond"]`. An empty text names all.
    pub interfaces: Vec<String>,
    /// The mounts that count as disks.
    pub disks: HostDisks,
    /// What the instance's supervisor says of it, as JSON with a `state`; `/var/vcap/instance/health.json`. Without the file nothing is said.
    pub health_file: PathBuf,
}

/// The `[agent.host.disks]` table: mount points. One that nothing is mounted at is left out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostDisks {
    /// `system_disk_system_…`; `/`.
    pub system: PathBuf,
    /// `system_disk_ephemeral_…`; `/var/vcap/data`.
    pub ephemeral: PathBuf,
    /// `system_disk_persistent_…`; `/var/vcap/store`.
    pub persistent: PathBuf,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Duration::from_secs(15),
            source_id: "system_metrics_agent".into(),
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
            interfaces: ["eth", "en", "wl", "ib", "bond"].map(String::from).into(),
            disks: HostDisks::default(),
            health_file: "/var/vcap/instance/health.json".into(),
        }
    }
}

impl Default for HostDisks {
    fn default() -> Self {
        Self { system: "/".into(), ephemeral: "/var/vcap/data".into(), persistent: "/var/vcap/store".into() }
    }
}
