//! What is saved comes back, and what was damaged does no harm.

use prost::Message;
use proto::logcache::v1::ReadRequest;
use proto::raw::{Batch, Limits};
use proto::v2::{Envelope, EnvelopeBatch};
use tempfile::tempdir;

use super::*;
use crate::config::Config;
use crate::noise::noise;
use crate::read::Read as Request;
use crate::store::SourceMeta;

fn put(store: &Store, envelopes: Vec<Envelope>) {
    let encoded = EnvelopeBatch { batch: envelopes }.encode_to_vec();
    store.put(&Batch::check(encoded.into(), &Limits::default()).0.into());
}

fn filled(budget: u64) -> Store {
    let store = Store::new(&Config::with_budget(budget));
    for i in 0..3000 {
        let source = ["", "a", "b/c"][i % 3];
        put(&store, vec![Envelope::log(source, noise(100)).at(i as i64).tag("k", "v"), Envelope::counter("c", "n", 1)]);
    }
    store
}

fn payloads(store: &Store, source: &str) -> Vec<Envelope> {
    let mut all = Vec::new();
    let mut start = i64::MIN;
    loop {
        let request = ReadRequest {
            source_id: source.to_owned(),
            start_time: start,
            end_time: i64::MAX,
            limit: 1000,
            ..ReadRequest::default()
        };
        let page = store.read(&Request::parse(request, 0).unwrap()).unwrap();
        let batch = EnvelopeBatch::decode(page.batch).unwrap().batch;
        let Some(last) = batch.last() else { return all };
        start = last.timestamp + 1;
        all.extend(batch);
    }
}

fn meta(store: &Store) -> Vec<(String, u64, u64, u64)> {
    let numbers = |(id, meta): (String, SourceMeta)| (id, meta.count, meta.expired, meta.bytes);
    let mut all: Vec<_> = store.meta().into_iter().map(numbers).collect();
    all.sort();
    all
}

#[test]
fn what_is_saved_comes_back_once() {
    for budget in [100_000, 1 << 24] {
        let dir = tempdir().unwrap();
        let before = filled(budget);
        let saved = save(&before, &dir.path().join("deep/er")).unwrap();
        assert_eq!(saved.envelopes, before.numbers().envelopes);
        let after = Store::new(&Config::with_budget(1 << 24));
        let loaded = load(&after, &dir.path().join("deep/er")).unwrap();
        assert_eq!(loaded, saved);
        assert_eq!(meta(&after), meta(&before));
        for source in ["", "a", "b/c", "c"] {
            assert_eq!(payloads(&after, source), payloads(&before, source));
        }
        // Later ones stand behind, and are numbered behind.
        assert!(after.sequence() >= before.sequence());
        put(&after, vec![Envelope::log("a", "new").at(9000)]);
        assert_eq!(payloads(&after, "a").last().unwrap().payload(), b"new");
        let again = Store::new(&Config::with_budget(1 << 24));
        assert_eq!(load(&again, &dir.path().join("deep/er")).unwrap(), Report::default());
    }
}

#[test]
fn the_books_balance_and_the_budget_holds_afterwards() {
    let dir = tempdir().unwrap();
    save(&filled(1 << 24), dir.path()).unwrap();
    let small = Store::new(&Config::with_budget(100_000));
    load(&small, dir.path()).unwrap();
    let numbers = small.numbers();
    assert!(numbers.bytes <= 100_000 && numbers.envelopes > 100, "{numbers:?}");
    assert_eq!(numbers.accepted, numbers.evicted + numbers.envelopes);
    let held: u64 = small.meta().iter().map(|(_, meta)| meta.count).sum();
    assert_eq!(held, numbers.envelopes);
}

#[test]
fn a_damaged_file_is_set_aside_and_what_came_before_the_damage_is_kept() {
    let dir = tempdir().unwrap();
    let before = filled(1 << 24);
    let saved = save(&before, dir.path()).unwrap();
    let whole = fs::read(dir.path().join(FILE)).unwrap();
    for (at, cut) in
        [(0, false), (20, false), (whole.len() / 2, false), (whole.len() - 9, false), (whole.len() / 3, true)]
    {
        let mut bytes = whole.clone();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1;
        }
        fs::write(dir.path().join(FILE), bytes).unwrap();
        let store = Store::new(&Config::with_budget(1 << 24));
        let loaded = load(&store, dir.path()).unwrap();
        assert_eq!(loaded.set_aside, Some(dir.path().join(ASIDE)), "damaged at {at}");
        assert!(loaded.envelopes <= saved.envelopes);
        assert_eq!(store.numbers().envelopes, loaded.envelopes);
        assert!(!dir.path().join(FILE).exists());
    }
}

#[test]
fn a_link_in_its_place_is_not_followed() {
    let dir = tempdir().unwrap();
    save(&filled(1 << 20), dir.path()).unwrap();
    fs::rename(dir.path().join(FILE), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join(FILE)).unwrap();
    assert!(load(&Store::new(&Config::with_budget(1 << 20)), dir.path()).is_err());
    assert!(dir.path().join("elsewhere").exists());
}
