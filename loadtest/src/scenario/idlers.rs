//! Subscriptions by the thousand to sources that never speak.

use futures_util::StreamExt;
use proto::codec::Wire;
use proto::v2;
use proto::v2::egress_client::EgressClient;
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use tonic::transport::Channel;

use super::ScenarioError;
use super::bed::Servers;
use crate::procs::Sample;
use crate::report::Subscriptions;
use crate::run::{Peer, RunError};

/// Connections that they share.
const CONNECTIONS: u32 = 16;
/// Opened at once.
const AT_ONCE: usize = 64;
/// For memory that is given back late.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(500);

/// Open subscriptions. Dropping them ends them.
pub(super) struct Idlers {
    _streams: Vec<Streaming<Wire>>,
}

impl Idlers {
    /// Opens `count` at the first server, and measures that.
    pub(super) async fn open(servers: &Servers, count: u32) -> Result<(Self, Subscriptions), ScenarioError> {
        let peer = &servers.target.egress;
        let pid = servers.watched.first().map_or(0, |watched| watched.pid);
        let sample = || Sample::of(pid).map_err(ScenarioError::Measure);
        let mut channels = Vec::new();
        for _ in 0..CONNECTIONS {
            let failed = |source| RunError::Connect { address: peer.address.clone(), source };
            channels.push(transport::connect(&peer.address, &peer.options).await.map_err(failed)?);
        }
        // What the first ones bring to life is not the price of each.
        let mut streams = Vec::new();
        for (i, channel) in (0..CONNECTIONS).zip(&channels) {
            streams.push(subscribe(peer, channel.clone(), format!("first-{i}")).await?);
        }
        let (before, began) = (sample()?, Instant::now());
        let opening = futures_util::stream::iter(0..count)
            .map(|i| subscribe(peer, channels[(i % CONNECTIONS) as usize].clone(), format!("idle-{i}")));
        let mut opening = opening.buffer_unordered(AT_ONCE);
        while let Some(opened) = opening.next().await {
            streams.push(opened?);
        }
        let opened_in = began.elapsed();
        sleep(SETTLE).await;
        let bytes_each = sample()?.rss_bytes.saturating_sub(before.rss_bytes) / u64::from(count);
        Ok((Self { _streams: streams }, Subscriptions { idle: count, seconds: opened_in.as_secs_f64(), bytes_each }))
    }
}

async fn subscribe(peer: &Peer, channel: Channel, source_id: String) -> Result<Streaming<Wire>, ScenarioError> {
    let message = Some(v2::selector::Message::Log(v2::LogSelector {}));
    let selectors = vec![v2::Selector { source_id, message }];
    let request = v2::EgressBatchRequest { selectors, use_preferred_tags: true, ..v2::EgressBatchRequest::default() };
    let opened = EgressClient::new(channel).batched_receiver(request).await;
    let refused = |source| RunError::Subscribe { address: peer.address.clone(), source: Box::new(source) };
    Ok(opened.map_err(refused)?.into_inner())
}
