//! What the program can be asked to measure: which servers, which load.
//!
//! Each scenario starts its servers as child processes, runs its loads and stops them. All of it stays on loopback.

mod args;
mod bed;
mod crowd;
mod idlers;
mod lines;
mod many;
mod reads;
mod sink;
mod tailed;
mod written;

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use args::{
    AgentsArgs, CachedArgs, DopplerArgs, DrainArgs, DrainsArgs, IdleArgs, Load, Mapping, Only, PathArgs, ReadsArgs,
    RemoteWriteArgs, Setup, StatsdArgs, SubscriptionsArgs, TailsArgs,
};
pub use bed::ScenarioError;
use bed::{Bed, Servers};
use crowd::Crowd;
use idlers::Idlers;
use sink::Sink;
use tokio_util::sync::CancellationToken;

use crate::procs::Sample;
use crate::report::{Agents, Comparison, Drained, Idle, Report, Run, Subscriptions};
use crate::run::{Plan, run};
use crate::scrape;

/// Doppler and relay in turn: processor time per envelope, throughput, loss, and their ratios.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn doppler(args: &DopplerArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let plan = args.load.plan(400_000, 5, 100);
    let mut report = Report::new("doppler");
    let mut pairs = Vec::new();
    for pair in 0..args.runs.get() {
        if let Some(only) = args.only {
            report.runs.push(side(&bed, &plan, only).await?);
            continue;
        }
        // Who goes first changes, so that neither always finds the machine as the other left it.
        let doppler_first = pair % 2 == 0;
        let early = if doppler_first { Some(side(&bed, &plan, Only::Doppler).await?) } else { None };
        let relay = side(&bed, &plan, Only::Relay).await?;
        let doppler = match early {
            Some(run) => run,
            None => side(&bed, &plan, Only::Doppler).await?,
        };
        pairs.push((doppler, relay));
    }
    report.comparison = (!pairs.is_empty()).then(|| Comparison::new("doppler", "relay", pairs));
    bed.close().await;
    Ok(report)
}

async fn side(bed: &Bed, plan: &Plan, which: Only) -> Result<Run, ScenarioError> {
    match which {
        Only::Doppler => measure(bed.doppler(false).await?, "doppler", plan).await,
        Only::Relay => measure(bed.relay(plan.groups.get() * plan.members.get()).await?, "relay", plan).await,
    }
}

/// One doppler without its cache, sent to over acknowledged streams and over plain ones in turn: what acknowledging costs it.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn acks(args: &DopplerArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let plain = args.load.plan(200_000, 5, 100);
    let acknowledged = Plan { acknowledged: true, ..plain.clone() };
    let mut report = Report::new("acks");
    report.comparison = Some(compare(&bed, args.runs, ("acknowledged", &acknowledged), ("plain", &plain)).await?);
    bed.close().await;
    Ok(report)
}

/// One doppler without its cache, read by a subscription to each source and by one to all in turn: what many readers cost.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn sources(args: &DopplerArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let mut all = args.load.plan(200_000, 5, 20);
    if args.load.senders.get() == 2 {
        (all.senders, all.sources) = (MANY, MANY);
    }
    let apart = Plan { apart: true, ..all.clone() };
    let mut report = Report::new("sources");
    report.comparison = Some(compare(&bed, args.runs, ("by source", &apart), ("all", &all)).await?);
    bed.close().await;
    Ok(report)
}

/// One doppler with its cache and without it in turn: what caching costs it.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn cached(args: &CachedArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let plan = args.load.plan(200_000, 5, 100);
    let mut pairs = Vec::new();
    for pair in 0..args.runs.get() {
        let run = async |label: &str, plan: &Plan| measure(bed.doppler(label == CACHED).await?, label, plan).await;
        pairs.push(in_turn(pair, (CACHED, &plan), ("without", &plan), run).await?);
    }
    let mut report = Report::new("cached");
    report.comparison = Some(Comparison::new(CACHED, "without", pairs));
    bed.close().await;
    Ok(report)
}

const CACHED: &str = "with cache";

/// A doppler with its cache and a traffic controller, read over gRPC, over HTTP and by a query while others write: latency.
///
/// # Errors
/// A server does not start, a read fails, or no envelope gets through.
pub async fn reads(args: &ReadsArgs) -> Result<Report, ScenarioError> {
    Box::pin(reads::reads(args)).await
}

/// An agent that lines of statsd are sent to, and a doppler without its cache: lines a second, loss, processor time of each.
///
/// # Errors
/// A server does not start, or a datagram cannot be sent.
pub async fn statsd(args: &StatsdArgs) -> Result<Report, ScenarioError> {
    Box::pin(lines::lines(args)).await
}

/// Sources where none are named and many are meant.
const MANY: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");

/// One doppler without its cache under two loads in turn, so many times.
async fn compare(
    bed: &Bed,
    runs: NonZeroU32,
    subject: (&str, &Plan),
    yardstick: (&str, &Plan),
) -> Result<Comparison, ScenarioError> {
    let mut pairs = Vec::new();
    for pair in 0..runs.get() {
        let run = async |label: &str, plan: &Plan| measure(bed.doppler(false).await?, label, plan).await;
        pairs.push(in_turn(pair, subject, yardstick, run).await?);
    }
    Ok(Comparison::new(subject.0, yardstick.0, pairs))
}

/// Runs both; who goes first changes, so that neither always finds the machine as the other left it.
async fn in_turn(
    pair: u32,
    first: (&str, &Plan),
    second: (&str, &Plan),
    run: impl AsyncFn(&str, &Plan) -> Result<Run, ScenarioError>,
) -> Result<(Run, Run), ScenarioError> {
    if pair.is_multiple_of(2) {
        let first = run(first.0, first.1).await?;
        return Ok((first, run(second.0, second.1).await?));
    }
    let second = run(second.0, second.1).await?;
    Ok((run(first.0, first.1).await?, second))
}

/// One doppler with many idle subscriptions, and without them in turn: how long they take to open, what each takes of its memory, and what
/// they cost a load that is none of theirs.
///
/// # Errors
/// A server does not start, refuses a subscription, or no envelope gets through.
pub async fn subscriptions(args: &SubscriptionsArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let plan = args.load.plan(200_000, 5, 100);
    let mut report = Report::new("subscriptions");
    let mut found: Vec<Subscriptions> = Vec::new();
    let mut pairs = Vec::new();
    for pair in 0..args.runs.get() {
        let seen = std::cell::Cell::new(None);
        let beside = async |label: &str, plan: &Plan| {
            let doppler = bed.doppler(false).await?;
            let idlers = if label == BESIDE {
                let (idlers, subscriptions) = Idlers::open(&doppler, args.idle).await?;
                seen.set(Some(subscriptions));
                Some(idlers)
            } else {
                None
            };
            let run = run(label, plan, &doppler.target, &doppler.watched).await;
            drop(idlers);
            doppler.stop().await?;
            Ok(run?)
        };
        pairs.push(in_turn(pair, (BESIDE, &plan), ("alone", &plan), beside).await?);
        found.extend(seen.into_inner());
    }
    report.subscriptions = found;
    report.comparison = Some(Comparison::new(BESIDE, "alone", pairs));
    bed.close().await;
    Ok(report)
}

const BESIDE: &str = "beside idle ones";

/// Agents that connect before the others are counted.
const FIRST: u32 = 16;

/// Many agents of one doppler: what an idle connection takes, and whether those that come and go cost the others a line.
///
/// # Errors
/// A server does not start, a connection fails, or no envelope gets through.
pub async fn agents(args: &AgentsArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let doppler = bed.doppler(false).await?;
    let Some(pid) = doppler.watched.first().map(|watched| watched.pid) else { return Ok(Report::new("agents")) };
    let sample = || Sample::of(pid).map_err(ScenarioError::Measure);
    // What the first ones bring to life, code and threads' heaps, is not the price of each.
    let first = Crowd::connect(&doppler.target.ingress, 0..FIRST).await?;
    let before = sample()?;
    let crowd = Crowd::connect(&doppler.target.ingress, FIRST..FIRST.saturating_add(args.agents.get())).await?;
    let after = sample()?;
    // While they are there, some send and others come and go.
    let plan = args.load.plan(5_000, args.within + 2, 10);
    let stop = CancellationToken::new();
    let coming = crowd::come_and_go(&doppler.target.ingress, args.reconnects, Duration::from_secs(args.within), &stop);
    let (run, reconnects) = tokio::join!(run("agents", &plan, &doppler.target, &doppler.watched), coming);
    drop((first, crowd));
    doppler.stop().await?;
    bed.close().await;
    let mut report = Report::new("agents");
    report.runs.push(run?);
    report.agents = Some(Agents {
        agents: args.agents.get(),
        bytes_each: after.rss_bytes.saturating_sub(before.rss_bytes) / u64::from(args.agents.get()),
        reconnects: reconnects?,
        seconds: args.within,
    });
    Ok(report)
}

/// From an agent to a gRPC consumer: latency and loss.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn path(args: &PathArgs) -> Result<Report, ScenarioError> {
    along_the_path("path", args, &args.load.plan(10_000, 10, 100)).await
}

/// One line every 100 ms along the same path.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn lone(args: &PathArgs) -> Result<Report, ScenarioError> {
    along_the_path("lone", args, &args.load.plan(10, 10, 1)).await
}

async fn along_the_path(label: &str, args: &PathArgs, plan: &Plan) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let mut report = Report::new(label);
    for _ in 0..args.runs.get() {
        let (servers, _) = bed.path(!args.no_cache, 1, args.websocket).await?;
        report.runs.push(measure(servers, label, plan).await?);
    }
    bed.close().await;
    Ok(report)
}

/// What a drain has not delivered by then, after the load, does not arrive.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// A doppler without its cache, and adapters whose one drain writes to a receiver that only counts: processor time per line, and loss.
/// A subscriber beside the drain does the accounting of the doppler.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn drain(args: &DrainArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let plan = args.load.plan(50_000, 10, 100);
    let mut report = Report::new("drain");
    for _ in 0..args.runs.get() {
        let sink = match args.to {
            Some(_) => None,
            None => Some(bed.sink(args.tls).await?),
        };
        let Some(receiver) = args.to.or(sink.as_ref().map(Sink::addr)) else { continue };
        let disk = args.disk.as_ref().map(tempfile::tempdir_in).transpose().map_err(ScenarioError::Disk)?;
        let dir = disk.as_ref().map(tempfile::TempDir::path);
        let (servers, [at_doppler, admin]) = bed.drained(receiver, args.tls, dir).await?;
        let found = run(if args.tls { "tls" } else { "tcp" }, &plan, &servers.target, &servers.watched).await;
        let numbers = async || -> Result<_, ScenarioError> {
            let received = scrape::number(admin, "hydrant_received_envelopes_total{stage=\"drain\"}").await?;
            let lines = match &sink {
                Some(sink) => sink.lines(),
                None => scrape::number(admin, "hydrant_delivered_envelopes_total{stage=\"drain\"}").await?,
            };
            Ok((received, lines, scrape::drops(admin).await?.values().sum::<u64>()))
        };
        let (mut numbers_now, since) = (numbers().await?, Instant::now());
        while numbers_now.1 + numbers_now.2 != numbers_now.0 && since.elapsed() < DRAINED_WITHIN {
            sleep(Duration::from_millis(50)).await;
            numbers_now = numbers().await?;
        }
        let (received, lines, dropped) = numbers_now;
        // The doppler copies each envelope to the drain and to the subscriber, and drops for either.
        let copied = scrape::number(at_doppler, "hydrant_router_copies_total").await? / 2;
        servers.stop().await?;
        let mut found = found?;
        found.residual += copied.cast_signed() - received.cast_signed();
        report.drained.push(Drained { received, lines, dropped });
        report.runs.push(found);
    }
    bed.close().await;
    Ok(report)
}

/// A doppler and adapters with many drains, some of them dead: latency at the others, processor time and memory.
///
/// # Errors
/// A server does not start, or nothing can be listened to.
pub async fn drains(args: &DrainsArgs) -> Result<Report, ScenarioError> {
    Box::pin(many::drains(args)).await
}

/// A doppler and adapters with a drain of metrics to a receiver of remote-write: samples a second, processor time, loss.
///
/// # Errors
/// A server does not start, or nothing can be listened to.
pub async fn remote_write(args: &RemoteWriteArgs) -> Result<Report, ScenarioError> {
    Box::pin(written::remote_write(args)).await
}

/// Agent, dopplers and traffic controller, tailed over WebSocket by one consumer for each source: latency, processor time, memory of each.
///
/// # Errors
/// A server does not start, or no envelope gets through.
pub async fn tails(args: &TailsArgs) -> Result<Report, ScenarioError> {
    Box::pin(tailed::tails(args)).await
}

async fn measure(servers: Servers, label: &str, plan: &Plan) -> Result<Run, ScenarioError> {
    let found = run(label, plan, &servers.target, &servers.watched).await;
    // Stopped in any case; what the run found comes first when both fail.
    let stopped = servers.stop().await;
    let found = found?;
    stopped?;
    Ok(found)
}

/// `hydrant up` with nothing to do: memory and processor time.
///
/// # Errors
/// It does not start, or ends.
pub async fn idle(args: &IdleArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let server = bed.up().await?;
    let sample = || Sample::of(server.pid()).map_err(ScenarioError::Measure);
    // What it does once, at its start, is not what it does while idle.
    sleep(Duration::from_secs(2)).await;
    let (before, since) = (sample()?, Instant::now());
    sleep(Duration::from_secs(args.seconds)).await;
    let (after, seconds) = (sample()?, since.elapsed().as_secs_f64());
    server.stop().await?;
    bed.close().await;

    let mut report = Report::new("idle");
    report.idle = Some(Idle {
        seconds,
        cpu_percent: (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0,
        rss_bytes: after.rss_bytes,
        peak_rss_bytes: after.peak_rss_bytes,
    });
    Ok(report)
}
