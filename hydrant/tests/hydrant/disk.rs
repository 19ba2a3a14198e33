//! Adapters that are killed at random moments while they buffer on disk: what was committed arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::v2;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::{Process, Producer, metrics, pipeline, sum, until};

/// How often the adapters are killed. `HYDRANT_KILLS` sets another number.
const KILLS: u64 = 25;
/// Lines sent in each life.
const LINES: u64 = 300;

/// A receiver that now and then reads nothing for a while.
struct Receiver {
    addr: SocketAddr,
    /// How often each line came.
    got: Arc<Mutex<BTreeMap<(u64, u64), u64>>>,
    /// It reads nothing while this holds.
    asleep: Arc<AtomicBool>,
}

impl Receiver {
    /// Serves connections until the test ends.
    async fn start(tasks: &mut tokio::task::JoinSet<()>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (got, asleep) = (Arc::<Mutex<BTreeMap<(u64, u64), u64>>>::default(), Arc::new(AtomicBool::new(false)));
        let (counts, sleeps) = (Arc::clone(&got), Arc::clone(&asleep));
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (counts, sleeps) = (Arc::clone(&counts), Arc::clone(&sleeps));
                connections.spawn(async move {
                    let mut lines = BufReader::new(stream).lines();
                    loop {
                        while sleeps.load(Ordering::Relaxed) {
                            tokio::task::yield_now().await;
                        }
                        // A life that ends amid a line leaves half of one.
                        let Ok(Some(line)) = lines.next_line().await else { return };
                        if let Some((life, i)) = parse(&line) {
                            *counts.lock().entry((life, i)).or_default() += 1;
                        }
                    }
                });
            }
        });
        Self { addr, got, asleep }
    }
}

/// `… line LIFE I;`
fn parse(line: &str) -> Option<(u64, u64)> {
    let (life, i) = line.rsplit_once(" line ")?.1.strip_suffix(';')?.split_once(' ')?;
    Some((life.parse().ok()?, i.parse().ok()?))
}

/// A small generator of numbers, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_arrives_however_often_the_adapters_are_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (kills, seed) = (number("HYDRANT_KILLS").unwrap_or(KILLS), number("HYDRANT_SEED").unwrap_or(7).max(1));
    let mut random = Random(seed);
    let mut tasks = tokio::task::JoinSet::new();
    let receiver = Receiver::start(&mut tasks).await;
    let up = pipeline("").await;
    let state = tempfile::tempdir().unwrap();
    let config = format!(
        "adapters.state_dir = {:?}\nadapters.dopplers = [{{ addresses = [\"{}\"] }}]\n\
         [[adapters.drains]]\nname = \"d\"\nurl = \"syslog://{}\"\nsources = [\"app\"]\nbuffer = \"disk\"\ndisk.keep_free_percent = 0\nline.framing = \"line-feed\"\n",
        state.path().display().to_string(),
        up.doppler().grpc,
        receiver.addr,
    );
    let mut producer = Producer::connect(up.agent().grpc).await;
    let mut durable: BTreeSet<(u64, u64)> = BTreeSet::new();
    for life in 0..kills {
        receiver.asleep.store(random.below(3) == 0, Ordering::Relaxed);
        let adapters = Process::start("adapters", &config).await;
        let admin = adapters.addr("admin");
        // One line alone, until one is on disk: then the drain is subscribed.
        let committed =
            |page: &BTreeMap<String, f64>| sum(page, "hydrant_queue_accepted_total", "queue=\"drain_disk\"");
        let before = committed(&metrics(admin).await);
        loop {
            producer.send(vec![v2::Envelope::log("app", format!("probe {life};"))]).await;
            let patience = Instant::now() + Duration::from_millis(200);
            let mut now = committed(&metrics(admin).await);
            while now == before && Instant::now() < patience {
                now = committed(&metrics(admin).await);
            }
            if now > before {
                break;
            }
        }
        producer.settled().await;
        let is_idle = |page: &BTreeMap<String, f64>| {
            sum(page, "hydrant_received_envelopes_total", "drain") == committed(page) - before
        };
        let page = until(admin, is_idle).await;
        let first = committed(&page);
        // In pieces, so that there are several commits to be killed amid.
        let lines = (0..LINES).map(|i| v2::Envelope::log("app", format!("line {life} {i};"))).collect::<Vec<_>>();
        let send = async {
            for piece in lines.chunks(7) {
                producer.send(piece.to_vec()).await;
                producer.settled().await;
            }
        };
        // Once so many are seen to be committed it is killed, whatever it does then.
        let wanted = random.below(LINES * 9 / 10);
        let kill = async {
            let mut seen = 0;
            while seen < wanted {
                seen = committed(&metrics(admin).await) - first;
            }
            // The rest of the lines go where nobody is.
            adapters.kill().await;
            seen
        };
        let ((), seen) = tokio::join!(send, kill);
        durable.extend((0..seen).map(|i| (life, i)));
    }
    receiver.asleep.store(false, Ordering::Relaxed);
    let adapters = Process::start("adapters", &config).await;
    let depth = |page: &BTreeMap<String, f64>| sum(page, "hydrant_queue_depth_envelopes", "queue=\"drain_disk\"");
    let admin = adapters.addr("admin");
    until(admin, |page| sum(page, "hydrant_delivered_envelopes_total", "drain") > 0 || depth(page) == 0).await;
    adapters.terminate();
    assert!(adapters.ended().await.success());
    // What the last life did not deliver before its stop, the next one does.
    let adapters = Process::start("adapters", &config).await;
    let admin = adapters.addr("admin");
    let missing = || durable.iter().filter(|line| !receiver.got.lock().contains_key(line)).count();
    let patience = Instant::now() + Duration::from_secs(60);
    while missing() > 0 && Instant::now() < patience {
        metrics(admin).await;
    }
    let page = metrics(admin).await;
    adapters.terminate();
    adapters.ended().await;
    let got = receiver.got.lock().clone();
    let repeats: u64 = got.values().map(|count| count - 1).sum();
    println!(
        "{{\"id\":\"F08\",\"seed\":{seed},\"kills\":{kills},\"issued\":{},\"durable\":{},\"unique\":{},\"duplicates\":{repeats},\"missing\":{}}}",
        kills * LINES,
        durable.len(),
        got.len(),
        missing_of(&durable, &got).len(),
    );
    assert_eq!(missing_of(&durable, &got), [], "seed {seed}: committed and lost");
    assert_eq!(sum(&page, "hydrant_dropped_envelopes_total", "disk_corrupt"), 0);
    let share = durable.len() as u64 * 100 / (kills * LINES);
    assert!((10..=90).contains(&share), "lives were killed amid their work: {share} % was seen committed");
    up.shutdown().await.unwrap();
}

fn missing_of(durable: &BTreeSet<(u64, u64)>, got: &BTreeMap<(u64, u64), u64>) -> Vec<(u64, u64)> {
    durable.iter().filter(|line| !got.contains_key(line)).copied().take(20).collect()
}
