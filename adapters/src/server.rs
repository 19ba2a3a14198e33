//! Wires the stages: the drains of the file and those added earlier, the port that shows and changes them, and their end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use telemetry::{Admin, Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;
use transport::{Address, ChannelOptions, ClientTlsError, Dopplers, DopplersError, Identity, TlsError, TlsFiles};

use crate::api::{self, Api};
use crate::binding_cache::{BindingCache, BindingCacheError};
use crate::bindings::{Bindings, BindingsError};
use crate::config::{Buffer, Config, ConfigError};
use crate::drains::{Drains, Origin, PrepareError, Prepared, Seat};
use crate::metrics::{BindingCacheMetrics, BindingMetrics, Metrics};
use crate::store::{Store, StoreError};
use crate::subscribe::Channels;

/// Adapters whose ports are bound; nothing runs yet.
#[derive(Debug)]
pub struct Server {
    admin: Admin,
    readiness: Readiness,
    telemetry: Telemetry,
    metrics: Arc<Metrics>,
    drains: Vec<Prepared>,
    store: Option<Store>,
    bindings: Option<Bindings>,
    binding_cache: Option<BindingCache>,
    state_dir: Option<PathBuf>,
    disk_bytes: u64,
    dopplers: Dopplers,
    channels: Channels,
    agent: Address,
    agent_options: ChannelOptions,
    /// Certificates to look at for new files, by their keys.
    identities: Vec<(&'static str, Identity)>,
    flush_timeout: Duration,
}

/// Running adapters.
pub type Handle = transport::Handle<Addrs, Drained, ServeError>;

/// Where running adapters listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// `/metrics`, `/live` and `/ready`.
    pub admin: SocketAddr,
    /// The binding cache, if there is one.
    pub binding_cache: Option<SocketAddr>,
}

/// What became of the envelopes that were in the adapters when they were told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Envelopes written to their destination after that.
    pub flushed: u64,
    /// Envelopes dropped, counted as `shutdown_deadline`.
    pub dropped: u64,
}

/// Why adapters cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The drains do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A set of dopplers cannot be read.
    #[error("adapters.dopplers: {0}")]
    Dopplers(DopplersError),
    /// The admin port cannot be bound.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// The certificates for one kind of peer cannot be used.
    #[error("{key}: {source}")]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with which file.
        source: TlsError,
    },
    /// The directory for added drains cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The binding cache cannot be served.
    #[error(transparent)]
    BindingCache(#[from] BindingCacheError),
    /// Bindings cannot be read.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
    /// The certificates of one drain cannot be used.
    #[error("adapters.drains: tls of the drain \"{drain}\": {source}")]
    DrainTls {
        /// The drain's name.
        drain: String,
        /// What is wrong with which file.
        source: Box<ClientTlsError>,
    },
}

/// Why running adapters failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The task of a drain panicked: a defect of ours. The other drains were drained.
    #[error("a drain ended unexpectedly")]
    DrainPanicked,
}

impl Config {
    /// Checks the drains, loads certificates, binds the admin port and registers metrics. Nothing is spawned. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// Drains that do not go together, unusable certificates, a busy port.
    #[expect(clippy::unused_async, reason = "every component binds with the same signature")]
    pub async fn bind(self, telemetry: &Telemetry) -> Result<Server, BindError> {
        self.check()?;
        let mut identities = Vec::new();
        let mut options = |key, certificate, files: Option<&TlsFiles>, name| -> Result<ChannelOptions, BindError> {
            let Some(files) = files else { return Ok(ChannelOptions::default()) };
            let identity = Identity::load(files).map_err(|source| BindError::Tls { key, source })?;
            telemetry.watch_certificate(certificate, identity.clone());
            identities.push((key, identity.clone()));
            Ok(ChannelOptions::tls(identity, name))
        };
        let to_dopplers = options("adapters.doppler_tls", "adapters_doppler", self.doppler_tls.as_ref(), "doppler")?;
        let agent_options = options("adapters.agent_tls", "adapters_agent", self.agent_tls.as_ref(), "metron")?;
        let channels = Channels::new(to_dopplers.within(&self.doppler_limits));
        let dopplers = Dopplers::new(&self.dopplers).map_err(BindError::Dopplers)?;
        telemetry.watch_dopplers(&dopplers);
        let readiness = Readiness::default();
        let admin = self.admin.bind("adapters.admin.listen", telemetry, &readiness)?;
        let metrics = Metrics::register(telemetry);
        if let Some(drain) = self.drains.iter().find(|drain| drain.buffer == Buffer::Disk)
            && self.state_dir.is_none()
        {
            return Err(ConfigError::NoDirectory(drain.name.clone()).into());
        }
        let drains = self.drains.into_iter().map(|drain| Prepared::new(drain, telemetry));
        let drains = drains.collect::<Result<_, _>>().map_err(BindError::prepare)?;
        let binding_metrics = BindingMetrics::register(telemetry);
        let bindings = self.bindings.map(|bindings| Bindings::new(bindings, telemetry, binding_metrics)).transpose()?;
        let cache_metrics = BindingCacheMetrics::register(telemetry);
        let cache = self.binding_cache.map(|cache| BindingCache::bind(cache, telemetry, cache_metrics)).transpose()?;
        let (binding_cache, identity) = cache.unzip();
        if let Some(identity) = identity.flatten() {
            telemetry.watch_certificate("adapters_binding_cache", identity.clone());
            identities.push(("adapters.binding_cache.tls", identity));
        }
        let store = self.state_dir.as_deref().map(Store::open).transpose()?;
        Ok(Server {
            admin,
            readiness,
            telemetry: telemetry.clone(),
            metrics,
            drains,
            store,
            bindings,
            binding_cache,
            state_dir: self.state_dir,
            disk_bytes: self.disk_bytes,
            dopplers,
            channels,
            agent: self.agent,
            agent_options,
            identities,
            flush_timeout: self.flush_timeout,
        })
    }
}

impl BindError {
    fn prepare(error: PrepareError) -> Self {
        match error {
            PrepareError::Config(error) => Self::Config(error),
            PrepareError::Tls { drain, source } => Self::DrainTls { drain, source },
            PrepareError::Page(error) => Self::Listen(error),
        }
    }
}

impl Server {
    /// Where it listens.
    pub fn addrs(&self) -> Addrs {
        Addrs { admin: self.admin.addr(), binding_cache: self.binding_cache.as_ref().map(BindingCache::addr) }
    }

    /// Runs until `stop`, then delivers what waits in the drains, for at most the configured time.
    ///
    /// A destination that is away gets three more attempts; what it does not take is dropped and counted.
    ///
    /// # Errors
    /// A drain panicked.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let tracker = TaskTracker::new();
        let quit = CancellationToken::new();
        let latch = self.readiness.latch("drains");
        for (key, identity) in &self.identities {
            identity.watch(key, &tracker, quit.clone());
        }
        self.dopplers.refresh(&tracker, &quit);
        let agent = transport::channel(&self.agent, &self.agent_options);
        let drains = Drains::new(Seat {
            dopplers: self.dopplers,
            channels: Arc::new(self.channels),
            agent: agent.clone(),
            telemetry: self.telemetry.clone(),
            metrics: self.metrics,
            stop: stop.clone(),
            flush_timeout: self.flush_timeout,
            state_dir: self.state_dir,
            disk_bytes: self.disk_bytes,
        });
        // Reading files and buffers blocks.
        let (of_file, starting, telemetry) = (self.drains, drains.clone(), self.telemetry.clone());
        let start = move || {
            for prepared in of_file {
                let name = prepared.config.name.clone();
                if let Err(error) = starting.put(prepared, Origin::Config) {
                    error!(drain = name, %error, "Drain does not run");
                }
            }
            let store = self.store.inspect(|store| restore(store, &starting, &telemetry));
            starting.tell_of_other_buffers();
            store
        };
        let store = tracker.spawn_blocking(start).await.map_err(|_| ServeError::DrainPanicked)?;
        let routes = match self.admin.addr().ip().is_loopback() {
            true => Api::new(drains.clone(), store, self.telemetry).routes(),
            false => api::refusing(),
        };
        let (admin, connections, until) = (self.admin.with(routes), tracker.clone(), quit.clone());
        tracker.spawn(async move { admin.serve(&connections, until).await });
        let (watching, blocking, until) = (drains.clone(), tracker.clone(), quit.clone());
        tracker.spawn(async move { watching.watch_certificates(&blocking, until).await });
        if let Some(cache) = self.binding_cache {
            tracker.spawn(cache.run(tracker.clone(), stop.clone()));
        }
        if let Some(bindings) = self.bindings {
            tracker.spawn(bindings.run(drains.clone(), agent, tracker.clone(), stop.clone()));
        }
        latch.ready();

        stop.cancelled().await;
        self.readiness.stopping();
        let outcome = drains.ended().await.map_err(|()| ServeError::DrainPanicked);
        quit.cancel();
        tracker.close();
        tracker.wait().await;
        outcome
    }

    /// Ready once it serves, and not ready from the moment it is told to stop.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs in a task of its own until the handle is told to stop, or dropped.
    pub fn spawn(self) -> Handle {
        Handle::spawn(self.addrs(), |stop| self.serve(stop))
    }
}

/// Starts the drains that an earlier run was asked for. One that cannot run is told of; the others run.
fn restore(store: &Store, drains: &Drains, telemetry: &Telemetry) {
    for written in store.drains() {
        let name = written.get("name").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let prepared =
            api::read(&written).and_then(|config| Prepared::new(config, telemetry).map_err(|error| error.to_string()));
        let error = match prepared {
            Ok(prepared) => match drains.put(prepared, Origin::Api) {
                Ok(_) => continue,
                Err(error) => error.to_string(),
            },
            Err(error) => error,
        };
        error!(drain = name, error, "A drain that was added earlier does not run; add it again, or take it away");
    }
}
