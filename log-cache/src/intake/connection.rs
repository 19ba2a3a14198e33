//! One connection of a sender: reads, takes messages off, and puts what they become into the node, a batch for each reading.
//!
//! What enters: an accepted connection. What leaves: batches, and counts of what was refused. It ends when the sender has ended, when
//! nobody knows where the next message begins, or when no whole message has come for too long.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use proto::raw::{Batch, Limits, Selection};
use proto::reason::Reason;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use transport::Conn;

use super::config::SyslogConfig;
use super::envelope::Maker;
use super::frame::{Deframer, Step};
use super::line::Line;
use crate::metrics::{Ended, IntakeMetrics, now};
use crate::node::Node;

/// Room for one reading: at first and at most. It grows while senders fill it.
const FIRST_READING: usize = 4 * 1024;
const LARGEST_READING: usize = 64 * 1024;

/// How long what had arrived before a stop may take, and how long a sender may be quiet that is still sending.
const DRAIN: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_millis(20);

/// One connection.
pub(super) struct Connection {
    conn: Conn,
    deframer: Deframer,
    maker: Maker,
    buffer: BytesMut,
    reading: usize,
    trim: bool,
    idle_timeout: Duration,
    node: Node,
    metrics: IntakeMetrics,
}

/// What a look at the buffer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Messages,
    Nothing,
    /// The sender is lost.
    Lost,
}

impl Connection {
    pub(super) fn new(conn: Conn, config: &SyslogConfig, node: Node, metrics: IntakeMetrics) -> Self {
        Self {
            conn,
            deframer: Deframer::new(config.framing, config.max_message_bytes.get()),
            maker: Maker::default(),
            buffer: BytesMut::new(),
            reading: FIRST_READING,
            trim: config.trim_whitespace,
            idle_timeout: config.idle_timeout,
            node,
            metrics,
        }
    }

    /// Takes messages until the sender ends or `stop`, then what has arrived by then.
    pub(super) async fn serve(mut self, stop: &CancellationToken) {
        match stop.run_until_cancelled(self.take_all(self.idle_timeout)).await {
            Some(ended) => self.ended(ended),
            None => self.drain().await,
        }
    }

    /// Takes messages until the sender has ended or has to be; why.
    ///
    /// # Cancel safety
    /// What was read is in the buffer, and what was taken out of it is in the node.
    async fn take_all(&mut self, patience: Duration) -> Option<Ended> {
        let mut until = Instant::now() + patience;
        loop {
            self.make_room();
            match timeout_at(until, self.conn.read_buf(&mut self.buffer)).await {
                Err(_) => {
                    self.lost_within();
                    return Some(Ended::Idle);
                }
                Ok(Err(error)) => {
                    debug!(%error, "Syslog connection broke");
                    self.lost_within();
                    return Some(Ended::Broken);
                }
                Ok(Ok(0)) => return self.end_of_stream(),
                Ok(Ok(read)) => self.size_reading(read),
            }
            match self.take_messages() {
                Found::Messages => until = Instant::now() + patience,
                Found::Nothing => {}
                Found::Lost => return Some(Ended::Framing),
            }
        }
    }

    /// Takes what is there or on its way.
    async fn drain(mut self) {
        let until = Instant::now() + DRAIN;
        while Instant::now() < until {
            self.make_room();
            let read = timeout(QUIET, self.conn.read_buf(&mut self.buffer)).await;
            let Ok(Ok(1..)) = read else { break };
            if self.take_messages() == Found::Lost {
                break;
            }
        }
        self.lost_within();
    }

    /// The sender has closed its side.
    fn end_of_stream(&mut self) -> Option<Ended> {
        if let Some(last) = self.deframer.last(&self.buffer) {
            let mut batch = Vec::new();
            let messages = take(&mut self.maker, last, self.trim, &self.metrics, &mut batch);
            self.put(batch, messages);
            return None;
        }
        let is_within = self.deframer.is_within_message(&self.buffer);
        self.lost_within();
        is_within.then_some(Ended::Incomplete)
    }

    /// Counts the message that the end has cut.
    fn lost_within(&self) {
        if self.deframer.is_within_message(&self.buffer) {
            self.metrics.refused(Reason::PeerLost);
        }
    }

    /// Takes every whole message out of the buffer.
    fn take_messages(&mut self) -> Found {
        let (mut batch, mut messages, mut done) = (Vec::new(), 0, 0);
        let mut found = Found::Nothing;
        loop {
            let (step, taken) = self.deframer.next(&self.buffer[done..]);
            match step {
                Step::Line(line) => messages += take(&mut self.maker, line, self.trim, &self.metrics, &mut batch),
                Step::Oversize => self.metrics.refused(Reason::Oversize),
                Step::More => {
                    done += taken;
                    break;
                }
                Step::Lost => {
                    done += taken;
                    self.metrics.refused(Reason::DecodeError);
                    found = Found::Lost;
                    break;
                }
            }
            done += taken;
            found = Found::Messages;
        }
        self.buffer.advance(done);
        self.put(batch, messages);
        found
    }

    /// Puts encoded envelopes into the node. What an envelope may not have is found here.
    fn put(&self, batch: Vec<u8>, messages: u64) {
        if batch.is_empty() {
            return;
        }
        let limits = Limits { envelopes: usize::MAX, ..Limits::default() };
        let (batch, refused) = Batch::check(batch.into(), &limits);
        self.metrics.taken(messages, batch.len(), refused);
        self.node.put(&Selection::from(batch));
    }

    /// Makes room for a reading. A connection that holds nothing lets go of what a burst needed.
    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * self.reading {
            self.buffer = BytesMut::new();
            self.maker.shrink();
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

    fn ended(self, ended: Option<Ended>) {
        if let Some(ended) = ended {
            debug!(?ended, "Syslog connection ended");
            self.metrics.ended(ended);
        }
    }
}

/// Appends what a message becomes to `batch`. 1 if it became something; if not, it has been counted.
fn take(maker: &mut Maker, line: &[u8], trim: bool, metrics: &IntakeMetrics, batch: &mut Vec<u8>) -> u64 {
    match Line::parse(line).and_then(|line| maker.put(&line, now(), trim, batch)) {
        Ok(_) => 1,
        Err(reason) => {
            metrics.refused(reason);
            0
        }
    }
}
