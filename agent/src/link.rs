//! One doppler: a stream that it acknowledges, or, where the doppler does not know hydrant's, a plain one.
//!
//! What enters: messages. What leaves: the same messages, in order, on a stream that is opened again whenever it breaks. On an
//! acknowledged stream a message is kept until the doppler has confirmed it, and sent again after a break. On a plain one nothing is
//! confirmed before the stream's orderly end; what a break leaves open is counted as uncertain.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::codec::MAX_MESSAGE;
use proto::hydrant::v1::IngressAck;
use proto::hydrant::v1::ingress_client::IngressClient as AcknowledgedClient;
use proto::raw::{Outgoing, OutgoingFrame};
use proto::reason::Reason;
use proto::v2::ingress_client::IngressClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};
use transport::{Address, Backoff};

use crate::egress::Live;
use crate::metrics::Metrics;
use crate::parcel::Ticket;

/// Messages handed to HTTP/2 and not yet picked up by it. Few, so that batches grow in the ring while the link is busy.
const IN_HAND: usize = 1;

/// One batch for a doppler.
#[derive(Debug)]
pub(crate) struct Message {
    batch: Outgoing,
    envelopes: u64,
    bytes: usize,
    /// They tell their streams when the last of them is gone.
    tickets: Vec<Arc<Ticket>>,
}

impl Message {
    pub(crate) fn new(batch: Outgoing, tickets: Vec<Arc<Ticket>>) -> Self {
        Self { envelopes: batch.len() as u64, bytes: batch.wire_len(), batch, tickets }
    }

    /// Gives up: those who wait are told that its fate is unknown. Returns its envelopes.
    pub(crate) fn void(self) -> u64 {
        self.tickets.iter().for_each(|ticket| ticket.void());
        self.envelopes
    }
}

/// The task of one doppler.
pub(crate) struct Link {
    address: Address,
    channel: Channel,
    inbox: mpsc::Receiver<Message>,
    window: usize,
    live: Arc<Live>,
    index: usize,
    metrics: Metrics,
    cut: CancellationToken,
    /// Messages not confirmed yet, oldest first; the first `sent` of them are on the stream.
    queue: VecDeque<Message>,
    sent: usize,
    bytes: usize,
    /// The inbox is closed and empty.
    finished: bool,
    /// The last stream was opened, not only tried.
    opened: bool,
}

/// How a stream ended.
enum End {
    /// Everything is confirmed.
    Finished,
    /// It must be opened again.
    Broken(Status),
    /// The stop's deadline has passed.
    Cut,
}

impl Link {
    #[expect(clippy::too_many_arguments, reason = "one link's surroundings, named by their types")]
    pub(crate) fn new(
        address: Address,
        channel: Channel,
        inbox: mpsc::Receiver<Message>,
        window: usize,
        live: Arc<Live>,
        index: usize,
        metrics: Metrics,
        cut: CancellationToken,
    ) -> Self {
        Self {
            address,
            channel,
            inbox,
            window,
            live,
            index,
            metrics,
            cut,
            queue: VecDeque::new(),
            sent: 0,
            bytes: 0,
            finished: false,
            opened: false,
        }
    }

    /// Runs until the inbox is closed and everything is confirmed, or until the link is cut. Returns the envelopes left behind.
    pub(crate) async fn run(mut self) -> u64 {
        let mut backoff = Backoff::new(Backoff::random_seed());
        let mut away = false;
        loop {
            let end = self.stream(&mut backoff).await;
            self.set_up(false);
            away &= !std::mem::take(&mut self.opened);
            match end {
                End::Finished => return 0,
                End::Cut => return self.abandon(),
                End::Broken(status) if away => debug!(%status, addr = %self.address, "Doppler still cannot be reached"),
                End::Broken(status) => {
                    warn!(%status, addr = %self.address, "Doppler cannot be reached; envelopes wait in the ring");
                    away = true;
                }
            }
            if self.finished && self.queue.is_empty() {
                return 0;
            }
            let wait = tokio::time::sleep(backoff.next_wait());
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    message = self.inbox.recv(), if self.queue.is_empty() && !self.finished => self.take(message),
                    () = self.cut.cancelled() => return self.abandon(),
                }
                if self.finished && self.queue.is_empty() {
                    return 0;
                }
            }
        }
    }

    /// Opens a stream and moves messages over it.
    async fn stream(&mut self, backoff: &mut Backoff) -> End {
        let (frames, outgoing) = mpsc::channel(IN_HAND);
        let mut client = AcknowledgedClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let cut = self.cut.clone();
        let Some(opened) = cut.run_until_cancelled(client.stream(ReceiverStream::new(outgoing))).await else {
            return End::Cut;
        };
        match opened {
            Ok(response) => {
                backoff.reset();
                info!(addr = %self.address, "Doppler connected");
                self.set_up(true);
                self.acknowledged(frames, response.into_inner()).await
            }
            Err(status) if status.code() == Code::Unimplemented => {
                backoff.reset();
                info!(addr = %self.address, "Doppler connected; it confirms nothing");
                self.plain().await
            }
            Err(status) => End::Broken(status),
        }
    }

    async fn acknowledged(&mut self, frames: mpsc::Sender<OutgoingFrame>, mut acks: Streaming<IngressAck>) -> End {
        let mut confirmed = 0;
        let mut frames = Some(frames);
        loop {
            if self.finished && self.sent == self.queue.len() {
                // Nothing more will come: the doppler confirms the rest and ends the stream.
                frames = None;
            }
            if self.finished && self.queue.is_empty() {
                return End::Finished;
            }
            let unsent = self.sent < self.queue.len();
            let room = !unsent && !self.finished && (self.bytes < self.window || self.queue.is_empty());
            tokio::select! {
                ack = acks.message() => match ack {
                    Ok(Some(ack)) => self.confirm(&mut confirmed, ack.sequence),
                    Ok(None) => return self.broken(Status::unavailable("the doppler ended the stream")),
                    Err(status) => return self.broken(status),
                },
                room = reserve(frames.clone()), if unsent => match room {
                    Some(room) => {
                        let message = &self.queue[self.sent];
                        self.sent += 1;
                        self.metrics.sent.increment(message.envelopes);
                        let _sender = room.send(OutgoingFrame { sequence: confirmed + self.sent as u64, batch: message.batch.clone() });
                    }
                    // HTTP/2 has let go of the stream; the reason comes with the acknowledgements.
                    None => frames = None,
                },
                message = self.inbox.recv(), if room => self.take(message),
                () = self.cut.cancelled() => return End::Cut,
            }
        }
    }

    fn confirm(&mut self, confirmed: &mut u64, sequence: u64) {
        while *confirmed < sequence && self.sent > 0 {
            let Some(message) = self.queue.pop_front() else { return };
            *confirmed += 1;
            self.sent -= 1;
            self.bytes -= message.bytes;
            self.metrics.confirmed.increment(message.envelopes);
            self.metrics.stage.delivered(message.envelopes);
        }
    }

    /// What was sent and not confirmed is sent again on the next stream.
    fn broken(&mut self, status: Status) -> End {
        let again: u64 = self.queue.iter().take(self.sent).map(|message| message.envelopes).sum();
        self.metrics.requeued.increment(again);
        self.sent = 0;
        End::Broken(status)
    }

    async fn plain(&mut self) -> End {
        let (batches, outgoing) = mpsc::channel(IN_HAND);
        let mut batches = Some(batches);
        let mut client = IngressClient::new(self.channel.clone());
        let call = client.batch_sender(ReceiverStream::new(outgoing));
        tokio::pin!(call);
        self.set_up(true);
        let mut unconfirmed = 0;
        let end = loop {
            let unsent = !self.queue.is_empty();
            if self.finished && !unsent {
                batches = None;
            }
            tokio::select! {
                ended = &mut call => match ended {
                    Ok(_) if self.finished && !unsent => break End::Finished,
                    Ok(_) => break End::Broken(Status::unavailable("the doppler ended the stream")),
                    Err(status) => break End::Broken(status),
                },
                room = reserve(batches.clone()), if unsent => match room {
                    Some(room) => {
                        let Some(message) = self.queue.pop_front() else { continue };
                        self.bytes -= message.bytes;
                        unconfirmed += message.envelopes;
                        self.metrics.sent.increment(message.envelopes);
                        self.metrics.stage.delivered(message.envelopes);
                        let _sender = room.send(message.batch);
                    }
                    None => batches = None,
                },
                message = self.inbox.recv(), if !unsent && !self.finished => self.take(message),
                () = self.cut.cancelled() => break End::Cut,
            }
        };
        match end {
            End::Finished => self.metrics.confirmed.increment(unconfirmed),
            _ => self.metrics.uncertain.increment(unconfirmed),
        }
        end
    }

    fn take(&mut self, message: Option<Message>) {
        match message {
            Some(message) => {
                self.bytes += message.bytes;
                self.queue.push_back(message);
            }
            None => self.finished = true,
        }
    }

    /// Counts what the deadline leaves behind.
    fn abandon(&mut self) -> u64 {
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            self.take(Some(message));
        }
        let unsent = self.queue.drain(self.sent..).map(Message::void).sum();
        let unconfirmed = self.queue.drain(..).map(Message::void).sum();
        self.metrics.stage.dropped(Reason::ShutdownDeadline.as_str(), unsent);
        self.metrics.uncertain.increment(unconfirmed);
        unsent + unconfirmed
    }

    fn set_up(&mut self, up: bool) {
        self.opened |= up;
        if self.live.set(self.index, up) {
            self.metrics.links.increment(if up { 1.0 } else { -1.0 });
        }
    }
}

/// Room for one more; `None` when the receiver, or the sender, is gone.
async fn reserve<T>(sender: Option<mpsc::Sender<T>>) -> Option<mpsc::OwnedPermit<T>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}
