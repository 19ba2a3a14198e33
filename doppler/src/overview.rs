//! `hydrant.v1` Overview: what this doppler holds and has counted, for people and their tools.
//!
//! What enters: a question, now and then. What leaves: the sources of the cache, the subscriptions with what waits in their rings, and the
//! numbers of the stage. Looks at every source and every subscription, and holds up neither: nothing here is on the way of an envelope.

use std::cmp::Reverse;
use std::time::{SystemTime, UNIX_EPOCH};

use diode::fair::Counters;
use log_cache::{SourceMeta, Store};
use proto::hydrant::v1;
use proto::hydrant::v1::overview_server;
use telemetry::{StageNumbers, Telemetry};
use tonic::{Request, Response, Status};

use crate::router::Router;

/// Sources of one answer.
const MAX_SOURCES: usize = 10_000;

/// Subscriptions of one answer.
const MAX_CONSUMERS: usize = 10_000;

/// The service.
pub(crate) struct Overview {
    router: Router,
    telemetry: Telemetry,
}

impl Overview {
    /// Tells of `router`, whose numbers are in `telemetry`.
    pub(crate) fn new(router: Router, telemetry: Telemetry) -> Self {
        Self { router, telemetry }
    }
}

#[tonic::async_trait]
impl overview_server::Overview for Overview {
    async fn get(&self, _: Request<v1::OverviewRequest>) -> Result<Response<v1::OverviewReply>, Status> {
        let meta = self.router.cache().map(Store::meta).unwrap_or_default();
        let source_count = meta.len() as u64;
        let mut consumers: Vec<_> = self.router.consumers().map(consumer).collect();
        consumers.sort_by_key(|consumer| Reverse(consumer.waiting_envelopes));
        consumers.truncate(MAX_CONSUMERS);
        Ok(Response::new(v1::OverviewReply {
            time: now(),
            sources: busiest(meta),
            source_count,
            stages: vec![stage(StageNumbers::of(&self.telemetry, "doppler"))],
            consumers,
            ..v1::OverviewReply::default()
        }))
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// As many as one answer takes, those of which most has come first.
fn busiest(meta: Vec<(String, SourceMeta)>) -> Vec<v1::SourceInfo> {
    let mut sources: Vec<_> = meta.into_iter().map(source).collect();
    sources.sort_by(|a, b| b.envelopes.cmp(&a.envelopes).then_with(|| a.source_id.cmp(&b.source_id)));
    sources.truncate(MAX_SOURCES);
    sources
}

fn source((source_id, meta): (String, SourceMeta)) -> v1::SourceInfo {
    v1::SourceInfo {
        source_id,
        envelopes: meta.count + meta.expired,
        bytes: meta.bytes,
        held: meta.count,
        oldest_timestamp: meta.oldest_timestamp,
        newest_timestamp: meta.newest_timestamp,
    }
}

fn consumer((name, counters): (String, Counters)) -> v1::ConsumerInfo {
    v1::ConsumerInfo {
        stage: "doppler".to_owned(),
        name,
        waiting_envelopes: counters.envelopes as u64,
        waiting_bytes: counters.bytes as u64,
        taken: counters.taken,
        dropped: counters.evicted,
        ..v1::ConsumerInfo::default()
    }
}

fn stage(numbers: StageNumbers) -> v1::StageInfo {
    let dropped = numbers.dropped.into_iter().map(|(reason, envelopes)| v1::Dropped { reason, envelopes }).collect();
    let StageNumbers { received, delivered, .. } = numbers;
    v1::StageInfo { stage: "doppler".to_owned(), received, delivered, dropped, ..v1::StageInfo::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_which_most_has_come_stand_first_and_are_as_many_as_an_answer_takes() {
        let meta = |count, expired| {
            let (oldest_timestamp, newest_timestamp, recent, recent_since) = (1, 2, count, 1);
            SourceMeta { count, expired, bytes: 5, oldest_timestamp, newest_timestamp, recent, recent_since }
        };
        let many = (0..MAX_SOURCES + 5).map(|i| (format!("{i:05}"), meta(1, 0)));
        let sources = busiest(many.chain([("loud".to_owned(), meta(3, 4))]).collect());
        assert_eq!(
            (sources.len(), sources[0].source_id.as_str(), sources[1].source_id.as_str()),
            (MAX_SOURCES, "loud", "00000")
        );
        assert_eq!((sources[0].envelopes, sources[0].held, sources[0].bytes), (7, 3, 5));
    }
}
