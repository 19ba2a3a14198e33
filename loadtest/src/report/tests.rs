//! Tests of `report`.

use std::num::NonZeroU32;

use super::*;
use crate::payload::Shape;

fn plan() -> Plan {
    let one = NonZeroU32::MIN;
    Plan {
        senders: one,
        connections: one,
        acknowledged: false,
        sources: one,
        batch: NonZeroU32::new(100).unwrap(),
        shape: Shape::default(),
        rate: None,
        count: 1000,
        limit: Duration::from_secs(1),
        groups: NonZeroU32::new(2).unwrap(),
        members: one,
        by_source: false,
        apart: false,
        open: Duration::from_secs(20),
        settle: Duration::from_secs(1),
    }
}

fn group(unique: u64) -> Group {
    let account =
        Account { issued: 1000, received: unique, unique, missing: 1000 - unique, foreign: 2, ..Account::default() };
    Group {
        account,
        latency: Latency { p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, max_ms: 4.0 },
        batches: 10,
        errors: vec![],
    }
}

fn dropped(count: u64, groups: u32) -> Dropped {
    Dropped { server: "doppler".into(), stage: "egress".into(), reason: "queue_full".into(), count, groups }
}

fn run(groups: Vec<Group>, dropped: Vec<Dropped>, cpu_ns: f64) -> Run {
    let usage =
        vec![Usage { name: "doppler".into(), cpu_seconds: 1.0, cpu_ns_per_envelope: cpu_ns, peak_rss_bytes: 3 << 20 }];
    let time = Duration::from_millis(500);
    Run::new("doppler", &plan(), Measured { time, behind: time, drained: time, groups, dropped, usage, errors: vec![] })
}

#[test]
fn what_servers_admit_balances_what_is_missing() {
    let exact = run(vec![group(1000), group(990)], vec![dropped(10, 1)], 1.0);
    assert_eq!((exact.residual, exact.missing(), exact.is_exact()), (0, 10, true));
    let upstream = run(vec![group(995), group(995)], vec![dropped(5, 2)], 1.0);
    assert!(upstream.is_exact(), "a drop before the copying is missing in both groups");
    let silent = run(vec![group(1000), group(990)], vec![dropped(7, 1)], 1.0);
    assert_eq!((silent.residual, silent.is_exact()), (3, false));
    let liar = run(vec![group(1000)], vec![dropped(7, 1)], 1.0);
    assert_eq!((liar.residual, liar.is_exact()), (-7, false));
}

#[test]
fn rates_count_the_group_that_got_fewest() {
    let run = run(vec![group(1000), group(500)], vec![], 1.0);
    assert!((run.per_second - 1000.0).abs() < 1e-9, "{}", run.per_second);
}

#[test]
fn a_comparison_takes_ratios_pair_by_pair() {
    let pair = |subject, other| (run(vec![group(1000)], vec![], subject), run(vec![group(1000)], vec![], other));
    let comparison = Comparison::new("doppler", "relay", vec![pair(3.0, 2.0), pair(10.0, 5.0), pair(2.0, 2.0)]);
    assert_eq!(comparison.cpu, Spread { median: 1.5, min: 1.0, max: 2.0 });
    assert_eq!((comparison.complete, comparison.throughput), (3, Spread { median: 1.0, min: 1.0, max: 1.0 }));
    assert_eq!(Spread::of(vec![4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    assert_eq!(Spread::of(vec![]), Spread::default());
}

#[test]
fn a_pair_that_lost_envelopes_is_not_compared() {
    let pair = |unique, cpu| (run(vec![group(unique)], vec![], cpu), run(vec![group(1000)], vec![], 2.0));
    let comparison = Comparison::new("doppler", "relay", vec![pair(500, 1.0), pair(1000, 3.0)]);
    assert_eq!((comparison.complete, comparison.cpu), (1, Spread { median: 1.5, min: 1.5, max: 1.5 }));
    let mut report = Report::new("doppler");
    report.comparison = Some(Comparison::new("doppler", "relay", vec![pair(500, 1.0)]));
    let last = "doppler / relay, 0 of 1 pairs of runs lost nothing: nothing to compare; choose a lower --rate";
    assert_eq!(report.table().lines().last(), Some(last));
}

#[test]
fn usage_is_the_difference_per_envelope() {
    let sample = |millis| Sample { cpu: Duration::from_millis(millis), rss_bytes: 1, peak_rss_bytes: millis };
    let usage = Usage::between("relay", &sample(500), &sample(1500), 1_000_000);
    assert_eq!((usage.cpu_seconds, usage.cpu_ns_per_envelope, usage.peak_rss_bytes), (1.0, 1000.0, 1500));
    assert_eq!(Usage::between("relay", &sample(5), &sample(5), 0).cpu_ns_per_envelope, 0.0);
}

#[test]
fn a_table_tells_losses_by_hop_and_reason() {
    let mut report = Report::new("doppler");
    let clean = |cpu| run(vec![group(1000)], vec![], cpu);
    let pairs = vec![
        (run(vec![group(1000), group(990)], vec![dropped(7, 1)], 900.0), clean(1000.0)),
        (clean(1500.0), clean(1000.0)),
    ];
    report.comparison = Some(Comparison::new("doppler", "relay", pairs));
    report.idle = Some(Idle { seconds: 30.0, cpu_percent: 0.25, rss_bytes: 32 << 20, peak_rss_bytes: 33 << 20 });
    let table = report.table();
    for line in [
        "doppler: doppler dropped 7 at egress, queue_full (each missing in 1 groups)",
        "doppler: NOT ACCOUNTED FOR: 3 envelopes are missing that no server says it dropped",
        "doppler / relay, 1 of 2 pairs of runs lost nothing; median of these (smallest to largest):",
        "  CPU per envelope  1.50 (1.50 to 1.50)",
        "idle for 30 s: 0.25 % of a core, 32.0 MiB resident, 33.0 MiB at most",
    ] {
        assert!(table.lines().any(|found| found == line), "{line}\nis not in\n{table}");
    }
    let widths: Vec<usize> = table.lines().skip(3).take(3).map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "columns line up: {widths:?}\n{table}");
    assert!(!report.is_exact());
}

#[test]
fn json_holds_every_count() {
    let mut report = Report::new("path");
    report.runs.push(run(vec![group(990), group(1000)], vec![dropped(10, 1)], 1.0));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["runs"][0]["groups"][0]["account"]["missing"], 10);
    assert_eq!(json["runs"][0]["dropped"][0]["reason"], "queue_full");
    assert_eq!(json["runs"][0]["residual"], 0);
    assert_eq!(json["runs"][0]["servers"][0]["peak_rss_bytes"], 3 << 20);
    assert!(json.get("comparison").is_none() && json["machine"]["cores"].as_u64().unwrap() > 0);
}
