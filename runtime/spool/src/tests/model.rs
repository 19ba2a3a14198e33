//! A spool under any sequence of calls, faults, restarts and power losses.

use proptest::collection::vec;
use proptest::prelude::*;

use super::judge::{Judge, Step};
use super::*;
use crate::fs::Fault;

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Io), Just(Fault::NoSpace), Just(Fault::Short), Just(Fault::PowerLoss)];
    prop_oneof![
        8 => (1_u64..8).prop_map(Step::Append),
        8 => Just(Step::Commit),
        1 => Just(Step::Take),
        6 => (0_usize..900, 0_usize..20).prop_map(|(bytes, records)| Step::Read(bytes, records)),
        4 => (0_u64..=100).prop_map(Step::Ack),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Rewind),
        2 => (1_u64..12, fault).prop_map(|(calls, fault)| Step::Fail(calls, fault)),
        1 => Just(Step::Heal),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No committed record is lost, changed, reordered or invented; what is under a durable checkpoint does not come again; the bytes stay
    /// bounded; the sums hold at every step.
    #[test]
    fn keeps_its_promises(steps in vec(step(), 1..120), checkpoint_records in 1_u64..30) {
        let mut judge = Judge::new(Options { checkpoint_records, ..small() });
        for step in &steps {
            judge.step(step);
        }
        // The power may be gone.
        judge.step(&Step::Crash(steps.len() as u64));
        judge.finish();
    }
}
