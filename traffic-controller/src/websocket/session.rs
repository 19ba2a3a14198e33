//! One WebSocket connection to a consumer: frames, pings, and the cut of a consumer that does not read (contract: traffic controller v1
//! §3).
//!
//! What enters: a consumer's feed and whatever the client sends, which is read and thrown away. What leaves: one message per frame of the
//! feed. Frames are written while there are any and flushed once there are none, so that a busy stream costs few
//! writes and a lone line leaves at once. Holds what the feed gives at once besides the write buffer: what the consumer cannot take yet
//! stays there.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use proto::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::feed::{Feed, Frame};
use super::metered::Metered;
use crate::auth::{EXPIRED, Grant};
use crate::config::HttpConfig;
use crate::metrics::Metrics;

/// The largest frame or message of a client.
const CLIENT_FRAME: usize = 4096;

/// Room for a payload beyond the write buffer: more than any doppler's message holds.
const LARGEST_PAYLOAD: usize = 16 * 1024 * 1024;

/// How long the client may take to answer a close before its connection ends all the same.
const CLOSE_LINGER: Duration = Duration::from_secs(1);

const UNANSWERED: &str = "Client did not respond to ping before keep-alive timeout expired.";

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The server is stopping; everything in the ring was sent.
    Stopped,
    /// The client closed the connection in form.
    Closed,
    /// The client went away, or broke the protocol.
    Broken(Error),
    /// A ping stayed unanswered.
    Unanswered,
    /// The consumer did not read.
    Slow,
    /// What it shows as authorization no longer reads what it is sent.
    Expired,
}

/// Serves one consumer on `io`, an upgraded connection, until either side ends. Says why it ended.
///
/// Envelopes that were not handed to the connection are counted as dropped.
pub(crate) async fn serve<S, F>(io: S, config: &HttpConfig, mut feed: F, metrics: Metrics, grant: &mut Grant) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Feed,
{
    let buffer = config.write_buffer_bytes.get();
    let options = WebSocketConfig::default()
        .read_buffer_size(CLIENT_FRAME)
        .write_buffer_size(buffer)
        .max_write_buffer_size(buffer + LARGEST_PAYLOAD)
        .max_frame_size(Some(CLIENT_FRAME))
        .max_message_size(Some(CLIENT_FRAME));
    let socket = WebSocketStream::from_raw_socket(Metered::new(io), Role::Server, Some(options)).await;
    let mut session = Session {
        link: Link { socket, frames: VecDeque::new(), ping: true, unflushed: false, broken: None },
        ping: Ping::Sent { until: Instant::now() + config.pong_timeout },
        waiting: None,
        unflushed: None,
        config,
        metrics,
    };
    let end = session.feed(&mut feed, grant).await;
    let reason = if matches!(end, End::Slow) { Reason::SlowConsumer } else { Reason::PeerLost };
    feed.cut(reason);
    session.drop_frames(reason);
    session.close(&end, F::SLOW).await;
    end
}

struct Session<'a, S> {
    link: Link<S>,
    ping: Ping,
    /// Since when the first frame has been waiting to be handed over, if one is.
    waiting: Option<Instant>,
    /// Since when there have been bytes that the socket has not taken, if there are.
    unflushed: Option<Instant>,
    config: &'a HttpConfig,
    metrics: Metrics,
}

/// Where the pings stand.
enum Ping {
    /// Sent; the client answers until then.
    Sent { until: Instant },
    /// Answered; the next one leaves then.
    Answered { next: Instant },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    /// Moves frames from the feed to the client until one of them ends, or the grant does.
    async fn feed(&mut self, feed: &mut impl Feed, grant: &mut Grant) -> End {
        // Filled while the connection has none.
        let mut frames = VecDeque::new();
        let mut revoked = pin!(grant.revoked());
        loop {
            let idle = self.link.frames.is_empty();
            let deadline = self.deadline();
            tokio::select! {
                biased;
                () = revoked.as_mut() => return End::Expired,
                happened = poll_fn(|cx| self.link.poll(cx)) => {
                    if let Some(end) = self.after(happened) {
                        return end;
                    }
                }
                () = sleep_until(deadline) => {
                    if let Some(end) = self.overdue(Instant::now()) {
                        return end;
                    }
                }
                more = feed.next(&mut frames), if idle => {
                    if !more {
                        return End::Stopped;
                    }
                    self.link.frames.append(&mut frames);
                    self.waits_since(Instant::now());
                }
            }
        }
    }

    fn after(&mut self, happened: Io) -> Option<End> {
        match happened {
            Io::Ignored => {}
            Io::Pong => {
                if let Ping::Sent { .. } = self.ping {
                    self.ping = Ping::Answered { next: Instant::now() + self.config.ping_interval };
                }
            }
            Io::Sent { frames, envelopes } => {
                self.metrics.delivered(envelopes);
                self.metrics.handles().v1_frames.increment(frames);
                let now = Instant::now();
                self.waits_since(now);
                self.unflushed.get_or_insert(now);
            }
            Io::Flushed => self.unflushed = None,
            Io::Closed => return Some(End::Closed),
            Io::Broken(error) => return Some(End::Broken(error)),
        }
        None
    }

    /// The frame that is first now has its whole time.
    fn waits_since(&mut self, now: Instant) {
        self.waiting = (!self.link.frames.is_empty()).then_some(now);
    }

    /// When the consumer is slow: a frame, or written bytes, wait too long, and the socket has taken nothing meanwhile.
    fn slow_at(&self) -> Option<Instant> {
        let took = self.link.took();
        let waiting = self.waiting.map(|since| since.max(took) + self.config.slow_consumer_timeout);
        let unflushed = self.unflushed.map(|since| since.max(took) + self.config.write_timeout);
        waiting.into_iter().chain(unflushed).min()
    }

    fn deadline(&self) -> Instant {
        let ping = match self.ping {
            Ping::Sent { until } => until,
            Ping::Answered { next } => next,
        };
        self.slow_at().map_or(ping, |slow| slow.min(ping))
    }

    fn overdue(&mut self, now: Instant) -> Option<End> {
        if self.slow_at().is_some_and(|slow| slow <= now) {
            return Some(End::Slow);
        }
        match self.ping {
            Ping::Sent { until } if until <= now => return Some(End::Unanswered),
            Ping::Answered { next } if next <= now => {
                self.link.ping = true;
                self.ping = Ping::Sent { until: now + self.config.pong_timeout };
            }
            _ => {}
        }
        None
    }

    fn drop_frames(&mut self, reason: Reason) {
        let envelopes = self.link.frames.drain(..).map(|frame| frame.envelopes).sum();
        self.metrics.dropped(reason, envelopes);
    }

    /// Tells the client why, if it may still be listening.
    async fn close(&mut self, end: &End, (slow_code, slow_reason): (CloseCode, &'static str)) {
        let written = self.config.write_timeout;
        let (code, reason, patience) = match end {
            End::Stopped => (CloseCode::Normal, "", written),
            End::Unanswered => (CloseCode::Policy, UNANSWERED, written),
            End::Expired => (CloseCode::Policy, EXPIRED, written),
            // A consumer that reads again within the time of a write gets what is left in the buffer, and a close.
            End::Slow => (slow_code, slow_reason, written.saturating_sub(self.config.slow_consumer_timeout)),
            End::Broken(Error::Capacity(_)) => (CloseCode::Size, "", written),
            // The answer to the client's close is written by reading on.
            End::Closed => return drop(timeout(CLOSE_LINGER, self.link.read_out()).await),
            End::Broken(_) => return,
        };
        if patience.is_zero() {
            return;
        }
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if let Ok(Ok(())) = timeout(patience, self.link.socket.send(close)).await {
            drop(timeout(CLOSE_LINGER, self.link.read_out()).await);
        }
    }
}

/// The connection, with the frames that wait for it.
struct Link<S> {
    socket: WebSocketStream<Metered<S>>,
    frames: VecDeque<Frame>,
    /// A ping is due. It overtakes the frames.
    ping: bool,
    /// Something was written and not flushed since.
    unflushed: bool,
    /// What went wrong, until what went well before it has been told.
    broken: Option<Error>,
}

/// What happened on the connection.
enum Io {
    /// So many frames are in the write buffer, and with them so many whole envelopes; or a ping is.
    Sent {
        frames: u64,
        envelopes: u64,
    },
    /// The socket has taken everything.
    Flushed,
    Pong,
    /// The client sent something that means nothing here.
    Ignored,
    Closed,
    Broken(Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Reads, hands over as many frames as the connection takes, flushes when none waits: whichever is possible first.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Io> {
        if let Poll::Ready(read) = self.socket.poll_next_unpin(cx) {
            return Poll::Ready(match read {
                Some(Ok(Message::Pong(_))) => Io::Pong,
                Some(Ok(Message::Close(_))) => Io::Closed,
                Some(Ok(_)) => Io::Ignored,
                Some(Err(error)) => Io::Broken(error),
                None => Io::Broken(Error::ConnectionClosed),
            });
        }
        if self.ping
            && let Poll::Ready(ready) = self.socket.poll_ready_unpin(cx)
        {
            self.ping = false;
            self.unflushed = true;
            return Poll::Ready(match ready.and_then(|()| self.socket.start_send_unpin(Message::Ping(Bytes::new()))) {
                Ok(()) => Io::Sent { frames: 0, envelopes: 0 },
                Err(error) => Io::Broken(error),
            });
        }
        let (mut frames, mut envelopes) = (0, 0);
        while self.broken.is_none() && !self.frames.is_empty() {
            match self.socket.poll_ready_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => self.broken = Some(error),
                Poll::Ready(Ok(())) => {
                    let Some(Frame { message, envelopes: completed }) = self.frames.pop_front() else { break };
                    match self.socket.start_send_unpin(message) {
                        Ok(()) => {
                            frames += 1;
                            envelopes += completed;
                        }
                        Err(error) => {
                            self.broken = Some(error);
                            // Not handed over: whoever counts the frames that wait counts this one.
                            let message = Message::Binary(Bytes::new());
                            self.frames.push_front(Frame { message, envelopes: completed });
                        }
                    }
                }
            }
        }
        if frames > 0 {
            self.unflushed = true;
            return Poll::Ready(Io::Sent { frames, envelopes });
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Io::Broken(error));
        }
        if self.unflushed && self.frames.is_empty() {
            return self.socket.poll_flush_unpin(cx).map(|flushed| match flushed {
                Ok(()) => {
                    self.unflushed = false;
                    Io::Flushed
                }
                Err(error) => Io::Broken(error),
            });
        }
        Poll::Pending
    }

    /// When the socket last took bytes.
    fn took(&self) -> Instant {
        self.socket.get_ref().took()
    }

    /// Reads until the client has nothing more to say, then ends the connection in form.
    async fn read_out(&mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
        // A peer that is gone already needs no end.
        let _ = self.socket.get_mut().shutdown().await;
    }
}

#[cfg(test)]
mod tests;
