//! To consumers beside the agent, each of them everything that it takes, as the original's forwarder does (contract: agents §3).
//!
//! ```text
//! intake ─► tagged ─┬─► the ring ─► dopplers
//!                   └─► a ring per destination ─► its stream
//! ```
//!
//! What enters: parts of batches, by reference. What leaves: batches over `Ingress/BatchSender`, at most once. A destination that is slow or
//! away loses its own oldest envelopes, counted, and holds up nobody. Destinations come from the configuration and from files, looked
//! at again as time goes by.

mod config;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use diode::fair;
use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use proto::raw::Selection;
use telemetry::{QueueMetrics, QueueNumbers, Telemetry};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info, info_span, warn};
use transport::{Address, ChannelOptions};

pub use config::{ForwardConfig, PortFile, PortFileError};

use crate::metrics::numbers;

/// Bytes of a file that names a port.
const MAX_FILE: u64 = 64 * 1024;

/// What forwarding counts.
#[derive(Clone, Debug)]
pub(crate) struct ForwardMetrics {
    queue: QueueMetrics,
    destinations: Gauge,
    unserved: Gauge,
    sent: Counter,
    failures: Counter,
}

impl ForwardMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        Self {
            queue: QueueMetrics::register(telemetry, "forward"),
            destinations: telemetry.gauge(
                "hydrant_forward_destinations",
                "Consumers that everything is forwarded to.",
                &[],
            ),
            unserved: telemetry.gauge(
                "hydrant_forward_unserved_files",
                "Files that match and name no consumer that is served.",
                &[],
            ),
            sent: telemetry.counter(
                "hydrant_forward_sent_envelopes_total",
                "Envelopes written to consumers beside the agent.",
                &[],
            ),
            failures: telemetry.counter(
                "hydrant_forward_failures_total",
                "Streams to consumers beside the agent that failed, and attempts to open one.",
                &[],
            ),
        }
    }
}

/// The rings of all destinations. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ForwardConfig,
    options: ChannelOptions,
    metrics: ForwardMetrics,
    /// What is forwarded to now.
    rings: ArcSwap<Vec<(Address, fair::Writer<Selection>)>>,
    /// Guards who has a link, at a change and at a look at the numbers: never as envelopes pass.
    links: Mutex<Links>,
}

/// Links, those included that send what is left to destinations that have gone.
#[derive(Debug, Default)]
struct Links {
    rings: Vec<(u64, fair::Writer<Selection>)>,
    started: u64,
    /// What links counted that have ended.
    ended: QueueNumbers,
    /// No more are started.
    is_closed: bool,
}

impl Forward {
    /// Nothing where nothing is to be forwarded to.
    pub(crate) fn new(config: &ForwardConfig, options: ChannelOptions, telemetry: &Telemetry) -> Option<Self> {
        let metrics = ForwardMetrics::register(telemetry);
        if !config.is_on() {
            return None;
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            options,
            metrics,
            rings: ArcSwap::default(),
            links: Mutex::default(),
        });
        let forward = Self { shared };
        let seen = forward.clone();
        telemetry.before_render(move || seen.shared.metrics.queue.report(seen.numbers()));
        Some(forward)
    }

    /// Puts a part of a batch into every destination's ring; false if there was none that took it. Never waits; costs a reference count each.
    pub(crate) fn offer(&self, selection: &Selection) -> bool {
        let rings = self.shared.rings.load();
        // A ring is closed at the stop: what comes later is not forwarded, and counted as rejected.
        rings.iter().fold(false, |taken, (_, ring)| ring.push(selection.clone(), |_, _| {}).is_ok() || taken)
    }

    fn numbers(&self) -> QueueNumbers {
        let links = self.shared.links.lock();
        let mut sum = links.ended;
        links.rings.iter().for_each(|(_, ring)| sum += numbers(ring.counters()));
        sum
    }

    /// No more will come: destinations are sent what is in their rings.
    pub(crate) fn close(&self) {
        let mut links = self.shared.links.lock();
        links.is_closed = true;
        links.rings.iter().for_each(|(_, ring)| ring.close());
    }

    /// Starts those of the configuration, before anything is taken.
    pub(crate) fn start(&self, tasks: &TaskTracker, cut: &CancellationToken) {
        self.follow_to(&self.shared.config.to.iter().cloned().collect(), tasks, cut);
    }

    /// Follows the destinations until `stop`, then leaves them to be sent the rest. Each has a task on `tasks`, until `cut` at most.
    pub(crate) async fn follow(self, tasks: TaskTracker, stop: CancellationToken, cut: CancellationToken) {
        let mut told: HashMap<PathBuf, String> = HashMap::new();
        let mut tick = interval(self.shared.config.refresh_interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let patterns = self.shared.config.ports_glob.clone();
            let found =
                tokio::task::spawn_blocking(move || patterns.map(|pattern| files(&pattern)).unwrap_or_default());
            // A panic has been told.
            let Some(found) = stop.run_until_cancelled(found).await else { return };
            let Ok((mut wanted, unserved)) = found else { continue };
            wanted.extend(self.shared.config.to.iter().cloned());
            for (path, why) in &unserved {
                if told.get(path) != Some(why) {
                    warn!(path = %path.display(), why, "File names no consumer that is served");
                }
            }
            self.shared.metrics.unserved.set(f64::from(u32::try_from(unserved.len()).unwrap_or(u32::MAX)));
            told = unserved;
            self.follow_to(&wanted, &tasks, &cut);
            if self.shared.config.ports_glob.is_none() {
                return;
            }
        }
    }

    /// Starts what is new and ends what has gone, once it has been sent what it is to have.
    fn follow_to(&self, wanted: &BTreeSet<Address>, tasks: &TaskTracker, cut: &CancellationToken) {
        let mut links = self.shared.links.lock();
        if links.is_closed {
            return;
        }
        let now = self.shared.rings.load_full();
        let mut next: Vec<_> = now.iter().filter(|(address, _)| wanted.contains(address)).cloned().collect();
        for address in wanted.iter().filter(|address| now.iter().all(|(known, _)| known != *address)) {
            info!(%address, "Forwarding to a consumer");
            let (writer, reader) = fair::channel(self.shared.config.bounds());
            let ring = (writer.clone(), reader);
            let link = link::Link::new(address.clone(), &self.shared.options, ring, self.shared.metrics.clone());
            links.started += 1;
            let (id, forward, cut) = (links.started, self.clone(), cut.clone());
            let run = async move {
                link.run(cut).await;
                forward.ended(id);
            };
            tasks.spawn(run.instrument(info_span!("forward", %address)));
            links.rings.push((id, writer.clone()));
            next.push((address.clone(), writer));
        }
        self.shared.metrics.destinations.set(next.len() as f64);
        self.shared.rings.store(Arc::new(next));
        for (address, ring) in now.iter().filter(|(address, _)| !wanted.contains(address)) {
            info!(%address, "Consumer's file has gone");
            ring.close();
        }
    }

    /// Keeps what a link counted.
    fn ended(&self, id: u64) {
        let mut links = self.shared.links.lock();
        if let Some(at) = links.rings.iter().position(|(known, _)| *known == id) {
            let (_, ring) = links.rings.swap_remove(at);
            links.ended += QueueNumbers { envelopes: 0, bytes: 0, ..numbers(ring.counters()) };
        }
    }
}

impl ForwardMetrics {
    fn sent(&self, envelopes: usize) {
        self.sent.increment(envelopes as u64);
    }

    fn failed(&self) {
        self.failures.increment(1);
    }
}

/// The addresses that files name, and what is wrong with the others.
fn files(pattern: &str) -> (BTreeSet<Address>, HashMap<PathBuf, String>) {
    let (mut found, mut unserved) = (BTreeSet::new(), HashMap::new());
    for path in glob::glob(pattern).into_iter().flatten().filter_map(Result::ok) {
        match PortFile::read(&path, MAX_FILE) {
            Ok(file) => drop(found.insert(file.address())),
            Err(error) => drop(unserved.insert(path, error.to_string())),
        }
    }
    (found, unserved)
}
