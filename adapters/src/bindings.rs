//! The drains that a binding cache knows of: `GET /v2/bindings` and `/v2/aggregate` (contract: syslog drains §3.3, §5).
//!
//! Rows enter every minute or two; drains come, change and go in [`Drains`]. A binding that goes delivers what it has. While the cache does
//! not answer, all stays as it is. A binding that cannot be a drain is told of once, to its owner too, and tried again each time. Never reads a log line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use telemetry::Telemetry;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tracing::{debug, error, info, warn};
use transport::{Authorities, Backoff, TlsError};

pub use self::config::BindingsConfig;
pub(crate) use self::plan::Invalid;
use self::plan::{Plan, Wanted};
use self::wire::Row;
use crate::drains::{Drains, Origin, Prepared};
use crate::fetch::{Service, ServiceError};
use crate::metrics::{self, BindingMetrics};
use crate::notice;
use crate::policy::AddressPolicy;

mod config;
mod plan;
pub(crate) mod wire;

/// Shorter intervals count as this.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
/// Owners that are told of in one go at most, and may wait to be.
const UNTOLD: usize = 1_000;
/// How often they are told at most, when the agent does not say that it took it.
const TRIES: u32 = 3;
/// Between two looks that fail, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A binding cache, and what to make of what it says. Nothing runs yet.
#[derive(Debug)]
pub(crate) struct Bindings {
    config: BindingsConfig,
    service: Service,
    base: Authorities,
    policy: Arc<AddressPolicy>,
    metrics: BindingMetrics,
    apps: Kept,
    aggregates: Kept,
    /// What owners have still to be told: apps, and texts; and how often that failed.
    untold: Vec<(String, String)>,
    failures: u32,
}

/// Why bindings cannot be read, whatever the cache says.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// The cache cannot be asked.
    #[error("adapters.bindings: {0}")]
    Service(#[from] ServiceError),
    /// The authorities cannot be used.
    #[error("adapters.bindings.trusted_ca: {0}")]
    TrustedCa(#[from] TlsError),
}

/// The drains of one kind.
#[derive(Debug, Default)]
struct Kept {
    running: BTreeMap<String, Wanted>,
    /// Those that were told of.
    refused: BTreeSet<String>,
}

/// What the cache said, of each kind. `None`: it was not asked.
struct Said {
    apps: Result<Vec<Row>, String>,
    aggregates: Option<Result<Vec<Row>, String>>,
}

impl Bindings {
    /// Reads certificate files.
    ///
    /// # Errors
    /// [`BindingsError`].
    pub(crate) fn new(
        config: BindingsConfig,
        telemetry: &Telemetry,
        metrics: BindingMetrics,
    ) -> Result<Self, BindingsError> {
        let ends = || metrics::service_certificate_end(telemetry, "adapters_bindings");
        let service = Service::new(config.url.clone(), config.tls.as_ref(), ends)?;
        if config.url.is_exposed() {
            telemetry.insecure_mode("adapters.bindings.url");
        }
        let base = Authorities::of_system_and(config.trusted_ca.as_deref())?;
        let policy = Arc::new(AddressPolicy::new(config.addresses.clone(), "adapters.bindings.addresses"));
        Ok(Self {
            config,
            service,
            base,
            policy,
            metrics,
            apps: Kept::default(),
            aggregates: Kept::default(),
            untold: Vec::new(),
            failures: 0,
        })
    }

    /// Looks until `stop`. Owners are told by way of `agent`.
    pub(crate) async fn run(mut self, drains: Drains, agent: Channel, tracker: TaskTracker, stop: CancellationToken) {
        let interval = self.config.interval.max(LEAST_INTERVAL);
        let between = |first, last| Backoff::between(first, last, Backoff::random_seed());
        let rest = interval + between(interval, interval).next_wait();
        let mut retry = between(interval.min(Duration::from_millis(100)), interval.min(LONGEST_WAIT));
        let mut failing = false;
        loop {
            let begun = Instant::now();
            let Some(said) = stop.run_until_cancelled(self.ask()).await else { return };
            let failed = said.failed();
            let put = drains.clone();
            let settle = move || {
                self.settle(said, &put);
                self
            };
            self = match tracker.spawn_blocking(settle).await {
                Ok(bindings) => bindings,
                Err(error) => {
                    error!(%error, "Bindings are read no more, a defect of hydrant");
                    return;
                }
            };
            if stop.run_until_cancelled(self.tell_owners(&agent)).await.is_none() {
                return;
            }
            self.metrics.refreshed(failed.is_none(), begun.elapsed());
            let wait = match failed {
                Some(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        warn!(url = %self.config.url, error, "Bindings cannot be read; their drains stay as they are");
                    }
                    retry.next_wait().max(LEAST_INTERVAL)
                }
                None => {
                    if std::mem::take(&mut failing) {
                        info!(url = %self.config.url, "Bindings are read again");
                    }
                    retry.reset();
                    rest
                }
            };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// What the agent does not take now it is told again after the next look, a few times: it may have taken it and not said so.
    async fn tell_owners(&mut self, agent: &Channel) {
        if self.untold.is_empty() {
            return;
        }
        match notice::tell(agent, &self.untold).await {
            Ok(()) => self.failures = TRIES,
            Err(error) => {
                debug!(%error, "The agent did not take what owners of bindings are to be told");
                self.failures += 1;
            }
        }
        if self.failures >= TRIES {
            self.untold.clear();
            self.failures = 0;
        }
    }

    async fn ask(&mut self) -> Said {
        let apps = self.rows("/v2/bindings").await;
        let aggregates = if self.config.aggregate { Some(self.rows("/v2/aggregate").await) } else { None };
        Said { apps, aggregates }
    }

    async fn rows(&mut self, path: &str) -> Result<Vec<Row>, String> {
        let body = self.service.get(path).await.map_err(|error| error.to_string())?;
        wire::read(&body).map_err(|error| format!("{path}: {error}"))
    }

    /// Makes drains what the cache said. Blocks for as long as it takes to read certificates.
    fn settle(&mut self, said: Said, drains: &Drains) {
        if let Ok(rows) = said.apps {
            let plan = Plan::of_apps(rows, self.config.limit_per_app);
            let mut kept = std::mem::take(&mut self.apps);
            let policy = Arc::clone(&self.policy);
            self.follow(&mut kept, plan, Some(&policy), self.config.max_bindings, drains);
            self.apps = kept;
        }
        if let Some(Ok(rows)) = said.aggregates {
            let mut kept = std::mem::take(&mut self.aggregates);
            // The operator's own: they go where they are sent.
            self.follow(&mut kept, Plan::of_aggregates(rows), None, usize::MAX, drains);
            self.aggregates = kept;
        }
        self.metrics.running(self.apps.running.len() + self.aggregates.running.len());
        self.service.renew();
    }

    fn follow(
        &mut self,
        kept: &mut Kept,
        plan: Plan,
        policy: Option<&Arc<AddressPolicy>>,
        most: usize,
        drains: &Drains,
    ) {
        let gone = kept.running.keys().filter(|name| !plan.wanted.contains_key(*name)).cloned().collect::<Vec<_>>();
        let mut room = most.saturating_sub(kept.running.len() - gone.len());
        let (mut refused, mut untold) = (BTreeSet::new(), Vec::new());
        let mut refuse = |name: String, wanted: &Wanted, reason: Invalid, error: &str| {
            if !kept.refused.contains(&name) {
                self.metrics.invalid(reason);
                warn!(drain = name, app = wanted.app_id(), reason = reason.as_str(), error, "A binding has no drain");
                untold.extend(wanted.told(reason));
            }
            refused.insert(name);
        };
        for (name, wanted) in plan.wanted {
            let is_new = match kept.running.get(&name) {
                Some(running) if *running == wanted => continue,
                running => running.is_none(),
            };
            if is_new && room == 0 {
                refuse(name, &wanted, Invalid::Limit, "there are as many as adapters.bindings.max_bindings allows");
                continue;
            }
            match self.start(&name, &wanted, policy, drains) {
                Ok(()) => {
                    room -= usize::from(is_new);
                    kept.running.insert(name, wanted);
                }
                Err((reason, error)) => refuse(name, &wanted, reason, &error),
            }
        }
        for (name, wanted) in plan.too_many {
            refuse(name, &wanted, Invalid::AppLimit, "the app has as many as adapters.bindings.limit_per_app allows");
        }
        kept.refused = refused;
        if self.config.tell_owners {
            untold.truncate(UNTOLD.saturating_sub(self.untold.len()));
            self.untold.append(&mut untold);
        }
        // Last: one whose credential changed goes on under another name, and misses nothing between the two.
        for name in gone {
            kept.running.remove(&name);
            if let Err(error) = drains.remove(&name, Origin::Binding) {
                warn!(drain = name, %error, "The drain of a binding that is gone cannot be taken away");
            }
        }
    }

    fn start(
        &self,
        name: &str,
        wanted: &Wanted,
        policy: Option<&Arc<AddressPolicy>>,
        drains: &Drains,
    ) -> Result<(), (Invalid, String)> {
        let config = wanted.drain(name, self.config.default_metadata, &self.config.ring)?;
        let prepared = Prepared::of_binding(config, wanted.texts(), &self.base, policy.cloned());
        let prepared = prepared.map_err(|error| (Invalid::of(&error), error.to_string()))?;
        drains.put(prepared, Origin::Binding).map_err(|error| (Invalid::Name, error.to_string()))?;
        Ok(())
    }
}

impl Said {
    /// The first thing that went wrong.
    fn failed(&self) -> Option<String> {
        let failed = |said: &Result<Vec<Row>, String>| said.as_ref().err().cloned();
        failed(&self.apps).or_else(|| self.aggregates.as_ref().and_then(failed))
    }
}
