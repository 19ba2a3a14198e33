//! A drain whose destination is a page: metrics wait there for whoever scrapes them.
//!
//! Envelopes enter from the inlet; series are kept, and served by [`serve`](crate::prometheus::serve). An envelope counts as delivered when
//! its values are on the page.

use std::sync::Arc;
use std::time::Duration;

use telemetry::Throttle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::drain::now_ns;
use crate::inlet::{Inlet, Taken};
use crate::metrics::DrainMetrics;
use crate::outcome::Outcome;
use crate::prometheus::serve::{Endpoint, Shared};
use crate::server::Drained;
use crate::syslog::drain::{Ended, Until};

/// Between two looks for series that have ended.
const EXPIRE: Duration = Duration::from_secs(60);

/// For connections to end.
const CLOSE: Duration = Duration::from_secs(2);

/// A page that is bound, and the series on it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) endpoint: Endpoint,
    pub(crate) store: Shared,
}

/// A drain to a page.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) bound: Bound,
    pub(crate) inlet: Inlet,
    pub(crate) metrics: DrainMetrics,
    pub(crate) until: Until,
}

impl Page {
    /// Serves until the inlet is closed and empty, or the hard stop.
    pub(crate) async fn run(self) -> Ended {
        let Self { name, bound: Bound { endpoint, store }, mut inlet, metrics, until } = self;
        let (connections, quit) = (TaskTracker::new(), CancellationToken::new());
        let fill = async {
            let mut tick = tokio::time::interval(EXPIRE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = until.hard.cancelled() => break,
                    _ = tick.tick() => store.lock().expire(now_ns(), |_, _| {}),
                    taken = inlet.recv() => match taken {
                        Some(taken) => put(&name, &store, &metrics, taken),
                        None => break,
                    },
                }
                inlet.dealt(None);
            }
            quit.cancel();
        };
        tokio::join!(fill, endpoint.serve(&connections, quit.clone()));
        connections.close();
        // One that does not read its page is not waited for.
        let _unread = tokio::time::timeout(CLOSE, connections.wait()).await;
        inlet.finish().await;
        Ended { drained: Drained::default(), rest: None }
    }
}

/// Puts envelopes on the page.
fn put(name: &str, store: &Shared, metrics: &DrainMetrics, mut taken: Taken) {
    static SAID: Throttle = Throttle::every(Duration::from_secs(10));
    let (now, wall) = (Instant::now(), now_ns());
    let (mut kept, mut filtered) = (0, 0);
    let mut locked = store.lock();
    let before = locked.counts();
    while let Some(one) = taken.next(now) {
        match locked.put(&one.bytes, wall, |_, _| {}) {
            Outcome::Kept => kept += 1,
            Outcome::Ignored => filtered += 1,
            Outcome::Dropped(reason) => metrics.dropped(reason, 1),
        }
    }
    let (offenders, after) = (locked.offenders(), locked.counts());
    drop(locked);
    metrics.stored(before, after);
    metrics.shown(after.updates - before.updates);
    metrics.sent(kept);
    metrics.confirmed(kept);
    metrics.delivered(kept);
    if filtered > 0 {
        metrics.filtered(filtered);
    }
    for offender in offenders {
        if let Some(suppressed) = SAID.pass() {
            warn!(
                drain = name,
                metric = offender.metric,
                source_id = offender.source_id,
                label = offender.label,
                refused = offender.refused,
                suppressed,
                "A metric has more series than there is room for"
            );
        }
    }
}

/// For a page at `listen`, over an empty store.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn bind(
    listen: std::net::SocketAddr,
    config: &crate::prometheus::MetricsConfig,
) -> Result<Bound, transport::BindError> {
    let store = crate::prometheus::series::Store::new(&config.series());
    let store: Shared = Arc::new(parking_lot::Mutex::new(store));
    let endpoint = Endpoint::bind("adapters.drains.url", listen, config.insecure_any_host, Arc::clone(&store))?;
    Ok(Bound { endpoint, store })
}
