//! One consumer's subscription to every doppler, merged into one fair ring.
//!
//! What enters: the consumer's request. What leaves: selections of batches, oldest first, as [`Subscription`] hands them out.
//! A task per doppler reads its stream and pushes into the ring; it never waits for the consumer, so that no doppler is ever
//! held up by one. Over the ring's bounds the source that holds most loses its oldest envelopes, and each is counted.
//! Consumers that name their sources share the streams ([`tails`]); the others have streams of their own.
//!
//! *Invariants.* A doppler that is away, slow or broken changes nothing for the streams of the others. A consumer sees no end
//! when dopplers go: it waits. Dropping the subscription closes every stream at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use diode::fair::{Bounds, Reader};
use proto::hydrant::v1::Gap;
use proto::loss::{Loss, Losses};
use proto::raw::tags::Form;
use proto::raw::{Batch, Selection};
use proto::reason::Reason;
use proto::start::Acquaintance;
use proto::subscribe::{Event, Stream};
use proto::v2;
use telemetry::Throttle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::{debug, warn};
use transport::{Address, Backoff, Met, Stay, reason};

use self::rings::{Ring, Rings};
use self::tails::{Tail, Tails};
use crate::metrics::Metrics;
use crate::upstream::Upstream;

pub(crate) mod rings;
pub(crate) mod tails;

/// A stream that lasted this long did work, even if nothing came: longer than a connection takes to fail.
const WORKED: Duration = Duration::from_secs(10);

/// Makes subscriptions. Cloning shares everything.
#[derive(Clone)]
pub(crate) struct FanIn {
    upstream: Upstream,
    rings: Rings,
    room: Room,
    tails: Tails,
    metrics: Metrics,
    tracker: TaskTracker,
    stop: CancellationToken,
}

/// How far consumers may fall behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// One that reads any source, or shares a shard.
    pub(crate) firehose: Bounds,
    /// One that names its sources.
    pub(crate) tail: Bounds,
}

impl FanIn {
    /// Subscriptions with rings out of `rings` that have `room`; those that can be among `tails` are. Their tasks run on `tracker` and end
    /// with `stop`.
    pub(crate) fn new(
        tails: &Tails,
        (rings, room): (Rings, Room),
        metrics: Metrics,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { upstream: tails.upstream().clone(), rings, room, tails: tails.clone(), metrics, tracker, stop }
    }

    /// Opens `request` on every doppler, now and as dopplers come. Never fails: where no doppler answers, nothing comes.
    /// `markers` says whether the consumer wants to be told what is missing, `form` which form of tags it wants, if not any.
    pub(crate) fn subscribe(&self, request: v2::EgressBatchRequest, markers: bool, form: Option<Form>) -> Subscription {
        let named = request.selectors.iter().all(|selector| !selector.source_id.is_empty());
        let bounds = if named && request.shard_id.is_empty() { self.room.tail } else { self.room.firehose };
        let (ring, reader) = self.rings.ring(bounds, &request.shard_id, markers);
        let cancel = self.stop.child_token();
        let tail = self.tails.join(&request, form, &ring, &cancel);
        let subscription = Subscription {
            reader,
            ring: Arc::clone(&ring),
            metrics: self.metrics.clone(),
            left_over: Reason::PeerLost,
            // For those that share, once for all that want the same.
            form: form.filter(|_| tail.is_none()),
            _cancel: cancel.clone().drop_guard(),
            tail,
        };
        if subscription.tail.is_some() {
            return subscription;
        }
        let feed = Feed {
            request,
            upstream: self.upstream.clone(),
            inlet: Inlet::new(ring, None, self.metrics.clone()),
            tracker: self.tracker.clone(),
            sources: TaskTracker::new(),
            cancel,
            since: Instant::now(),
        };
        self.tracker.spawn(feed.run());
        subscription
    }
}

/// What one consumer is to receive. Dropping it closes the streams to the dopplers and counts what was still in the ring.
pub(crate) struct Subscription {
    reader: Reader<Selection>,
    /// Keeps the ring counted until its reader is gone.
    ring: Arc<Ring>,
    metrics: Metrics,
    left_over: Reason,
    /// What is taken is still to be put into this form.
    form: Option<Form>,
    _cancel: DropGuard,
    /// Its place among those that share streams.
    tail: Option<Tail>,
}

impl Subscription {
    /// Waits for envelopes and moves what is there to the end of `into`, oldest first, within `limit`; one batch always, however
    /// large. Returns how many came: 0 when the server is stopping and everything has been taken.
    ///
    /// # Cancel safety
    /// Envelopes leave the ring only by the poll that returns them.
    pub(crate) async fn take(&mut self, limit: Bounds, into: &mut Vec<Selection>) -> usize {
        self.reader.recv_many(limit, into).await
    }

    /// What was taken, with its tags in the form that was asked for.
    pub(crate) fn in_form(&self, part: &Selection) -> Selection {
        self.form.map_or_else(|| part.clone(), |form| form.convert(part))
    }

    /// What is missing before what is taken next, if the consumer wants to be told.
    pub(crate) fn gaps(&self) -> Vec<Loss> {
        self.ring.gaps()
    }

    /// What will still be in the ring at the end counts as dropped for `reason` instead of as lost with the peer.
    pub(crate) fn count_left_as(&mut self, reason: Reason) {
        self.left_over = reason;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Closed first: what a doppler's task pushes from now on is rejected, and counted by that task.
        self.reader.close();
        self.metrics.dropped(self.left_over, self.reader.counters().envelopes as u64);
    }
}

#[cfg(test)]
impl Subscription {
    /// A subscription to whatever is pushed into the ring, for the tests of those who read.
    pub(crate) fn fed(bounds: Bounds, metrics: &Metrics) -> (Arc<Ring>, Self) {
        let (ring, reader) = metrics.handles().firehose.ring(bounds, "", true);
        let _cancel = CancellationToken::new().drop_guard();
        let own = Arc::clone(&ring);
        (
            ring,
            Self {
                reader,
                ring: own,
                metrics: metrics.clone(),
                left_over: Reason::PeerLost,
                form: None,
                _cancel,
                tail: None,
            },
        )
    }
}

/// Keeps one task per doppler of the live set.
struct Feed {
    request: v2::EgressBatchRequest,
    upstream: Upstream,
    inlet: Inlet,
    tracker: TaskTracker,
    /// The tasks of this consumer alone.
    sources: TaskTracker,
    cancel: CancellationToken,
    /// Since when the consumer is subscribed.
    since: Instant,
}

impl Feed {
    /// Until the consumer goes or the server stops. Then the ring is closed, once the last task has pushed what it had in hand.
    async fn run(self) {
        let known = (Acquaintance::present(), Acquaintance::newcomer());
        let dopplers = self.upstream.dopplers();
        dopplers.read_each(known, &self.cancel, |address, known, stay, met| self.open(address, known, stay, met)).await;
        self.sources.close();
        self.sources.wait().await;
        self.inlet.ring.writer().close();
    }

    /// Starts the task for one doppler.
    fn open(&self, address: Address, known: Acquaintance, stay: Stay, met: Met<Acquaintance>) {
        let (request, upstream, inlet) = (self.request.clone(), self.upstream.clone(), self.inlet.clone());
        let source = Source { address, request, upstream, inlet, since: self.since, known, frame: self.since };
        let cancel = self.cancel.clone();
        let task = async move { cancel.run_until_cancelled(source.run(stay, met)).await };
        self.tracker.spawn(self.sources.track_future(task));
    }
}

/// The stream of one doppler into one consumer's ring.
struct Source {
    address: Address,
    request: v2::EgressBatchRequest,
    upstream: Upstream,
    inlet: Inlet,
    /// Since when the consumer is subscribed.
    since: Instant,
    known: Acquaintance,
    /// When the last frame came.
    frame: Instant,
}

impl Source {
    /// Reads the stream again and again, at once after one that worked, else after growing waits; until the doppler has left the set and
    /// its stream has ended, or for a while longer.
    async fn run(mut self, stay: Stay, met: Met<Acquaintance>) {
        tokio::select! {
            () = self.keep(&stay) => {}
            () = stay.given_up() => {}
        }
        met.put(&self.address, self.known);
    }

    async fn keep(&mut self, stay: &Stay) {
        let mut retry = Retry::new();
        loop {
            let mut received = false;
            let ended = self.read(&mut received).await;
            if matches!(ended, Err(Stopped::ConsumerGone)) || stay.ends() {
                return;
            }
            retry.ended(&ended, &self.address, &self.inlet.metrics);
            retry.pause(received).await;
        }
    }

    /// One stream, from its opening to its end.
    async fn read(&mut self, received: &mut bool) -> Result<(), Stopped> {
        let (age, quiet) = (self.since.elapsed(), self.frame.elapsed());
        let channel = self.upstream.channel(&self.address);
        let opened = Stream::open(channel, &self.request, &self.known, (age, quiet)).await;
        let mut stream = opened.inspect_err(|_| self.known.missed())?;
        self.inlet.metrics.handles().connects.increment(1);
        loop {
            let event = stream.next(&mut self.known).await.inspect_err(|_| self.known.broke())?;
            self.frame = Instant::now();
            match event {
                Some(Event::Batch(bytes)) => {
                    *received = true;
                    self.inlet.push(bytes)?;
                }
                Some(Event::Gap(gap)) => self.inlet.missing(&gap),
                Some(Event::End | Event::Changed(_)) => {}
                None => break,
            }
        }
        self.known.missed();
        Ok(())
    }
}

/// When the next stream of a doppler is opened after one has ended: at once after one that worked, else after growing waits.
struct Retry {
    backoff: Backoff,
    at_once: bool,
    began: Instant,
}

impl Retry {
    fn new() -> Self {
        Self { backoff: Backoff::new(Backoff::random_seed()), at_once: true, began: Instant::now() }
    }

    /// Counts the end of a stream, and says why it came.
    fn ended(&self, ended: &Result<(), Stopped>, doppler: &Address, metrics: &Metrics) {
        static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
        metrics.handles().disconnects.increment(1);
        if let Err(Stopped::Stream(error)) = ended
            && let Some(suppressed) = AWAY.pass()
        {
            let (code, message) = (error.code(), reason(error));
            warn!(%doppler, ?code, message, suppressed, "Doppler's stream failed, trying again");
        } else {
            debug!(%doppler, "Doppler's stream ended, trying again");
        }
    }

    /// Waits until the next try is due. Of the last one it is known whether something came.
    async fn pause(&mut self, received: bool) {
        if received || self.began.elapsed() >= WORKED {
            self.backoff.reset();
            self.at_once = true;
        }
        if !std::mem::take(&mut self.at_once) {
            tokio::time::sleep(self.backoff.next_wait()).await;
        }
        self.began = Instant::now();
    }
}

/// Why a stream is no longer read.
enum Stopped {
    Stream(Status),
    ConsumerGone,
}

impl From<Status> for Stopped {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

/// Where a doppler's messages go: into the consumer's ring, counted.
#[derive(Clone)]
struct Inlet {
    ring: Arc<Ring>,
    /// What goes into the ring has its tags in this form.
    form: Option<Form>,
    metrics: Metrics,
    /// Room to note what a push costs.
    lost: Losses,
}

impl Inlet {
    fn new(ring: Arc<Ring>, form: Option<Form>, metrics: Metrics) -> Self {
        Self { ring, form, metrics, lost: rings::scratch() }
    }

    fn push(&mut self, bytes: Bytes) -> Result<(), Stopped> {
        let (batch, refused) = Batch::index(bytes);
        let offered = batch.len();
        self.metrics.received(offered, &refused);
        let whole = Selection::from(batch);
        let part = self.form.map_or_else(|| whole.clone(), |form| form.convert(&whole));
        let Ok(evicted) = self.ring.push(part, &mut self.lost) else {
            self.metrics.dropped(Reason::PeerLost, offered as u64);
            return Err(Stopped::ConsumerGone);
        };
        self.metrics.dropped(Reason::QueueFull, evicted);
        Ok(())
    }

    /// What a doppler says is missing: of its past, or dropped by its ring for this consumer.
    fn missing(&self, gap: &Gap) {
        let handles = self.metrics.handles();
        if gap.reason.is_empty() {
            handles.replay_gaps.increment(gap.envelopes);
        } else {
            handles.upstream_lost.increment(gap.envelopes);
            self.ring.note(gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use telemetry::Telemetry;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_counted_and_the_rest_goes_on() {
        let telemetry = Telemetry::default();
        let metrics = Metrics::register(&telemetry);
        let bounds = Bounds { envelopes: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX };
        let (ring, mut reader) = metrics.handles().rlp.ring(bounds, "", false);
        let mut inlet = Inlet::new(ring, None, metrics);
        // One empty envelope, then one that says it is longer than what is left.
        assert!(inlet.push(Bytes::from_static(&[0x0a, 0, 0x0a, 9, 1])).is_ok());
        assert_eq!(reader.try_recv().unwrap().len(), 1);
        assert!(inlet.push(Bytes::from_static(b"\xff\xff")).is_ok());
        let text = telemetry.render();
        let received = "hydrant_received_envelopes_total{stage=\"traffic_controller\"} 3";
        let dropped = "hydrant_dropped_envelopes_total{stage=\"traffic_controller\",reason=\"decode_error\"} 2";
        assert!(text.contains(received) && text.contains(dropped), "{text}");
    }

    #[test]
    fn what_comes_after_the_consumer_has_gone_is_counted() {
        let telemetry = Telemetry::default();
        let metrics = Metrics::register(&telemetry);
        let bounds = Bounds { envelopes: NonZeroUsize::MAX, bytes: NonZeroUsize::MAX };
        let (ring, subscription) = Subscription::fed(bounds, &metrics);
        let mut inlet = Inlet::new(ring, None, metrics);
        assert!(inlet.push(Bytes::from_static(&[0x0a, 0, 0x0a, 0])).is_ok());
        drop(subscription);
        assert!(matches!(inlet.push(Bytes::from_static(&[0x0a, 0])), Err(Stopped::ConsumerGone)));
        let dropped = "hydrant_dropped_envelopes_total{stage=\"traffic_controller\",reason=\"peer_lost\"} 3";
        assert!(telemetry.render().contains(dropped), "{}", telemetry.render());
    }
}
