//! The fair ring against what its rules say, done the slow way: a list of envelopes, searched anew for each eviction.

use std::collections::{BTreeMap, VecDeque};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The rules, naively. A tie goes to the lowest hash.
#[derive(Default)]
struct Model {
    envelopes: VecDeque<Envelope>,
}

impl Model {
    fn push(&mut self, load: &Batch, bounds: Bounds) -> Vec<u64> {
        self.envelopes.extend((0..load.len()).map(|i| load.get(i)));
        let mut evicted = Vec::new();
        while self.envelopes.len() > bounds.envelopes.get() || self.bytes() > bounds.bytes.get() {
            let mut by_source = BTreeMap::new();
            for envelope in &self.envelopes {
                *by_source.entry(envelope.source).or_insert(0) += envelope.weight;
            }
            let most = *by_source.values().max().unwrap();
            let victim = by_source.into_iter().find(|(_, bytes)| *bytes == most).unwrap().0;
            let oldest = self.envelopes.iter().position(|envelope| envelope.source == victim).unwrap();
            evicted.push(self.envelopes.remove(oldest).unwrap().id);
        }
        evicted
    }

    fn bytes(&self) -> usize {
        self.envelopes.iter().map(|envelope| envelope.weight).sum()
    }

    fn take(&mut self, count: usize) -> Vec<u64> {
        self.envelopes.drain(..count).map(|envelope| envelope.id).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A load of `(source, weight)`s over a storage so much larger than they are.
    Push(Vec<(u64, usize)>, usize),
    Take,
    TakeMany(usize, usize),
}

fn step(weights: std::ops::Range<usize>) -> impl Strategy<Value = Step> {
    // Few sources and one of them likely, so that runs, mixed loads and ties are all common.
    let source = prop_oneof![3 => Just(0_u64), 4 => 0_u64..8];
    prop_oneof![
        6 => (vec((source, weights), 1..40), prop_oneof![3 => Just(0), 1 => 0_usize..3_000])
            .prop_map(|(envelopes, dead)| Step::Push(envelopes, dead)),
        2 => Just(Step::Take),
        1 => (1_usize..100, 1_usize..10_000).prop_map(|(envelopes, bytes)| Step::TakeMany(envelopes, bytes)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![vec(step(1..30), 1..60), vec(step(1..1_500), 1..60), vec(step(0..6_000), 1..40)]
}

fn some_bounds() -> impl Strategy<Value = Bounds> {
    let bytes = prop_oneof![1_usize..3_000, 1_usize..60_000, Just(1_000_000)];
    (prop_oneof![1_usize..20, 1_usize..300], bytes).prop_map(|(envelopes, bytes)| bounds(envelopes, bytes))
}

/// Runs the steps. With `exact`, every eviction must be the model's; else the ring's own word on evictions is taken, and the rest must
/// follow from it.
fn run(bounds_of: Bounds, sources: usize, overhead: usize, exact: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let (writer, mut reader) = channel_of(bounds_of, sources);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut model = Model::default();
    let mut next = 0;
    for step in steps {
        match step {
            Step::Push(envelopes, dead) => {
                let load = batch(next, envelopes);
                let load = Batch { held: load.held + dead, overhead, ..load };
                next += envelopes.len() as u64;
                let expected = exact.then(|| model.push(&load, bounds_of));
                if !exact {
                    model.envelopes.extend((0..load.len()).map(|i| load.get(i)));
                }
                let evicted = push(&writer, load);
                match expected {
                    Some(expected) => prop_assert_eq!(evicted, expected),
                    None => model.envelopes.retain(|envelope| !evicted.contains(&envelope.id)),
                }
            }
            Step::Take => {
                let ids = reader.try_recv().map(|load| load.ids()).unwrap_or_default();
                prop_assert_eq!(model.take(ids.len()), ids);
            }
            Step::TakeMany(envelopes, bytes) if !model.envelopes.is_empty() => {
                let mut loads = Vec::new();
                let taken = runtime.block_on(reader.recv_many(bounds(*envelopes, *bytes), &mut loads));
                prop_assert!(
                    loads.len() == 1 || taken <= *envelopes && loads.iter().map(Load::bytes).sum::<usize>() <= *bytes
                );
                let ids: Vec<_> = loads.iter().flat_map(Batch::ids).collect();
                prop_assert_eq!(taken, ids.len());
                prop_assert_eq!(model.take(ids.len()), ids);
            }
            Step::TakeMany(..) => {}
        }
        writer.shared.lock().assert_consistent();
        prop_assert_eq!(writer.counters().envelopes, model.envelopes.len());
    }
    let left: Vec<_> = model.envelopes.iter().map(|envelope| envelope.id).collect();
    prop_assert_eq!(drain(&mut reader), left);
    prop_assert_eq!(writer.counters().bytes, 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// The ring evicts the model's envelopes in the model's order, gives out what is left in order, and after every step keeps
    /// both bounds and both sums (`assert_consistent`).
    #[test]
    fn the_ring_does_what_the_rules_say(bounds in some_bounds(), steps in steps()) {
        run(bounds, SOURCES, 0, true, &steps)?;
    }

    /// With a table too small for the sources, and loads whose copies need more than their envelopes weigh: bounds, sums and order
    /// still hold, and everything is taken or evicted exactly once.
    #[test]
    fn bounds_order_and_sums_hold_with_a_small_table_and_overhead(
        bounds in some_bounds(), steps in steps(), sources in 0_usize..5, overhead in 0_usize..500,
    ) {
        run(bounds, sources, overhead, false, &steps)?;
    }

    /// A source that never holds most loses nothing: here eight quiet ones, against one that sends whatever it likes.
    #[test]
    fn quiet_sources_lose_nothing(loud in vec(1_usize..60, 1..40), bytes in any::<bool>()) {
        // Quiet: 8 sources, 16 envelopes of 10 bytes each at most. Loud has room for more than any of them.
        let (writer, mut reader) = if bytes { ring(100_000, 8 * 160 + 400) } else { ring(8 * 16 + 40, 1_000_000) };
        let mut id = 0;
        let (mut quiet, mut evicted) = (Vec::new(), 0);
        for (round, loud) in loud.iter().enumerate() {
            let mut load = vec![(99, 10); *loud];
            if round < 16 {
                load.extend((0..8).map(|source| (source, 10)));
            }
            let ids = id..id + load.len() as u64;
            quiet.extend(ids.clone().skip(*loud));
            let gone = push(&writer, batch(id, &load));
            evicted += gone.len();
            prop_assert!(gone.iter().all(|id| !quiet.contains(id)));
            id = ids.end;
        }
        let left = drain(&mut reader);
        prop_assert_eq!(left.len() + evicted, id as usize);
        prop_assert!(quiet.iter().all(|id| left.contains(id)));
    }
}
