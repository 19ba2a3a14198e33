//! One connection of a syslog sender: reads, takes messages off, and hands them over, a batch for each reading.
//!
//! What enters: an accepted connection. What leaves: batches, and counts of what was refused. It ends when the sender has ended, or when no
//! whole message has come for too long. It never holds more than a message of the largest size and one reading.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use proto::reason::Reason;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use transport::Conn;

use super::Messages;
use crate::ingress::now_ns;
use crate::syslog::{Deframer, Step, SyslogConfig};

/// Room for one reading: at first and at most. It grows while senders fill it.
const FIRST_READING: usize = 4 * 1024;
const LARGEST_READING: usize = 64 * 1024;

/// How long what had arrived before a stop may take, and how long a sender may be quiet that is still sending.
const DRAIN: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(20);

pub(super) struct Connection {
    conn: Conn,
    from: IpAddr,
    deframer: Deframer,
    messages: Messages,
    buffer: BytesMut,
    reading: usize,
    idle_timeout: Duration,
}

impl Connection {
    pub(super) fn new(conn: Conn, from: IpAddr, config: &SyslogConfig, messages: Messages) -> Self {
        Self {
            conn,
            from: from.to_canonical(),
            deframer: Deframer::new(config.max_message_bytes.get()),
            messages,
            buffer: BytesMut::new(),
            reading: FIRST_READING,
            idle_timeout: config.idle_timeout,
        }
    }

    /// Takes messages until the sender ends or `stop`, then what has arrived by then.
    pub(super) async fn serve(mut self, stop: &CancellationToken) {
        if stop.run_until_cancelled(self.take_all()).await.is_none() {
            self.drain().await;
        }
    }

    /// Takes messages until the sender has ended or has been quiet for too long.
    ///
    /// # Cancel safety
    /// What was read is in the buffer, and what was taken out of it is in the ring.
    async fn take_all(&mut self) {
        let mut until = Instant::now() + self.idle_timeout;
        loop {
            self.make_room();
            match timeout_at(until, self.conn.read_buf(&mut self.buffer)).await {
                Err(_) => {
                    debug!("Syslog connection was idle");
                    return self.lost_within();
                }
                Ok(Err(error)) => {
                    debug!(%error, "Syslog connection broke");
                    return self.lost_within();
                }
                Ok(Ok(0)) => return self.end_of_stream(),
                Ok(Ok(read)) => self.size_reading(read),
            }
            if self.take_messages() {
                until = Instant::now() + self.idle_timeout;
            }
        }
    }

    /// Takes what is there or on its way.
    async fn drain(mut self) {
        let until = Instant::now() + DRAIN;
        while Instant::now() < until {
            self.make_room();
            let read = timeout(QUIET, self.conn.read_buf(&mut self.buffer)).await;
            match read {
                Ok(Ok(0)) => return self.end_of_stream(),
                Ok(Ok(_)) => drop(self.take_messages()),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        self.lost_within();
    }

    /// The sender has closed its side.
    fn end_of_stream(&mut self) {
        if let Some(last) = self.deframer.last(&self.buffer) {
            self.messages.take(last, self.from, now_ns());
            self.messages.hand_over();
        } else {
            self.lost_within();
        }
    }

    /// Counts the message that the end has cut.
    fn lost_within(&self) {
        if self.deframer.is_within_message(&self.buffer) {
            self.messages.lost_within();
        }
    }

    /// Takes every whole message out of the buffer. True if there was one.
    fn take_messages(&mut self) -> bool {
        let (mut done, mut found, now_ns) = (0, false, now_ns());
        loop {
            let (step, taken) = self.deframer.next(&self.buffer[done..]);
            match step {
                Step::Message(message) => self.messages.take(message, self.from, now_ns),
                Step::Oversize => self.messages.refuse(Reason::Oversize),
                Step::More => {
                    done += taken;
                    break;
                }
            }
            done += taken;
            found = true;
        }
        self.buffer.advance(done);
        self.messages.hand_over();
        found
    }

    /// Makes room for a reading. A connection that holds nothing lets go of what a burst needed.
    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * self.reading {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(self.reading);
    }

    fn size_reading(&mut self, read: usize) {
        if read >= self.reading {
            self.reading = (self.reading * 2).min(LARGEST_READING);
        } else if read < self.reading / 4 {
            self.reading = (self.reading / 2).max(FIRST_READING);
        }
    }
}
