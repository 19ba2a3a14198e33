//! Wires the stages: fronts, ring, links, admin; and stops them in that order.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use diode::fair;
use proto::codec::MAX_MESSAGE;
use proto::hydrant::v1::ingress_server::IngressServer as AcknowledgedServer;
use proto::v2::ingress_server::IngressServer;
use telemetry::{Admin, Readiness, Telemetry};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{Instrument, info, info_span};
use transport::{
    Access, AccessError, ChannelOptions, Dopplers, DopplersError, Identity, LinkLimits, Listener, Role, Security,
    ServiceRoles, TlsError, server_builder,
};

use crate::config::Config;
use crate::egress::{Dispatcher, Parts};
use crate::forward::Forward;
use crate::ingress::files::StoreError;
use crate::ingress::{IngressService, Intake, Local};
use crate::limits::Limits;
use crate::metrics::{Metrics, numbers};
use crate::parcel::Parcel;
use crate::sources::Sources;
use crate::tag::Tagger;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Files of consumers beside the agent.
    #[error("agent.forward.ports_glob: {0:?} is no pattern: {1}")]
    PortsGlob(String, glob::PatternError),
    /// A target to scrape.
    #[error(transparent)]
    Scrape(#[from] crate::ingress::ScrapeError),
    /// A port for syslog.
    #[error(transparent)]
    Syslog(#[from] crate::ingress::SyslogError),
    /// A socket for statsd.
    #[error(transparent)]
    Statsd(#[from] crate::ingress::StatsdError),
    /// Plain text on an address that others reach.
    #[error(
        "agent.grpc.listen: {0} can be reached from outside, and agent.grpc.tls is not set; set it, listen on loopback, or say \
         agent.grpc.insecure_plaintext = true"
    )]
    Plaintext(SocketAddr),
    /// A certificate.
    #[error("{key}: {error}")]
    Tls {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        error: TlsError,
    },
    /// A set of dopplers cannot be read.
    #[error("agent.dopplers: {0}")]
    Dopplers(DopplersError),
    /// A rule of access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// How far files have been read cannot be kept.
    #[error(transparent)]
    Files(#[from] StoreError),
    /// A stream that cannot be read.
    #[error(transparent)]
    Nats(#[from] crate::nats::config::NatsConfigError),
    /// Its files.
    #[cfg(feature = "nats")]
    #[error("agent.nats: {url}: {source}")]
    NatsFiles {
        /// The entry's URL, without user name and password.
        url: String,
        /// What is wrong with which file.
        source: Box<crate::ingress::nats::SourceError>,
    },
    /// No doppler to send to.
    #[error("agent.dopplers: no addresses; write [[agent.dopplers]] addresses = [\"127.0.0.1:8082\"]")]
    NoDopplers,
}

/// Why an agent ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("agent gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// gRPC ingress.
    pub grpc: SocketAddr,
    /// statsd over UDP; nothing when it is off.
    pub statsd: Option<SocketAddr>,
    /// dropsonde over UDP; nothing when it is off.
    pub dropsonde: Option<SocketAddr>,
    /// syslog, in the order of the configuration's entries.
    pub syslog: Vec<SocketAddr>,
    /// `/metrics`, `/live`, `/ready`.
    pub admin: SocketAddr,
}

/// What became of the envelopes in hand when an agent was told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Left for a doppler.
    pub flushed: u64,
    /// Left behind at the deadline, counted in the metrics.
    pub dropped: u64,
}

/// A running agent.
pub type Handle = transport::Handle<Addrs, Drained, ServeError>;

/// Who may call what, where `agent.grpc.access.enforce` is set: whoever has something to say.
const SERVICES: &[ServiceRoles] = &[("/loggregator.v2.Ingress/", PRODUCERS), ("/hydrant.v1.Ingress/", PRODUCERS)];

const PRODUCERS: &[Role] =
    &[Role::Agent, Role::Adapters, Role::Doppler, Role::TrafficController, Role::Consumer, Role::Operator];

/// Between two pings to a consumer beside the agent: an original's closes connections that ping more often than every five minutes.
const RARELY: Duration = Duration::from_secs(330);

/// An agent with everything bound and nothing running.
#[derive(Debug)]
pub struct Server {
    grpc: Listener,
    sources: Sources,
    admin: Admin,
    security: Security,
    access: Access,
    /// Certificates to look at for new files, by their keys.
    identities: Vec<(&'static str, Identity)>,
    to_dopplers: ChannelOptions,
    dopplers: Dopplers,
    config: Config,
    intake: Intake,
    /// The same for gRPC.
    producers: Intake,
    forward: Option<Forward>,
    limits: Option<Arc<Limits>>,
    ring: fair::Reader<Parcel>,
    metrics: Metrics,
    readiness: Readiness,
}

impl Config {
    /// Binds every address and loads every file that the configuration names. Nothing runs yet.
    ///
    /// # Errors
    /// The first address that cannot be bound or certificate that cannot be used, with its key.
    pub async fn bind(self, telemetry: &Telemetry) -> Result<Server, BindError> {
        self.check()?;
        let load = |key, files| Identity::load(files).map_err(|error| BindError::Tls { key, error });
        let security = match &self.grpc.tls {
            Some(files) => Security::MutualTls(load("agent.grpc.tls", files)?),
            None => Security::Plain,
        };
        let access = self.grpc.access.rule("agent.grpc", self.grpc.tls.is_some(), SERVICES)?;
        let mut identities = Vec::new();
        let to_dopplers = match &self.doppler_tls {
            Some(files) => {
                let identity = load("agent.doppler_tls", files)?;
                telemetry.watch_certificate("agent_doppler", identity.clone());
                identities.push(("agent.doppler_tls", identity.clone()));
                ChannelOptions::tls(identity, "doppler")
            }
            None => ChannelOptions::default(),
        };
        let to_dopplers = to_dopplers.within(&self.doppler_limits);
        let dopplers = Dopplers::new(&self.dopplers).map_err(BindError::Dopplers)?;
        let only_forwards = dopplers.is_never();
        if only_forwards && !self.forward.is_on() {
            return Err(BindError::NoDopplers);
        }
        telemetry.watch_dopplers(&dopplers);
        if let Security::MutualTls(identity) = &security {
            telemetry.watch_certificate("agent_grpc", identity.clone());
            identities.push(("agent.grpc.tls", identity.clone()));
        } else if !self.grpc.listen.ip().is_loopback() {
            if !self.grpc.insecure_plaintext {
                return Err(BindError::Plaintext(self.grpc.listen));
            }
            telemetry.insecure_mode("agent.grpc.insecure_plaintext");
        }
        let grpc = transport::bind("agent.grpc.listen", self.grpc.listen)?;
        telemetry.watch_listener("agent_grpc", grpc.stats());
        telemetry.watch_access("agent_grpc", access.clone());
        let readiness = Readiness::default();
        let admin = self.admin.bind("agent.admin.listen", telemetry, &readiness)?;

        let metrics = Metrics::register(telemetry);
        let bounds = fair::Bounds { envelopes: self.egress.ring_envelopes, bytes: self.egress.ring_bytes };
        let (writer, ring) = fair::channel(bounds);
        let (seen, queue) = (writer.clone(), metrics.queue.clone());
        telemetry.before_render(move || queue.report(numbers(seen.counters())));
        let beside = match &self.forward.tls {
            Some(files) => {
                let identity = load("agent.forward.tls", files)?;
                telemetry.watch_certificate("agent_forward", identity.clone());
                identities.push(("agent.forward.tls", identity.clone()));
                ChannelOptions::tls(identity, "metron")
            }
            None => ChannelOptions::default(),
        };
        let beside = beside.within(&LinkLimits { keepalive_interval: RARELY, ..LinkLimits::default() });
        if let Some(pattern) = &self.forward.ports_glob {
            glob::Pattern::new(pattern).map_err(|error| BindError::PortsGlob(pattern.clone(), error))?;
        }
        let forward = Forward::new(&self.forward, beside, telemetry);
        let intake = Intake::new(Tagger::new(&self.tags), writer, metrics.clone(), telemetry);
        let intake = intake.forwarding(forward.clone(), only_forwards);
        let limits = Limits::new(&self.limits, intake.clone(), telemetry);
        let limited = intake.within(limits.clone());
        let sources = Sources::bind(&self, telemetry, &limited)?;
        Ok(Server {
            grpc,
            sources,
            admin,
            security,
            access,
            identities,
            to_dopplers,
            dopplers,
            config: self,
            forward,
            producers: limited.of(telemetry, "grpc"),
            limits,
            intake,
            ring,
            metrics,
            readiness,
        })
    }
}

impl Server {
    /// Where it listens: real ports where the configuration said 0.
    pub fn addrs(&self) -> Addrs {
        Addrs {
            grpc: self.grpc.addr(),
            statsd: self.sources.statsd(),
            dropsonde: self.sources.dropsonde(),
            syslog: self.sources.syslog(),
            admin: self.admin.addr(),
        }
    }

    /// A way in for sources inside this process. What it sends after the agent has stopped is counted as dropped.
    pub fn local(&self) -> Local {
        Local(self.intake.clone())
    }

    /// Ready once it serves, and not ready from the moment it is told to stop.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Starts it in a task of its own.
    pub fn spawn(self) -> Handle {
        Handle::spawn(self.addrs(), |stop| self.serve(stop))
    }

    /// Serves until `stop`, then drains: takes in what has arrived, sends what is in the ring, waits for it to be confirmed.
    ///
    /// # Errors
    /// The gRPC server failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let tracker = TaskTracker::new();
        let fronts = TaskTracker::new();
        let (served, cut, told) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let closed = CancellationToken::new();
        let ready = self.readiness.latch("grpc");

        let ingress = IngressService::new(self.producers, stop.clone(), fronts.clone());
        let routes = Routes::new(IngressServer::new(ingress.clone()).max_decoding_message_size(MAX_MESSAGE))
            .add_service(AcknowledgedServer::new(ingress).max_decoding_message_size(MAX_MESSAGE));
        let incoming = self.grpc.incoming(self.security, &tracker, stop.clone());
        let server = server_builder(&self.config.grpc.limits).layer(self.access).add_routes(routes);
        let serve = server.serve_with_incoming_shutdown(incoming, served.clone().cancelled_owned());
        let (forwards, cut_forwards) = (TaskTracker::new(), CancellationToken::new());
        if let Some(forward) = self.forward {
            forward.start(&forwards, &cut_forwards);
            tracker.spawn(forward.follow(forwards.clone(), stop.clone(), cut_forwards.clone()));
        }
        self.sources.spawn(&fronts, &tracker, &stop, &told);
        if let Some(limits) = &self.limits {
            tracker.spawn(limits.clone().watch(stop.clone()));
        }
        for (key, identity) in &self.identities {
            identity.watch(key, &tracker, told.clone());
        }
        let (admin, tasks, until) = (self.admin, tracker.clone(), told.clone());
        tracker.spawn(async move { admin.serve(&tasks, until).await });

        self.dopplers.refresh(&tracker, &told);
        let parts = Parts {
            ring: self.ring,
            dopplers: self.dopplers,
            options: self.to_dopplers,
            metrics: self.metrics.clone(),
            closed: closed.clone(),
            cut: cut.clone(),
        };
        let dispatcher = tracker.spawn(Dispatcher::new(parts, &self.config).run());
        ready.ready();

        let (intake, limits, readiness) = (self.intake, self.limits, self.readiness);
        let flush_timeout = self.config.flush_timeout;
        let drain = async {
            stop.cancelled().await;
            readiness.stopping();
            fronts.close();
            fronts.wait().await;
            limits.iter().for_each(|limits| limits.finish());
            let resident = intake.close();
            forwards.close();
            closed.cancel();
            info!(resident, "Agent is stopping; the ring is sent to the dopplers");
            let mut left = pin!(dispatcher);
            let to_dopplers = async {
                match timeout(flush_timeout, &mut left).await {
                    Ok(left) => left,
                    Err(_) => {
                        cut.cancel();
                        left.await
                    }
                }
            };
            let beside = async {
                // What is left in their rings then counts as evicted.
                let _in_time = timeout(flush_timeout, forwards.wait()).await;
                cut_forwards.cancel();
            };
            let dropped = tokio::join!(to_dopplers, beside).0.unwrap_or(0);
            served.cancel();
            Drained { flushed: resident.saturating_sub(dropped), dropped }
        };
        let (served, drained) = tokio::join!(serve.instrument(info_span!("agent_grpc")), drain);
        served?;
        told.cancel();
        tracker.close();
        tracker.wait().await;
        Ok(drained)
    }
}
