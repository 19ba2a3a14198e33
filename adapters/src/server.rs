//! Wires the stages: for each drain a subscription, a ring, an encoder with its connection, and an announcer of what it lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::{Bounds, Writer};
use telemetry::{Admin, QueueNumbers, Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use transport::{
    Address, Backoff, ChannelOptions, ClientTlsError, Dopplers, DopplersError, Identity, TlsError, TlsFiles,
};

use crate::config::{Config, ConfigError, DrainConfig, DrainTls};
use crate::metrics::{DrainMetrics, Metrics};
use crate::notice::{Announcer, Losses};
use crate::retry::Retry;
use crate::subscribe::{self, Channels, Queued, Subscription};
use crate::syslog::drain::{Drain, Parts};
use crate::syslog::encode::{Encoder, Style};
use crate::syslog::trust::{self, Trust, Watched};

/// Adapters whose ports are bound; nothing runs yet.
#[derive(Debug)]
pub struct Server {
    admin: Admin,
    readiness: Readiness,
    drains: Vec<Prepared>,
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

/// One drain and its ring.
#[derive(Debug)]
struct Prepared {
    config: DrainConfig,
    style: Style,
    trust: Option<Trust>,
    writer: Writer<Queued>,
    reader: diode::fair::Reader<Queued>,
    metrics: DrainMetrics,
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
        let drains = self.drains.into_iter().map(|drain| Prepared::new(drain, &metrics, telemetry));
        let drains: Vec<_> = drains.collect::<Result<_, _>>()?;
        watch_rings(telemetry, &metrics, &drains);
        Ok(Server {
            admin,
            readiness,
            drains,
            dopplers,
            channels,
            agent: self.agent,
            agent_options,
            identities,
            flush_timeout: self.flush_timeout,
        })
    }
}

impl Prepared {
    fn new(config: DrainConfig, metrics: &Metrics, telemetry: &Telemetry) -> Result<Self, BindError> {
        let (style, trust) = (config.style()?, trust_of(&config)?);
        let bounds = Bounds { envelopes: config.ring.envelopes, bytes: config.ring.bytes };
        let (writer, reader) = diode::fair::channel(bounds);
        let metrics = metrics.drain(telemetry, &config.name);
        if let Some(trust) = &trust
            && config.tls.as_ref().is_some_and(|tls| tls.cert.is_some())
        {
            crate::metrics::watch_certificate(telemetry, &config.name, trust.tls().clone());
        }
        if config.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            telemetry.insecure_mode("adapters.drains.tls.insecure_skip_verify");
        }
        Ok(Self { config, style, trust, writer, reader, metrics })
    }
}

/// Reads what a drain over TLS needs, from its own files.
fn trust_of(config: &DrainConfig) -> Result<Option<Trust>, BindError> {
    if !config.url.scheme.is_tls() {
        return Ok(None);
    }
    let name = config.server_name()?;
    let loaded = match &config.tls {
        Some(tls) => Trust::load(tls, name),
        None => Trust::load(&DrainTls::default(), name),
    };
    loaded.map(Some).map_err(|source| BindError::DrainTls { drain: config.name.clone(), source: Box::new(source) })
}

/// Reports what all rings together hold whenever somebody asks.
fn watch_rings(telemetry: &Telemetry, metrics: &Metrics, drains: &[Prepared]) {
    let rings: Vec<Writer<Queued>> = drains.iter().map(|drain| drain.writer.clone()).collect();
    let queue = metrics.queue.clone();
    telemetry.before_render(move || {
        let mut sum = QueueNumbers::default();
        for counters in rings.iter().map(Writer::counters) {
            sum += QueueNumbers {
                offered: counters.offered,
                accepted: counters.accepted,
                rejected: counters.rejected,
                taken: counters.taken,
                evicted: counters.evicted,
                envelopes: counters.envelopes,
                bytes: counters.bytes,
            };
        }
        queue.report(sum);
    });
}

impl Server {
    /// Where it listens.
    pub fn addrs(&self) -> Addrs {
        Addrs { admin: self.admin.addr() }
    }

    /// Runs until `stop`, then delivers what waits in the drains, for at most the configured time.
    ///
    /// A destination that is away gets three more attempts; what it does not take is dropped and counted.
    ///
    /// # Errors
    /// A drain panicked.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let tracker = TaskTracker::new();
        let (hard, told, quit) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let latch = self.readiness.latch("drains");
        let (admin, connections, until) = (self.admin, tracker.clone(), quit.clone());
        tracker.spawn(async move { admin.serve(&connections, until).await });
        for (key, identity) in &self.identities {
            identity.watch(key, &tracker, quit.clone());
        }

        self.dopplers.refresh(&tracker, &quit);
        let channels = Arc::new(self.channels);
        let agent = transport::channel(&self.agent, &self.agent_options);
        let (mut running, mut watched) = (Vec::new(), Vec::new());
        for Prepared { config, style, trust, writer, reader, metrics } in self.drains {
            remark(&config);
            let losses = Arc::new(Losses::new(config.announces()));
            watched.extend(trust.as_ref().map(|trust| Watched::new(config.name.clone(), trust)));
            let options = &config.url.options;
            let (name, url) = (config.name, config.url.anonymised());
            let request = subscribe::request(&name, &config.sources, options.kinds);
            let subscription = Subscription {
                drain: name.clone(),
                request,
                ring: writer,
                losses: Arc::clone(&losses),
                metrics: metrics.clone(),
            };
            let announcer = Announcer {
                losses: Arc::clone(&losses),
                url: url.clone(),
                agent: agent.clone(),
                metrics: metrics.clone(),
            };
            let drain = Drain::new(
                Parts {
                    name,
                    url,
                    destination: config.url.clone(),
                    trust,
                    ring: reader,
                    encoder: Encoder::new(options, &config.hostname, config.metadata, style),
                    resend: config.resend,
                    retry: Retry::new(config.retry, Backoff::random_seed()),
                    losses,
                    metrics,
                },
                stop.clone(),
                hard.clone(),
            );
            tracker.spawn(subscription.run(self.dopplers.clone(), Arc::clone(&channels), stop.clone()));
            tracker.spawn(announcer.run(told.clone()));
            running.push(tracker.spawn(drain.run()));
        }
        if !watched.is_empty() {
            tracker.spawn(trust::watch(watched, tracker.clone(), quit.clone()));
        }
        latch.ready();

        stop.cancelled().await;
        self.readiness.stopping();
        let outcome = drain_all(running, &hard, self.flush_timeout).await;
        told.cancel();
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

/// Waits for every drain; after `within`, tells them that the time is over.
async fn drain_all(
    running: Vec<tokio::task::JoinHandle<Drained>>,
    hard: &CancellationToken,
    within: Duration,
) -> Result<Drained, ServeError> {
    let all = async {
        let mut sum = Ok(Drained::default());
        for drain in running {
            sum = match (sum, drain.await) {
                (Ok(sum), Ok(drained)) => {
                    Ok(Drained { flushed: sum.flushed + drained.flushed, dropped: sum.dropped + drained.dropped })
                }
                _ => Err(ServeError::DrainPanicked),
            };
        }
        sum
    };
    tokio::pin!(all);
    tokio::select! {
        outcome = &mut all => return outcome,
        () = tokio::time::sleep(within) => hard.cancel(),
    }
    all.await
}

/// Says once what of a drain's options is likely not meant.
fn remark(config: &DrainConfig) {
    info!(drain = %config.name, url = %config.url, sources = config.sources.len(), "Drain starts");
    for remark in config.url.remarks() {
        warn!(drain = %config.name, url = %config.url, remark, "Drain option has no effect");
    }
}
