//! A reader as what a WebSocket connection is fed with.
//!
//! What enters: steps. What leaves: one text message each. Holds one step.

use std::collections::VecDeque;

use proto::reason::Reason;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::frames;
use super::reader::Reader;
use crate::metrics::Metrics;
use crate::websocket::feed::{Feed, Frame};

/// Feeds one consumer.
pub(super) struct JsonFeed {
    reader: Reader,
    metrics: Metrics,
}

impl JsonFeed {
    pub(super) fn new(reader: Reader, metrics: Metrics) -> Self {
        Self { reader, metrics }
    }
}

impl Feed for JsonFeed {
    const SLOW: (CloseCode, &'static str) = (CloseCode::Policy, "slow consumer");

    async fn next(&mut self, frames: &mut VecDeque<Frame>) -> bool {
        let Some(step) = self.reader.next().await else { return false };
        let (frame, refused) = frames::frame(&step, self.reader.place().as_deref());
        self.metrics.dropped(Reason::DecodeError, refused);
        frames.push_back(frame);
        true
    }

    fn cut(self, reason: Reason) {
        self.reader.cut(reason);
    }
}
