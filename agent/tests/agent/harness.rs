//! A doppler made of tonic alone, and the programs that tests set against the agent.

use std::net::SocketAddr;
use std::path::PathBuf;

use prost::Message as _;
use proto::codec::Wire;
use proto::v2;
use proto::v2::ingress_server::{Ingress, IngressServer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// A doppler that hands out what it gets.
struct Doppler(mpsc::Sender<v2::Envelope>);

#[tonic::async_trait]
impl Ingress for Doppler {
    async fn sender(&self, _: Request<Streaming<Wire>>) -> Result<Response<v2::IngressResponse>, Status> {
        Err(Status::unimplemented("agents send batches"))
    }

    async fn batch_sender(
        &self,
        request: Request<Streaming<Wire>>,
    ) -> Result<Response<v2::BatchSenderResponse>, Status> {
        let mut batches = request.into_inner();
        while let Some(Wire(batch)) = batches.message().await? {
            for envelope in v2::EnvelopeBatch::decode(batch).unwrap().batch {
                self.0.send(envelope).await.unwrap();
            }
        }
        Ok(Response::new(v2::BatchSenderResponse {}))
    }

    async fn send(&self, _: Request<Wire>) -> Result<Response<v2::SendResponse>, Status> {
        Err(Status::unimplemented("agents open streams"))
    }
}

/// Starts one.
pub(super) async fn doppler(tasks: &TaskTracker) -> (SocketAddr, mpsc::Receiver<v2::Envelope>) {
    doppler_at("127.0.0.1:0".parse().unwrap(), tasks).await
}

/// Starts one at this address.
pub(super) async fn doppler_at(addr: SocketAddr, tasks: &TaskTracker) -> (SocketAddr, mpsc::Receiver<v2::Envelope>) {
    let (envelopes, received) = mpsc::channel(4_096);
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(IngressServer::new(Doppler(envelopes)));
    tasks.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (addr, received)
}

/// Where `scripts/tools` fetches to.
fn tools() -> PathBuf {
    std::env::var_os("HYDRANT_TOOLS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools")), PathBuf::from)
}

/// A program that it fetches.
pub(super) fn tool(path: &str) -> PathBuf {
    let tool = tools().join(path);
    assert!(tool.exists(), "{} is missing: run scripts/tools", tool.display());
    tool
}

/// The interpreter with the packages that `scripts/tools` fetches.
pub(super) fn python() -> PathBuf {
    tool("venv/bin/python")
}

/// Node, with the packages under `npm/` beside its directory.
pub(super) fn node() -> PathBuf {
    tool("bin/node")
}
