//! What can be typed, and what each command runs. Errors go to standard error, with what to do next; the exit code is 0 when all went
//! well, 1 when something was lost or failed, 2 when the command or the configuration is wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cache_node::CacheNode;
use crate::config::{Config, ConfigError};
use crate::role::Role;
use crate::{
    certs, completions, drain, emit, explain_loss, firehose, query, role, sources, status, tail, token, top, up,
};

/// Logs and metrics, from where they are made to whoever asked for them. Every line is accounted for.
#[derive(Debug, Parser)]
#[command(name = "hydrant", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole pipeline in one process, on this machine
    ///
    /// Nothing needs to be configured. It listens on loopback only and says where.
    Up(Served),
    /// Take envelopes from this machine's programs and send them to dopplers
    ///
    /// Listens on loopback for gRPC, statsd and dropsonde. By configuration it also takes syslog, reads logs of containers and other files,
    /// scrapes pages of metrics, reads the machine's and its containers' numbers, limits what one source may send, and forwards to
    /// consumers beside it: docs/agent.md has a configuration to paste for each.
    Agent(Served),
    /// Route envelopes to those who subscribed, and keep the recent ones
    Doppler(Served),
    /// Serve firehose, app streams, the reverse log proxy and log-cache reads
    TrafficController(Served),
    /// Send envelopes on to other systems: drains
    Adapters(Served),
    /// Keep recent envelopes in a cache node of its own, without routing
    ///
    /// It takes them over gRPC and as syslog, and is read over gRPC and HTTP, as an original log cache. Dopplers have a cache of their own.
    LogCache(Served),
    /// Send the lines of standard input
    ///
    /// Waits rather than loses, and says at the end what arrived: `some-app 2>&1 | hydrant emit my-app`.
    Emit(emit::Args),
    /// Show what one or more sources log: what is recent, then what comes
    ///
    /// `hydrant tail my-app`, `hydrant tail /^shop-/ --level warn`, `hydrant tail my-app -n 20 --exclude health`. Standard error is
    /// marked with !. Lines of JSON are shown message first; `-o raw` shows them as they were sent.
    Tail(tail::Args),
    /// Show everything that flows through the pipeline
    ///
    /// `hydrant firehose --include timeout`, or `hydrant firehose --json | some-program`.
    Firehose(firehose::Args),
    /// Show what sources there are, how much they log, and what was lost of them
    Sources(sources::Args),
    /// Ask a question in PromQL of the metrics that are held
    ///
    /// `hydrant query 'sum by (instance_id) (rate(requests{source_id="my-app"}[1m]))'` asks about now; with `--range 1h` each series is a
    /// sparkline, and `--plot FILE.svg` draws them. `--source my-app` stands for `source_id="my-app"` in each selector.
    Query(query::Args),
    /// Watch the pipeline on a whole screen
    ///
    /// Sources, consumers, drains and stages with their rates, once a second. Enter tails the chosen source; ? lists the keys.
    Top(top::Args),
    /// Say what was lost: where, whose, why and how much, and what to do about it
    ExplainLoss(explain_loss::Args),
    /// Say whether the pipeline is well; exit code 0 if it is, 1 if not
    Status(status::Args),
    /// Show, add, test and take away drains
    #[command(subcommand)]
    Drain(drain::Command),
    /// Make certificates for a pipeline of your own
    #[command(subcommand)]
    Certs(certs::Command),
    /// Make and hash tokens, for `traffic_controller.authorizer = "tokens"`
    #[command(subcommand)]
    Token(token::Command),
    /// Print a script that completes commands and sources in a shell
    ///
    /// `source <(hydrant completions bash)`. Names of sources are asked of the server that the line names.
    Completions(completions::Args),
    #[command(hide = true)]
    CompleteSources(completions::Sources),
    /// Say what is wrong with a configuration file, if anything
    CheckConfig {
        /// The file
        file: PathBuf,
    },
}

/// How a role is started.
#[derive(Debug, Args)]
pub(crate) struct Served {
    /// The configuration file (TOML). Without one, the defaults hold. Any key can be overridden by an environment variable:
    /// HYDRANT_DOPPLER__GRPC__LISTEN=127.0.0.1:9082
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the addresses that were bound as one line of JSON on standard output, for programs
    #[arg(long)]
    pub(crate) print_addrs: bool,
}

/// What a command ends with when it did not simply succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It ran, but something was lost or failed.
    Failed(anyhow::Error),
    /// It could not run as told.
    Wrong(anyhow::Error),
    /// Somebody pressed Ctrl-C, and what was left to do has been done.
    Interrupted,
}

/// What shells show for a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Wrong(error.into())
    }
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Up(served) => up::run(&served),
            Command::Agent(served) => role::run(Role::Agent, &served),
            Command::Doppler(served) => role::run(Role::Doppler, &served),
            Command::TrafficController(served) => role::run(Role::TrafficController, &served),
            Command::Adapters(served) => role::run(Role::Adapters, &served),
            Command::LogCache(served) => role::run(Role::LogCache, &served),
            Command::Emit(args) => emit::run(args),
            Command::Tail(args) => tail::run(args),
            Command::Firehose(args) => firehose::run(args),
            Command::Sources(args) => sources::run(&args),
            Command::Query(args) => query::run(&args),
            Command::Top(args) => top::run(&args),
            Command::ExplainLoss(args) => explain_loss::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Drain(command) => drain::run(command),
            Command::Certs(command) => certs::run(command),
            Command::Token(command) => token::run(&command),
            Command::Completions(args) => completions::run(&args),
            Command::CompleteSources(args) => completions::complete(&args),
            Command::CheckConfig { file } => check(&file),
        };
        let (error, code) = match outcome {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Failed(error)) => (error, 1),
            Err(Failure::Wrong(error)) => (error, 2),
            Err(Failure::Interrupted) => return ExitCode::from(INTERRUPTED),
        };
        say(&mut std::io::stderr(), &format!("hydrant: {error:#}"));
        ExitCode::from(code)
    }
}

fn check(file: &std::path::Path) -> Result<(), Failure> {
    let config = Config::load(Some(file), std::env::vars_os())?;
    for role in Role::ALL {
        config.check_listens(role.tables()).map_err(|error| Failure::Wrong(error.into()))?;
    }
    config.agent.check().map_err(|error| Failure::Wrong(error.into()))?;
    config.doppler.check().map_err(|error| Failure::Wrong(error.into()))?;
    config.traffic_controller.check().map_err(|error| Failure::Wrong(error.into()))?;
    config.adapters.check().map_err(|error| Failure::Wrong(error.into()))?;
    let node = CacheNode::new(config.log_cache, config.traffic_controller);
    node.check().map_err(Failure::Wrong)?;
    telemetry::subscriber(&config.log, false, std::io::stderr, None).map_err(|error| Failure::Wrong(error.into()))?;
    say(&mut std::io::stdout(), &format!("{}: ok", file.display()));
    Ok(())
}

/// Writes a line. A reader that has gone does not matter: the command does its work all the same.
pub(crate) fn say(to: &mut impl Write, line: &str) {
    let _gone = writeln!(to, "{line}").and_then(|()| to.flush());
}

/// A runtime for a command.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
