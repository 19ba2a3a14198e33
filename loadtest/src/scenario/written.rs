//! Metrics to a receiver of remote-write: samples a second, processor time of each, and whether every one arrived.
//!
//! Each source sends gauges of several metrics, at most one a millisecond, so that no sample takes the place of another. A receiver of our
//! own counts what it unpacks; to another one, what the drain says was taken counts.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use proto::codec::{Wire, Write};
use proto::raw::Malformed;
use proto::raw::wire::{Fields, WireType, put_bytes};
use proto::v2;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Bed, RemoteWriteArgs, ScenarioError};
use crate::clock::{Alarm, Clock, nanos};
use crate::generator::batch_sender;
use crate::payload::{NINE_BYTES, put_nine_byte_varint};
use crate::procs::Sample;
use crate::report::{Report, Written};
use crate::run::RunError;
use crate::scrape;

/// Batches in a second.
const BATCHES: u64 = 100;
/// What the drain has not delivered by then it does not.
const LATE: Duration = Duration::from_secs(30);

/// Counts samples.
struct Receiver {
    addr: SocketAddr,
    counts: Arc<Counts>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    samples: AtomicU64,
    bytes: AtomicU64,
    /// Bodies that are none.
    bad: AtomicU64,
}

impl Receiver {
    async fn start(tracker: &TaskTracker) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, counts, stop) = (listener.local_addr()?, Arc::<Counts>::default(), CancellationToken::new());
        let (into, until, connections) = (Arc::clone(&counts), stop.clone(), tracker.clone());
        let serve = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (into, until) = (Arc::clone(&into), until.clone());
                let service = hyper::service::service_fn(move |request| take(request, Arc::clone(&into)));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { until.run_until_cancelled(connection).await });
            }
        };
        let until = stop.clone();
        tracker.spawn(async move { until.run_until_cancelled(serve).await });
        Ok(Self { addr, counts, _stop: stop.drop_guard() })
    }
}

async fn take(request: Request<Incoming>, counts: Arc<Counts>) -> Result<Response<Empty<bytes::Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let found = request.into_body().collect().await.ok().and_then(|body| {
        let body = body.to_bytes();
        let unpacked = snap::raw::Decoder::new().decompress_vec(&body).ok()?;
        Some((samples(&unpacked).ok()?, body.len() as u64))
    });
    counts.requests.fetch_add(1, Ordering::Relaxed);
    match found {
        Some((samples, bytes)) => {
            counts.samples.fetch_add(samples, Ordering::Relaxed);
            counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        None => {
            counts.bad.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(response)
}

/// The samples of a `WriteRequest`: field 2 of each of its series, field 1.
fn samples(request: &[u8]) -> Result<u64, Malformed> {
    let mut count = 0;
    let mut all = Fields::new(request);
    while !all.is_done() {
        match all.key()? {
            (1, WireType::Len) => {
                let mut series = Fields::new(all.bytes()?);
                while !series.is_done() {
                    let (number, wire_type) = series.key()?;
                    count += u64::from(number == 2);
                    series.skip(number, wire_type)?;
                }
            }
            (number, wire_type) => all.skip(number, wire_type)?,
        }
    }
    Ok(count)
}

/// A gauge of one source, encoded, as field 1 of an `EnvelopeBatch`, and where its timestamp is.
fn gauge(source: u64, metrics: u32) -> (Vec<u8>, usize) {
    let mut envelope = v2::Envelope::gauge(format!("loadtest-{source:05}"), "metric_00", 1.5, "bytes");
    if let Some(v2::envelope::Message::Gauge(gauge)) = &mut envelope.message {
        for metric in 1..metrics {
            let value = v2::GaugeValue { unit: "bytes".to_owned(), value: 1.5 + f64::from(metric) };
            gauge.metrics.insert(format!("metric_{metric:02}"), value);
        }
    }
    let tags = [
        ("deployment", "cf-prod"),
        ("job", "diego-cell"),
        ("index", "6f2c1b9a"),
        ("origin", "rep"),
        ("ip", "10.0.16.37"),
    ];
    let envelope = envelope.at(NINE_BYTES.cast_signed()).instance("0");
    let envelope = tags.into_iter().fold(envelope, |envelope, (key, value)| envelope.tag(key, value));
    let (mut encoded, mut frame) = (Vec::new(), Vec::new());
    envelope.write(&mut encoded);
    put_bytes(&mut frame, 1, &encoded);
    // The timestamp is field 1, which encoders write first: its key takes one byte.
    let at = frame.len() - encoded.len() + 1;
    (frame, at)
}

/// A doppler without its cache, and adapters with a drain of metrics.
pub(super) async fn remote_write(args: &RemoteWriteArgs) -> Result<Report, ScenarioError> {
    let bed = Bed::new(&args.setup)?;
    let clock = Clock::start();
    let receiver = match &args.to {
        Some(_) => None,
        None => Some(Receiver::start(bed.tracker()).await.map_err(ScenarioError::Sink)?),
    };
    let own = receiver.as_ref().map(|receiver| format!("remote-write+http://{}/api/v1/write", receiver.addr));
    let url = args.to.clone().or(own).unwrap_or_default();
    let (servers, [at_doppler, admin]) = bed.metrics_drain(&url).await?;
    let Some(pid) = servers.watched.get(1).map(|watched| watched.pid) else { return Ok(Report::new("remote-write")) };
    let sample = || Sample::of(pid).map_err(ScenarioError::Measure);
    let peer = &servers.target.ingress;
    let failed = |source| RunError::Connect { address: peer.address.clone(), source };
    let channel = transport::connect(&peer.address, &peer.options).await.map_err(failed)?;
    let (batches, outgoing) = mpsc::channel::<Wire>(4);
    let call = bed.tracker().spawn(batch_sender(channel, ReceiverStream::new(outgoing)));

    let (metrics, sources) = (args.metrics, u64::from(args.sources.get()));
    let each = (args.rate.get() / u64::from(metrics) / BATCHES).min(sources);
    let mut gauges: Vec<_> = (0..sources).map(|source| gauge(source, metrics)).collect();
    let mut alarm = Alarm::new(clock).map_err(ScenarioError::Measure)?;
    let (before, start) = (sample()?, clock.now() + nanos(Duration::from_millis(100)));
    let began = Instant::now();
    let (mut sent, mut next) = (0, 0);
    'load: for batch in 0..args.seconds * BATCHES {
        let due = start + batch * 1_000_000_000 / BATCHES;
        alarm.until(due).await.map_err(ScenarioError::Measure)?;
        let mut bytes = Vec::new();
        for _ in 0..each {
            let (gauge, at) = &mut gauges[next];
            put_nine_byte_varint(&mut gauge[*at..], due);
            bytes.extend_from_slice(gauge);
            next = (next + 1) % gauges.len();
        }
        sent += each;
        if batches.send(Wire(bytes.into())).await.is_err() {
            break 'load;
        }
    }
    drop(batches);
    // Its answer does not matter: originals end a stream with an error of their own.
    let _ = call.await;
    let numbers = async || -> Result<_, ScenarioError> {
        let delivered = scrape::number(admin, "hydrant_delivered_envelopes_total{stage=\"drain\"}").await?;
        let dropped = async |addr| Ok::<_, ScenarioError>(scrape::drops(addr).await?.values().sum::<u64>());
        Ok((delivered, dropped(admin).await?, dropped(at_doppler).await?))
    };
    let (mut now, since) = (numbers().await?, Instant::now());
    while now.0 + now.1 + now.2 < sent && since.elapsed() < LATE {
        sleep(Duration::from_millis(20)).await;
        now = numbers().await?;
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), sample()?);
    let (delivered, dropped, dropped_before) = now;
    servers.stop().await?;
    let counts = receiver.as_ref().map(|receiver| Arc::clone(&receiver.counts));
    drop(receiver);
    bed.close().await;
    let of = |count: fn(&Counts) -> &AtomicU64| counts.as_ref().map(|counts| count(counts).load(Ordering::Relaxed));
    let mut report = Report::new("remote-write");
    report.written = Some(Written {
        to: args.to.clone().unwrap_or_else(|| "a receiver that counts".to_owned()),
        seconds,
        sent: sent * u64::from(metrics),
        delivered: delivered * u64::from(metrics),
        dropped: (dropped + dropped_before) * u64::from(metrics),
        counted: of(|counts| &counts.samples),
        requests: of(|counts| &counts.requests),
        bytes: of(|counts| &counts.bytes),
        bad: of(|counts| &counts.bad).unwrap_or_default(),
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / (sent * u64::from(metrics)) as f64,
        peak_rss_bytes: after.peak_rss_bytes,
    });
    Ok(report)
}
