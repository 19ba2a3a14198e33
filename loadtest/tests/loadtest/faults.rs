//! Through a server that loses, repeats and swaps, and says on `/metrics` what it lost.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hydrant_loadtest::report::Dropped;
use hydrant_loadtest::run::{Peer, Watched};
use hydrant_loadtest::{Target, run};
use proto::codec::Wire;
use proto::raw::{Batch, Outgoing, Selection};
use proto::v2;
use proto::v2::egress_server::{Egress, EgressServer};
use proto::v2::ingress_server::{Ingress, IngressServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use transport::{ChannelOptions, GrpcLimits, Security};

use crate::plan;

/// Of every full batch it loses the fourth envelope and swaps the sixth and the seventh; every fifth batch it sends twice.
#[derive(Clone)]
struct Faulty {
    out: broadcast::Sender<Selection>,
    batches: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl Ingress for Faulty {
    async fn sender(&self, _: Request<Streaming<Wire>>) -> Result<Response<v2::IngressResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn batch_sender(
        &self,
        request: Request<Streaming<Wire>>,
    ) -> Result<Response<v2::BatchSenderResponse>, Status> {
        let mut batches = request.into_inner();
        while let Some(message) = batches.message().await? {
            let (batch, _) = Batch::index(message.0);
            if batch.len() < 100 {
                let _ = self.out.send(batch.into());
                continue;
            }
            self.lost.fetch_add(1, Ordering::Relaxed);
            let kept = [0, 1, 2, 4, 6, 5].into_iter().chain(7..100);
            for i in kept {
                let _ = self.out.send(Selection::new(batch.clone(), vec![i]));
            }
            if self.batches.fetch_add(1, Ordering::Relaxed).is_multiple_of(5) {
                let _ = self.out.send(Selection::new(batch.clone(), vec![0, 1, 2]));
            }
        }
        Ok(Response::new(v2::BatchSenderResponse {}))
    }

    async fn send(&self, _: Request<Wire>) -> Result<Response<v2::SendResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Egress for Faulty {
    type ReceiverStream = Out<Wire>;
    type BatchedReceiverStream = Out<Outgoing>;

    async fn receiver(&self, _: Request<v2::EgressRequest>) -> Result<Response<Out<Wire>>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn batched_receiver(
        &self,
        request: Request<v2::EgressBatchRequest>,
    ) -> Result<Response<Out<Outgoing>>, Status> {
        let request = request.into_inner();
        assert!(
            request.shard_id.starts_with("loadtest-") && request.use_preferred_tags && !request.selectors.is_empty()
        );
        let batches = BroadcastStream::new(self.out.subscribe());
        let out = batches.map(|part| Ok(part.expect("the channel holds all of a test").into()));
        Ok(Response::new(Box::pin(out)))
    }
}

/// Serves the counter for one scrape after another.
async fn serve_metrics(listener: tokio::net::TcpListener, lost: Arc<AtomicU64>) {
    while let Ok((mut socket, _)) = listener.accept().await {
        let mut request = [0; 1024];
        let read = socket.read(&mut request).await.unwrap_or_default();
        assert!(request[..read].starts_with(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1:"));
        let lost = lost.load(Ordering::Relaxed);
        let body = format!("hydrant_dropped_envelopes_total{{stage=\"egress\",reason=\"queue_full\"}} {lost}\n");
        let _ = socket.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_repeats_and_swaps_are_counted_to_the_envelope() {
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let faulty = Faulty { out: broadcast::Sender::new(8192), batches: Arc::default(), lost: Arc::default() };
    // What was lost before the run is none of its business.
    faulty.lost.store(77, Ordering::Relaxed);
    let listener = transport::bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
    let grpc = listener.addr();
    let metrics = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin: SocketAddr = metrics.local_addr().unwrap();
    tracker.spawn(stop.clone().run_until_cancelled_owned(serve_metrics(metrics, Arc::clone(&faulty.lost))));
    let server = transport::server_builder(&GrpcLimits::default())
        .add_service(IngressServer::new(faulty.clone()))
        .add_service(EgressServer::new(faulty))
        .serve_with_incoming(listener.incoming(Security::Plain, &tracker, stop.clone()));
    tracker.spawn(stop.clone().run_until_cancelled_owned(server));

    let peer = Peer { address: grpc.into(), options: ChannelOptions::default() };
    let target = Target { ingress: peer.clone(), egress: peer, socket: None };
    let watched =
        |before_groups| Watched { name: "faulty".into(), pid: std::process::id(), admin: Some(admin), before_groups };
    // Two senders, twenty full batches each.
    let found = run("faulty", &plan(4_000), &target, &[watched(|_| false)]).await.unwrap();

    let account = found.groups[0].account;
    assert_eq!((account.issued, account.unique, account.missing), (4_000, 3_960, 40));
    assert_eq!((account.duplicates, account.reorders), (8 * 3, 40));
    assert_eq!(account.received, account.unique + account.duplicates);
    let lost =
        Dropped { server: "faulty".into(), stage: "egress".into(), reason: "queue_full".into(), count: 40, groups: 1 };
    assert_eq!(found.dropped, [lost]);
    assert_eq!(found.residual, 0);
    assert!(found.is_exact());

    // The same loss, not admitted.
    let found = run("silent", &plan(1_000), &target, &[]).await.unwrap();
    assert_eq!((found.missing(), found.residual), (10, 10));
    assert!(!found.is_exact());
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}
