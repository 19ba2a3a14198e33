//! The load: numbered lines of several sources, each of several instances, and a counter beside them.

use std::net::SocketAddr;
use std::time::Duration;

use proto::v2::Envelope;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::harness::Producer;

pub(super) const SOURCES: u64 = 8;

/// Of each source; its lines take turns.
pub(super) const INSTANCES: u64 = 4;

/// Lines of each source in a frame. With them goes one counter of each.
pub(super) const LINES: u64 = 8;

/// The least that is sent: some 20 000 lines.
const LEAST_FRAMES: u64 = 320;

const PACE: Duration = Duration::from_millis(10);

/// A millisecond from one line of a source to the next: queries tell no finer times apart.
const STEP: i64 = 1_000_000;

/// What lines are like.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    /// The time of line 0, in nanoseconds since the Unix epoch.
    base: i64,
}

impl Plan {
    /// The time of a line of any source.
    pub(super) fn time(self, number: u64) -> i64 {
        self.base + i64::try_from(number).unwrap() * STEP
    }

    /// The number that a line or counter of this time has.
    pub(super) fn number(self, time: i64) -> u64 {
        u64::try_from((time - self.base) / STEP).unwrap()
    }

    fn frame(self, frame: u64) -> Vec<Envelope> {
        let of_source = |source: u64| {
            let numbers = frame * LINES..(frame + 1) * LINES;
            let line = move |number: u64| {
                let line = Envelope::log(id(source), payload(source, number)).at(self.time(number));
                line.instance((number % INSTANCES).to_string())
            };
            let counter = Envelope::counter(id(source), "frames", 1).at(self.time(frame * LINES) + STEP / 2);
            numbers.map(line).chain([counter.instance((frame % INSTANCES).to_string())])
        };
        (0..SOURCES).flat_map(of_source).collect()
    }
}

pub(super) fn id(source: u64) -> String {
    format!("app-{source}")
}

pub(super) fn payload(source: u64, number: u64) -> String {
    format!("{source} {number}")
}

/// How many frames.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    sent: u64,
    pub(super) acknowledged: u64,
}

/// Frames on their way, each after the one before it was acknowledged.
pub(super) struct Traffic {
    pub(super) plan: Plan,
    pub(super) progress: watch::Receiver<Progress>,
    stop: CancellationToken,
    task: JoinHandle<u64>,
}

impl Traffic {
    pub(super) fn start(agent: SocketAddr) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        // A minute ago, so that no line is of the future.
        let base = i64::try_from((now.as_secs() - 60) * 1_000_000_000).unwrap();
        let (plan, stop) = (Plan { base }, CancellationToken::new());
        let (told, progress) = watch::channel(Progress::default());
        let task = tokio_util::task::TaskTracker::new().spawn(send(agent, plan, told, stop.clone()));
        Self { plan, progress, stop, task }
    }

    /// How many frames have been sent.
    pub(super) fn sent(&self) -> u64 {
        self.progress.borrow().sent
    }

    /// Waits until so many frames more are acknowledged.
    pub(super) async fn more(&self, frames: u64) {
        let mut progress = self.progress.clone();
        let goal = progress.borrow().acknowledged + frames;
        let waiting = progress.wait_for(|progress| progress.acknowledged >= goal);
        tokio::time::timeout(super::PATIENCE, waiting).await.expect("lines go on").unwrap();
    }

    /// Sends the rest and returns how many frames there were, all of them acknowledged.
    pub(super) async fn end(self) -> u64 {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn send(agent: SocketAddr, plan: Plan, told: watch::Sender<Progress>, stop: CancellationToken) -> u64 {
    let mut producer = Producer::connect(agent).await;
    let mut schedule = interval(PACE);
    let mut frames = 0;
    while frames < LEAST_FRAMES || !stop.is_cancelled() {
        schedule.tick().await;
        told.send_modify(|progress| progress.sent += 1);
        assert!(producer.send(plan.frame(frames)).await, "the agent takes lines");
        producer.settled().await;
        assert!(producer.last.dropped.is_empty(), "{:?}", producer.last.dropped);
        frames += 1;
        told.send_modify(|progress| progress.acknowledged += 1);
    }
    frames
}
