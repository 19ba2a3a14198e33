//! One load from end to end: subscribe, find the path open, send on schedule, wait for the last envelope, settle.
//!
//! What enters: a [`Plan`], where to send and read, and the server processes to watch. What leaves: a [`Run`], in which every
//! envelope is accounted for.

mod bench;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use transport::{Address, ChannelOptions};

use self::bench::{Bench, Ended};
use crate::payload::Shape;
use crate::procs::Sample;
use crate::report::{Dropped, Measured, Run, Usage};
use crate::scrape::{self, Drops, ScrapeError};
use crate::socket::Endpoint;

/// What to send, and who reads it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Plan {
    /// Source instances, each with a stream of its own.
    pub senders: NonZeroU32,
    /// Connections that the senders share.
    pub connections: NonZeroU32,
    /// Source ids that the senders share.
    pub sources: NonZeroU32,
    /// Whether batches are sent over the acknowledged stream.
    pub acknowledged: bool,
    /// Envelopes per batch.
    pub batch: NonZeroU32,
    /// What an envelope looks like.
    pub shape: Shape,
    /// Envelopes per second of all senders; `None` is as fast as flow control lets.
    pub rate: Option<NonZeroU64>,
    /// Envelopes of all senders.
    pub count: u64,
    /// Nothing is sent after this long, whatever `count` says. A schedule must fit in it to be sent whole.
    pub limit: Duration,
    /// Groups of subscribers; each group gets everything.
    pub groups: NonZeroU32,
    /// Subscribers that share a group (`shard_id`), each with a connection of its own.
    pub members: NonZeroU32,
    /// Subscribe to each source by its id, not to all logs.
    pub by_source: bool,
    /// In the place of the members of a group, a subscription of its own to each source.
    pub apart: bool,
    /// The path from every sender to every group is open within this long, or the run fails.
    pub open: Duration,
    /// After the last sender has ended, what has not arrived for this long is missing.
    pub settle: Duration,
}

/// Where to send and where to read.
#[derive(Clone, Debug)]
pub struct Target {
    /// Serves `Ingress`.
    pub ingress: Peer,
    /// Serves `Egress`.
    pub egress: Peer,
    /// Groups read here, not there.
    pub socket: Option<Endpoint>,
}

/// A server, and how to connect to it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: Address,
    /// TLS and windows.
    pub options: ChannelOptions,
}

/// A server process on the path.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Its name in the report.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Where its metrics are; `None` if it has none.
    pub admin: Option<SocketAddr>,
    /// Whether what it drops for a reason is dropped before envelopes are copied to groups, and so is missing in every group.
    pub before_groups: fn(reason: &str) -> bool,
}

/// Why a load could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A server could not be reached.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// The server.
        address: Address,
        /// What went wrong; its sources say more.
        source: transport::ConnectError,
    },
    /// A server refused a subscription.
    #[error("subscribing at {address}: {source}")]
    Subscribe {
        /// The server.
        address: Address,
        /// Its answer.
        source: Box<Status>,
    },
    /// What was sent does not arrive at every group.
    #[error(
        "no way from {ingress} to {egress}: within {within:?} nothing from sender {sender} reached group {group}{said}"
    )]
    NoPath {
        /// Where it was sent.
        ingress: Address,
        /// Where it should have arrived.
        egress: Address,
        /// How long it was tried.
        within: Duration,
        /// Whose probe.
        sender: usize,
        /// At which group.
        group: usize,
        /// What the server answered, if it did.
        said: String,
    },
    /// The counters of a server could not be read.
    #[error(transparent)]
    Scrape(#[from] ScrapeError),
    /// A server process has ended.
    #[error("{name} has ended: {source}")]
    Gone {
        /// Which.
        name: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Runs one load. `label` names it in the report.
///
/// # Errors
/// The servers cannot be reached, do not let a probe through, or end. Losses are no error: the report tells them.
pub async fn run(label: &str, plan: &Plan, target: &Target, watched: &[Watched]) -> Result<Run, RunError> {
    let stop = CancellationToken::new();
    // Also when this future is dropped half-way, nothing goes on sending.
    let _stop_on_drop = stop.clone().drop_guard();
    let bench = Bench::new(plan, target);
    let subscriptions = bench.subscribe(&stop).await?;
    let channels = bench.connect().await?;
    bench.probe(&channels).await?;

    let drops_before = drops(watched).await?;
    let used_before = samples(watched)?;
    let senders = bench.send(&channels, &stop);
    bench.wait(label, &senders).await;
    let used = samples(watched)?;
    let drops_after = drops(watched).await?;

    let Ended { issued, time, behind, drained, groups, errors } = bench.end(senders, subscriptions, &stop).await;
    let dropped = watched
        .iter()
        .zip(drops_before.iter().zip(&drops_after))
        .flat_map(|(server, (before, after))| dropped(server, before, after, plan.groups.get()))
        .collect();
    let usage = watched
        .iter()
        .zip(used_before.iter().zip(&used))
        .map(|(server, (before, after))| Usage::between(&server.name, before, after, issued))
        .collect();
    Ok(Run::new(label, plan, Measured { time, behind, drained, groups, dropped, usage, errors }))
}

async fn drops(watched: &[Watched]) -> Result<Vec<Drops>, RunError> {
    let mut all = Vec::new();
    for server in watched {
        all.push(match server.admin {
            Some(addr) => scrape::drops(addr).await?,
            None => Drops::new(),
        });
    }
    Ok(all)
}

fn samples(watched: &[Watched]) -> Result<Vec<Sample>, RunError> {
    let sample = |server: &Watched| {
        Sample::of(server.pid).map_err(|source| RunError::Gone { name: server.name.clone(), source })
    };
    watched.iter().map(sample).collect()
}

/// What a server dropped meanwhile, and in how many groups each of it is missing.
fn dropped(server: &Watched, before: &Drops, after: &Drops, groups: u32) -> Vec<Dropped> {
    let grown = after.iter().filter_map(|(key, now)| {
        let count = now.saturating_sub(before.get(key).copied().unwrap_or_default());
        (count > 0).then_some((key, count))
    });
    grown
        .map(|((stage, reason), count)| Dropped {
            server: server.name.clone(),
            stage: stage.clone(),
            reason: reason.clone(),
            count,
            groups: if (server.before_groups)(reason) { groups } else { 1 },
        })
        .collect()
}
