//! The whole pipeline in one process: the doppler first, then those that send to it and read from it; stopped in the direction in
//! which envelopes flow, so that each role's last envelopes still find the next role.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use serde_json::json;
use telemetry::{Readiness, Telemetry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use traffic_controller::RoleInfo;
use transport::DopplerSet;

use crate::classic::{self, SelfMetricsConfig, Sink};
use crate::cli::{Failure, Served, runtime, say};
use crate::config::Config;
use crate::role;
use crate::self_source::{self, Lines};
use crate::signal::{Signals, notify_ready};
use crate::state;

/// A running pipeline.
#[derive(Debug)]
pub struct Up {
    agent: agent::Handle,
    doppler: doppler::Handle,
    traffic_controller: traffic_controller::Handle,
    adapters: adapters::Handle,
    /// Stops the pipeline's own source.
    own: CancellationToken,
    tasks: TaskTracker,
    readiness: Vec<Readiness>,
}

/// What became of the envelopes in hand when a pipeline was told to stop, summed over its roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Handed on.
    pub flushed: u64,
    /// Left behind at a deadline, counted in the metrics of the role that had them.
    pub dropped: u64,
}

/// Starts every role on the addresses of `config`, connected to each other, whatever dopplers it names. `lines` is the process's own
/// log, as far as it is to be a source.
///
/// # Errors
/// The first address that cannot be bound or file that cannot be used, with its key.
pub async fn up(config: Config, lines: Option<Lines>) -> anyhow::Result<Up> {
    let telemetry = ["doppler", "agent", "traffic-controller", "adapters"].map(|role| (role, Telemetry::default()));
    let doppler = config.doppler.bind(&telemetry[0].1).await?;
    let dopplers = vec![DopplerSet::of([doppler.addrs().grpc])];

    let agent = agent::Config { dopplers: dopplers.clone(), ..config.agent };
    let agent = agent.bind(&telemetry[1].1).await?;
    let traffic_controller = traffic_controller::Config { dopplers: dopplers.clone(), ..config.traffic_controller };
    let traffic_controller = traffic_controller.bind(&telemetry[2].1).await?;
    let adapters = adapters::Config { dopplers, agent: agent.addrs().grpc.into(), ..config.adapters };
    let adapters = adapters.bind(&telemetry[3].1).await?;

    let rows = rows(&agent.addrs(), &doppler.addrs(), &traffic_controller.addrs(), &adapters.addrs());
    let roles =
        rows.into_iter().map(|row| RoleInfo { name: row.role.into(), what: row.what.into(), address: row.addresses });
    let traffic_controller = traffic_controller.with_roles(roles.collect());
    let traffic_controller = traffic_controller.with_adapters(adapters.addrs().admin.into());

    let (own, tasks) = (CancellationToken::new(), TaskTracker::new());
    if let Some(lines) = lines {
        tasks.spawn(self_source::run(lines, telemetry.to_vec(), agent.local(), own.clone()));
        let SelfMetricsConfig { doppler_interval, agent_interval, reverse_log_proxy_interval, .. } =
            config.self_metrics;
        let sink = Sink::Local(Box::new(agent.local()));
        tasks.spawn(classic::tell_losses(traffic_controller.losses(), sink.clone(), own.clone()));
        for (numbers, (_, telemetry), every) in [
            (classic::DOPPLER, &telemetry[0], doppler_interval),
            (classic::AGENT, &telemetry[1], agent_interval),
            (classic::REVERSE_LOG_PROXY, &telemetry[2], reverse_log_proxy_interval),
        ] {
            tasks.spawn(classic::run(numbers, telemetry.clone(), sink.clone(), every, own.clone()));
        }
    }
    let readiness = vec![agent.readiness(), doppler.readiness(), traffic_controller.readiness(), adapters.readiness()];
    Ok(Up {
        readiness,
        doppler: doppler.spawn(),
        agent: agent.spawn(),
        traffic_controller: traffic_controller.spawn(),
        adapters: adapters.spawn(),
        own,
        tasks,
    })
}

impl Up {
    /// Where the agent listens.
    pub fn agent(&self) -> agent::Addrs {
        self.agent.addrs()
    }

    /// Where the doppler listens.
    pub fn doppler(&self) -> doppler::Addrs {
        self.doppler.addrs()
    }

    /// Where the traffic controller listens.
    pub fn traffic_controller(&self) -> traffic_controller::Addrs {
        self.traffic_controller.addrs()
    }

    /// Where the adapters listen.
    pub fn adapters(&self) -> adapters::Addrs {
        self.adapters.addrs()
    }

    /// No role is ready from now on; all go on serving.
    fn stopping(readiness: &[Readiness]) {
        readiness.iter().for_each(Readiness::stopping);
    }

    /// Stops the roles, one after the other in the direction of the flow; returns once all have drained.
    ///
    /// # Errors
    /// The first role that failed.
    pub async fn shutdown(self) -> anyhow::Result<Drained> {
        self.own.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut sum = Drained::default();
        let drained = self.agent.shutdown().await?;
        sum.add(drained.flushed, drained.dropped);
        let drained = self.doppler.shutdown().await?;
        sum.add(drained.flushed, drained.dropped);
        let drained = self.traffic_controller.shutdown().await?;
        sum.add(drained.flushed, drained.dropped);
        let drained = self.adapters.shutdown().await?;
        sum.add(drained.flushed, drained.dropped);
        Ok(sum)
    }

    /// Waits until a role has ended by itself, which none does unless something is very wrong.
    async fn ended(&mut self) {
        tokio::select! {
            () = self.agent.ended() => {}
            () = self.doppler.ended() => {}
            () = self.traffic_controller.ended() => {}
            () = self.adapters.ended() => {}
        }
    }
}

impl Drained {
    fn add(&mut self, flushed: u64, dropped: u64) {
        self.flushed += flushed;
        self.dropped += dropped;
    }
}

/// `hydrant up`.
pub(crate) fn run(served: &Served) -> Result<(), Failure> {
    let mut config = modest(Config::load(served.config.as_deref(), std::env::vars_os())?);
    let tables = ["agent", "doppler", "traffic_controller", "adapters"];
    config.check_listens(&tables).map_err(|error| Failure::Wrong(error.into()))?;
    let (sink, lines) = self_source::lines();
    telemetry::init(&config.log(), Some(sink)).map_err(|error| Failure::Wrong(error.into()))?;
    state::set(&mut config);
    transport::install_crypto_provider();
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(config, lines, served.print_addrs));
    runtime.shutdown_background();
    outcome
}

/// Budgets for a process that shares a developer's machine, 256 MiB in all, where the configuration says nothing else.
fn modest(mut config: Config) -> Config {
    const MIB: usize = 1024 * 1024;
    let defaults = Config::default();
    if config.doppler.cache == defaults.doppler.cache {
        config.doppler.cache.budget = 128 * MIB as u64;
    }
    if config.agent.egress == defaults.agent.egress {
        config.agent.egress.ring_bytes = std::num::NonZeroUsize::new(32 * MIB).expect("not zero");
    }
    if config.doppler.egress == defaults.doppler.egress {
        config.doppler.egress.ring_bytes = std::num::NonZeroUsize::new(8 * MIB).expect("not zero");
    }
    config
}

async fn serve(config: Config, lines: Lines, print_addrs: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let signals = Signals::listen().context("cannot listen for signals")?;
    let grace = config.stop.grace;
    let mut up = Box::pin(up(config, Some(lines))).await.map_err(Failure::Wrong)?;
    let readiness = up.readiness.clone();
    if print_addrs {
        say(&mut io::stdout(), &addrs(&up).to_string());
    } else {
        say(&mut io::stdout(), &greeting(&up, started));
    }
    let stop = CancellationToken::new();
    let told = signals.cancel(|| Up::stopping(&readiness), grace, stop.clone());
    tokio::pin!(told);
    tokio::select! {
        () = notify_ready() => {}
        () = stop.cancelled() => {}
        () = up.ended() => {}
        () = &mut told => {}
    }
    tokio::select! {
        drained = up.shutdown() => {
            let drained = drained.map_err(Failure::Failed)?;
            tracing::info!(flushed = drained.flushed, dropped = drained.dropped, "Stopped");
            Ok(())
        }
        () = told => Err(Failure::Failed(anyhow!("told to stop twice; stopped without delivering the rest"))),
    }
}

fn addrs(up: &Up) -> serde_json::Value {
    json!({
        "agent": role::agent(&up.agent()),
        "doppler": role::doppler(up.doppler()),
        "traffic_controller": role::traffic_controller(up.traffic_controller()),
        "adapters": role::adapters(up.adapters()),
    })
}

struct Row {
    role: &'static str,
    what: &'static str,
    addresses: String,
}

fn rows(
    agent: &agent::Addrs,
    doppler: &doppler::Addrs,
    traffic_controller: &traffic_controller::Addrs,
    adapters: &adapters::Addrs,
) -> [Row; 4] {
    let udp = [("statsd", agent.statsd), ("dropsonde", agent.dropsonde)]
        .map(|(what, addr)| addr.map(|addr| format!(", {what} {addr}/udp")).unwrap_or_default());
    let cache = doppler.cache_grpc.map(|addr| format!(", log cache {addr}")).unwrap_or_default();
    let syslog = doppler.cache_syslog.map(|addr| format!(", syslog into it {addr}")).unwrap_or_default();
    [
        Row {
            role: "agent",
            what: "takes logs and metrics",
            addresses: format!("gRPC {}{}, admin {}", agent.grpc, udp.concat(), agent.admin),
        },
        Row {
            role: "doppler",
            what: "routes them and keeps the recent ones",
            addresses: format!("gRPC {}{cache}{syslog}, admin {}", doppler.grpc, doppler.admin),
        },
        Row {
            role: "traffic-controller",
            what: "serves them",
            addresses: format!(
                "HTTP {}, gRPC {}, gateway {}, log-cache REST {}, admin {}",
                traffic_controller.http,
                traffic_controller.grpc,
                traffic_controller.gateway,
                traffic_controller.rest,
                traffic_controller.admin
            ),
        },
        Row { role: "adapters", what: "drains them to other systems", addresses: format!("admin {}", adapters.admin) },
    ]
}

fn greeting(up: &Up, started: Instant) -> String {
    let page = up.traffic_controller().http;
    let mut text =
        format!("hydrant {} is up after {} ms.\n\n", env!("CARGO_PKG_VERSION"), started.elapsed().as_millis());
    for row in rows(&up.agent(), &up.doppler(), &up.traffic_controller(), &up.adapters()) {
        text.push_str(&format!("  {:<19} {}\n", row.role, row.addresses));
    }
    let option = |name: &str, addr: SocketAddr, usual: u16| {
        if addr.port() == usual { String::new() } else { format!(" --{name} {addr}") }
    };
    let agent = option("agent", up.agent().grpc, 3458);
    let server = option("server", up.traffic_controller().grpc, 8084);
    text.push_str(&format!(
        "\nTry, in another terminal:\n\n  \
         some-app 2>&1 | hydrant emit my-app{agent}\n  \
         hydrant tail my-app{server}\n  \
         hydrant tail hydrant{server}          # the pipeline's own log\n\n\
         Or look at http://{page}/. Ctrl-C stops it.\n"
    ));
    text
}
