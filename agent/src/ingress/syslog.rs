//! Syslog over TCP, TLS and UDP: what other machines' daemons and this one's forward.
//!
//! What enters: connections and datagrams. What leaves: logs, a batch for each reading. A sender that breaks the rules costs its own
//! messages or its own connection. None waits for a doppler.

mod connection;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proto::reason::Reason;
use telemetry::{Telemetry, Throttle};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span, warn};
use transport::{BindError, Identity, Listener, Security, ServerFiles, ServerIdentity, TlsError, TlsFiles, bind};

use super::Intake;
use super::datagrams::{Datagrams, Front, MAX_DATAGRAM, Udp};
use crate::gather::Gather;
use crate::syslog::{Clock, Maker, SyslogConfig, SyslogProtocol, SyslogTls};
use connection::Connection;
pub(crate) use metrics::SyslogMetrics;

mod metrics;

const LISTEN: &str = "agent.syslog.listen";
const TLS: &str = "agent.syslog.tls";

/// Bytes of a message shown in a warning.
const SHOWN: usize = 100;

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// Why syslog cannot be listened for.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// The address.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The certificate.
    #[error("{TLS}: {0}")]
    Tls(#[from] TlsError),
    /// Plain text on an address that others reach.
    #[error(
        "{LISTEN}: {0} can be reached from outside, and tls is not set; set it, listen on loopback, or say insecure_plaintext = true"
    )]
    Plaintext(SocketAddr),
    /// TLS over datagrams.
    #[error("{TLS}: there is no TLS over UDP; take tls away, or listen over TCP")]
    UdpTls,
}

/// One syslog front, bound.
#[derive(Debug)]
pub(crate) enum Syslog {
    Udp(Box<(Datagrams, Messages)>),
    Tcp(Box<Stream>),
}

/// A front for connections.
#[derive(Debug)]
pub(crate) struct Stream {
    listener: Listener,
    security: Security,
    config: SyslogConfig,
    intake: Intake,
    metrics: SyslogMetrics,
}

impl Syslog {
    /// Binds the socket and loads the certificate. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`SyslogError`].
    pub(crate) fn bind(
        config: &SyslogConfig,
        telemetry: &Telemetry,
        intake: &Intake,
        metrics: &SyslogMetrics,
    ) -> Result<Self, SyslogError> {
        check(config)?;
        if config.tls.is_none() && is_exposed(config) {
            telemetry.insecure_mode("agent.syslog.insecure_plaintext");
        }
        if config.protocol == SyslogProtocol::Udp {
            let udp = Udp {
                name: "syslog",
                listen_key: LISTEN,
                buffer_key: "agent.syslog.receive_buffer_bytes",
                listen: config.listen,
                receive_buffer_bytes: config.receive_buffer_bytes.get(),
                shared: false,
            };
            let datagrams = Datagrams::udp(udp, telemetry, intake.clone())?;
            let messages = Messages::new(config, intake.clone(), metrics.clone());
            return Ok(Self::Udp(Box::new((datagrams, messages))));
        }
        let security = security(config)?;
        if let Security::MutualTls(identity) = &security {
            telemetry.watch_certificate("agent_syslog", identity.clone());
        }
        let listener = bind(LISTEN, config.listen)?;
        telemetry.watch_listener("agent_syslog", listener.stats());
        let stream =
            Stream { listener, security, config: config.clone(), intake: intake.clone(), metrics: metrics.clone() };
        Ok(Self::Tcp(Box::new(stream)))
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(udp) => udp.0.addr(),
            Self::Tcp(stream) => Some(stream.listener.addr()),
        }
    }

    /// Reads until `stop`, then what has arrived by then.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        match self {
            Self::Udp(udp) => {
                let (datagrams, mut messages) = *udp;
                datagrams.serve(&mut messages, stop).await;
            }
            Self::Tcp(stream) => stream.serve(stop).await,
        }
    }
}

/// Looks at what can be seen without opening a file or a port.
///
/// # Errors
/// It would take plain text from other machines and does not say that it should, or asks for TLS over UDP.
pub(crate) fn check(config: &SyslogConfig) -> Result<(), SyslogError> {
    if config.tls.is_some() && config.protocol == SyslogProtocol::Udp {
        return Err(SyslogError::UdpTls);
    }
    if config.tls.is_none() && is_exposed(config) && !config.insecure_plaintext {
        return Err(SyslogError::Plaintext(config.listen));
    }
    Ok(())
}

fn is_exposed(config: &SyslogConfig) -> bool {
    !config.listen.ip().to_canonical().is_loopback()
}

fn security(config: &SyslogConfig) -> Result<Security, TlsError> {
    Ok(match config.tls.clone() {
        None => Security::Plain,
        Some(SyslogTls { cert, key, ca: Some(ca) }) => {
            Security::MutualTls(Identity::load(&TlsFiles { cert, key, ca })?)
        }
        Some(SyslogTls { cert, key, ca: None }) => {
            Security::OneWayTls(ServerIdentity::load(&ServerFiles { cert, key })?)
        }
    })
}

impl Stream {
    async fn serve(self, stop: CancellationToken) {
        let Self { listener, security, config, intake, metrics } = self;
        let tracker = TaskTracker::new();
        match &security {
            Security::MutualTls(identity) => identity.watch(TLS, &tracker, stop.clone()),
            Security::OneWayTls(identity) => drop(tracker.spawn(identity.clone().watch(TLS, stop.clone()))),
            _ => {}
        }
        let places = Arc::new(Semaphore::new(config.max_connections.get().min(Semaphore::MAX_PERMITS)));
        let mut incoming = listener.incoming(security, &tracker, stop.clone());
        while let Some(conn) = incoming.next().await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                metrics.refused_connections.increment(1);
                warn_too_many(config.max_connections.get());
                continue;
            };
            let remote = conn.info().remote_addr;
            let messages = Messages::new(&config, intake.clone(), metrics.clone());
            let connection = Connection::new(conn, remote.ip(), &config, messages);
            let (stop, metrics) = (stop.clone(), metrics.clone());
            let serve = async move {
                metrics.connections.increment(1.0);
                connection.serve(&stop).await;
                metrics.connections.decrement(1.0);
                drop(place);
            };
            tracker.spawn(serve.instrument(info_span!("syslog", %remote)));
        }
        tracker.close();
        tracker.wait().await;
    }
}

fn warn_too_many(limit: usize) {
    static MANY: Throttle = Throttle::every(QUIET);
    if let Some(suppressed) = MANY.pass() {
        warn!(limit, suppressed, "Syslog connection refused; raise agent.syslog.max_connections");
    }
}

/// What becomes of the messages of one socket.
#[derive(Debug)]
pub(crate) struct Messages {
    maker: Maker,
    gather: Gather,
    intake: Intake,
    metrics: SyslogMetrics,
    max_message_bytes: usize,
    /// How far this machine's clock is ahead of UTC, and until when that is taken for true.
    offset: (i32, Instant),
}

impl Messages {
    fn new(config: &SyslogConfig, intake: Intake, metrics: SyslogMetrics) -> Self {
        Self {
            maker: Maker::new(config.source_id.clone()),
            gather: Gather::default(),
            intake,
            metrics,
            max_message_bytes: config.max_message_bytes.get(),
            offset: (0, Instant::now()),
        }
    }

    /// Takes a message that came from `from`.
    fn take(&mut self, message: &[u8], from: IpAddr, now_ns: i64) {
        let clock = Clock { now_ns, offset_seconds: self.offset_seconds() };
        if !self.maker.put(message, from, clock, &mut self.gather) {
            self.metrics.unparsed.increment(1);
            warn_of(message, "it is neither RFC 5424 nor RFC 3164; taken as it stands");
        }
        if self.gather.is_full() {
            self.hand_over();
        }
    }

    /// Counts a message that was passed over.
    fn refuse(&mut self, reason: Reason) {
        self.gather.refuse(reason);
    }

    /// Counts a message whose end did not come.
    fn lost_within(&self) {
        self.intake.lost(Reason::PeerLost, 1);
    }

    fn hand_over(&mut self) {
        self.gather.take().into_iter().for_each(|batch| self.intake.take(batch));
    }

    fn offset_seconds(&mut self) -> i32 {
        let now = Instant::now();
        if now >= self.offset.1 {
            let seconds = TimeZone::system().to_offset(Timestamp::now()).seconds();
            self.offset = (seconds, now + Duration::from_secs(60));
        }
        self.offset.0
    }
}

impl Front for Messages {
    fn datagram(&mut self, datagram: &[u8], from: Option<IpAddr>, now_ns: i64) {
        if datagram.len() > MAX_DATAGRAM.min(self.max_message_bytes) {
            warn_of(datagram, "it is longer than agent.syslog.max_message_bytes, or was truncated");
            return self.refuse(Reason::Oversize);
        }
        self.take(datagram, from.unwrap_or(IpAddr::from([127, 0, 0, 1])), now_ns);
    }

    fn flush(&mut self) {
        self.hand_over();
    }
}

fn warn_of(message: &[u8], why: &str) {
    static ODD: Throttle = Throttle::every(QUIET);
    if let Some(suppressed) = ODD.pass() {
        let shown = message[..message.len().min(SHOWN)].escape_ascii();
        warn!(message = %shown, why, suppressed, "Syslog message is odd");
    }
}
