//! The one stream of one doppler for all consumers that share it: opened while somebody wants something, changed as they come and go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::hydrant::v1::Gap;
use proto::raw::Batch;
use proto::selector::{MAX_SELECTORS, Selector};
use proto::start::Acquaintance;
use proto::subscribe::{Event, Stream};
use proto::v2;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use transport::{Address, Met, Stay};

use super::super::{Inlet, Retry, Source, Stopped};
use super::{Scratch, Shared};

/// What has changed since a doppler was last asked. Noted under the lock of the table of consumers.
#[derive(Default)]
pub(super) struct Pending {
    /// Wanted from now on, or not any more.
    changes: Mutex<HashMap<Selector, bool>>,
    news: Notify,
}

impl Pending {
    pub(super) fn note(&self, selector: &Selector, is_wanted: bool) {
        self.changes.lock().insert(selector.clone(), is_wanted);
    }

    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    /// Up to a request's worth of changes: those to add, and those to remove.
    fn take(&self) -> (Vec<v2::Selector>, Vec<v2::Selector>) {
        let mut changes = self.changes.lock();
        let some: Vec<Selector> = changes.keys().take(MAX_SELECTORS).cloned().collect();
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for selector in some {
            let list = if changes.remove(&selector) == Some(true) { &mut added } else { &mut removed };
            list.push(selector.to_wire());
        }
        (added, removed)
    }

    fn is_empty(&self) -> bool {
        self.changes.lock().is_empty()
    }
}

/// The lane to one doppler.
pub(super) struct Lane {
    address: Address,
    shared: Arc<Shared>,
    pending: Arc<Pending>,
    known: Acquaintance,
    /// When the last frame came.
    frame: Instant,
    scratch: Scratch,
    /// Streams of single consumers are among these.
    lanes: TaskTracker,
}

/// What a stream is opened with.
struct Opening {
    request: v2::EgressBatchRequest,
    /// How long each of its selectors has been wanted.
    ages: Vec<Duration>,
}

/// How the stream of a lane ended.
enum End {
    /// Nobody wants anything any more.
    Idle,
    /// The doppler knows no streams that change.
    Plain,
    Stopped(Result<(), Stopped>),
}

impl Lane {
    pub(super) fn new(address: Address, shared: Arc<Shared>, known: Acquaintance, lanes: TaskTracker) -> Self {
        let pending = Arc::<Pending>::default();
        shared.table.write().lanes.push(Arc::clone(&pending));
        Self { address, shared, pending, known, frame: Instant::now(), scratch: Scratch::default(), lanes }
    }

    /// Reads stream after stream until the doppler has left the set and its stream has ended, or for a while longer.
    pub(super) async fn run(mut self, stay: Stay, met: Met<Acquaintance>) {
        tokio::select! {
            () = self.keep(&stay, &met) => {}
            () = stay.given_up() => {}
        }
        met.put(&self.address, self.known.clone());
    }

    async fn keep(&mut self, stay: &Stay, met: &Met<Acquaintance>) {
        let mut retry = Retry::new();
        loop {
            let Some(opening) = self.opening() else {
                if stay.ends() {
                    return;
                }
                self.pending.news.notified().await;
                continue;
            };
            let mut received = false;
            match self.read(opening, &mut received).await {
                End::Idle => {}
                End::Plain => self.plain(stay, met).await,
                End::Stopped(ended) => {
                    if stay.ends() {
                        return;
                    }
                    retry.ended(&ended, &self.address, &self.shared.metrics);
                    retry.pause(received).await;
                }
            }
        }
    }

    /// All that is wanted now; nothing if nobody wants anything. What does not fit into one request is left to changes.
    fn opening(&self) -> Option<Opening> {
        let table = self.shared.table.read();
        let mut changes = self.pending.changes.lock();
        changes.clear();
        let (mut selectors, mut ages) = (Vec::new(), Vec::new());
        for (selector, wanted) in &table.wanted {
            if selectors.len() < MAX_SELECTORS {
                selectors.push(selector.to_wire());
                ages.push(wanted.since.elapsed());
            } else {
                changes.insert(selector.clone(), true);
            }
        }
        let request = v2::EgressBatchRequest { selectors, ..v2::EgressBatchRequest::default() };
        (!request.selectors.is_empty()).then_some(Opening { request, ages })
    }

    async fn read(&mut self, Opening { request, ages }: Opening, received: &mut bool) -> End {
        let channel = self.shared.upstream.channel(&self.address);
        let age = ages.iter().max().copied().unwrap_or_default();
        let start = (age, self.frame.elapsed());
        let mut stream = match Stream::open_changing(channel, &request, &self.known, start, &ages).await {
            Ok(Some(stream)) => stream,
            Ok(None) => return End::Plain,
            Err(status) => {
                self.known.missed();
                return End::Stopped(Err(status.into()));
            }
        };
        self.shared.metrics.handles().connects.increment(1);
        // One change at a time: the doppler answers each, and what comes meanwhile waits together.
        let (mut number, mut answered) = (0, 0);
        loop {
            if number == answered && !self.pending.is_empty() {
                if self.shared.table.read().wanted.is_empty() {
                    return End::Idle;
                }
                let (added, removed) = self.pending.take();
                number += 1;
                stream.change(number, added, removed).await;
            }
            let event = tokio::select! {
                event = stream.next(&mut self.known) => event,
                () = self.pending.news.notified() => continue,
            };
            let event = match event {
                Ok(event) => event,
                Err(status) => {
                    self.known.broke();
                    return End::Stopped(Err(status.into()));
                }
            };
            self.frame = Instant::now();
            match event {
                Some(Event::Batch(bytes)) => {
                    *received = true;
                    let (batch, refused) = Batch::index(bytes);
                    self.shared.metrics.received(0, &refused);
                    self.shared.give(&batch, &mut self.scratch);
                }
                Some(Event::Gap(gap)) => self.missing(&gap),
                Some(Event::Changed(changed)) => answered = changed,
                Some(Event::End) => {}
                None => break,
            }
        }
        self.known.missed();
        End::Stopped(Ok(()))
    }

    /// What a doppler says is missing.
    fn missing(&self, gap: &Gap) {
        let handles = self.shared.metrics.handles();
        if gap.reason.is_empty() {
            handles.replay_gaps.increment(gap.envelopes);
        } else {
            handles.upstream_lost.increment(gap.envelopes);
            self.shared.table.read().note(gap);
        }
    }

    /// Gives each consumer a stream of its own, until there are none any more.
    async fn plain(&mut self, stay: &Stay, met: &Met<Acquaintance>) {
        let mut served = HashSet::new();
        loop {
            // Each source asks for all that its consumer wants.
            self.pending.changes.lock().clear();
            let members: Vec<_> = self.shared.table.read().members.values().cloned().collect();
            if members.is_empty() {
                return;
            }
            served.retain(|id| members.iter().any(|member| member.id == *id));
            for member in members {
                if !served.insert(member.id) {
                    continue;
                }
                let now = Instant::now();
                let source = Source {
                    address: self.address.clone(),
                    request: member.request.clone(),
                    upstream: self.shared.upstream.clone(),
                    inlet: Inlet::new(Arc::clone(&member.ring), member.form, self.shared.metrics.clone()),
                    since: now,
                    known: Acquaintance::present(),
                    frame: now,
                };
                let (cancel, stays, met) = (member.cancel.clone(), stay.clone(), met.clone());
                let task = async move { cancel.run_until_cancelled(source.run(stays, met)).await };
                self.shared.tracker.spawn(self.lanes.track_future(task));
            }
            self.pending.news.notified().await;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.table.write().lanes.retain(|lane| !Arc::ptr_eq(lane, &self.pending));
    }
}
