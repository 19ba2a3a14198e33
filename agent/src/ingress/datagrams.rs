//! Datagrams, read in bulk: one socket for a front that makes envelopes of them.
//!
//! What enters: datagrams over UDP or a Unix socket. What leaves: each of them, handed to a [`Front`], and how many the kernel had no
//! room for. No datagram and no error of the socket ends the loop.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};
use proto::reason::Reason;
use socket2::{Domain, Protocol, Type};
use telemetry::{Telemetry, Throttle};
use tokio::io::Interest;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::{Backoff, BindError};

use super::{Intake, now_ns};
use crate::metrics::DatagramMetrics;

/// Bytes of one datagram: the most that UDP over IPv4 carries. A larger one is cut and handed on as such.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

/// Datagrams read by one call.
pub(crate) const ROUND: usize = 64;

/// Room for one datagram, and one byte more: what fills it all was too large and is cut.
const ROOM: usize = MAX_DATAGRAM + 1;

/// What even an empty datagram costs of the kernel's receive buffer, at the least.
const KERNEL_COST: usize = 256;

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// Makes envelopes of datagrams.
pub(crate) trait Front {
    /// Takes one, which arrived from there at `now_ns` nanoseconds since the Unix epoch. Longer than [`MAX_DATAGRAM`]: the rest of it is
    /// lost.
    fn datagram(&mut self, datagram: &[u8], from: Option<IpAddr>, now_ns: i64);

    /// Hands over what has been made, as nothing more is there for the moment.
    fn flush(&mut self);
}

/// A socket that datagrams come to, bound.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: Socket,
    /// What the source is called in the log and in the metrics.
    name: &'static str,
    /// The key to raise when the kernel drops.
    buffer_key: &'static str,
    /// Rounds that empty the kernel's receive buffer, however full.
    buffered_rounds: usize,
    /// [`ROUND`] times [`ROOM`]. The kernel backs with memory only what datagrams have filled.
    buffer: Vec<u8>,
    /// What the kernel's count of dropped datagrams was last; it wraps.
    overflow: u32,
    intake: Intake,
    metrics: DatagramMetrics,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

/// A UDP socket as a source asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Udp {
    pub(crate) name: &'static str,
    /// The keys of address and receive buffer.
    pub(crate) listen_key: &'static str,
    pub(crate) buffer_key: &'static str,
    pub(crate) listen: SocketAddr,
    pub(crate) receive_buffer_bytes: usize,
    /// Whether others may listen there too, and share what comes.
    pub(crate) shared: bool,
}

impl Datagrams {
    /// Binds a UDP socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken or needs rights that this process lacks, or the address is none of this machine.
    pub(crate) fn udp(udp: Udp, telemetry: &Telemetry, intake: Intake) -> Result<Self, BindError> {
        let Udp { name, listen_key, buffer_key, listen, receive_buffer_bytes: asked, shared } = udp;
        let open = || -> io::Result<(UdpSocket, usize)> {
            let socket = socket2::Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_port(shared)?;
            socket.set_recv_buffer_size(asked.min(i32::MAX as usize))?;
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            socket.bind(&listen.into())?;
            let granted = socket.recv_buffer_size()?;
            Ok((UdpSocket::from_std(socket.into())?, granted))
        };
        let (socket, granted) = open().map_err(|source| BindError::new(listen_key, listen, source))?;
        let addr = socket.local_addr().map_err(|source| BindError::new(listen_key, listen, source))?;
        // Linux tells twice what may be used, for its own book-keeping.
        let usable = granted / 2;
        if usable < asked {
            info!(source = name, %addr, asked, granted = usable, "UDP socket bound with a smaller receive buffer: net.core.rmem_max limits it");
        } else {
            info!(source = name, %addr, granted = usable, "UDP socket bound");
        }
        Ok(Self::new(Socket::Udp(socket), granted, name, buffer_key, telemetry, intake))
    }

    /// Reads a Unix socket that is bound. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot wait for it.
    pub(crate) fn unix(
        socket: socket2::Socket,
        name: &'static str,
        telemetry: &Telemetry,
        intake: Intake,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let granted = socket.recv_buffer_size()?;
        let socket = UnixDatagram::from_std(socket.into())?;
        Ok(Self::new(Socket::Unix(socket), granted, name, "", telemetry, intake))
    }

    fn new(
        socket: Socket,
        granted: usize,
        name: &'static str,
        buffer_key: &'static str,
        telemetry: &Telemetry,
        intake: Intake,
    ) -> Self {
        Self {
            socket,
            name,
            buffer_key,
            buffered_rounds: granted / KERNEL_COST / ROUND + 1,
            buffer: vec![0; ROUND * ROOM],
            overflow: 0,
            intake,
            metrics: DatagramMetrics::register(telemetry, name),
        }
    }

    /// Where it listens; nothing for a Unix socket.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Udp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Reads until `stop`, then what the kernel holds at that time.
    pub(crate) async fn serve(mut self, front: &mut impl Front, stop: CancellationToken) {
        static UNREADABLE: Throttle = Throttle::every(QUIET);
        let mut backoff = Backoff::between(Duration::from_millis(10), Duration::from_secs(1), Backoff::random_seed());
        while let Some(round) = stop.run_until_cancelled(self.round(front)).await {
            match round {
                Ok(ROUND) => {
                    backoff.reset();
                    // More is there: let others in between.
                    tokio::task::yield_now().await;
                }
                Ok(_) => backoff.reset(),
                Err(error) => {
                    if let Some(suppressed) = UNREADABLE.pass() {
                        warn!(source = self.name, %error, suppressed, "Socket cannot be read; trying again");
                    }
                    stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
                }
            }
        }
        self.finish(front).await;
    }

    /// Waits for datagrams and reads a round of them.
    ///
    /// # Cancel safety
    /// Nothing is read before the wait is over, and what is read is handed on without waiting.
    pub(crate) async fn round(&mut self, front: &mut impl Front) -> io::Result<usize> {
        let Self { socket, buffer, overflow, intake, metrics, name, buffer_key, .. } = self;
        let mut read = |fd| {
            let round = read(fd, buffer, *overflow, front)?;
            tell(&round, *overflow, intake, metrics, (name, buffer_key));
            *overflow = round.overflow;
            Ok(round.read)
        };
        match socket {
            Socket::Udp(socket) => socket.async_io(Interest::READABLE, || read(socket.as_raw_fd())).await,
            Socket::Unix(socket) => socket.async_io(Interest::READABLE, || read(socket.as_raw_fd())).await,
        }
    }

    /// Empties the kernel's receive buffer. Who goes on sending does not keep it from ending.
    async fn finish(mut self, front: &mut impl Front) {
        for _ in 0..self.buffered_rounds {
            match self.read_now(front) {
                Ok(_) => tokio::task::yield_now().await,
                Err(_nothing_left) => return,
            }
        }
    }

    /// Reads what is there, a round at most. Returns how many datagrams that was.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else the socket's.
    pub(crate) fn read_now(&mut self, front: &mut impl Front) -> io::Result<usize> {
        let fd = match &self.socket {
            Socket::Udp(socket) => socket.as_raw_fd(),
            Socket::Unix(socket) => socket.as_raw_fd(),
        };
        let round = read(fd, &mut self.buffer, self.overflow, front)?;
        tell(&round, self.overflow, &self.intake, &self.metrics, (self.name, self.buffer_key));
        self.overflow = round.overflow;
        Ok(round.read)
    }
}

struct Round {
    read: usize,
    overflow: u32,
}

fn read(fd: RawFd, buffer: &mut [u8], mut overflow: u32, front: &mut impl Front) -> io::Result<Round> {
    let mut rooms = buffer.chunks_exact_mut(ROOM);
    let mut slices: [_; ROUND] =
        std::array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("the buffer has a room for each datagram"))]);
    // Not kept: a delivery without an overflow count takes the room for one away from its header.
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(ROUND, Some(cmsg_space!(u32)));
    let messages = recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;
    let now_ns = now_ns();
    let mut read = 0;
    for message in messages {
        read += 1;
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::RxqOvfl(count) = control {
                overflow = count;
            }
        }
        let from = message.address.as_ref().and_then(ip_of);
        front.datagram(message.iovs().next().unwrap_or_default(), from, now_ns);
    }
    front.flush();
    Ok(Round { read, overflow })
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(address), _) => IpAddr::from(address.ip()),
        (_, Some(address)) => IpAddr::from(address.ip()),
        _ => return None,
    };
    Some(ip.to_canonical())
}

/// Counts a round. A datagram that the kernel had no room for counts as one envelope: nobody knows what was in it.
fn tell(round: &Round, before: u32, intake: &Intake, metrics: &DatagramMetrics, names: (&str, &str)) {
    static OVERFLOW: Throttle = Throttle::every(QUIET);
    metrics.datagrams.increment(round.read as u64);
    let datagrams = round.overflow.wrapping_sub(before);
    if datagrams == 0 {
        return;
    }
    let count = u64::from(datagrams);
    metrics.kernel_drops.increment(count);
    intake.metrics.stage.received(count);
    intake.metrics.stage.dropped(Reason::KernelRcvbuf.as_str(), count);
    if let Some(suppressed) = OVERFLOW.pass() {
        let (source, raise) = names;
        warn!(
            source,
            datagrams,
            raise,
            suppressed,
            "Kernel dropped datagrams; raise the key named here, and net.core.rmem_max with it"
        );
    }
}
