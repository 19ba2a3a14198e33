//! Syslog in, as the original's agents drain it to a log cache (contract `log-cache.md` §7): RFC 5424 over TCP, TLS and mutual TLS.
//!
//! ```text
//! connection ─► frame ─► line ─► envelope ─► node
//! ```
//!
//! What enters: connections. What leaves: envelopes, one batch for each reading, into the [`Node`]; nothing else hears of them. There is
//! no queue: a sender that is faster than the node waits in TCP.
//!
//! *Invariants.* A message that is none costs only itself, counted by its reason, and its connection goes on. Only where nobody knows where
//! the next message begins does a connection end. No connection holds more than a message of the largest size and one reading, and none
//! that brings no message is held for long.

use std::net::SocketAddr;
use std::sync::Arc;

use telemetry::Telemetry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};
use transport::{Identity, Listener, Security, ServerFiles, ServerIdentity, TlsError, TlsFiles, bind};

mod config;
mod connection;
mod envelope;
mod frame;
mod line;
mod number;

pub use config::{SyslogConfig, SyslogTls};
use connection::Connection;
pub use frame::Framing;

use crate::metrics::{Ended, IntakeMetrics};
use crate::node::Node;

/// How an intake's table is called, for errors, the log and metrics.
#[derive(Clone, Copy, Debug)]
pub struct SyslogKeys {
    /// The key of its address.
    pub listen: &'static str,
    /// The key of its certificate.
    pub tls: &'static str,
    /// The key that lets anybody send in plain text.
    pub insecure_plaintext: &'static str,
    /// Its name among listeners and certificates.
    pub name: &'static str,
}

/// Why an intake could not start.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// Its address.
    #[error(transparent)]
    Listen(#[from] transport::BindError),
    /// Its certificate.
    #[error("{key}: {source}")]
    Tls {
        /// The key of its table.
        key: &'static str,
        /// What is wrong, and with which file.
        source: TlsError,
    },
    /// Plain text on an address that others reach.
    #[error(
        "{}: {addr} can be reached from outside, and {} is not set; set it, listen on loopback, or say {} = true",
        keys.listen, keys.tls, keys.insecure_plaintext
    )]
    Plaintext {
        /// The names of its keys.
        keys: SyslogKeys,
        /// As configured.
        addr: SocketAddr,
    },
}

/// A bound intake that takes nothing yet.
#[derive(Debug)]
pub struct Intake {
    listener: Listener,
    security: Security,
    keys: SyslogKeys,
    config: SyslogConfig,
    metrics: IntakeMetrics,
}

impl SyslogConfig {
    /// What can be found out without opening a file or a port.
    ///
    /// # Errors
    /// It would take plain text from other machines, and does not say that it should.
    pub fn check(&self, keys: SyslogKeys) -> Result<(), IntakeError> {
        if self.is_exposed() && !self.insecure_plaintext {
            return Err(IntakeError::Plaintext { keys, addr: self.listen });
        }
        Ok(())
    }

    /// Binds the port and loads the certificate; nothing if it is not enabled.
    ///
    /// # Errors
    /// As [`check`](Self::check); the port is taken; a file cannot be used.
    pub fn bind(&self, keys: SyslogKeys, telemetry: &Telemetry) -> Result<Option<Intake>, IntakeError> {
        if !self.enabled {
            return Ok(None);
        }
        self.check(keys)?;
        let security = self.security().map_err(|source| IntakeError::Tls { key: keys.tls, source })?;
        match &security {
            Security::MutualTls(identity) => telemetry.watch_certificate(keys.name, identity.clone()),
            Security::Plain if self.is_exposed() => telemetry.insecure_mode(keys.insecure_plaintext),
            _ => {}
        }
        let listener = bind(keys.listen, self.listen)?;
        telemetry.watch_listener(keys.name, listener.stats());
        let metrics = IntakeMetrics::register(telemetry);
        Ok(Some(Intake { listener, security, keys, config: self.clone(), metrics }))
    }

    fn is_exposed(&self) -> bool {
        self.tls.is_none() && !self.listen.ip().to_canonical().is_loopback()
    }

    fn security(&self) -> Result<Security, TlsError> {
        Ok(match self.tls.clone() {
            None => Security::Plain,
            Some(SyslogTls { cert, key, ca: Some(ca) }) => {
                Security::MutualTls(Identity::load(&TlsFiles { cert, key, ca })?)
            }
            Some(SyslogTls { cert, key, ca: None }) => {
                Security::OneWayTls(ServerIdentity::load(&ServerFiles { cert, key })?)
            }
        })
    }
}

impl Intake {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Takes messages into `node` until `stop`, then what has arrived by then, and returns. A connection that brings on and on is left
    /// after a second.
    pub async fn serve(self, node: Node, stop: CancellationToken) {
        let Self { listener, security, keys, config, metrics } = self;
        let tracker = TaskTracker::new();
        match &security {
            Security::MutualTls(identity) => identity.watch(keys.tls, &tracker, stop.clone()),
            Security::OneWayTls(identity) => drop(tracker.spawn(identity.clone().watch(keys.tls, stop.clone()))),
            _ => {}
        }
        let places = Arc::new(Semaphore::new(config.max_connections.get().min(Semaphore::MAX_PERMITS)));
        let mut incoming = listener.incoming(security, &tracker, stop.clone());
        while let Some(conn) = incoming.next().await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                metrics.ended(Ended::TooMany);
                continue;
            };
            let span = info_span!("syslog", remote = %conn.info().remote_addr);
            let connection = Connection::new(conn, &config, node.clone(), metrics.clone());
            let stop = stop.clone();
            let serve = async move {
                connection.serve(&stop).await;
                drop(place);
            };
            tracker.spawn(serve.instrument(span));
        }
        tracker.close();
        tracker.wait().await;
    }
}
