//! A client of the log cache that walks the sources by time, and what it may find missing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::traffic::{INSTANCES, LINES, Plan, Progress, SOURCES, Traffic, id, payload};
use crate::harness::{Answer, get};

/// Envelopes of a page.
const PAGE: usize = 300;

/// Where the doppler that is killed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Alive,
    Killing,
    /// Dead, and still one of the set.
    Killed,
    Leaving,
    Left,
}

/// What is known of the doppler that is killed.
pub(super) struct Known {
    /// Its address, as answers name it.
    name: String,
    /// Source and number of lines that it held some time before.
    held: BTreeSet<(u64, u64)>,
    phase: Mutex<Phase>,
    /// Frames sent by the time it was dead.
    killed_at: Mutex<Option<u64>>,
}

impl Known {
    pub(super) fn new(name: String, held: BTreeSet<(u64, u64)>) -> Arc<Self> {
        let (phase, killed_at) = (Mutex::new(Phase::Alive), Mutex::default());
        Arc::new(Self { name, held, phase, killed_at })
    }

    pub(super) fn enter(&self, phase: Phase) {
        *self.phase.lock() = phase;
    }

    /// It is dead, and so many frames have been sent.
    pub(super) fn killed(&self, sent: u64) {
        *self.killed_at.lock() = Some(sent);
        self.enter(Phase::Killed);
    }

    fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    /// True for a line of an instance that was placed there.
    pub(super) fn is_of_instance(&self, source: u64, number: u64) -> bool {
        self.held.iter().any(|(of, held)| *of == source && held % INSTANCES == number % INSTANCES)
    }

    /// Asserts that it had held what is missing of a source: of each instance what came first, up to its end at most.
    pub(super) fn explains(&self, source: u64, missing: &BTreeSet<u64>, present: &BTreeSet<u64>) {
        let before = self.killed_at.lock().map_or(u64::MAX, |frames| frames * LINES);
        for number in missing {
            assert!(
                *number < before && self.is_of_instance(source, *number),
                "line {number} of source {source} is missing"
            );
            let earlier = present.iter().find(|present| *present < number && (number - **present) % INSTANCES == 0);
            assert_eq!(earlier, None, "line {number} of source {source} is missing, an earlier one is there");
        }
    }

    /// Asserts that all is missing that it held for certain.
    pub(super) fn is_gone(&self, source: u64, missing: &BTreeSet<u64>) {
        let held = self.held.iter().filter(|(of, _)| *of == source).map(|(_, number)| number);
        assert!(
            held.clone().all(|number| missing.contains(number)),
            "source {source} has what only the killed one had"
        );
    }

    /// Asserts that a page is whole, or says that this doppler is missing.
    fn check(&self, source: u64, page: &Page) {
        let present: BTreeSet<u64> = page.numbers.iter().copied().collect();
        let in_order = page.numbers.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order, "source {source}: neither in order nor once each: {:?}", page.numbers);
        assert!(
            page.numbers.iter().all(|number| page.covers.contains(number)),
            "{:?} of {:?}",
            page.numbers,
            page.covers
        );
        let missing: BTreeSet<u64> = page.covers.clone().filter(|number| !present.contains(number)).collect();
        self.explains(source, &missing, &present);
        let names = page.partial.as_deref() == Some(&self.name);
        assert!(names || page.partial.is_none(), "{:?}", page.partial);
        match (page.before, page.after) {
            (_, Phase::Alive) | (Phase::Left, _) => assert!(!names, "nobody is missing: {:?}", page.partial),
            (Phase::Killed, Phase::Killed) => {
                assert!(names, "source {source}: an answer without the dead one says nothing")
            }
            _ => {}
        }
        if page.after == Phase::Alive {
            assert!(missing.is_empty(), "source {source}: {missing:?} are missing");
        } else if page.after < Phase::Leaving {
            assert!(names || missing.is_empty(), "source {source}: {missing:?} are missing in silence");
        }
    }
}

/// One answer of a walk.
pub(super) struct Page {
    pub(super) numbers: Vec<u64>,
    /// The numbers that it is about.
    covers: Range<u64>,
    partial: Option<String>,
    before: Phase,
    after: Phase,
}

/// Whom an answer lacks.
pub(super) fn partial(answer: &Answer) -> Option<String> {
    let mut headers = answer.head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(name, _)| name.eq_ignore_ascii_case("x-hydrant-partial")).map(|(_, value)| value.trim().to_owned())
}

/// Reads what `frames` have brought of a source and a kind, by time, page after page.
pub(super) async fn walk(
    rest: SocketAddr,
    plan: Plan,
    known: &Known,
    (source, kind): (u64, &str),
    frames: u64,
) -> Vec<Page> {
    let (mut from, end) = (plan.time(0), plan.time(frames * LINES));
    let mut pages = Vec::new();
    loop {
        let path =
            format!("/api/v1/read/{}?start_time={from}&end_time={end}&limit={PAGE}&envelope_types={kind}", id(source));
        let before = known.phase();
        let answer = get(rest, &path).await;
        let after = known.phase();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let batch = body["envelopes"]["batch"].as_array().unwrap();
        let times: Vec<i64> = batch.iter().map(|one| one["timestamp"].as_str().unwrap().parse().unwrap()).collect();
        let numbers: Vec<u64> = times.iter().map(|time| plan.number(*time)).collect();
        for (one, number) in batch.iter().zip(&numbers).filter(|_| kind == "LOG") {
            let text = BASE64_STANDARD.decode(one["log"]["payload"].as_str().unwrap()).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), payload(source, *number));
        }
        let full = times.last().filter(|_| batch.len() == PAGE).map(|last| last + 1);
        // What is between its last and the end is another page's.
        let until = full.map_or(frames * LINES, |_| numbers.last().unwrap() + 1);
        let begin = pages.last().map_or(0, |page: &Page| page.covers.end);
        pages.push(Page { numbers, covers: begin..until, partial: partial(&answer), before, after });
        match full {
            Some(next) if next < end => from = next,
            _ => return pages,
        }
    }
}

/// Walks on and on.
pub(super) struct Reader {
    /// How many times it has been through all sources.
    rounds: watch::Receiver<u64>,
    stop: CancellationToken,
    task: JoinHandle<Counts>,
}

/// What it has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) pages: u64,
    pub(super) partial: u64,
}

impl Reader {
    pub(super) fn start(rest: SocketAddr, traffic: &Traffic, known: &Arc<Known>) -> Self {
        let (told, rounds) = watch::channel(0);
        let stop = CancellationToken::new();
        let reading = read(rest, traffic.plan, traffic.progress.clone(), Arc::clone(known), told, stop.clone());
        Self { rounds, stop, task: tokio_util::task::TaskTracker::new().spawn(reading) }
    }

    /// Waits until it has been through all sources so many times more.
    pub(super) async fn rounds(&self, more: u64) {
        let mut rounds = self.rounds.clone();
        let goal = *rounds.borrow() + more;
        let waiting = rounds.wait_for(|rounds| *rounds >= goal);
        let went = tokio::time::timeout(super::PATIENCE, waiting).await.expect("reads go on").is_ok();
        assert!(went, "the reader has found a fault");
    }

    pub(super) async fn end(self) -> Counts {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

async fn read(
    rest: SocketAddr,
    plan: Plan,
    progress: watch::Receiver<Progress>,
    known: Arc<Known>,
    told: watch::Sender<u64>,
    stop: CancellationToken,
) -> Counts {
    let mut counts = Counts::default();
    while !stop.is_cancelled() {
        for source in 0..SOURCES {
            let frames = progress.borrow().acknowledged;
            for page in walk(rest, plan, &known, (source, "LOG"), frames).await {
                known.check(source, &page);
                counts.pages += 1;
                counts.partial += u64::from(page.partial.is_some());
            }
        }
        told.send_modify(|rounds| *rounds += 1);
    }
    counts
}
