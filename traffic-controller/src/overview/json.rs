//! An overview as JSON: the names of the protocol, 64-bit numbers as decimal strings as everywhere in protobuf's JSON. Pure.

use std::collections::BTreeMap;

use proto::hydrant::v1;
use serde::{Serialize, Serializer};

/// The JSON of `reply`.
pub(super) fn put(reply: &v1::OverviewReply) -> Vec<u8> {
    serde_json::to_vec(&Reply::of(reply)).expect("numbers and texts under text keys have a JSON form")
}

#[derive(Serialize)]
struct Reply<'a> {
    time: Number,
    sources: Vec<Source<'a>>,
    source_count: Number,
    stages: Vec<Stage<'a>>,
    consumers: Vec<Consumer<'a>>,
    drains: Vec<Drain<'a>>,
    missing: &'a [String],
}

#[derive(Serialize)]
struct Source<'a> {
    source_id: &'a str,
    envelopes: Number,
    bytes: Number,
    held: Number,
    oldest_timestamp: Number,
    newest_timestamp: Number,
}

#[derive(Serialize)]
struct Stage<'a> {
    stage: &'a str,
    address: &'a str,
    received: Number,
    delivered: Number,
    dropped: Dropped<'a>,
}

#[derive(Serialize)]
struct Consumer<'a> {
    stage: &'a str,
    address: &'a str,
    name: &'a str,
    waiting_envelopes: Number,
    waiting_bytes: Number,
    taken: Number,
    dropped: Number,
}

#[derive(Serialize)]
struct Drain<'a> {
    name: &'a str,
    url: &'a str,
    state: &'a str,
    delivered: Number,
    waiting_envelopes: Number,
    dropped: Dropped<'a>,
    last_error: &'a str,
    address: &'a str,
}

type Dropped<'a> = BTreeMap<&'a str, Number>;

/// A 64-bit number.
struct Number(i128);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn number(value: impl Into<i128>) -> Number {
    Number(value.into())
}

fn dropped(by_reason: &[v1::Dropped]) -> Dropped<'_> {
    by_reason.iter().map(|dropped| (dropped.reason.as_str(), number(dropped.envelopes))).collect()
}

impl<'a> Reply<'a> {
    fn of(reply: &'a v1::OverviewReply) -> Self {
        Self {
            time: number(reply.time),
            sources: reply.sources.iter().map(Source::of).collect(),
            source_count: number(reply.source_count),
            stages: reply.stages.iter().map(Stage::of).collect(),
            consumers: reply.consumers.iter().map(Consumer::of).collect(),
            drains: reply.drains.iter().map(Drain::of).collect(),
            missing: &reply.missing,
        }
    }
}

impl<'a> Source<'a> {
    fn of(source: &'a v1::SourceInfo) -> Self {
        Self {
            source_id: &source.source_id,
            envelopes: number(source.envelopes),
            bytes: number(source.bytes),
            held: number(source.held),
            oldest_timestamp: number(source.oldest_timestamp),
            newest_timestamp: number(source.newest_timestamp),
        }
    }
}

impl<'a> Stage<'a> {
    fn of(stage: &'a v1::StageInfo) -> Self {
        Self {
            stage: &stage.stage,
            address: &stage.address,
            received: number(stage.received),
            delivered: number(stage.delivered),
            dropped: dropped(&stage.dropped),
        }
    }
}

impl<'a> Consumer<'a> {
    fn of(consumer: &'a v1::ConsumerInfo) -> Self {
        Self {
            stage: &consumer.stage,
            address: &consumer.address,
            name: &consumer.name,
            waiting_envelopes: number(consumer.waiting_envelopes),
            waiting_bytes: number(consumer.waiting_bytes),
            taken: number(consumer.taken),
            dropped: number(consumer.dropped),
        }
    }
}

impl<'a> Drain<'a> {
    fn of(drain: &'a v1::DrainInfo) -> Self {
        Self {
            name: &drain.name,
            url: &drain.url,
            state: &drain.state,
            delivered: number(drain.delivered),
            waiting_envelopes: number(drain.waiting_envelopes),
            dropped: dropped(&drain.dropped),
            last_error: &drain.last_error,
            address: &drain.address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_stands_under_its_name_and_numbers_are_strings() {
        let one = |reason: &str| vec![v1::Dropped { reason: reason.to_owned(), envelopes: 1 << 60 }];
        let reply = v1::OverviewReply {
            time: -1,
            sources: vec![v1::SourceInfo { source_id: "</script>".to_owned(), envelopes: 2, ..Default::default() }],
            source_count: 1,
            stages: vec![v1::StageInfo { stage: "doppler".to_owned(), dropped: one("oversize"), ..Default::default() }],
            consumers: vec![v1::ConsumerInfo { name: "#1".to_owned(), waiting_bytes: 5, ..Default::default() }],
            drains: vec![v1::DrainInfo { state: "ok".to_owned(), dropped: one("expired"), ..Default::default() }],
            missing: vec!["a:1".to_owned()],
        };
        let value: serde_json::Value = serde_json::from_slice(&put(&reply)).unwrap();
        assert_eq!((&value["time"], &value["missing"][0]), (&"-1".into(), &"a:1".into()));
        assert_eq!(
            (&value["sources"][0]["source_id"], &value["sources"][0]["envelopes"]),
            (&"</script>".into(), &"2".into())
        );
        assert_eq!(value["stages"][0]["dropped"]["oversize"], "1152921504606846976");
        assert_eq!(
            (&value["consumers"][0]["waiting_bytes"], &value["drains"][0]["state"]),
            (&"5".into(), &"ok".into())
        );
    }
}
