//! The rings of all consumers of one kind, counted together.
//!
//! What enters: a ring per consumer, for as long as it is in use. What leaves: the numbers of all of them, when somebody asks for
//! `/metrics`, and what each of them dropped of whose. Costs nothing per envelope or batch that is kept: the rings count for themselves.

use std::collections::HashMap;
use std::sync::Arc;

use diode::Closed;
use diode::fair::{self, Bounds, Counters, Reader, Writer};
use parking_lot::Mutex;
use proto::hydrant::v1::Gap;
use proto::loss::{Loss, Losses, Untold};
use proto::raw::Selection;
use proto::reason::Reason;
use telemetry::{QueueMetrics, QueueNumbers, Telemetry};

/// The rings of one kind. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Rings {
    all: Arc<Mutex<All>>,
}

/// Guarded together, so that a ring is counted once: among the live or among the gone.
#[derive(Default)]
struct All {
    /// Another writer of each ring, to look at its counters, and what it dropped. It keeps the ring open: whoever fills a ring closes it.
    live: HashMap<u64, (Writer<Selection>, Arc<Drops>)>,
    next: u64,
    gone: QueueNumbers,
    /// What rings dropped that are no more.
    untold: Untold,
}

/// What one ring dropped and nobody has been told yet. Held for a moment, after a drop and when somebody asks.
struct Drops {
    /// What the consumer is called where losses are told.
    label: String,
    /// For whoever looks after the pipeline.
    ledger: Mutex<Losses>,
    /// For the consumer, if it wants to be told; with what dopplers dropped.
    gaps: Option<Mutex<Losses>>,
}

/// The writing end of one consumer's ring. It is counted until nobody uses it any more.
pub(crate) struct Ring {
    writer: Writer<Selection>,
    drops: Arc<Drops>,
    id: u64,
    all: Arc<Mutex<All>>,
}

/// Sources of which one consumer's losses are told apart.
const TOLD_SOURCES: usize = 64;

/// Room to note the losses of one push.
pub(crate) fn scratch() -> Losses {
    Losses::new(TOLD_SOURCES)
}

impl Rings {
    /// Rings whose numbers show under `queue`.
    pub(crate) fn register(telemetry: &Telemetry, queue: &'static str) -> Self {
        let rings = Self { all: Arc::default() };
        let (metrics, all) = (QueueMetrics::register(telemetry, queue), Arc::clone(&rings.all));
        telemetry.before_render(move || metrics.report(all.lock().numbers()));
        rings
    }

    /// Envelopes in rings now.
    pub(crate) fn depth(&self) -> u64 {
        self.all.lock().numbers().envelopes as u64
    }

    /// What all rings dropped since the last time, by consumer and source.
    pub(crate) fn take_losses(&self, told: &mut Vec<(String, Loss)>) {
        let mut all = self.all.lock();
        told.append(&mut all.untold.take());
        for (_, drops) in all.live.values() {
            told.extend(drops.take().map(|loss| (drops.label.clone(), loss)));
        }
    }

    /// Who reads now, by what it is called where losses are told, with what its ring has counted.
    pub(crate) fn consumers(&self) -> Vec<(String, Counters)> {
        let all = self.all.lock();
        all.live.values().map(|(ring, drops)| (drops.label.clone(), ring.counters())).collect()
    }

    /// A ring for one consumer: of the shard `label`, or of none. It wants to be told what is `missing`, or not.
    pub(crate) fn ring(&self, bounds: Bounds, label: &str, missing: bool) -> (Arc<Ring>, Reader<Selection>) {
        let (writer, reader) = fair::channel(bounds);
        let mut all = self.all.lock();
        let id = all.next;
        all.next += 1;
        let label = if label.is_empty() { format!("#{id}") } else { label.to_owned() };
        let gaps = missing.then(|| Mutex::new(scratch()));
        let drops = Arc::new(Drops { label, ledger: Mutex::new(scratch()), gaps });
        all.live.insert(id, (writer.clone(), Arc::clone(&drops)));
        (Arc::new(Ring { writer, drops, id, all: Arc::clone(&self.all) }), reader)
    }
}

impl Ring {
    /// The writing end.
    pub(crate) fn writer(&self) -> &Writer<Selection> {
        &self.writer
    }

    /// Puts a part in; returns how many envelopes had to leave. `scratch` is room to work in, and empty before and after.
    ///
    /// # Errors
    /// The consumer has gone.
    pub(crate) fn push(&self, part: Selection, scratch: &mut Losses) -> Result<u64, Closed<Selection>> {
        self.writer.push(part, |part, at| scratch.add(part.batch(), part.entry(at)))?;
        let evicted = scratch.total();
        if evicted > 0 {
            self.drops.ledger.lock().add_all(scratch);
            if let Some(gaps) = &self.drops.gaps {
                gaps.lock().add_all(scratch);
            }
            scratch.clear();
        }
        Ok(evicted)
    }

    /// Notes what a doppler has dropped before it came here: that doppler has told whoever looks after the pipeline.
    pub(crate) fn note(&self, gap: &Gap) {
        if let Some(gaps) = &self.drops.gaps {
            gaps.lock().add_gap(gap);
        }
    }

    /// What is missing since the last time.
    pub(crate) fn gaps(&self) -> Vec<Loss> {
        self.drops.gaps.as_ref().map(|gaps| gaps.lock().take(Reason::QueueFull)).unwrap_or_default()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        all.live.remove(&self.id);
        all.gone += numbers(&self.writer.counters());
        all.untold.add(&self.drops.label, self.drops.take());
    }
}

impl Drops {
    fn take(&self) -> impl Iterator<Item = Loss> + use<> {
        self.ledger.lock().take(Reason::QueueFull).into_iter()
    }
}

impl All {
    fn numbers(&self) -> QueueNumbers {
        let mut sum = self.gone;
        for (ring, _) in self.live.values() {
            sum += numbers(&ring.counters());
        }
        sum
    }
}

fn numbers(counters: &Counters) -> QueueNumbers {
    QueueNumbers {
        offered: counters.offered,
        accepted: counters.accepted,
        rejected: counters.rejected,
        taken: counters.taken,
        evicted: counters.evicted,
        envelopes: counters.envelopes,
        bytes: counters.bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use proto::raw::{Batch, wire};

    use super::*;

    fn three() -> Selection {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            wire::put_bytes(&mut bytes, 1, b"");
        }
        Selection::from(Batch::index(bytes.into()).0)
    }

    #[test]
    fn a_ring_counts_while_it_is_used_and_afterwards() {
        let telemetry = Telemetry::default();
        let rings = Rings::register(&telemetry, "test");
        let four = NonZeroUsize::new(4).unwrap();
        let (ring, mut reader) = rings.ring(Bounds { envelopes: four, bytes: NonZeroUsize::MAX }, "", false);
        let (other, other_reader) = rings.ring(Bounds { envelopes: four, bytes: NonZeroUsize::MAX }, "", false);
        ring.writer().push(three(), |_, _| ()).unwrap();
        ring.writer().push(three(), |_, _| ()).unwrap();
        other.writer().push(three(), |_, _| ()).unwrap();
        assert_eq!(reader.try_recv().unwrap().len(), 1, "the ring keeps the newest four");

        let shows = |line: &str| assert!(telemetry.render().contains(line), "{line} in\n{}", telemetry.render());
        shows("hydrant_queue_accepted_total{queue=\"test\"} 9");
        shows("hydrant_queue_evicted_total{queue=\"test\"} 2");
        shows("hydrant_queue_depth_envelopes{queue=\"test\"} 6");
        drop((reader, ring, other_reader, other));
        shows("hydrant_queue_accepted_total{queue=\"test\"} 9");
        shows("hydrant_queue_taken_total{queue=\"test\"} 1");
        shows("hydrant_queue_evicted_total{queue=\"test\"} 8");
        shows("hydrant_queue_depth_envelopes{queue=\"test\"} 0");
    }
}
