//! Groups over the wire: who of those with the same shard gets an envelope (contract: loggregator v2 §5.3).

use std::collections::BTreeSet;

use proto::v2::Envelope;

use crate::client::{Doppler, Subscriber, counters, gauge, gauges, logs};

/// CRC-64/XZ by its definition, one bit at a time.
fn crc(name: &str) -> u64 {
    !name.bytes().fold(u64::MAX, |crc, byte| {
        (0..8).fold(crc ^ u64::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xC96C_5795_D787_0F42 } else { 0 })
    })
}

#[test]
fn the_crc_is_that_of_the_contract() {
    assert_eq!((crc(""), crc("123456789"), crc("cpu")), (0, 0x995d_c9bb_df19_39fa, 0x2996_17cc_a885_8044));
}

fn lines(source_id: &str, range: std::ops::Range<i64>) -> Vec<Envelope> {
    range.map(|i| Envelope::log(source_id, format!("line {i}")).at(i)).collect()
}

fn numbers(envelopes: &[Envelope]) -> Vec<i64> {
    envelopes.iter().map(|envelope| envelope.timestamp).collect()
}

/// Every number of `range` is in exactly one of `parts`, each in order.
#[track_caller]
fn assert_shared(parts: &[&Vec<Envelope>], range: std::ops::Range<i64>) {
    for part in parts {
        assert!(numbers(part).is_sorted(), "a part keeps its order");
    }
    let mut all: Vec<i64> = parts.iter().flat_map(|part| numbers(part)).collect();
    all.sort_unstable();
    assert_eq!(all, range.collect::<Vec<_>>(), "each goes to exactly one");
}

#[tokio::test]
async fn without_a_shard_everybody_gets_a_copy_and_of_a_group_one_does() {
    let doppler = Doppler::start().await;
    let alone = [doppler.subscribe(vec![logs("")]).await, doppler.subscribe(vec![logs("")]).await];
    let group = [doppler.join("m", "", vec![logs("")]).await, doppler.join("m", "", vec![logs("")]).await];
    let other = doppler.join("n", "", vec![logs("")]).await;
    let [a, b] = alone;
    let [c, d] = group;
    doppler.send(lines("a", 0..1_000).chunks(100).map(<[Envelope]>::to_vec)).await;
    let ([a, b, c, d, other], law) = doppler.drain([a, b, c, d, other]).await;
    for whole in [&a, &b, &other] {
        assert_eq!(numbers(whole), (0..1_000).collect::<Vec<_>>());
    }
    assert_shared(&[&c, &d], 0..1_000);
    assert!(c.len().abs_diff(d.len()) <= 50, "{} and {}", c.len(), d.len());
    law.hold_to_the_end();
}

#[tokio::test]
async fn a_group_is_a_selector_and_a_shard() {
    // A wants logs and counters, B logs alone: logs are shared, counters are all A's.
    let doppler = Doppler::start().await;
    let a = doppler.join("m", "", vec![logs(""), counters("", "")]).await;
    let b = doppler.join("m", "", vec![logs("")]).await;
    // Logs of any source and logs of x are two groups: each gets its own copy of those of x.
    let any = doppler.join("n", "", vec![logs("")]).await;
    let x = doppler.join("n", "", vec![logs("x")]).await;
    let mut envelopes = lines("x", 0..1_000);
    envelopes.extend((1_000..1_100).map(|i| Envelope::counter("x", "requests", 1).at(i)));
    envelopes.extend(lines("y", 1_100..1_200));
    doppler.send(envelopes.chunks(100).map(<[Envelope]>::to_vec)).await;
    let ([a, b, any, x], law) = doppler.drain([a, b, any, x]).await;
    let is_counter = |envelope: &Envelope| envelope.payload().is_empty();
    let (counted, logged): (Vec<_>, Vec<_>) = a.into_iter().partition(is_counter);
    assert_eq!(numbers(&counted), (1_000..1_100).collect::<Vec<_>>());
    assert!(logged.len().abs_diff(b.len()) <= 55, "{} and {}", logged.len(), b.len());
    let mut shared = [numbers(&logged), numbers(&b)].concat();
    shared.sort_unstable();
    assert_eq!(shared, (0..1_000).chain(1_100..1_200).collect::<Vec<_>>());
    assert_eq!(numbers(&any), (0..1_000).chain(1_100..1_200).collect::<Vec<_>>());
    assert_eq!(numbers(&x), (0..1_000).collect::<Vec<_>>());
    law.hold_to_the_end();
}

/// Three members, opened in an order that is not that of their names.
async fn three(doppler: &Doppler, selectors: &[proto::v2::Selector]) -> [Subscriber; 3] {
    let c = doppler.join("m", "c", selectors.to_vec()).await;
    let a = doppler.join("m", "a", selectors.to_vec()).await;
    let b = doppler.join("m", "b", selectors.to_vec()).await;
    [a, b, c]
}

#[tokio::test]
async fn named_members_get_thirty_names_as_the_crc_places_them() {
    let names: Vec<String> = (0..30).map(|i| format!("metric-{i}")).collect();
    let doppler = Doppler::start().await;
    let members = three(&doppler, &[counters("", ""), gauges("", &[])]).await;
    let count = |name: &String| Envelope::counter("a", name.as_str(), 1);
    let pair = |names: &[String]| gauge("a", &[&names[0], &names[1]]);
    let counters: Vec<Envelope> = names.iter().map(count).enumerate().map(|(i, e)| e.at(i as i64)).collect();
    let gauges: Vec<Envelope> = names.windows(2).map(pair).enumerate().map(|(i, e)| e.at(100 + i as i64)).collect();
    doppler.send([counters.clone(), gauges.clone()]).await;
    // And in batches of one, from another stream.
    doppler.send(counters.into_iter().chain(gauges).map(|envelope| vec![envelope])).await;
    let (got, law) = doppler.drain(members).await;
    for (member, got) in (0..).zip(got) {
        let own = |hash: u64| hash % 3 == member;
        let of_counters = (0..30).filter(|i| own(crc(&names[*i])));
        let of_gauges = (0..29).filter(|i| own(crc(&names[*i]).wrapping_add(crc(&names[i + 1]))));
        let placed: Vec<i64> = of_counters.map(|i| i as i64).chain(of_gauges.map(|i| 100 + i as i64)).collect();
        assert!(!placed.is_empty(), "every member has some");
        assert_eq!(numbers(&got), [placed.clone(), placed].concat(), "member {member}");
    }
    law.hold_to_the_end();
}

#[tokio::test]
async fn members_without_a_name_stand_before_those_with_one() {
    let names: Vec<String> = (0..30).map(|i| format!("metric-{i}")).collect();
    let doppler = Doppler::start().await;
    let named = doppler.join("m", "a", vec![counters("", "")]).await;
    let unnamed = doppler.join("m", "", vec![counters("", "")]).await;
    doppler
        .send([names.iter().zip(0..).map(|(name, i)| Envelope::counter("a", name.as_str(), 1).at(i)).collect()])
        .await;
    let ([first, second], _) = doppler.drain([unnamed, named]).await;
    for (member, got) in [(0, first), (1, second)] {
        let placed: Vec<i64> = (0..30).filter(|i| crc(&names[*i as usize]) % 2 == member).collect();
        assert_eq!(numbers(&got), placed, "member {member}");
    }
}

#[tokio::test]
async fn logs_of_named_members_are_shared_freely() {
    let doppler = Doppler::start().await;
    let members = three(&doppler, &[logs("")]).await;
    doppler.send(lines("a", 0..3_000).chunks(100).map(<[Envelope]>::to_vec)).await;
    let (got, _) = doppler.drain(members).await;
    assert_shared(&[&got[0], &got[1], &got[2]], 0..3_000);
    for part in got {
        assert!(part.len().abs_diff(1_000) <= 50, "{}", part.len());
    }
}

#[tokio::test]
async fn a_group_takes_members_in_and_lets_them_go() {
    let doppler = Doppler::start().await;
    let mut first = doppler.join("m", "", vec![logs("")]).await;
    doppler.send([lines("a", 0..500)]).await;
    assert_eq!(numbers(&first.take(500).await), (0..500).collect::<Vec<_>>());

    // A newcomer gets its part, not everything until it has caught up.
    let mut second = doppler.join("m", "", vec![logs("")]).await;
    doppler.send([lines("a", 500..900)]).await;
    let (head, tail) = (first.next().await.unwrap(), second.next().await.unwrap());
    assert_ne!(head.timestamp, tail.timestamp);
    let seen = |envelope: &Envelope| envelope.timestamp;
    let mut all = BTreeSet::from([seen(&head), seen(&tail)]);
    // 400 in runs of 32: the parts differ by one run at most.
    all.extend(first.take(183).await.iter().map(seen));
    all.extend(second.take(183).await.iter().map(seen));
    assert_eq!(all.len(), 2 * 184, "no line goes to both");
    let law = doppler.numbers().await;
    law.hold();
    assert_eq!(law.copies(), 900);

    drop(first);
    doppler.await_subscriptions(1).await;
    doppler.send([lines("a", 900..1_000)]).await;
    let ([rest], _) = doppler.drain([second]).await;
    let after: Vec<i64> = numbers(&rest).into_iter().filter(|i| *i >= 900).collect();
    assert_eq!(after, (900..1_000).collect::<Vec<_>>(), "who is left gets everything");
}
