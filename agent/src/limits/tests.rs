//! Limits by the clock of the test: what passes, what is told, and what is remembered.

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};

use proptest::prelude::*;
use proto::raw::Batch;

use super::notice::{Notice, Text};
use super::table::NOTICE;
use super::*;
use crate::gather::Gather;

fn config(text: &str) -> LimitsConfig {
    toml::from_str(text).unwrap()
}

struct Fixture {
    table: Table,
    notices: Vec<(Duration, Notice)>,
}

impl Fixture {
    fn new(text: &str) -> Self {
        Self { table: Table::new(&config(text)), notices: Vec::new() }
    }

    fn admit(&mut self, at: Duration, fill: impl FnOnce(&mut Gather)) -> (Selection, Refused) {
        let mut gather = Gather::default();
        fill(&mut gather);
        let (batch, _) = gather.take().unwrap();
        let mut notices = Notices::default();
        let admitted = self.table.admit(batch.into(), at, &mut notices);
        self.keep(at, notices);
        admitted
    }

    /// Sends `count` lines of `source` at `at`; how many were dropped.
    fn lines(&mut self, at: Duration, source: &str, count: usize) -> usize {
        let (kept, refused) = self.admit(at, |gather| {
            (0..count).for_each(|_| gather.envelope(source, "3", 1).log(b"0123456789", false));
        });
        assert_eq!(kept.len() + refused.total() as usize, count);
        assert_eq!(refused.total(), u64::from(refused.rate_limited));
        refused.rate_limited as usize
    }

    /// Sends one counter with the tag `key`; whether it passed.
    fn counter(&mut self, at: Duration, source: &str, name: &str, (key, value): (&str, &str)) -> bool {
        let (kept, refused) = self.admit(at, |gather| {
            let mut draft = gather.envelope(source, "", 1);
            draft.tag(key, value);
            draft.counter(name, 1, 0);
        });
        assert_eq!(kept.len() as u64 + u64::from(refused.cardinality), 1);
        kept.len() == 1
    }

    fn look(&mut self, at: Duration) {
        let mut notices = Notices::default();
        self.table.look(at, &mut notices);
        self.keep(at, notices);
    }

    fn finish(&mut self, at: Duration) {
        let mut notices = Notices::default();
        self.table.finish(&mut notices);
        self.keep(at, notices);
    }

    fn keep(&mut self, at: Duration, notices: Notices) {
        self.notices.extend(notices.0.into_iter().map(|notice| (at, notice)));
    }

    fn told(&mut self) -> Vec<(u64, String)> {
        self.notices.drain(..).map(|(at, notice)| (at.as_millis() as u64, notice.text.to_string())).collect()
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const BEGIN: &str = "app instance exceeded log rate limit (10 log-lines/sec) set by platform operator";

/// Bytes of a line of these tests, as an envelope.
fn size(source: &str) -> u64 {
    21 + source.len() as u64
}

fn end(source: &str, lines: u64) -> String {
    Text::Within { lines, bytes: lines * size(source) }.to_string()
}

#[test]
fn an_episode_is_told_at_its_begin_and_at_its_end() {
    let mut limits = Fixture::new("lines_per_second = 10\nlines_burst = 20");
    assert_eq!(limits.lines(ms(0), "loud", 20), 0);
    assert_eq!(limits.lines(ms(0), "quiet", 20), 0, "each source has a bucket of its own");
    assert_eq!(limits.lines(ms(0), "loud", 30), 30);
    assert_eq!(limits.told(), [(0, BEGIN.to_owned())]);
    for second in 1..=20 {
        assert_eq!(limits.lines(ms(second * 1000), "loud", 15), 5, "ten pass in a second");
        assert_eq!(limits.lines(ms(second * 1000), "quiet", 10), 0);
        limits.look(ms(second * 1000 + 500));
    }
    assert_eq!(limits.told(), []);
    limits.look(ms(20_999));
    assert_eq!(limits.told(), []);
    limits.look(ms(21_000));
    assert_eq!(limits.told(), [(21_000, end("loud", 130))]);
    limits.look(ms(60_000));
    limits.finish(ms(60_000));
    assert_eq!(limits.told(), []);
}

#[test]
fn an_owner_is_told_one_thing_in_ten_seconds() {
    let mut limits = Fixture::new("lines_per_second = 10");
    limits.lines(ms(0), "a", 11);
    limits.look(ms(1_000));
    assert_eq!(limits.lines(ms(5_000), "a", 13), 3, "of the same episode: its end has not been told");
    (6..=9).for_each(|second| limits.look(ms(second * 1000)));
    assert_eq!(limits.told(), [(0, BEGIN.to_owned())]);
    limits.look(ms(10_000));
    assert_eq!(limits.told(), [(10_000, end("a", 4))]);
    // The next begins at once and lasts: its begin is told when it may be.
    for second in 11..=22 {
        assert_eq!(limits.lines(ms(second * 1000), "a", 11), 1);
        limits.look(ms(second * 1000));
    }
    assert_eq!(limits.told(), [(20_000, BEGIN.to_owned())]);
    limits.look(ms(30_000));
    assert_eq!(limits.told(), [(30_000, end("a", 12))]);
    // This one is over before: its end tells of it alone.
    limits.lines(ms(31_000), "a", 12);
    (32..=40).for_each(|second| limits.look(ms(second * 1000)));
    assert_eq!(limits.told(), [(40_000, end("a", 2))]);
}

#[test]
fn bytes_are_limited_as_lines_are() {
    let mut limits = Fixture::new("bytes_per_second = 220\nlines_per_second = 1000");
    assert_eq!(limits.lines(ms(0), "a", 15), 5);
    let begin = "app instance exceeded log rate limit (220 bytes/sec) set by platform operator";
    assert_eq!(limits.told(), [(0, begin.to_owned())]);
    assert_eq!(limits.lines(ms(500), "a", 6), 1);
    limits.finish(ms(600));
    assert_eq!(limits.told(), [(600, end("a", 6))], "at a stop all that is left is told");
}

#[test]
fn an_override_stands_in_place_of_the_limits() {
    let mut limits = Fixture::new(
        "lines_per_second = 10\n[[overrides]]\nsource_ids = [\"free\", \"too\"]\n[[overrides]]\nsource_ids = [\"less\"]\nlines_per_second = 2",
    );
    assert_eq!((limits.lines(ms(0), "free", 500), limits.lines(ms(0), "too", 500)), (0, 0));
    assert_eq!((limits.lines(ms(0), "less", 5), limits.lines(ms(0), "other", 15)), (3, 5));
}

#[test]
fn other_kinds_pass() {
    let mut limits = Fixture::new("lines_per_second = 1");
    let (kept, refused) = limits.admit(ms(0), |gather| {
        for _ in 0..5 {
            gather.envelope("a", "", 1).log(b"x", false);
            gather.envelope("a", "", 1).event("t", "b");
            gather.envelope("a", "", 1).counter("c", 1, 0);
        }
    });
    assert_eq!((kept.len(), refused.rate_limited), (11, 4));
    assert_eq!(kept.batch().len(), 11, "what was dropped is not kept alive");
}

#[test]
fn a_source_that_is_forgotten_leaves_its_account_behind() {
    let mut limits = Fixture::new("lines_per_second = 10\nmax_sources = 3");
    limits.lines(ms(0), "a", 15);
    for source in ["b", "c", "d"] {
        limits.lines(ms(1), source, 1);
    }
    assert_eq!(limits.told(), [(0, BEGIN.to_owned()), (1, end("a", 5))]);
    assert_eq!(limits.table.numbers(), metrics::Numbers { sources: 3, over: 0, series: 0 });
    limits.look(ms(20_000));
    assert_eq!(limits.told(), []);
}

proptest! {
    /// Whatever is sent when: every line dropped is in exactly one notice, begins and ends of a source alternate, and between two notices to
    /// one owner lie ten seconds, but for those at the stop.
    #[test]
    fn notices_account_for_every_line(
        steps in prop::collection::vec((0_u64..4_000, 0_usize..3, 0_usize..40), 1..120),
    ) {
        let mut limits = Fixture::new("lines_per_second = 10");
        let sources = ["a", "b", "c"];
        let mut dropped = HashMap::new();
        let mut now = Duration::ZERO;
        for (wait, source, count) in steps {
            for _ in 0..wait / 1000 {
                now += ms(1000);
                limits.look(now);
            }
            now += ms(wait % 1000);
            if count > 0 {
                *dropped.entry(sources[source]).or_insert(0) += limits.lines(now, sources[source], count) as u64;
            }
        }
        let before_stop = limits.notices.len();
        limits.finish(now);
        for source in sources {
            let (mut told, mut open, mut last) = (0, false, None);
            for (i, (at, notice)) in limits.notices.iter().enumerate() {
                if *notice.source_id != *source.as_bytes() {
                    continue;
                }
                prop_assert_eq!(&*notice.instance_id, b"3");
                match notice.text {
                    Text::Within { lines, bytes } => {
                        prop_assert!(lines > 0 && bytes == lines * size(source));
                        (told, open) = (told + lines, false);
                    }
                    _ => prop_assert!(!std::mem::replace(&mut open, true), "two begins"),
                }
                if let Some(last) = last.replace(*at) && i < before_stop {
                    prop_assert!(*at - last >= NOTICE);
                }
            }
            prop_assert!(!open, "every episode ends");
            prop_assert_eq!(told, dropped.get(source).copied().unwrap_or(0));
        }
    }

    /// Against a plain list of when each series was last seen. A source within its limit loses nothing, and one over it exactly what is new.
    #[test]
    fn series_are_those_of_the_last_hour(
        steps in prop::collection::vec((0_u64..900, 0_u8..12), 1..200),
        limit in 1_usize..8,
    ) {
        let mut limits = Fixture::new(&format!("max_series_per_source = {limit}"));
        let mut model: HashMap<u8, u64> = HashMap::new();
        let mut now = 0;
        for (wait, series) in steps {
            now += wait;
            // Forgotten series are those that had to make room: until then they are known.
            let known = model.contains_key(&series);
            if !known && model.len() == limit {
                model.retain(|_, seen| *seen + 3_600 > now);
            }
            let passes = known || model.len() < limit;
            if passes {
                model.insert(series, now);
            }
            let value = series.to_string();
            prop_assert_eq!(limits.counter(Duration::from_secs(now), "a", "m", ("k", &value)), passes);
        }
        prop_assert_eq!(limits.table.numbers().series, model.len());
    }
}

#[test]
fn new_series_over_the_limit_are_dropped_and_known_ones_pass() {
    let mut limits = Fixture::new("max_series_per_source = 10");
    for i in 0..10 {
        assert!(limits.counter(ms(0), "a", "http", ("user", &i.to_string())));
    }
    assert!(!limits.counter(ms(1), "a", "http", ("user", "new")));
    assert!(limits.counter(ms(5_000), "a", "http", ("user", "3")));
    assert!(!limits.counter(ms(5_001), "a", "other", ("user", "3")));
    assert!(limits.counter(ms(5_001), "b", "other", ("user", "3")), "another source has its own");
    let text = "source exceeded its limit of 10 metric series in an hour set by platform operator; 1 envelopes with new ones were dropped; \
                tag user of http has most values";
    assert_eq!(limits.told(), [(1, text.to_owned())]);
    assert!(limits.counter(ms(3_600_002), "a", "http", ("user", "new")), "nine have not been seen for an hour");
    for i in 20..28 {
        assert!(limits.counter(ms(3_600_003), "a", "http", ("user", &i.to_string())));
    }
    assert!(!limits.counter(ms(3_600_004), "a", "http", ("user", "newer")), "the tenth was seen within it");
    assert_eq!(limits.told().len(), 1);
}

#[test]
fn a_series_is_its_kind_name_and_tags_in_any_order() {
    let mut limits = Fixture::new("max_series_per_source = 3");
    let mut put = |fill: &dyn Fn(&mut Gather)| limits.admit(ms(0), fill).1.cardinality == 0;
    let tagged = |gather: &mut Gather, instance: &str, tags: [(&str, &str); 2], name: &str| {
        let mut draft = gather.envelope("a", instance, 1);
        for (key, value) in tags {
            draft.tag(key, value);
        }
        draft.counter(name, 1, 0);
    };
    assert!(put(&|gather| tagged(gather, "0", [("x", "1"), ("y", "2")], "n")));
    assert!(put(&|gather| tagged(gather, "1", [("y", "2"), ("x", "1")], "n")), "order and instance are no part of it");
    assert!(put(&|gather| gather.envelope("a", "", 1).timer("n", 1, 2)));
    assert!(put(&|gather| gather.envelope("a", "", 1).counter("n", 1, 2)));
    assert!(!put(&|gather| gather.envelope("a", "", 1).timer("m", 1, 2)));
    assert!(!put(&|gather| gather.envelope("a", "", 1).gauge([("n", "", 1.0)])));
    assert!(put(&|gather| gather.envelope("a", "", 1).event("x", "y")));
    let mut limits = Fixture::new("max_series_per_source = 3");
    let (kept, refused) = limits.admit(ms(0), |gather| {
        gather.envelope("a", "", 1).gauge([("a", "", 1.0), ("b", "", 1.0)]);
        gather.envelope("a", "", 1).gauge([("b", "", 1.0), ("c", "", 1.0), ("d", "", 1.0)]);
        gather.envelope("a", "", 1).gauge([("a", "", 1.0), ("c", "", 1.0)]);
    });
    assert_eq!((kept.len(), refused.cardinality), (2, 1), "a gauge with too many new names is dropped whole");
}

#[test]
fn all_series_together_are_bounded() {
    let mut limits = Fixture::new("max_series_per_source = 50\nmax_series = 100\nmax_sources = 20");
    for source in 0..40 {
        for i in 0..50 {
            assert!(limits.counter(ms(source), &source.to_string(), "m", ("k", &i.to_string())));
        }
        assert!(limits.table.numbers().series <= 100);
    }
    assert_eq!(limits.table.numbers(), metrics::Numbers { sources: 2, over: 0, series: 100 });
    for source in 0..40 {
        assert!(limits.counter(ms(50), &format!("small {source}"), "m", ("k", "v")));
    }
    assert_eq!(limits.table.numbers(), metrics::Numbers { sources: 20, over: 0, series: 20 });
    let mut limits = Fixture::new("max_series_per_source = 50\nmax_series = 10");
    let passed = (0..50).filter(|i| limits.counter(ms(0), "a", "m", ("k", &i.to_string()))).count();
    assert_eq!(passed, 10, "no source may have more than all together");
}

#[test]
fn the_default_limits_nothing_and_rates_concern_logs_alone() {
    assert_eq!(config("").all().copied().collect::<Vec<_>>(), [SourceLimits::default()]);
    let some = |value| NonZeroU64::new(value).unwrap();
    let rate = Rate { per_second: some(10), burst: some(10) };
    assert_eq!(config("lines_per_second = 10").sources.lines, Some(rate));
    assert_eq!(config("max_series_per_source = 4").sources.max_series, NonZeroUsize::new(4));
    let (empty, refused) = Table::new(&config("")).admit(
        Selection::from(Batch::index(bytes::Bytes::new()).0),
        Duration::ZERO,
        &mut Notices::default(),
    );
    assert_eq!((empty.len(), refused.total()), (0, 0));
}

/// Between the fronts and a ring that the test reads.
struct Edge {
    limited: Intake,
    limits: Arc<Limits>,
    ring: diode::fair::Reader<crate::parcel::Parcel>,
    telemetry: Telemetry,
}

fn edge(text: &str) -> Edge {
    let telemetry = Telemetry::default();
    let some = |value| NonZeroUsize::new(value).unwrap();
    let (writer, ring) = diode::fair::channel(diode::fair::Bounds { envelopes: some(1_000), bytes: some(1 << 20) });
    let tagger = crate::tag::Tagger::new(&crate::TagsConfig::default());
    let out = Intake::new(tagger, writer, crate::metrics::Metrics::register(&telemetry), &telemetry);
    let limits = Limits::new(&config(text), out.clone(), &telemetry).unwrap();
    Edge { limited: out.within(Some(limits.clone())), limits, ring, telemetry }
}

#[tokio::test(start_paused = true)]
async fn an_episode_ends_by_the_clock_when_its_source_has_fallen_silent() {
    let mut edge = edge("lines_per_second = 10");
    let stop = CancellationToken::new();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(edge.limits.clone().watch(stop.clone()));
    let mut gather = Gather::default();
    (0..15).for_each(|_| gather.envelope("a", "", 1).log(b"x", false));
    edge.limited.take(gather.take().unwrap());
    let mut next = async || edge.ring.recv().await.unwrap().selection.len();
    let begin = Instant::now();
    // The notice of the begin comes before what is left of the batch.
    assert_eq!((next().await, next().await, begin.elapsed()), (1, 10, Duration::ZERO));
    assert_eq!(next().await, 1);
    assert_eq!(begin.elapsed().as_secs(), 10, "not before the owner may be told again");
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let page = edge.telemetry.render();
    for line in [
        "hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"rate_limited\"} 5",
        "hydrant_received_envelopes_total{stage=\"agent\"} 17",
        "hydrant_limits_notices_total 2",
        "hydrant_limits_exceeding_sources 0",
        "hydrant_limits_sources 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
}

#[test]
fn where_nothing_is_limited_there_is_nothing() {
    let telemetry = Telemetry::default();
    let Edge { limited, .. } = edge("lines_per_second = 10");
    let none = Limits::new(&config("[[overrides]]\nsource_ids = [\"a\"]"), limited, &telemetry);
    assert!(none.is_none(), "an override that limits nothing is none");
    assert!(telemetry.render().contains("hydrant_limits_notices_total 0"), "a page has the same families");
}
