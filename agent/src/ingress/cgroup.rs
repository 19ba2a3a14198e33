//! Reads what containers use at an interval (contract: agents §10.2).
//!
//! What enters: a cgroup v2 tree, and the names of log files. What leaves: a batch or more for each reading. A container that ends between
//! being found and being read costs nothing; one that cannot be read costs the others nothing.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use proto::raw::{Batch, Refused};
use telemetry::{Telemetry, Throttle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::host::text;
use super::{Intake, now_ns, readings};
use crate::cgroup::metrics::ContainersMetrics;
use crate::cgroup::names::{Known, Names};
use crate::cgroup::report::{self, Use};
use crate::cgroup::{ContainersConfig, stat};
use crate::gather::Gather;
use crate::host::memory::Memory;

/// The shortest time between two readings.
const SHORTEST: Duration = Duration::from_secs(1);

/// Cgroups that are looked at for each container that may be told of.
const LOOKS: usize = 20;

/// Processes that a container's age is looked for in.
const PROCESSES: usize = 16;

/// Nanoseconds in a clock tick, as Linux counts them for programs.
const TICK_NS: u64 = 10_000_000;

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(60);

/// The containers' metrics, ready to be read.
#[derive(Debug)]
pub(crate) struct Containers {
    every: Duration,
    reader: Reader,
    intake: Intake,
}

impl Containers {
    pub(crate) fn new(
        config: ContainersConfig,
        metrics: ContainersMetrics,
        telemetry: &Telemetry,
        intake: &Intake,
    ) -> Self {
        let every = config.interval.max(SHORTEST);
        Self { every, reader: Reader::new(config, metrics), intake: intake.of(telemetry, "containers") }
    }

    /// Reads at once and then at every interval, until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let read: fn(&mut Reader) -> Vec<(Batch, Refused)> = |reader| reader.read(Instant::now(), now_ns());
        readings::take(self.reader, read, self.every, self.intake, stop).await;
    }
}

/// Makes readings.
#[derive(Debug)]
struct Reader {
    config: ContainersConfig,
    metrics: ContainersMetrics,
    gather: Gather,
    /// The containers of the last reading, by their paths.
    last: HashMap<String, Last>,
}

/// What a container was at the last reading.
#[derive(Clone, Copy, Debug)]
struct Last {
    usage_usec: u64,
    at: Instant,
    /// Ticks after the machine's start at which its oldest process began, of those that it had when it was first seen.
    started: Option<u64>,
}

/// A cgroup that is a container's.
#[derive(Debug)]
struct Container {
    /// Below the root.
    path: String,
    id: String,
    /// With `-` where a uid has them.
    uid: Option<String>,
}

/// What all containers have in common at one reading.
#[derive(Debug)]
struct Machine {
    memory: u64,
    uptime: Option<u64>,
    at: Instant,
}

impl Reader {
    fn new(config: ContainersConfig, metrics: ContainersMetrics) -> Self {
        Self { config, metrics, gather: Gather::default(), last: HashMap::new() }
    }

    /// One reading, at `now_ns` nanoseconds since the Unix epoch. Shares of processor time come with a container's second one.
    fn read(&mut self, at: Instant, now_ns: i64) -> Vec<(Batch, Refused)> {
        self.metrics.readings.increment(1);
        let found = match self.find() {
            Ok(found) => found,
            Err(error) => {
                self.unreadable(&error);
                Vec::new()
            }
        };
        let names = self.names(&found);
        let proc = |file: &str| text(&self.config.proc_root.join(file)).ok();
        let memory =
            proc("meminfo").and_then(|text| Memory::parse(&text)).map_or(0, |memory| memory.total.saturating_mul(1024));
        let machine = Machine { memory, uptime: proc("uptime").and_then(|text| stat::uptime(&text)), at };

        let mut now = HashMap::with_capacity(found.len());
        let mut batches = Vec::new();
        let mut told = 0_u32;
        for container in found {
            let known = match &container.uid {
                Some(uid) => names.known(&container.id, uid),
                None => Known::Nothing,
            };
            if known == Known::Sandbox {
                continue;
            }
            match self.used(&container.path, &machine) {
                Ok((used, last)) => {
                    report::put(&mut self.gather, &container.id, known, &used, now_ns);
                    now.insert(container.path, last);
                    told += 1;
                }
                // One that has ended has taken its files with it.
                Err(_) if !self.config.root.join(&container.path).exists() => {}
                Err(error) => self.unreadable(&error),
            }
            if self.gather.is_full() {
                batches.extend(self.gather.take());
            }
        }
        batches.extend(self.gather.take());
        self.metrics.containers.set(f64::from(told));
        self.last = now;
        batches
    }

    /// The containers of the tree, in no order.
    fn find(&self) -> io::Result<Vec<Container>> {
        let root = &self.config.root;
        if !root.join("cgroup.controllers").exists() {
            let text = format!("{} is no cgroup v2 tree; say in agent.containers.root where it is", root.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        let most = self.config.max_containers.get();
        let mut looks = most.saturating_mul(LOOKS);
        let mut found = Vec::new();
        let mut over = 0_u64;
        let mut next = vec![(String::new(), 0_usize)];
        while let Some((path, depth)) = next.pop() {
            let Ok(entries) = fs::read_dir(root.join(&path)) else { continue };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if looks == 0 {
                    self.too_many(over + 1);
                    return Ok(found);
                }
                looks -= 1;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                match self.config.patterns.iter().find_map(|pattern| pattern.find(&path)) {
                    Some(_) if found.len() == most => over += 1,
                    Some(container) => {
                        let (id, uid) = (container.id.to_owned(), container.pod.map(|uid| uid.replace('_', "-")));
                        found.push(Container { path, id, uid });
                    }
                    None if depth + 1 < self.config.max_depth.get() => next.push((path, depth + 1)),
                    None => {}
                }
            }
        }
        if over > 0 {
            self.too_many(over);
        }
        Ok(found)
    }

    /// What log files say of the containers that are in pods.
    fn names(&self, found: &[Container]) -> Names {
        let mut names = Names::default();
        let in_pods = || found.iter().filter_map(|container| Some((&container.id, container.uid.as_ref()?)));
        if in_pods().next().is_none() {
            return names;
        }
        let most = self.config.max_containers.get().saturating_mul(LOOKS);
        let list = |root: &Path, add: &mut dyn FnMut(&str)| {
            for entry in fs::read_dir(root).into_iter().flatten().flatten().take(most) {
                entry.file_name().to_str().into_iter().for_each(&mut *add);
            }
        };
        list(&self.config.logs_root, &mut |name| names.add_pod(name));
        list(&self.config.links_root, &mut |name| names.add_link(name));
        in_pods().for_each(|(id, uid)| names.note(id, uid));
        names
    }

    /// What the container at `path` uses, and what to remember of it.
    fn used(&self, path: &str, machine: &Machine) -> io::Result<(Use, Last)> {
        let root = self.config.root.join(path);
        let file = |name: &str| text(&root.join(name));
        let missing = |name: &str| {
            let text = format!("{} does not say what was looked for", root.join(name).display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let usage_usec = stat::usage_usec(&file("cpu.stat")?).ok_or_else(|| missing("cpu.stat"))?;
        let memory = stat::working_set(&file("memory.current")?, &file("memory.stat")?)
            .ok_or_else(|| missing("memory.current"))?;
        let limit = stat::limit(&file("memory.max")?).ok_or_else(|| missing("memory.max"))?;
        let last = self.last.get(path);
        let started = match last {
            Some(last) => last.started,
            None => file("cgroup.procs").ok().and_then(|processes| self.oldest(&processes)),
        };
        let age = machine.uptime.zip(started).map(|(now, then)| now.saturating_sub(then).saturating_mul(TICK_NS));
        let used = Use {
            cpu: last.and_then(|last| share(usage_usec.checked_sub(last.usage_usec)?, machine.at - last.at)),
            memory,
            memory_quota: if machine.memory == 0 { limit } else { limit.min(machine.memory) },
            absolute_usage: usage_usec.saturating_mul(1_000),
            age,
        };
        Ok((used, Last { usage_usec, at: machine.at, started }))
    }

    /// When the oldest of the first processes began, in ticks.
    fn oldest(&self, processes: &str) -> Option<u64> {
        let stat = |pid: &str| text(&self.config.proc_root.join(pid).join("stat")).ok();
        let pids = processes.lines().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())).take(PROCESSES);
        pids.filter_map(|pid| stat::started(&stat(pid)?)).min()
    }

    fn unreadable(&self, error: &io::Error) {
        static UNREADABLE: Throttle = Throttle::every(QUIET);
        self.metrics.unreadable.increment(1);
        if let Some(suppressed) = UNREADABLE.pass() {
            warn!(%error, suppressed, "Containers cannot be read; they are left out");
        }
    }

    fn too_many(&self, over: u64) {
        static TOO_MANY: Throttle = Throttle::every(QUIET);
        self.metrics.over.increment(over);
        if let Some(suppressed) = TOO_MANY.pass() {
            let most = self.config.max_containers;
            warn!(over, most, suppressed, "Containers left out; raise agent.containers.max_containers");
        }
    }
}

/// `usec` of processor time within `wall`, in percent of one processor; nothing if no time has passed.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn share(usec: u64, wall: Duration) -> Option<f64> {
    let wall = wall.as_secs_f64();
    (wall > 0.0).then(|| usec as f64 / 1e6 / wall * 100.0)
}

#[cfg(test)]
mod tests;
