//! The drains of a process: each is made, changed and ended while the others run.
//!
//! What somebody wants enters, checked and with its files read ([`Prepared`]); tasks leave, three for each drain: its subscription, its
//! loop and the announcer of its losses. A drain that changes keeps its subscription, its ring and its numbers: nothing that waits is
//! lost, and what was not yet written goes where the new form says. A drain that is taken away delivers what it has, for as long as a
//! stop may take. Never waits: those who change drains are not held up by one that is away.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::{Reader, Writer};
use parking_lot::Mutex;
use telemetry::{QueueNumbers, Telemetry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::{error, info};
use transport::Dopplers;

use self::life::{Life, Post};
pub(crate) use self::prepared::{Form, Headers, PrepareError, Prepared};
use crate::config::{Buffer, DrainConfig};
use crate::disk::{self, Pump, View};
use crate::inlet::Inlet;
use crate::metrics::{DrainMetrics, Metrics};
use crate::notice::{Announcer, Losses};
use crate::select::Select;
use crate::server::Drained;
use crate::status::Status;
use crate::subscribe::{Channels, Queued, Subscription};
use crate::syslog::config::Scheme;
use crate::syslog::trust::{self, Watched};

mod form;
mod life;
mod prepared;

/// All drains. Clones share them.
#[derive(Clone)]
pub(crate) struct Drains(Arc<Shared>);

struct Shared {
    seat: Seat,
    /// Guards the drains by name. Held per change and per look.
    set: Mutex<BTreeMap<String, Running>>,
    /// Guards what the rings are asked for: those of drains that run, and what went through those of others. Held per change and scrape.
    rings: Arc<Mutex<Rings>>,
    /// Guards the certificates to look at, but for those that are being looked at.
    watched: Mutex<Vec<Watched>>,
    /// Guards the names of drains with a buffer on disk or a page that were taken away and still have it.
    leaving: Mutex<HashSet<String>>,
    outcome: Mutex<Outcome>,
    lives: TaskTracker,
}

/// What every drain needs of its process.
pub(crate) struct Seat {
    pub(crate) dopplers: Dopplers,
    pub(crate) channels: Arc<Channels>,
    pub(crate) agent: Channel,
    pub(crate) telemetry: Telemetry,
    pub(crate) metrics: Arc<Metrics>,
    /// Ends all drains.
    pub(crate) stop: CancellationToken,
    /// How long that may take.
    pub(crate) flush_timeout: Duration,
    /// Where buffers on disk are.
    pub(crate) state_dir: Option<PathBuf>,
    /// What they may take together.
    pub(crate) disk_bytes: u64,
}

/// Where a drain comes from. Only who made it may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration file.
    Config,
    /// Somebody who asked for it while we ran.
    Api,
    /// A binding of Cloud Foundry.
    Binding,
}

/// A drain as it is shown.
pub(crate) struct Shown {
    pub(crate) config: Arc<DrainConfig>,
    pub(crate) origin: Origin,
    pub(crate) status: Arc<Status>,
    /// Envelopes and bytes that wait in memory, and those on disk.
    pub(crate) in_memory: (usize, usize),
    pub(crate) on_disk: Option<(u64, u64)>,
    /// Where that is.
    pub(crate) dir: Option<PathBuf>,
    /// Why a buffer on disk is not used, if it is not.
    pub(crate) trouble: Option<String>,
}

/// Why a drain cannot be made, changed or taken away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("{}", match .0 {
        Origin::Config => "this drain stands in the configuration file; change it there",
        Origin::Api => "this drain was added while the adapters ran; take it away first",
        Origin::Binding => "this drain is a binding of Cloud Foundry; unbind the service there",
    })]
    NotYours(Origin),
    #[error("a drain of this name still delivers what it has; try again when it has ended")]
    Leaving,
    #[error("a drain that serves a page, or is to, does not change: take it away and add it again")]
    Page,
    #[error(
        "a drain keeps its buffer: take it away and add it again to move it between memory and disk, or to change disk.bytes"
    )]
    OtherBuffer,
    #[error("the buffers of all drains on disk would take {0} bytes together, and adapters.disk_bytes is {1}")]
    NoRoom(u64, u64),
    #[error("this drain cannot buffer on disk: {0}")]
    Disk(String),
}

struct Running {
    config: Arc<DrainConfig>,
    /// Of a binding, which cannot be prepared anew from its configuration.
    prepared: Option<Box<Prepared>>,
    origin: Origin,
    status: Arc<Status>,
    ring: Writer<Queued>,
    wanted: watch::Sender<Arc<Select>>,
    losses: Arc<Losses>,
    post: Arc<Post>,
    view: Option<View>,
    trouble: Option<String>,
    /// Ends the subscription, and then the drain.
    soft: CancellationToken,
}

#[derive(Default)]
struct Rings {
    open: BTreeMap<u64, (Writer<Queued>, Option<View>)>,
    next: u64,
    past: QueueNumbers,
    past_disk: QueueNumbers,
}

/// What became of all drains that have ended.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    drained: Drained,
    panicked: bool,
}

impl Drains {
    /// None yet.
    pub(crate) fn new(seat: Seat) -> Self {
        let lives = TaskTracker::new();
        let shared = Arc::new(Shared {
            seat,
            set: Mutex::default(),
            rings: Arc::default(),
            watched: Mutex::default(),
            leaving: Mutex::default(),
            outcome: Mutex::default(),
            lives,
        });
        let (rings, metrics) = (Arc::clone(&shared.rings), Arc::clone(&shared.seat.metrics));
        shared.seat.telemetry.before_render(move || {
            let (memory, disk) = rings.lock().sums();
            metrics.queue.report(memory);
            metrics.disk.report(disk);
        });
        Self(shared)
    }

    /// Whether [`Self::put`] would take it.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) fn check(&self, config: &DrainConfig, origin: Origin) -> Result<(), ChangeError> {
        self.check_in(&self.0.set.lock(), config, origin)
    }

    fn check_in(
        &self,
        set: &BTreeMap<String, Running>,
        config: &DrainConfig,
        origin: Origin,
    ) -> Result<(), ChangeError> {
        if let Some(running) = set.get(&config.name) {
            let has_page = |config: &DrainConfig| config.url.scheme == Scheme::Prometheus;
            let same_buffer = running.config.buffer == config.buffer && running.config.disk == config.disk;
            return match same_buffer {
                _ if running.origin != origin => Err(ChangeError::NotYours(running.origin)),
                _ if has_page(config) || has_page(&running.config) => Err(ChangeError::Page),
                true => Ok(()),
                false => Err(ChangeError::OtherBuffer),
            };
        }
        if self.0.leaving.lock().contains(&config.name) {
            return Err(ChangeError::Leaving);
        }
        let on_disk =
            set.values().map(|running| running.config.disk_bytes()).fold(config.disk_bytes(), u64::saturating_add);
        if config.disk_bytes() == 0 {
            Ok(())
        } else if on_disk > self.0.seat.disk_bytes {
            Err(ChangeError::NoRoom(on_disk, self.0.seat.disk_bytes))
        } else if self.0.seat.state_dir.is_none() {
            Err(ChangeError::Disk("adapters.state_dir names no directory".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Makes a drain, or gives the one of this name and origin another form. Returns whether it is new. Must be called within a runtime.
    /// Blocks on the disk for a new drain with a buffer there; where that cannot be used, the drain is one in memory and says so.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) fn put(&self, prepared: Prepared, origin: Origin) -> Result<bool, ChangeError> {
        let name = prepared.config.name.clone();
        prepared.remark();
        {
            let mut set = self.0.set.lock();
            self.check_in(&set, &prepared.config, origin)?;
            if let Some(running) = set.get_mut(&name) {
                info!(drain = %name, url = %prepared.config.url, "Drain changes");
                self.watch_files(&prepared, &running.soft);
                running.change(prepared);
                return Ok(false);
            }
        }
        // Not under the lock: opening a buffer waits for the disk. Who makes drains of one origin makes them one after the other.
        info!(drain = %name, url = %prepared.config.url, "Drain starts");
        let running = self.start(prepared, origin);
        self.0.set.lock().insert(name, running);
        Ok(true)
    }

    /// Whether a drain of this name is there, and whose it is.
    pub(crate) fn origin(&self, name: &str) -> Option<Origin> {
        self.0.set.lock().get(name).map(|running| running.origin)
    }

    /// What a drain of a binding was made of.
    pub(crate) fn bound(&self, name: &str) -> Option<Prepared> {
        self.0.set.lock().get(name)?.prepared.as_deref().and_then(Prepared::again)
    }

    /// Takes a drain away: it receives no more, and delivers what it has. False when there is none.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) fn remove(&self, name: &str, origin: Origin) -> Result<bool, ChangeError> {
        let mut set = self.0.set.lock();
        match set.get(name) {
            None => return Ok(false),
            Some(running) if running.origin != origin => return Err(ChangeError::NotYours(running.origin)),
            Some(running) => {
                if running.config.buffer == Buffer::Disk || running.config.url.scheme == Scheme::Prometheus {
                    self.0.leaving.lock().insert(name.to_owned());
                }
                running.soft.cancel();
            }
        }
        set.remove(name);
        info!(drain = name, "Drain ends");
        Ok(true)
    }

    /// Tells of buffers on disk that belong to no drain. Blocks.
    pub(crate) fn tell_of_other_buffers(&self) {
        if let Some(dir) = &self.0.seat.state_dir {
            let names: Vec<String> = {
                let set = self.0.set.lock();
                set.values()
                    .filter(|running| running.view.is_some())
                    .map(|running| running.config.name.clone())
                    .collect()
            };
            disk::tell_of_others(dir, names.iter().map(String::as_str));
        }
    }

    /// All drains, by name.
    pub(crate) fn list(&self) -> Vec<Shown> {
        self.0.set.lock().values().map(Running::show).collect()
    }

    /// One drain.
    pub(crate) fn get(&self, name: &str) -> Option<Shown> {
        self.0.set.lock().get(name).map(Running::show)
    }

    /// Looks at certificate files until `stop`.
    pub(crate) async fn watch_certificates(&self, tracker: &TaskTracker, stop: CancellationToken) {
        trust::watch(&self.0.watched, tracker, stop).await;
    }

    /// Waits until all have ended, after the stop.
    ///
    /// # Errors
    /// The task of one panicked.
    pub(crate) async fn ended(&self) -> Result<Drained, ()> {
        self.0.lives.close();
        self.0.lives.wait().await;
        let Outcome { drained, panicked } = *self.0.outcome.lock();
        if panicked { Err(()) } else { Ok(drained) }
    }

    fn start(&self, prepared: Prepared, origin: Origin) -> Running {
        let shared = &self.0;
        let seat = &shared.seat;
        let name = prepared.config.name.clone();
        let metrics = seat.metrics.drain(&seat.telemetry, &name);
        let soft = seat.stop.child_token();
        self.watch_files(&prepared, &soft);
        let (ring, reader) = diode::fair::channel(prepared.config.bounds());
        let (wanted, asked) = watch::channel(Arc::clone(&prepared.select));
        let losses = Arc::new(Losses::new(prepared.config.announces(), prepared.config.url.anonymised()));
        let subscription = Subscription {
            drain: name,
            wanted: asked,
            ring: ring.clone(),
            losses: Arc::clone(&losses),
            metrics: metrics.clone(),
        };
        let told = CancellationToken::new();
        let (inlet, pump, view, trouble) = self.inlet(&prepared.config, reader, &metrics, &losses);
        let announcer = Announcer { losses: Arc::clone(&losses), agent: seat.agent.clone(), metrics: metrics.clone() };
        let post = Arc::new(Post::default());
        let running = Running {
            config: Arc::clone(&prepared.config),
            prepared: (origin == Origin::Binding).then(|| prepared.again().map(Box::new)).flatten(),
            origin,
            status: Arc::clone(metrics.status()),
            ring: ring.clone(),
            wanted,
            losses: Arc::clone(&losses),
            post: Arc::clone(&post),
            view: view.clone(),
            trouble,
            soft: soft.clone(),
        };
        let life = Life {
            prepared,
            inlet,
            buffer: pump.map(|pump| shared.lives.spawn(pump.run())).zip(view.clone()),
            losses,
            metrics,
            post,
            soft: soft.clone(),
            told: told.clone(),
            flush_timeout: seat.flush_timeout,
        };
        let id = shared.rings.lock().open(ring, view);
        shared.lives.spawn(subscription.run(seat.dopplers.clone(), Arc::clone(&seat.channels), soft));
        shared.lives.spawn(announcer.run(told));
        shared.lives.spawn(life.run(Arc::clone(shared), id));
        running
    }

    /// What a drain reads from: its ring, or its disk with what fills it.
    fn inlet(
        &self,
        config: &DrainConfig,
        ring: Reader<Queued>,
        metrics: &DrainMetrics,
        losses: &Arc<Losses>,
    ) -> (Inlet, Option<Pump>, Option<View>, Option<String>) {
        let seat = &self.0.seat;
        let Some(state_dir) = seat.state_dir.as_deref().filter(|_| config.buffer == Buffer::Disk) else {
            return (Inlet::ring(ring), None, None, None);
        };
        let wanted = disk::Wanted {
            drain: &config.name,
            state_dir,
            max_bytes: config.disk.bytes.get(),
            keep_free: config.disk.keep_free_percent,
            ring,
            metrics: metrics.clone(),
            losses: Arc::clone(losses),
            tracker: self.0.lives.clone(),
            closing: seat.stop.clone(),
        };
        match disk::open(wanted) {
            Ok(disk::Buffer { pump, outlet, view }) => (Inlet::disk(outlet), Some(pump), Some(view), None),
            Err((error, ring)) => {
                error!(drain = %config.name, error, "Drain cannot use its disk and buffers in memory");
                (Inlet::ring(ring), None, None, Some(error))
            }
        }
    }

    /// Looks at the certificate files of a drain for as long as it runs in this form.
    fn watch_files(&self, prepared: &Prepared, soft: &CancellationToken) {
        let Some(trust) = prepared.trust.as_ref().filter(|trust| trust.has_files()) else { return };
        let shows = prepared.config.tls.as_ref().is_some_and(|tls| tls.cert.is_some());
        let ends = shows.then(|| crate::metrics::certificate_end(&self.0.seat.telemetry, &prepared.config.name));
        let watched = Watched::new(prepared.config.name.clone(), trust, ends, soft.clone());
        let mut all = self.0.watched.lock();
        all.retain(|other| !other.is_of(&prepared.config.name));
        all.push(watched);
    }
}

impl Running {
    fn change(&mut self, prepared: Prepared) {
        self.config = Arc::clone(&prepared.config);
        self.prepared = self.prepared.take().and_then(|_| prepared.again().map(Box::new));
        self.ring.set_bounds(prepared.config.bounds());
        self.losses.describe(prepared.config.announces(), prepared.config.url.anonymised());
        self.wanted.send_replace(Arc::clone(&prepared.select));
        self.post.put(prepared);
    }

    fn show(&self) -> Shown {
        let counters = self.ring.counters();
        Shown {
            config: Arc::clone(&self.config),
            origin: self.origin,
            status: Arc::clone(&self.status),
            in_memory: (counters.envelopes, counters.bytes),
            on_disk: self.view.as_ref().map(View::depth),
            dir: self.view.as_ref().map(|view| view.dir.clone()),
            trouble: self.view.as_ref().map_or_else(|| self.trouble.clone(), View::trouble),
        }
    }
}

impl Rings {
    fn open(&mut self, ring: Writer<Queued>, view: Option<View>) -> u64 {
        self.next += 1;
        self.open.insert(self.next, (ring, view));
        self.next
    }

    /// Keeps what went through; of a buffer whose files are gone, what was in it counts as evicted.
    fn close(&mut self, id: u64, removed: bool) {
        if let Some((ring, view)) = self.open.remove(&id) {
            self.past += numbers(&ring);
            if let Some(view) = view {
                let mut numbers = view.numbers();
                if removed {
                    numbers.evicted += numbers.envelopes as u64;
                    (numbers.envelopes, numbers.bytes) = (0, 0);
                }
                self.past_disk += numbers;
            }
        }
    }

    /// Of all rings, and of all buffers on disk.
    fn sums(&self) -> (QueueNumbers, QueueNumbers) {
        self.open.values().fold((self.past, self.past_disk), |(mut memory, mut disk), (ring, view)| {
            memory += numbers(ring);
            if let Some(view) = view {
                disk += view.numbers();
            }
            (memory, disk)
        })
    }
}

fn numbers(ring: &Writer<Queued>) -> QueueNumbers {
    let counters = ring.counters();
    QueueNumbers {
        offered: counters.offered,
        accepted: counters.accepted,
        rejected: counters.rejected,
        taken: counters.taken,
        evicted: counters.evicted,
        envelopes: counters.envelopes,
        bytes: counters.bytes,
    }
}
