//! One batch in: to the cache, and to every subscription that matches. No lock that another batch holds, no copy: a subscription gets a reference to the batch
//! and the positions it keeps.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use diode::fair;
use log_cache::Store;
use parking_lot::Mutex;
use proto::raw::{Batch, Selection};
use proto::reason::Reason;
use telemetry::{QueueNumbers, Telemetry};
use tokio::time::{Instant, sleep};

use crate::config::EgressConfig;
use crate::history::{History, Timeline};
use crate::metrics::Metrics;
use crate::subscriptions::{ById, Positions, Request, Subscribed, Subscription, Table, Totals};

/// The router. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Router {
    table: Arc<Table>,
    cache: Option<Store>,
    metrics: Metrics,
    bounds: fair::Bounds,
    /// When the cache was how far.
    timeline: Arc<Mutex<Timeline>>,
    epoch: u64,
}

/// How often rings are looked at that are to be empty.
const LOOK: Duration = Duration::from_millis(2);

impl Router {
    /// A router in front of `cache`, whose subscriptions have the ring of `egress`.
    pub fn new(egress: &EgressConfig, cache: Option<Store>, telemetry: &Telemetry) -> Self {
        let metrics = Metrics::register(telemetry);
        let table = Arc::new(Table::new(metrics.stage.clone(), cache.clone()));
        let bounds = fair::Bounds { envelopes: egress.ring_envelopes, bytes: egress.ring_bytes };
        let (seen, report) = (Arc::clone(&table), metrics.clone());
        telemetry.before_render(move || {
            let totals = seen.totals();
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
        Self { table, cache, metrics, bounds, timeline: Arc::default(), epoch }
    }

    /// Adds a subscription. Its envelopes come out of what is returned; it ends when that is dropped.
    pub fn subscribe(&self, request: Request) -> Subscribed {
        self.table.subscribe(request, self.bounds)
    }

    /// A publisher for one ingress stream.
    pub fn publisher(&self) -> Publisher {
        Publisher {
            router: self.clone(),
            scratch: Vec::new(),
            picks: Vec::new(),
            by_id: HashMap::default(),
            spare: Vec::new(),
        }
    }

    /// Closes every subscription: its consumer gets what is in its ring, and then the end.
    pub(crate) fn close(&self) {
        self.table.close();
    }

    /// True once it has been closed: whoever subscribes now gets nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.table.is_closed()
    }

    /// Ends every subscription as it is: the stop's deadline has passed.
    pub(crate) fn cut(&self) {
        self.table.cut();
    }

    /// What all rings have counted.
    pub(crate) fn totals(&self) -> Totals {
        self.table.totals()
    }

    /// Adds a subscription whose consumer confirms that it has got everything, and finds what it has missed: of what was published in
    /// the last `age` before it came, what nobody of its shard has got.
    ///
    /// History and ring join without gap or repeat: no batch is being published while the subscription enters the table. So what the
    /// cache has up to then is history, and all that is published later comes through the ring. Waits for the batches under way, some
    /// microseconds each.
    pub fn subscribe_from(&self, request: Request, age: Duration) -> (Subscribed, Option<History>) {
        let _nobody_publishes = self.table.gate.write().unwrap_or_else(PoisonError::into_inner);
        let until = self.cache.as_ref().map_or(0, Store::sequence);
        let (subscribed, missed) = self.table.open(request, self.bounds, true);
        let history = self.cache.as_ref().filter(|_| !age.is_zero()).map(|cache| {
            let after = self.timeline.lock().before(Instant::now(), age);
            History::new(cache, missed, after, until)
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
        while !self.table.is_drained() {
            sleep(LOOK).await;
        }
    }

    /// Waits until what is in the rings now has left them, or those who were to get it have gone.
    pub(crate) async fn flushed(&self) {
        let mut marks = self.table.mark();
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
    /// Positions in the batch in hand.
    scratch: Vec<u32>,
    picks: Vec<Pick>,
    /// Where in `picks` a subscription is.
    by_id: HashMap<u64, usize, ById>,
    /// Empty sets, ready to be used again.
    spare: Vec<Vec<u64>>,
}

/// What one subscription gets of the batch in hand: one bit a position.
#[derive(Debug)]
struct Pick {
    subscription: Arc<Subscription>,
    bits: Vec<u64>,
}

impl Publisher {
    /// Publishes one checked batch. Afterwards it is in the cache and in every matching ring: it may be acknowledged.
    pub fn publish(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let metrics = &self.router.metrics;
        let _gate = self.router.table.gate.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = &self.router.cache {
            if let Some(mut timeline) = self.router.timeline.try_lock() {
                timeline.note(Instant::now(), || cache.sequence());
            }
            cache.put(&Selection::from(batch.clone()));
        }
        let words = batch.len().div_ceil(64);
        let (picks, by_id, spare) = (&mut self.picks, &mut self.by_id, &mut self.spare);
        self.router.table.matches(batch, &mut self.scratch, |subscription, positions| {
            let at = *by_id.entry(subscription.id()).or_insert_with(|| {
                let mut bits = spare.pop().unwrap_or_default();
                bits.resize(words, 0);
                picks.push(Pick { subscription: Arc::clone(subscription), bits });
                picks.len() - 1
            });
            set(&mut picks[at].bits, positions);
        });

        let mut matched = spare.pop().unwrap_or_default();
        matched.resize(words, 0);
        let (mut copies, mut evicted, mut rejected) = (0, 0, 0);
        for Pick { subscription, mut bits } in picks.drain(..) {
            let count: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
            if count > 0 {
                matched.iter_mut().zip(&bits).for_each(|(all, word)| *all |= word);
                copies += count as u64;
                let (out, away) = subscription.push(select(batch, &bits, count));
                evicted += out;
                rejected += away;
            }
            bits.clear();
            spare.push(bits);
        }
        by_id.clear();

        let count: u64 = matched.iter().map(|word| u64::from(word.count_ones())).sum();
        matched.clear();
        spare.push(matched);
        metrics.matched.increment(count);
        metrics.unmatched.increment(batch.len() as u64 - count);
        metrics.copies.increment(copies);
        if evicted > 0 {
            metrics.stage.dropped(Reason::QueueFull.as_str(), evicted);
        }
        if rejected > 0 {
            self.router.table.count_rejected(rejected);
        }
    }
}

fn set(bits: &mut [u64], positions: Positions<'_>) {
    match positions {
        Positions::Some(some) => {
            for position in some {
                bits[*position as usize / 64] |= 1 << (position % 64);
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
    for (word, bits) in bits.iter().enumerate() {
        let mut bits = *bits;
        while bits != 0 {
            keep.push(word as u32 * 64 + bits.trailing_zeros());
            bits &= bits - 1;
        }
    }
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
