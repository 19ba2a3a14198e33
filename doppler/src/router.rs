//! One batch in: to the cache, and to every subscription that matches. No lock that another batch holds, no copy: a subscription gets a
//! reference to the batch and the positions it keeps.
//!
//! Between v2 and v1 a batch is converted at most once, however many take it, and only those envelopes of it that one of the other version
//! may want.

use std::collections::{BTreeMap, HashMap};
use std::ops::AddAssign;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use diode::fair;
use log_cache::Store;
use parking_lot::Mutex;
use prost::Message as _;
use proto::events;
use proto::loss::{Loss, Losses};
use proto::raw::{Batch, Entry, Kind, Limits, Refused, Selection};
use proto::reason::Reason;
use proto::selector::Selector;
use proto::v1::{self, Converted, Decoded, Payload};
use proto::v2::EnvelopeBatch;
use telemetry::{QueueNumbers, Telemetry};
use tokio::time::{Instant, sleep};

use crate::config::EgressConfig;
use crate::history::{History, Timeline};
use crate::metrics::Metrics;
use crate::subscriptions::{ById, Positions, Request, Subscribed, Subscription, TOLD_SOURCES, Table, Totals, Wanted};

/// The router. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Router {
    table: Arc<Table>,
    /// Those of the v1 transport: of v1 payloads, by app and type.
    v1: Arc<Table>,
    cache: Option<Store>,
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
        Self { table, v1, cache, metrics, bounds, timeline: Arc::default(), epoch }
    }

    /// Adds a subscription. Its envelopes come out of what is returned; it ends when that is dropped.
    pub fn subscribe(&self, request: Request) -> Subscribed {
        self.table.subscribe(request, self.bounds)
    }

    /// Adds a subscription of the v1 transport: its payloads come out as [`v1::batch`] makes them. Sources are apps; logs are
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
        let history = self.cache.as_ref().filter(|_| !age.is_zero()).map(|cache| {
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

/// v1 payloads made of v2 envelopes, and for each the position of its envelope.
#[derive(Debug, Default)]
struct Made {
    payloads: Vec<Payload>,
    origins: Vec<u32>,
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
            router.convert(batch, made);
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
        let (good, mut refused) = check_v1(payloads);
        let _gate = router.table.gate.read().unwrap_or_else(PoisonError::into_inner);
        matched.clear();
        matched.resize(good.len().div_ceil(64), 0);
        let mut put = Put::default();
        if !router.v1.is_empty() && !good.is_empty() {
            let keys: Vec<_> = good.iter().map(|(_, decoded)| (decoded.event_type(), decoded.app_id())).collect();
            let all =
                good.iter().zip(&keys).map(|((payload, _), (event_type, app))| (&payload[..], *event_type, &**app));
            put += v1.put(&router.v1, &v1::batch(all));
            union(matched, &v1.matched);
        }
        let count = good.len();
        let (batch, origins) = router.v2_of(good, &mut refused);
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
        if let Some(cache) = &self.cache {
            if let Some(mut timeline) = self.timeline.try_lock() {
                timeline.note(Instant::now(), || cache.sequence());
            }
            cache.put(&Selection::from(batch.clone()));
        }
        sorter.put(&self.table, batch)
    }

    /// Makes the v1 payloads of those envelopes that a v1 subscriber may want. What has no v1 form is counted once, however many want
    /// it.
    fn convert(&self, batch: &Batch, made: &mut Made) {
        let wanted = self.v1.wanted();
        let system = wanted.kinds(v1::SYSTEM.as_bytes());
        let (mut without_form, mut malformed) = (0, 0);
        let mut run = None;
        for (at, entry) in batch.entries().iter().enumerate() {
            let own = match run {
                Some((source, own)) if source == entry.source => own,
                _ => wanted.kinds(batch.source_id(entry)),
            };
            run = Some((entry.source, own));
            if !may_want_v1(batch, entry, (own, system), &wanted) {
                continue;
            }
            match v1::to_v1(batch.envelope_bytes(entry), &mut made.payloads) {
                Converted::Payloads(payloads) => made.origins.extend(std::iter::repeat_n(at as u32, payloads)),
                Converted::NoForm => without_form += 1,
                Converted::Malformed => malformed += 1,
            }
        }
        for (reason, envelopes) in [(Reason::ConvertError, without_form), (Reason::DecodeError, malformed)] {
            if envelopes > 0 {
                self.metrics.stage.dropped(reason.as_str(), envelopes);
            }
        }
    }

    /// Puts the payloads that were made into the rings of v1 subscribers, and marks what they were made of as matched.
    fn put_v1(&self, sorter: &mut Sorter, made: &mut Made, matched: &mut [u64]) -> Put {
        if made.payloads.is_empty() {
            return Put::default();
        }
        let payloads = made.payloads.iter().map(|payload| (&payload.bytes[..], payload.event_type, &*payload.app_id));
        let put = sorter.put(&self.v1, &v1::batch(payloads));
        ones(&sorter.matched).for_each(|at| set_one(matched, made.origins[at]));
        made.payloads.clear();
        made.origins.clear();
        put
    }

    /// The v2 envelopes of those payloads that the cache or a v2 subscriber may take, and for each the position of its payload.
    fn v2_of(&self, payloads: Vec<(&Bytes, Decoded)>, refused: &mut Refused) -> (Batch, Vec<u32>) {
        let wanted = self.table.wanted();
        let is_cached = self.cache.is_some();
        let (mut bytes, mut origins, mut ends) = (BytesMut::new(), Vec::new(), Vec::new());
        for (at, (_, decoded)) in payloads.into_iter().enumerate() {
            if !is_cached && wanted.kinds(decoded.source_id().as_bytes()) & decoded.kind().bit() == 0 {
                continue;
            }
            let envelope = EnvelopeBatch { batch: vec![decoded.into_v2()] };
            envelope.encode_raw(&mut bytes);
            origins.push(at as u32);
            ends.push(bytes.len());
        }
        let bytes = bytes.freeze();
        let (batch, unfit) = Batch::check(bytes.clone(), &Limits::default());
        if unfit.total() > 0 {
            // Rare: those that do not keep to the limits are found by looking at each alone.
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let fits = |(start, end)| Batch::check(bytes.slice(start..end), &Limits::default()).1.total() == 0;
            let mut fit = starts.zip(ends.iter().copied()).map(fits);
            origins.retain(|_| fit.next().unwrap_or(false));
            *refused += unfit;
        }
        (batch, origins)
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

/// The v1 payloads that may go on, and how many may not.
fn check_v1(payloads: &[Bytes]) -> (Vec<(&Bytes, Decoded)>, Refused) {
    let limits = Limits::default();
    let (mut good, mut refused) = (Vec::with_capacity(payloads.len()), Refused::default());
    for payload in payloads {
        match v1::decode(payload) {
            _ if payload.len() > limits.envelope_bytes => refused.oversize += 1,
            Ok(decoded) if decoded.app_id().len() > limits.source_id_bytes => refused.oversize += 1,
            Ok(decoded) => good.push((payload, decoded)),
            Err(_) => refused.decode_error += 1,
        }
    }
    (good, refused)
}

/// Whether a v1 subscriber may want what an envelope becomes. `own` and `system` are the kinds wanted of its own source and of
/// [`v1::SYSTEM`]: which of the two a gauge goes to shows only once it has been converted.
fn may_want_v1(batch: &Batch, entry: &Entry, (own, system): (u8, u8), wanted: &Wanted<'_>) -> bool {
    let (log, metric) = (Kind::Log.bit(), Kind::Gauge.bit());
    match entry.kind {
        Kind::Log => own & log != 0 || system & metric != 0 && v1::may_be_error(batch.envelope(entry)),
        Kind::Gauge => (own | system) & metric != 0,
        Kind::Counter => system & metric != 0,
        // The app of a request is in v1 the UUID in its usual form, whatever the form in v2.
        Kind::Timer => {
            let text = || std::str::from_utf8(batch.source_id(entry)).ok();
            let usual = || text().and_then(events::Uuid::parse).map(|uuid| uuid.to_string());
            (own | system) & metric != 0 || usual().is_some_and(|id| wanted.kinds(id.as_bytes()) & metric != 0)
        }
        // Without a form in v1. Those who take everything are told.
        Kind::Event | Kind::None => wanted.any() != 0,
    }
}

/// What one table's rings did with a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Put {
    copies: u64,
    evicted: u64,
    rejected: u64,
}

impl AddAssign for Put {
    fn add_assign(&mut self, more: Self) {
        self.copies += more.copies;
        self.evicted += more.evicted;
        self.rejected += more.rejected;
    }
}

/// Sorts a batch by who gets what, and puts it into their rings.
#[derive(Debug)]
struct Sorter {
    /// Positions in the batch in hand.
    scratch: Vec<u32>,
    picks: Vec<Pick>,
    /// Where in `picks` a subscription is.
    by_id: HashMap<u64, usize, ById>,
    /// Empty sets, ready to be used again.
    spare: Vec<Vec<u64>>,
    /// Which positions of the batch that was put last somebody got.
    matched: Vec<u64>,
    lost: Losses,
}

impl Default for Sorter {
    fn default() -> Self {
        Self {
            scratch: Vec::new(),
            picks: Vec::new(),
            by_id: HashMap::default(),
            spare: Vec::new(),
            matched: Vec::new(),
            lost: Losses::new(TOLD_SOURCES),
        }
    }
}

/// What one subscription gets of the batch in hand: one bit a position.
#[derive(Debug)]
struct Pick {
    subscription: Arc<Subscription>,
    bits: Vec<u64>,
}

impl Sorter {
    fn put(&mut self, table: &Table, batch: &Batch) -> Put {
        let Self { scratch, picks, by_id, spare, matched, lost } = self;
        let words = batch.len().div_ceil(64);
        table.matches(batch, scratch, |subscription, positions| {
            let at = *by_id.entry(subscription.id()).or_insert_with(|| {
                let mut bits = spare.pop().unwrap_or_default();
                bits.resize(words, 0);
                picks.push(Pick { subscription: Arc::clone(subscription), bits });
                picks.len() - 1
            });
            set(&mut picks[at].bits, positions);
        });

        matched.clear();
        matched.resize(words, 0);
        let mut put = Put::default();
        for Pick { subscription, mut bits } in picks.drain(..) {
            let count: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
            if count > 0 {
                union(matched, &bits);
                let (evicted, rejected) = subscription.push(select(batch, &bits, count), lost);
                put += Put { copies: count as u64, evicted, rejected };
            }
            bits.clear();
            spare.push(bits);
        }
        by_id.clear();
        put
    }
}

fn union(all: &mut [u64], more: &[u64]) {
    all.iter_mut().zip(more).for_each(|(all, word)| *all |= word);
}

fn set_one(bits: &mut [u64], position: u32) {
    bits[position as usize / 64] |= 1 << (position % 64);
}

/// The positions that are set, in order.
fn ones(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(word, bits)| {
        let mut bits = *bits;
        std::iter::from_fn(move || {
            let at = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(word * 64 + at)
        })
    })
}

fn set(bits: &mut [u64], positions: Positions<'_>) {
    match positions {
        Positions::Some(some) => {
            for position in some {
                set_one(bits, *position);
            }
        }
        Positions::Range(from, to) => {
            for (word, bits) in bits.iter_mut().enumerate().take(to.div_ceil(64)).skip(from / 64) {
                let low = from.saturating_sub(word * 64);
                let high = (to - word * 64).min(64);
                *bits |= (u64::MAX >> (64 - (high - low))) << low;
            }
        }
    }
}

fn select(batch: &Batch, bits: &[u64], count: usize) -> Selection {
    if count == batch.len() {
        return Selection::from(batch.clone());
    }
    let mut keep = Vec::with_capacity(count);
    keep.extend(ones(bits).map(|at| at as u32));
    Selection::new(batch.clone(), keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_set_exactly_their_bits() {
        for (from, to) in [(0, 1), (0, 64), (0, 65), (63, 65), (64, 128), (70, 130), (5, 6), (127, 128), (0, 192)] {
            let mut bits = [0; 3];
            set(&mut bits, Positions::Range(from, to));
            let positions: Vec<usize> = (0..192).filter(|i| bits[i / 64] >> (i % 64) & 1 == 1).collect();
            assert_eq!(positions, (from..to).collect::<Vec<_>>());
        }
    }
}
