//! The way to the dopplers: which there are, and a channel to each.
//!
//! What enters: the live set of addresses and the options of a connection. What leaves: gRPC channels, shared by everything in
//! this process that asks a doppler for something. It never reads a stream: [`crate::fan_in`] and the cache readers do.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;
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
