//! The load test itself, over real sockets: servers in this process, senders and subscribers around them.

mod loadtest {
    mod faults;
    mod relay;
}

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use hydrant_loadtest::Plan;
use hydrant_loadtest::payload::Shape;

/// Two senders, one group, as fast as it goes.
fn plan(count: u64) -> Plan {
    Plan {
        senders: some(2),
        connections: some(2),
        acknowledged: false,
        sources: some(2),
        batch: some(100),
        shape: Shape::default(),
        rate: None,
        count,
        limit: Duration::from_secs(60),
        groups: some(1),
        members: some(1),
        by_source: false,
        apart: false,
        open: Duration::from_secs(20),
        settle: Duration::from_secs(1),
    }
}

fn some(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("a test's number")
}

fn rate(per_second: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(per_second)
}
