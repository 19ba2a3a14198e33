//! A syslog receiver that counts lines, over TCP or TLS, and looks at nothing else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use transport::TestCerts;

/// Bytes of one read.
const READ: usize = 256 * 1024;

/// A running receiver. Dropping it ends it.
pub(super) struct Sink {
    addr: SocketAddr,
    lines: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Sink {
    /// Listens, over TLS as `receiver` when there are certificates.
    pub(super) async fn start(certs: Option<&TestCerts>, tracker: &TaskTracker) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, lines, stop) = (listener.local_addr()?, Arc::<AtomicU64>::default(), CancellationToken::new());
        let acceptor = certs.map(|certs| TlsAcceptor::from(certs.identity("receiver").https_config()));
        let (count, until) = (Arc::clone(&lines), stop.clone());
        // A drain has one connection at a time.
        let serve = async move {
            while let Ok((socket, _)) = listener.accept().await {
                match &acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            read(stream, &count).await;
                        }
                    }
                    None => read(socket, &count).await,
                }
            }
        };
        tracker.spawn(async move { until.run_until_cancelled(serve).await });
        Ok(Self { addr, lines, _stop: stop.drop_guard() })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lines so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }
}

/// Until the drain closes, or the connection breaks.
async fn read(mut stream: impl AsyncRead + Unpin, lines: &AtomicU64) {
    let mut buffer = vec![0; READ];
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        let ends = buffer[..len].iter().filter(|byte| **byte == b'\n').count();
        lines.fetch_add(ends as u64, Ordering::Relaxed);
    }
}
