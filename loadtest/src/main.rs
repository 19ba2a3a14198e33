//! The command line of the load test: picks a scenario and prints its report. The exit code is 0 when every envelope is accounted
//! for, 1 when one is not, 2 when there is nothing to report.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use hydrant_loadtest::relay;
use hydrant_loadtest::report::Report;
use hydrant_loadtest::scenario::{
    self, AgentsArgs, CachedArgs, DopplerArgs, DrainArgs, DrainsArgs, IdleArgs, PathArgs, ReadsArgs, RemoteWriteArgs,
    StatsdArgs, SubscriptionsArgs, TailsArgs,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::TlsFiles;

/// The allocator of the servers under test, so that the relay differs from them in nothing but its work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Drives hydrant over the wire and accounts for every envelope sent.
#[derive(Parser)]
#[command(name = "hydrant-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Also write the report as JSON to this file
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// One doppler without its cache, in turn with the relay: CPU per envelope, throughput, loss
    Doppler(DopplerArgs),
    /// One doppler, sent to over acknowledged and plain streams in turn: what acknowledging costs
    Acks(DopplerArgs),
    /// One doppler with its cache and without it in turn: what caching costs
    Cached(CachedArgs),
    /// Doppler with its cache and traffic controller: latency of reads and of a query while others write
    Reads(ReadsArgs),
    /// One doppler, read by a subscription to each of a thousand sources and by one to all in turn: CPU per envelope
    Sources(DopplerArgs),
    /// One doppler with ten thousand idle subscriptions and without in turn: memory of each, CPU per envelope
    Subscriptions(SubscriptionsArgs),
    /// One doppler with many agents connected: memory of each, and no loss while others come and go
    Agents(AgentsArgs),
    /// Agent, doppler, traffic controller, gRPC consumer: latency and loss
    Path(PathArgs),
    /// A line every 100 ms along the same path: latency
    Lone(PathArgs),
    /// Agent, dopplers, traffic controller and a thousand WebSocket tails: latency, CPU, memory of each
    Tails(TailsArgs),
    /// Doppler and adapters with a syslog drain to a receiver that counts: CPU per line, loss
    Drain(DrainArgs),
    /// Doppler and adapters with a thousand syslog drains, a hundred of them dead: latency at the others, CPU, memory of each
    Drains(DrainsArgs),
    /// Doppler and adapters with a drain of metrics to a receiver of remote-write that counts: samples/s, CPU per sample, loss
    RemoteWrite(RemoteWriteArgs),
    /// Agent and doppler, lines of statsd over UDP: lines/s, what the kernel dropped, CPU per line
    Statsd(StatsdArgs),
    /// `hydrant up` with nothing to do: memory and processor time
    Idle(IdleArgs),
    /// The yardstick: a server that moves batches and looks at none
    Relay(RelayArgs),
}

#[derive(clap::Args)]
struct RelayArgs {
    /// Where to listen; port 0 is any free one, printed as JSON
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Mutual TLS with doppler.pem, doppler.key and ca.pem of this directory
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Subscribers that senders wait for
    #[arg(long, default_value = "1")]
    outputs: NonZeroUsize,
}

#[tokio::main]
async fn main() -> ExitCode {
    transport::install_crypto_provider();
    run(Cli::parse()).await.unwrap_or_else(|error| {
        // Nowhere to tell it, if that fails.
        let _ = writeln!(std::io::stderr(), "hydrant-loadtest: {}", said(&error));
        ExitCode::from(2)
    })
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let report = async {
        Ok::<_, anyhow::Error>(Some(match &cli.command {
            Command::Doppler(args) => scenario::doppler(args).await?,
            Command::Acks(args) => scenario::acks(args).await?,
            Command::Cached(args) => scenario::cached(args).await?,
            Command::Reads(args) => scenario::reads(args).await?,
            Command::Sources(args) => scenario::sources(args).await?,
            Command::Subscriptions(args) => scenario::subscriptions(args).await?,
            Command::Agents(args) => scenario::agents(args).await?,
            Command::Path(args) => scenario::path(args).await?,
            Command::Lone(args) => scenario::lone(args).await?,
            Command::Tails(args) => scenario::tails(args).await?,
            Command::Drain(args) => scenario::drain(args).await?,
            Command::Drains(args) => scenario::drains(args).await?,
            Command::RemoteWrite(args) => scenario::remote_write(args).await?,
            Command::Statsd(args) => scenario::statsd(args).await?,
            Command::Idle(args) => scenario::idle(args).await?,
            Command::Relay(args) => return serve_relay(args).await.map(|()| None),
        }))
    };
    let report = tokio::select! {
        report = report => report?,
        // Servers are children that die with their handles.
        _ = interrupt.recv() => return Ok(ExitCode::from(130)),
    };
    report.map_or(Ok(ExitCode::SUCCESS), |report| tell(&report, cli.json.as_deref()))
}

/// An error and its causes, those left out that it quotes.
fn said(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| match cause.to_string() {
        cause if said.is_empty() => cause,
        cause if said.contains(&cause) => said,
        cause => format!("{said}: {cause}"),
    })
}

fn tell(report: &Report, json: Option<&std::path::Path>) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(report.table().as_bytes())?;
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(if report.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves until SIGTERM.
async fn serve_relay(args: &RelayArgs) -> anyhow::Result<()> {
    let tls = args.tls.as_ref().map(|dir| TlsFiles {
        cert: dir.join("doppler.pem"),
        key: dir.join("doppler.key"),
        ca: dir.join("ca.pem"),
    });
    let relay = relay::Config { listen: args.listen, tls, outputs: args.outputs }.bind()?;
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "grpc": relay.addr() }))?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let tracker = TaskTracker::new();
    tracker.spawn({
        let stop = stop.clone();
        async move {
            terminate.recv().await;
            stop.cancel();
        }
    });
    Ok(relay.serve(stop).await?)
}
