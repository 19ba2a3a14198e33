//! What a scenario can be told.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::payload::Shape;
use crate::run::Plan;
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
    pub(super) fn usual() -> Self {
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
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "5")]
    pub(super) runs: NonZeroU32,
    /// Run one of the two alone
    #[arg(long)]
    pub(super) only: Option<Only>,
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
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Agents connected, each with an acknowledged stream, and idle
    #[arg(long, value_name = "N", default_value = "500")]
    pub(super) agents: NonZeroU32,
    /// Others that connect, send a line and leave meanwhile
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(super) reconnects: u32,
    /// In how many seconds they do
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) within: u64,
}

/// `subscriptions`: one doppler with many idle subscriptions.
#[derive(Args, Clone, Debug)]
pub struct SubscriptionsArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Subscriptions to sources that never speak, each to its own
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) idle: u32,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "3")]
    pub(super) runs: NonZeroU32,
}

/// `path` and `lone`: agent, doppler with its cache, traffic controller, gRPC consumer.
#[derive(Args, Clone, Debug)]
pub struct PathArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// How often
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) runs: NonZeroU32,
    /// Without the doppler's cache
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Read over WebSocket in this form, not over gRPC
    #[arg(long, value_name = "FORM")]
    pub(super) websocket: Option<Form>,
}

/// `tails`: agent, dopplers, traffic controller, a WebSocket for each of many sources.
#[derive(Args, Clone, Debug)]
pub struct TailsArgs {
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Sources, each tailed by one consumer
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub(super) tails: u32,
    /// Lines of each a second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) rate: u64,
    /// Dopplers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(super) dopplers: u32,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// What they read
    #[arg(long, value_name = "FORM", default_value = "json")]
    pub(super) form: Form,
}

/// `drain`: doppler and adapters with a syslog drain.
#[derive(Args, Clone, Debug)]
pub struct DrainArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// How often
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) runs: NonZeroU32,
    /// The drain over TLS, not over TCP
    #[arg(long)]
    pub(super) tls: bool,
    /// The drain buffers on disk, in a new directory below this one
    #[arg(long, value_name = "DIR")]
    pub(super) disk: Option<PathBuf>,
    /// The drain writes over TCP to this syslog receiver, not to one of this program's own that counts; what it says it delivered counts
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "tls")]
    pub(super) to: Option<SocketAddr>,
}

/// `drains`: doppler and adapters with many syslog drains.
#[derive(Args, Clone, Debug)]
pub struct DrainsArgs {
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Drains, each of a source of its own that writes a line a second
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(super) drains: NonZeroU32,
    /// Of these, drains to receivers that refuse connections, or take none
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(super) dead: u32,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
}

/// `remote-write`: doppler and adapters with a drain of metrics.
#[derive(Args, Clone, Debug)]
pub struct RemoteWriteArgs {
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Samples per second; at most 100 for each metric of each source
    #[arg(long, value_name = "N", default_value = "500000")]
    pub(super) rate: NonZeroU64,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Sources
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(super) sources: NonZeroU32,
    /// Metrics in each gauge of a source
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) metrics: u32,
    /// Write there, not to a receiver of this program's own that counts: the drain's URL
    #[arg(long, value_name = "URL")]
    pub(super) to: Option<String>,
}

/// `statsd`: an agent and a doppler without its cache.
#[derive(Args, Clone, Debug)]
pub struct StatsdArgs {
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Lines per second
    #[arg(long, value_name = "N", default_value = "400000")]
    pub(super) rate: NonZeroU64,
    /// How long to send
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Lines in a datagram
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(super) lines: u32,
    /// What lines become
    #[arg(long, value_enum, default_value_t = Mapping::Classic)]
    pub(super) mapping: Mapping,
    /// Sockets that share the port
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) sockets: NonZeroU32,
}

/// `agent.statsd.mapping`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mapping {
    /// A gauge for each line
    Classic,
    /// Summed up and told every second
    Native,
}

/// `idle`: `hydrant up` with nothing to do.
#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    #[command(flatten)]
    pub(super) setup: Setup,
    /// How long to watch
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
}

/// `cached`: one doppler with its cache and without.
#[derive(Args, Clone, Debug)]
pub struct CachedArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Pairs of runs
    #[arg(long, value_name = "N", default_value = "5")]
    pub(super) runs: NonZeroU32,
}

/// `reads`: doppler with its cache and traffic controller, read while others write.
#[derive(Args, Clone, Debug)]
pub struct ReadsArgs {
    #[command(flatten)]
    pub(super) load: Load,
    #[command(flatten)]
    pub(super) setup: Setup,
    /// Envelopes that the source that is read holds: logs, and as many samples of a counter
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) held: u32,
}
