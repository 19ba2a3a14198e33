//! A drain's subscription: one stream from every doppler, merged into the drain's ring.
//!
//! Encoded batches enter ([`proto::subscribe`]), indexed and not decoded; what the ring can hold leaves to the drain. All
//! adapters that run a drain of the same name share its envelopes, as one `shard_id`. A stream that ends is opened again, with waits
//! that grow; a doppler that is away delays no other. It never waits for the drain: what the ring evicts is counted and announced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use diode::fair::{Load, Writer};
use parking_lot::Mutex;
use proto::raw::{Batch, Entry, Kind, Selection};
use proto::reason::Reason;
use proto::start::Acquaintance;
use proto::subscribe::{Event, Stream};
use proto::v2;
use telemetry::Throttle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};
use transport::{Address, Backoff, ChannelOptions, Dopplers, Met, Stay, reason};

use crate::metrics::DrainMetrics;
use crate::notice::{self, Losses};
use crate::select::Select;

/// Envelopes on their way to a drain, and when they came.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) selection: Selection,
    pub(crate) since: Instant,
    /// Of a single envelope that was sent to a stream before: under which id.
    pub(crate) sent_as: Option<SentAs>,
}

/// What an envelope in memory is known by to a stream: the life of a drain, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentAs {
    pub(crate) life: u64,
    pub(crate) number: u64,
}

impl Load for Queued {
    fn len(&self) -> usize {
        self.selection.len()
    }

    fn source(&self, i: usize) -> u64 {
        Load::source(&self.selection, i)
    }

    fn weight(&self, i: usize) -> usize {
        Load::weight(&self.selection, i)
    }

    fn bytes(&self) -> usize {
        Load::bytes(&self.selection)
    }

    fn held(&self) -> usize {
        Load::held(&self.selection)
    }

    fn retain(&mut self, keep: &mut dyn FnMut(usize) -> bool) {
        Load::retain(&mut self.selection, keep);
    }

    fn copy_out(&self, kept: &[usize]) -> Self {
        Self { selection: self.selection.copy_out(kept), since: self.since, sent_as: self.sent_as }
    }
}

/// What a drain asks of dopplers.
fn request(name: &str, selectors: &[v2::Selector]) -> v2::EgressBatchRequest {
    v2::EgressBatchRequest {
        shard_id: format!("hydrant-drain-{name}"),
        selectors: selectors.to_vec(),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    }
}

/// The channels to dopplers, one each, shared by all drains.
#[derive(Debug)]
pub(crate) struct Channels {
    options: ChannelOptions,
    /// Guards the channels by address; they connect when used.
    open: Mutex<HashMap<Address, Channel>>,
}

impl Channels {
    pub(crate) fn new(options: ChannelOptions) -> Self {
        Self { options, open: Mutex::default() }
    }

    fn to(&self, address: &Address) -> Channel {
        let mut open = self.open.lock();
        open.entry(address.clone()).or_insert_with(|| transport::channel(address, &self.options)).clone()
    }
}

/// One doppler that a drain reads from.
struct Follow {
    address: Address,
    channel: Channel,
    known: Acquaintance,
    /// Since when the drain is subscribed.
    since: Instant,
    /// When the last frame came.
    frame: Instant,
}

/// One drain's subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) drain: String,
    /// What is wanted, as it changes. When its sender has gone it changes no more.
    pub(crate) wanted: watch::Receiver<Arc<Select>>,
    pub(crate) ring: Writer<Queued>,
    pub(crate) losses: Arc<Losses>,
    pub(crate) metrics: DrainMetrics,
}

impl Subscription {
    /// Follows the set of dopplers until `stop`, then closes the ring.
    pub(crate) async fn run(self, dopplers: Dopplers, channels: Arc<Channels>, stop: CancellationToken) {
        let subscription = Arc::new(self);
        let (streams, since) = (TaskTracker::new(), Instant::now());
        let known = (Acquaintance::present(), Acquaintance::newcomer());
        let start = |address, known, stay, met| {
            let follow = Follow { channel: channels.to(&address), known, address, since, frame: since };
            let (subscription, stop) = (Arc::clone(&subscription), stop.clone());
            streams.spawn(async move {
                stop.run_until_cancelled(subscription.follow(follow, stay, met)).await;
            });
        };
        dopplers.read_each(known, &stop, start).await;
        streams.close();
        streams.wait().await;
        subscription.ring.close();
    }

    /// Keeps a stream open to one doppler, until it has left the set and its stream has ended, or for a while longer.
    async fn follow(&self, mut follow: Follow, stay: Stay, met: Met<Acquaintance>) {
        tokio::select! {
            () = self.keep(&mut follow, &stay) => {}
            () = stay.given_up() => {}
        }
        met.put(&follow.address, follow.known);
    }

    async fn keep(&self, follow: &mut Follow, stay: &Stay) {
        static LOST: Throttle = Throttle::every(Duration::from_secs(10));
        let mut backoff = Backoff::new(Backoff::random_seed());
        loop {
            let mut received = false;
            let ended = self.stream(follow, &mut received).await;
            if stay.ends() {
                return;
            }
            if received {
                backoff.reset();
            }
            let error = ended.err().map(|status| reason(&status));
            let address = &follow.address;
            match (LOST.pass(), &error) {
                (Some(suppressed), Some(error)) => {
                    warn!(drain = %self.drain, doppler = %address, %error, suppressed, "Subscription lost, retrying");
                }
                (Some(suppressed), None) => {
                    info!(drain = %self.drain, doppler = %address, suppressed, "Subscription ended by the doppler, retrying");
                }
                (None, _) => debug!(drain = %self.drain, doppler = %address, ?error, "Subscription lost, retrying"),
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One stream, from its opening to its end.
    async fn stream(&self, follow: &mut Follow, received: &mut bool) -> Result<(), Status> {
        let Follow { channel, known, since, frame, .. } = follow;
        let mut wanted = self.wanted.clone();
        let mut select = Arc::clone(&wanted.borrow_and_update());
        let request = request(&self.drain, select.selectors());
        // In a box, so that what opening takes is not kept for as long as the stream is open.
        let opening = Stream::open(channel.clone(), &request, known, (since.elapsed(), frame.elapsed()));
        let opened = Box::pin(opening).await;
        drop(request);
        let mut stream = opened.inspect_err(|_| known.missed())?;
        let mut changes = 0;
        loop {
            let next = tokio::select! {
                next = stream.next(known) => next,
                () = changed(&mut wanted) => {
                    let (before, now) = (select, Arc::clone(&wanted.borrow_and_update()));
                    select = now;
                    if before.selectors() == select.selectors() {
                        continue;
                    }
                    if !stream.changes() {
                        // What comes until the next stream is open is lost: such a doppler cannot do better.
                        known.missed();
                        return Ok(());
                    }
                    changes += 1;
                    let (added, removed) = difference(before.selectors(), select.selectors());
                    Box::pin(stream.change(changes, added, removed)).await;
                    continue;
                }
            };
            let event = match next {
                Ok(event) => event,
                Err(status) => {
                    known.broke();
                    return Err(status);
                }
            };
            *frame = Instant::now();
            match event {
                Some(Event::Batch(batch)) => {
                    *received = true;
                    self.take(batch, &select);
                }
                Some(Event::Gap(gap)) if gap.reason.is_empty() => self.metrics.replay_gap(gap.envelopes),
                Some(Event::Gap(gap)) => self.metrics.upstream_lost(gap.envelopes),
                Some(Event::End | Event::Changed(_)) => {}
                None => break,
            }
        }
        known.missed();
        Ok(())
    }

    /// Indexes one message and puts what is wanted of it into the ring.
    fn take(&self, message: bytes::Bytes, select: &Select) {
        let (batch, refused) = Batch::index(message);
        self.metrics.received(batch.len() as u64 + refused.total());
        for (reason, count) in refused.by_reason() {
            self.metrics.dropped(reason, count);
        }
        let mut selection = Selection::from(batch);
        if !select.is_exact() {
            let batch = selection.batch().clone();
            selection.retain(|i| select.admits(&batch, &batch.entries()[i]));
            self.metrics.filtered((batch.len() - selection.len()) as u64);
        }
        if selection.is_empty() {
            return;
        }
        let mut evicted: Vec<(Batch, Entry)> = Vec::new();
        let load = Queued { selection, since: Instant::now(), sent_as: None };
        let pushed = self.ring.push(load, |load, i| {
            evicted.push((load.selection.batch().clone(), *load.selection.entry(i)));
        });
        if let Err(closed) = pushed {
            // The drain is gone: it has been told to stop, and the time it had is over.
            self.metrics.dropped(Reason::ShutdownDeadline, closed.0.len() as u64);
        }
        if evicted.is_empty() {
            return;
        }
        self.metrics.dropped(Reason::QueueFull, evicted.len() as u64);
        let told = |(batch, entry): &&(Batch, Entry)| {
            entry.kind != Kind::Log || !notice::is_notice_envelope(batch.envelope(entry))
        };
        let lost: Vec<_> = evicted.iter().filter(told).collect();
        for run in lost.chunk_by(|(_, one), (_, next)| one.source == next.source) {
            let (batch, entry) = run[0];
            self.losses.record(&String::from_utf8_lossy(batch.source_id(entry)), Reason::QueueFull, run.len() as u64);
        }
    }
}

/// Waits for something else to be wanted.
///
/// # Cancel safety
/// Cancel safe.
async fn changed(wanted: &mut watch::Receiver<Arc<Select>>) {
    if wanted.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is to be asked for besides, and what no more.
fn difference(before: &[v2::Selector], now: &[v2::Selector]) -> (Vec<v2::Selector>, Vec<v2::Selector>) {
    let without = |of: &[v2::Selector], others: &[v2::Selector]| {
        of.iter().filter(|selector| !others.contains(selector)).cloned().collect()
    };
    (without(now, before), without(before, now))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use diode::fair::Bounds;
    use prost::Message as _;
    use telemetry::Telemetry;

    use super::*;
    use crate::metrics::Metrics;
    use crate::syslog::config::Kinds;

    #[test]
    fn evicted_envelopes_are_recorded_by_source_and_lost_notices_are_not() {
        let size = |n| NonZeroUsize::new(n).unwrap();
        let (ring, _reader) = diode::fair::channel(Bounds { envelopes: size(2), bytes: size(1 << 20) });
        let losses = Arc::new(Losses::new(true, String::new()));
        let telemetry = Telemetry::default();
        let metrics = Metrics::register(&telemetry).drain(&telemetry, "test");
        let drain = "test".to_owned();
        let select = Select::new(&[], &[], &std::collections::BTreeMap::new(), Kinds::ALL).unwrap();
        let subscription = Subscription {
            drain,
            wanted: watch::channel(Arc::new(select.clone())).1,
            ring,
            losses: Arc::clone(&losses),
            metrics,
        };
        let take = |envelopes: Vec<v2::Envelope>| {
            subscription.take(v2::EnvelopeBatch { batch: envelopes }.encode_to_vec().into(), &select);
        };
        let notice = v2::Envelope::log(
            "app",
            "7 messages lost for application app in user provided syslog drain with url syslog://h:1",
        );
        take(vec![notice; 10]);
        assert_eq!(losses.due(Instant::now()), [], "a notice that is lost causes none");
        take((0..10).map(|i| v2::Envelope::log("app", i.to_string())).collect());
        let lost = losses.due(Instant::now());
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].source_id.as_str(), &lost[0].by_reason[..]), ("app", &[(Reason::QueueFull, 8)][..]));
        let text = telemetry.render();
        assert!(text.contains("hydrant_dropped_envelopes_total{stage=\"drain\",reason=\"queue_full\"} 18"), "{text}");
    }
}
