//! Bound sockets and the connections they accept.
//!
//! What enters: an address and the configuration key it stands under. What leaves: a [`Listener`], bound before
//! anything is served, and from it [`Incoming`], a stream of [`Conn`]s whose handshakes are done. The accept loop never
//! ends on an error, never waits for a handshake and never holds more connections than its [`Budget`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::budget::Budget;
use crate::conn::{Conn, ConnInfo, Open};
use crate::throttle::Throttle;
use crate::tls::{Identity, ServerIdentity};

mod handshake;
mod stats;

use handshake::{Failed, linger, shake};
pub use stats::{ListenStats, Refused};

/// Connections that the kernel may hold between SYN and accept.
const BACKLOG: u32 = 1024;

/// A peer that has not finished its TLS handshake by then is dropped.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Finished connections waiting for the server to take them. A full hand-off holds up handshakes, not the accept loop.
const HAND_OFF: usize = 64;

/// Waits after an accept error that more of the same would follow: first and longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Accept errors, and failed handshakes, are logged at most this often; all are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Binds a TCP listener. `key` is the configuration key of the address, named by every error.
///
/// Must be called within a tokio runtime. Port 0 binds any free port; [`Listener::addr`] tells which.
///
/// # Errors
///
/// The port is taken or needs rights that this process lacks, or the address is none of this machine.
pub fn bind(key: &'static str, addr: SocketAddr) -> Result<Listener, BindError> {
    let listen = || -> io::Result<(TcpListener, SocketAddr)> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for the last process's connections to leave TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    let (socket, addr) = listen().map_err(|source| BindError::new(key, addr, source))?;
    Ok(Listener { key, socket, addr, budget: Budget::process(), stats: Arc::default() })
}

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process, or another listener of this one, has the port.
    #[error("{key}: {addr} is already in use; set it to another address, or to port 0 for any free port")]
    InUse {
        /// The configuration key.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// No interface of this machine has the address.
    #[error(
        "{key}: {addr} is no address of this machine; use 127.0.0.1 for this machine alone, or 0.0.0.0 for all its addresses"
    )]
    NotHere {
        /// The configuration key.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Ports below 1024 usually need a privilege.
    #[error(
        "{key}: this process may not listen on {addr}; choose a port from 1024 up, or give it CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The configuration key.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Anything else that the operating system refused.
    #[error("{key}: cannot listen on {addr}: {source}")]
    Other {
        /// The configuration key.
        key: &'static str,
        /// The address as configured.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl BindError {
    /// Sorts an error of the operating system by what its reader can do about it. Also for sockets bound elsewhere, such as UDP.
    pub fn new(key: &'static str, addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { key, addr, source },
            io::ErrorKind::AddrNotAvailable => Self::NotHere { key, addr, source },
            io::ErrorKind::PermissionDenied => Self::Denied { key, addr, source },
            _ => Self::Other { key, addr, source },
        }
    }
}

/// A bound TCP socket that accepts nothing yet: connections wait in its backlog.
#[derive(Debug)]
pub struct Listener {
    key: &'static str,
    socket: TcpListener,
    addr: SocketAddr,
    budget: Budget,
    stats: Arc<ListenStats>,
}

/// What a listener asks of those who connect.
#[derive(Clone, Debug)]
pub enum Security {
    /// Nothing: bytes as they are.
    Plain,
    /// TLS with a client certificate of our authorities, for gRPC.
    MutualTls(Identity),
    /// TLS with a client certificate of our authorities or none at all: those without must be asked for something else.
    OptionalClientTls(Identity),
    /// TLS without a client certificate, for browsers and the like.
    Https(ServerIdentity),
    /// TLS without a client certificate, for clients that never read.
    OneWayTls(ServerIdentity),
}

impl Listener {
    /// The address really bound: the port that the kernel chose when the configuration said 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The configuration key given to [`bind`].
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// What this listener counts. Shared: it stays readable while connections are served.
    pub fn stats(&self) -> Arc<ListenStats> {
        Arc::clone(&self.stats)
    }

    /// Takes slots from `budget` instead of the process's own.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// Starts to accept, on `tracker`, until `stop` or until the returned stream is dropped; either closes the socket.
    ///
    /// Handshakes run side by side, each in its own task with a deadline of 10 s. Connections that are ready but not
    /// yet taken when it stops are closed.
    pub fn incoming(self, security: Security, tracker: &TaskTracker, stop: CancellationToken) -> Incoming {
        let (ready, connections) = mpsc::channel(HAND_OFF);
        let failures = Arc::new(Throttle::every(LOG_INTERVAL));
        let accept = Accept { listener: self, security, ready, tracker: tracker.clone(), stop, failures };
        tracker.spawn(accept.run());
        Incoming { connections }
    }
}

/// Accepted connections, ready to serve. Ends when the listener stops; dropping it stops the listener.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Conn>,
}

impl Incoming {
    /// The next connection, or `None` once the listener has stopped.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no connection is lost.
    pub async fn next(&mut self) -> Option<Conn> {
        self.connections.recv().await
    }
}

/// For `tonic::transport::Server::serve_with_incoming_shutdown`. No item is an error.
impl Stream for Incoming {
    type Item = Result<Conn, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|conn| conn.map(|conn| Ok(conn.for_grpc())))
    }
}

/// The accept loop of one listener.
struct Accept {
    listener: Listener,
    security: Security,
    ready: mpsc::Sender<Conn>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// What is said of failed handshakes.
    failures: Arc<Throttle>,
}

impl Accept {
    async fn run(self) {
        let mut pause = Duration::ZERO;
        let mut logged: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.ready.closed() => return,
                accepted = self.listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, remote)) => {
                    pause = Duration::ZERO;
                    self.admit(socket, remote);
                }
                Err(error) => {
                    self.listener.stats.count_accept_error();
                    let wait = after_accept_error(&error, &mut pause);
                    if !wait.is_zero() && logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        logged = Some(Instant::now());
                        warn!(%error, listener = self.listener.key, "Accept failed, trying again");
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Gives the connection a slot and sends it on, by way of a handshake when there is one.
    fn admit(&self, socket: TcpStream, remote: SocketAddr) {
        let stats = &self.listener.stats;
        let slot = match self.listener.budget.take(remote.ip()) {
            Ok(slot) => slot,
            Err(full) => {
                stats.count_refused(full);
                debug!(%remote, listener = self.listener.key, ?full, "Connection refused");
                return;
            }
        };
        stats.count_accepted();
        let open = Open { slot, stats: Arc::clone(stats), stop: self.stop.clone() };
        if let Err(error) = set_options(&socket) {
            // The peer is gone already, or the kernel lacks an option: the connection is usable or will say so itself.
            debug!(%error, %remote, "Socket option refused");
        }
        let local_addr = socket.local_addr().unwrap_or(self.listener.addr);
        let info = ConnInfo { local_addr, remote_addr: remote, peer: None, tls: false };
        let (config, identity) = match &self.security {
            Security::Plain => match self.ready.try_send(Conn::plain(socket, info, open)) {
                Err(mpsc::error::TrySendError::Full(conn)) => return self.hand_over(conn),
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            },
            Security::MutualTls(identity) => (identity.server_config(), Some(identity.clone())),
            Security::OptionalClientTls(identity) => (identity.optional_client_config(), Some(identity.clone())),
            Security::Https(identity) => (identity.config(), None),
            Security::OneWayTls(identity) => (identity.one_way_config(), None),
        };
        self.hand_shake(TlsAcceptor::from(config), identity, socket, info, open);
    }

    fn hand_over(&self, conn: Conn) {
        let (ready, stop) = (self.ready.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            // A failed send says that the server is gone, and the connection with it.
            let _ = stop.run_until_cancelled(ready.send(conn)).await;
        });
    }

    fn hand_shake(
        &self,
        acceptor: TlsAcceptor,
        identity: Option<Identity>,
        socket: TcpStream,
        info: ConnInfo,
        open: Open,
    ) {
        let (ready, stop, listener) = (self.ready.clone(), self.stop.clone(), self.listener.key);
        let failures = Arc::clone(&self.failures);
        self.tracker.spawn(async move {
            let remote = info.remote_addr;
            let handshake = timeout(HANDSHAKE_DEADLINE, shake(acceptor, socket, identity.as_ref()));
            let failed = match stop.run_until_cancelled(handshake).await {
                None => return,
                Some(Ok(Ok(stream))) => {
                    let _ = stop.run_until_cancelled(ready.send(Conn::tls(stream, info, open))).await;
                    return;
                }
                Some(Ok(Err(failed))) => failed,
                Some(Err(_)) => {
                    Failed { why: "it was not finished within 10 s".to_owned(), is_probe: false, socket: None }
                }
            };
            open.stats.count_handshake_failed();
            let Failed { why: reason, is_probe, socket } = failed;
            if is_probe {
                debug!(%remote, listener, reason, "TLS handshake failed");
            } else if let Some(suppressed) = failures.pass() {
                warn!(%remote, listener, reason, suppressed, "TLS handshake failed");
            }
            if let Some(socket) = socket {
                let _ = stop.run_until_cancelled(linger(socket)).await;
            }
        });
    }
}

/// No delay for small writes; a peer that vanished while idle is noticed within two minutes.
fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// How long to wait after an accept error.
///
/// A connection that died in the backlog concerns nobody else: go on at once. Anything else (no descriptors, no
/// buffers) will be there at the next try too: wait, longer each time.
fn after_accept_error(error: &io::Error, pause: &mut Duration) -> Duration {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted => Duration::ZERO,
        _ => {
            *pause = if pause.is_zero() { FIRST_PAUSE } else { (*pause * 2).min(LONGEST_PAUSE) };
            *pause
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_connections_cost_no_wait_and_full_tables_do() {
        let mut pause = Duration::ZERO;
        for kind in [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted] {
            assert_eq!(after_accept_error(&kind.into(), &mut pause), Duration::ZERO);
        }
        let too_many_files = io::Error::from_raw_os_error(24);
        let waits: Vec<_> = (0..9).map(|_| after_accept_error(&too_many_files, &mut pause)).collect();
        assert_eq!(waits[0], Duration::from_millis(10));
        assert_eq!(waits[1], Duration::from_millis(20));
        assert_eq!(waits[8], LONGEST_PAUSE);
    }

    #[tokio::test]
    async fn a_busy_port_is_named_with_what_to_do() {
        let first = bind("doppler.grpc.listen", "127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(first.addr().port(), 0);
        let error = bind("doppler.grpc.listen", first.addr()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "doppler.grpc.listen: {} is already in use; set it to another address, or to port 0 for any free port",
                first.addr()
            )
        );
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named() {
        let error = bind("admin.listen", "192.0.2.1:0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, BindError::NotHere { .. }), "{error:?}");
        assert!(error.to_string().starts_with("admin.listen: 192.0.2.1:0 is no address of this machine"));
    }

    #[test]
    fn a_refused_privilege_is_named() {
        let error = BindError::new("a.b", "0.0.0.0:514".parse().unwrap(), io::ErrorKind::PermissionDenied.into());
        assert!(error.to_string().contains("choose a port from 1024 up"), "{error}");
    }
}
