//! What a run found, as JSON for programs and as a table for people.
//!
//! What enters: accounts, latencies, drops and usage. What leaves: rates and ratios, which are computed here and only here.

mod lines;
mod table;
mod written;

use std::io::IsTerminal;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

pub use self::lines::Lines;
pub use self::written::Written;
use crate::ledger::Account;
use crate::procs::Sample;
use crate::run::Plan;

/// One load, accounted for.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// What was measured.
    pub label: String,
    /// What was sent.
    pub plan: Plan,
    /// Envelopes handed to the senders' connections.
    pub issued: u64,
    /// From the first scheduled moment to the last arrival.
    pub seconds: f64,
    /// Envelopes per second that arrived at the group that got fewest.
    pub per_second: f64,
    /// The most that a batch left behind its schedule: high figures say that the path, or this machine, could not keep up.
    pub behind_ms: f64,
    /// From the last sender's end, when the server had taken everything, to the last arrival: how long what had piled up took to leave.
    pub drained_ms: f64,
    /// What each group got.
    pub groups: Vec<Group>,
    /// What the servers say they dropped meanwhile.
    pub dropped: Vec<Dropped>,
    /// Missing envelopes that no server says it dropped, over all groups. Anything but 0 is a defect of the path or of its counters.
    pub residual: i64,
    /// What each server process used.
    pub servers: Vec<Usage>,
    /// What servers answered to senders, if not OK.
    pub errors: Vec<String>,
}

/// What a run measured, before anything is computed of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// From the first scheduled moment to the last arrival.
    pub time: Duration,
    /// The most that a batch left behind its schedule.
    pub behind: Duration,
    /// From the last sender's end to the last arrival.
    pub drained: Duration,
    /// What each group got.
    pub groups: Vec<Group>,
    /// What the servers say they dropped.
    pub dropped: Vec<Dropped>,
    /// What each server process used.
    pub usage: Vec<Usage>,
    /// What servers answered to senders, if not OK.
    pub errors: Vec<String>,
}

/// What one group of subscribers got.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// Every envelope of the load.
    pub account: Account,
    /// From the scheduled moment to arrival.
    pub latency: Latency,
    /// Messages that brought them.
    pub batches: u64,
    /// Why streams ended, if with an error.
    pub errors: Vec<String>,
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the envelopes took at most this long.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// All of them.
    pub max_ms: f64,
}

/// Envelopes that a server says it dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The server.
    pub server: String,
    /// Its stage.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// In how many groups each is missing.
    pub groups: u32,
}

/// What a server process used during a load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// The server.
    pub name: String,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Processor time per envelope sent, in nanoseconds.
    pub cpu_ns_per_envelope: f64,
    /// The most resident memory since its start.
    pub peak_rss_bytes: u64,
}

/// Two things measured in turn, so that what else the machine did hit both.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The name of what is compared.
    pub subject: String,
    /// The name of what it is compared with.
    pub yardstick: String,
    /// Pairs in which neither lost an envelope. The ratios are of these alone: work that was not done costs nothing.
    pub complete: usize,
    /// Processor time per envelope of the subject over that of the yardstick, of each complete pair.
    pub cpu: Spread,
    /// Envelopes per second of the subject over those of the yardstick, of each complete pair.
    pub throughput: Spread,
    /// The runs, in pairs.
    pub runs: Vec<(Run, Run)>,
}

/// A median and how far single values lie from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the values are at most this.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// What a process used while nothing was asked of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// How long it was watched.
    pub seconds: f64,
    /// Hundredths of one processor core.
    pub cpu_percent: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// The most resident memory since its start.
    pub peak_rss_bytes: u64,
}

/// The machine that figures are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Its kernel.
    pub kernel: String,
}

/// Everything that one call of the program found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The subcommand.
    pub scenario: String,
    /// Where it ran.
    pub machine: Machine,
    /// Single loads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Run>,
    /// Loads in pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Doing nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// A doppler with many agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Agents>,
    /// What many tails take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tails: Option<Tails>,
    /// A doppler with many idle subscriptions, each time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Subscriptions>,
    /// What a drain did with its envelopes, each run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drained: Vec<Drained>,
    /// Many drains of one process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drains: Option<Drains>,
    /// Metrics written to a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// Lines of statsd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<Lines>,
    /// A cache, read while it was written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Read>,
}

/// How long reads of one kind took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Read {
    /// Of what, by which way.
    pub what: String,
    /// How many.
    pub count: u64,
    /// Until the whole answer was there.
    pub latency: Latency,
}

/// What many drains took, and what became of the lines of those whose receiver was alive.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drains {
    /// Drains of one process.
    pub drains: u32,
    /// Of these, to receivers that refuse connections or take none.
    pub dead: u32,
    /// How long lines were sent.
    pub seconds: f64,
    /// The doppler says it handed out.
    pub copies: u64,
    /// The drains say they received.
    pub received: u64,
    /// Lines of drains that are alive.
    pub account: Account,
    /// From their scheduled moment to their receiver.
    pub latency: Latency,
    /// Hundredths of one processor core that the adapters took meanwhile.
    pub cpu_percent: f64,
    /// Resident memory of the adapters for each drain, before the first line.
    pub idle_bytes_each: u64,
    /// The same at the end.
    pub bytes_each: u64,
}

impl Drains {
    /// Every line of a drain that is alive arrived, once, and the drains received what was handed to them.
    pub fn is_exact(&self) -> bool {
        self.account.missing == 0 && self.account.duplicates == 0 && self.copies == self.received
    }
}

/// What became of the envelopes of a drain: those of the load, and those that found the path open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drained {
    /// The drain says it received.
    pub received: u64,
    /// Lines that its receiver counted; at one that does not, what the drain says it delivered.
    pub lines: u64,
    /// The drain says it dropped.
    pub dropped: u64,
}

impl Drained {
    /// Every envelope is a line or counted as dropped.
    pub fn is_exact(&self) -> bool {
        self.received == self.lines + self.dropped
    }
}

/// What many tails take of a traffic controller, and of the dopplers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tails {
    /// How many.
    pub tails: u32,
    /// Resident memory of the traffic controller for each, before a line came.
    pub bytes_each: u64,
    /// Subscriptions at all dopplers together.
    pub upstream: u64,
    /// Processor time of all roles together while lines came, in percent of one core.
    pub cpu_percent: f64,
}

/// What many idle subscriptions take of a doppler.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Subscriptions {
    /// Open, to sources that never speak.
    pub idle: u32,
    /// How long opening all of them took.
    pub seconds: f64,
    /// Resident memory of the doppler for each of them.
    pub bytes_each: u64,
}

/// What many connected agents take of a doppler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Agents {
    /// Connected and idle.
    pub agents: u32,
    /// Resident memory of the doppler for each of them.
    pub bytes_each: u64,
    /// Others that came and went while envelopes passed.
    pub reconnects: u32,
    /// In how many seconds.
    pub seconds: u64,
}

impl Run {
    /// Computes what follows from the measurements.
    pub fn new(label: &str, plan: &Plan, measured: Measured) -> Self {
        let Measured { time, behind, drained, groups, dropped, usage: servers, errors } = measured;
        let issued = groups.iter().map(|group| group.account.issued).max().unwrap_or_default();
        let fewest = groups.iter().map(|group| group.account.unique).min().unwrap_or_default();
        let seconds = time.as_secs_f64();
        let missing: u64 = groups.iter().map(|group| group.account.missing).sum();
        let admitted: u64 = dropped.iter().map(|dropped| dropped.count * u64::from(dropped.groups)).sum();
        Self {
            label: label.to_owned(),
            plan: plan.clone(),
            issued,
            seconds,
            per_second: ratio(fewest as f64, seconds),
            behind_ms: behind.as_secs_f64() * 1e3,
            drained_ms: drained.as_secs_f64() * 1e3,
            groups,
            dropped,
            residual: missing.cast_signed() - admitted.cast_signed(),
            servers,
            errors,
        }
    }

    /// Every envelope is accounted for: received as sent, or admitted as dropped by a server.
    pub fn is_exact(&self) -> bool {
        self.residual == 0 && self.groups.iter().all(|group| group.account.invented == 0 && group.account.corrupt == 0)
    }

    /// Missing envelopes, over all groups.
    pub fn missing(&self) -> u64 {
        self.groups.iter().map(|group| group.account.missing).sum()
    }

    /// Processor time per envelope of all server processes together, in nanoseconds.
    pub fn cpu_ns(&self) -> f64 {
        self.servers.iter().map(|usage| usage.cpu_ns_per_envelope).sum()
    }

    /// The slowest group's latencies, each for itself.
    pub fn latency(&self) -> Latency {
        self.groups.iter().map(|group| group.latency).fold(Latency::default(), |worst, latency| Latency {
            p50_ms: worst.p50_ms.max(latency.p50_ms),
            p99_ms: worst.p99_ms.max(latency.p99_ms),
            p999_ms: worst.p999_ms.max(latency.p999_ms),
            max_ms: worst.max_ms.max(latency.max_ms),
        })
    }
}

impl From<&Histogram<u64>> for Latency {
    fn from(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e6;
        Self { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: nanoseconds.max() as f64 / 1e6 }
    }
}

impl Usage {
    /// What a process used between two samples, in which `envelopes` were sent.
    pub fn between(name: &str, before: &Sample, after: &Sample, envelopes: u64) -> Self {
        let cpu_seconds = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        Self {
            name: name.to_owned(),
            cpu_seconds,
            cpu_ns_per_envelope: ratio(cpu_seconds * 1e9, envelopes as f64),
            peak_rss_bytes: after.peak_rss_bytes,
        }
    }
}

impl Comparison {
    /// Compares pair by pair.
    pub fn new(subject: &str, yardstick: &str, runs: Vec<(Run, Run)>) -> Self {
        let complete: Vec<_> =
            runs.iter().filter(|(subject, other)| subject.missing() + other.missing() == 0).collect();
        let of = |value: fn(&Run) -> f64| {
            Spread::of(complete.iter().map(|(subject, other)| ratio(value(subject), value(other))).collect())
        };
        let (cpu, throughput, complete) = (of(Run::cpu_ns), of(|run| run.per_second), complete.len());
        let (subject, yardstick) = (subject.to_owned(), yardstick.to_owned());
        Self { subject, yardstick, complete, cpu, throughput, runs }
    }
}

impl Spread {
    /// Of any values; zeros when there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Self::default() };
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Self { median, min: *min, max: *max }
    }
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { processor, cores, kernel: read("/proc/sys/kernel/osrelease").trim().to_owned() }
    }
}

impl Report {
    /// An empty report of this machine.
    pub fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            machine: Machine::this(),
            runs: Vec::new(),
            comparison: None,
            idle: None,
            agents: None,
            tails: None,
            subscriptions: Vec::new(),
            drained: Vec::new(),
            drains: None,
            written: None,
            lines: None,
            reads: Vec::new(),
        }
    }

    /// All loads, in the order they ran.
    pub fn all_runs(&self) -> impl Iterator<Item = &Run> {
        let pairs = self.comparison.iter().flat_map(|comparison| &comparison.runs);
        self.runs.iter().chain(pairs.flat_map(|(subject, other)| [subject, other]))
    }

    /// True when every envelope of every load is accounted for.
    pub fn is_exact(&self) -> bool {
        self.all_runs().all(Run::is_exact)
            && self.drained.iter().all(Drained::is_exact)
            && self.drains.as_ref().is_none_or(Drains::is_exact)
            && self.written.as_ref().is_none_or(Written::is_exact)
            && self.lines.as_ref().is_none_or(Lines::is_exact)
    }
}

fn ratio(over: f64, under: f64) -> f64 {
    if under > 0.0 { over / under } else { 0.0 }
}

/// A bar on standard error, when that is a terminal.
pub fn progress(label: &str, count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {human_pos}/{human_len} {per_sec}")
        .expect("a valid template");
    ProgressBar::new(count).with_style(style).with_message(label.to_owned())
}

#[cfg(test)]
mod tests;
