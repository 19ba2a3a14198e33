//! Wires the stages: ingress, router with cache, egress, admin; and stops them in that order.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::OptionFuture;
use log_cache::{
    ClusterConfig, ClusterError, Intake, IntakeError, Links, Node, Placement, Services, Store, SyslogKeys, snapshot,
};
use parking_lot::Mutex;
use proto::codec::MAX_MESSAGE;
use proto::hydrant::v1::egress_server::EgressServer as SubscribeServer;
use proto::hydrant::v1::ingress_server::IngressServer as AcknowledgedServer;
use proto::hydrant::v1::overview_server::OverviewServer;
use proto::plumbing::doppler_ingestor_server::DopplerIngestorServer;
use proto::plumbing::doppler_server::DopplerServer;
use proto::v2::egress_server::EgressServer;
use proto::v2::ingress_server::IngressServer;
use telemetry::{Admin, Readiness, Telemetry};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tracing::{Instrument, info, info_span};
use transport::{Access, AccessError, Identity, Listener, Role, Security, ServiceRoles, TlsError, server_builder};

use crate::config::Config;
use crate::egress::EgressService;
use crate::ingress::IngressService;
use crate::overview::Overview;
use crate::router::Router;
use crate::subscribe::SubscribeService;
use crate::subscriptions::Totals;

/// How long agents' streams are held at a stop, at most, so that consumers that read have what was taken. Less than the time after which
/// an agent calls a doppler suspect.
const HELD: Duration = Duration::from_millis(800);

/// The least time between two tellings of losses.
const LEAST: Duration = Duration::from_secs(1);

/// Why a doppler could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Plain text on an address that others reach.
    #[error(
        "doppler: {0} can be reached from outside, and doppler.grpc.tls is not set; set it, listen on loopback, or say \
         doppler.grpc.insecure_plaintext = true"
    )]
    Plaintext(SocketAddr),
    /// A certificate.
    #[error("doppler.grpc.tls: {0}")]
    Tls(#[from] TlsError),
    /// A rule of access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The syslog intake of the cache.
    #[error(transparent)]
    Syslog(#[from] IntakeError),
    /// A table for a cache that there is not.
    #[error("{0}: there is no cache; set doppler.cache.enabled = true, or leave the table out")]
    NoCache(&'static str),
    /// The other nodes of the cache.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Why a doppler ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("doppler gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Where a doppler listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// Ingress, egress and the log-cache services.
    pub grpc: SocketAddr,
    /// The log-cache services alone; nothing without a cache.
    pub cache_grpc: Option<SocketAddr>,
    /// Syslog into the cache, where it is configured.
    pub cache_syslog: Option<SocketAddr>,
    /// `/metrics`, `/live`, `/ready`.
    pub admin: SocketAddr,
}

/// What became of the envelopes in hand when a doppler was told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Handed to their consumers.
    pub flushed: u64,
    /// Left behind, counted by reason in the metrics.
    pub dropped: u64,
}

/// A running doppler.
pub type Handle = transport::Handle<Addrs, Drained, ServeError>;

/// Who may call what, where `doppler.grpc.access.enforce` is set: agents write, those who serve consumers read.
const SERVICES: &[ServiceRoles] = &[
    ("/loggregator.v2.Ingress/", WRITERS),
    ("/hydrant.v1.Ingress/", WRITERS),
    ("/plumbing.DopplerIngestor/", WRITERS),
    ("/loggregator.v2.Egress/", READERS),
    ("/hydrant.v1.Egress/", READERS),
    ("/hydrant.v1.Follow/", READERS),
    ("/hydrant.v1.Samples/", CACHE_READERS),
    ("/hydrant.v1.Overview/", READERS),
    ("/logcache.v1.Egress/", CACHE_READERS),
    ("/logcache.v1.PromQLQuerier/", CACHE_READERS),
    ("/plumbing.Doppler/", READERS),
    ("/logcache.v1.Ingress/", &[Role::Agent, Role::Doppler, Role::Adapters, Role::LogCache, Role::Operator]),
];

const SYSLOG: SyslogKeys = SyslogKeys {
    listen: "doppler.cache_syslog.listen",
    tls: "doppler.cache_syslog.tls",
    insecure_plaintext: "doppler.cache_syslog.insecure_plaintext",
    name: "doppler_cache_syslog",
};

const WRITERS: &[Role] = &[Role::Agent, Role::Operator];

const READERS: &[Role] = &[Role::TrafficController, Role::Adapters, Role::Operator];

/// Other nodes of the cache too.
const CACHE_READERS: &[Role] =
    &[Role::TrafficController, Role::Adapters, Role::Operator, Role::Doppler, Role::LogCache];

/// The table of the other nodes of the cache.
const CLUSTER: &str = "doppler.cache_cluster";

/// A doppler with everything bound and nothing running.
#[derive(Debug)]
pub struct Server {
    grpc: Listener,
    cache_grpc: Option<Listener>,
    admin: Admin,
    security: Security,
    access: Access,
    config: Config,
    cache: Option<Cache>,
    syslog: Option<Intake>,
    router: Router,
    readiness: Readiness,
    telemetry: Telemetry,
}

impl Config {
    /// What can be found out about the cache without opening a file or a port.
    ///
    /// # Errors
    /// Something is configured for a cache that there is not, or that cannot be.
    pub fn check(&self) -> Result<(), BindError> {
        let syslog = self.cache_syslog.as_ref().filter(|config| config.enabled);
        if !self.cache.enabled && syslog.is_some() {
            return Err(BindError::NoCache("doppler.cache_syslog"));
        }
        if !self.cache.enabled && self.cache_cluster.placement == Placement::Jump {
            return Err(BindError::NoCache(CLUSTER));
        }
        syslog.map_or(Ok(()), |config| config.check(SYSLOG))?;
        Ok(self.cache_cluster.check(CLUSTER)?)
    }

    /// Binds every address and loads every file that the configuration names. Nothing runs yet.
    ///
    /// # Errors
    /// The first address that cannot be bound or certificate that cannot be used, with its key.
    pub async fn bind(self, telemetry: &Telemetry) -> Result<Server, BindError> {
        self.check()?;
        let security = match &self.grpc.tls {
            Some(files) => Security::MutualTls(Identity::load(files)?),
            None => Security::Plain,
        };
        let access = self.grpc.access.rule("doppler.grpc", self.grpc.tls.is_some(), SERVICES)?;
        let mut addrs =
            [Some(self.grpc.listen), self.cache.enabled.then_some(self.cache_grpc.listen)].into_iter().flatten();
        match (&security, addrs.find(|addr| !addr.ip().is_loopback())) {
            (Security::MutualTls(identity), _) => telemetry.watch_certificate("doppler_grpc", identity.clone()),
            (_, Some(addr)) if !self.grpc.insecure_plaintext => return Err(BindError::Plaintext(addr)),
            (_, Some(_)) => telemetry.insecure_mode("doppler.grpc.insecure_plaintext"),
            (_, None) => {}
        }
        let grpc = transport::bind("doppler.grpc.listen", self.grpc.listen)?;
        telemetry.watch_listener("doppler_grpc", grpc.stats());
        telemetry.watch_access("doppler_grpc", access.clone());
        let store = self.cache.enabled.then(|| Store::new(&self.cache));
        if let Some(store) = &store {
            snapshot::restore(store, &self.cache);
        }
        let identity = match &security {
            Security::MutualTls(identity) => Some(identity),
            _ => None,
        };
        let cache = match &store {
            Some(store) => Some(Cache::new(store, &self.cache_cluster, identity, telemetry)?),
            None => None,
        };
        let cache_grpc = match &store {
            Some(_) => Some(transport::bind("doppler.cache_grpc.listen", self.cache_grpc.listen)?),
            None => None,
        };
        let syslog = match &self.cache_syslog {
            Some(config) => config.bind(SYSLOG, telemetry)?,
            None => None,
        };
        let readiness = Readiness::default();
        let admin = self.admin.bind("doppler.admin.listen", telemetry, &readiness)?;
        let router = Router::new(&self.egress, store, telemetry);
        let router = match &cache {
            Some(cache) => router.placed(cache.node.clone()),
            None => router,
        };
        Ok(Server {
            grpc,
            cache_grpc,
            admin,
            security,
            access,
            config: self,
            cache,
            syslog,
            router,
            readiness,
            telemetry: telemetry.clone(),
        })
    }
}

/// What serves the cache.
#[derive(Debug)]
struct Cache {
    node: Node,
    links: Links,
    /// Of this doppler's cache alone: traffic controllers ask every doppler.
    own: Services,
    /// Of all nodes together.
    all: Services,
    /// Ends the streams that follow it.
    ended: CancellationToken,
}

impl Cache {
    fn new(
        store: &Store,
        cluster: &ClusterConfig,
        identity: Option<&Identity>,
        telemetry: &Telemetry,
    ) -> Result<Self, ClusterError> {
        let (metrics, ended) = (log_cache::Metrics::register(telemetry, store), CancellationToken::new());
        let (node, links) = Node::new(store.clone(), (CLUSTER, cluster), identity, telemetry)?;
        let all = node.routes(&metrics, &ended);
        let own = Services { ingress: all.ingress.clone(), ..log_cache::routes(store, &metrics, &ended) };
        Ok(Self { node, links, own, all, ended })
    }
}

fn add(Services { ingress, egress, follow, samples, queries }: Services, routes: Routes) -> Routes {
    routes.add_service(ingress).add_service(egress).add_service(follow).add_service(samples).add_service(queries)
}

impl Server {
    /// Where it listens: real ports where the configuration said 0.
    pub fn addrs(&self) -> Addrs {
        Addrs {
            grpc: self.grpc.addr(),
            cache_grpc: self.cache_grpc.as_ref().map(Listener::addr),
            cache_syslog: self.syslog.as_ref().map(Intake::addr),
            admin: self.admin.addr(),
        }
    }

    /// Ready once it serves, and not ready from the moment it is told to stop.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Starts it in a task of its own.
    pub fn spawn(self) -> Handle {
        Handle::spawn(self.addrs(), |stop| self.serve(stop))
    }

    /// Serves until `stop`, then drains: takes in what has arrived, hands consumers what is in their rings, ends their streams.
    ///
    /// # Errors
    /// The gRPC server failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let tracker = TaskTracker::new();
        // Streams end in order: first those that bring envelopes, then those that take them away, then the admin port.
        let intake = TaskTracker::new();
        let (served, told, released) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let ready = self.readiness.latch("grpc");

        let ingress = IngressService::new(self.router.clone(), stop.clone(), intake.clone(), released.clone());
        let egress = EgressService::new(self.router.clone(), &self.config.egress);
        let subscribe = SubscribeService::new(self.router.clone(), &self.config.egress);
        let mut routes = Routes::new(IngressServer::new(ingress.clone()).max_decoding_message_size(MAX_MESSAGE))
            .add_service(DopplerIngestorServer::new(ingress.clone()).max_decoding_message_size(MAX_MESSAGE))
            .add_service(AcknowledgedServer::new(ingress).max_decoding_message_size(MAX_MESSAGE))
            .add_service(EgressServer::new(egress.clone()))
            .add_service(DopplerServer::new(egress))
            .add_service(SubscribeServer::new(subscribe))
            .add_service(OverviewServer::new(Overview::new(self.router.clone(), self.telemetry)));
        let (mut alone, mut cached) = (None, None);
        if let (Some(cache), Some(listener)) = (self.cache, self.cache_grpc) {
            routes = add(cache.own, routes);
            let incoming = listener.incoming(self.security.clone(), &tracker, stop.clone());
            let mut server = server_builder(&self.config.grpc.limits).layer(self.access.clone());
            let server = server.add_routes(add(cache.all, Routes::default()));
            let serve = server.serve_with_incoming_shutdown(incoming, served.clone().cancelled_owned());
            alone = Some(serve.instrument(info_span!("log_cache_grpc")));
            if let Some(syslog) = self.syslog {
                intake.spawn(syslog.serve(cache.node.clone(), stop.clone()));
            }
            cached = Some((cache.node, cache.links.spawn(&tracker, stop.clone()), cache.ended));
        }
        if let Security::MutualTls(identity) = &self.security {
            identity.watch("doppler.grpc.tls", &tracker, told.clone());
        }
        let (admin, tasks, until) = (self.admin, tracker.clone(), told.clone());
        tracker.spawn(async move { admin.serve(&tasks, until).await });

        let mut publisher = self.router.publisher();
        let (every, stopping) = (self.config.egress.tell_losses.max(LEAST), stop.clone());
        tracker.spawn(async move {
            while stopping.run_until_cancelled(sleep(every)).await.is_some() {
                publisher.tell_losses();
            }
        });

        let incoming = self.grpc.incoming(self.security, &tracker, stop.clone());
        let server = server_builder(&self.config.grpc.limits).layer(self.access).add_routes(routes);
        let serve = server.serve_with_incoming_shutdown(incoming, served.clone().cancelled_owned());
        ready.ready();

        let (router, readiness) = (self.router, self.readiness);
        let stopped = Mutex::new(None);
        let before = Mutex::new(Totals::default());
        let drain = async {
            stop.cancelled().await;
            readiness.stopping();
            *stopped.lock() = Some(Instant::now());
            *before.lock() = router.totals();
            let mut deadline = pin!(sleep(self.config.flush_timeout));
            intake.close();
            // Producers that never pause are not waited for longer than consumers.
            let is_late = tokio::select! {
                () = intake.wait() => false,
                () = &mut deadline => true,
            };
            let totals = router.totals();
            *before.lock() = totals;
            info!(envelopes = totals.resident(), "Doppler is stopping; consumers get what is in their rings");
            router.close();
            if let Some((.., ended)) = &cached {
                ended.cancel();
            }
            // Agents go on elsewhere at the end of their streams: by then consumers are to have what came here.
            let _in_time = timeout(HELD, router.drained()).await;
            released.cancel();
            served.cancel();
            if !is_late {
                deadline.await;
            }
        };
        let both = async {
            let alone = async { OptionFuture::from(alone).await.unwrap_or(Ok(())) };
            tokio::try_join!(serve.instrument(info_span!("doppler_grpc")), alone)
        };
        tokio::select! {
            // The drain first: without connections the servers end as soon as they are told.
            biased;
            () = drain => {}
            served = both => drop(served?),
        }
        // Whoever has not taken everything by now goes without, and is counted.
        router.cut();
        let mut to_nodes = (0, 0);
        if let Some((node, links, _)) = cached {
            // Nothing comes any more: what waits for other nodes of the cache is the rest.
            node.close();
            let passed = stopped.lock().map_or(Duration::ZERO, |stopped: Instant| stopped.elapsed());
            to_nodes = links.end(self.config.flush_timeout.saturating_sub(passed).max(LEAST)).await;
        }
        if let Some(store) = router.cache() {
            snapshot::keep(store, &self.config.cache).await;
        }
        told.cancel();
        tracker.close();
        tracker.wait().await;
        let before = before.into_inner();
        let dropped = router.totals().lost - before.lost;
        let flushed = before.resident().saturating_sub(dropped);
        Ok(Drained { flushed: flushed + to_nodes.0, dropped: dropped + to_nodes.1 })
    }
}
