//! Reads the machine's numbers at an interval (contract: agents §8.4).
//!
//! What enters: files below `/proc` and `/sys`, and what the kernel says of mounts. What leaves: a batch for each reading. What cannot be
//! read is named once, counted each time, and costs the rest nothing. A file system that does not answer holds up this source alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use proto::raw::{Batch, Refused};
use serde::Deserialize;
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Intake, now_ns, readings};
use crate::gather::Gather;
use crate::host::cpu::{self, Ticks, Topology};
use crate::host::memory::{self, Memory};
use crate::host::metrics::HostMetrics;
use crate::host::report::{Disk, Fill, Report};
use crate::host::{HostConfig, Part, disk, network};

/// The shortest time between two readings.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest text that is read of one file. `/proc/stat` of a large machine has some hundred KiB.
const LONGEST_TEXT: u64 = 4 * 1024 * 1024;

/// Interfaces that are told of.
const MOST_INTERFACES: usize = 64;

/// The host's metrics, ready to be read.
#[derive(Debug)]
pub(crate) struct Host {
    every: Duration,
    reader: Reader,
    intake: Intake,
}

impl Host {
    pub(crate) fn new(config: HostConfig, metrics: HostMetrics, telemetry: &Telemetry, intake: &Intake) -> Self {
        let every = config.interval.max(SHORTEST);
        Self { every, reader: Reader::new(config, metrics), intake: intake.of(telemetry, "host") }
    }

    /// Reads at once and then at every interval, until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let read: fn(&mut Reader) -> Vec<(Batch, Refused)> = |reader| reader.read(now_ns()).into_iter().collect();
        readings::take(self.reader, read, self.every, self.intake, stop).await;
    }
}

/// Makes readings.
#[derive(Debug)]
struct Reader {
    config: HostConfig,
    metrics: HostMetrics,
    gather: Gather,
    /// Processor time at the last reading, by processor.
    ticks: Vec<(String, Ticks)>,
    /// Parts that have been named as unreadable, by their place in [`Part::ALL`].
    named: u8,
}

impl Reader {
    fn new(config: HostConfig, metrics: HostMetrics) -> Self {
        Self { config, metrics, gather: Gather::default(), ticks: Vec::new(), named: 0 }
    }

    /// One reading, at `now_ns` nanoseconds since the Unix epoch. Shares of processor time come with the second one.
    fn read(&mut self, now_ns: i64) -> Option<(Batch, Refused)> {
        self.metrics.readings.increment(1);
        let mut gather = std::mem::take(&mut self.gather);
        let source_id = std::mem::take(&mut self.config.source_id);
        let mut report = Report::new(&mut gather, &source_id, now_ns);
        for part in Part::ALL {
            let outcome = match part {
                Part::Cpu => self.cpu(&mut report),
                Part::Topology => self.topology(&mut report),
                Part::Memory => self.memory(&mut report),
                Part::Load => self.load(&mut report),
                Part::Network => self.network(&mut report),
                Part::Protocols => self.protocols(&mut report),
                Part::Disk => self.disks(&mut report),
                Part::Health => self.health(&mut report),
            };
            self.note(part, outcome);
        }
        self.config.source_id = source_id;
        let batch = gather.take();
        self.gather = gather;
        batch
    }

    /// Counts a part that could not be read, and names it the first time.
    fn note(&mut self, part: Part, outcome: io::Result<()>) {
        let bit = 1 << part as u8;
        match outcome {
            Ok(()) => self.named &= !bit,
            Err(error) => {
                self.metrics.unreadable(part);
                if self.named & bit == 0 {
                    self.named |= bit;
                    warn!(part = part.as_str(), %error, "Part of the host's metrics cannot be read; it is left out");
                }
            }
        }
    }

    fn cpu(&mut self, report: &mut Report<'_>) -> io::Result<()> {
        let text = self.proc("stat")?;
        let mut ticks = Vec::with_capacity(self.ticks.len());
        for (i, (name, now)) in cpu::parse(&text).enumerate() {
            // In the same place, unless a processor has been put off or on.
            let same = |(known, _): &&(String, Ticks)| known == name;
            let before = self.ticks.get(i).filter(same).or_else(|| self.ticks.iter().find(same));
            if let Some(shares) = before.and_then(|(_, before)| now.since(before)) {
                report.cpu((name != "cpu").then_some(name), &shares);
            }
            ticks.push((name.to_owned(), now));
        }
        self.ticks = ticks;
        known(!self.ticks.is_empty(), "stat has no line of a processor")
    }

    fn topology(&self, report: &mut Report<'_>) -> io::Result<()> {
        let root = self.config.sys_root.join("devices/system/cpu");
        let mut processors = Vec::new();
        for entry in fs::read_dir(&root).map_err(|error| named(&root, &error))?.take(cpu::MOST * 2) {
            let topology = entry?.path().join("topology");
            let id = |file: &str| text(&topology.join(file)).ok()?.trim().parse::<i64>().ok();
            // One that is off has no topology, and other things stand there too.
            processors.extend(id("physical_package_id").zip(id("core_id")));
        }
        let topology = Topology::of(processors);
        topology.into_iter().for_each(|topology| report.topology(topology));
        known(topology.is_some(), "no processor tells its core_id")
    }

    fn memory(&self, report: &mut Report<'_>) -> io::Result<()> {
        let memory = Memory::parse(&self.proc("meminfo")?);
        memory.iter().for_each(|memory| report.memory(memory));
        known(memory.is_some(), "meminfo lacks MemTotal, MemAvailable, SwapTotal or SwapFree")
    }

    fn load(&self, report: &mut Report<'_>) -> io::Result<()> {
        let load = memory::load(&self.proc("loadavg")?);
        load.into_iter().for_each(|load| report.load(load));
        known(load.is_some(), "loadavg does not begin with three numbers")
    }

    fn network(&self, report: &mut Report<'_>) -> io::Result<()> {
        let text = self.proc("net/dev")?;
        let wanted = |name: &str| self.config.interfaces.iter().any(|prefix| name.starts_with(prefix.as_str()));
        network::interfaces(&text)
            .filter(|interface| wanted(interface.name))
            .take(MOST_INTERFACES)
            .for_each(|interface| report.interface(&interface));
        Ok(())
    }

    fn protocols(&self, report: &mut Report<'_>) -> io::Result<()> {
        known(report.protocols(&self.proc("net/snmp")?), "net/snmp has none of the protocols")
    }

    fn disks(&self, report: &mut Report<'_>) -> io::Result<()> {
        let (mounts, devices) = (self.proc("self/mountinfo")?, self.proc("diskstats"));
        let disks = &self.config.disks;
        let all =
            [(Disk::System, &disks.system), (Disk::Ephemeral, &disks.ephemeral), (Disk::Persistent, &disks.persistent)];
        let mut outcome = Ok(());
        for (disk, path) in all {
            let Some(device) = path.to_str().and_then(|path| disk::device(&mounts, path)) else { continue };
            match fill(path) {
                Ok(fill) => {
                    let activity = devices.as_ref().ok().and_then(|devices| disk::activity(devices, device));
                    report.disk(disk, fill, activity);
                }
                Err(error) => outcome = Err(named(path, &error)),
            }
        }
        outcome.and(devices.map(drop))
    }

    /// What the supervisor says; a machine without one says nothing.
    fn health(&self, report: &mut Report<'_>) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Health {
            state: String,
        }
        let text = match text(&self.config.health_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let health: Health =
            serde_json::from_str(&text).map_err(|error| named(&self.config.health_file, &error.into()))?;
        report.healthy(health.state == "running");
        Ok(())
    }

    fn proc(&self, file: &str) -> io::Result<String> {
        text(&self.config.proc_root.join(file))
    }
}

/// The text of a file, its first [`LONGEST_TEXT`] bytes.
///
/// # Errors
/// Those of the file, with its path; also when it is no UTF-8.
pub(super) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_TEXT).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| named(path, &error))
}

/// How full the file system at `path` is.
#[expect(clippy::useless_conversion, reason = "counts of blocks are narrower on some machines")]
fn fill(path: &PathBuf) -> io::Result<Fill> {
    let stat = statvfs(path).map_err(io::Error::from)?;
    let (blocks, free, available) =
        (u64::from(stat.blocks()), u64::from(stat.blocks_free()), u64::from(stat.blocks_available()));
    let used = blocks.saturating_sub(free);
    let (files, files_free) = (u64::from(stat.files()), u64::from(stat.files_free()));
    let inodes = (files > 0).then(|| memory::percent(files.saturating_sub(files_free), files));
    Ok(Fill { bytes: memory::percent(used, used.saturating_add(available)), inodes })
}

/// The error with the path in it.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn known(known: bool, otherwise: &str) -> io::Result<()> {
    if known { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, otherwise)) }
}

#[cfg(test)]
mod tests;
