//! `hydrant firehose`: everything, live, through the reverse log proxy.

use anyhow::anyhow;
use jiff::tz::TimeZone;
use prost::Message;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use proto::v2::selector::Message as Select;
use tonic::metadata::MetadataValue;
use transport::{Address, reason};

use crate::cli::{Failure, runtime};
use crate::client::{Connect, MAX, Output, SERVER, Server};
use crate::render::{self, Form};
use crate::token;

/// Arguments of `hydrant firehose`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Share the firehose with every other reader of the same name: each envelope goes to one of them
    #[arg(long, value_name = "NAME", default_value = "")]
    shard: String,
    /// How to show envelopes
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

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    runtime()?.block_on(firehose(args))
}

async fn firehose(args: Args) -> Result<(), Failure> {
    let server = Server { what: "a traffic controller", address: &args.server, option: "--server", name: SERVER };
    let bearer = args.token.bearer(&args.server, args.connect.is_encrypted())?;
    let channel = server.connect(&args.connect).await?;
    let mut client = EgressClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX);
    let every = [
        Select::Log(v2::LogSelector {}),
        Select::Counter(v2::CounterSelector::default()),
        Select::Gauge(v2::GaugeSelector::default()),
        Select::Timer(v2::TimerSelector {}),
        Select::Event(v2::EventSelector {}),
    ];
    let selectors = every.map(|message| v2::Selector { source_id: String::new(), message: Some(message) });
    let request = v2::EgressBatchRequest {
        shard_id: args.shard,
        selectors: selectors.into(),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    };
    let refused =
        |status: tonic::Status| Failure::Failed(anyhow!("the traffic controller ended it: {}", reason(&status)));
    let mut request = tonic::Request::new(request);
    request.metadata_mut().insert(proto::loss::ASKED, MetadataValue::from_static("true"));
    let mut batches = client.batched_receiver(request).await.map_err(refused)?.into_inner();
    let form = if args.json { Form::Json } else { args.output };
    let (mut output, zone) = (Output::new(), TimeZone::system());
    while let Some(batch) = batches.message().await.map_err(refused)? {
        let Ok(batch) = v2::EnvelopeBatch::decode(batch.0) else { continue };
        let colour = output.colour;
        for envelope in &batch.batch {
            render::put(output.buffer(), envelope, form, colour, &zone);
        }
        if !output.flush() {
            return Ok(());
        }
    }
    Ok(())
}
