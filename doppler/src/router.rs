//! One batch in: to the cache, and to every subscription that matches. No lock that another batch holds, no copy: a subscription gets a
//! reference to the batch and the positions it keeps.
//!
//! Between v2 and v1 a batch is converted at most once, however many take it, and only those envelopes of it that one of the other version
//! may want.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use diode::fair;
use log_cache::{Node, Store};
use parking_lot::Mutex;
use prost::Message as _;
use proto::loss::Loss;
use proto::raw::{Batch, Selection};
use proto::reason::Reason;
use proto::selector::Selector;
use proto::v2::EnvelopeBatch;
use telemetry::{QueueNumbers, Telemetry};
use tokio::time::{Instant, sleep};

use self::sorter::{Put, Sorter, ones, set_one, union};
use self::v1::Made;
use crate::config::EgressConfig;
use crate::history::{History, Timeline};
use crate::metrics::Metrics;
use crate::subscriptions::{Request, Subscribed, Table, Totals};

mod sorter;
mod v1;

/// The router. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Router {
    table: Arc<Table>,
    /// Those of the v1 transport: of v1 payloads, by app and type.
    v1: Arc<Table>,
    cache: Option<Store>,
    /// What takes envelopes into the cache.
    node: Option<Node>,
    metrics: Metrics,
    bounds: fair::Bounds,
    /// When the cache was how far.
    timeline: Arc<Mutex<Timeline>>,
    epoch: u64,
}

/// Losses told one by one at a time.
const TOLD: usize = 1_000;

/// How often rings are looked at that are to be empty.
const LOOK: Duration = Duration::from_millis(2);

impl Router {
    /// A router in front of `cache`, whose subscriptions have the ring of `egress`.
    pub fn new(egress: &EgressConfig, cache: Option<Store>, telemetry: &Telemetry) -> Self {
        let metrics = Metrics::register(telemetry);
        let table = Arc::new(Table::new(metrics.stage.clone(), cache.clone()));
        let v1 = Arc::new(Table::new(metrics.stage.clone(), None));
        let bounds = fair::Bounds { envelopes: egress.ring_envelopes, bytes: egress.ring_bytes };
        let (seen, report) = ([Arc::clone(&table), Arc::clone(&v1)], metrics.clone());
        telemetry.before_render(move || {
            let totals: Totals = seen.iter().map(|table| table.totals()).sum();
            let counters = totals.counters;
            report.queue.report(QueueNumbers {
                offered: counters.offered,
                accepted: counters.accepted,
                rejected: counters.rejected,
                taken: counters.taken,
                evicted: counters.evicted,
                envelopes: counters.envelopes,
                bytes: counters.bytes,
            });
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 subscriptions")]
            report.subscriptions.set(totals.open as f64);
        });
        let epoch = cache.as_ref().map_or_else(transport::Backoff::random_seed, Store::epoch).max(1);
        let node = cache.clone().map(Node::from);
        Self { table, v1, cache, node, metrics, bounds, timeline: Arc::default(), epoch }
    }

    /// Puts into the cache by `node`, which may know others that some envelopes belong to.
    pub(crate) fn placed(self, node: Node) -> Self {
        Self { node: Some(node), ..self }
    }

    /// True when the cache holds what was published here and nothing else, so that it is what subscribers have missed.
    fn has_history(&self) -> bool {
        self.node.as_ref().is_some_and(|node| !node.is_placed())
    }

    /// Adds a subscription. Its envelopes come out of what is returned; it ends when that is dropped.
    pub fn subscribe(&self, request: Request) -> Subscribed {
        self.table.subscribe(request, self.bounds)
    }

    /// Adds a subscription of the v1 transport: its payloads come out as [`proto::v1::batch`] makes them. Sources are apps; logs are
    /// [`Rule::Log`](proto::selector::Rule::Log), and everything else gauges.
    pub fn subscribe_v1(&self, request: Request) -> Subscribed {
        self.v1.subscribe(request, self.bounds)
    }

    /// A publisher for one ingress stream.
    pub fn publisher(&self) -> Publisher {
        Publisher {
            router: self.clone(),
            v2: Sorter::default(),
            v1: Sorter::default(),
            made: Made::default(),
            matched: Vec::new(),
        }
    }

    /// Who is subscribed, with what the ring of each has counted.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (String, fair::Counters)> {
        self.tables().into_iter().flat_map(Table::consumers)
    }

    /// The cache, if there is one.
    pub(crate) fn cache(&self) -> Option<&Store> {
        self.cache.as_ref()
    }

    fn tables(&self) -> [&Table; 2] {
        [&self.table, &self.v1]
    }

    /// Closes every subscription: its consumer gets what is in its ring, and then the end.
    pub(crate) fn close(&self) {
        self.tables().into_iter().for_each(Table::close);
    }

    /// True once it has been closed: whoever subscribes now gets nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.table.is_closed()
    }

    /// Ends every subscription as it is: the stop's deadline has passed.
    pub(crate) fn cut(&self) {
        self.tables().into_iter().for_each(Table::cut);
    }

    /// What all rings have counted.
    pub(crate) fn totals(&self) -> Totals {
        self.tables().iter().map(|table| table.totals()).sum()
    }

    /// Adds a subscription whose consumer confirms that it has got everything, and finds what it has missed: of what was published in
    /// the last `age` before it came, less where `ages` says so of a selector, what nobody of its shard has got.
    ///
    /// History and ring join without gap or repeat: no batch is being published while the subscription enters the table. So what the
    /// cache has up to then is history, and all that is published later comes through the ring. Waits for the batches under way, some
    /// microseconds each.
    pub fn subscribe_from(
        &self,
        request: Request,
        age: Duration,
        ages: &HashMap<Selector, Duration>,
    ) -> (Subscribed, Option<History>) {
        let _nobody_publishes = self.table.gate.write().unwrap_or_else(PoisonError::into_inner);
        let until = self.cache.as_ref().map_or(0, Store::sequence);
        let (subscribed, missed) = self.table.open(request, self.bounds, true);
        let history = self.cache.as_ref().filter(|_| !age.is_zero() && self.has_history()).map(|cache| {
            let (timeline, now) = (self.timeline.lock(), Instant::now());
            let since = |(selector, since): (Selector, u64)| {
                let age = ages.get(&selector).map_or(age, |own| age.min(*own));
                let after = if age.is_zero() { until } else { timeline.before(now, age) };
                (selector, since.max(after))
            };
            History::new(cache, missed.into_iter().map(since).collect(), until)
        });
        (subscribed, history)
    }

    /// A number of this life of the doppler.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Waits until every consumer has got everything and those that confirm have confirmed. For a stop: rings that go on filling are
    /// never empty.
    pub(crate) async fn drained(&self) {
        while !self.tables().iter().all(|table| table.is_drained()) {
            sleep(LOOK).await;
        }
    }

    /// Waits until what is in the rings now has left them, or those who were to get it have gone.
    pub(crate) async fn flushed(&self) {
        let mut marks = self.tables().map(Table::mark).concat();
        loop {
            marks.retain(|mark| !mark.has_left());
            if marks.is_empty() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Publishes batches. It keeps the scratch space of one ingress stream, so that nothing is allocated for it per envelope.
#[derive(Debug)]
pub struct Publisher {
    router: Router,
    v2: Sorter,
    v1: Sorter,
    made: Made,
    /// Which envelopes of the batch in hand somebody got: one bit a position.
    matched: Vec<u64>,
}

impl Publisher {
    /// Publishes one checked batch. Afterwards it is in the cache and in every matching ring: it may be acknowledged.
    pub fn publish(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let Self { router, v2, v1, made, matched } = self;
        let _gate = router.table.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut put = router.put_v2(v2, batch);
        matched.clear();
        matched.extend_from_slice(&v2.matched);
        if !router.v1.is_empty() {
            made.of(batch, &router.v1.wanted(), &router.metrics.stage);
            put += router.put_v1(v1, made, matched);
        }
        router.count(batch.len(), matched, put);
    }

    /// Publishes v1 payloads, each checked here. They go to v1 subscribers as they came, and become v2 envelopes only where the cache or
    /// a v2 subscriber takes them.
    pub fn publish_v1(&mut self, payloads: &[Bytes]) {
        let Self { router, v2, v1, matched, .. } = self;
        let stage = &router.metrics.stage;
        stage.received(payloads.len() as u64);
        let (good, mut refused) = v1::check(payloads);
        let _gate = router.table.gate.read().unwrap_or_else(PoisonError::into_inner);
        matched.clear();
        matched.resize(good.len().div_ceil(64), 0);
        let mut put = Put::default();
        if !router.v1.is_empty() && !good.is_empty() {
            let keys: Vec<_> = good.iter().map(|(_, decoded)| (decoded.event_type(), decoded.app_id())).collect();
            let all =
                good.iter().zip(&keys).map(|((payload, _), (event_type, app))| (&payload[..], *event_type, &**app));
            put += v1.put(&router.v1, &proto::v1::batch(all));
            union(matched, &v1.matched);
        }
        let count = good.len();
        let (batch, origins) = v1::v2_of(good, &router.table.wanted(), router.cache.is_some(), &mut refused);
        if !batch.is_empty() {
            put += router.put_v2(v2, &batch);
            ones(&v2.matched).for_each(|at| set_one(matched, origins[at]));
        }
        for (reason, envelopes) in refused.by_reason() {
            stage.dropped(reason.as_str(), envelopes);
        }
        router.count(count, matched, put);
    }

    /// Publishes what was lost since the last time, as counters of the source `hydrant`: by subscription and source, as many as
    /// [`TOLD`], and the rest by reason.
    pub fn tell_losses(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let mut batch = Vec::new();
        let mut rest: BTreeMap<Reason, Loss> = BTreeMap::new();
        for table in self.router.tables() {
            table.take_losses(|subscription, loss| {
                if batch.len() < TOLD {
                    batch.push(loss.ledger("doppler", &subscription, now));
                } else {
                    rest.entry(loss.reason).or_insert_with(|| Loss::unknown(loss.reason)).envelopes += loss.envelopes;
                }
            });
        }
        batch.extend(rest.values().map(|loss| loss.ledger("doppler", "", now)));
        if batch.is_empty() {
            return;
        }
        let (batch, _) = Batch::index(EnvelopeBatch { batch }.encode_to_vec().into());
        self.router.metrics.stage.received(batch.len() as u64);
        self.publish(&batch);
    }
}

impl Router {
    /// Puts a batch into the cache and into the rings of v2 subscribers.
    fn put_v2(&self, sorter: &mut Sorter, batch: &Batch) -> Put {
        if let Some(cache) = &self.cache
            && let Some(mut timeline) = self.timeline.try_lock()
        {
            timeline.note(Instant::now(), || cache.sequence());
        }
        if let Some(node) = &self.node {
            node.put(&Selection::from(batch.clone()));
        }
        sorter.put(&self.table, batch)
    }

    /// Puts the payloads that were made into the rings of v1 subscribers, and marks what they were made of as matched.
    fn put_v1(&self, sorter: &mut Sorter, made: &mut Made, matched: &mut [u64]) -> Put {
        if made.payloads.is_empty() {
            return Put::default();
        }
        let payloads = made.payloads.iter().map(|payload| (&payload.bytes[..], payload.event_type, &*payload.app_id));
        let put = sorter.put(&self.v1, &proto::v1::batch(payloads));
        ones(&sorter.matched).for_each(|at| set_one(matched, made.origins[at]));
        made.payloads.clear();
        made.origins.clear();
        put
    }

    /// Counts what became of `envelopes`.
    fn count(&self, envelopes: usize, matched: &[u64], Put { copies, evicted, rejected }: Put) {
        let count: u64 = matched.iter().map(|word| u64::from(word.count_ones())).sum();
        self.metrics.matched.increment(count);
        self.metrics.unmatched.increment(envelopes as u64 - count);
        self.metrics.copies.increment(copies);
        if evicted > 0 {
            self.metrics.stage.dropped(Reason::QueueFull.as_str(), evicted);
        }
        if rejected > 0 {
            self.table.count_rejected(rejected);
        }
    }
}
