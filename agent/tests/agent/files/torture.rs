//! Many writers that rotate by every means, and an agent that is stopped and started again: each line exactly once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Notify, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

const FILES: usize = 12;
/// Lines that a writer is ahead of what has arrived.
const AHEAD: u64 = 3_000;

/// What has arrived of each file.
#[derive(Default)]
struct Ledger {
    arrived: [AtomicU64; FILES],
    changed: Notify,
    over: AtomicBool,
    /// Held by who must not be disturbed by a restart.
    restart: RwLock<()>,
}

impl Ledger {
    /// Awaits that many lines of a file, or the end: what is missing then is seen there.
    async fn until(&self, file: usize, lines: u64) {
        while self.arrived[file].load(Ordering::Acquire) < lines && !self.over.load(Ordering::Acquire) {
            // What came just before is not told again.
            let _woken = timeout(Duration::from_millis(20), self.changed.notified()).await;
        }
    }
}

/// xorshift64*: one seed, one run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

struct Writer {
    file: usize,
    path: PathBuf,
    out: File,
    random: Random,
    written: u64,
    /// How it was rotated, and how many lines had been written then.
    rotations: Vec<(&'static str, u64)>,
}

impl Writer {
    /// One line, in up to three parts, with a line of the other stream between them.
    fn line(&mut self, into: &mut String) {
        let (number, stamp) = (self.written, format!("2024-04-05T19:34:38.{:09}Z", self.written));
        self.written += 1;
        let stream = ["stdout", "stderr"][self.random.below(2) as usize];
        let pad = "x".repeat(self.random.below(120) as usize);
        let whole = format!("{} {number} {pad}", self.file);
        if self.random.below(8) == 0 && whole.len() > 4 {
            let (first, last) = whole.split_at(whole.len() / 2);
            into.push_str(&format!("{stamp} {stream} P {first}\n"));
            if self.random.below(2) == 0 {
                let other = if stream == "stdout" { "stderr" } else { "stdout" };
                let number = self.written;
                self.written += 1;
                into.push_str(&format!("{stamp} {other} F {} {number} \n", self.file));
            }
            into.push_str(&format!("{stamp} {stream} F {last}\n"));
        } else {
            into.push_str(&format!("{stamp} {stream} F {whole}\n"));
        }
    }

    async fn burst(&mut self) {
        let (mut lines, before) = (String::new(), self.written);
        for _ in 0..=self.random.below(60) {
            self.line(&mut lines);
        }
        // In pieces that end anywhere, at times seen without the next.
        let is_first = self.rotations.last().is_some_and(|(_, written)| *written == before);
        let within = if is_first { lines.len().min(60) } else { lines.len() };
        let cut = self.random.below(within as u64) as usize;
        self.out.write_all(&lines.as_bytes()[..cut]).unwrap();
        if is_first || self.random.below(50) == 0 {
            tokio::time::sleep(Duration::from_millis(self.random.below(200))).await;
        }
        self.out.write_all(&lines.as_bytes()[cut..]).unwrap();
    }

    fn aside(&self) -> PathBuf {
        self.path.with_file_name(format!("0.log.{:06}", self.rotations.len()))
    }

    fn open(&mut self) {
        self.out = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
    }

    async fn rotate(&mut self, ledger: &Ledger) {
        match self.random.below(3) {
            0 => {
                fs::rename(&self.path, self.aside()).unwrap();
                // Who writes goes on for a while before it opens the new one.
                self.burst().await;
                self.rotations.push(("renamed", self.written));
                self.open();
            }
            1 => {
                fs::copy(&self.path, self.aside()).unwrap();
                self.rotations.push(("copied", self.written));
                self.out.set_len(0).unwrap();
            }
            _ => {
                // Only a file that is open can be read when it is deleted: it is once a line has come that was written while this agent
                // ran.
                let Ok(_running) = ledger.restart.try_read() else { return };
                self.burst().await;
                let all = self.written;
                ledger.until(self.file, all).await;
                if ledger.over.load(Ordering::Acquire) {
                    return;
                }
                self.burst().await;
                fs::remove_file(&self.path).unwrap();
                self.burst().await;
                self.rotations.push(("deleted", self.written));
                self.open();
            }
        }
    }

    async fn run(mut self, ledger: Arc<Ledger>) -> (u64, Vec<(&'static str, u64)>) {
        while !ledger.over.load(Ordering::Acquire) {
            self.burst().await;
            if self.random.below(60) == 0 {
                self.rotate(&ledger).await;
            }
            ledger.until(self.file, self.written.saturating_sub(AHEAD)).await;
            tokio::task::yield_now().await;
        }
        (self.written, self.rotations)
    }
}

/// `HYDRANT_TORTURE_SECONDS` makes it longer than 10 s, `HYDRANT_TORTURE_SEED` another one.
#[tokio::test(flavor = "multi_thread")]
async fn every_line_arrives_once_across_rotations_and_restarts() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |value| value.parse::<u64>().unwrap());
    let lasts = Duration::from_secs(number("HYDRANT_TORTURE_SECONDS", 10));
    let seed = number("HYDRANT_TORTURE_SEED", 1);
    let mut machine = Machine::new().await;
    let entries = "[[files]]\npaths = [\"DIR/pods/*/*/*.log\"]\nformat = \"cri\"";
    let ledger = Arc::new(Ledger::default());
    let tasks = TaskTracker::new();
    let mut writers = Vec::new();
    for file in 0..FILES {
        let path = machine.path(&format!("pods/shop_pod-{file}_uid/c/0.log"));
        let out = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let random = Random((seed << 8) + file as u64 + 1);
        let writer = Writer { file, path, out, random, written: 0, rotations: Vec::new() };
        writers.push(writer);
    }
    // The stand-in hands out what arrives to whoever asks: that must go on during a restart.
    let closed = CancellationToken::new();
    let all_in = closed.clone();
    let (mut received, seen) =
        (std::mem::replace(&mut machine.received, tokio::sync::mpsc::channel(1).1), ledger.clone());
    let reader = tasks.spawn(async move {
        let mut lines: [HashMap<u64, u64>; FILES] = Default::default();
        loop {
            let envelope = tokio::select! {
                biased;
                Some(envelope) = received.recv() => envelope,
                () = all_in.cancelled() => break,
            };
            if !matches!(envelope.message, Some(Message::Log(_))) {
                continue;
            }
            let line = text(&envelope).1;
            let mut words = line.split(' ');
            let mut next = || words.next().unwrap().parse::<u64>().unwrap();
            let (file, number) = (next() as usize, next());
            assert_eq!(envelope.instance_id, format!("pod-{file}"));
            *lines[file].entry(number).or_default() += 1;
            // All before it, not this one alone: the other stream may be ahead.
            seen.arrived[file].store(lines[file].len() as u64, Ordering::Release);
            seen.changed.notify_waiters();
        }
        lines
    });
    let (end, mut restarts, mut repeated, mut lost, mut vanished) = (Instant::now() + lasts, 0, 0, 0, 0);
    let mut agent = machine.agent(entries).await;
    // What was rotated before an agent has ever been there is not looked for.
    machine.until("hydrant_files_open", FILES as u64).await;
    let writers: Vec<_> = writers.into_iter().map(|writer| tasks.spawn(writer.run(ledger.clone()))).collect();
    let total = || ledger.arrived.iter().map(|file| file.load(Ordering::Acquire)).sum::<u64>();
    while Instant::now() < end {
        let until = total() + 20_000;
        while total() < until && Instant::now() < end {
            let _woken = timeout(Duration::from_millis(100), ledger.changed.notified()).await;
        }
        let Ok(_nobody) = timeout(Duration::from_secs(20), ledger.restart.write()).await else { break };
        machine.stop(agent).await;
        repeated += machine.metric("hydrant_files_repeated_total");
        lost += machine.metric("hydrant_files_lost_bytes_total");
        vanished += machine.metric("hydrant_files_vanished_total");
        restarts += 1;
        agent = machine.agent(entries).await;
    }
    ledger.over.store(true, Ordering::Release);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    let sent: u64 = written.iter().map(|(lines, _)| lines).sum();
    let all = async {
        while total() < sent {
            let _woken = timeout(Duration::from_millis(100), ledger.changed.notified()).await;
        }
    };
    let complete = timeout(Duration::from_secs(60), all).await.is_ok();
    machine.stop(agent).await;
    repeated += machine.metric("hydrant_files_repeated_total");
    lost += machine.metric("hydrant_files_lost_bytes_total");
    vanished += machine.metric("hydrant_files_vanished_total");
    closed.cancel();
    let lines = reader.await.unwrap();
    let mut faults = Vec::new();
    for (file, (count, rotations)) in written.iter().enumerate() {
        let missing: Vec<u64> = (0..*count).filter(|number| !lines[file].contains_key(number)).collect();
        let twice: Vec<u64> = lines[file].iter().filter(|(_, times)| **times > 1).map(|(number, _)| *number).collect();
        if !missing.is_empty() || !twice.is_empty() {
            let bounds =
                |numbers: &[u64]| (numbers.len(), numbers.iter().min().copied(), numbers.iter().max().copied());
            let near = |number: &&u64| {
                let at = rotations.partition_point(|(_, written)| written <= number);
                format!("{:?}", &rotations[at.saturating_sub(3)..rotations.len().min(at + 3)])
            };
            faults.push(format!(
                "file {file} of {count} lines: missing {:?}, twice {:?}, rotations there: {:?}",
                bounds(&missing),
                bounds(&twice),
                missing.iter().chain(&twice).min().as_ref().map(near)
            ));
        }
    }
    let counted = (repeated, lost, vanished);
    assert!(faults.is_empty() && complete, "seed {seed}, {restarts} restarts, {counted:?} counted: {faults:#?}");
    let all: Vec<_> = written.iter().flat_map(|(_, rotations)| rotations.iter().map(|(how, _)| *how)).collect();
    let rotations = ["renamed", "copied", "deleted"].map(|kind| all.iter().filter(|how| **how == kind).count());
    assert!(rotations.iter().all(|count| *count > 0) && restarts > 0, "{rotations:?} rotations, {restarts} restarts");
    assert_eq!(counted, (0, 0, 0), "{sent} lines, {rotations:?}, {restarts} restarts");
}
