//! Ledgers, counters, and what is said of them.

use proto::hydrant::v1::{DrainInfo, Dropped, StageInfo};
use proto::loss::Loss;
use proto::reason::Reason;

use super::*;

fn ledger(losses: &[(&str, &str, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (source, consumer, envelopes) in losses {
        let loss = Loss {
            source_id: (*source).to_owned(),
            envelopes: *envelopes,
            first: 1_790_000_000_000_000_000,
            last: 1_790_000_060_000_000_000,
            reason: Reason::QueueFull,
        };
        ledger.add(&loss.ledger("doppler", consumer, 9));
    }
    ledger
}

fn counted(dropped: &[(&str, u64)]) -> OverviewReply {
    let dropped = dropped.iter().map(|(reason, n)| Dropped { reason: (*reason).to_owned(), envelopes: *n });
    let stage = StageInfo { stage: "doppler".to_owned(), dropped: dropped.collect(), ..StageInfo::default() };
    OverviewReply { stages: vec![stage], ..OverviewReply::default() }
}

#[test]
fn losses_are_named_summed_and_explained() {
    let report = Report::new(
        &ledger(&[("app", "#1", 5), ("shop", "#1", 1_000)]),
        &counted(&[("queue_full", 1_005)]),
        None,
        true,
    );
    let expected = "\
WHERE    WHOSE  MISSED BY  WHY          LOST  FIRST                LAST
doppler  shop   #1         queue_full  1 000  2026-09-21 14:13:20  2026-09-21 14:14:20
doppler  app    #1         queue_full      5  2026-09-21 14:13:20  2026-09-21 14:14:20
total: 1 005 lost

The counters of all stages say the same.

queue_full at the doppler: a consumer is slower than";
    let text = report.text(&TimeZone::UTC, false);
    assert!(text.starts_with(expected), "{text}");
    assert_eq!((&report.json()["total"], &report.json()["not_told_apart"]), (&1_005.into(), &0.into()));
}

#[test]
fn what_counters_have_beyond_the_ledger_is_not_told_apart() {
    let reply = counted(&[("queue_full", 9), ("decode_error", 2), ("oversize", 0)]);
    let text = Report::new(&ledger(&[("app", "#1", 5)]), &reply, None, true).text(&TimeZone::UTC, false);
    assert!(text.contains("not told apart: 4 queue_full at the doppler, of 9 counted\n"), "{text}");
    assert!(text.contains("not told apart: 2 decode_error at the doppler, of 2 counted\n"), "{text}");
    assert!(text.contains("decode_error at the doppler: a producer sends") && !text.contains("oversize"), "{text}");
    let text = Report::new(&ledger(&[("app", "#1", 5)]), &counted(&[]), None, true).text(&TimeZone::UTC, false);
    assert!(text.contains("told of before a restart: 5 queue_full"), "{text}");
}

#[test]
fn one_source_is_looked_at_alone() {
    let ledger = ledger(&[("app", "#1", 5), ("shop", "#1", 7)]);
    let mut reply = counted(&[("queue_full", 12)]);
    let dropped = vec![Dropped { reason: "expired".to_owned(), envelopes: 3 }];
    reply.drains.push(DrainInfo { name: "papertrail".to_owned(), dropped, ..DrainInfo::default() });
    let report = Report::new(&ledger, &reply, Some("app"), false);
    assert_eq!((report.total(), report.not_told_apart()), (5, 0));
    assert!(report.text(&TimeZone::UTC, false).contains("not compared"));
    let all = Report::new(&ledger, &reply, None, true);
    assert_eq!(all.total(), 15);
    assert!(all.text(&TimeZone::UTC, false).contains("drain    (several)  papertrail  expired"));
    let none = Report::new(&Ledger::default(), &OverviewReply::default(), None, true).text(&TimeZone::UTC, false);
    assert!(none.starts_with("No loss has been told of.\n") && none.contains("say the same"), "{none}");
}
