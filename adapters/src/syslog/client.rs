//! One TCP connection to a syslog receiver: opens, writes, and notices its end.
//!
//! Frames enter, bytes leave. A receiver says nothing: that it has closed is seen by reading, so the connection is read before each
//! write ([`Link::check`]) and watched while it is idle ([`Link::ended`]); what a receiver does say is thrown away. Never retries,
//! never drops: the caller decides what an [`End`] means for the lines written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use smallvec::SmallVec;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use transport::Address;

use super::window::{Frame, UNACKNOWLEDGED_FOR};

/// For name look-up and connecting together, and for each line of a write.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Before the first keepalive probe, and between probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The kernel's send buffer: what it holds must be part of what is kept to be sent again.
const SEND_BUFFER: usize = 256 * 1024;
/// Frames in one system call.
const SLICES: usize = 64;

/// An open connection.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    opened: Instant,
    /// How long connecting took: about the time that news take from there to here.
    distance: Duration,
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
    /// Connects to the first address of the name that answers. Each gets an even share of the time that is left.
    ///
    /// # Errors
    /// No address, or none that answered within [`DEADLINE`].
    pub async fn open(address: &Address) -> io::Result<Self> {
        let deadline = Instant::now() + DEADLINE;
        let late = |what: String| io::Error::new(io::ErrorKind::TimedOut, what);
        let target = (address.host(), address.port());
        let found = timeout_at(deadline, tokio::net::lookup_host(target)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| late("name look-up took too long".to_owned()))??.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (tried, addr) in found.iter().enumerate() {
            let begun = Instant::now();
            let left = u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
            let share = begun + deadline.saturating_duration_since(begun) / left;
            match timeout_at(share, TcpStream::connect(addr)).await {
                Ok(Ok(stream)) => {
                    set_options(&stream)?;
                    return Ok(Self { stream, opened: begun, distance: begun.elapsed() });
                }
                Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{addr}: {error}")),
                Err(_) => last = late(format!("{addr}: no answer")),
            }
        }
        Err(last)
    }

    /// Since when it is open.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// How long to wait after a write for the news that the receiver closed upon it: twice the way there, and some time to think.
    pub fn pause(&self) -> Duration {
        (2 * self.distance + Duration::from_millis(10)).min(Duration::from_secs(1))
    }

    /// Looks whether the connection has ended, without waiting. Asks the kernel, not the runtime, which may not have heard yet.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&self) -> Result<(), End> {
        let mut thrown_away = [std::mem::MaybeUninit::uninit(); 1024];
        // A receiver that talks without end is not read here without end.
        for _ in 0..16 {
            match SockRef::from(&self.stream).recv(&mut thrown_away) {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Broken(error)),
            }
        }
        Ok(())
    }

    /// Waits until the receiver closes or resets the connection.
    ///
    /// # Cancel safety
    /// Nothing is lost: what the receiver says is thrown away in any case.
    pub async fn ended(&self) -> End {
        let mut thrown_away = [0; 1024];
        loop {
            if let Err(error) = self.stream.readable().await {
                return End::Broken(error);
            }
            match self.stream.try_read(&mut thrown_away) {
                Ok(0) => return End::Closed,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return End::Broken(error),
            }
        }
    }

    /// Writes the first `count` frames. `written` tells at any time how many have been written in full.
    ///
    /// # Errors
    /// The connection is broken, or did not take a line within [`DEADLINE`].
    ///
    /// # Cancel safety
    /// When cancelled, part of the frame after the first `written` may have been written: the connection must not be written to again.
    pub async fn write(&self, frames: &VecDeque<Frame>, count: usize, written: &mut usize) -> io::Result<()> {
        let mut offset = 0;
        let mut deadline = Instant::now() + DEADLINE;
        while *written < count {
            let mut slices: SmallVec<[IoSlice<'_>; SLICES]> = SmallVec::new();
            for (i, frame) in frames.range(*written..count).take(SLICES).enumerate() {
                slices.push(IoSlice::new(if i == 0 { &frame.bytes[offset..] } else { &frame.bytes }));
            }
            match self.stream.try_write_vectored(&slices) {
                Ok(taken) => {
                    offset += taken;
                    let before = *written;
                    while *written < count && offset >= frames[*written].bytes.len() {
                        offset -= frames[*written].bytes.len();
                        *written += 1;
                    }
                    if *written > before {
                        deadline = Instant::now() + DEADLINE;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = timeout_at(deadline, self.stream.writable()).await;
                    writable.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the receiver does not read"))??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes our side and waits until the receiver has closed its own and acknowledged every byte: then it is [`End::Closed`].
    pub async fn settle(mut self, within: Duration) -> End {
        let deadline = Instant::now() + within;
        let late = || End::Broken(io::Error::new(io::ErrorKind::TimedOut, "the receiver did not close"));
        if let Err(error) = self.stream.shutdown().await {
            return End::Broken(error);
        }
        match timeout_at(deadline, self.ended()).await {
            Ok(End::Closed) => {}
            Ok(broken) => return broken,
            Err(_) => return late(),
        }
        // The kernel forgets the peer of a connection when both sides have closed and all is acknowledged, or when it was reset; the
        // latter leaves an error. No readiness tells of it.
        let mut pause = Duration::from_micros(100);
        while self.stream.peer_addr().is_ok() {
            if Instant::now() >= deadline {
                return late();
            }
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_millis(20));
        }
        match self.stream.take_error() {
            Ok(None) => End::Closed,
            Ok(Some(error)) | Err(error) => End::Broken(error),
        }
    }
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_FOR))?;
    Ok(())
}
