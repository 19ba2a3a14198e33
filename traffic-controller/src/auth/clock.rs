//! Waiting for a time of day.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// How long the clock may be away from where it was expected: it may be set, and a machine may have been suspended.
const LOOK: Duration = Duration::from_secs(15);

/// Waits until the system's clock shows `at`.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn reached(at: SystemTime) {
    while let Ok(left) = at.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        sleep(left.min(LOOK)).await;
    }
}
