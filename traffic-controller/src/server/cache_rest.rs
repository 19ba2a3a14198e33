//! The log cache over HTTP in front of one cache, for a cache node of its own: what stands on the `rest` port of a traffic controller, and
//! nothing else.
//!
//! What enters: the node's configuration of the port, the authorizer's of the traffic controller, and the way to the node's gRPC port. What
//! leaves: served connections.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use telemetry::{Latch, Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Address, ChannelOptions, Dopplers, Listener, Security, bind};

use super::BindError;
use super::http::{LOG_CACHE, serve};
use super::ports::{HttpPort, keep_fresh};
use crate::access_log::{AccessLog, LogFile};
use crate::auth::Authorizer;
use crate::config::{Config, RestConfig};
use crate::metrics::{AuthMetrics, QueryMetrics, access_log_lost};
use crate::prometheus::Queries;
use crate::recent::Cache;
use crate::upstream::Upstream;

/// A bound port that answers nothing yet.
pub struct CacheRest {
    listener: Listener,
    security: Security,
    authorizer: Authorizer,
    /// The authorizer can tell who somebody is.
    usable: Latch,
    access_log: Option<(LogFile, metrics::Counter)>,
    queries: QueryMetrics,
}

impl std::fmt::Debug for CacheRest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheRest").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl CacheRest {
    /// What can be found out without opening a file or a port. Of `readers` the authorizer counts, and the access log.
    ///
    /// # Errors
    /// The port would ask nobody who they are and can be reached from other machines, or would take tokens in plain text; or the
    /// authorizer lacks something.
    pub fn check(rest: &RestConfig, readers: &Config) -> Result<(), BindError> {
        readers.check_authorizer()?;
        HttpPort::of_cache(rest).check(readers.authorizer)
    }

    /// Binds the port. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`check`](Self::check); the port is taken; a file cannot be used.
    pub fn bind(
        rest: &RestConfig,
        readers: &Config,
        telemetry: &Telemetry,
        readiness: &Readiness,
    ) -> Result<Self, BindError> {
        Self::check(rest, readers)?;
        let authorizer = Authorizer::of(readers, telemetry, AuthMetrics::register(telemetry))?;
        let security = HttpPort::of_cache(rest).security(telemetry)?;
        let lost = access_log_lost(telemetry);
        let access_log = match &readers.access_log {
            None => None,
            Some(path) => {
                let file = LogFile::open(path);
                Some((file.map_err(|source| BindError::AccessLog { path: path.clone(), source })?, lost))
            }
        };
        let listener = bind("log_cache.rest.listen", rest.listen)?;
        telemetry.watch_listener("log_cache_rest", listener.stats());
        Ok(Self {
            listener,
            security,
            authorizer,
            usable: readiness.latch("authorizer"),
            access_log,
            queries: QueryMetrics::register(telemetry),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Answers out of the cache at `node` until `stop`, then what was asked by then.
    pub async fn serve(self, node: Address, options: ChannelOptions, stop: CancellationToken) {
        let Self { listener, security, authorizer, usable, access_log, queries } = self;
        let tracker = TaskTracker::new();
        let (log_tracker, log_stop) = (TaskTracker::new(), CancellationToken::new());
        authorizer.keep(usable, &tracker, &stop);
        keep_fresh("log_cache.rest.tls", &security, &tracker, &stop);
        let local = authorizer.is_none();
        let upstream = Upstream::new(Dopplers::fixed([node]), options, NonZeroUsize::MIN);
        let queries = Queries::new(upstream.clone(), authorizer.clone(), queries);
        let mut routes = queries.router().merge(Cache::new(upstream, authorizer).router());
        if let Some((file, lost)) = access_log {
            routes =
                AccessLog::start(file, lost, &log_tracker, log_stop.clone()).around(routes, LOG_CACHE, listener.addr());
        }
        serve(listener, security, local, routes, &tracker, &stop).await;
        tracker.close();
        tracker.wait().await;
        log_stop.cancel();
        log_tracker.close();
        log_tracker.wait().await;
    }
}
