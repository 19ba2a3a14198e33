//! Drains by the thousand, some of them to receivers that are dead: what each takes, and whether the others notice.
//!
//! Each drain is of one source, which writes a line a second. One receiver takes the lines of all drains that are alive and keeps the
//! accounts; a dead drain's receiver refuses connections, or takes none of those that the kernel makes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use proto::codec::Wire;
use proto::codec::Write;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Bed, DrainsArgs, ScenarioError};
use crate::clock::{Alarm, Clock, nanos};
use crate::generator::batch_sender;
use crate::ledger::Ledger;
use crate::payload::{Found, Reader, Shape, Template};
use crate::procs::Sample;
use crate::report::{Drains, Report};
use crate::run::RunError;
use crate::scrape;
use crate::subscriber::histogram;

/// Bytes of a line, buffers of a connection.
const LINE: usize = 4 * 1024;
/// Batches in a second: each brings the lines of some of the sources.
const BATCHES: u32 = 100;
/// What has not arrived by then does not.
const LATE: Duration = Duration::from_secs(10);
/// After the drains have subscribed, for what is done once.
const SETTLE: Duration = Duration::from_secs(3);

/// Receives the lines of many drains.
struct Receiver {
    addr: SocketAddr,
    taken: Arc<Mutex<Taken>>,
    _stop: DropGuard,
}

struct Taken {
    ledger: Ledger,
    latency: Histogram<u64>,
    unique: u64,
}

impl Receiver {
    async fn start(reader: Reader, drains: u32, clock: Clock, tracker: &TaskTracker) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(4096)?;
        let (addr, stop) = (listener.local_addr()?, CancellationToken::new());
        let taken = Arc::new(Mutex::new(Taken { ledger: Ledger::new(drains), latency: histogram(), unique: 0 }));
        let (into, until, readers) = (Arc::clone(&taken), stop.clone(), tracker.clone());
        let serve = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let read = read(stream, reader.clone(), Arc::clone(&into), clock);
                let until = until.clone();
                readers.spawn(async move { until.run_until_cancelled(read).await });
            }
        };
        let until = stop.clone();
        tracker.spawn(async move { until.run_until_cancelled(serve).await });
        Ok(Self { addr, taken, _stop: stop.drop_guard() })
    }
}

async fn read(stream: TcpStream, mut reader: Reader, into: Arc<Mutex<Taken>>, clock: Clock) {
    let (mut stream, mut line) = (BufReader::with_capacity(LINE, stream), Vec::new());
    while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
        let (found, now) = (reader.read_line(&line), clock.now());
        let Taken { ledger, latency, unique } = &mut *into.lock();
        match found {
            Found::Ours(mark) => {
                if ledger.note(mark.sender, mark.sequence) {
                    *unique += 1;
                    latency.saturating_record(now.saturating_sub(mark.scheduled));
                }
            }
            Found::Corrupt => ledger.note_corrupt(),
            Found::Foreign => ledger.note_foreign(),
        }
        line.clear();
    }
}

/// Receivers that are dead in both ways. They are so until dropped.
struct Dead {
    addrs: [SocketAddr; 2],
    _refuses: TcpSocket,
    _takes_none: TcpListener,
}

impl Dead {
    fn new() -> std::io::Result<Self> {
        let bound = || -> std::io::Result<TcpSocket> {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
            Ok(socket)
        };
        let (refuses, silent) = (bound()?, bound()?);
        let addrs = [refuses.local_addr()?, silent.local_addr()?];
        Ok(Self { addrs, _refuses: refuses, _takes_none: silent.listen(1)? })
    }
}

/// A doppler without its cache, and adapters with many drains.
pub(super) async fn drains(args: &DrainsArgs) -> Result<Report, ScenarioError> {
    let (count, dead_count) = (args.drains.get(), args.dead.min(args.drains.get()));
    let (clock, shape) = (Clock::start(), Shape::default());
    let bed = Bed::new(&args.setup)?;
    let run = clock.now();
    let receiver =
        Receiver::start(Reader::new(run, shape), count, clock, bed.tracker()).await.map_err(ScenarioError::Sink)?;
    let dead = Dead::new().map_err(ScenarioError::Sink)?;
    let source = |drain: u32| format!("loadtest-{drain:05}");
    // Dead ones are spread among the others.
    let is_dead = |drain: u32| u64::from(drain) * u64::from(dead_count) % u64::from(count) < u64::from(dead_count);
    let receiver_of = |drain: u32| if is_dead(drain) { dead.addrs[drain as usize / 2 % 2] } else { receiver.addr };
    let drains: Vec<_> = (0..count).map(|drain| (source(drain), receiver_of(drain))).collect();
    let alone = rss_of(&bed, &drains[..1]).await?;
    let (servers, [at_doppler, admin]) = bed.many_drains(&drains).await?;
    let Some(pid) = servers.watched.get(1).map(|watched| watched.pid) else { return Ok(Report::new("drains")) };
    let sample = || Sample::of(pid).map_err(ScenarioError::Measure);
    sleep(SETTLE).await;
    let before = sample()?;

    let peer = &servers.target.ingress;
    let failed = |source| RunError::Connect { address: peer.address.clone(), source };
    let channel = transport::connect(&peer.address, &peer.options).await.map_err(failed)?;
    let (batches, outgoing) = mpsc::channel::<Wire>(4);
    let call = bed.tracker().spawn(batch_sender(channel, ReceiverStream::new(outgoing)));
    let templates: Vec<_> = (0..count).map(|i| Template::new(run, i, &source(i), "0", shape)).collect();
    let mut alarm = Alarm::new(clock).map_err(ScenarioError::Measure)?;
    let (start, began) = (clock.now() + nanos(Duration::from_millis(100)), Instant::now());
    let mut issued = vec![0; count as usize];
    'load: for second in 0..args.seconds {
        for batch in 0..BATCHES {
            let due = start + second * 1_000_000_000 + u64::from(batch) * 1_000_000_000 / u64::from(BATCHES);
            alarm.until(due).await.map_err(ScenarioError::Measure)?;
            let mut bytes = Vec::new();
            for (i, template) in templates.iter().enumerate().skip(batch as usize).step_by(BATCHES as usize) {
                template.load(second, 1, due).write(&mut bytes);
                issued[i] += 1;
            }
            if !bytes.is_empty() && batches.send(Wire(bytes.into())).await.is_err() {
                break 'load;
            }
        }
    }
    let (loaded, seconds) = (sample()?, began.elapsed().as_secs_f64());
    drop(batches);
    // Its answer does not matter: originals end a stream with an error of their own.
    let _ = call.await;
    for (i, issued) in issued.iter_mut().enumerate() {
        if is_dead(i as u32) {
            *issued = 0;
        }
    }
    let all: u64 = issued.iter().sum();
    let since = Instant::now();
    while receiver.taken.lock().unique < all && since.elapsed() < LATE {
        sleep(Duration::from_millis(20)).await;
    }
    let received = scrape::number(admin, "hydrant_received_envelopes_total{stage=\"drain\"}").await?;
    let copies = scrape::number(at_doppler, "hydrant_router_copies_total").await?;
    let after = sample()?;
    let (account, latency) = {
        let taken = receiver.taken.lock();
        (taken.ledger.settle(&issued), (&taken.latency).into())
    };
    servers.stop().await?;
    drop(receiver);
    bed.close().await;
    let each = |sample: &Sample| sample.rss_bytes.saturating_sub(alone) / u64::from(count);
    let mut report = Report::new("drains");
    report.drains = Some(Drains {
        drains: count,
        dead: dead_count,
        seconds,
        copies,
        received,
        account,
        latency,
        cpu_percent: (loaded.cpu - before.cpu).as_secs_f64() / seconds * 100.0,
        idle_bytes_each: each(&before),
        bytes_each: each(&after),
    });
    Ok(report)
}

/// The memory of adapters with these drains.
async fn rss_of(bed: &Bed, drains: &[(String, SocketAddr)]) -> Result<u64, ScenarioError> {
    let (servers, _) = bed.many_drains(drains).await?;
    sleep(SETTLE).await;
    let rss =
        servers.watched.get(1).map(|watched| Sample::of(watched.pid)).transpose().map_err(ScenarioError::Measure)?;
    servers.stop().await?;
    Ok(rss.map_or(0, |sample| sample.rss_bytes))
}
