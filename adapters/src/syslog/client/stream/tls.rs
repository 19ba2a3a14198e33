//! The TLS half of a connection: frames become records, and what the receiver says is heard and thrown away.
//!
//! Works on the socket that the link owns. One record of at most 16 KiB is made at a time, and handed to the kernel in full before its
//! frames count as written: nothing else is kept here. A receiver can read a frame only when it has all of its records, so a frame
//! counts exactly when it can be read.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

use rustls::{ClientConnection, ProtocolVersion};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use transport::ClientTls;

use super::super::{DEADLINE, End};
use super::{READS, SLICES, advance};
use crate::syslog::trust::Trust;
use crate::syslog::window::Frame;

/// Bytes of frames in one record: the most that TLS allows.
const RECORD: usize = 16 * 1024;

/// One TLS session.
#[derive(Debug)]
pub(super) struct Session {
    connection: ClientConnection,
    /// For words.
    tls: ClientTls,
    /// The receiver has said that it writes no more, or has closed.
    over: bool,
}

impl Session {
    /// Shakes hands.
    ///
    /// # Errors
    /// In words: what is wrong with the receiver's certificate, or with ours.
    pub(super) async fn open(stream: &TcpStream, trust: &mut Trust) -> io::Result<Self> {
        let connection = trust.connection().map_err(io::Error::other)?;
        let mut session = Self { connection, tls: trust.tls().clone(), over: false };
        while session.connection.is_handshaking() {
            session.flush(stream, Instant::now() + DEADLINE).await?;
            stream.readable().await?;
            match session.receive(&mut Ready(stream)) {
                Ok(()) => {}
                Err(End::Closed) => {
                    let text = "the receiver closed the connection during the TLS handshake";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Err(End::Broken(error)) => {
                    // The alert that says why. It may come too late, and then does not matter.
                    let _ = session.connection.write_tls(&mut Ready(stream));
                    return Err(error);
                }
            }
        }
        session.flush(stream, Instant::now() + DEADLINE).await?;
        Ok(session)
    }

    /// Waits until the receiver has accepted our certificate, as far as that can be heard: in TLS 1.3 it looks at it only after the
    /// handshake is over for us, and then sends a ticket, or an alert. May wait for ever: not every receiver sends tickets.
    ///
    /// # Errors
    /// It refused, in words. That it closed in order is no error here: the next look at the connection finds it.
    pub(super) async fn accepted(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && self.connection.tls13_tickets_received() == 0
        {
            stream.readable().await?;
            match self.receive(&mut Ready(stream)) {
                Ok(()) => {}
                Err(End::Closed) => break,
                Err(End::Broken(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the receiver is known to have ended its side.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// As [`Stream::check`](super::Stream::check).
    pub(super) fn check(&mut self, stream: &TcpStream) -> Result<(), End> {
        let socket = SockRef::from(stream);
        self.receive(&mut &*socket)
    }

    /// As [`Stream::ended`](super::Stream::ended).
    pub(super) async fn ended(&mut self, stream: &TcpStream) -> End {
        loop {
            if self.over {
                return End::Closed;
            }
            if let Err(error) = stream.readable().await {
                return End::Broken(error);
            }
            if let Err(end) = self.receive(&mut Ready(stream)) {
                return end;
            }
            tokio::task::yield_now().await;
        }
    }

    /// As [`Stream::write`](super::Stream::write).
    pub(super) async fn write(
        &mut self,
        stream: &TcpStream,
        frames: &VecDeque<Frame>,
        count: usize,
        written: &mut usize,
    ) -> io::Result<()> {
        let mut offset = 0;
        let mut deadline = Instant::now() + DEADLINE;
        while *written < count {
            let (mut slices, mut room) = (SmallVec::<[IoSlice<'_>; SLICES]>::new(), RECORD);
            for (i, frame) in frames.range(*written..count).take(SLICES).enumerate() {
                let rest = if i == 0 { &frame.bytes[offset..] } else { &frame.bytes };
                let part = &rest[..rest.len().min(room)];
                slices.push(IoSlice::new(part));
                room -= part.len();
                if room == 0 {
                    break;
                }
            }
            offset += self.connection.writer().write_vectored(&slices)?;
            if let Err(error) = self.flush(stream, deadline).await {
                // It may have said why.
                return Err(match self.check(stream) {
                    Err(End::Broken(told)) => told,
                    _ => error,
                });
            }
            if advance(frames, count, &mut offset, written) {
                deadline = Instant::now() + DEADLINE;
            }
        }
        Ok(())
    }

    /// Tells the receiver that nothing more comes.
    pub(super) async fn close(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush(stream, Instant::now() + DEADLINE).await
    }

    /// Hands everything that is encrypted to the kernel.
    async fn flush(&mut self, stream: &TcpStream, deadline: Instant) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Ready(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = timeout_at(deadline, stream.writable()).await;
                    writable.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the receiver does not read"))??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there.
    fn receive(&mut self, from: &mut impl Read) -> Result<(), End> {
        // A receiver that talks without end is not read here without end.
        for _ in 0..READS {
            if self.over {
                return Err(End::Closed);
            }
            match self.connection.read_tls(from) {
                Ok(0) => self.over = true,
                Ok(_) => {
                    let state = self.connection.process_new_packets().map_err(|error| {
                        End::Broken(io::Error::new(io::ErrorKind::InvalidData, self.tls.explain(&error)))
                    })?;
                    // It ends in an error when all is read, which is what is wanted.
                    let _ = io::copy(&mut self.connection.reader(), &mut io::sink());
                    self.over = state.peer_has_closed();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Broken(error)),
            }
        }
        Ok(())
    }
}

/// The socket as the runtime knows it: what would block is noted there, so that it can be waited for.
struct Ready<'a>(&'a TcpStream);

impl Read for Ready<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
