//! Agents by the hundred, as far as a doppler can tell: connections with an acknowledged stream each.

use std::ops::Range;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use proto::hydrant::v1::IngressAck;
use proto::hydrant::v1::ingress_client::IngressClient;
use proto::raw::OutgoingFrame;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::ScenarioError;
use crate::run::{Peer, RunError};

/// Connections made at once.
const AT_ONCE: usize = 16;

/// Connected agents. Dropping them disconnects.
pub(super) struct Crowd {
    _agents: Vec<Agent>,
}

struct Agent {
    _frames: mpsc::Sender<OutgoingFrame>,
    _acks: Streaming<IngressAck>,
}

impl Crowd {
    /// Connects those of these numbers, each greeted by the doppler.
    pub(super) async fn connect(peer: &Peer, agents: Range<u32>) -> Result<Self, ScenarioError> {
        let connecting = futures_util::stream::iter(agents).map(|i| connect(peer, u64::from(i)));
        let mut connecting = connecting.buffer_unordered(AT_ONCE);
        let mut connected = Vec::new();
        while let Some(agent) = connecting.next().await {
            connected.push(agent?);
        }
        Ok(Self { _agents: connected })
    }
}

/// Has `agents` connect and leave again, evenly spread over `within`; returns how many did.
pub(super) async fn come_and_go(
    peer: &Peer,
    agents: u32,
    within: Duration,
    stop: &CancellationToken,
) -> Result<u32, ScenarioError> {
    let began = Instant::now();
    let mut coming = FuturesUnordered::new();
    for i in 0..agents {
        let due = began + within.mul_f64(f64::from(i) / f64::from(agents));
        coming.push(async move {
            sleep_until(due).await;
            connect(peer, (1 << 32) + u64::from(i)).await.map(drop)
        });
    }
    let mut came = 0;
    while let Some(done) = stop.run_until_cancelled(coming.next()).await.flatten() {
        done?;
        came += 1;
    }
    Ok(came)
}

/// A connection of its own with an open stream, whose first frame has been answered.
async fn connect(peer: &Peer, process: u64) -> Result<Agent, ScenarioError> {
    let failed = |source| RunError::Connect { address: peer.address.clone(), source };
    let refused = |source| RunError::Subscribe { address: peer.address.clone(), source: Box::new(source) };
    let channel = transport::connect(&peer.address, &peer.options).await.map_err(failed)?;
    let (frames, outgoing) = mpsc::channel(1);
    let call = IngressClient::new(channel).stream(ReceiverStream::new(outgoing)).await;
    let mut acks = call.map_err(refused)?.into_inner();
    let hello = OutgoingFrame { sender: Some((process, 1)), ..OutgoingFrame::default() };
    // A stream that is gone says so where its answer is read.
    let _gone = frames.send(hello).await;
    acks.message().await.map_err(refused)?;
    Ok(Agent { _frames: frames, _acks: acks })
}
