//! From the spool to the drain's loop.
//!
//! Committed records enter, a few hundred KiB at a time; they leave in order, and again after a restart until the loop has said that they
//! are dealt with. What it said is on the disk within a second, or a mebibyte. What went past the disk comes when the disk has no more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use diode::TryRecvError;
use proto::reason::Reason;
use spool::{Batch, ReadError, Reader};
use telemetry::Throttle;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{Shared, now_ms, with_causes};
use crate::inlet::Taken;
use crate::metrics::DrainMetrics;
use crate::subscribe::Queued;

/// What one read takes.
const READ: (usize, usize) = (256 * 1024, 4096);
/// How long what was dealt with may be unknown to the disk.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// After a read that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// The reading end.
pub(crate) struct Outlet {
    /// But while a job is under way, and after one that panicked.
    reader: Option<Box<Reader>>,
    job: Option<JoinHandle<Done>>,
    lane: mpsc::Receiver<Queued>,
    shared: Arc<Shared>,
    metrics: DrainMetrics,
    tracker: TaskTracker,
    closing: CancellationToken,
    /// Everything up to and with this sequence was read.
    read: u64,
    /// Was dealt with.
    acked: u64,
    /// Is dealt with as far as the disk knows.
    saved: u64,
    checkpoint_at: Instant,
    rewind: bool,
}

/// A job that is done.
struct Done {
    reader: Box<Reader>,
    /// Unless it was to write the checkpoint alone.
    read: Option<Result<Batch, ReadError>>,
}

impl Outlet {
    pub(super) fn new(
        reader: Reader,
        lane: mpsc::Receiver<Queued>,
        shared: Arc<Shared>,
        acked: u64,
        metrics: DrainMetrics,
        tracker: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        Self {
            reader: Some(Box::new(reader)),
            job: None,
            lane,
            shared,
            metrics,
            tracker,
            closing,
            read: acked,
            acked,
            saved: acked,
            checkpoint_at: Instant::now(),
            rewind: false,
        }
    }

    /// Waits for what comes next. `None` when nothing will come any more: then, of a process that stops, something may be left on disk.
    ///
    /// # Cancel safety
    /// Nothing is lost: a job that is under way goes on, and its outcome is taken by the next call.
    pub(crate) async fn recv(&mut self) -> Option<Taken> {
        loop {
            if self.job.is_none() && self.has_more() {
                self.start(true);
            }
            let due = (self.job.is_none() && self.acked > self.saved).then_some(self.checkpoint_at);
            let idle = self.job.is_none();
            tokio::select! {
                biased;
                done = finished(self.job.as_mut()) => {
                    self.job = None;
                    let Some(batch) = self.take(done).await else { continue };
                    if self.has_more() {
                        self.start(true);
                    }
                    return Some(Taken::stored(batch.records, now_ms()));
                }
                load = self.lane.recv(), if idle => match load {
                    Some(load) => return Some(Taken::live(load)),
                    // What was committed last may have come after we looked.
                    None if self.has_more() => {}
                    None => return None,
                },
                () = self.shared.more.notified(), if idle => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.start(false),
            }
        }
    }

    /// What was received is dealt with, but for the place named and those after it.
    pub(crate) fn dealt(&mut self, but_from: Option<u64>) {
        let through = if self.rewind { self.acked } else { but_from.map_or(self.read, |place| place - 1) };
        if through > self.acked {
            if self.acked == self.saved {
                self.checkpoint_at = Instant::now() + CHECKPOINT;
            }
            self.acked = through;
        }
    }

    /// What was read and not dealt with is to be read again.
    pub(crate) fn rewind(&mut self) {
        self.rewind = true;
        self.set_read(self.acked);
    }

    /// Takes what went past the disk, if it is at hand.
    pub(crate) fn try_recv(&mut self) -> Result<Queued, TryRecvError> {
        self.lane.try_recv().map_err(|_| TryRecvError::Empty)
    }

    /// Nothing more goes past the disk.
    pub(crate) fn close(&mut self) {
        self.lane.close();
    }

    /// Whether the process stops, and what is on disk waits there for the next start.
    pub(crate) fn stays(&self) -> bool {
        self.closing.is_cancelled()
    }

    fn set_read(&mut self, through: u64) {
        self.read = through;
        self.shared.read.store(through, Ordering::Release);
    }

    /// Writes what is dealt with to the disk.
    pub(crate) async fn finish(&mut self) {
        if let Some(job) = &mut self.job {
            if let Ok(done) = job.await {
                self.reader = Some(done.reader);
            }
            self.job = None;
        }
        self.rewind();
        self.start(false);
        if let Some(job) = &mut self.job
            && let Ok(done) = job.await
        {
            self.reader = Some(done.reader);
        }
        self.job = None;
    }

    fn has_more(&self) -> bool {
        // At a stop the disk keeps what it has, unless the pump waits for room to put the rest there too.
        let stays = self.closing.is_cancelled() && self.lane.is_closed();
        self.reader.is_some() && !stays && self.shared.committed() > self.read
    }

    /// Starts a job on a thread that may block: notes what is dealt with, and reads on if asked to.
    fn start(&mut self, read: bool) {
        let Some(mut reader) = self.reader.take() else { return };
        let (acked, rewind, shared) = (self.acked, std::mem::take(&mut self.rewind), Arc::clone(&self.shared));
        let checkpoint = acked > self.saved && (Instant::now() >= self.checkpoint_at || !read);
        if checkpoint {
            self.saved = acked;
        }
        self.job = Some(self.tracker.spawn_blocking(move || {
            let noted = match reader.ack(acked) {
                Ok(()) if checkpoint => reader.checkpoint(),
                noted => noted,
            };
            if let Err(error) = noted {
                static SAID: Throttle = Throttle::every(Duration::from_secs(10));
                if let Some(suppressed) = SAID.pass() {
                    let error = with_causes(&error);
                    warn!(drain = %shared.drain, error, suppressed, "Where delivery is cannot be written; after a restart some of it is delivered again");
                }
            }
            shared.room.notify_one();
            if rewind {
                reader.rewind();
            }
            let read = read.then(|| reader.read(READ.0, READ.1));
            Done { reader, read }
        }));
    }

    /// What a job has read, if anything.
    async fn take(&mut self, done: Result<Done, JoinError>) -> Option<Batch> {
        let Ok(Done { reader, read }) = done else {
            self.shared.set_trouble(Some("reading panicked, a defect of hydrant".to_owned()));
            return None;
        };
        self.reader = Some(reader);
        if let Some(Ok(Batch { lost: lost @ 1.., .. })) = &read {
            self.metrics.dropped(Reason::DiskCorrupt, *lost);
            tracing::error!(drain = %self.shared.drain, envelopes = lost, "Envelopes on disk are damaged or missing");
        }
        if self.rewind {
            return None;
        }
        match read? {
            Ok(batch) => {
                self.set_read(self.read.max(batch.through));
                // Damaged records alone, or nothing after all, are nothing to be dealt with.
                (!batch.records.is_empty()).then_some(batch)
            }
            Err(error) => {
                static SAID: Throttle = Throttle::every(Duration::from_secs(10));
                if let Some(suppressed) = SAID.pass() {
                    warn!(drain = %self.shared.drain, error = with_causes(&error), suppressed, "The disk cannot be read, trying again");
                }
                sleep(AGAIN).await;
                None
            }
        }
    }
}

/// Waits for a job, if there is one; else for ever.
async fn finished(job: Option<&mut JoinHandle<Done>>) -> Result<Done, JoinError> {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}
