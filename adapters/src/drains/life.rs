//! The life of one drain: its loop in one form after the other, until it is to end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::reason::Reason;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::form::LifeParts;
use super::{Outcome, Prepared, Shared};
use crate::disk::View;
use crate::inlet::Inlet;
use crate::metrics::DrainMetrics;
use crate::notice::Losses;
use crate::server::Drained;
use crate::status::State;
use crate::syslog::drain::{Ended, Until};

/// How long a form of a drain that is replaced may take for what it is writing.
const HANDOVER: Duration = Duration::from_secs(2);

/// What the form of a drain is to be next.
#[derive(Default)]
pub(super) struct Post {
    /// Guards the newest form that has not been taken. Held to put and to take it.
    next: Mutex<Option<Box<Prepared>>>,
    more: Notify,
}

impl Post {
    pub(super) fn put(&self, prepared: Prepared) {
        *self.next.lock() = Some(Box::new(prepared));
        self.more.notify_one();
    }

    fn take(&self) -> Option<Box<Prepared>> {
        self.next.lock().take()
    }
}

/// A drain that is to run.
pub(super) struct Life {
    pub(super) prepared: Prepared,
    pub(super) inlet: Inlet,
    /// What fills a buffer on disk, and a look at it.
    pub(super) buffer: Option<(JoinHandle<()>, View)>,
    pub(super) losses: Arc<Losses>,
    pub(super) metrics: DrainMetrics,
    pub(super) post: Arc<Post>,
    /// It is to end.
    pub(super) soft: CancellationToken,
    /// It has ended: the announcer announces once more.
    pub(super) told: CancellationToken,
    pub(super) flush_timeout: Duration,
}

impl Life {
    pub(super) async fn run(mut self, shared: Arc<Shared>, ring: u64) {
        let mut end = End {
            shared,
            ring,
            name: self.prepared.config.name.clone(),
            told: self.told.clone(),
            metrics: self.metrics.clone(),
            removed: false,
            drained: None,
        };
        let buffer = self.buffer.take();
        let mut drained = self.forms().await;
        if let Some((pump, view)) = buffer {
            let _panicked = pump.await;
            // At a stop of the process it is for the next start.
            if !end.shared.seat.stop.is_cancelled() {
                end.removed = true;
                let (left, _) = view.depth();
                end.metrics.dropped(Reason::ShutdownDeadline, left);
                drained.dropped += left;
                let _panicked = end.shared.lives.spawn_blocking(move || view.remove()).await;
            }
        }
        end.drained = Some(drained);
    }

    async fn forms(self) -> Drained {
        let Self { mut prepared, mut inlet, losses, metrics, post, soft, flush_timeout, .. } = self;
        let parts = LifeParts { losses: &losses, metrics: &metrics };
        let mut sum = Drained::default();
        loop {
            let (hard, replaced) = (CancellationToken::new(), CancellationToken::new());
            let until = Until { soft: soft.clone(), hard: hard.clone(), replaced: replaced.clone() };
            let again = prepared.again();
            // In a box: it takes some kilobytes, and would be kept twice.
            let drain = Box::pin(prepared.run(inlet, &parts, until));
            let Ended { drained, rest } = one_form(drain, &post, &soft, (&hard, &replaced), flush_timeout).await;
            sum.flushed += drained.flushed;
            sum.dropped += drained.dropped;
            match rest {
                Some(rest) => inlet = rest,
                None => return sum,
            }
            match (post.take(), again) {
                (Some(next), _) => {
                    prepared = *next;
                    metrics.state(State::Ok);
                }
                (None, Some(again)) => {
                    prepared = again;
                    metrics.state(State::Ok);
                }
                (None, None) => return sum,
            }
        }
    }
}

/// Runs a drain in one form: until it ends, or another form is wanted.
async fn one_form(
    mut drain: impl Future<Output = Ended> + Unpin,
    post: &Post,
    soft: &CancellationToken,
    (hard, replaced): (&CancellationToken, &CancellationToken),
    flush_timeout: Duration,
) -> Ended {
    let (mut stops, mut late) = (false, None);
    loop {
        tokio::select! {
            ended = &mut drain => return ended,
            () = soft.cancelled(), if !stops => {
                stops = true;
                // A form that is being replaced has its time; the next one has that of the stop.
                if !replaced.is_cancelled() {
                    late = Some(Instant::now() + flush_timeout);
                }
            }
            () = post.more.notified(), if !stops && !replaced.is_cancelled() => {
                replaced.cancel();
                late = Some(Instant::now() + HANDOVER);
            }
            () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                late = None;
                hard.cancel();
            }
        }
    }
}

/// Puts things in order when a life ends, however it ends.
struct End {
    shared: Arc<Shared>,
    ring: u64,
    told: CancellationToken,
    name: String,
    metrics: DrainMetrics,
    /// Its files are gone.
    removed: bool,
    /// Unless it panicked.
    drained: Option<Drained>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.rings.lock().close(self.ring, self.removed);
        self.shared.leaving.lock().remove(&self.name);
        self.told.cancel();
        let Outcome { drained: sum, panicked } = &mut *self.shared.outcome.lock();
        match self.drained {
            Some(drained) => {
                sum.flushed += drained.flushed;
                sum.dropped += drained.dropped;
                self.metrics.state(State::Ok);
            }
            None => {
                *panicked = true;
                self.metrics
                    .status()
                    .failed("its task ended unexpectedly, a defect of hydrant; see the log".to_owned());
                self.metrics.state(State::Broken);
            }
        }
    }
}
