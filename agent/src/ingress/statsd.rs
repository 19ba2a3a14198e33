//! statsd over UDP and Unix datagram sockets (contract: agents §9).
//!
//! What enters: datagrams. What leaves: a batch for each round of reading, and at every flush what was summed up. Sockets share one
//! state, so that it does not matter which of them a line comes by. No line costs another one anything.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use telemetry::{Telemetry, Throttle};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span, warn};
use transport::BindError;

use super::datagrams::{Datagrams, Front, Udp};
use super::unix::{self, Removed, UnixSocketError};
use super::{Intake, now_ns};
use crate::statsd::{Collector, LineError, Settings, State, StatsdConfig};

/// Bytes of a line shown in a warning.
const SHOWN: usize = 100;

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(10);

/// The most sockets that share a port.
const MAX_SOCKETS: usize = 64;

/// Why statsd cannot be listened for.
#[derive(Debug, thiserror::Error)]
pub enum StatsdError {
    /// The port.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The Unix socket.
    #[error(transparent)]
    Unix(#[from] UnixSocketError),
    /// More than are of use.
    #[error("agent.statsd.sockets: {0} is more than {MAX_SOCKETS}")]
    Sockets(NonZeroUsize),
}

/// The statsd front, bound.
#[derive(Debug)]
pub(crate) struct Statsd {
    sockets: Vec<Datagrams>,
    /// Of the Unix socket.
    removed: Option<Removed>,
    state: Arc<State>,
    flush_interval: Duration,
    intake: Intake,
    losses: Losses,
}

/// What becomes of the datagrams of one socket.
#[derive(Debug)]
struct Lines {
    collector: Collector,
    intake: Intake,
}

/// What series lost.
#[derive(Debug)]
struct Losses {
    forgotten: Counter,
    not_kept: Counter,
}

impl Statsd {
    /// Binds the sockets. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken or needs rights that this process lacks, the address is none of this machine, or the path is taken.
    pub(crate) fn bind(config: &StatsdConfig, telemetry: &Telemetry, intake: &Intake) -> Result<Self, StatsdError> {
        let intake = intake.of(telemetry, "statsd");
        let losses = Losses {
            forgotten: telemetry.counter(
                "hydrant_statsd_forgotten_series_total",
                "Series that were told and forgotten before they were due, as others came.",
                &[],
            ),
            not_kept: telemetry.counter(
                "hydrant_statsd_values_not_kept_total",
                "Values of timers and members of sets that were beyond what is kept of a series.",
                &[],
            ),
        };
        if config.sockets.get() > MAX_SOCKETS {
            return Err(StatsdError::Sockets(config.sockets));
        }
        let receive_buffer_bytes = config.receive_buffer_bytes.get();
        let mut udp = Udp {
            name: "statsd",
            listen_key: "agent.statsd.listen",
            buffer_key: "agent.statsd.receive_buffer_bytes",
            listen: config.listen,
            receive_buffer_bytes,
            shared: config.sockets.get() > 1,
        };
        let mut sockets = Vec::new();
        for _ in 0..config.sockets.get() {
            let socket = Datagrams::udp(udp, telemetry, intake.clone())?;
            // Where the first was given any port, the others take the same.
            udp.listen = socket.addr().unwrap_or(udp.listen);
            sockets.push(socket);
        }
        let mut removed = None;
        if let Some(path) = &config.unix {
            let key = "agent.statsd.unix";
            let (socket, remove) = unix::bind(key, path, config.unix_mode, receive_buffer_bytes)?;
            let failed = |source| UnixSocketError::Bind { key, path: path.clone(), source };
            sockets.push(Datagrams::unix(socket, "statsd", telemetry, intake.clone()).map_err(failed)?);
            removed = Some(remove);
        }
        let state = State::new(Settings::from(config), NonZeroUsize::new(sockets.len()).unwrap_or(NonZeroUsize::MIN));
        Ok(Self { sockets, removed, state, flush_interval: config.flush_interval, intake, losses })
    }

    /// Where it listens over UDP.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.sockets.first().and_then(Datagrams::addr)
    }

    /// Reads until `stop`, then what the kernel holds at that time; tells what is summed up at every interval and at the end.
    pub(crate) fn spawn(self, tasks: &TaskTracker, stop: &CancellationToken) {
        let Self { sockets, removed, state, flush_interval, intake, losses } = self;
        let lines = |intake: Intake| Lines { collector: Collector::new(Arc::clone(&state)), intake };
        let readers: Vec<_> = sockets
            .into_iter()
            .map(|socket| {
                let (mut lines, stop) = (lines(intake.clone()), stop.clone());
                let reading = async move { socket.serve(&mut lines, stop).await };
                tasks.spawn(reading.instrument(info_span!("statsd")))
            })
            .collect();
        let (mut lines, stop) = (lines(intake), stop.clone());
        tasks.spawn(async move {
            let mut tick = interval_at(Instant::now() + flush_interval, flush_interval);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                lines.tell(&losses, &state);
            }
            for reader in readers {
                // One that panicked has said so.
                let _ended = reader.await;
            }
            lines.tell(&losses, &state);
            drop(removed);
        });
    }
}

impl Lines {
    /// Tells what has been summed up.
    fn tell(&mut self, losses: &Losses, state: &State) {
        let intake = &self.intake;
        self.collector.flush(now_ns(), |batch| intake.take(batch));
        let (forgotten, not_kept) = state.take_losses();
        losses.forgotten.increment(forgotten);
        losses.not_kept.increment(not_kept);
    }
}

impl Front for Lines {
    fn datagram(&mut self, datagram: &[u8], _from: Option<IpAddr>, now_ns: i64) {
        self.collector.add(datagram, now_ns, warn_of);
        if self.collector.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.collector.take().into_iter().for_each(|batch| self.intake.take(batch));
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
    use std::io;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::num::NonZeroUsize;

    use diode::fair;

    use super::*;
    use crate::config::TagsConfig;
    use crate::metrics::Metrics;
    use crate::parcel::Parcel;
    use crate::statsd::MAX_DATAGRAM;
    use crate::tag::Tagger;

    struct Fixture {
        socket: Datagrams,
        lines: Lines,
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
        let mut statsd = Statsd::bind(&config, &telemetry, &intake).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(statsd.addr().unwrap()).unwrap();
        let lines = Lines { collector: Collector::new(statsd.state), intake: statsd.intake };
        Fixture { socket: statsd.sockets.remove(0), lines, ring, telemetry, client }
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
                match self.socket.read_now(&mut self.lines) {
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
        let Fixture { socket, mut lines, mut ring, .. } = fixture;
        socket.serve(&mut lines, stop).await;
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
                (fixture.metric("hydrant_source_datagrams_total{source=\"statsd\"}"), fixture.dropped("kernel_rcvbuf"));
            for _ in 0..200 {
                fixture.send("shop.orders:1|c");
            }
            let mut read = fixture.read();
            assert!(read < 200, "lap {lap}: 200 datagrams do not fit into the smallest buffer");
            // The kernel tells with the next one.
            fixture.send("shop.orders:1|c");
            read += fixture.read();
            assert_eq!(
                fixture.metric("hydrant_source_datagrams_total{source=\"statsd\"}"),
                read_before + read,
                "lap {lap}"
            );
            assert_eq!(fixture.dropped("kernel_rcvbuf"), dropped_before + 201 - read, "lap {lap}");
            assert_eq!(
                fixture.metric("hydrant_source_kernel_drops_total{source=\"statsd\"}"),
                fixture.dropped("kernel_rcvbuf")
            );
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
        assert_eq!(fixture.metric("hydrant_source_datagrams_total{source=\"statsd\"}"), 5);
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
        let config = StatsdConfig { listen: first.socket.addr().unwrap(), ..StatsdConfig::default() };
        let error = Statsd::bind(&config, &first.telemetry, &first.lines.intake).unwrap_err().to_string();
        assert!(error.starts_with("agent.statsd.listen: ") && error.contains("already in use"), "{error}");
    }
}
