//! Files of lines, read as they grow: logs of containers, and any others.
//!
//! ```text
//! files ──► read, a round at a time ──► lines ──► frames ──► ring ──► a doppler
//!   ▲                                                          │ left
//!   └──────── how far: on disk, at most once a second ◄────────┘
//! ```
//!
//! What enters: what is written to files that the configuration's patterns name. What leaves: log envelopes, in frames whose fate is
//! told; what the ring had to give up goes into it again. No file is ever changed. Nothing of the disk runs on the runtime's own threads.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::time::Duration;

use diode::fair::Bounds;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{error, warn};

use self::frames::FATES;
use self::reader::{Next, Reader};
use self::store::Store;
pub use self::store::StoreError;
use super::Intake;
use crate::files::{FileReadingConfig, FilesConfig, FilesMetrics};
use crate::parcel::Fate;

mod discovery;
mod disk;
mod ends;
mod flight;
mod frames;
mod reader;
mod report;
mod store;
mod tracked;

/// For files that were deleted, when the agent stops: they cannot be read later.
const LAST: Duration = Duration::from_secs(5);
/// Between two looks whether there is room again.
const LOOK: Duration = Duration::from_millis(50);

/// The files that are to be read.
#[derive(Debug)]
pub(crate) struct Files {
    reader: Box<Reader>,
    fates: mpsc::Receiver<Fate>,
}

impl Files {
    /// Reads how far an earlier run came; nothing where no file is to be read. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn bind(
        entries: &[FilesConfig],
        config: &FileReadingConfig,
        ring: Bounds,
        intake: Intake,
        metrics: FilesMetrics,
    ) -> Result<Option<Self>, StoreError> {
        if entries.is_empty() {
            return Ok(None);
        }
        let mut config = config.clone();
        let places = (transport::nofile() / 2).max(1);
        if let Some(places) = NonZeroUsize::new(places).filter(|places| *places < config.max_files) {
            warn!(
                max_files = config.max_files,
                places, "Fewer files are open than agent.file_reading.max_files: raise the limit of open files"
            );
            config.max_files = places;
        }
        let store = Store::open(config.state_dir.as_deref().ok_or(StoreError::None)?)?;
        let half = |size: NonZeroUsize| NonZeroUsize::new(size.get() / 2).unwrap_or(size);
        let half = Bounds { envelopes: half(ring.envelopes), bytes: half(ring.bytes) };
        let (report, fates) = mpsc::channel(FATES);
        let reader = Reader::new(entries.to_vec(), config, store, half, (intake, metrics), report);
        Ok(Some(Self { reader: Box::new(reader), fates }))
    }

    /// Reads until `stop`, then until all that was read has left the ring, or `told`. `reading` is given back once nothing more is read.
    pub(crate) async fn serve(self, stop: CancellationToken, told: CancellationToken, reading: TaskTrackerToken) {
        let Self { mut reader, mut fates } = self;
        let mut last = None;
        loop {
            while let Ok(fate) = fates.try_recv() {
                reader.settle(fate);
            }
            let stopping = stop.is_cancelled();
            if stopping && Instant::now() >= *last.get_or_insert_with(|| Instant::now() + LAST) {
                break;
            }
            let round = spawn_blocking(move || {
                let next = reader.round(stopping);
                (reader, next)
            });
            let next;
            (reader, next) = match round.await {
                Ok(done) => done,
                Err(error) => {
                    error!(%error, "Files are not read any more, start the agent again");
                    return;
                }
            };
            match next {
                Next::Now => tokio::task::yield_now().await,
                Next::Wait(pause) => wait(&mut reader, &mut fates, pause, stopping, &stop).await,
                Next::Done => break,
            }
        }
        drop(reading);
        while reader.is_under_way() {
            tokio::select! {
                Some(fate) = fates.recv() => reader.settle(fate),
                () = told.cancelled() => break,
            }
        }
        while let Ok(fate) = fates.try_recv() {
            reader.settle(fate);
        }
        // It says itself if it fails.
        let _kept = spawn_blocking(move || reader.close()).await;
    }
}

/// Waits for `pause`, or until there is room again, or `stop`; notes what has left meanwhile.
async fn wait(
    reader: &mut Reader,
    fates: &mut mpsc::Receiver<Fate>,
    pause: Duration,
    stopping: bool,
    stop: &CancellationToken,
) {
    let is_full = !reader.has_room();
    let pause = if is_full || stopping { pause.min(LOOK) } else { pause };
    let mut pause = pin!(sleep(pause));
    loop {
        tokio::select! {
            Some(fate) = fates.recv() => {
                reader.settle(fate);
                if is_full && reader.has_room() {
                    return;
                }
            }
            () = &mut pause => return,
            () = stop.cancelled(), if !stopping => return,
        }
    }
}

#[cfg(test)]
mod tests;
