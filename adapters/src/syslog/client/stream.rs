//! One connection to a syslog receiver over TCP or TLS.
//!
//! A receiver says nothing: that it has closed is seen by reading, so the connection is read before each write ([`Stream::check`]) and
//! watched while it is idle ([`Stream::ended`]); what a receiver does say is thrown away.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use self::tls::Session;
use super::{DEADLINE, End, connect, late};
use crate::syslog::trust::Trust;
use crate::syslog::window::Frame;

mod tls;

/// Frames in one system call.
const SLICES: usize = 64;
/// Reads in a row before others have their turn.
const READS: usize = 16;
/// On top of twice the handshake: for a receiver to think about our certificate.
const THINKING: Duration = Duration::from_millis(100);

/// An open connection.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TcpStream,
    layer: Layer,
    /// How long connecting, or the handshake, took: about the time that news take from there to here.
    distance: Duration,
}

/// What lies between frames and the socket.
#[derive(Debug)]
enum Layer {
    Plain,
    Tls(Box<Session>),
}

impl Stream {
    /// Connects, and with `trust` shakes hands, until `by`.
    ///
    /// # Errors
    /// In words: what was wrong, with the receiver's certificate or with ours too.
    pub(super) async fn open(addr: SocketAddr, trust: Option<&mut Trust>, by: Instant) -> io::Result<Self> {
        let opened = Instant::now();
        let stream = connect(addr, by).await?;
        let Some(trust) = trust else {
            return Ok(Self { stream, layer: Layer::Plain, distance: opened.elapsed() });
        };
        let begun = Instant::now();
        let session = timeout_at(by, Session::open(&stream, trust)).await;
        let mut session = session.map_err(|_| late("no answer to the TLS handshake".to_owned()))??;
        let distance = begun.elapsed();
        let patience = by.min(Instant::now() + (2 * distance + THINKING).min(Duration::from_secs(1)));
        if let Ok(verdict) = timeout_at(patience, session.accepted(&stream)).await {
            verdict?;
        }
        Ok(Self { stream, layer: Layer::Tls(Box::new(session)), distance })
    }

    /// How long to wait after a write for the news that the receiver closed upon it: twice the way there, and some time to think.
    pub(super) fn pause(&self) -> Duration {
        (2 * self.distance + Duration::from_millis(10)).min(Duration::from_secs(1))
    }

    /// Looks whether the connection has ended, without waiting. Asks the kernel, not the runtime, which may not have heard yet.
    ///
    /// # Errors
    /// How it ended.
    pub(super) fn check(&mut self) -> Result<(), End> {
        match &mut self.layer {
            Layer::Plain => check(&self.stream),
            Layer::Tls(session) => session.check(&self.stream),
        }
    }

    /// Waits until the receiver closes or resets the connection, or says over TLS that it will.
    ///
    /// # Cancel safety
    /// Nothing is lost: what the receiver says is thrown away in any case.
    pub(super) async fn ended(&mut self) -> End {
        match &mut self.layer {
            Layer::Plain => ended(&self.stream).await,
            Layer::Tls(session) => session.ended(&self.stream).await,
        }
    }

    /// Writes the first `count` frames. `written` tells at any time how many have been written in full.
    ///
    /// # Errors
    /// The connection is broken, or did not take a line within [`DEADLINE`].
    ///
    /// # Cancel safety
    /// When cancelled, part of the frame after the first `written` may have been written: the connection must not be written to again.
    pub(super) async fn write(
        &mut self,
        frames: &VecDeque<Frame>,
        count: usize,
        written: &mut usize,
    ) -> io::Result<()> {
        if let Layer::Tls(session) = &mut self.layer {
            return session.write(&self.stream, frames, count, written).await;
        }
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
                    if advance(frames, count, &mut offset, written) {
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
    pub(super) async fn settle(mut self, within: Duration) -> End {
        let deadline = Instant::now() + within;
        let late = || End::Broken(late("the receiver did not close".to_owned()));
        let pause = self.pause();
        if let Layer::Tls(session) = &mut self.layer {
            // A receiver that has closed answers anything but the end with a reset, which would look like a loss. So one that has said
            // its farewell gets ours only while its socket is open.
            let mut gone = false;
            if session.is_over() {
                match timeout_at(deadline.min(Instant::now() + pause), ended(&self.stream)).await {
                    Ok(End::Closed) => gone = true,
                    Ok(broken) => return broken,
                    Err(_) => {}
                }
            }
            if !gone {
                match timeout_at(deadline, session.close(&self.stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Broken(error),
                    Err(_) => return late(),
                }
            }
        }
        if let Err(error) = self.stream.shutdown().await {
            return End::Broken(error);
        }
        let closed = async {
            match self.ended().await {
                End::Closed => ended(&self.stream).await,
                broken => broken,
            }
        };
        match timeout_at(deadline, closed).await {
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

/// Looks whether the peer has ended the connection.
fn check(stream: &TcpStream) -> Result<(), End> {
    let mut thrown_away = [std::mem::MaybeUninit::uninit(); 1024];
    // A receiver that talks without end is not read here without end.
    for _ in 0..READS {
        match SockRef::from(stream).recv(&mut thrown_away) {
            Ok(0) => return Err(End::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(End::Broken(error)),
        }
    }
    Ok(())
}

/// Waits until the peer ends the connection.
async fn ended(stream: &TcpStream) -> End {
    let mut thrown_away = [0; 1024];
    loop {
        if let Err(error) = stream.readable().await {
            return End::Broken(error);
        }
        match stream.try_read(&mut thrown_away) {
            Ok(0) => return End::Closed,
            Ok(_) => tokio::task::yield_now().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return End::Broken(error),
        }
    }
}

/// Bytes were written, so that `offset` of them lie beyond the first `written` frames: moves both on. `true` when a frame is complete.
fn advance(frames: &VecDeque<Frame>, count: usize, offset: &mut usize, written: &mut usize) -> bool {
    let before = *written;
    while *written < count && *offset >= frames[*written].bytes.len() {
        *offset -= frames[*written].bytes.len();
        *written += 1;
    }
    *written > before
}
