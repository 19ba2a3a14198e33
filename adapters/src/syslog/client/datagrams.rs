//! A syslog receiver over UDP: each message a datagram (RFC 5426).
//!
//! Nobody answers a datagram. What is heard is the answer of the receiver's machine that nobody listens (ICMP): then what was written
//! last may be lost, and the caller decides what that means. What is lost on the way is not seen.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::{DEADLINE, End, late};
use crate::syslog::window::Frame;

/// For the answer that nobody listens.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Messages between two looks whether others have something to do.
const BURST: usize = 64;

/// A socket that sends to one receiver.
#[derive(Debug)]
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    /// Opens a socket; sends nothing.
    ///
    /// # Errors
    /// The kernel has no way there.
    pub(super) fn open(addr: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(addr)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket).map(Self)
    }

    /// As [`Link::check`](super::Link::check).
    pub(super) fn check(&mut self) -> Result<(), End> {
        match self.0.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(End::Broken(error)),
        }
    }

    /// As [`Link::ended`](super::Link::ended).
    pub(super) async fn ended(&mut self) -> End {
        let mut thrown_away = [0; 64];
        loop {
            match self.0.recv(&mut thrown_away).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return End::Broken(error),
            }
        }
    }

    /// As [`Link::write`](super::Link::write).
    pub(super) async fn write(
        &mut self,
        frames: &VecDeque<Frame>,
        count: usize,
        written: &mut usize,
    ) -> io::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut sent = 0_usize;
        for frame in frames.range(..count) {
            let mut rest = &frame.bytes[..];
            while let Some((len, more)) = rest.split_first_chunk() {
                let (datagram, more) = more.split_at(u32::from_be_bytes(*len) as usize);
                let taken = timeout_at(deadline, self.0.send(datagram)).await;
                taken.map_err(|_| late("the kernel takes no datagram".to_owned()))??;
                rest = more;
                sent += 1;
                if sent.is_multiple_of(BURST) {
                    tokio::task::yield_now().await;
                }
            }
            *written += 1;
        }
        Ok(())
    }

    /// As [`Link::settle`](super::Link::settle).
    pub(super) async fn settle(mut self, within: Duration) -> End {
        timeout(within.min(PAUSE), self.ended()).await.unwrap_or(End::Closed)
    }
}
