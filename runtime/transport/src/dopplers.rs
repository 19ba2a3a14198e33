//! The live set of dopplers.
//!
//! What enters: the `[[dopplers]]` entries of a configuration: addresses, a name to look up, or a file, each in a zone or in none. What
//! leaves: the dopplers to use now, and a signal when they change. Names and files are read again on a timer with jitter, in tasks of
//! their own ([`refresh`](Dopplers::refresh)); whoever sends or reads never waits for them. An answer that is an error or empty changes
//! nothing: the last good one holds. Never connects.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::address::{Address, AddressError};
pub use self::readers::Met;
pub use self::stay::Stay;
use crate::backoff::Backoff;
use crate::duration_text;

mod address;
mod readers;
mod stay;

/// The most dopplers that one entry may bring; what is beyond is left out, and the log says so.
pub(crate) const MAX_DOPPLERS: usize = 1000;

/// The largest file of dopplers that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// One `[[dopplers]]` entry: exactly one of `addresses`, `dns` and `file`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "Entry")]
pub struct DopplerSet {
    /// The zone that these dopplers are in. Agents of the same zone prefer them. None is a zone of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Addresses as `host:port`, such as `"doppler-0.internal:8082"`, `"127.0.0.1:8082"` or `"[::1]:8082"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// A name with a port, such as `"dopplers.internal:8082"`: each of its addresses (A and AAAA) is a doppler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Address>,
    /// A file with one `host:port` a line; `#` begins a comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How often `dns` and `file` are read again, give or take a fifth; 5 s.
    #[serde(with = "duration_text")]
    pub refresh: Duration,
}

/// What a [`DopplerSet`] is read from, before it is known to say one thing.
#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    zone: Option<String>,
    addresses: Vec<Address>,
    dns: Option<Address>,
    file: Option<PathBuf>,
    #[serde(with = "duration_text")]
    refresh: Duration,
}

const REFRESH: Duration = Duration::from_secs(5);

impl Default for Entry {
    fn default() -> Self {
        Self { zone: None, addresses: Vec::new(), dns: None, file: None, refresh: REFRESH }
    }
}

impl Default for DopplerSet {
    fn default() -> Self {
        Self { zone: None, addresses: Vec::new(), dns: None, file: None, refresh: REFRESH }
    }
}

impl TryFrom<Entry> for DopplerSet {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, &'static str> {
        let Entry { zone, addresses, dns, file, refresh } = entry;
        let sources = usize::from(!addresses.is_empty()) + usize::from(dns.is_some()) + usize::from(file.is_some());
        if sources != 1 {
            return Err(
                "write exactly one of `addresses`, `dns` and `file` in each [[dopplers]] entry; use several entries for several",
            );
        }
        if zone.as_deref() == Some("") {
            return Err("`zone` is empty; name it, or leave it out");
        }
        Ok(Self { zone, addresses, dns, file, refresh })
    }
}

impl DopplerSet {
    /// Fixed addresses in no zone.
    pub fn of(addresses: impl IntoIterator<Item = impl Into<Address>>) -> Self {
        Self { addresses: addresses.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DopplersError {
    /// The file is missing or may not be read.
    #[error("file {path}: {source}; it must be a text file with one host:port a line", path = path.display())]
    Read {
        /// The path as configured.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A line is no address.
    #[error("file {path}, line {line}: {source}", path = path.display())]
    Line {
        /// The path as configured.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: AddressError,
    },
    /// Nothing but comments.
    #[error("file {path} names no doppler; write one host:port a line", path = path.display())]
    Empty {
        /// The path as configured.
        path: PathBuf,
    },
    /// The name cannot be looked up.
    #[error("name {name}: {source}")]
    LookUp {
        /// The name with its port.
        name: Address,
        /// What the resolver said.
        source: std::io::Error,
    },
}

/// One doppler of the live set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doppler {
    /// Where it listens.
    pub address: Address,
    /// The zone of the entry that named it.
    pub zone: Option<Arc<str>>,
}

/// The dopplers to use now. Cloning shares the set.
#[derive(Clone, Debug)]
pub struct Dopplers {
    current: watch::Receiver<Current>,
    shared: Arc<Shared>,
}

/// The set in both forms that are asked for, and what each entry last gave.
#[derive(Debug)]
struct Current {
    dopplers: Arc<[Doppler]>,
    addresses: Arc<[Address]>,
    found: Vec<Vec<Address>>,
}

#[derive(Debug)]
struct Shared {
    sets: Vec<DopplerSet>,
    source: watch::Sender<Current>,
    failures: AtomicU64,
}

impl Dopplers {
    /// The set that a configuration describes: every address of every entry once, in the order written, in the zone of the first entry
    /// that names it. Files are read here; names are not looked up before [`refresh`](Self::refresh).
    ///
    /// # Errors
    /// A file cannot be read, or a line of it is no address.
    pub fn new(sets: &[DopplerSet]) -> Result<Self, DopplersError> {
        let mut found = Vec::with_capacity(sets.len());
        for set in sets {
            found.push(match &set.file {
                Some(path) => read(path)?,
                None => set.addresses.clone(),
            });
        }
        let (source, current) = watch::channel(Current::merged(sets, found));
        let shared = Shared { sets: sets.to_vec(), source, failures: AtomicU64::new(0) };
        Ok(Self { current, shared: Arc::new(shared) })
    }

    /// A set that never changes; repeats are left out.
    pub fn fixed(addresses: impl IntoIterator<Item = Address>) -> Self {
        Self::new(&[DopplerSet::of(addresses)]).expect("addresses are not read from anywhere")
    }

    /// Starts to look up names, at once, and to read names and files again on their timers; on `tracker`, until `stop`.
    pub fn refresh(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        for (entry, set) in self.shared.sets.iter().enumerate() {
            if set.dns.is_some() || set.file.is_some() {
                let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
                tracker.spawn(async move { stop.run_until_cancelled(shared.keep(entry)).await });
            }
        }
    }

    /// The addresses now; empty when none is configured or no name has been looked up yet.
    pub fn current(&self) -> Arc<[Address]> {
        Arc::clone(&self.current.borrow().addresses)
    }

    /// The same with their zones.
    pub fn members(&self) -> Arc<[Doppler]> {
        Arc::clone(&self.current.borrow().dopplers)
    }

    /// True when no entry can ever bring an address.
    pub fn is_never(&self) -> bool {
        self.shared.sets.iter().all(|set| set.addresses.is_empty() && set.dns.is_none() && set.file.is_none())
    }

    /// Readings of names and files that gave an error or nothing, since the start.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Waits until the set differs from what this clone saw last, and returns it. A fixed set never does.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no change is missed.
    pub async fn changed(&mut self) -> Arc<[Address]> {
        self.current.changed().await.expect("the sender lives as long as this value");
        Arc::clone(&self.current.borrow_and_update().addresses)
    }
}

impl Shared {
    /// Reads one entry again and again.
    async fn keep(&self, entry: usize) {
        let set = &self.sets[entry];
        let mut jitter = Backoff::between(set.refresh, set.refresh, Backoff::random_seed());
        // Files were read when the set was made.
        let mut due = set.dns.is_some();
        let mut told = None;
        loop {
            if due {
                self.look(entry, &mut told).await;
            }
            due = true;
            // From four to six fifths.
            tokio::time::sleep(set.refresh.mul_f64(0.8) + jitter.next_wait().mul_f64(0.4)).await;
        }
    }

    /// Reads one entry once. `told` is the error that the log has shown, so that it shows each once.
    async fn look(&self, entry: usize, told: &mut Option<String>) {
        let set = &self.sets[entry];
        let outcome = match (&set.dns, &set.file) {
            (Some(name), _) => look_up(name).await,
            (None, Some(path)) => read(path),
            (None, None) => return,
        };
        match outcome {
            Ok(found) => {
                if told.take().is_some() {
                    info!(dopplers = found.len(), "The set of dopplers can be read again");
                }
                self.put(entry, found);
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    warn!(error = %text, "The set of dopplers cannot be read; the last one holds");
                    *told = Some(text);
                }
            }
        }
    }

    fn put(&self, entry: usize, found: Vec<Address>) {
        self.source.send_if_modified(|current| {
            let mut all = std::mem::take(&mut current.found);
            all[entry] = found;
            let before = std::mem::replace(current, Current::merged(&self.sets, all));
            let differs = before.dopplers != current.dopplers;
            if differs {
                let (dopplers, before) = (current.dopplers.len(), before.dopplers.len());
                info!(dopplers, before, "The set of dopplers has changed");
            }
            differs
        });
    }
}

impl Current {
    /// All entries together, each address once.
    fn merged(sets: &[DopplerSet], found: Vec<Vec<Address>>) -> Self {
        let mut dopplers: Vec<Doppler> = Vec::new();
        let mut seen = HashSet::new();
        for (set, addresses) in sets.iter().zip(&found) {
            let zone: Option<Arc<str>> = set.zone.as_deref().map(Into::into);
            let new = addresses.iter().filter(|address| seen.insert(*address));
            dopplers.extend(new.map(|address| Doppler { address: address.clone(), zone: zone.clone() }));
        }
        let addresses = dopplers.iter().map(|doppler| doppler.address.clone()).collect();
        Self { dopplers: dopplers.into(), addresses, found }
    }
}

/// The addresses of a name, in order, so that two answers of the same addresses are the same.
async fn look_up(name: &Address) -> Result<Vec<Address>, DopplersError> {
    let failed = |source| DopplersError::LookUp { name: name.clone(), source };
    let found = tokio::net::lookup_host((name.host(), name.port())).await.map_err(failed)?;
    let mut addresses: Vec<Address> = found.map(Address::from).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")));
    }
    Ok(bounded(addresses, name))
}

fn read(path: &Path) -> Result<Vec<Address>, DopplersError> {
    use std::io::Read;
    let failed = |source| DopplersError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    let mut addresses: Vec<Address> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        if !line.is_empty() {
            let parsed = line.parse();
            addresses.push(parsed.map_err(|source| DopplersError::Line {
                path: path.to_owned(),
                line: i + 1,
                source,
            })?);
        }
    }
    if addresses.is_empty() {
        return Err(DopplersError::Empty { path: path.to_owned() });
    }
    Ok(bounded(addresses, &path.display()))
}

fn bounded(mut addresses: Vec<Address>, of: &dyn std::fmt::Display) -> Vec<Address> {
    if addresses.len() > MAX_DOPPLERS {
        warn!(named = addresses.len(), used = MAX_DOPPLERS, from = %of, "Too many dopplers; the rest is left out");
        addresses.truncate(MAX_DOPPLERS);
    }
    addresses
}

#[cfg(test)]
mod tests;
