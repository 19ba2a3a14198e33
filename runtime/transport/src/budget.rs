//! How many connections a process may hold: the slots that accept loops take and connections give back.
//!
//! Two bounds: a total, from the process's file descriptors, and one per source address for peers that are neither on
//! loopback nor known by a client certificate (here: unknown peers). Never waits: a connection that finds no slot is
//! refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Unknown peers may hold this many connections per source address.
const PER_SOURCE: usize = 64;

/// What a process may open when its limit cannot be read: the usual soft limit.
const USUAL_NOFILE: usize = 1024;

/// Descriptors kept free for everything that is not an accepted connection: a quarter, at least this many.
const RESERVE: usize = 64;

/// The connections that a group of listeners may hold together.
///
/// Cloning shares the budget. One short mutex per accepted or closed connection; nothing per message.
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    per_source: usize,
    /// Guards the two counts, which must change together.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Only addresses that hold at least one counted connection: bounded by `total`.
    by_source: HashMap<IpAddr, usize>,
}

/// One connection's place in a budget, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    counted_source: Option<IpAddr>,
}

/// Which bound refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    Source,
}

impl Budget {
    /// A budget of its own: `total` connections, `per_source` (at least one) of them from one
    /// unknown address.
    pub fn new(total: usize, per_source: usize) -> Self {
        Self { shared: Arc::new(Shared { total, per_source, held: Mutex::default() }) }
    }

    /// The budget that every listener of this process shares unless it is given another: the soft limit of open files
    /// less a quarter (at least 64), and 64 per unknown address.
    pub fn process() -> Self {
        static PROCESS: OnceLock<Budget> = OnceLock::new();
        PROCESS.get_or_init(|| Self::new(within(nofile()), PER_SOURCE)).clone()
    }

    /// How many connections hold a slot now.
    pub fn held(&self) -> usize {
        self.shared.lock().total
    }

    /// The largest number of connections this budget allows.
    pub fn total(&self) -> usize {
        self.shared.total
    }

    pub(crate) fn take(&self, source: IpAddr) -> Result<Slot, Full> {
        let source = source.to_canonical();
        let mut held = self.shared.lock();
        if held.total >= self.shared.total {
            return Err(Full::Total);
        }
        let counted_source = (!source.is_loopback()).then_some(source);
        if let Some(source) = counted_source {
            if held.by_source.get(&source).is_some_and(|&count| count >= self.shared.per_source) {
                return Err(Full::Source);
            }
            *held.by_source.entry(source).or_default() += 1;
        }
        held.total += 1;
        drop(held);
        Ok(Slot { shared: Arc::clone(&self.shared), counted_source })
    }
}

impl Slot {
    /// The peer has shown a certificate of our authorities: its address no longer counts, only the total does.
    pub(crate) fn peer_is_known(&mut self) {
        if let Some(source) = self.counted_source.take() {
            self.shared.lock().release(source);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.shared.lock();
        held.total -= 1;
        if let Some(source) = self.counted_source {
            held.release(source);
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn release(&mut self, source: IpAddr) {
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// How many files and connections this process may have open: its soft limit, and 1 024 where that cannot be read.
pub fn nofile() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_nofile(&limits).unwrap_or(USUAL_NOFILE)
}

/// The connections that fit under a limit of open files.
fn within(nofile: usize) -> usize {
    nofile.saturating_sub((nofile / 4).max(RESERVE)).max(16)
}

/// The soft limit in the text of `/proc/self/limits`: "Max open files  <soft>  <hard>  files".
fn soft_nofile(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(1 << 20) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn total_binds_everybody_and_is_given_back() {
        let budget = Budget::new(2, 64);
        let first = budget.take(LOOPBACK).unwrap();
        let _second = budget.take(ELSEWHERE).unwrap();
        assert_eq!(budget.take(LOOPBACK).unwrap_err(), Full::Total);
        drop(first);
        assert_eq!(budget.held(), 1);
        assert!(budget.take(LOOPBACK).is_ok());
    }

    #[test]
    fn one_unknown_address_gets_its_share_and_no_more() {
        let budget = Budget::new(1000, 64);
        let slots: Vec<_> = (0..64).map(|_| budget.take(ELSEWHERE).unwrap()).collect();
        assert_eq!(budget.take(ELSEWHERE).unwrap_err(), Full::Source);
        assert!(budget.take("192.0.2.8".parse().unwrap()).is_ok(), "another address has its own share");
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(budget.take(mapped).unwrap_err(), Full::Source, "the same peer in IPv6 dress");
        drop(slots);
        assert!(budget.take(ELSEWHERE).is_ok());
        assert!(budget.shared.lock().by_source.is_empty(), "no entry outlives its connections");
    }

    #[test]
    fn loopback_and_known_peers_are_bounded_by_the_total_only() {
        let budget = Budget::new(1000, 2);
        let mut slots: Vec<_> = (0..100).map(|_| budget.take(LOOPBACK).unwrap()).collect();
        for _ in 0..100 {
            let mut slot = budget.take(ELSEWHERE).unwrap();
            slot.peer_is_known();
            slot.peer_is_known();
            slots.push(slot);
        }
        assert_eq!(budget.held(), 200);
        drop(slots);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn limits_of_the_process_are_read_and_a_reserve_is_kept() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(soft_nofile(text), Some(1024));
        assert_eq!(soft_nofile("Max open files   unlimited   unlimited   files"), Some(1 << 20));
        assert_eq!(soft_nofile("nothing of the kind"), None);
        assert_eq!((within(1024), within(256), within(64)), (768, 192, 16));
    }
}
