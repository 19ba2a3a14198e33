//! Dopplers whose caches are nodes with one list: what is published at any of them is kept where it belongs.

use std::net::{SocketAddr, TcpListener};

use doppler::Config;
use log_cache::Placement;
use prost::Message;
use proto::jump;
use proto::logcache::v1;
use proto::logcache::v1::egress_client::EgressClient;
use proto::v2::{Envelope, EnvelopeBatch};
use telemetry::Telemetry;
use tonic::transport::Channel;

use crate::client::{Doppler, logs};

/// A doppler whose cache is the node at `index` of `list`.
async fn start(list: [SocketAddr; 2], index: usize) -> Doppler {
    Doppler::with(|config| {
        config.grpc.tls = None;
        config.cache_grpc.listen = list[index];
        config.cache_cluster.placement = Placement::Jump;
        config.cache_cluster.nodes = list.map(Into::into).to_vec();
        config.cache_cluster.node_index = Some(index);
    })
    .await
}

async fn read(channel: Channel, source_id: &str) -> Vec<Envelope> {
    let request = v1::ReadRequest { source_id: source_id.to_owned(), ..v1::ReadRequest::default() };
    let read = EgressClient::new(channel).read(request).await.unwrap().into_inner();
    EnvelopeBatch::decode(read.envelopes.unwrap()).unwrap().batch
}

#[tokio::test]
async fn a_doppler_keeps_what_is_its_own_and_passes_on_what_is_not() {
    // A host where nobody else takes a port meanwhile.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.78.1:0").unwrap());
    let list = listeners.map(|listener| listener.local_addr().unwrap());
    let (here, other) = (start(list, 0).await, start(list, 1).await);
    let source = |index| {
        let mut names = (0..).map(|i| format!("app-{i}"));
        names.find(|name| jump::owner(name.as_bytes(), 2) == index).unwrap()
    };
    let (own, there) = (source(0), source(1));
    let mut subscriber = here.subscribe(vec![logs("")]).await;
    let line = |source_id: &String| Envelope::log(source_id.clone(), "hello").at(1);
    here.send([vec![line(&own), line(&there)]]).await;
    // Where it is kept changes nothing for those who are subscribed.
    assert_eq!(subscriber.take(2).await, [line(&own), line(&there)]);
    while read(other.channel(), &there).await.is_empty() {
        tokio::task::yield_now().await;
    }
    // On its gRPC port a doppler answers for itself, as traffic controllers ask every one; on its cache's port for all nodes.
    assert_eq!(read(here.channel(), &own).await, [line(&own)]);
    assert_eq!(read(here.channel(), &there).await, []);
    for node in [&here, &other] {
        assert_eq!(read(node.cache_channel(), &own).await, [line(&own)]);
        assert_eq!(read(node.cache_channel(), &there).await, [line(&there)]);
    }
    let request = v1::MetaRequest::default();
    assert_eq!(EgressClient::new(here.channel()).meta(request.clone()).await.unwrap().into_inner().meta.len(), 1);
    assert_eq!(EgressClient::new(here.cache_channel()).meta(request.clone()).await.unwrap().into_inner().meta.len(), 2);
    drop(subscriber);
    here.shutdown().await;
}

#[tokio::test]
async fn a_cluster_without_a_cache_is_refused() {
    let mut config = Config::for_test();
    config.cache.enabled = false;
    config.cache_cluster.placement = Placement::Jump;
    let error = config.clone().bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("doppler.cache_cluster: there is no cache;"), "{error}");
    config.cache.enabled = true;
    let error = config.bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("doppler.cache_cluster.nodes: 0 nodes;"), "{error}");
}
