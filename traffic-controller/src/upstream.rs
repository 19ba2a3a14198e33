//! The way to the dopplers: which there are, and a channel to each.
//!
//! What enters: the live set of addresses and the options of a connection. What leaves: gRPC channels, shared by everything in
//! this process that asks a doppler for something. It never reads a stream: [`crate::fan_in`] and the cache readers do.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use telemetry::Throttle;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic::transport::Channel;
use tracing::warn;
use transport::{Address, ChannelOptions, Dopplers, channel};

/// The dopplers and the channels to them. Cloning shares both.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    dopplers: Dopplers,
    options: ChannelOptions,
    connections: NonZeroUsize,
    /// Guards the channels made so far; held for a look-up, never across a connect.
    lanes: Mutex<HashMap<Address, Lanes>>,
}

/// The channels to one doppler, handed out in turn.
struct Lanes {
    channels: Vec<Channel>,
    next: usize,
}

impl Upstream {
    /// Channels with `options` to `dopplers`, at most `connections` to each. Nothing is connected until a channel is used.
    pub(crate) fn new(dopplers: Dopplers, options: ChannelOptions, connections: NonZeroUsize) -> Self {
        Self { shared: Arc::new(Shared { dopplers, options, connections, lanes: Mutex::default() }) }
    }

    /// The set of dopplers: its addresses now, and to be told of changes.
    pub(crate) fn dopplers(&self) -> Dopplers {
        self.shared.dopplers.clone()
    }

    /// A channel to `address`, one of several taken in turn. It connects when first used, and again after a loss.
    ///
    /// Must be called within a tokio runtime. One lock; channels to dopplers that have left the set are forgotten on the way.
    pub(crate) fn channel(&self, address: &Address) -> Channel {
        let mut lanes = self.shared.lanes.lock();
        if !lanes.contains_key(address) {
            let current = self.shared.dopplers.current();
            lanes.retain(|known, _| current.contains(known));
        }
        let lanes = lanes.entry(address.clone()).or_insert_with(|| Lanes { channels: Vec::new(), next: 0 });
        if lanes.channels.len() < self.shared.connections.get() {
            lanes.channels.push(channel(address, &self.shared.options));
        }
        let lane = lanes.next % lanes.channels.len();
        lanes.next = lane + 1;
        lanes.channels[lane].clone()
    }
}

impl Upstream {
    /// Asks every doppler at once; their answers, in the order of the dopplers. One that has not answered by `deadline` has failed.
    pub(crate) async fn ask_each<T, F>(
        &self,
        deadline: Instant,
        ask: impl Fn(Channel) -> F,
    ) -> Vec<(Address, Result<T, Status>)>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let addresses = self.shared.dopplers.current();
        let answers = addresses.iter().map(|address| timeout_at(deadline, ask(self.channel(address))));
        let answers = join_all(answers.collect::<Vec<_>>()).await;
        let late = |_| Err(Status::deadline_exceeded("a doppler did not answer in time"));
        addresses.iter().cloned().zip(answers.into_iter().map(|answer| answer.unwrap_or_else(late))).collect()
    }
}

/// Says that a doppler's cache is missing from an answer, at most every 10 s.
pub(crate) fn warn_missing(doppler: &Address, status: &Status) {
    static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
    if let Some(suppressed) = AWAY.pass() {
        let (code, message) = (status.code(), status.message());
        warn!(%doppler, ?code, message, suppressed, "Doppler's cache could not be asked, answer is partial");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn channels_are_made_up_to_the_bound_and_forgotten_with_their_doppler() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let two = NonZeroUsize::new(2).unwrap();
        let upstream = Upstream::new(Dopplers::fixed([address("127.0.0.1:9")]), ChannelOptions::default(), two);
        for _ in 0..5 {
            upstream.channel(&address("127.0.0.1:9"));
        }
        upstream.channel(&address("127.0.0.1:10"));
        upstream.channel(&address("127.0.0.1:11"));
        let lanes = upstream.shared.lanes.lock();
        assert_eq!(lanes[&address("127.0.0.1:9")].channels.len(), 2);
        assert!(!lanes.contains_key(&address("127.0.0.1:10")));
    }
}
