//! statsd over UDP: one socket, read in bulk (contract: agents §9).
//!
//! What enters: datagrams. What leaves: a batch for each round of reading. What the kernel had to drop is counted with the next
//! datagram it delivers. No datagram and no error of the socket ends the loop.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, recvmmsg, setsockopt, sockopt};
use proto::reason::Reason;
use socket2::{Domain, Protocol, Socket, Type};
use telemetry::Throttle;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::{Backoff, BindError};

use super::Intake;
use crate::config::StatsdConfig;
use crate::statsd::{Aggregator, Collector, LineError, MAX_DATAGRAM};

/// Datagrams read by one call.
const ROUND: usize = 64;

/// Room for one datagram, and one byte more: what fills it all was too large and is cut.
const ROOM: usize = MAX_DATAGRAM + 1;

/// What even an empty datagram costs of the kernel's receive buffer, at the least.
const KERNEL_COST: usize = 256;

/// Bytes of a line shown in a warning.
const SHOWN: usize = 100;

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// The statsd front, bound.
#[derive(Debug)]
pub(crate) struct Statsd {
    socket: UdpSocket,
    addr: SocketAddr,
    /// Rounds that empty the kernel's receive buffer, however full.
    buffered_rounds: usize,
    reader: Reader,
    intake: Intake,
}

impl Statsd {
    /// Binds the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken or needs rights that this process lacks, or the address is none of this machine.
    pub(crate) fn bind(config: &StatsdConfig, intake: Intake) -> Result<Self, BindError> {
        let asked = config.receive_buffer_bytes.get();
        let open = || -> io::Result<(UdpSocket, SocketAddr, usize)> {
            let socket = Socket::new(Domain::for_address(config.listen), Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            socket.set_recv_buffer_size(asked.min(i32::MAX as usize))?;
            setsockopt(&socket, sockopt::RxqOvfl, &1)?;
            socket.bind(&config.listen.into())?;
            // Linux tells twice what may be used, for its own book-keeping.
            let granted = socket.recv_buffer_size()?;
            let socket = UdpSocket::from_std(socket.into())?;
            let addr = socket.local_addr()?;
            Ok((socket, addr, granted))
        };
        let (socket, addr, granted) =
            open().map_err(|source| BindError::new("agent.statsd.listen", config.listen, source))?;
        let usable = granted / 2;
        if usable < asked {
            info!(%addr, asked, granted = usable, "statsd socket bound with a smaller receive buffer: net.core.rmem_max limits it");
        } else {
            info!(%addr, granted = usable, "statsd socket bound");
        }
        let reader = Reader::new(Collector::new(Aggregator::new(config.max_series)));
        Ok(Self { socket, addr, buffered_rounds: granted / KERNEL_COST / ROUND + 1, reader, intake })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Reads until `stop`, then what the kernel holds at that time.
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        static UNREADABLE: Throttle = Throttle::every(QUIET);
        let mut backoff = Backoff::between(Duration::from_millis(10), Duration::from_secs(1), Backoff::random_seed());
        while let Some(round) = stop.run_until_cancelled(self.round()).await {
            match round {
                Ok(ROUND) => {
                    backoff.reset();
                    // More is there: let others in between.
                    tokio::task::yield_now().await;
                }
                Ok(_) => backoff.reset(),
                Err(error) => {
                    if let Some(suppressed) = UNREADABLE.pass() {
                        warn!(%error, suppressed, "statsd socket cannot be read; trying again");
                    }
                    stop.run_until_cancelled(tokio::time::sleep(backoff.next_wait())).await;
                }
            }
        }
        self.finish().await;
    }

    /// Waits for datagrams and reads a round of them.
    ///
    /// # Cancel safety
    /// Nothing is read before the wait is over, and what is read is put to the ring without waiting.
    async fn round(&mut self) -> io::Result<usize> {
        self.socket.async_io(Interest::READABLE, || self.reader.read(&self.socket, &self.intake)).await
    }

    /// Empties the kernel's receive buffer. Who goes on sending does not keep it from ending.
    async fn finish(mut self) {
        for _ in 0..self.buffered_rounds {
            match self.reader.read(&self.socket, &self.intake) {
                Ok(_) => tokio::task::yield_now().await,
                Err(_nothing_left) => return,
            }
        }
    }
}

/// Reads rounds of datagrams.
#[derive(Debug)]
struct Reader {
    /// [`ROUND`] times [`ROOM`]. The kernel backs with memory only what datagrams have filled.
    buffer: Vec<u8>,
    collector: Collector,
    /// What the kernel's count of dropped datagrams was last; it wraps.
    overflow: u32,
}

impl Reader {
    fn new(collector: Collector) -> Self {
        Self { buffer: vec![0; ROUND * ROOM], collector, overflow: 0 }
    }

    /// Reads what is there, a round at most, and puts it to the ring: usually as one batch. Returns how many datagrams it read.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; else the socket's.
    fn read(&mut self, socket: &UdpSocket, intake: &Intake) -> io::Result<usize> {
        let mut rooms = self.buffer.chunks_exact_mut(ROOM);
        let mut slices: [_; ROUND] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().expect("the buffer has a room for each datagram"))]);
        // Not kept: a delivery without an overflow count takes the room for one away from its header.
        let mut headers = MultiHeaders::<()>::preallocate(ROUND, Some(cmsg_space!(u32)));
        let messages = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None)?;

        let now_ns = now_ns();
        let (mut read, mut bad_lines, mut overflow) = (0, 0, self.overflow);
        for message in messages {
            read += 1;
            for control in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::RxqOvfl(count) = control {
                    overflow = count;
                }
            }
            let datagram = message.iovs().next().unwrap_or_default();
            self.collector.add(datagram, now_ns, |line, error| {
                bad_lines += 1;
                warn_of(line, error);
            });
            if self.collector.is_full() {
                self.collector.take().into_iter().for_each(|batch| intake.take(batch));
            }
        }
        self.collector.take().into_iter().for_each(|batch| intake.take(batch));
        intake.metrics.statsd_datagrams.increment(read as u64);
        intake.metrics.statsd_bad_lines.increment(bad_lines);
        count_overflow(intake, overflow.wrapping_sub(self.overflow));
        self.overflow = overflow;
        Ok(read)
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Counts datagrams that the kernel had no room for. Each counts as one envelope: nobody knows what was in it.
fn count_overflow(intake: &Intake, datagrams: u32) {
    static OVERFLOW: Throttle = Throttle::every(QUIET);
    if datagrams == 0 {
        return;
    }
    let count = u64::from(datagrams);
    intake.metrics.statsd_kernel_drops.increment(count);
    intake.metrics.stage.received(count);
    intake.metrics.stage.dropped(Reason::KernelRcvbuf.as_str(), count);
    if let Some(suppressed) = OVERFLOW.pass() {
        warn!(
            datagrams,
            suppressed,
            "Kernel dropped statsd datagrams; raise agent.statsd.receive_buffer_bytes, and net.core.rmem_max with it"
        );
    }
}

fn warn_of(line: &[u8], error: LineError) {
    static BAD_LINE: Throttle = Throttle::every(QUIET);
    if let Some(suppressed) = BAD_LINE.pass() {
        let shown = line[..line.len().min(SHOWN)].escape_ascii();
        warn!(line = %shown, %error, suppressed, "statsd line dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};
    use std::num::NonZeroUsize;

    use diode::fair;
    use telemetry::Telemetry;

    use super::*;
    use crate::config::TagsConfig;
    use crate::metrics::Metrics;
    use crate::parcel::Parcel;
    use crate::tag::Tagger;

    struct Fixture {
        statsd: Statsd,
        ring: fair::Reader<Parcel>,
        telemetry: Telemetry,
        client: UdpSocket,
    }

    fn fixture(receive_buffer_bytes: usize) -> Fixture {
        let telemetry = Telemetry::default();
        let some = |value| NonZeroUsize::new(value).unwrap();
        let (writer, ring) = fair::channel(fair::Bounds { envelopes: some(200_000), bytes: some(64 << 20) });
        let intake =
            Intake::new(Tagger::new(&TagsConfig::default()), writer, Metrics::register(&telemetry), &telemetry);
        let config = StatsdConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            receive_buffer_bytes: some(receive_buffer_bytes),
            ..StatsdConfig::default()
        };
        let statsd = Statsd::bind(&config, intake.of(&telemetry, "statsd")).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(statsd.addr()).unwrap();
        Fixture { statsd, ring, telemetry, client }
    }

    impl Fixture {
        /// Sends over loopback: the datagram is in the receive buffer, or dropped, when this returns.
        fn send(&self, datagram: impl AsRef<[u8]>) {
            self.client.send(datagram.as_ref()).unwrap();
        }

        fn metric(&self, series: &str) -> u64 {
            let text = self.telemetry.render();
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("{series} is missing from\n{text}")).parse().unwrap()
        }

        fn dropped(&self, reason: &str) -> u64 {
            self.metric(&format!("hydrant_dropped_envelopes_total{{stage=\"agent\",reason=\"{reason}\"}}"))
        }

        fn received(&self) -> u64 {
            self.metric("hydrant_received_envelopes_total{stage=\"agent\"}")
        }

        /// Reads all there is; returns how many datagrams that was.
        fn read(&mut self) -> u64 {
            let mut read = 0;
            loop {
                match self.statsd.reader.read(&self.statsd.socket, &self.statsd.intake) {
                    Ok(more) => read += more as u64,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        return read;
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_stop_reads_what_the_kernel_still_holds() {
        let fixture = fixture(1 << 20);
        for i in 0..100 {
            fixture.send(format!("shop.orders:{i}|c\n"));
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let Fixture { statsd, mut ring, .. } = fixture;
        statsd.serve(stop).await;
        let mut parcels = Vec::new();
        while let Ok(parcel) = ring.try_recv() {
            parcels.push(parcel.selection.len());
        }
        assert_eq!(parcels, [64, 36], "a batch for each round");
    }

    #[tokio::test]
    async fn datagrams_that_the_kernel_dropped_are_counted_once() {
        let mut fixture = fixture(1);
        for lap in 1..=3 {
            let (read_before, dropped_before) =
                (fixture.metric("hydrant_statsd_datagrams_total"), fixture.dropped("kernel_rcvbuf"));
            for _ in 0..200 {
                fixture.send("shop.orders:1|c");
            }
            let mut read = fixture.read();
            assert!(read < 200, "lap {lap}: 200 datagrams do not fit into the smallest buffer");
            // The kernel tells with the next one.
            fixture.send("shop.orders:1|c");
            read += fixture.read();
            assert_eq!(fixture.metric("hydrant_statsd_datagrams_total"), read_before + read, "lap {lap}");
            assert_eq!(fixture.dropped("kernel_rcvbuf"), dropped_before + 201 - read, "lap {lap}");
            assert_eq!(fixture.metric("hydrant_statsd_kernel_drops_total"), fixture.dropped("kernel_rcvbuf"));
            assert_eq!(fixture.received(), lap * 201, "lap {lap}");
        }
    }

    #[tokio::test]
    async fn bad_lines_are_counted_and_cost_the_good_ones_nothing() {
        let mut fixture = fixture(1 << 20);
        fixture.send(b"a.good:1|c\nnope\na.tag:1|g|#bare\n\xff\xfe\n");
        fixture.send([]);
        fixture.send(vec![b'x'; MAX_DATAGRAM]);
        fixture.send(format!("a.{}:1|c", "n".repeat(513)));
        fixture.send("a.last:1|ms");
        assert_eq!(fixture.read(), 5);
        assert_eq!(fixture.metric("hydrant_statsd_datagrams_total"), 5);
        assert_eq!(fixture.metric("hydrant_statsd_bad_lines_total"), 5);
        assert_eq!((fixture.dropped("decode_error"), fixture.dropped("oversize")), (4, 1));
        assert_eq!(fixture.received(), 7);
        let parcel = fixture.ring.try_recv().unwrap();
        assert_eq!(parcel.selection.len(), 2);
    }

    #[tokio::test]
    async fn a_round_of_full_datagrams_leaves_in_batches_that_every_hop_takes() {
        let mut fixture = fixture(8 << 20);
        let thousand = "a.b:1|c\n".repeat(1_001);
        let mut sent = 0;
        for _ in 0..24 {
            fixture.send(&thousand);
            sent += 1;
        }
        let read = fixture.read();
        let mut envelopes = 0;
        while let Ok(parcel) = fixture.ring.try_recv() {
            assert!(parcel.selection.len() <= 10_000);
            envelopes += parcel.selection.len() as u64;
        }
        assert_eq!((envelopes, fixture.dropped("too_many")), (read * 1_000, read));
        assert!(read > 10 && read <= sent, "more lines than one batch may have, {read} datagrams");
    }

    #[tokio::test]
    async fn a_busy_port_is_named() {
        let first = fixture(1 << 20);
        let config = StatsdConfig { listen: first.statsd.addr(), ..StatsdConfig::default() };
        let error = Statsd::bind(&config, first.statsd.intake).unwrap_err().to_string();
        assert!(error.starts_with("agent.statsd.listen: ") && error.contains("already in use"), "{error}");
    }
}
