//! Several cache nodes that each keep the sources that fall to them, as the original's nodes do (contract `log-cache.md` §5): a static list of
//! nodes, the same everywhere, and a hash that says which of them owns a source ([`proto::jump`]).
//!
//! ```text
//! put ─► by owner ─┬─► own store
//!                  └─► a fair ring per node ─► Ingress.Send, local_only
//! read ─► by owner ─┬─► own store
//!                   └─► Egress.Read at the owner, one hop
//! ```
//!
//! What enters: checked batches, and requests. What leaves: puts to the own store, sends to other nodes, answers. What is beside the own
//! store knows it only through `logcache.v1`, so any node may be an original one.
//!
//! *Invariants.* A node that is away holds up neither a put nor another node. What its ring cannot keep is dropped, counted and fair by source.
//! An answer that lacks a node's envelopes names it. Nothing goes further than one hop.

use std::sync::Arc;

use diode::fair;
use parking_lot::Mutex;
use proto::jump;
use proto::raw::Selection;
use smallvec::SmallVec;
use telemetry::Telemetry;
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use transport::{Address, ChannelOptions, Identity, channel};

mod config;
mod link;
mod reads;

pub use config::{ClusterConfig, ClusterError, Placement};
pub use link::{Links, RunningLinks};
pub(crate) use reads::{Elsewhere, is_passed_on};

use self::link::Link;
use self::reads::MetaAnswer;
use crate::metrics::ClusterMetrics;
use crate::store::Store;

/// Reads passed on to other nodes at once; more wait, within their deadline.
const PASSED_AT_ONCE: usize = 64;

/// The nodes of a cluster as one of them sees them. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// In the order of the list; the own place is empty.
    peers: Vec<Option<Peer>>,
    metrics: ClusterMetrics,
    turns: Semaphore,
    /// The latest summary of all nodes. Guards nothing else, and is held for a copy of it.
    meta: Mutex<Option<MetaAnswer>>,
}

/// Another node.
#[derive(Debug)]
struct Peer {
    address: Address,
    channel: Channel,
    ring: fair::Writer<Selection>,
}

/// Owners of the envelopes of a selection, by their places in the list.
type Owners = SmallVec<[u16; 128]>;

impl Cluster {
    /// The cluster of a `config` that was checked and says [`Placement::Jump`], around `store`, and the links to the other nodes, which run
    /// once they are served. Must be called within a tokio runtime.
    pub(crate) fn new(
        config: &ClusterConfig,
        store: &Store,
        identity: Option<&Identity>,
        telemetry: &Telemetry,
    ) -> (Self, Links) {
        let options =
            identity.map_or_else(ChannelOptions::default, |own| ChannelOptions::tls(own.clone(), "log-cache"));
        let own = config.node_index.unwrap_or_default();
        let bounds = fair::Bounds { envelopes: config.ring_envelopes, bytes: config.ring_bytes };
        let metrics = ClusterMetrics::register(telemetry);
        let (mut peers, mut links, mut rings) = (Vec::new(), Vec::new(), Vec::new());
        for (index, address) in config.nodes.iter().enumerate() {
            peers.push((index != own).then(|| {
                let channel = channel(address, &options);
                let (ring, reader) = fair::channel(bounds);
                links.push(Link::new(address.clone(), channel.clone(), reader, config, metrics.clone()));
                rings.push((index, ring.clone()));
                Peer { address: address.clone(), channel, ring }
            }));
        }
        metrics.show(telemetry, rings);
        let (turns, meta) = (Semaphore::new(PASSED_AT_ONCE), Mutex::default());
        (Self { shared: Arc::new(Shared { store: store.clone(), peers, metrics, turns, meta }) }, Links(links))
    }

    /// Stores what is its own, and gives the rest to the links of the nodes that own it. Never waits for one of them.
    ///
    /// O(envelopes × owners among them), and one hash for each run of envelopes of one source.
    pub(crate) fn put(&self, selection: &Selection) {
        let shared = &*self.shared;
        let owners = self.owners(selection);
        if owners.iter().all(|owner| self.is_own((*owner).into())) {
            return shared.store.put(selection);
        }
        let mut among: Owners = owners.clone();
        among.sort_unstable();
        among.dedup();
        for owner in among {
            let mut part = selection.clone();
            part.retain(|i| owners[i] == owner);
            match &shared.peers[usize::from(owner)] {
                None => shared.store.put(&part),
                Some(peer) => shared.metrics.put(&peer.ring, part),
            }
        }
    }

    fn owners(&self, selection: &Selection) -> Owners {
        let (batch, nodes) = (selection.batch(), self.shared.peers.len());
        let mut last: Option<(&[u8], u16)> = None;
        let owner = |entry| {
            let id = batch.source_id(entry);
            match last {
                Some((same, owner)) if same == id => owner,
                _ => {
                    // A list has 256 nodes at most.
                    let owner = jump::owner(id, nodes) as u16;
                    last = Some((id, owner));
                    owner
                }
            }
        };
        selection.entries().map(owner).collect()
    }

    fn is_own(&self, node: usize) -> bool {
        self.shared.peers[node].is_none()
    }

    /// The node that owns a source, unless it is this one.
    fn elsewhere(&self, source_id: &str) -> Option<&Peer> {
        let owner = jump::owner(source_id.as_bytes(), self.shared.peers.len());
        self.shared.peers[owner].as_ref()
    }

    fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.shared.peers.iter().flatten()
    }

    /// Closes the links' rings: what comes for other nodes from now on is dropped and counted.
    pub(crate) fn close(&self) {
        self.peers().for_each(|peer| peer.ring.close());
    }
}
