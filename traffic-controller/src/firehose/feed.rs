//! A v1 consumer's ring as what its connection is fed with.
//!
//! What enters: selections out of the consumer's subscription. What leaves: one binary message per payload; what gives none is counted.
//! Holds at most one take of the ring.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use diode::fair::Bounds;
use proto::raw::Selection;
use proto::reason::Reason;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::frames::Converter;
use crate::fan_in::Subscription;
use crate::metrics::Metrics;
use crate::websocket::feed::{Feed, Frame};

/// What leaves the ring at once: enough to fill some writes, little enough to keep.
pub(crate) const TAKE: Bounds = Bounds {
    envelopes: NonZeroUsize::new(256).expect("not zero"),
    bytes: NonZeroUsize::new(128 * 1024).expect("not zero"),
};

/// Feeds one consumer.
pub(crate) struct V1Feed {
    subscription: Subscription,
    converter: Converter,
    taken: Vec<Selection>,
    metrics: Metrics,
}

impl V1Feed {
    pub(crate) fn new(subscription: Subscription, converter: Converter, metrics: Metrics) -> Self {
        Self { subscription, converter, taken: Vec::new(), metrics }
    }
}

impl Feed for V1Feed {
    const SLOW: (CloseCode, &'static str) = (CloseCode::Normal, "");

    async fn next(&mut self, frames: &mut VecDeque<Frame>) -> bool {
        if self.subscription.take(TAKE, &mut self.taken).await == 0 {
            return false;
        }
        for part in self.taken.drain(..) {
            let left = self.converter.put(&part, frames);
            self.metrics.handles().filtered.increment(left.filtered);
            for (reason, count) in left.dropped() {
                self.metrics.dropped(reason, count);
            }
        }
        true
    }

    fn cut(mut self, reason: Reason) {
        self.subscription.count_left_as(reason);
    }
}
