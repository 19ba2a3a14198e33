//! The admin endpoint of a role: `/metrics`, `/live` and `/ready`.
//!
//! What enters: HTTP requests on a port of its own, guarded against web pages. What leaves: numbers and states; never
//! an envelope, never a secret. Config → bind → serve, like every server here.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{BindError, Listener, LocalOnly, Security, bind, serve_http};

use crate::readiness::Readiness;
use crate::registry::Telemetry;

/// The text format that Prometheus has read since 2014.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The `[admin]` table of a role whose usual admin port is `PORT`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(from = "Written")]
pub struct AdminConfig<const PORT: u16> {
    /// Where to listen; the role's port on 127.0.0.1. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// On another address than loopback: answer `/metrics` whatever name it is asked under, so that a Prometheus on
    /// another machine can scrape it. Nothing checks who asks. False. Shows as `hydrant_insecure_mode`.
    pub insecure_metrics_for_any_host: bool,
}

impl<const PORT: u16> Default for AdminConfig<PORT> {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, PORT).into(), insecure_metrics_for_any_host: false }
    }
}

impl<const PORT: u16> AdminConfig<PORT> {
    /// The defaults on any free port of 127.0.0.1, for tests and for several of one role in a process.
    pub fn any_port() -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..Self::default() }
    }

    /// Binds the endpoint; nothing is answered yet. Must be called within a tokio runtime. `key` is the configuration
    /// key of `listen`, such as `doppler.admin.listen`, for errors.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub fn bind(&self, key: &'static str, telemetry: &Telemetry, readiness: &Readiness) -> Result<Admin, BindError> {
        let listener = bind(key, self.listen)?;
        let mut guard = LocalOnly::on(listener.addr());
        if self.insecure_metrics_for_any_host {
            guard = guard.opening("/metrics");
            telemetry.insecure_mode("metrics_for_any_host");
        }
        telemetry.watch_listener("admin", listener.stats());
        Ok(Admin { listener, guard, telemetry: telemetry.clone(), readiness: readiness.clone(), more: Router::new() })
    }
}

/// The table as written: serde's container default does not know const generics.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    listen: Option<SocketAddr>,
    insecure_metrics_for_any_host: bool,
}

impl<const PORT: u16> From<Written> for AdminConfig<PORT> {
    fn from(written: Written) -> Self {
        Self {
            listen: written.listen.unwrap_or(Self::default().listen),
            insecure_metrics_for_any_host: written.insecure_metrics_for_any_host,
        }
    }
}

/// A bound admin endpoint.
#[derive(Debug)]
pub struct Admin {
    listener: Listener,
    guard: LocalOnly,
    telemetry: Telemetry,
    readiness: Readiness,
    more: Router,
}

impl Admin {
    /// The address really bound.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Answers `routes` too, behind the same guard.
    #[must_use]
    pub fn with(self, routes: Router) -> Self {
        Self { more: self.more.merge(routes), ..self }
    }

    /// Answers until `stop`, and keeps the registry in order meanwhile. Connections run on `tracker`.
    ///
    /// Stop it after everything else, so that `/ready` and the last numbers can be read while the role drains.
    pub async fn serve(self, tracker: &TaskTracker, stop: CancellationToken) {
        let telemetry = self.telemetry.clone();
        let routes = Arc::new(Routes { telemetry: self.telemetry, readiness: self.readiness });
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/live", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .fallback(|| async { (StatusCode::NOT_FOUND, "not found; this port answers /metrics, /live and /ready\n") })
            .with_state(routes)
            .merge(self.more);
        let incoming = self.listener.incoming(Security::Plain, tracker, stop.clone());
        let serve = serve_http(incoming, self.guard.protect(router), tracker, &stop);
        tokio::join!(serve, telemetry.upkeep(&stop));
    }
}

struct Routes {
    telemetry: Telemetry,
    readiness: Readiness,
}

async fn metrics(State(routes): State<Arc<Routes>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, EXPOSITION)], routes.telemetry.render())
}

async fn ready(State(routes): State<Arc<Routes>>) -> Response {
    let missing = routes.readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_roles_port_on_loopback_and_a_table_keeps_it() {
        let config: AdminConfig<14825> = toml::from_str("insecure_metrics_for_any_host = true").unwrap();
        assert_eq!(config.listen, "127.0.0.1:14825".parse().unwrap());
        assert!(config.insecure_metrics_for_any_host);
        assert_eq!(AdminConfig::<1>::any_port().listen.port(), 0);
        assert!(toml::from_str::<AdminConfig<1>>("port = 5").unwrap_err().to_string().contains("listen"));
    }
}
