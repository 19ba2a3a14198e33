//! `hydrant firehose`: everything, live, through the reverse log proxy.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use prost::Message;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::metadata::MetadataValue;
use transport::reason;

use self::meter::Meter;
use crate::cli::{Failure, runtime};
use crate::client::{Controller, MAX, Output};
use crate::filter::{Filter, FilterArgs, Kind};
use crate::render::Form;
use crate::self_source::nanos;

mod meter;

/// Arguments of `hydrant firehose`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Share the firehose with every other reader of the same name: each envelope goes to one of them
    #[arg(long, value_name = "NAME", default_value = "")]
    shard: String,
    /// What kinds of envelopes to show
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', default_values = ["all"])]
    kinds: Vec<Kind>,
    /// How to show envelopes: text, raw, json or template='{time} {source} {message}', as in `hydrant tail`
    #[arg(long, short, value_name = "FORM", default_value = "text", value_parser = str::parse::<Form>)]
    output: Form,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Say once a second on standard error how much comes and how old it is; always on where standard output is no terminal and standard
    /// error is one
    #[arg(long)]
    rate: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    at: Controller,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    runtime()?.block_on(firehose(args))
}

async fn firehose(args: Args) -> Result<(), Failure> {
    let (channel, bearer) = args.at.connect().await?;
    let mut client = EgressClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX);
    let request = v2::EgressBatchRequest {
        shard_id: args.shard,
        selectors: Kind::selectors(&args.kinds),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    };
    let refused =
        |status: tonic::Status| Failure::Failed(anyhow!("the traffic controller ended it: {}", reason(&status)));
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert(proto::loss::ASKED, MetadataValue::from_static("true"));
    let mut batches = client.batched_receiver(request).await.map_err(refused)?.into_inner();
    let mut output = Output::new();
    let form = if args.json { Form::Json } else { args.output };
    let mut printer = output.printer(form, args.filter.highlight());
    let mut filter = Filter::new(args.filter);
    let telling = args.rate || !output.terminal && std::io::stderr().is_terminal();
    let mut meter = Meter::default();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    second.tick().await;
    let mut since = Instant::now();
    loop {
        tokio::select! {
            batch = batches.message() => {
                let Some(batch) = batch.map_err(refused)? else { return Ok(()) };
                let bytes = batch.0.len();
                let Ok(batch) = v2::EnvelopeBatch::decode(batch.0) else { continue };
                let now = nanos(SystemTime::now());
                meter.bytes += bytes as u64;
                for envelope in &batch.batch {
                    meter.add(now.saturating_sub(envelope.timestamp));
                    if filter.admits(envelope) {
                        printer.put(output.buffer(), envelope);
                    }
                }
                if !output.flush() {
                    return Ok(());
                }
            }
            now = second.tick(), if telling => {
                let took = now.duration_since(std::mem::replace(&mut since, now));
                output.notice(&std::mem::take(&mut meter).line(took));
            }
        }
    }
}
