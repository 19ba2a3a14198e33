//! Files of a cgroup (cgroup v2, "Core Interface Files", "Memory Interface Files", "CPU Interface Files") and of a process. Pure.

/// Microseconds of processor time that a cgroup has had, from `cpu.stat`.
pub(crate) fn usage_usec(cpu_stat: &str) -> Option<u64> {
    value(cpu_stat, "usage_usec")
}

/// Bytes that a cgroup cannot give back at once: `memory.current` without the pages of files that nobody has used lately.
pub(crate) fn working_set(memory_current: &str, memory_stat: &str) -> Option<u64> {
    let current: u64 = memory_current.trim().parse().ok()?;
    Some(current.saturating_sub(value(memory_stat, "inactive_file").unwrap_or(0)))
}

/// A limit in bytes, from `memory.max`; `u64::MAX` where there is none.
pub(crate) fn limit(max: &str) -> Option<u64> {
    match max.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Ticks after the machine's start at which a process began, from `/proc/PID/stat` (proc_pid_stat(5)). Its name may hold anything.
pub(crate) fn started(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Hundredths of a second that the machine has been up, from `/proc/uptime`: in ticks, as Linux counts them for programs.
pub(crate) fn uptime(uptime: &str) -> Option<u64> {
    let (seconds, hundredths) = uptime.split_ascii_whitespace().next()?.split_once('.')?;
    let part: u64 = hundredths.get(..2)?.parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part)
}

fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        assert_eq!(usage_usec("usage_usec 1234567\nuser_usec 1\nsystem_usec 2\n"), Some(1_234_567));
        assert_eq!((usage_usec("usage_usec_x 1\n"), usage_usec(""), usage_usec("usage_usec -1\n")), (None, None, None));
        let stat = "anon 100\nfile 900\ninactive_anon 5\nactive_file 200\ninactive_file 700\n";
        assert_eq!(working_set("1000\n", stat), Some(300));
        assert_eq!(working_set("100\n", stat), Some(0), "read a moment apart");
        assert_eq!((working_set("1000\n", ""), working_set("x", stat)), (Some(1000), None));
        assert_eq!((limit("max\n"), limit("4096\n"), limit("")), (Some(u64::MAX), Some(4096), None));
    }

    #[test]
    fn a_process_may_be_called_anything() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        assert_eq!(started(&format!("17 (a) b (c)) {}\n", fields.join(" "))), Some(22));
        assert_eq!((started("17 (a) S 1"), started("")), (None, None));
        assert_eq!((uptime("29358.07 52013.33\n"), uptime("1.5 2"), uptime("x")), (Some(2_935_807), None, None));
    }
}
