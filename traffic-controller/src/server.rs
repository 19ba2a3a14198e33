//! The wiring: from a configuration to bound sockets, from there to a server that stops by draining.
//!
//! ```text
//! dopplers ─┬─► fan_in (a fair ring per consumer) ─┬─► rlp        gRPC       grpc.listen
//!           │                                      ├─► firehose   WebSocket  http.listen
//!           │                                      └─► gateway    HTTP       gateway.listen, http.listen
//!           ├─► follow ────────────────────────────────┴──────►   gRPC       grpc.listen
//!           └─► recent                                            HTTP       rest.listen, http.listen
//! ```

use std::net::SocketAddr;

use parking_lot::Mutex;
use proto::hydrant::v1::follow_server::FollowServer;
use proto::hydrant::v1::overview_server::OverviewServer;
use proto::logcache::v1::prom_ql_querier_server::PromQlQuerierServer;
use proto::loss::Loss;
use proto::v2::egress_server::EgressServer;
use telemetry::{Admin, Latch, Readiness, Telemetry};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{
    Access, AccessError, Address, ChannelOptions, Dopplers, DopplersError, Identity, Listener, MAX_MESSAGE_BYTES, Role,
    ServiceRoles, TlsError, bind, server_builder,
};

use self::ports::Ports;
use crate::access_log::{AccessLog, LogFile};
use crate::auth::{Authorizer, AuthorizerError};
use crate::config::Config;
use crate::fan_in::rings::Rings;
use crate::fan_in::tails::Tails;
use crate::fan_in::{FanIn, Room};
use crate::firehose::Firehose;
use crate::follow::{self, Follower};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::overview::Overview;
use crate::page::{self, RoleInfo};
use crate::prometheus::Queries;
use crate::recent::Cache;
use crate::rlp::Rlp;
use crate::upstream::Upstream;

mod cache_rest;
mod http;
mod ports;

pub use self::cache_rest::CacheRest;

/// The handle of a running traffic controller. Dropping it tells the server to stop.
pub type Handle = transport::Handle<Addrs, Drained, ServeError>;

/// The addresses really bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addrs {
    /// The page and the WebSocket endpoints.
    pub http: SocketAddr,
    /// The reverse log proxy.
    pub grpc: SocketAddr,
    /// The gateway.
    pub gateway: SocketAddr,
    /// The log cache over HTTP.
    pub rest: SocketAddr,
    /// `/metrics`, `/live` and `/ready`.
    pub admin: SocketAddr,
}

/// What became of envelopes between the word to stop and the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Envelopes that still went to consumers.
    pub flushed: u64,
    /// Envelopes that did not; counted by reason in `hydrant_dropped_envelopes_total`.
    pub dropped: u64,
}

/// Why a traffic controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port could not be bound.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Certificate files could not be used.
    #[error("{key}: {source}")]
    Tls {
        /// The configuration key of the files.
        key: &'static str,
        /// What is wrong, and with which file.
        source: TlsError,
    },
    /// A set of dopplers cannot be read.
    #[error("traffic_controller.dopplers: {0}")]
    Dopplers(DopplersError),
    /// A rule of access.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Without an authorizer, whoever reaches the port reads every envelope.
    #[error(
        "{key}: {addr} can be reached from other machines, and authorizer = \"none\" asks nobody who they are; \
         listen on 127.0.0.1, or set traffic_controller.authorizer = \"tokens\", \"uaa\" or \"jwks\""
    )]
    Unauthenticated {
        /// The configuration key of the address.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
    },
    /// Tokens would cross the network in plain text.
    #[error(
        "{key}: {addr} can be reached from other machines, and tokens would travel there in plain text; set {tls}, or, \
         where a proxy before it encrypts, {plaintext} = true"
    )]
    PlainHttp {
        /// The configuration key of the address.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
        /// The key of the certificate that is not there.
        tls: &'static str,
        /// The key that names the choice.
        plaintext: &'static str,
    },
    /// The access log cannot be opened.
    #[error("traffic_controller.access_log: {}: {source}; it must be a file that this process may write", path.display())]
    AccessLog {
        /// As configured.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The authorizer cannot be what the configuration says.
    #[error(transparent)]
    Authorizer(#[from] AuthorizerError),
    /// Plain gRPC on an address that other machines reach.
    #[error(
        "{key}: {addr} can be reached from other machines; set traffic_controller.grpc.tls, or listen on 127.0.0.1"
    )]
    Plain {
        /// The configuration key of the address.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
    },
}

/// Why a traffic controller that ran has ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gRPC server failed.
    #[error("the reverse log proxy on {addr} failed: {source}")]
    Grpc {
        /// Where it listened.
        addr: SocketAddr,
        /// What tonic said.
        source: tonic::transport::Error,
    },
}

/// Who may call what, where `traffic_controller.grpc.access.enforce` is set: whoever reads.
const SERVICES: &[ServiceRoles] = &[
    ("/loggregator.v2.Egress/", READERS),
    ("/hydrant.v1.Follow/", READERS),
    ("/hydrant.v1.Overview/", READERS),
    ("/logcache.v1.Egress/", READERS),
    ("/logcache.v1.PromQLQuerier/", READERS),
];

const READERS: &[Role] = &[Role::Consumer, Role::Operator, Role::Adapters, Role::TrafficController];

impl Config {
    /// Checks what can be checked and binds every port. Nothing is served or spawned yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What [`check`](Self::check) finds; a port is taken; a certificate or a file of the authorizer cannot be used.
    #[expect(clippy::unused_async, reason = "binding is async in every role: addresses may have to be looked up")]
    pub async fn bind(self, telemetry: &Telemetry) -> Result<Server, BindError> {
        self.check()?;
        let metrics = Metrics::register(telemetry);
        let authorizer = Authorizer::of(&self, telemetry, metrics.handles().auth.clone())?;
        let ports = self.ports(telemetry)?;
        let to_dopplers = ports::identity("traffic_controller.doppler_tls", self.doppler_tls.as_ref())?;
        let mut identities = ports.identities();
        if let Some(identity) = &to_dopplers {
            telemetry.watch_certificate("traffic_controller_doppler", identity.clone());
            identities.push(("traffic_controller.doppler_tls", identity.clone()));
        }
        let access = self.grpc.access.rule("traffic_controller.grpc", self.grpc.tls.is_some(), SERVICES)?;
        let access = if authorizer.is_none() { access } else { access.or_token() };
        let options = to_dopplers.map_or_else(ChannelOptions::default, |found| ChannelOptions::tls(found, "doppler"));
        let options = options.within(&self.doppler_limits);
        let open = |path: &std::path::PathBuf| {
            LogFile::open(path).map_err(|source| BindError::AccessLog { path: path.clone(), source })
        };
        let access_log = self.access_log.as_ref().map(open).transpose()?;
        let http = bind("traffic_controller.http.listen", self.http.listen)?;
        let grpc = bind("traffic_controller.grpc.listen", self.grpc.listen)?;
        let gateway = bind("traffic_controller.gateway.listen", self.gateway.listen)?;
        let rest = bind("traffic_controller.rest.listen", self.rest.listen)?;
        for (name, listener) in [("http", &http), ("grpc", &grpc), ("gateway", &gateway), ("rest", &rest)] {
            telemetry.watch_listener(name, listener.stats());
        }
        telemetry.watch_access("grpc", access.clone());
        let readiness = Readiness::default();
        let admin = self.admin.bind("traffic_controller.admin.listen", telemetry, &readiness)?;
        let dopplers = Dopplers::new(&self.dopplers).map_err(BindError::Dopplers)?;
        telemetry.watch_dopplers(&dopplers);
        let upstream = Upstream::new(dopplers, options, self.doppler_connections);
        Ok(Server {
            addrs: Addrs {
                http: http.addr(),
                grpc: grpc.addr(),
                gateway: gateway.addr(),
                rest: rest.addr(),
                admin: admin.addr(),
            },
            serving: readiness.latch("serving"),
            usable: readiness.latch("authorizer"),
            metrics,
            config: self,
            http,
            grpc,
            gateway,
            rest,
            admin,
            readiness,
            authorizer,
            upstream,
            access,
            identities,
            ports,
            roles: Vec::new(),
            telemetry: telemetry.clone(),
            access_log,
        })
    }
}

/// A traffic controller that is bound and serves nothing yet: connections wait.
pub struct Server {
    config: Config,
    addrs: Addrs,
    http: Listener,
    grpc: Listener,
    gateway: Listener,
    rest: Listener,
    access: Access,
    /// Certificates to look at for new files, by their keys.
    identities: Vec<(&'static str, Identity)>,
    ports: Ports,
    admin: Admin,
    readiness: Readiness,
    serving: Latch,
    /// The authorizer can tell who somebody is.
    usable: Latch,
    authorizer: Authorizer,
    upstream: Upstream,
    metrics: Metrics,
    roles: Vec<RoleInfo>,
    telemetry: Telemetry,
    access_log: Option<LogFile>,
}

/// What is to be told to whoever looks after the pipeline: what consumers' rings dropped, and who was cut. Cloning shares it.
#[derive(Clone)]
pub struct LossLedger(Metrics);

impl LossLedger {
    /// Events that were not taken yet: consumers that were cut.
    pub fn take_events(&self) -> Vec<proto::v2::Envelope> {
        self.0.notices().take()
    }

    /// Waits until there may be an event to take.
    pub async fn event(&self) {
        self.0.notices().news().await;
    }

    /// What was dropped since the last time, by consumer and source: a consumer is its `shard_id`, else `#` and a number. What there are no
    /// details of has neither.
    pub fn take(&self) -> Vec<(String, Loss)> {
        let mut told = Vec::new();
        self.0.handles().rings().for_each(|rings| rings.take_losses(&mut told));
        told
    }
}

impl std::fmt::Debug for LossLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LossLedger").finish_non_exhaustive()
    }
}

impl Server {
    /// What its consumers' rings will drop.
    pub fn losses(&self) -> LossLedger {
        LossLedger(self.metrics.clone())
    }

    /// The addresses really bound.
    pub fn addrs(&self) -> Addrs {
        self.addrs
    }

    /// Ready once it serves, and not ready from the moment it is told to stop.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Shows `roles` on the page, instead of this server's own ports.
    #[must_use]
    pub fn with_roles(self, roles: Vec<RoleInfo>) -> Self {
        Self { roles, ..self }
    }

    /// Shows the drains of the adapters whose admin port is at `adapters`, with those of the configuration.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Address) -> Self {
        self.config.adapters.push(adapters);
        self
    }

    /// Runs the server in a task of its own.
    pub fn spawn(self) -> Handle {
        Handle::spawn(self.addrs, |stop| self.serve(stop))
    }

    /// Serves until `stop`, then drains: accepts nothing new, sends consumers what is in their rings, ends their streams in form.
    /// Returns once that is done, or at the flush timeout.
    ///
    /// # Errors
    /// A server failed by itself; the others have been stopped.
    pub async fn serve(self, stop: CancellationToken) -> Result<Drained, ServeError> {
        let stop = stop.child_token();
        let _stopped_when_dropped = stop.clone().drop_guard();
        let tracker = TaskTracker::new();
        let page = page::router(&self.shown_roles(), self.authorizer.is_none());
        let Self { config, addrs, http, grpc, gateway, rest, ports, admin, readiness, serving, usable, .. } = self;
        let Self { metrics, authorizer, upstream, access, identities, telemetry, access_log, .. } = self;

        // The admin port goes last: it tells how the rest is doing.
        let (admin_tracker, admin_stop) = (TaskTracker::new(), CancellationToken::new());
        let _admin_stopped_when_dropped = admin_stop.clone().drop_guard();
        let (admin_tasks, admin_ends) = (admin_tracker.clone(), admin_stop.clone());
        admin_tracker.spawn(async move { admin.serve(&admin_tasks, admin_ends).await });
        for (key, identity) in &identities {
            identity.watch(key, &admin_tracker, admin_stop.clone());
        }

        upstream.dopplers().refresh(&tracker, &stop);
        // Keys and files that may change while it runs.
        authorizer.keep(usable, &tracker, &stop);
        let http_ports = [
            ("traffic_controller.http.tls", &ports.http),
            ("traffic_controller.gateway.tls", &ports.gateway),
            ("traffic_controller.rest.tls", &ports.rest),
        ];
        for (key, security) in http_ports {
            ports::keep_fresh(key, security, &tracker, &stop);
        }

        // Dopplers into a ring per consumer …
        let tails = Tails::start(upstream.clone(), metrics.clone(), &tracker, stop.clone());
        let (firehose, tail) = (config.ring.bounds(), config.tail_ring.bounds());
        let fan_in = |rings: &Rings, tail| {
            let room = Room { firehose, tail };
            FanIn::new(&tails, (rings.clone(), room), metrics.clone(), tracker.clone(), stop.clone())
        };
        // … and from there to gRPC,
        let rlp = Rlp::new(&config.grpc, fan_in(&metrics.handles().rlp, firehose), metrics.clone(), authorizer.clone());
        let rlp = EgressServer::new(rlp).max_encoding_message_size(MAX_MESSAGE_BYTES);
        let follower = Follower::new(upstream.clone(), tracker.clone(), stop.clone());
        let follow = FollowServer::new(follow::Service::new(follower.clone(), authorizer.clone()))
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let overview = Overview::new(
            (upstream.clone(), config.adapters.clone()),
            addrs.grpc.to_string(),
            authorizer.clone(),
            (metrics.clone(), telemetry),
        );
        let queries = Queries::new(upstream.clone(), authorizer.clone(), metrics.handles().queries.clone());
        let querier = PromQlQuerierServer::new(queries.service());
        let cache = Cache::new(upstream, authorizer.clone());
        let reads = cache.service();
        let told = OverviewServer::new(overview.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES);
        let incoming = grpc.incoming(ports.grpc, &tracker, stop.clone());
        let grpc = async {
            let server = server_builder(&config.grpc.limits).layer(access).add_service(rlp).add_service(follow);
            let server = server.add_service(told).add_service(querier).add_service(reads);
            let served = server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await;
            // By itself it ends only when it has failed: the others are not to go on without it.
            stop.cancel();
            served.map_err(|source| ServeError::Grpc { addr: addrs.grpc, source })
        };
        // to HTTP, from rings and from the caches.
        let (v1, v2) = (&metrics.handles().firehose, &metrics.handles().gateway);
        let (v1, v2) = (fan_in(v1, tail), fan_in(v2, tail));
        let configs = (config.gateway.clone(), config.http.clone());
        let streams = Gateway::new(configs, (v2, follower), metrics.clone(), authorizer.clone(), tracker.clone());
        let (guard, tasks) = (authorizer.clone(), tracker.clone());
        let firehose = Firehose::new(config.http.clone(), (v1, cache.clone()), metrics.clone(), guard, tasks);
        let lost = &metrics.handles().access_log_lost;
        let log = access_log.map(|file| AccessLog::start(file, lost.clone(), &admin_tracker, admin_stop.clone()));
        let local = authorizer.is_none();
        let services = http::Services { firehose, gateway: streams, overview, cache, queries, authorizer, page };
        let routes = services.routes(addrs, log.as_ref());
        let http = http::serve(http, ports.http, local, routes.http, &tracker, &stop);
        let gateway = http::serve(gateway, ports.gateway, local, routes.gateway, &tracker, &stop);
        let rest = http::serve(rest, ports.rest, local, routes.rest, &tracker, &stop);

        serving.ready();
        let before = Mutex::new((0, 0));
        let at_stop = async {
            stop.cancelled().await;
            readiness.stopping();
            *before.lock() = metrics.sums();
        };
        let work = async {
            let (served, (), (), (), ()) = tokio::join!(grpc, http, gateway, rest, at_stop);
            tracker.close();
            tracker.wait().await;
            served
        };
        let deadline = async {
            stop.cancelled().await;
            sleep(config.flush_timeout).await;
        };
        let served = tokio::select! {
            served = work => served,
            () = deadline => {
                // Consumers that have not taken everything by now go without.
                metrics.cut();
                Ok(())
            }
        };
        let (flushed, dropped) = *before.lock();
        admin_stop.cancel();
        admin_tracker.close();
        admin_tracker.wait().await;
        let (all_flushed, all_dropped) = metrics.sums();
        served.map(|()| Drained { flushed: all_flushed - flushed, dropped: all_dropped - dropped })
    }

    fn shown_roles(&self) -> Vec<RoleInfo> {
        if !self.roles.is_empty() && self.authorizer.is_none() {
            return self.roles.clone();
        }
        let role = |what: &str, addr: SocketAddr| RoleInfo::new("traffic-controller", what, &addr);
        let mut roles = vec![
            role("this page, firehose and app streams", self.addrs.http),
            role("reverse log proxy (gRPC)", self.addrs.grpc),
            role("gateway (server-sent events, JSON over WebSocket)", self.addrs.gateway),
            role("log cache (HTTP)", self.addrs.rest),
        ];
        // Where the page may be looked at by anybody, it shows what anybody may reach.
        if self.authorizer.is_none() {
            roles.push(role("metrics and health", self.addrs.admin));
        }
        roles
    }
}
