//! Dropsonde over UDP: v1 envelopes of programs that know no other (contract: agents §2.3, §6).
//!
//! What enters: datagrams. What leaves: a batch of v2 envelopes for each round of reading.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use telemetry::{Telemetry, Throttle};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use transport::BindError;

use super::Intake;
use super::datagrams::{Datagrams, Front, Udp};
use crate::config::Config;
use crate::dropsonde::{Converter, DatagramError};

/// Bytes of a datagram shown in a warning.
const SHOWN: usize = 100;

/// The dropsonde front, bound.
#[derive(Debug)]
pub(crate) struct Dropsonde {
    datagrams: Datagrams,
    envelopes: Envelopes,
}

/// What becomes of its datagrams.
#[derive(Debug)]
struct Envelopes {
    converter: Converter,
    intake: Intake,
}

impl Dropsonde {
    /// Binds the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The port is taken or needs rights that this process lacks, or the address is none of this machine.
    pub(crate) fn bind(config: &Config, telemetry: &Telemetry, intake: &Intake) -> Result<Self, BindError> {
        let intake = intake.of(telemetry, "dropsonde");
        let udp = Udp {
            name: "dropsonde",
            listen_key: "agent.dropsonde.listen",
            buffer_key: "agent.dropsonde.receive_buffer_bytes",
            listen: config.dropsonde.listen,
            receive_buffer_bytes: config.dropsonde.receive_buffer_bytes.get(),
            shared: false,
        };
        let datagrams = Datagrams::udp(udp, telemetry, intake.clone())?;
        Ok(Self { datagrams, envelopes: Envelopes { converter: Converter::new(&config.tags), intake } })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        self.datagrams.addr()
    }

    /// Reads until `stop`, then what the kernel holds at that time.
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        self.datagrams.serve(&mut self.envelopes, stop).await;
    }
}

impl Front for Envelopes {
    fn datagram(&mut self, datagram: &[u8], _from: Option<IpAddr>, _now_ns: i64) {
        if let Err(error) = self.converter.add(datagram) {
            warn_of(datagram, &error);
        }
        if self.converter.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.converter.take().into_iter().for_each(|batch| self.intake.take(batch));
    }
}

fn warn_of(datagram: &[u8], error: &DatagramError) {
    static BAD: Throttle = Throttle::every(Duration::from_secs(10));
    if let Some(suppressed) = BAD.pass() {
        let shown = datagram[..datagram.len().min(SHOWN)].escape_ascii();
        warn!(datagram = %shown, %error, suppressed, "Dropsonde datagram dropped");
    }
}
