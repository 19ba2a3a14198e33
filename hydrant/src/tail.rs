//! `hydrant tail`: what sources log, history first, through the traffic controller.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{anyhow, bail};
use jiff::tz::TimeZone;
use prost::Message;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::hydrant::v1::{Cursor, FollowFrame, FollowRequest};
use proto::logcache::v1::EnvelopeType;
use proto::v2;
use tonic::{Code, Status, Streaming};
use transport::{Address, Backoff, reason};

use crate::cli::{Failure, runtime, say};
use crate::client::{Connect, MAX, Output, SERVER, Server};
use crate::render::{self, Form};
use crate::token;

/// Arguments of `hydrant tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sources, by their ids. One that does not exist yet is waited for
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Show what there is and end
    #[arg(long)]
    no_follow: bool,
    /// Show nothing older: a duration such as 10m, or a time such as 2026-11-21T14:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<i64>,
    /// What kinds of envelopes to show
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', default_values = ["log", "event"])]
    kinds: Vec<Kind>,
    /// How to show them
    #[arg(long, short, value_name = "FORM", default_value = "text")]
    output: Form,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// The traffic controller's gRPC address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8084")]
    server: Address,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    token: token::TokenArgs,
}

/// A kind of envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Log,
    Counter,
    Gauge,
    Timer,
    Event,
    All,
}

impl Kind {
    fn wire(self) -> EnvelopeType {
        match self {
            Self::Log => EnvelopeType::Log,
            Self::Counter => EnvelopeType::Counter,
            Self::Gauge => EnvelopeType::Gauge,
            Self::Timer => EnvelopeType::Timer,
            Self::Event => EnvelopeType::Event,
            Self::All => EnvelopeType::Any,
        }
    }
}

/// A moment as nanoseconds since the Unix epoch.
fn since(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(i64::try_from(now.saturating_sub(ago).as_nanos()).unwrap_or(i64::MAX));
    }
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write a duration such as 10m or 1h30m, or a time such as 2026-11-21T14:00:00Z".to_owned())?;
    Ok(i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX))
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    runtime()?.block_on(tail(args))
}

async fn tail(args: Args) -> Result<(), Failure> {
    let server = Server { what: "a traffic controller", address: &args.server, option: "--server", name: SERVER };
    let bearer = args.token.bearer(&args.server, args.connect.is_encrypted())?;
    let channel = server.connect(&args.connect).await?;
    let mut client = FollowClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX);
    let mut request = FollowRequest {
        source_ids: args.sources.clone(),
        start_time: args.since.unwrap_or(0),
        envelope_types: args.kinds.iter().map(|kind| kind.wire().into()).collect(),
        after: Vec::new(),
        history_only: args.no_follow,
    };
    let form = if args.json { Form::Json } else { args.output };
    let mut view = View { output: Output::new(), form, zone: TimeZone::system(), partial: false };
    let mut backoff = Backoff::new(Backoff::random_seed());
    let mut lost = false;
    loop {
        let end = match client.follow(request.clone()).await {
            Ok(frames) => {
                if lost {
                    say(&mut std::io::stderr(), "hydrant: connected again; going on where it broke off");
                }
                (lost, backoff) = (false, Backoff::new(Backoff::random_seed()));
                view.show(frames.into_inner(), &mut request.after).await
            }
            Err(status) => End::Broken(status),
        };
        match end {
            End::ReaderGone => return Ok(()),
            End::Finished if args.no_follow => return Ok(()),
            End::Finished => retry(&mut lost, "it ended the stream"),
            End::Broken(status) if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {
                retry(&mut lost, &reason(&status));
            }
            End::Broken(status) => {
                let why = reason(&status);
                return Err(Failure::Failed(anyhow!("the traffic controller refused: {why}")));
            }
        }
        if args.no_follow {
            return Err(Failure::Failed(anyhow!(
                "the traffic controller went away before everything was shown; try again"
            )));
        }
        tokio::time::sleep(backoff.next_wait().max(Duration::from_millis(50))).await;
    }
}

fn retry(lost: &mut bool, why: &str) {
    if !*lost {
        say(&mut std::io::stderr(), &format!("hydrant: the traffic controller went away ({why}); waiting for it"));
        *lost = true;
    }
}

enum End {
    Finished,
    ReaderGone,
    Broken(Status),
}

struct View {
    output: Output,
    form: Form,
    zone: TimeZone,
    /// Missing dopplers have been named.
    partial: bool,
}

impl View {
    /// Shows frames until the stream or its reader ends; keeps in `after` where it stands.
    async fn show(&mut self, mut frames: Streaming<FollowFrame>, after: &mut Vec<Cursor>) -> End {
        loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    if let Err(error) = self.frame(&frame) {
                        say(&mut std::io::stderr(), &format!("hydrant: {error:#}"));
                    }
                    if let Some(cursor) = frame.cursor {
                        after.retain(|known| known.doppler != cursor.doppler);
                        after.push(cursor);
                    }
                }
                Ok(None) => return End::Finished,
                Err(status) => return End::Broken(status),
            }
            if !self.output.flush() {
                return End::ReaderGone;
            }
        }
    }

    fn frame(&mut self, frame: &FollowFrame) -> anyhow::Result<()> {
        if let Some(gap) = &frame.gap {
            let mut source = String::new();
            render::put_safely(&mut source, &gap.source_id);
            let text =
                format!("-- {} envelopes of {source} left the cache before they could be shown --", gap.envelopes);
            say(&mut std::io::stderr(), &text);
        }
        if !frame.missing.is_empty() && !self.partial {
            self.partial = true;
            let dopplers = frame.missing.join(", ");
            say(
                &mut std::io::stderr(),
                &format!("hydrant: incomplete: {dopplers} cannot be asked; what it has cached is missing"),
            );
        }
        let Ok(batch) = v2::EnvelopeBatch::decode(frame.batch.clone()) else {
            bail!("the traffic controller sent a batch that cannot be read; it was skipped");
        };
        let colour = self.output.colour;
        for envelope in &batch.batch {
            render::put(self.output.buffer(), envelope, self.form, colour, &self.zone);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_durations_and_times() {
        assert_eq!(since("2026-09-21T14:13:20Z"), Ok(1_790_000_000_000_000_000));
        let hour = since("1h").expect("a duration");
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos())
            .expect("in range");
        assert!((now - hour - 3_600_000_000_000).abs() < 60_000_000_000);
        assert!(since("yesterday").expect_err("neither").contains("10m"));
    }
}
