//! What changed between two answers: rates. Pure.
//!
//! *Invariant*: a count that went back is one that began again, and a rate is never negative.

use std::collections::HashMap;
use std::hash::Hash;

use proto::hydrant::v1::{ConsumerInfo, DrainInfo, Dropped, OverviewReply, SourceInfo, StageInfo};

/// An answer, and how fast its counts grew since the one before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// Nanoseconds since the Unix epoch, by the clock of who answered.
    pub(crate) time: i64,
    /// Between the two answers; 0 for the first one, which has no rates.
    pub(crate) seconds: f64,
    pub(crate) sources: Vec<Source>,
    pub(crate) source_count: u64,
    pub(crate) stages: Vec<Stage>,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) drains: Vec<Drain>,
    pub(crate) missing: Vec<String>,
}

/// A source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) info: SourceInfo,
    /// Envelopes a second.
    pub(crate) lines: f64,
    /// Bytes a second.
    pub(crate) bytes: f64,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    pub(crate) info: StageInfo,
    /// Envelopes a second.
    pub(crate) received: f64,
    pub(crate) delivered: f64,
    pub(crate) lost: f64,
}

/// Whoever reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Consumer {
    pub(crate) info: ConsumerInfo,
    /// Envelopes a second.
    pub(crate) taken: f64,
    pub(crate) lost: f64,
}

/// A drain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    pub(crate) info: DrainInfo,
    /// Envelopes a second.
    pub(crate) delivered: f64,
    pub(crate) lost: f64,
}

/// The sum of losses.
pub(crate) fn sum(dropped: &[Dropped]) -> u64 {
    dropped.iter().map(|dropped| dropped.envelopes).fold(0, u64::saturating_add)
}

impl Change {
    /// What `now` says, and how fast it came to that since `before`.
    pub(crate) fn between(before: Option<&OverviewReply>, now: OverviewReply) -> Self {
        let none = OverviewReply::default();
        let seconds = before.map_or(0.0, |before| now.time.saturating_sub(before.time).max(0) as f64 / 1e9);
        let before = before.unwrap_or(&none);
        let per_second = |now: u64, before: Option<u64>| match before {
            _ if seconds <= 0.0 => 0.0,
            Some(before) if before <= now => (now - before) as f64 / seconds,
            // It began again.
            Some(_) => now as f64 / seconds,
            None => 0.0,
        };
        let known = by(&before.sources, |source| source.source_id.clone());
        // While other dopplers answer than before, sums of theirs say nothing.
        let same = before.missing == now.missing;
        // One that was not there has brought all that it has since; unless it may only not have fitted.
        let all_known = before.source_count <= before.sources.len() as u64;
        let sources = now.sources.into_iter().map(|info| {
            let known = known.get(&info.source_id);
            let count = |of: fn(&SourceInfo) -> u64| match known {
                _ if !same => None,
                Some(source) => Some(of(source)),
                None => all_known.then_some(0),
            };
            Source {
                lines: per_second(info.envelopes, count(|source| source.envelopes)),
                bytes: per_second(info.bytes, count(|source| source.bytes)),
                info,
            }
        });
        let sources = sources.collect();
        let known = by(&before.stages, |stage| (stage.stage.clone(), stage.address.clone()));
        let stages = now.stages.into_iter().map(|info| {
            let known = known.get(&(info.stage.clone(), info.address.clone()));
            Stage {
                received: per_second(info.received, known.map(|stage| stage.received)),
                delivered: per_second(info.delivered, known.map(|stage| stage.delivered)),
                lost: per_second(sum(&info.dropped), known.map(|stage| sum(&stage.dropped))),
                info,
            }
        });
        let stages = stages.collect();
        let key = |one: &ConsumerInfo| (one.stage.clone(), one.address.clone(), one.name.clone());
        let known = by(&before.consumers, key);
        let consumers = now.consumers.into_iter().map(|info| {
            let known = known.get(&key(&info));
            Consumer {
                taken: per_second(info.taken, known.map(|one| one.taken)),
                lost: per_second(info.dropped, known.map(|one| one.dropped)),
                info,
            }
        });
        let consumers = consumers.collect();
        let known = by(&before.drains, |drain| (drain.address.clone(), drain.name.clone()));
        let drains = now.drains.into_iter().map(|info| {
            let known = known.get(&(info.address.clone(), info.name.clone()));
            Drain {
                delivered: per_second(info.delivered, known.map(|drain| drain.delivered)),
                lost: per_second(sum(&info.dropped), known.map(|drain| sum(&drain.dropped))),
                info,
            }
        });
        Self {
            time: now.time,
            seconds,
            sources,
            source_count: now.source_count,
            stages,
            consumers,
            drains: drains.collect(),
            missing: now.missing,
        }
    }

    /// Envelopes a second that dopplers receive.
    pub(crate) fn received(&self) -> f64 {
        self.stages.iter().filter(|stage| stage.info.stage == "doppler").map(|stage| stage.received).sum()
    }

    /// Envelopes a second that are lost, wherever.
    pub(crate) fn lost(&self) -> f64 {
        let drains: f64 = self.drains.iter().map(|drain| drain.lost).sum();
        self.stages.iter().map(|stage| stage.lost).sum::<f64>() + drains
    }
}

fn by<T, K: Eq + Hash>(all: &[T], key: impl Fn(&T) -> K) -> HashMap<K, &T> {
    all.iter().map(|one| (key(one), one)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer that has something of everything; its counts are `n`, and its time is `n` seconds.
    pub(crate) fn reply(n: u64) -> OverviewReply {
        let source = |id: &str, times: u64| SourceInfo {
            source_id: id.to_owned(),
            envelopes: n * times,
            bytes: n * times * 100,
            held: 7,
            oldest_timestamp: 0,
            newest_timestamp: n as i64 * 1_000_000_000,
        };
        let dropped = |n| vec![Dropped { reason: "queue_full".to_owned(), envelopes: n }];
        let stage = |name: &str| StageInfo {
            stage: name.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            received: n * 10,
            delivered: n * 9,
            dropped: dropped(n),
        };
        OverviewReply {
            time: n as i64 * 1_000_000_000,
            sources: vec![source("shop", 5), source("app", 2)],
            source_count: 2,
            stages: vec![stage("doppler"), stage("traffic_controller")],
            consumers: vec![ConsumerInfo {
                stage: "doppler".to_owned(),
                address: "127.0.0.1:1".to_owned(),
                name: "#1".to_owned(),
                waiting_envelopes: 3,
                waiting_bytes: 300,
                taken: n * 4,
                dropped: n,
            }],
            drains: vec![DrainInfo {
                name: "papertrail".to_owned(),
                url: "syslog://127.0.0.1:5514".to_owned(),
                state: "ok".to_owned(),
                delivered: n * 3,
                address: "127.0.0.1:2".to_owned(),
                ..DrainInfo::default()
            }],
            missing: Vec::new(),
        }
    }

    #[test]
    fn rates_are_what_was_added_by_the_second() {
        let change = Change::between(Some(&reply(10)), reply(12));
        assert_eq!(change.seconds, 2.0);
        assert_eq!((change.sources[0].lines, change.sources[0].bytes), (5.0, 500.0));
        assert_eq!((change.stages[0].received, change.stages[0].lost), (10.0, 1.0));
        assert_eq!((change.consumers[0].taken, change.consumers[0].lost), (4.0, 1.0));
        assert_eq!((change.drains[0].delivered, change.drains[0].lost), (3.0, 0.0));
        assert_eq!((change.received(), change.lost()), (10.0, 2.0));
    }

    #[test]
    fn what_began_again_or_is_new_has_no_negative_rate() {
        let mut before = reply(100);
        let mut again = reply(1);
        again.time = 101_000_000_000;
        let change = Change::between(Some(&before), again.clone());
        assert_eq!(change.sources[0].lines, 5.0);
        before.sources.remove(0);
        before.source_count = 1;
        assert_eq!(Change::between(Some(&before), again.clone()).sources[0].lines, 5.0);
        // It may have been there all the time.
        before.source_count = 2;
        assert_eq!(Change::between(Some(&before), again.clone()).sources[0].lines, 0.0);
        before.source_count = 1;
        before.missing.push("127.0.0.1:9".to_owned());
        assert_eq!(Change::between(Some(&before), again.clone()).sources[0].lines, 0.0);
        let first = Change::between(None, again);
        assert_eq!((first.seconds, first.sources[0].lines, first.lost()), (0.0, 0.0, 0.0));
    }
}
