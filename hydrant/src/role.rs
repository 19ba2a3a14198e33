//! One role alone in its process.

use std::io;

use anyhow::{Context, anyhow};
use serde_json::json;
use telemetry::{Readiness, Telemetry};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::cache_node::{self, CacheNode};
use crate::classic::{self, Sink};
use crate::cli::{Failure, Served, runtime, say};
use crate::config::Config;
use crate::signal::{Signals, notify_ready};
use crate::state;

/// What a process can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Agent,
    Doppler,
    TrafficController,
    Adapters,
    LogCache,
}

impl Role {
    /// Every one.
    pub(crate) const ALL: [Self; 5] =
        [Self::Agent, Self::Doppler, Self::TrafficController, Self::Adapters, Self::LogCache];

    /// The tables of the configuration that have its addresses.
    pub(crate) fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["agent"],
            Self::Doppler => &["doppler"],
            Self::TrafficController => &["traffic_controller"],
            Self::Adapters => &["adapters"],
            Self::LogCache => &["log_cache"],
        }
    }
}

/// Runs a role until it is told to stop, then drains it.
pub(crate) fn run(role: Role, served: &Served) -> Result<(), Failure> {
    let mut config = Config::load(served.config.as_deref(), std::env::vars_os())?;
    config.check_listens(role.tables()).map_err(|error| Failure::Wrong(error.into()))?;
    telemetry::init(&config.log(), None).map_err(|error| Failure::Wrong(error.into()))?;
    if role == Role::Adapters {
        state::set(&mut config);
    }
    transport::install_crypto_provider();
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(role, config, served.print_addrs));
    // Whatever still runs was abandoned at a deadline, or by a second signal.
    runtime.shutdown_background();
    outcome
}

async fn serve(role: Role, config: Config, print_addrs: bool) -> Result<(), Failure> {
    let telemetry = Telemetry::default();
    let (stop, grace) = (CancellationToken::new(), config.stop.grace);
    let signals = Signals::listen().context("cannot listen for signals")?;
    let wrong = |error: anyhow::Error| Failure::Wrong(error);
    let told = stop.clone();
    let tell = |addrs: serde_json::Value| {
        if print_addrs {
            say(&mut io::stdout(), &addrs.to_string());
        }
    };
    let tasks = TaskTracker::new();
    let numbers = match role {
        Role::Doppler => Some((classic::DOPPLER, config.self_metrics.doppler_interval)),
        Role::TrafficController => Some((classic::REVERSE_LOG_PROXY, config.self_metrics.reverse_log_proxy_interval)),
        Role::Agent | Role::Adapters | Role::LogCache => None,
    };
    let sink = numbers.as_ref().map_or(Ok(None), |_| Sink::of(&config.self_metrics)).map_err(wrong)?;
    if let (Some((numbers, every)), Some(sink)) = (numbers, &sink) {
        tasks.spawn(classic::run(numbers, telemetry.clone(), sink.clone(), every, stop.clone()));
    }
    macro_rules! serve {
        ($config:expr, |$addrs:ident| $json:expr) => {
            serve!($config, |$addrs| $json, |_server| ())
        };
        ($config:expr, |$addrs:ident| $json:expr, |$server:ident| $bound:expr) => {{
            let server = $config.bind(&telemetry).await.map_err(|error| wrong(error.into()))?;
            let $server = &server;
            $bound;
            let ($addrs, readiness) = (server.addrs(), server.readiness());
            tell($json);
            let served = server.serve(stop);
            tokio::select! {
                () = ready(&readiness) => unreachable!("telling goes on"),
                drained = served => {
                    let drained = drained.map_err(|error| anyhow!(error))?;
                    info!(flushed = drained.flushed, dropped = drained.dropped, "Stopped");
                    Ok(())
                }
                () = signals.cancel(|| readiness.stopping(), grace, told) => Err(Failure::Failed(anyhow!("told to stop twice; stopped without delivering the rest"))),
            }
        }};
    }
    match role {
        Role::Agent => serve!(config.agent, |addrs| agent(&addrs), |server| {
            let (sink, every) = (Sink::Local(Box::new(server.local())), config.self_metrics.agent_interval);
            tasks.spawn(classic::run(classic::AGENT, telemetry.clone(), sink, every, told.clone()));
        }),
        Role::Doppler => serve!(config.doppler, |addrs| doppler(addrs)),
        Role::TrafficController => serve!(config.traffic_controller, |addrs| traffic_controller(addrs), |server| {
            if let Some(sink) = sink {
                tasks.spawn(classic::tell_losses(server.losses(), sink, told.clone()));
            }
        }),
        Role::Adapters => serve!(config.adapters, |addrs| adapters(addrs)),
        Role::LogCache => {
            serve!(CacheNode::new(config.log_cache, config.traffic_controller), |addrs| log_cache(addrs))
        }
    }
}

/// Tells the service manager once the role is ready. Never ends.
async fn ready(readiness: &Readiness) {
    if readiness.wait().await {
        notify_ready().await;
    }
    std::future::pending().await
}

pub(crate) fn agent(addrs: &agent::Addrs) -> serde_json::Value {
    json!({ "grpc": addrs.grpc, "statsd": addrs.statsd, "dropsonde": addrs.dropsonde, "syslog": addrs.syslog, "admin": addrs.admin })
}

pub(crate) fn doppler(addrs: doppler::Addrs) -> serde_json::Value {
    json!({
        "grpc": addrs.grpc,
        "cache_grpc": addrs.cache_grpc,
        "cache_syslog": addrs.cache_syslog,
        "admin": addrs.admin,
    })
}

pub(crate) fn traffic_controller(addrs: traffic_controller::Addrs) -> serde_json::Value {
    json!({
        "http": addrs.http,
        "grpc": addrs.grpc,
        "gateway": addrs.gateway,
        "rest": addrs.rest,
        "admin": addrs.admin,
    })
}

pub(crate) fn adapters(addrs: adapters::Addrs) -> serde_json::Value {
    json!({ "admin": addrs.admin })
}

fn log_cache(cache_node::Addrs { node, rest }: cache_node::Addrs) -> serde_json::Value {
    json!({ "grpc": node.grpc, "syslog": node.syslog, "rest": rest, "admin": node.admin })
}
