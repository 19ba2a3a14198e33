//! What the machine's envelopes come from besides gRPC: bound together, started together.
//!
//! Each has its own handle of the intake, so that what it takes and refuses is counted under its name. None waits for another, and none
//! outlives `stop` by more than what it has in hand.

use std::net::SocketAddr;

use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::cgroup::metrics::ContainersMetrics;
use crate::config::Config;
use crate::files::FilesMetrics;
use crate::host::metrics::HostMetrics;
use crate::ingress::Intake;
use crate::ingress::cgroup::Containers;
use crate::ingress::dropsonde::Dropsonde;
use crate::ingress::files::Files;
use crate::ingress::host::Host;
use crate::ingress::scrape::Scraper;
use crate::ingress::statsd::Statsd;
use crate::ingress::syslog::{Syslog, SyslogMetrics};
use crate::server::BindError;

/// Every source that the configuration names, with its sockets bound and its files read.
#[derive(Debug)]
pub(crate) struct Sources {
    statsd: Option<Statsd>,
    dropsonde: Option<Dropsonde>,
    syslog: Vec<Syslog>,
    scraper: Option<Scraper>,
    host: Option<Host>,
    containers: Option<Containers>,
    files: Option<Files>,
    #[cfg(feature = "nats")]
    nats: Vec<crate::ingress::nats::Source>,
}

impl Sources {
    /// # Errors
    /// The first address that cannot be bound or file that cannot be used, with its key.
    pub(crate) fn bind(config: &Config, telemetry: &Telemetry, intake: &Intake) -> Result<Self, BindError> {
        let statsd = config.statsd.enabled.then(|| Statsd::bind(&config.statsd, telemetry, intake));
        let dropsonde = config.dropsonde.enabled.then(|| Dropsonde::bind(config, telemetry, intake));
        let (metrics, of_syslog) = (SyslogMetrics::register(telemetry), intake.of(telemetry, "syslog"));
        let syslog = config.syslog.iter().map(|entry| Syslog::bind(entry, telemetry, &of_syslog, &metrics));
        // Registered also where nobody reads, so that a page has the same families.
        let (host, containers) = (HostMetrics::register(telemetry), ContainersMetrics::register(telemetry));
        let host = config.host.enabled.then(|| Host::new(config.host.clone(), host, telemetry, intake));
        let containers = config
            .containers
            .enabled
            .then(|| Containers::new(config.containers.clone(), containers, telemetry, intake));
        let bounds = diode::fair::Bounds { envelopes: config.egress.ring_envelopes, bytes: config.egress.ring_bytes };
        let (metrics, files_intake) = (FilesMetrics::register(telemetry), intake.of(telemetry, "files"));
        let files = Files::bind(&config.files, &config.file_reading, bounds, files_intake, metrics)?;
        #[cfg(feature = "nats")]
        let nats = {
            let source = |entry: &crate::NatsConfig| {
                let wrong = |source| BindError::NatsFiles { url: entry.url.to_string(), source: Box::new(source) };
                crate::ingress::nats::Source::new(entry.clone(), bounds, intake.of(telemetry, "nats")).map_err(wrong)
            };
            config.nats.iter().map(source).collect::<Result<_, _>>()?
        };
        Ok(Self {
            statsd: statsd.transpose()?,
            dropsonde: dropsonde.transpose()?,
            syslog: syslog.collect::<Result<_, _>>()?,
            scraper: Scraper::new(&config.scrape, telemetry, intake)?,
            host,
            containers,
            files,
            #[cfg(feature = "nats")]
            nats,
        })
    }

    /// Where statsd is listened for; nothing when it is off.
    pub(crate) fn statsd(&self) -> Option<SocketAddr> {
        self.statsd.as_ref().and_then(Statsd::addr)
    }

    /// Where dropsonde is listened for; nothing when it is off.
    pub(crate) fn dropsonde(&self) -> Option<SocketAddr> {
        self.dropsonde.as_ref().and_then(Dropsonde::addr)
    }

    /// Where syslog is listened for.
    pub(crate) fn syslog(&self) -> Vec<SocketAddr> {
        self.syslog.iter().filter_map(Syslog::addr).collect()
    }

    /// Starts them. Those that put what they read into the ring before they end run on `fronts`; those that go on until the ring is empty
    /// run on `tracker` until `told`.
    pub(crate) fn spawn(
        self,
        fronts: &TaskTracker,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        told: &CancellationToken,
    ) {
        if let Some(statsd) = self.statsd {
            statsd.spawn(fronts, stop);
        }
        if let Some(dropsonde) = self.dropsonde {
            fronts.spawn(dropsonde.serve(stop.clone()).instrument(info_span!("dropsonde")));
        }
        if let Some(scraper) = self.scraper {
            fronts.spawn(scraper.serve(stop.clone()).instrument(info_span!("scraper")));
        }
        for syslog in self.syslog {
            fronts.spawn(syslog.serve(stop.clone()).instrument(info_span!("syslog")));
        }
        if let Some(host) = self.host {
            fronts.spawn(host.serve(stop.clone()).instrument(info_span!("host")));
        }
        if let Some(containers) = self.containers {
            fronts.spawn(containers.serve(stop.clone()).instrument(info_span!("containers")));
        }
        if let Some(files) = self.files {
            let reading = files.serve(stop.clone(), told.clone(), fronts.token());
            tracker.spawn(reading.instrument(info_span!("files")));
        }
        #[cfg(feature = "nats")]
        for source in self.nats {
            let reading = source.run(stop.clone(), told.clone(), fronts.token());
            tracker.spawn(reading.instrument(info_span!("nats")));
        }
    }
}
