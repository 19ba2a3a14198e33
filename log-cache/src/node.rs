//! A cache node as those see it who bring it envelopes and read them: its store, and where sources are placed on several nodes the others
//! too.
//!
//! What enters: checked batches. What leaves: puts to the store or to the links of other nodes, and the gRPC services of all of it.

use proto::raw::Selection;
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use transport::Identity;

use crate::cluster::{Cluster, ClusterConfig, ClusterError, Links, Placement};
use crate::metrics::Metrics;
use crate::service::{Service, Services};
use crate::store::Store;

/// A store and its place among others. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) store: Store,
    pub(crate) cluster: Option<Cluster>,
}

impl From<Store> for Node {
    /// A node alone: everything is its own.
    fn from(store: Store) -> Self {
        Self { store, cluster: None }
    }
}

impl Node {
    /// The node around `store` that `config`, the table `table`, makes of it, and its links to others, to be served. `identity` is what it
    /// shows to them: with it they are asked over TLS, and must be called `log-cache`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// It cannot be one of such nodes.
    pub fn new(
        store: Store,
        (table, config): (&'static str, &ClusterConfig),
        identity: Option<&Identity>,
        telemetry: &Telemetry,
    ) -> Result<(Self, Links), ClusterError> {
        config.check(table)?;
        if config.placement == Placement::Arrival {
            return Ok((store.into(), Links::default()));
        }
        let (cluster, links) = Cluster::new(config, &store, identity, telemetry);
        Ok((Self { store, cluster: Some(cluster) }, links))
    }

    /// True when sources belong to nodes, so that the store may hold what came by others and lack what came here.
    pub fn is_placed(&self) -> bool {
        self.cluster.is_some()
    }

    /// Stores what is its own; what is another node's waits for it in a ring. Never waits itself.
    pub fn put(&self, selection: &Selection) {
        match &self.cluster {
            None => self.store.put(selection),
            Some(cluster) => cluster.put(selection),
        }
    }

    /// Its services: of all nodes together, but that following knows this one's envelopes alone. Follow streams end with OK once `stop` is
    /// cancelled.
    pub fn routes(&self, metrics: &Metrics, stop: &CancellationToken) -> Services {
        Service::new(self.clone(), metrics.clone(), stop.clone()).routes()
    }

    /// Ends what is put for others: it is dropped and counted from now on, and the links end once they have sent the rest.
    pub fn close(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.close();
        }
    }
}
