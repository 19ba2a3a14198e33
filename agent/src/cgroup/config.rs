//! What the containers' metrics can be told.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use transport::duration_text;

use super::pattern::Pattern;

/// Where the runtimes in wide use put their containers: kubelet with containerd, CRI-O or Docker, by systemd or without; Docker; podman;
/// garden.
const PATTERNS: [&str; 11] = [
    "**/*kubepods*-pod<pod>.slice/cri-containerd-<id>.scope",
    "**/*kubepods*-pod<pod>.slice/crio-<id>.scope",
    "**/*kubepods*-pod<pod>.slice/docker-<id>.scope",
    "**/kubepods/**/pod<pod>/<id>",
    "**/docker-<id>.scope",
    "docker/<id>",
    "**/libpod-<id>.scope",
    "**/libpod_parent/libpod-<id>",
    "garden/<id>",
    "garden/good/<id>",
    "garden/bad/<id>",
];

/// The `[agent.containers]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// Whether to read what containers use; false.
    pub enabled: bool,
    /// How often, at least a second; `"15s"`.
    #[serde(with = "duration_text")]
    pub interval: Duration,
    /// Where the cgroup v2 tree is mounted; `/sys/fs/cgroup`.
    pub root: PathBuf,
    /// Which cgroups below it are containers: paths in which `*` stands for a part of a name, `**` for any number of names, `<id>` for the
    /// container's id and `<pod>` for the pod's uid. Those of containerd, CRI-O, Docker, podman and garden.
    pub patterns: Vec<Pattern>,
    /// Levels below `root` that are looked at; 8.
    pub max_depth: NonZeroUsize,
    /// Containers that are told of; 1 000. The others are counted.
    pub max_containers: NonZeroUsize,
    /// Where kubelet keeps logs, whose names say what a pod is called; `/var/log/pods`.
    pub logs_root: PathBuf,
    /// Where kubelet links them by container, which says what each container is called; `/var/log/containers`.
    pub links_root: PathBuf,
    /// Where procfs is mounted; `/proc`. The machine's memory is the quota of a container without one, and a process tells a container's age.
    pub proc_root: PathBuf,
}

impl Default for ContainersConfig {
    fn default() -> Self {
        let pattern = |text: &str| text.parse().expect("the patterns of this file are well-formed");
        Self {
            enabled: false,
            interval: Duration::from_secs(15),
            root: "/sys/fs/cgroup".into(),
            patterns: PATTERNS.iter().copied().map(pattern).collect(),
            max_depth: NonZeroUsize::new(8).expect("not zero"),
            max_containers: NonZeroUsize::new(1_000).expect("not zero"),
            logs_root: "/var/log/pods".into(),
            links_root: "/var/log/containers".into(),
            proc_root: "/proc".into(),
        }
    }
}
