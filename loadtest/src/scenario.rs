//! What the program can be asked to measure: which servers, which load.
//!
//! Each scenario starts its servers as child processes, runs its loads and stops them. All of it stays on loopback.

mod bed;
mod crowd;
mod idlers;
mod many;
mod sink;
mod tailed;
mod written;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

pub use bed::ScenarioError;
use bed::{Bed, Servers};
use crowd::Crowd;
use idlers::Idlers;
use sink::Sink;
use tokio_util::sync::CancellationToken;

use crate::payload::Shape;
use crate::procs::Sample;
use crate::report::{Agents, Comparison, Drained, Idle, Report, Run, Subscriptions};
use crate::run::{Plan, run};
use crate::scrape;
use crate::socket::Form;

/// No load is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// What to send. Defaults are those that the project's figures are for.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Envelopes per second of all senders; 0 is as fast as flow control lets [default: doppler 400000, path 10000, lone 10]
    #[arg(long, value_name = "N")]
    pub rate: Option<u64>,
    /// How long to send, at most 600 [default: doppler 5, path and lone 10]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: Option<u64>,
    /// Send this many envelopes instead of counting by time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub count: Option<u64>,
    /// Envelopes per batch [default: 100, lone 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: Option<u32>,
    /// Source instances, each with a stream of its own
    #[arg(long, value_name = "N", default_value = "2")]
    pub senders: NonZeroU32,
    /// Connections that the senders share
    #[arg(long, value_name = "N", default_value = "2")]
    pub connections: NonZeroU32,
    /// Source ids that the senders share; one each unless given
    #[arg(long, value_name = "N")]
    pub sources: Option<NonZeroU32>,
    /// Bytes of a log's payload, at least 69
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(69..=1_000_000))]
    pub payload: u32,
    /// Tags of an envelope
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub tags: u32,
    /// Groups of subscribers; each gets everything
    #[arg(long, value_name = "K", default_value = "1")]
    pub subscribers: NonZeroU32,
    /// Subscribers that share each group
    #[arg(long, value_name = "N", default_value = "1")]
    pub members: NonZeroU32,
    /// Subscribe to each source by its id, not to all logs
    #[arg(long)]
    pub by_source: bool,
}

impl Load {
    /// What is sent where nothing is said.
    fn usual() -> Self {
        let two = NonZeroU32::new(2).expect("not zero");
        Self {
            rate: None,
            seconds: None,
            count: None,
            batch: None,
            senders: two,
            connections: two,
            sources: None,
            payload: 200,
            tags: 10,
            subscribers: NonZeroU32::MIN,
            members: NonZeroU32::MIN,
            by_source: false,
        }
    }

    /// The plan, with a scenario's own rate, time and batch where none was asked for.
    pub fn plan(&self, rate: u64, seconds: u64, batch: u32) -> Plan {
        let rate = NonZeroU64::new(self.rate.unwrap_or(rate));
        let time = Duration::from_secs(self.seconds.unwrap_or(seconds));
        // A schedule may be late and is sent whole all the same; without one, time is what ends the load.
        let (by_time, limit) = match rate {
            Some(rate) => (rate.get().saturating_mul(time.as_secs()), time * 2 + Duration::from_secs(5)),
            None => (1_000_000_000, time),
        };
        Plan {
            senders: self.senders,
            connections: self.connections,
            sources: self.sources.unwrap_or(self.senders),
            acknowledged: false,
            batch: NonZeroU32::new(self.batch.unwrap_or(batch)).unwrap_or(NonZeroU32::MIN),
            shape: Shape { payload_bytes: self.payload as usize, tags: self.tags as usize },
            rate,
            count: self.count.unwrap_or(by_time).min(1_000_000_000),
            limit: if self.count.is_some() { LONGEST } else { limit },
            groups: self.subscribers,
            members: self.members,
            by_source: self.by_source,
            apart: false,
            open: Duration::from_secs(20),
            settle: Duration::from_secs(2),
        }
    }
}

/// How servers are started.
#[derive(Args, Clone, Debug)]
pub struct Setup {
    /// The hydrant program; the one beside this program unless given
    #[arg(long, value_name = "FILE")]
    pub hydrant: Option<PathBuf>,
    /// Plain text between all parts, not mutual TLS
    #[arg(long)]
    pub plain: bool,
}

/// `doppler`: one doppler without its cache, beside the relay.
#[derive(Args, Clone, Debug)]
pub struct DopplerArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    setup: Setup,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "5")]
    runs: NonZeroU32,
    /// Run one of the two alone
    #[arg(long)]
    only: Option<Only>,
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    /// The doppler.
    Doppler,
    /// The relay.
    Relay,
}

/// `agents`: one doppler with many connected agents.
#[derive(Args, Clone, Debug)]
pub struct AgentsArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    setup: Setup,
    /// Agents connected, each with an acknowledged stream, and idle
    #[arg(long, value_name = "N", default_value = "500")]
    agents: NonZeroU32,
    /// Others that connect, send a line and leave meanwhile
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    reconnects: u32,
    /// In how many seconds they do
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    within: u64,
}

/// `subscriptions`: one doppler with many idle subscriptions.
#[derive(Args, Clone, Debug)]
pub struct SubscriptionsArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    setup: Setup,
    /// Subscriptions to sources that never speak, each to its own
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    idle: u32,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "3")]
    runs: NonZeroU32,
}

/// `path` and `lone`: agent, doppler with its cache, traffic controller, gRPC consumer.
#[derive(Args, Clone, Debug)]
pub struct PathArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    setup: Setup,
    /// How often
    #[arg(long, value_name = "N", default_value = "1")]
    runs: NonZeroU32,
    /// Without the doppler's cache
    #[arg(long)]
    no_cache: bool,
    /// Read over WebSocket in this form, not over gRPC
    #[arg(long, value_name = "FORM")]
    websocket: Option<Form>,
}

/// `tails`: agent, dopplers, traffic controller, a WebSocket for each of many sources.
#[derive(Args, Clone, Debug)]
pub struct TailsArgs {
    #[command(flatten)]
    setup: Setup,
    /// Sources, each tailed by one consumer
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    tails: u32,
    /// Lines of each a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    rate: u64,
    /// Dopplers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    dopplers: u32,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// What they read
    #[arg(long, value_name = "FORM", default_value = "json")]
    form: Form,
}

/// `drain`: doppler and adapters with a syslog drain.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    setup: Setup,
    /// How often
    #[arg(long, value_name = "N", default_value = "1")]
    runs: NonZeroU32,
    /// The drain over TLS, not over TCP
    #[arg(long)]
    tls: bool,
    /// The drain buffers on disk, in a new directory below this one
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// The drain writes over TCP to this syslog receiver, not to one of this program's own that counts; what it says it delivered counts
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "tls")]
    to: Option<SocketAddr>,
}

/// `drains`: doppler and adapters with many syslog drains.
#[derive(Args, Clone, Debug)]
pub struct DrainsArgs {
    #[command(flatten)]
    setup: Setup,
    /// Drains, each of a source of its own that writes a line a second
    #[arg(long, value_name = "N", default_value = "1000")]
    drains: NonZeroU32,
    /// Of these, drains to receivers that refuse connections, or take none
    #[arg(long, value_name = "N", default_value_t = 100)]
    dead: u32,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// `remote-write`: doppler and adapters with a drain of metrics.
#[derive(Args, Clone, Debug)]
pub struct RemoteWriteArgs {
    #[command(flatten)]
    setup: Setup,
    /// Samples per second; at most 100 for each metric of each source
    #[arg(long, value_name = "N", default_value = "500000")]
    rate: NonZeroU64,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Sources
    #[arg(long, value_name = "N", default_value = "1000")]
    sources: NonZeroU32,
    /// Metrics in each gauge of a source
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    metrics: u32,
    /// Write there, not to a receiver of this program's own that counts: the drain's URL
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

/// `idle`: `hydrant up` with nothing to do.
#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    #[command(flatten)]
    setup: Setup,
    /// How long to watch
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

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
