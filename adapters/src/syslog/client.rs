//! One connection to a syslog receiver: opens, writes, and notices its end.
//!
//! Frames enter, bytes leave. Never retries, never drops: the caller decides what an [`End`] means for the lines written.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use transport::Address;

use self::datagrams::Datagrams;
use self::stream::Stream;
use super::config::Scheme;
use super::trust::Trust;
use super::window::Frame;

mod datagrams;
mod stream;

/// For name look-up, connecting and the TLS handshake together, and for each line of a write.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub struct Link(Kind);

#[derive(Debug)]
enum Kind {
    Stream(Stream),
    Datagrams(Datagrams),
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// In the orderly way.
    Closed,
    /// Reset, or silent for too long: what was written may be lost.
    Broken(io::Error),
}

impl Link {
    /// Connects to the first address of the name that answers, and over TLS shakes hands there with `trust`. Each gets an even share of
    /// the time that is left.
    ///
    /// # Errors
    /// No address, or none that answered within [`DEADLINE`] and whose handshake succeeded. The text says what was wrong with the last.
    pub async fn open(scheme: Scheme, address: &Address, mut trust: Option<&mut Trust>) -> io::Result<Self> {
        let deadline = Instant::now() + DEADLINE;
        let target = (address.host(), address.port());
        let found = timeout_at(deadline, tokio::net::lookup_host(target)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| late("name look-up took too long".to_owned()))??.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, addr) in found.iter().enumerate() {
            let begun = Instant::now();
            let left = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
            let share = begun + deadline.saturating_duration_since(begun) / left;
            let opened = match scheme {
                Scheme::SyslogUdp => Datagrams::open(*addr).map(Kind::Datagrams),
                Scheme::Syslog | Scheme::SyslogTls => {
                    Stream::open(*addr, trust.as_deref_mut(), share).await.map(Kind::Stream)
                }
            };
            match opened {
                Ok(kind) => return Ok(Self(kind)),
                Err(error) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
            }
        }
        Err(last)
    }

    /// How long to wait after a write for the news that the receiver closed upon it: twice the way there, and some time to think.
    pub fn pause(&self) -> Duration {
        match &self.0 {
            Kind::Stream(stream) => stream.pause(),
            Kind::Datagrams(_) => datagrams::PAUSE,
        }
    }

    /// Looks whether the connection has ended, without waiting. Asks the kernel, not the runtime, which may not have heard yet.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&mut self) -> Result<(), End> {
        match &mut self.0 {
            Kind::Stream(stream) => stream.check(),
            Kind::Datagrams(datagrams) => datagrams.check(),
        }
    }

    /// Waits until the receiver closes or resets the connection, or says over TLS that it will, or its machine answers that nobody
    /// listens.
    ///
    /// # Cancel safety
    /// Nothing is lost: what the receiver says is thrown away in any case.
    pub async fn ended(&mut self) -> End {
        match &mut self.0 {
            Kind::Stream(stream) => stream.ended().await,
            Kind::Datagrams(datagrams) => datagrams.ended().await,
        }
    }

    /// Writes the first `count` frames. `written` tells at any time how many have been written in full.
    ///
    /// # Errors
    /// The connection is broken, or did not take a line within [`DEADLINE`].
    ///
    /// # Cancel safety
    /// When cancelled, part of the frame after the first `written` may have been written: the connection must not be written to again.
    pub async fn write(&mut self, frames: &VecDeque<Frame>, count: usize, written: &mut usize) -> io::Result<()> {
        match &mut self.0 {
            Kind::Stream(stream) => stream.write(frames, count, written).await,
            Kind::Datagrams(datagrams) => datagrams.write(frames, count, written).await,
        }
    }

    /// Closes our side and waits until the receiver has closed its own and acknowledged every byte: then it is [`End::Closed`]. Of
    /// datagrams nobody hears: they count as taken unless the receiver's machine answers that nobody listens.
    pub async fn settle(self, within: Duration) -> End {
        match self.0 {
            Kind::Stream(stream) => stream.settle(within).await,
            Kind::Datagrams(datagrams) => datagrams.settle(within).await,
        }
    }
}

fn late(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}
