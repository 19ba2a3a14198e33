//! Processor time from `/proc/stat` (proc_stat(5)), and how processors are built from `/sys/devices/system/cpu`. Pure.

use std::collections::HashSet;

/// Processors that are looked at.
pub(crate) const MOST: usize = 1_024;

/// What one processor, or all together, did since the machine started, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) user: u64,
    pub(crate) system: u64,
    pub(crate) wait: u64,
    pub(crate) idle: u64,
    /// Of all states, those above included. Guests are within `user`.
    pub(crate) total: u64,
}

/// Percentages of the time between two readings. They need not add up to 100: low priority, interrupts and what a hypervisor took are none
/// of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shares {
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) wait: f64,
    pub(crate) idle: f64,
}

impl Ticks {
    /// What was done since `before`; nothing if no time has passed. A state that went back, as waiting may, counts as unchanged.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
    pub(crate) fn since(&self, before: &Ticks) -> Option<Shares> {
        let total = self.total.checked_sub(before.total).filter(|total| *total > 0)? as f64;
        let share = |now: u64, before: u64| (now.saturating_sub(before) as f64 / total * 100.0).min(100.0);
        Some(Shares {
            user: share(self.user, before.user),
            system: share(self.system, before.system),
            wait: share(self.wait, before.wait),
            idle: share(self.idle, before.idle),
        })
    }
}

/// The lines of processors: `cpu` for all together, then `cpu0` and so on, [`MOST`] of those.
pub(crate) fn parse(stat: &str) -> impl Iterator<Item = (&str, Ticks)> {
    stat.lines().filter_map(line).take(MOST + 1)
}

fn line(line: &str) -> Option<(&str, Ticks)> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next().filter(|name| name.starts_with("cpu"))?;
    let mut ticks = [0_u64; 8];
    let mut known = 0;
    for (tick, word) in ticks.iter_mut().zip(words) {
        *tick = word.parse().ok()?;
        known += 1;
    }
    let [user, _nice, system, idle, wait, _irq, _softirq, _steal] = ticks;
    let total = ticks.iter().fold(0, |sum: u64, tick| sum.saturating_add(*tick));
    // Every kernel has told at least the first four.
    (known >= 4).then_some((name, Ticks { user, system, wait, idle, total }))
}

/// Physical cores, and hardware threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) cores: usize,
    pub(crate) threads_per_core: usize,
}

impl Topology {
    /// From the `physical_package_id` and `core_id` of each processor that is on; nothing if there is none.
    pub(crate) fn of(processors: impl IntoIterator<Item = (i64, i64)>) -> Option<Self> {
        let mut threads = 0_usize;
        let cores: HashSet<(i64, i64)> = processors.into_iter().inspect(|_| threads += 1).collect();
        let threads_per_core = threads.div_ceil(cores.len().max(1));
        (!cores.is_empty()).then_some(Self { cores: cores.len(), threads_per_core })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  84282747 2052 12383215 2026386311 1059476 0 344284 11 120 0
cpu0 10132153 290 1548913 46828483 16683 0 25195 0 175628 0
cpu1 1 2 3 4
cpu2 1 2 3
cpu3 1 2 x 4 5 6 7 8
intr 1462898 0 0
ctxt 1990473
btime 1062191376
";

    #[test]
    fn processors_are_read_and_broken_lines_are_none() {
        let lines: Vec<_> = parse(STAT).collect();
        let total = 84_282_747 + 2_052 + 12_383_215 + 2_026_386_311 + 1_059_476 + 344_284 + 11;
        let all = Ticks { user: 84_282_747, system: 12_383_215, wait: 1_059_476, idle: 2_026_386_311, total };
        assert_eq!(lines[0], ("cpu", all));
        assert_eq!(lines[1].0, "cpu0");
        assert_eq!(lines[2], ("cpu1", Ticks { user: 1, system: 3, wait: 0, idle: 4, total: 10 }));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn shares_are_of_the_time_between_two_readings() {
        let before = Ticks { user: 100, system: 50, wait: 20, idle: 830, total: 1_000 };
        let after = Ticks { user: 125, system: 60, wait: 19, idle: 880, total: 1_100 };
        let shares = after.since(&before).unwrap();
        assert_eq!(shares, Shares { user: 25.0, system: 10.0, wait: 0.0, idle: 50.0 });
        assert_eq!(after.since(&after), None, "no time has passed");
        assert_eq!(before.since(&after), None, "the machine's clock of processors never goes back");
    }

    #[test]
    fn threads_of_one_core_count_once() {
        let topology = Topology::of([(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 0)]);
        assert_eq!(topology, Some(Topology { cores: 3, threads_per_core: 2 }));
        assert_eq!(Topology::of([]), None);
    }
}
