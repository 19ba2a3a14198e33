//! Memory from `/proc/meminfo` and load from `/proc/loadavg` (proc_meminfo(5), proc_loadavg(5)). Pure.

/// Memory of the machine, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What programs can get without swapping.
    pub(crate) available: u64,
    pub(crate) swap_total: u64,
    pub(crate) swap_free: u64,
}

impl Memory {
    /// Nothing if a number is missing.
    pub(crate) fn parse(meminfo: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        Some(Self {
            total: value("MemTotal")?,
            available: value("MemAvailable")?,
            swap_total: value("SwapTotal")?,
            swap_free: value("SwapFree")?,
        })
    }

    /// KiB that programs have.
    pub(crate) fn used(&self) -> u64 {
        self.total.saturating_sub(self.available)
    }

    /// KiB that have been swapped out.
    pub(crate) fn swap_used(&self) -> u64 {
        self.swap_total.saturating_sub(self.swap_free)
    }
}

/// `part` of `whole` in percent; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 53 bits")]
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

/// Load averages over 1, 5 and 15 minutes.
pub(crate) fn load(loadavg: &str) -> Option<[f64; 3]> {
    let mut words = loadavg.split_ascii_whitespace();
    let mut next = || words.next()?.parse().ok().filter(|load: &f64| load.is_finite());
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "\
MemTotal:       24684092 kB
MemFree:        13824012 kB
MemAvailable:   22855500 kB
Buffers:          386764 kB
SwapCached:            0 kB
SwapTotal:       2097148 kB
SwapFree:        1572861 kB
HugePages_Total:       0
";

    #[test]
    fn used_is_what_is_not_available() {
        let memory = Memory::parse(MEMINFO).unwrap();
        assert_eq!((memory.used(), memory.swap_used()), (1_828_592, 524_287));
        assert!((percent(memory.used(), memory.total) - 7.408).abs() < 0.001);
        assert_eq!(percent(0, 0).to_bits(), 0.0_f64.to_bits(), "no swap is no swap in use");
        assert_eq!(Memory::parse(&MEMINFO.replace("MemAvailable", "MemAvail")), None);
        assert_eq!(Memory::parse(&MEMINFO.replace("22855500", "many")), None);
        let odd = Memory { total: 1, available: 2, swap_total: 0, swap_free: 1 };
        assert_eq!((odd.used(), odd.swap_used()), (0, 0));
    }

    #[test]
    fn load_has_three_numbers() {
        assert_eq!(load("0.90 0.64 12.77 1/234 5678\n"), Some([0.90, 0.64, 12.77]));
        assert_eq!(load("0.90 0.64"), None);
        assert_eq!(load("nan 0.64 0.77"), None);
    }
}
