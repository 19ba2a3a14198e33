//! A binding cache: what Cloud Controller knows of drains, checked, for many who ask (contract: syslog drains §5).
//!
//! Cloud Controller's pages enter every minute, and the file of aggregate drains; `/v2/bindings` and `/v2/aggregate` leave, to those with a
//! certificate. What was read last with success is served until there is something newer; before the first time the answer is 503, and
//! not "there are none". What cannot be a drain is left out, counted, and told of once for as long as that lasts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use telemetry::Telemetry;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use transport::{Authorities, Backoff, Identity, Listener, LocalOnly, Security, TlsError, bind, serve_http};

pub use self::config::{BindingCacheConfig, CloudControllerConfig};
pub(crate) use self::validate::Fault;
use crate::bindings::wire::{Credential, Row};
use crate::fetch::{Service, ServiceError};
use crate::metrics::{self, BindingCacheMetrics};
use crate::policy::AddressPolicy;

mod config;
mod pages;
mod validate;

/// Shorter intervals count as this.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
/// Between two looks that fail, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A host that did not resolve is not asked for again for this long.
const UNRESOLVED_FOR: Duration = Duration::from_secs(120);
/// Hosts that are looked up at once, and for how long each.
const LOOKUPS: usize = 32;
const LOOKUP: Duration = Duration::from_secs(5);
/// The largest file of aggregate drains.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A binding cache whose port is bound; nothing runs yet.
#[derive(Debug)]
pub(crate) struct BindingCache {
    listener: Listener,
    security: Security,
    poll: Poll,
    served: Arc<Served>,
}

/// Why a binding cache cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindingCacheError {
    /// Keys of tenants in plain text.
    #[error(
        "adapters.binding_cache: without tls the keys of all bindings could be read on the way; set tls, or insecure_plaintext with a loopback address"
    )]
    Plaintext,
    /// The port cannot be bound.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Our certificate cannot be used.
    #[error("adapters.binding_cache.tls: {0}")]
    Tls(#[from] TlsError),
    /// Cloud Controller cannot be asked.
    #[error("adapters.binding_cache.cloud_controller: {0}")]
    Service(#[from] ServiceError),
    /// The file of aggregate drains cannot be used.
    #[error("adapters.binding_cache.aggregate_drains_file: {0}")]
    Aggregate(String),
}

/// The bodies of answers.
#[derive(Debug, Default)]
struct Served {
    /// Guards the body of `/v2/bindings`, none before the first look. Held to take or put a reference.
    bindings: Mutex<Option<Bytes>>,
    /// The same of `/v2/aggregate`.
    aggregate: Mutex<Bytes>,
}

/// What looks at Cloud Controller.
#[derive(Debug)]
struct Poll {
    config: BindingCacheConfig,
    service: Service,
    policy: AddressPolicy,
    none: Authorities,
    metrics: BindingCacheMetrics,
    /// When hosts did not resolve.
    unresolved: HashMap<String, Instant>,
    /// What was told of: the hash of a URL, and what is wrong with it.
    told: BTreeSet<(String, Fault)>,
    /// That the file of aggregate drains cannot be used was told.
    told_file: bool,
}

/// What one look found.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    faults: BTreeMap<Fault, usize>,
    told: BTreeSet<(String, Fault)>,
}

impl BindingCache {
    /// Reads files and binds the port. The identity, if there is one, is to be watched.
    ///
    /// # Errors
    /// [`BindingCacheError`].
    pub(crate) fn bind(
        config: BindingCacheConfig,
        telemetry: &Telemetry,
        metrics: BindingCacheMetrics,
    ) -> Result<(Self, Option<Identity>), BindingCacheError> {
        let identity = config.tls.as_ref().map(Identity::load).transpose()?;
        let security = match &identity {
            Some(identity) => Security::MutualTls(identity.clone()),
            None if config.insecure_plaintext && config.listen.ip().is_loopback() => {
                telemetry.insecure_mode("adapters.binding_cache.insecure_plaintext");
                Security::Plain
            }
            None => return Err(BindingCacheError::Plaintext),
        };
        if config.cloud_controller.url.is_exposed() {
            telemetry.insecure_mode("adapters.binding_cache.cloud_controller.url");
        }
        let ends = || metrics::service_certificate_end(telemetry, "adapters_cloud_controller");
        let CloudControllerConfig { url, tls } = &config.cloud_controller;
        let service = Service::new(url.clone(), tls.as_ref(), ends)?;
        let aggregate = aggregate(config.aggregate_drains_file.as_deref()).map_err(BindingCacheError::Aggregate)?;
        let listener = bind("adapters.binding_cache.listen", config.listen)?;
        telemetry.watch_listener("binding_cache", listener.stats());
        let poll = Poll {
            policy: AddressPolicy::new(config.addresses.clone(), "adapters.binding_cache.addresses"),
            service,
            none: Authorities::none(),
            metrics,
            unresolved: HashMap::new(),
            told: BTreeSet::new(),
            told_file: false,
            config,
        };
        let served = Arc::new(Served { bindings: Mutex::default(), aggregate: Mutex::new(aggregate) });
        Ok((Self { listener, security, poll, served }, identity))
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Serves, and looks at Cloud Controller, until `stop`.
    pub(crate) async fn run(self, tracker: TaskTracker, stop: CancellationToken) {
        let routes = Router::new()
            .route("/v2/bindings", get(bindings))
            .route("/v2/aggregate", get(aggregates))
            .with_state(Arc::clone(&self.served));
        let routes = match self.security {
            Security::Plain => LocalOnly::on(self.listener.addr()).protect(routes),
            _ => routes,
        };
        let incoming = self.listener.incoming(self.security, &tracker, stop.clone());
        let (poll, served) = (self.poll, self.served);
        tokio::join!(serve_http(incoming, routes, &tracker, &stop), poll.run(&served, &tracker, &stop));
    }
}

async fn bindings(State(served): State<Arc<Served>>) -> Response {
    let body = served.bindings.lock().clone();
    match body {
        Some(body) => json(body),
        None => (StatusCode::SERVICE_UNAVAILABLE, "bindings have not been read yet\n").into_response(),
    }
}

async fn aggregates(State(served): State<Arc<Served>>) -> Response {
    let body = served.aggregate.lock().clone();
    json(body)
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Poll {
    async fn run(mut self, served: &Served, tracker: &TaskTracker, stop: &CancellationToken) {
        let interval = self.config.poll_interval.max(LEAST_INTERVAL);
        let first = interval.min(Duration::from_millis(100));
        let mut retry = Backoff::between(first, interval.min(LONGEST_WAIT), Backoff::random_seed());
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let Some(read) = stop.run_until_cancelled(self.look(tracker)).await else { return };
            self.metrics.polled(read.is_ok(), begun.elapsed());
            let url = &self.config.cloud_controller.url;
            let wait = match read {
                Ok(found) => {
                    if std::mem::take(&mut failing) {
                        info!(%url, "Cloud Controller is read again");
                    }
                    self.metrics.found(found.rows.len(), &found.faults);
                    self.told = found.told;
                    *served.bindings.lock() = Some(body(&found.rows));
                    retry.reset();
                    interval
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%url, error, "Cloud Controller cannot be read; what it said last is served");
                    }
                    retry.next_wait().max(LEAST_INTERVAL)
                }
            };
            let renew = move || {
                self.service.renew();
                let aggregate = aggregate(self.config.aggregate_drains_file.as_deref());
                (self, aggregate)
            };
            let aggregate;
            (self, aggregate) = match tracker.spawn_blocking(renew).await {
                Ok(renewed) => renewed,
                Err(error) => {
                    error!(%error, "Cloud Controller is read no more, a defect of hydrant");
                    return;
                }
            };
            match aggregate {
                Ok(body) => {
                    self.told_file = false;
                    *served.aggregate.lock() = body;
                }
                Err(error) if !std::mem::replace(&mut self.told_file, true) => {
                    warn!(error, "The file of aggregate drains cannot be used; what it said last is served");
                }
                Err(_) => {}
            }
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&mut self, tracker: &TaskTracker) -> Result<Found, String> {
        let rows = pages::read(&mut self.service, self.config.batch_size.get()).await?;
        let mut found = Found::default();
        let mut sound = Vec::new();
        for row in rows {
            match validate::url(&row) {
                Ok(url) => sound.push((row, url)),
                Err(fault) => self.tell(&mut found, &row.url, "", fault),
            }
        }
        let hosts: BTreeSet<&str> = sound.iter().map(|(_, url)| url.address.host()).collect();
        let hosts = self.resolve(hosts.into_iter().map(str::to_owned).collect()).await;
        let mut addressed = Vec::new();
        for (row, url) in sound {
            match hosts.get(url.address.host()).map_or(Ok(()), |addrs| validate::addresses(addrs, &self.policy)) {
                Ok(()) => addressed.push((row, url.anonymised())),
                Err(fault) => self.tell(&mut found, &row.url, &url.anonymised(), fault),
            }
        }
        let none = self.none.clone();
        let check = move || {
            let mut faults = Vec::new();
            for (row, url) in &mut addressed {
                let whole = row.url.clone();
                validate::credentials(row, &none, |fault| faults.push((whole.clone(), url.clone(), fault)));
            }
            (addressed, faults)
        };
        let (checked, faults) =
            tracker.spawn_blocking(check).await.map_err(|error| format!("a defect of hydrant: {error}"))?;
        for (whole, url, fault) in faults {
            self.tell(&mut found, &whole, &url, fault);
        }
        found.rows = checked.into_iter().map(|(row, _)| row).filter(|row| !row.credentials.is_empty()).collect();
        Ok(found)
    }

    /// The addresses of hosts; none of those that are not to be looked up.
    async fn resolve(&mut self, hosts: Vec<String>) -> HashMap<String, Result<Vec<IpAddr>, String>> {
        let now = Instant::now();
        self.unresolved.retain(|_, since| now.saturating_duration_since(*since) < UNRESOLVED_FOR);
        let (mut found, mut ask) = (HashMap::new(), Vec::new());
        for host in hosts {
            match host.parse() {
                Ok(literal) => drop(found.insert(host, Ok(vec![literal]))),
                Err(_) if !self.config.resolve => {}
                Err(_) if self.unresolved.contains_key(&host) => {
                    let text = "its host did not resolve less than two minutes ago".to_owned();
                    found.insert(host, Err(text));
                }
                Err(_) => ask.push(host),
            }
        }
        let mut answers = futures_util::stream::iter(ask).map(look_up).buffer_unordered(LOOKUPS);
        while let Some((host, answer)) = answers.next().await {
            if answer.is_err() {
                self.unresolved.insert(host.clone(), now);
            }
            found.insert(host, answer);
        }
        found
    }

    fn tell(&self, found: &mut Found, whole: &str, url: &str, (fault, error): validate::Found) {
        *found.faults.entry(fault).or_default() += 1;
        let told = (metrics::label(whole), fault);
        if !self.told.contains(&told) && !found.told.contains(&told) {
            warn!(url, reason = fault.as_str(), error, "A binding that Cloud Controller knows of can be no drain");
        }
        found.told.insert(told);
    }
}

async fn look_up(host: String) -> (String, Result<Vec<IpAddr>, String>) {
    let answer = match timeout(LOOKUP, tokio::net::lookup_host((host.as_str(), 0))).await {
        Ok(Ok(addrs)) => Ok(addrs.map(|addr| addr.ip()).collect::<Vec<_>>()),
        Ok(Err(error)) => Err(format!("its host does not resolve: {error}")),
        Err(_) => Err(format!("its host does not resolve within {} s", LOOKUP.as_secs())),
    };
    let answer = answer.and_then(|addrs| match addrs.is_empty() {
        true => Err("its host has no address".to_owned()),
        false => Ok(addrs),
    });
    (host, answer)
}

fn body(rows: &[Row]) -> Bytes {
    serde_json::to_vec(rows).expect("texts and lists are always JSON").into()
}

/// The body of `/v2/aggregate`: `null` without drains, as the original says it.
fn aggregate(file: Option<&Path>) -> Result<Bytes, String> {
    let rows = file.map(read_aggregate).transpose()?.unwrap_or_default();
    Ok(if rows.is_empty() { Bytes::from_static(b"null") } else { body(&rows) })
}

/// One entry of the file.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Aggregate {
    url: String,
    cert: String,
    key: String,
    ca: String,
}

fn read_aggregate(path: &Path) -> Result<Vec<Row>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(|error| failed(&error))?.len() > MAX_FILE {
        return Err(failed(&format!("it has more than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    // What the reader says shows what it read, which may be a key.
    let list: Option<Vec<Aggregate>> = serde_saphyr::from_str(&text).map_err(|error| {
        let place = error.location().map(|at| format!(" at line {}", at.line())).unwrap_or_default();
        failed(&format!("it is no YAML list of drains with url, cert, key and ca{place}"))
    })?;
    let rows = list.into_iter().flatten().filter(|drain| !drain.url.is_empty());
    Ok(rows
        .map(|Aggregate { url, cert, key, ca }| Row {
            url,
            credentials: vec![Credential { cert, key, ca, apps: None }],
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_original_becomes_the_body_of_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aggregate.yml");
        let body = |text: &str| {
            std::fs::write(&path, text).unwrap();
            aggregate(Some(&path)).map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        let text = "---\n- url: syslog-tls://logs.example:6514?include-metrics-deprecated=true\n  ca: |\n    -----BEGIN\n    x\n  cert: \"\"\n  key: \"\"\n- url: \"\"\n";
        let golden = r#"[{"url":"syslog-tls://logs.example:6514?include-metrics-deprecated=true","credentials":[{"cert":"","key":"","ca":"-----BEGIN\nx\n","apps":null}]}]"#;
        assert_eq!(body(text).unwrap(), golden);
        for none in ["", "[]", "---\n", "- url: \"\"\n"] {
            assert_eq!(body(none).as_deref(), Ok("null"), "{none:?}");
        }
        assert_eq!(aggregate(None).unwrap(), "null");
        let error = body("- url: [canary]\n").unwrap_err();
        assert!(error.contains("aggregate.yml: it is no YAML list of drains") && !error.contains("canary"), "{error}");
    }
}
