//! The way from one doppler's cache to one consumer: a task that follows there, and the lane on which its frames wait.
//!
//! What enters: the frames of a doppler, again and again from its cursor. What leaves: [`Event`]s, at most two ahead; then the doppler
//! has to wait. The task never ends by itself, except after history alone was asked for and has been sent.

use std::time::Duration;

use bytes::Bytes;
use proto::hydrant::v1;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::logcache::v1::EnvelopeType;
use proto::raw::{Batch, Selection};
use proto::selector::{Rule, Selector};
use proto::start::Acquaintance;
use proto::{subscribe, v2};
use telemetry::Throttle;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use tracing::{debug, warn};
use transport::{Address, Backoff, MAX_MESSAGE_BYTES};

use crate::upstream::Upstream;

/// Events of one doppler that may wait for the consumer.
const AHEAD: usize = 2;

/// What a doppler's stream does.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame, as the doppler sent it.
    Frame(v1::FollowFrame),
    /// The doppler cannot be reached; said once until it is back.
    Away,
    /// All of history has been sent, and no more was asked for.
    Ended,
}

/// The end where a doppler's events come out.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) address: Address,
    pub(super) events: mpsc::Receiver<Event>,
}

/// The task's end.
pub(super) struct Source {
    address: Address,
    request: v1::FollowRequest,
    upstream: Upstream,
    events: mpsc::Sender<Event>,
    /// The doppler has said that its history is over.
    live: bool,
    /// Of a history that began without a cursor, envelopes before this are not wanted.
    start_time: Option<i64>,
}

/// The consumer has gone.
struct Gone;

impl Source {
    /// A task for the doppler at `address`, to be [run](Source::run), and its lane. `request` is the consumer's: of its cursors the
    /// doppler gets its own.
    pub(super) fn new(address: Address, request: &v1::FollowRequest, upstream: Upstream) -> (Self, Lane) {
        let (events, lane) = mpsc::channel(AHEAD);
        let name = address.to_string();
        let own = request.after.iter().find(|cursor| cursor.doppler == name);
        let start_time = (own.is_none() && request.start_time != 0).then_some(request.start_time);
        let after = own.map(|cursor| v1::Cursor { doppler: String::new(), ..cursor.clone() }).into_iter().collect();
        let request = v1::FollowRequest { after, ..request.clone() };
        let lane = Lane { address: address.clone(), events: lane };
        (Self { address, request, upstream, events, live: false, start_time }, lane)
    }

    /// Follows until the consumer goes.
    pub(super) async fn run(mut self) {
        static AWAY: Throttle = Throttle::every(Duration::from_secs(10));
        let mut backoff = Backoff::new(Backoff::random_seed());
        let mut said_away = false;
        // One that worked is tried again at once.
        let mut at_once = false;
        loop {
            let mut worked = false;
            let ended = match self.read(&mut worked).await {
                Ok(ended) => ended,
                Err(Gone) => return,
            };
            match ended {
                Ok(()) if self.request.history_only && self.live => {
                    // Nobody is there to hear it if this fails.
                    let _ = self.events.send(Event::Ended).await;
                    return;
                }
                Ok(()) => debug!(doppler = %self.address, "Doppler ended the stream, following again"),
                Err(error) => {
                    if let Some(suppressed) = AWAY.pass() {
                        let (code, message) = (error.code(), error.message());
                        warn!(doppler = %self.address, ?code, message, suppressed, "Following a doppler failed, trying again");
                    }
                }
            }
            if worked {
                backoff.reset();
                (said_away, at_once) = (false, true);
            }
            if std::mem::take(&mut at_once) {
                continue;
            }
            if !std::mem::replace(&mut said_away, true) && self.events.send(Event::Away).await.is_err() {
                return;
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// Reads one stream to its end; `worked` tells whether a frame came.
    async fn read(&mut self, worked: &mut bool) -> Result<Result<(), Status>, Gone> {
        let channel = self.upstream.channel(&self.address);
        let mut client = FollowClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut stream = match client.follow(self.request.clone()).await {
            Ok(response) => response.into_inner(),
            // An original, or one without a cache.
            Err(error) if error.code() == Code::Unimplemented => return self.read_live(worked).await,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let frame = tokio::select! {
                frame = stream.message() => frame,
                () = self.events.closed() => return Err(Gone),
            };
            let mut frame = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(Ok(())),
                Err(error) if error.code() == Code::Cancelled => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            *worked = true;
            if let (false, Some(start)) = (self.live, self.start_time) {
                frame.batch = since(frame.batch, start);
            }
            let cursor = frame.cursor.clone();
            // The mark of a second stream is not news.
            frame.live &= !self.live;
            self.live |= frame.live;
            if let Some(cursor) = &mut frame.cursor {
                cursor.doppler = self.address.to_string();
            }
            self.events.send(Event::Frame(frame)).await.map_err(|_| Gone)?;
            // Only now: what has not been handed over would be lost with this task's stream.
            if let Some(cursor) = cursor {
                self.request.after = vec![cursor];
            }
        }
    }
}

impl Source {
    /// Reads what comes from now on of a doppler that has nothing to follow: its history is over at once, and there are no cursors.
    async fn read_live(&mut self, worked: &mut bool) -> Result<Result<(), Status>, Gone> {
        if self.request.history_only {
            self.live = true;
            return Ok(Ok(()));
        }
        let mut known = Acquaintance::present();
        let now = (Duration::ZERO, Duration::ZERO);
        let (channel, request) = (self.upstream.channel(&self.address), live(&self.request));
        let mut stream = match subscribe::Stream::open(channel, &request, &known, now).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        *worked = true;
        if !std::mem::replace(&mut self.live, true) {
            let live = v1::FollowFrame { live: true, ..v1::FollowFrame::default() };
            self.events.send(Event::Frame(live)).await.map_err(|_| Gone)?;
        }
        loop {
            let event = tokio::select! {
                event = stream.next(&mut known) => event,
                () = self.events.closed() => return Err(Gone),
            };
            let frame = match event {
                Ok(Some(subscribe::Event::Batch(batch))) => v1::FollowFrame { batch, ..v1::FollowFrame::default() },
                Ok(Some(subscribe::Event::Gap(gap))) => {
                    v1::FollowFrame { gap: Some(gap), ..v1::FollowFrame::default() }
                }
                Ok(Some(subscribe::Event::End | subscribe::Event::Changed(_))) => continue,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            self.events.send(Event::Frame(frame)).await.map_err(|_| Gone)?;
        }
    }
}

/// The subscription to what `request` follows.
fn live(request: &v1::FollowRequest) -> v2::EgressBatchRequest {
    let asked = |kind: EnvelopeType| {
        let all = request.envelope_types.is_empty() || request.envelope_types.contains(&EnvelopeType::Any.into());
        all || request.envelope_types.contains(&kind.into())
    };
    let kinds = [
        (EnvelopeType::Log, Rule::Log),
        (EnvelopeType::Counter, Rule::Counter(None)),
        (EnvelopeType::Gauge, Rule::Gauge(None)),
        (EnvelopeType::Timer, Rule::Timer),
        (EnvelopeType::Event, Rule::Event),
    ];
    let rules: Vec<Rule> = kinds.into_iter().filter(|(kind, _)| asked(*kind)).map(|(_, rule)| rule).collect();
    let selector = |id: &str, rule: &Rule| Selector { source_id: Some(id.into()), rule: rule.clone() }.to_wire();
    v2::EgressBatchRequest {
        selectors: request.source_ids.iter().flat_map(|id| rules.iter().map(|rule| selector(id, rule))).collect(),
        use_preferred_tags: true,
        ..v2::EgressBatchRequest::default()
    }
}

/// What of an encoded batch is not older than `start`. A doppler that goes on from a cursor does not look at the start time any more,
/// so what is left of a history is looked at here.
fn since(batch: Bytes, start: i64) -> Bytes {
    let batch = Batch::index(batch).0;
    let keep = batch.entries().iter().zip(0..).filter(|(entry, _)| entry.timestamp >= start).map(|(_, i)| i).collect();
    Selection::new(batch, keep).encode()
}
