//! The HTTP ports: what stands on which, in the access log, and guarded where nobody is asked who they are.
//!
//! What enters: the services that answer, and bound listeners. What leaves: served connections.

use std::net::SocketAddr;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Listener, LocalOnly, Security, serve_http};

use super::Addrs;
use crate::access_log::AccessLog;
use crate::auth::Authorizer;
use crate::firehose::{Firehose, not_found};
use crate::gateway::Gateway;
use crate::login;
use crate::overview::Overview;
use crate::prometheus::Queries;
use crate::recent::Cache;

/// The products under which the originals log.
const TRAFFIC_CONTROLLER: &str = "loggregator_trafficcontroller";
pub(super) const LOG_CACHE: &str = "log_cache";

/// What answers over HTTP.
pub(super) struct Services {
    pub(super) firehose: Firehose,
    pub(super) gateway: Gateway,
    pub(super) overview: Overview,
    pub(super) cache: Cache,
    pub(super) queries: Queries,
    pub(super) authorizer: Authorizer,
    pub(super) page: Router,
}

/// The routes of each port.
pub(super) struct Routes {
    pub(super) http: Router,
    pub(super) gateway: Router,
    pub(super) rest: Router,
}

impl Services {
    /// What stands on each port of `addrs`; requests are noted in `log`, if there is one.
    pub(super) fn routes(self, addrs: Addrs, log: Option<&AccessLog>) -> Routes {
        let Self { firehose, gateway, overview, cache, queries, authorizer, page } = self;
        // The page finds everything under its own origin.
        let http = firehose
            .router()
            .merge(gateway.routes())
            .merge(overview.router())
            .merge(cache.routes())
            .merge(queries.routes());
        let http = http.merge(login::router(authorizer)).merge(page).fallback(not_found);
        let logged = |routes: Router, product: &'static str, addr: SocketAddr| match log {
            Some(log) => log.around(routes, product, addr),
            None => routes,
        };
        Routes {
            http: logged(http, TRAFFIC_CONTROLLER, addrs.http),
            gateway: logged(gateway.router().fallback(not_found), TRAFFIC_CONTROLLER, addrs.gateway),
            rest: logged(queries.router().merge(cache.router()), LOG_CACHE, addrs.rest),
        }
    }
}

/// Serves `routes` on a port. Without authentication (`local`) it is guarded against web pages.
pub(super) async fn serve(
    listener: Listener,
    security: Security,
    local: bool,
    mut routes: Router,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    if local {
        let guard = LocalOnly::on(listener.addr());
        let guard = if matches!(security, Security::Https(_)) { guard.over_tls() } else { guard };
        routes = guard.protect(routes);
    }
    let incoming = listener.incoming(security, tracker, stop.clone());
    serve_http(incoming, routes, tracker, stop).await;
}
