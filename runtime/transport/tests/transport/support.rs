//! A gRPC server, a raw HTTP client, and waiting for a condition.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::{any, get};
use hydrant_transport::{
    Access, ConnInfo, GrpcLimits, Handle, ListenStats, Listener, Security, bind, serve_http, server_builder,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

pub(crate) type ServerHandle = Handle<SocketAddr, (), tonic::transport::Error>;

/// Long enough for any machine; only a broken test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn listener() -> Listener {
    bind("test.listen", "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// A gRPC server whose `/peer` says who connected.
pub(crate) fn grpc_server(listener: Listener, security: Security) -> (ServerHandle, Arc<ListenStats>) {
    grpc_server_with(listener, security, Access::default())
}

/// The same behind a rule of access.
pub(crate) fn grpc_server_with(
    listener: Listener,
    security: Security,
    access: Access,
) -> (ServerHandle, Arc<ListenStats>) {
    let stats = listener.stats();
    let handle = Handle::spawn(listener.addr(), |stop: CancellationToken| async move {
        let tracker = TaskTracker::new();
        let incoming = listener.incoming(security, &tracker, stop.clone());
        let peer =
            Router::new().route("/peer", any(|Extension(info): Extension<ConnInfo>| async move { describe(&info) }));
        let outcome = server_builder(&GrpcLimits::default())
            .layer(access)
            .add_routes(Routes::from(peer))
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
        tracker.close();
        tracker.wait().await;
        outcome
    });
    (handle, stats)
}

/// An HTTP server with `/peer` and whatever else `router` has.
pub(crate) fn http_server(listener: Listener, security: Security, router: Router) -> (ServerHandle, Arc<ListenStats>) {
    let stats = listener.stats();
    let router = router.route("/peer", get(|Extension(info): Extension<ConnInfo>| async move { describe(&info) }));
    let handle = Handle::spawn(listener.addr(), |stop: CancellationToken| async move {
        let tracker = TaskTracker::new();
        let incoming = listener.incoming(security, &tracker, stop.clone());
        serve_http(incoming, router, &tracker, &stop).await;
        tracker.close();
        tracker.wait().await;
        Ok(())
    });
    (handle, stats)
}

fn describe(info: &ConnInfo) -> String {
    format!("tls={} cert={} from={}", info.tls, info.peer.is_some(), info.remote_addr.ip())
}

/// One request on a channel, as a string of its status and body.
pub(crate) async fn ask(channel: &Channel, path: &str) -> Result<String, tonic::transport::Error> {
    let request = http::Request::post(path).body(Body::empty()).unwrap();
    let mut channel = channel.clone();
    let response = channel.ready().await?.call(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(axum::body::Body::new(response.into_body()), 1 << 20).await.unwrap();
    Ok(format!("{} {}", status.as_u16(), String::from_utf8(body.to_vec()).unwrap()))
}

/// The headers of the answer to one request.
pub(crate) async fn ask_headers(channel: &Channel, path: &str) -> http::HeaderMap {
    let request = http::Request::post(path).body(Body::empty()).unwrap();
    channel.clone().ready().await.unwrap().call(request).await.unwrap().headers().clone()
}

/// Sends `request` on a new connection and reads to the end.
pub(crate) async fn raw(addr: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    patiently(socket.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// Waits for what another task is about to do.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    patiently(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) async fn patiently<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens long before")
}
