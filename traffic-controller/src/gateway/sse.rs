//! `/v2/read` as server-sent events (contract: loggregator v2 §12.4).
//!
//! What enters: a reader's steps and the clock. What leaves: the bytes of events: batches as they come, a heartbeat after 15 s without one, a
//! closing event when the stream has lasted as long as it may. Holds one step; while the client takes nothing, nothing is read, and after a
//! while the client is cut.

use std::convert::Infallible;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use futures_util::stream::unfold;
use proto::json;
use proto::raw::Selection;
use proto::reason::Reason;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::reader::{self, Reader, Step};
use crate::admission::Place;
use crate::auth::Grant;
use crate::metrics::Metrics;
use crate::notices::Reader as Whom;

/// One consumer's stream of events, fed by a task of its own: who does not read is cut as elsewhere, and a grant that no longer stands ends
/// the stream whether its consumer reads or not.
pub(super) struct Events {
    pub(super) reader: Reader,
    pub(super) grant: Grant,
    pub(super) metrics: Metrics,
    /// How long without a batch until a heartbeat.
    pub(super) heartbeat: Duration,
    /// When the stream closes.
    pub(super) until: Instant,
    /// How long an event may wait for a consumer that takes nothing.
    pub(super) patience: Duration,
    /// It asked for markers.
    pub(super) markers: bool,
    /// For the notice when it is cut.
    pub(super) whom: Whom,
    pub(super) _place: Place,
}

/// The bytes of one event, and how many envelopes are delivered with it.
struct Event {
    bytes: Vec<u8>,
    envelopes: u64,
}

/// The body that shows what is sent to it.
pub(super) fn body(events: mpsc::Receiver<Bytes>) -> Body {
    Body::from_stream(unfold(events, |mut events| async move {
        let event = events.recv().await?;
        Some((Ok::<_, Infallible>(event), events))
    }))
}

impl Events {
    /// Sends event by event until one side ends.
    pub(super) async fn run(self, out: mpsc::Sender<Bytes>) {
        let Self { mut reader, mut grant, metrics, heartbeat, until, patience, markers, whom, _place } = self;
        // One for the whole stream: it looks again and again whether the grant stands.
        let mut revoked = pin!(grant.revoked());
        let mut quiet_until = Instant::now() + heartbeat;
        loop {
            let (event, last) = tokio::select! {
                biased;
                () = &mut revoked => return,
                () = out.closed() => return,
                () = sleep_until(until) => (Event { bytes: CLOSING.to_vec(), envelopes: 0 }, true),
                step = reader.next() => match step {
                    Some(step) => (event(&step, &reader, &metrics, markers), false),
                    None => return,
                },
                () = sleep_until(quiet_until) => (Event { bytes: beat(), envelopes: 0 }, false),
            };
            if event.bytes.is_empty() {
                continue;
            }
            match timeout(patience, out.send(event.bytes.into())).await {
                Ok(Ok(())) => metrics.delivered(event.envelopes),
                Ok(Err(_)) => return metrics.dropped(Reason::PeerLost, event.envelopes),
                Err(_) => {
                    metrics.dropped(Reason::SlowConsumer, event.envelopes);
                    reader.cut(Reason::SlowConsumer);
                    metrics.slow_consumer(&whom);
                    warn!(?whom, "Slow consumer of events cut");
                    return;
                }
            }
            if last {
                return;
            }
            quiet_until = Instant::now() + heartbeat;
        }
    }
}

fn event(step: &Step, reader: &Reader, metrics: &Metrics, markers: bool) -> Event {
    match step {
        Step::Batch(parts, counted) => {
            let (bytes, refused) = batch(parts, reader.place().as_deref());
            metrics.dropped(Reason::DecodeError, refused);
            Event { bytes, envelopes: counted.saturating_sub(refused) }
        }
        Step::Gap(gap, stage) if markers => Event { bytes: batch(&[reader::marker(gap, stage)], None).0, envelopes: 0 },
        Step::Gap(..) | Step::Live | Step::Missing(_) | Step::Place => Event { bytes: Vec::new(), envelopes: 0 },
    }
}

const CLOSING: &[u8] = b"event: closing\ndata: closing due to stream timeout\n\n";

fn beat() -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("event: heartbeat\ndata: {now}\n\n").into_bytes()
}

/// One event, with the place to come back to behind the data: there are clients that take what begins with `data:` for an event.
fn batch(parts: &[Selection], place: Option<&str>) -> (Vec<u8>, u64) {
    let mut event = Vec::with_capacity(reader::json_room(parts));
    event.extend_from_slice(b"data: ");
    let refused = json::put_batch(&mut event, parts.iter().flat_map(Selection::envelopes));
    if let Some(place) = place {
        event.extend_from_slice(b"\nid: ");
        event.extend_from_slice(place.as_bytes());
    }
    event.extend_from_slice(b"\n\n");
    (event, refused)
}
