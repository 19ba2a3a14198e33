//! Reading a cache while it is written: one source that holds much, read in turn over gRPC, over HTTP and by a query.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::logcache::v1::prom_ql::InstantQueryRequest;
use proto::logcache::v1::prom_ql_querier_client::PromQlQuerierClient;
use proto::v2::{Envelope, EnvelopeBatch, envelope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::ReadsArgs;
use super::bed::{Bed, ScenarioError};
use crate::report::{Latency, Read, Report};
use crate::run::{Peer, RunError, run};

/// The source that is read; nobody else writes to it.
const SOURCE: &str = "held";

/// Envelopes of one read.
const LIMIT: i64 = 1000;

/// Envelopes of one message while it is filled.
const BATCH: u32 = 1000;

/// The largest answer.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Fills the source, then reads it until the load ends.
pub(super) async fn reads(args: &ReadsArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let (servers, controller, rest) = bed.read().await?;
    let plan = args.load.plan(100_000, 10, 100);
    let channel = connect(&servers.target.ingress).await?;
    let end = fill(channel.clone(), args.held).await?;
    let reader = Reader { doppler: channel, controller: connect(&controller).await?, rest, end };
    let done = CancellationToken::new();
    let load = async {
        let found = run("reads", &plan, &servers.target, &servers.watched).await;
        done.cancel();
        found
    };
    let (found, read) = tokio::join!(load, reader.read(&done));
    servers.stop().await?;
    bed.close().await;
    let mut report = Report::new("reads");
    report.runs.push(found?);
    report.reads = read?;
    Ok(report)
}

async fn connect(peer: &Peer) -> Result<Channel, RunError> {
    let failed = |source| RunError::Connect { address: peer.address.clone(), source };
    transport::connect(&peer.address, &peer.options).await.map_err(failed)
}

/// Sends logs and samples of a counter, 10 ms apart up to now. Returns the time of the last in nanoseconds since the Unix epoch.
async fn fill(channel: Channel, held: u32) -> Result<i64, ScenarioError> {
    let mut cache = IngressClient::new(channel).max_encoding_message_size(MAX_ANSWER);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
    let at = |i: u32| now - i64::from(held - i) * 10_000_000;
    let tagged = |envelope: Envelope| (0..8).fold(envelope, |all, i| all.tag(format!("tag-{i}"), format!("value {i}")));
    for first in (0..held).step_by(BATCH as usize) {
        let all = first..held.min(first + BATCH);
        let both = all.flat_map(|i| {
            let line =
                format!("request {i} of /orders/{} took {} ms, {} bytes {:0>120}", i % 977, i % 89, i * 31 % 65_536, i);
            let mut counter = Envelope::counter(SOURCE, "requests", 1);
            if let Some(envelope::Message::Counter(counter)) = &mut counter.message {
                counter.total = u64::from(i);
            }
            [Envelope::log(SOURCE, line), counter].map(|envelope| tagged(envelope.at(at(i))))
        });
        let envelopes = prost::Message::encode_to_vec(&EnvelopeBatch { batch: both.collect() }).into();
        cache
            .send(v1::SendRequest { envelopes, local_only: true })
            .await
            .map_err(Box::new)
            .map_err(ScenarioError::Read)?;
    }
    Ok(now)
}

struct Reader {
    doppler: Channel,
    controller: Channel,
    rest: SocketAddr,
    end: i64,
}

impl Reader {
    /// One read after another, each kind in turn, until `done`.
    async fn read(&self, done: &CancellationToken) -> Result<Vec<Read>, ScenarioError> {
        let mut doppler = EgressClient::new(self.doppler.clone()).max_decoding_message_size(MAX_ANSWER);
        let mut controller = EgressClient::new(self.controller.clone()).max_decoding_message_size(MAX_ANSWER);
        let mut queries = PromQlQuerierClient::new(self.controller.clone());
        let mut rest = TcpStream::connect(self.rest).await.map_err(ScenarioError::Rest)?;
        let request = v1::ReadRequest {
            source_id: SOURCE.to_owned(),
            end_time: self.end + 1,
            envelope_types: vec![v1::EnvelopeType::Log.into()],
            limit: LIMIT,
            descending: true,
            ..v1::ReadRequest::default()
        };
        // All that is held.
        let query = InstantQueryRequest {
            query: format!("rate(requests{{source_id=\"{SOURCE}\"}}[1d])"),
            time: format!("{}", self.end / 1_000_000_000 + 1),
        };
        let kinds = [
            "1 000 newest, gRPC, doppler",
            "1 000 newest, gRPC, traffic controller",
            "1 000 newest, REST",
            "rate() over all",
        ];
        let mut found = kinds.map(|what| (what, histogram()));
        while !done.is_cancelled() {
            for (kind, (_, latencies)) in found.iter_mut().enumerate() {
                let began = Instant::now();
                let failed = |status| ScenarioError::Read(Box::new(status));
                match kind {
                    0 => drop(doppler.read(request.clone()).await.map_err(failed)?),
                    1 => drop(controller.read(request.clone()).await.map_err(failed)?),
                    2 => self.get(&mut rest).await.map_err(ScenarioError::Rest)?,
                    _ => drop(queries.instant_query(query.clone()).await.map_err(failed)?),
                }
                latencies.saturating_record(began.elapsed().as_nanos() as u64);
            }
        }
        let read = |(what, latencies): (&str, Histogram<u64>)| Read {
            what: what.to_owned(),
            count: latencies.len(),
            latency: Latency::from(&latencies),
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// The same read over HTTP, on a connection that is kept.
    async fn get(&self, socket: &mut TcpStream) -> std::io::Result<()> {
        let request = format!(
            "GET /api/v1/read/{SOURCE}?limit={LIMIT}&descending=true&envelope_types=LOG&end_time={} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.end + 1,
            self.rest
        );
        socket.write_all(request.as_bytes()).await?;
        let (mut answer, mut end) = (Vec::new(), None);
        while end.is_none_or(|end| answer.len() < end) {
            if socket.read_buf(&mut answer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if end.is_none() {
                end = whole(&answer);
            }
        }
        if answer.starts_with(b"HTTP/1.1 200") {
            Ok(())
        } else {
            Err(std::io::Error::other("an answer other than 200"))
        }
    }
}

/// How long an answer is whose head has come.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
    Some(head + length)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that are apart, three digits")
}
