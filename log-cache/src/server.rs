//! A cache node of its own: a store, and what brings envelopes to it and reads them, without routing.
//!
//! ```text
//! logcache.v1 Ingress ─┐             ┌─► logcache.v1 Egress and PromQLQuerier, hydrant.v1 Follow and Samples
//!                      ├─► the store ┤
//! syslog ──────────────┘             └─► (over HTTP: the traffic controller's crate, in front of Egress)
//!
//! With `placement = "jump"` there are other nodes: what is theirs goes on to them, and is read from them.
//! ```
//!
//! What enters: a configuration; then connections. What leaves: served connections, and a stop in the direction of the flow.

use std::net::SocketAddr;

use telemetry::{Admin, Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};
use transport::{
    Access, AccessError, Identity, Listener, Role, Security, ServiceRoles, TlsError, bind, server_builder,
};

mod config;

pub use config::{ADMIN_PORT, FLUSH_TIMEOUT, NodeConfig, NodeGrpcConfig};

use crate::cluster::{ClusterError, Links};
use crate::intake::{Intake, IntakeError, SyslogKeys};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::service::Services;
use crate::snapshot;
use crate::store::Store;

/// Why a cache node could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Plain text on an address that others reach.
    #[error(
        "log_cache.grpc.listen: {0} can be reached from outside, and log_cache.grpc.tls is not set; set it, listen on \
         loopback, or say log_cache.grpc.insecure_plaintext = true"
    )]
    Plaintext(SocketAddr),
    /// A certificate.
    #[error("log_cache.grpc.tls: {0}")]
    Tls(#[from] TlsError),
    /// A rule of access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The syslog intake.
    #[error(transparent)]
    Syslog(#[from] IntakeError),
    /// The other nodes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A cache node without a cache.
    #[error("log_cache.cache.enabled: a cache node without a cache has nothing to serve; leave it true")]
    NoCache,
}

/// Why a cache node ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("log cache gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Where a cache node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// `logcache.v1` and `hydrant.v1.Follow`.
    pub grpc: SocketAddr,
    /// Syslog, where it is enabled.
    pub syslog: Option<SocketAddr>,
    /// `/metrics`, `/live`, `/ready`.
    pub admin: SocketAddr,
}

/// What became of the envelopes in hand when a node was told to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Handed to where they belong.
    pub flushed: u64,
    /// Left behind, counted by reason in the metrics.
    pub dropped: u64,
}

/// A running cache node.
pub type Handle = transport::Handle<Addrs, Drained, ServeError>;

/// Who may call what, where `log_cache.grpc.access.enforce` is set.
const SERVICES: &[ServiceRoles] = &[
    ("/logcache.v1.Ingress/", WRITERS),
    ("/logcache.v1.Egress/", READERS),
    ("/logcache.v1.PromQLQuerier/", READERS),
    ("/hydrant.v1.Follow/", READERS),
    ("/hydrant.v1.Samples/", READERS),
];

const WRITERS: &[Role] = &[Role::Agent, Role::Doppler, Role::Adapters, Role::LogCache, Role::Operator];

const READERS: &[Role] = &[Role::TrafficController, Role::Adapters, Role::Doppler, Role::LogCache, Role::Operator];

/// The table of the other nodes.
const CLUSTER: &str = "log_cache.cluster";

const SYSLOG: SyslogKeys = SyslogKeys {
    listen: "log_cache.syslog.listen",
    tls: "log_cache.syslog.tls",
    insecure_plaintext: "log_cache.syslog.insecure_plaintext",
    name: "log_cache_syslog",
};

/// A cache node with everything bound and nothing running.
#[derive(Debug)]
pub struct Server {
    config: NodeConfig,
    grpc: Listener,
    security: Security,
    access: Access,
    intake: Option<Intake>,
    admin: Admin,
    readiness: Readiness,
    node: Node,
    links: Links,
    services: Services,
    /// Ends the streams that follow the store.
    ended: CancellationToken,
}

impl NodeConfig {
    /// What can be found out without opening a file or a port.
    ///
    /// # Errors
    /// A port would serve others in plain text and does not say that it should, or there would be nothing to serve.
    pub fn check(&self) -> Result<(), BindError> {
        if !self.cache.enabled {
            return Err(BindError::NoCache);
        }
        if self.is_exposed() && !self.grpc.insecure_plaintext {
            return Err(BindError::Plaintext(self.grpc.listen));
        }
        if self.syslog.enabled {
            self.syslog.check(SYSLOG)?;
        }
        Ok(self.cluster.check(CLUSTER)?)
    }

    /// Binds every address and loads every file that the configuration names. Nothing runs yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What [`check`](Self::check) finds; the first address that cannot be bound or certificate that cannot be used, with its key.
    #[expect(clippy::unused_async, reason = "binding is async in every role: addresses may have to be looked up")]
    pub async fn bind(self, telemetry: &Telemetry) -> Result<Server, BindError> {
        self.check()?;
        let security = match &self.grpc.tls {
            Some(files) => Security::MutualTls(Identity::load(files)?),
            None => Security::Plain,
        };
        match &security {
            Security::MutualTls(identity) => telemetry.watch_certificate("log_cache_grpc", identity.clone()),
            _ if self.is_exposed() => telemetry.insecure_mode("log_cache.grpc.insecure_plaintext"),
            _ => {}
        }
        let access = self.grpc.access.rule("log_cache.grpc", self.grpc.tls.is_some(), SERVICES)?;
        let grpc = bind("log_cache.grpc.listen", self.grpc.listen)?;
        telemetry.watch_listener("log_cache_grpc", grpc.stats());
        telemetry.watch_access("log_cache_grpc", access.clone());
        let intake = self.syslog.bind(SYSLOG, telemetry)?;
        let readiness = Readiness::default();
        let admin = self.admin.bind("log_cache.admin.listen", telemetry, &readiness)?;
        let (store, ended) = (Store::new(&self.cache), CancellationToken::new());
        snapshot::restore(&store, &self.cache);
        let metrics = Metrics::register(telemetry, &store);
        let identity = match &security {
            Security::MutualTls(identity) => Some(identity),
            _ => None,
        };
        let (node, links) = Node::new(store, (CLUSTER, &self.cluster), identity, telemetry)?;
        let services = node.routes(&metrics, &ended);
        Ok(Server { config: self, grpc, security, access, intake, admin, readiness, node, links, services, ended })
    }

    fn is_exposed(&self) -> bool {
        self.grpc.tls.is_none() && !self.grpc.listen.ip().to_canonical().is_loopback()
    }
}

impl Server {
    /// Where it listens: real ports where the configuration said 0.
    pub fn addrs(&self) -> Addrs {
        Addrs { grpc: self.grpc.addr(), syslog: self.intake.as_ref().map(Intake::addr), admin: self.admin.addr() }
    }

    /// Ready once it serves, and not ready from the moment it is told to stop.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// What it shows to others over gRPC, if that is TLS.
    pub fn identity(&self) -> Option<Identity> {
        match &self.security {
            Security::MutualTls(identity) => Some(identity.clone()),
            _ => None,
        }
    }

    /// Starts it in a task of its own.
    pub fn spawn(self) -> Handle {
        Handle::spawn(self.addrs(), |stop| self.serve(stop))
    }

    /// Serves until `stop`, then takes in what has arrived, answers what was asked, ends the streams that follow, and brings other nodes
    /// what waits for them.
    ///
    /// # Errors
    /// The gRPC server failed.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let tracker = TaskTracker::new();
        // The admin port goes last: it tells how the rest is doing.
        let told = CancellationToken::new();
        let _told_when_dropped = told.clone().drop_guard();
        let (admin, tasks, until) = (self.admin, tracker.clone(), told.clone());
        let ready = self.readiness.latch("grpc");
        tracker.spawn(async move { admin.serve(&tasks, until).await });
        if let Security::MutualTls(identity) = &self.security {
            identity.watch("log_cache.grpc.tls", &tracker, told.clone());
        }

        let intake = TaskTracker::new();
        if let Some(syslog) = self.intake {
            intake.spawn(syslog.serve(self.node.clone(), stop.clone()));
        }
        let incoming = self.grpc.incoming(self.security, &tracker, stop.clone());
        let Services { ingress, egress, follow, samples, queries } = self.services;
        let mut server = server_builder(&self.config.grpc.limits).layer(self.access);
        let server = server.add_service(ingress).add_service(egress).add_service(follow);
        let server = server.add_service(samples).add_service(queries);
        let serve = server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        ready.ready();

        let (readiness, ended) = (self.readiness, self.ended);
        let drain = async {
            stop.cancelled().await;
            readiness.stopping();
            intake.close();
            intake.wait().await;
            ended.cancel();
        };
        let served = async {
            let served = serve.instrument(info_span!("log_cache_grpc")).await;
            // By itself it ends only when it has failed: the rest is not to go on without it.
            stop.cancel();
            served
        };
        let links = self.links.spawn(&tracker, stop.clone());
        let (served, ()) = tokio::join!(served, drain);
        // Nothing comes any more: what waits for other nodes is the rest.
        self.node.close();
        let (flushed, dropped) = links.end(self.config.flush_timeout).await;
        snapshot::keep(&self.node.store, &self.config.cache).await;
        told.cancel();
        tracker.close();
        tracker.wait().await;
        served?;
        Ok(Drained { flushed, dropped })
    }
}
