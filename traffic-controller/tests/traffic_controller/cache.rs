//! A doppler's cache for tests: a real store behind real sockets, nothing else of a doppler.

use std::net::SocketAddr;

use log_cache::{Metrics, Store, routes};
use prost::Message as _;
use proto::logcache::v1;
use proto::logcache::v1::ingress_client::IngressClient;
use proto::raw::{Batch, Limits};
use proto::v2;
use telemetry::Telemetry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{ChannelOptions, GrpcLimits, Security, bind, channel, server_builder};

/// A running cache.
pub(crate) struct Cache {
    pub(crate) addr: SocketAddr,
    pub(crate) store: Store,
    stop: CancellationToken,
    tracker: TaskTracker,
    task: JoinHandle<()>,
}

impl Cache {
    /// Starts an empty one on any free port.
    pub(crate) fn start() -> Self {
        let store = Store::new(&log_cache::Config::with_budget(256 << 20));
        Self::start_on("127.0.0.1:0".parse().unwrap(), store)
    }

    /// Serves `store` on `addr`.
    pub(crate) fn start_on(addr: SocketAddr, store: Store) -> Self {
        let listener = bind("test.cache", addr).unwrap();
        let addr = listener.addr();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let incoming = listener.incoming(Security::Plain, &tracker, stop.clone());
        let services = routes(&store, &Metrics::register(&Telemetry::default(), &store), &stop);
        let stopped = stop.clone();
        let task = tracker.spawn(async move {
            let server = server_builder(&GrpcLimits::default())
                .add_service(services.ingress)
                .add_service(services.egress)
                .add_service(services.follow)
                .add_service(services.samples)
                .add_service(services.queries);
            server.serve_with_incoming_shutdown(incoming, stopped.cancelled()).await.unwrap();
        });
        Self { addr, store, stop, tracker, task }
    }

    /// Stores `envelopes`, as if the doppler had received them.
    pub(crate) fn put(&self, envelopes: impl IntoIterator<Item = v2::Envelope>) {
        put(&self.store, envelopes);
    }

    /// Stores an encoded batch over gRPC.
    pub(crate) async fn send(&self, envelopes: Vec<u8>) {
        let mut ingress = IngressClient::new(channel(&self.addr.into(), &ChannelOptions::default()));
        ingress.send(v1::SendRequest { envelopes: envelopes.into(), local_only: true }).await.unwrap();
    }

    /// Stops serving. What is left can be served again.
    pub(crate) async fn stop(self) -> (SocketAddr, Store) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.tracker.close();
        self.tracker.wait().await;
        (self.addr, self.store)
    }
}

/// Stores `envelopes`.
pub(crate) fn put(store: &Store, envelopes: impl IntoIterator<Item = v2::Envelope>) {
    let encoded = v2::EnvelopeBatch { batch: envelopes.into_iter().collect() }.encode_to_vec();
    let (batch, refused) = Batch::check(encoded.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    store.put(&batch.into());
}

/// An address where nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    bind("test.nobody", "127.0.0.1:0".parse().unwrap()).unwrap().addr()
}
