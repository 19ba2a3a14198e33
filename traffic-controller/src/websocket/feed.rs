//! What a WebSocket connection is fed with.

use std::collections::VecDeque;

use proto::reason::Reason;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Where the messages of one connection come from.
pub(crate) trait Feed: Send {
    /// What a consumer that did not read is told, if it reads again in time.
    const SLOW: (CloseCode, &'static str);

    /// Waits until there is more and appends what it gives, which may be no frame at all. False at the end.
    ///
    /// # Cancel safety
    /// Nothing is taken but by the poll that appends it.
    fn next(&mut self, frames: &mut VecDeque<Frame>) -> impl Future<Output = bool> + Send;

    /// The connection has ended: what is still to come counts as dropped for `reason`.
    fn cut(self, reason: Reason);
}

/// One message on its way to the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) message: Message,
    /// Envelopes that are delivered with it.
    pub(crate) envelopes: u64,
}
