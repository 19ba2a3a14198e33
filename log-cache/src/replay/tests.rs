//! A replay gives each envelope of its range once, by arrival per source, and says what it could not give.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use proto::raw::{Kind, Limits, Selection};
use proto::v2::{self, Envelope};

use super::*;
use crate::config::Config;
use crate::noise::noise;
use crate::segment::ANY_KIND;

fn put(store: &Store, envelopes: Vec<Envelope>) {
    let (batch, refused) =
        Batch::check(v2::EnvelopeBatch { batch: envelopes }.encode_to_vec().into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    store.put(&Selection::from(batch));
}

fn line(source: &str, number: i64) -> Envelope {
    Envelope::log(source, noise(100)).at(number)
}

/// The timestamps by source, and the gaps.
fn all(mut replay: Replay) -> (BTreeMap<String, Vec<i64>>, BTreeMap<String, u64>) {
    let (mut found, mut gaps) = (BTreeMap::<String, Vec<i64>>::new(), BTreeMap::new());
    while let Some(piece) = replay.next_piece() {
        assert_eq!(piece.batch.len(), piece.sequences.len());
        assert!(piece.sequences.is_sorted());
        for entry in piece.batch.entries() {
            let id = String::from_utf8_lossy(piece.batch.source_id(entry)).into_owned();
            found.entry(id).or_default().push(entry.timestamp);
        }
        if let Some(gap) = piece.gap {
            assert!(gaps.insert(gap.source_id, gap.envelopes).is_none(), "one gap a source");
        }
    }
    (found, gaps)
}

proptest! {
    /// Batches of several sources and kinds, a range between any two of them: what comes out is what was put between.
    #[test]
    fn a_range_is_what_was_put_in_it(
        batches in prop::collection::vec(prop::collection::vec((0..4_usize, any::<bool>()), 1..700), 1..12),
        ends in any::<[prop::sample::Index; 2]>(),
        kinds in prop::sample::select(vec![ANY_KIND, Kind::Log.bit(), Kind::Counter.bit()]),
        named in any::<bool>(),
    ) {
        const SOURCES: [&str; 4] = ["", "a", "b", "c"];
        let store = Store::new(&Config::with_budget(1 << 30));
        let mut ends = ends.map(|end| end.index(batches.len() + 1));
        ends.sort_unstable();
        let mut marks = vec![store.sequence()];
        let mut wanted = BTreeMap::<String, Vec<i64>>::new();
        let mut number = 0;
        for (at, batch) in batches.iter().enumerate() {
            let mut envelopes = Vec::new();
            for (source, log) in batch {
                number += 1;
                let source = SOURCES[*source];
                let kind = if *log { Kind::Log } else { Kind::Counter };
                envelopes.push(if *log { line(source, number) } else { Envelope::counter(source, "c", 1).at(number) });
                let inside = (ends[0]..ends[1]).contains(&at);
                if inside && kind.bit() & kinds != 0 && (!named || ["a", "b"].contains(&source)) {
                    wanted.entry(source.to_owned()).or_default().push(number);
                }
            }
            put(&store, envelopes);
            marks.push(store.sequence());
        }
        let range = Range { after: marks[ends[0]], until: marks[ends[1]] };
        let sources = named.then(|| ["a", "nobody", "b"].map(str::to_owned).to_vec());
        let (found, gaps) = all(store.replay(range, kinds, sources));
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(gaps, BTreeMap::new());
    }
}

#[test]
fn what_is_evicted_meanwhile_is_a_gap_and_what_came_later_is_not() {
    let store = Store::new(&Config::with_budget(8 << 20));
    (0..100).for_each(|i| put(&store, (i * 500..(i + 1) * 500).map(|n| line("loud", n)).collect()));
    put(&store, vec![line("quiet", 1)]);
    let range = Range { after: 0, until: store.sequence() };
    let evicted = store.numbers().evicted;
    let mut replay = store.replay(range, Kind::Log.bit(), Some(vec!["quiet".to_owned(), "loud".to_owned()]));
    let first = replay.next_piece().expect("the oldest that is held");
    let seen = first.batch.entries().last().expect("envelopes").timestamp + 1;
    // All of the range goes, and a good part of what comes after.
    (100..400).for_each(|i| put(&store, (i * 500..(i + 1) * 500).map(|n| line("loud", n)).collect()));
    let (found, gaps) = all(replay);
    assert_eq!(found, BTreeMap::from([("quiet".to_owned(), vec![1])]), "who is under the floor keeps what it has");
    assert_eq!(evicted, 0, "nothing had gone when it began");
    assert_eq!(gaps, BTreeMap::from([("loud".to_owned(), 50_000 - seen as u64)]));
}

#[test]
fn what_went_before_is_a_gap_as_far_as_it_is_remembered() {
    let store = Store::new(&Config::with_budget(1 << 20));
    put(&store, vec![line("quiet", 1)]);
    let after = store.sequence();
    let mut number = 0;
    while store.numbers().evicted == 0 {
        put(&store, (number..number + 500).map(|n| line("loud", n)).collect());
        number += 500;
    }
    let evicted = store.numbers().evicted;
    let (found, gaps) = all(store.replay(Range { after, until: store.sequence() }, ANY_KIND, None));
    assert_eq!(found["loud"], (evicted as i64..number).collect::<Vec<_>>());
    assert_eq!(gaps, BTreeMap::from([("loud".to_owned(), evicted)]));
    let (found, gaps) = all(store.replay(Range { after, until: after }, ANY_KIND, None));
    assert!(found.is_empty() && gaps.is_empty(), "nothing is between");
}
