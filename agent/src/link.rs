//! One doppler: a stream that it acknowledges, or, where the doppler does not know hydrant's, a plain one.
//!
//! What enters: the messages of its [`Lane`]. What leaves: the same messages, in order, on a stream that is opened again whenever it
//! breaks. On an acknowledged stream a message is kept until the doppler has confirmed it. After a break the doppler says what it had
//! taken, and only the rest is sent again; when it does not come back at once and another doppler is up, the rest is given back for
//! that one. On a plain stream nothing is confirmed before its orderly end; what a break leaves open is counted as uncertain.
//!
//! *Progress.* With something unconfirmed and no confirmation for 1 s the doppler is suspect: what is new goes elsewhere. After 5 s the
//! connection is given up. From time to time the link opens a new connection by itself, so that a name's addresses and new certificates
//! are used, and nothing is lost or repeated by that.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use diode::fair::Bounds;
use proto::codec::MAX_MESSAGE;
use proto::hydrant::v1::IngressAck;
use proto::hydrant::v1::ingress_client::IngressClient as AcknowledgedClient;
use proto::raw::OutgoingFrame;
use proto::reason::Reason;
use proto::v2::ingress_client::IngressClient;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};
use transport::{Backoff, ChannelOptions, reason};

use crate::lane::{Lane, Message, Phase};
use crate::metrics::Metrics;

/// Messages handed to HTTP/2 and not yet picked up by it. Few, so that batches grow while the link is busy.
const IN_HAND: usize = 1;

/// Unconfirmed without progress for this long, a doppler is suspect.
const SUSPECT: Duration = Duration::from_secs(1);
/// And for this long, its connection is given up.
const ABANDONED: Duration = Duration::from_secs(5);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// A doppler that is back within this time gets its own again; then, and when it refuses, others do.
const PATIENCE: Duration = Duration::from_millis(50);
/// A stream that lasted this long did work.
const WORKED: Duration = Duration::from_secs(1);
/// For a connection that is up to answer the first frame.
const HELLO: Duration = Duration::from_secs(5);

/// What holds for all links of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    /// Random: this life of the agent.
    pub(crate) process: u64,
    /// Of one message.
    pub(crate) batch: Bounds,
    pub(crate) window: Window,
    /// How old a connection may get.
    pub(crate) age: Duration,
}

impl Tuning {
    /// Bytes that a lane holds before it is full.
    pub(crate) fn limit(&self) -> usize {
        self.window.get() + self.batch.bytes.get()
    }
}

/// Bytes that a link may have sent and not had confirmed. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Window(Arc<AtomicUsize>);

impl Window {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    pub(crate) fn set(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The task of one doppler.
pub(crate) struct Link {
    lane: Arc<Lane>,
    options: ChannelOptions,
    tuning: Tuning,
    metrics: Metrics,
    cut: CancellationToken,
    /// Counts the sequences of frames that this agent sends: each has its own marks at its doppler.
    streams: Streams,
    /// Messages not confirmed yet, oldest first; the first `sent` of them have been on a stream.
    queue: VecDeque<Message>,
    sent: usize,
    /// The frame sequence of the last message confirmed.
    confirmed: u64,
    stream: u64,
    /// Bytes in `queue`.
    bytes: usize,
}

/// Gives out stream numbers. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<AtomicU64>);

impl Streams {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How a stream ended.
enum End {
    /// Everything is confirmed, and no more will come.
    Finished,
    /// It has got old: all that was sent is confirmed.
    Old,
    /// The doppler has ended it in order.
    Stopping,
    /// It must be opened again.
    Broken(String),
    /// The stop's deadline has passed.
    Cut,
}

/// An open stream.
enum Opened {
    Acknowledged(mpsc::Sender<OutgoingFrame>, Streaming<IngressAck>),
    /// To a doppler that knows only the plain one.
    Plain(Channel),
}

impl Link {
    pub(crate) fn new(
        lane: Arc<Lane>,
        options: ChannelOptions,
        tuning: Tuning,
        streams: Streams,
        metrics: Metrics,
        cut: CancellationToken,
    ) -> Self {
        Self {
            lane,
            options,
            tuning,
            metrics,
            cut,
            stream: streams.next(),
            streams,
            queue: VecDeque::new(),
            sent: 0,
            confirmed: 0,
            bytes: 0,
        }
    }

    /// Runs until the lane is finished and everything is confirmed, or until the link is cut. Returns the envelopes left behind.
    pub(crate) async fn run(mut self) -> u64 {
        let mut backoff = Backoff::new(Backoff::random_seed());
        let mut away = false;
        // The first try, and the first after a connection that worked, is made at once.
        let (mut wait, mut patience) = (Duration::ZERO, PATIENCE);
        loop {
            let end = match self.open(wait, patience).await {
                Ok(opened) => {
                    let began = Instant::now();
                    let end = self.serve(opened, &mut away).await;
                    patience = PATIENCE;
                    if began.elapsed() >= WORKED {
                        backoff.reset();
                        wait = Duration::ZERO;
                    } else {
                        wait = backoff.next_wait();
                    }
                    end
                }
                Err(end) => {
                    wait = backoff.next_wait();
                    patience = Duration::ZERO;
                    end
                }
            };
            self.set(Phase::Down);
            if matches!(end, End::Stopping | End::Broken(_)) {
                self.end_marks();
            }
            match end {
                End::Finished => return 0,
                End::Cut => return self.abandon(),
                End::Old => {
                    debug!(addr = %self.lane.address, "Connection to a doppler has got old, opening another");
                    wait = Duration::ZERO;
                }
                End::Stopping => {
                    info!(addr = %self.lane.address, "Doppler is stopping");
                    patience = Duration::ZERO;
                }
                End::Broken(error) if away => {
                    debug!(%error, addr = %self.lane.address, "Doppler still cannot be reached")
                }
                End::Broken(error) => {
                    warn!(%error, addr = %self.lane.address, "Doppler cannot be reached; its share goes to others or waits");
                    away = true;
                }
            }
        }
    }

    /// Connects, after `wait`. Meanwhile others may take over what is here.
    async fn open(&mut self, wait: Duration, patience: Duration) -> Result<Opened, End> {
        let (lane, cut, options) = (Arc::clone(&self.lane), self.cut.clone(), self.options.clone());
        let opening = async {
            sleep(wait).await;
            // A channel of its own: what was wrong with the last connection is not wrong with the next.
            open(transport::channel(&lane.address, &options)).await
        };
        let (mut opening, mut patience) = (pin!(opening), pin!(sleep(patience)));
        let mut patient = true;
        loop {
            if self.is_done() {
                return Err(End::Finished);
            }
            let holds = lane.has_waiting();
            tokio::select! {
                biased;
                () = cut.cancelled() => return Err(End::Cut),
                opened = &mut opening => return opened.map_err(|status| End::Broken(reason(&status))),
                () = &mut patience, if patient => patient = false,
                () = lane.board().someone_is_up(), if holds && !patient => self.give_back(),
                () = lane.finished(), if !holds => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.lane.is_finished()
    }

    /// Moves messages over an open stream.
    async fn serve(&mut self, opened: Opened, away: &mut bool) -> End {
        match opened {
            Opened::Acknowledged(frames, mut acks) => match self.greet(&frames, &mut acks).await {
                Ok(()) => {
                    info!(addr = %self.lane.address, "Doppler connected");
                    *away = false;
                    self.set(Phase::Up);
                    self.acknowledged(frames, acks).await
                }
                Err(end) => end,
            },
            Opened::Plain(channel) => {
                info!(addr = %self.lane.address, "Doppler connected; it confirms nothing");
                *away = false;
                self.requeue();
                self.set(Phase::Up);
                self.plain(channel).await
            }
        }
    }

    /// Tells who sends, and learns what has arrived already.
    async fn greet(
        &mut self,
        frames: &mpsc::Sender<OutgoingFrame>,
        acks: &mut Streaming<IngressAck>,
    ) -> Result<(), End> {
        let sender = Some((self.tuning.process, self.stream));
        let hello = OutgoingFrame { sequence: self.confirmed, sender, ..OutgoingFrame::default() };
        let greeted = timeout(HELLO, async {
            let _gone = frames.send(hello).await;
            acks.message().await
        });
        let cut = self.cut.clone();
        match cut.run_until_cancelled(greeted).await {
            None => Err(End::Cut),
            Some(Ok(Ok(Some(ack)))) => {
                self.confirm(ack.sequence);
                self.requeue();
                Ok(())
            }
            Some(Ok(Ok(None))) => Err(End::Stopping),
            Some(Ok(Err(status))) => Err(End::Broken(reason(&status))),
            Some(Err(_)) => Err(End::Broken("it is connected and says nothing".to_owned())),
        }
    }

    /// Says how the link is doing; true if that is news.
    fn set(&self, phase: Phase) -> bool {
        let was = self.lane.set(phase);
        match (was == Phase::Up, phase == Phase::Up) {
            (false, true) => self.metrics.links.increment(1.0),
            (true, false) => self.metrics.links.decrement(1.0),
            _ => {}
        }
        was != phase
    }

    async fn acknowledged(&mut self, frames: mpsc::Sender<OutgoingFrame>, mut acks: Streaming<IngressAck>) -> End {
        let (lane, cut) = (Arc::clone(&self.lane), self.cut.clone());
        let mut frames = Some(frames);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut age = pin!(sleep(self.tuning.age));
        let mut old = false;
        let mut progress = Instant::now();
        loop {
            if self.is_done() {
                return End::Finished;
            }
            if old && self.sent == 0 {
                return End::Old;
            }
            let unsent = self.sent < self.queue.len() && !old;
            let room = self.sent == self.queue.len()
                && !old
                && (self.bytes < self.tuning.window.get() || self.queue.is_empty());
            tokio::select! {
                ack = acks.message() => match ack {
                    Ok(Some(ack)) => {
                        progress = Instant::now();
                        self.confirm(ack.sequence);
                        self.set(Phase::Up);
                    }
                    Ok(None) => return End::Stopping,
                    Err(status) => return End::Broken(reason(&status)),
                },
                place = reserve(frames.clone()), if unsent => match place {
                    Some(place) => {
                        if self.sent == 0 {
                            progress = Instant::now();
                        }
                        let message = &self.queue[self.sent];
                        self.sent += 1;
                        self.metrics.sent.increment(message.envelopes);
                        let (sequence, flush) = (self.confirmed + self.sent as u64, message.flushed.is_some());
                        let batch = message.batch.clone();
                        let _sender = place.send(OutgoingFrame { sequence, batch, sender: None, flush });
                    }
                    // HTTP/2 has let go of the stream; the reason comes with the acknowledgements.
                    None => frames = None,
                },
                message = lane.take(self.tuning.batch), if room => self.take(message),
                _ = look.tick(), if self.sent > 0 => match progress.elapsed() {
                    late if late >= ABANDONED => {
                        return End::Broken("it has confirmed nothing for 5 s".to_owned());
                    }
                    late if late >= SUSPECT && self.set(Phase::Suspect) => {
                        warn!(addr = %lane.address, "Doppler confirms nothing; what is new goes to others");
                    }
                    _ => {}
                },
                () = &mut age, if !old => old = true,
                () = cut.cancelled() => return End::Cut,
            }
        }
    }

    /// Lets go of everything up to `sequence`.
    fn confirm(&mut self, sequence: u64) {
        let mut bytes = 0;
        while self.confirmed < sequence && self.sent > 0 {
            let Some(message) = self.queue.pop_front() else { break };
            self.confirmed += 1;
            self.sent -= 1;
            bytes += message.bytes;
            self.metrics.confirmed.increment(message.envelopes);
            self.metrics.stage.delivered(message.envelopes);
            message.pass();
        }
        self.let_go(bytes);
    }

    fn let_go(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if bytes > 0 {
            self.lane.let_go(bytes, self.tuning.limit());
        }
    }

    /// What was sent on a stream that is no more, and not confirmed, is to be sent again.
    fn requeue(&mut self) {
        let again: u64 = self.queue.iter().take(self.sent).map(|message| message.envelopes).sum();
        self.metrics.requeued.increment(again);
        self.sent = 0;
    }

    /// Whoever waits for what was on its way to a doppler does not wait until it is back. What was a mark keeps its place in the sequence
    /// while an envelope needs that.
    fn end_marks(&mut self) {
        self.lane.end_marks();
        if self.queue.iter().all(|message| message.envelopes == 0) {
            self.queue.clear();
            self.restart();
        }
        self.queue.iter_mut().for_each(|message| message.flushed = None);
    }

    /// Leaves what is here to other dopplers.
    fn give_back(&mut self) {
        self.requeue();
        let moved: u64 = self.queue.iter().map(|message| message.envelopes).sum();
        self.metrics.moved.increment(moved);
        self.lane.give_back(self.queue.drain(..));
        self.bytes = 0;
        self.restart();
    }

    /// With nothing left: the next stream begins a sequence of its own.
    fn restart(&mut self) {
        (self.sent, self.confirmed, self.stream) = (0, 0, self.streams.next());
    }

    async fn plain(&mut self, channel: Channel) -> End {
        let (lane, cut) = (Arc::clone(&self.lane), self.cut.clone());
        let (batches, outgoing) = mpsc::channel(IN_HAND);
        let mut batches = Some(batches);
        let mut client = IngressClient::new(channel);
        let mut call = pin!(client.batch_sender(ReceiverStream::new(outgoing)));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut age = pin!(sleep(self.tuning.age));
        let mut progress = Instant::now();
        let mut old = false;
        let mut unconfirmed = 0;
        let end = loop {
            let unsent = !self.queue.is_empty();
            if self.is_done() || (old && !unsent) {
                // It answers when it has taken everything.
                batches = None;
            }
            tokio::select! {
                ended = &mut call => match ended {
                    Ok(_) if batches.is_none() && self.is_done() => break End::Finished,
                    Ok(_) if batches.is_none() && !unsent => break End::Old,
                    Ok(_) => break End::Stopping,
                    // How originals end a stream that their sender has ended (contract: loggregator v2 §4.1).
                    Err(status) if batches.is_none() && !unsent && status.code() == Code::Unknown => break End::Finished,
                    Err(status) => break End::Broken(reason(&status)),
                },
                place = reserve(batches.clone()), if unsent => match place {
                    Some(place) => {
                        progress = Instant::now();
                        let Some(message) = self.queue.pop_front() else { continue };
                        self.let_go(message.bytes);
                        if message.envelopes == 0 {
                            message.pass();
                            continue;
                        }
                        unconfirmed += message.envelopes;
                        self.metrics.sent.increment(message.envelopes);
                        self.metrics.stage.delivered(message.envelopes);
                        self.set(Phase::Up);
                        let _sender = place.send(message.batch);
                    }
                    None => batches = None,
                },
                message = lane.take(self.tuning.batch), if !unsent && batches.is_some() && !old => {
                    progress = Instant::now();
                    self.take(message);
                }
                _ = look.tick(), if unsent => match progress.elapsed() {
                    late if late >= ABANDONED => {
                        break End::Broken("it has taken nothing for 5 s".to_owned());
                    }
                    late if late >= SUSPECT && self.set(Phase::Suspect) => {
                        warn!(addr = %lane.address, "Doppler takes nothing; what is new goes to others");
                    }
                    _ => {}
                },
                () = &mut age, if !old => old = true,
                () = cut.cancelled() => break End::Cut,
            }
        };
        match end {
            End::Finished | End::Old => self.metrics.confirmed.increment(unconfirmed),
            _ => self.metrics.uncertain.increment(unconfirmed),
        }
        end
    }

    fn take(&mut self, message: Option<Message>) {
        if let Some(message) = message {
            self.bytes += message.bytes;
            self.queue.push_back(message);
        }
    }

    /// Counts what the deadline leaves behind.
    fn abandon(&mut self) -> u64 {
        self.queue.extend(self.lane.drain());
        let unsent = self.queue.drain(self.sent..).map(Message::void).sum();
        let unconfirmed = self.queue.drain(..).map(Message::void).sum();
        self.metrics.stage.dropped(Reason::ShutdownDeadline.as_str(), unsent);
        self.metrics.uncertain.increment(unconfirmed);
        unsent + unconfirmed
    }
}

/// Connects and opens a stream that acknowledges, if the doppler knows it.
async fn open(channel: Channel) -> Result<Opened, Status> {
    let (frames, outgoing) = mpsc::channel(IN_HAND);
    let mut client = AcknowledgedClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
    match client.stream(ReceiverStream::new(outgoing)).await {
        Ok(response) => Ok(Opened::Acknowledged(frames, response.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(Opened::Plain(channel)),
        Err(status) => Err(status),
    }
}

/// Room for one more; `None` when the receiver, or the sender, is gone.
async fn reserve<T>(sender: Option<mpsc::Sender<T>>) -> Option<mpsc::OwnedPermit<T>> {
    match sender {
        Some(sender) => sender.reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;
    use crate::lane::Board;

    fn link() -> Link {
        let address: transport::Address = "127.0.0.1:1".parse().unwrap();
        let batch = Bounds { envelopes: 1.try_into().unwrap(), bytes: 1.try_into().unwrap() };
        let tuning = Tuning { process: 1, batch, window: Window::new(1), age: Duration::MAX };
        let options = ChannelOptions::default();
        let lane = Lane::new(address, true, Board::new());
        lane.set(Phase::Up);
        Link::new(
            lane,
            options,
            tuning,
            Streams::default(),
            Metrics::register(&telemetry::Telemetry::default()),
            CancellationToken::new(),
        )
    }

    #[test]
    fn marks_end_with_the_link_whether_it_has_taken_them_or_not() {
        let mut link = link();
        let (mut taken, mut waiting) = (link.lane.mark(), link.lane.mark());
        let message = link.lane.take(link.tuning.batch).now_or_never().unwrap();
        link.take(message);
        link.sent = 1;
        link.set(Phase::Down);
        link.end_marks();
        assert!(taken.try_recv().is_err_and(|error| error == TryRecvError::Closed));
        assert!(waiting.try_recv().is_err_and(|error| error == TryRecvError::Closed));
        assert!(link.lane.mark().try_recv().is_err(), "none is put in while the link is down");
        assert!(link.queue.is_empty() && link.lane.is_hungry(), "nothing keeps the link from its end");
    }

    #[test]
    fn a_mark_that_has_ended_keeps_its_place_between_messages() {
        let mut link = link();
        let own = |envelopes| Message { envelopes, ..Message::default() };
        let (told, mut mark) = oneshot::channel();
        link.queue.extend([own(1), Message { flushed: Some(told), ..Message::default() }, own(1)]);
        link.sent = 3;
        link.end_marks();
        assert!(mark.try_recv().is_err_and(|error| error == TryRecvError::Closed));
        link.confirm(2);
        assert_eq!((link.queue.len(), link.sent, link.confirmed), (1, 1, 2), "the doppler had counted the mark");
    }
}
