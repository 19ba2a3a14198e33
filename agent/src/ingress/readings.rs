//! Sources that are looked at: read at an interval, on a thread where what they read may block.

use std::time::Duration;

use proto::raw::{Batch, Refused};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Intake;

/// Has `read` make batches of `reader` at once and then at every interval, until `stop`. One that does not come back holds up nobody else,
/// nor the stop; one that panics is not asked again.
pub(crate) async fn take<R: Send + 'static>(
    mut reader: R,
    read: fn(&mut R) -> Vec<(Batch, Refused)>,
    every: Duration,
    intake: Intake,
    stop: CancellationToken,
) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let reading = tokio::task::spawn_blocking(move || {
            let batches = read(&mut reader);
            (reader, batches)
        });
        match stop.run_until_cancelled(reading).await {
            Some(Ok((back, batches))) => {
                reader = back;
                batches.into_iter().for_each(|batch| intake.take(batch));
            }
            Some(Err(error)) => {
                error!(%error, "Reading failed; it is not tried again");
                return;
            }
            None => return,
        }
    }
}
