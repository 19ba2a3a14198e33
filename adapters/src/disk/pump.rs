//! From the ring to the spool.
//!
//! Loads enter; what is committed can be read. One commit is under way at a time, and the next takes all that gathered meanwhile: it starts
//! with 64 KiB, or 5 ms after the first envelope.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::Reader;
use proto::raw::Kind;
use proto::reason::Reason;
use spool::{AppendError, Writer};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use super::{Shared, now_ms, with_causes};
use crate::metrics::DrainMetrics;
use crate::notice::{self, Losses};
use crate::subscribe::Queued;

/// A commit starts with this many bytes of envelopes, or this long after the first.
const COMMIT: (usize, Duration) = (64 * 1024, Duration::from_millis(5));
/// The most that one commit takes.
const MOST: usize = 1024 * 1024;
/// Before a full spool is asked again, if nobody says that there is room; and before a disk in trouble is.
const AGAIN: Duration = Duration::from_millis(250);
const MEND: Duration = Duration::from_secs(3);

/// The writing end.
pub(crate) struct Pump {
    /// But while a commit is under way.
    writer: Option<Box<Writer>>,
    ring: Reader<Queued>,
    lane: mpsc::Sender<Queued>,
    shared: Arc<Shared>,
    metrics: DrainMetrics,
    losses: Arc<Losses>,
    tracker: TaskTracker,
    /// Taken from the ring and not committed.
    pending: VecDeque<Queued>,
}

/// How far a commit came.
struct Outcome {
    writer: Box<Writer>,
    /// Committed or too long, counted from the first envelope that was pending.
    done: usize,
    /// Of these too long, in order.
    too_long: Vec<usize>,
    through: Option<u64>,
    stopped: Option<Stopped>,
}

enum Stopped {
    /// No room in the spool: later there is.
    Full,
    Trouble(String),
}

impl Pump {
    pub(super) fn new(
        writer: Writer,
        ring: Reader<Queued>,
        lane: mpsc::Sender<Queued>,
        shared: Arc<Shared>,
        metrics: DrainMetrics,
        losses: Arc<Losses>,
        tracker: TaskTracker,
    ) -> Self {
        let writer = Some(Box::new(writer));
        Self { writer, ring, lane, shared, metrics, losses, tracker, pending: VecDeque::new() }
    }

    /// Runs until the ring is closed and everything in it committed, or passed on. What no disk takes and nobody reads any more is dropped.
    pub(crate) async fn run(mut self) {
        while self.gather().await {
            match self.commit().await {
                None => self.shared.set_trouble(None),
                Some(Stopped::Full) => {
                    self.shared.set_trouble(None);
                    if self.lane.is_closed() {
                        break;
                    }
                    tokio::select! {
                        () = self.shared.room.notified() => {}
                        () = sleep(AGAIN) => {}
                        () = self.lane.closed() => {}
                    }
                }
                Some(Stopped::Trouble(error)) => {
                    self.shared.set_trouble(Some(error));
                    self.go_past_the_disk().await;
                    if self.lane.is_closed() {
                        break;
                    }
                }
            }
        }
        self.count_rest();
    }

    /// Takes what the next commit is to take. False when there is nothing and nothing will come.
    async fn gather(&mut self) -> bool {
        if self.pending.is_empty() {
            let Some(first) = self.ring.recv().await else { return false };
            self.pending.push_back(first);
        }
        let mut bytes: usize = self.pending.iter().map(|load| load.selection.wire_len()).sum();
        let until = Instant::now() + COMMIT.1;
        while bytes < MOST {
            let next = match self.ring.try_recv() {
                Ok(load) => Some(load),
                Err(_) if bytes >= COMMIT.0 => None,
                Err(_) => timeout_at(until, self.ring.recv()).await.ok().flatten(),
            };
            let Some(load) = next else { break };
            bytes += load.selection.wire_len();
            self.pending.push_back(load);
        }
        true
    }

    /// Commits what is pending; keeps what was not.
    async fn commit(&mut self) -> Option<Stopped> {
        let Some(writer) = self.writer.take() else { return Some(Stopped::Trouble("a defect of hydrant".to_owned())) };
        let loads: Vec<Queued> = self.pending.iter().cloned().collect();
        let outcome = self.tracker.spawn_blocking(move || write(writer, &loads)).await;
        let Ok(outcome) = outcome else {
            return Some(Stopped::Trouble("writing panicked, a defect of hydrant".to_owned()));
        };
        self.writer = Some(outcome.writer);
        for i in outcome.too_long {
            self.drop_pending(i, Reason::Oversize);
        }
        self.forget(outcome.done);
        if let Some(through) = outcome.through {
            self.shared.commit(through);
        }
        outcome.stopped
    }

    /// While the disk cannot be used: passes on what is pending and what comes, until it is time to try again. Then nothing is in the lane,
    /// so that nothing on disk comes before it.
    async fn go_past_the_disk(&mut self) {
        let mend = Instant::now() + MEND;
        loop {
            if self.pending.is_empty() {
                match timeout_at(mend, self.ring.recv()).await {
                    Ok(Some(load)) => self.pending.push_back(load),
                    Ok(None) => return,
                    Err(_late) => {}
                }
            }
            if self.lane.is_closed() {
                return;
            }
            if Instant::now() >= mend && self.lane.capacity() == self.lane.max_capacity() {
                return;
            }
            if self.pending.is_empty() {
                // The lane is not empty yet.
                tokio::select! {
                    permit = self.lane.reserve() => drop(permit),
                    () = self.lane.closed() => return,
                }
                continue;
            }
            if self.shared.has_unread() {
                // That comes first. It is read meanwhile, or the disk works again before.
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = self.lane.closed() => return,
                }
                if Instant::now() >= mend {
                    return;
                }
                continue;
            }
            match timeout_at(mend.max(Instant::now() + AGAIN), self.lane.reserve()).await {
                Ok(Ok(permit)) => {
                    if let Some(load) = self.pending.pop_front() {
                        permit.send(load);
                    }
                }
                Ok(Err(_closed)) => return,
                // The drain takes nothing now.
                Err(_late) => {}
            }
        }
    }

    /// Forgets the first `count` pending envelopes.
    fn forget(&mut self, mut count: usize) {
        while count > 0
            && let Some(load) = self.pending.front_mut()
        {
            let len = load.selection.len();
            if len > count {
                load.selection.retain(|i| i >= count);
                return;
            }
            count -= len;
            self.pending.pop_front();
        }
    }

    /// Counts the `i`-th pending envelope as dropped.
    fn drop_pending(&self, mut i: usize, reason: Reason) {
        for load in &self.pending {
            if i < load.selection.len() {
                let (batch, entry) = (load.selection.batch(), load.selection.entry(i));
                self.metrics.dropped(reason, 1);
                if entry.kind != Kind::Log || !notice::is_notice_envelope(batch.envelope(entry)) {
                    self.losses.record(&String::from_utf8_lossy(batch.source_id(entry)), reason, 1);
                }
                return;
            }
            i -= load.selection.len();
        }
    }

    fn count_rest(&mut self) {
        self.ring.close();
        while let Ok(load) = self.ring.try_recv() {
            self.pending.push_back(load);
        }
        for i in 0..self.pending.iter().map(|load| load.selection.len()).sum() {
            self.drop_pending(i, Reason::ShutdownDeadline);
        }
    }
}

/// Appends and commits. Blocks.
fn write(mut writer: Box<Writer>, loads: &[Queued]) -> Outcome {
    let (mut done, mut too_long, mut stopped) = (0, Vec::new(), None);
    let now = (Instant::now(), now_ms());
    'all: for load in loads {
        let age = now.0.saturating_duration_since(load.since);
        let arrival = now.1.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        for envelope in load.selection.envelopes() {
            match writer.append(arrival, envelope) {
                Ok(_) => {}
                Err(AppendError::TooLong { .. }) => too_long.push(done),
                Err(AppendError::Full { .. } | AppendError::Uncommitted { .. }) => {
                    stopped = Some(Stopped::Full);
                    break 'all;
                }
                Err(error @ AppendError::NoSpace { .. }) => {
                    stopped = Some(Stopped::Trouble(error.to_string()));
                    break 'all;
                }
            }
            done += 1;
        }
    }
    match writer.commit() {
        Ok(committed) => {
            let through = (committed.records > 0).then_some(committed.through);
            Outcome { writer, done, too_long, through, stopped }
        }
        Err(error) => {
            let stopped = Some(Stopped::Trouble(with_causes(&error)));
            // They are still pending here.
            drop(writer.take_uncommitted());
            Outcome { writer, done: 0, too_long: Vec::new(), through: None, stopped }
        }
    }
}
