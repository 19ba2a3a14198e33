//! `/v2/read` as server-sent events (contract: loggregator v2 §12.4).
//!
//! What enters: a reader's steps and the clock. What leaves: the bytes of events: batches as they come, a heartbeat after 15 s without one, a
//! closing event when the stream has lasted as long as it may. Holds one step; while the client takes nothing, nothing is read.

use std::pin::pin;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use proto::json;
use proto::raw::Selection;
use proto::reason::Reason;
use tokio::time::{Duration, Instant, sleep_until};

use super::reader::{self, Reader, Step};
use crate::admission::Place;
use crate::auth::Grant;
use crate::metrics::Metrics;

/// One consumer's stream of events. Dropping it ends its reader.
pub(super) struct Events {
    pub(super) reader: Reader,
    pub(super) grant: Grant,
    pub(super) metrics: Metrics,
    /// How long without a batch until a heartbeat.
    pub(super) heartbeat: Duration,
    /// When the stream closes.
    pub(super) until: Instant,
    /// It asked for markers.
    pub(super) markers: bool,
    pub(super) _place: Place,
}

enum Next {
    Step(Option<Step>),
    Heartbeat,
    Closing,
    Revoked,
}

impl Events {
    /// The bytes, event by event.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        unfold(Some(self), |events| async move {
            let mut events = events?;
            let (bytes, last) = events.next().await?;
            Some((Ok(bytes), (!last).then_some(events)))
        })
    }

    /// The next event, and whether it is the last one.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let quiet_until = Instant::now() + self.heartbeat;
        loop {
            let next = {
                let (mut step, mut revoked) = (pin!(self.reader.next()), pin!(self.grant.revoked()));
                tokio::select! {
                    biased;
                    () = &mut revoked => Next::Revoked,
                    () = sleep_until(self.until) => Next::Closing,
                    step = &mut step => Next::Step(step),
                    () = sleep_until(quiet_until) => Next::Heartbeat,
                }
            };
            match next {
                Next::Step(step) => {
                    let event = self.event(&step?);
                    if !event.is_empty() {
                        return Some((event.into(), false));
                    }
                }
                Next::Heartbeat => return Some((heartbeat().into(), false)),
                Next::Closing => return Some((Bytes::from_static(CLOSING), true)),
                Next::Revoked => return None,
            }
        }
    }

    fn event(&self, step: &Step) -> Vec<u8> {
        match step {
            Step::Batch(parts, counted) => {
                let (event, refused) = batch(parts, self.reader.place().as_deref());
                self.metrics.delivered(counted.saturating_sub(refused));
                self.metrics.dropped(Reason::DecodeError, refused);
                event
            }
            Step::Gap(gap, stage) if self.markers => batch(&[reader::marker(gap, stage)], None).0,
            Step::Gap(..) | Step::Live | Step::Missing(_) | Step::Place => Vec::new(),
        }
    }
}

const CLOSING: &[u8] = b"event: closing\ndata: closing due to stream timeout\n\n";

fn heartbeat() -> Vec<u8> {
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
