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
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};
use transport::{Address, Backoff, ChannelOptions, Dopplers, Met, Stay, reason};

use crate::metrics::DrainMetrics;
use crate::notice::{self, Losses};
use crate::syslog::config::Kinds;

/// Envelopes on their way to a drain, and when they came.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) selection: Selection,
    pub(crate) since: Instant,
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
        Self { selection: self.selection.copy_out(kept), since: self.since }
    }
}

/// What a drain asks of dopplers: these kinds of these sources, or of all when none is named.
pub(crate) fn request(name: &str, sources: &[String], kinds: Kinds) -> v2::EgressBatchRequest {
    let any = [String::new()];
    let sources = if sources.is_empty() { &any } else { sources };
    let selectors = sources.iter().flat_map(|source_id| {
        kinds
            .iter()
            .filter_map(selector)
            .map(|message| v2::Selector { source_id: source_id.clone(), message: Some(message) })
    });
    v2::EgressBatchRequest {
        shard_id: format!("hydrant-drain-{name}"),
        selectors: selectors.collect(),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    }
}

fn selector(kind: Kind) -> Option<v2::selector::Message> {
    use v2::selector::Message;
    Some(match kind {
        Kind::Log => Message::Log(v2::LogSelector {}),
        Kind::Counter => Message::Counter(v2::CounterSelector::default()),
        Kind::Gauge => Message::Gauge(v2::GaugeSelector::default()),
        Kind::Timer => Message::Timer(v2::TimerSelector {}),
        Kind::Event => Message::Event(v2::EventSelector {}),
        Kind::None => return None,
    })
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
    pub(crate) request: v2::EgressBatchRequest,
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
        // In a box, so that what opening takes is not kept for as long as the stream is open.
        let opening = Stream::open(channel.clone(), &self.request, known, (since.elapsed(), frame.elapsed()));
        let opened = Box::pin(opening).await;
        let mut stream = opened.inspect_err(|_| known.missed())?;
        loop {
            let event = match stream.next(known).await {
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
                    self.take(batch);
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

    /// Indexes one message and puts it into the ring.
    fn take(&self, message: bytes::Bytes) {
        let (batch, refused) = Batch::index(message);
        self.metrics.received(batch.len() as u64 + refused.total());
        for (reason, count) in refused.by_reason() {
            self.metrics.dropped(reason, count);
        }
        if batch.is_empty() {
            return;
        }
        let mut evicted: Vec<(Batch, Entry)> = Vec::new();
        let load = Queued { selection: batch.into(), since: Instant::now() };
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use diode::fair::Bounds;
    use prost::Message as _;
    use telemetry::Telemetry;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_request_names_each_kind_of_each_source() {
        let request = request("papertrail", &["a".to_owned(), "b".to_owned()], Kinds::LOGS_AND_EVENTS);
        assert_eq!(request.shard_id, "hydrant-drain-papertrail");
        let named: Vec<_> = request.selectors.iter().map(|selector| selector.source_id.as_str()).collect();
        assert_eq!(named, ["a", "a", "b", "b"]);
        assert!(matches!(request.selectors[1].message, Some(v2::selector::Message::Event(_))));
    }

    #[test]
    fn without_sources_everything_of_the_kinds_is_asked_for() {
        let request = request("all", &[], Kinds::ALL);
        assert_eq!(request.selectors.len(), 5);
        assert!(request.selectors.iter().all(|selector| selector.source_id.is_empty() && selector.message.is_some()));
    }
    #[test]
    fn evicted_envelopes_are_recorded_by_source_and_lost_notices_are_not() {
        let size = |n| NonZeroUsize::new(n).unwrap();
        let (ring, _reader) = diode::fair::channel(Bounds { envelopes: size(2), bytes: size(1 << 20) });
        let losses = Arc::new(Losses::new(true));
        let telemetry = Telemetry::default();
        let metrics = Metrics::register(&telemetry).drain(&telemetry, "test");
        let drain = "test".to_owned();
        let subscription = Subscription {
            drain,
            request: request("test", &[], Kinds::ALL),
            ring,
            losses: Arc::clone(&losses),
            metrics,
        };
        let take = |envelopes: Vec<v2::Envelope>| {
            subscription.take(v2::EnvelopeBatch { batch: envelopes }.encode_to_vec().into());
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
