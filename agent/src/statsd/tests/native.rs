//! What is summed up until a flush: the native mapping, and DogStatsD's lines in both.

use super::*;

fn native() -> Settings {
    Settings { mapping: Mapping::Native, ..Settings::default() }
}

/// What the lines give at once, and at the next flush, sorted by name.
fn tell(collector: &mut Collector, text: &str) -> (Vec<v2::Envelope>, Vec<v2::Envelope>) {
    let (now, refused, bad) = collect(collector, text.as_bytes());
    assert_eq!((refused.total(), bad), (0, Bad::new()), "{text}");
    (now, flush(collector))
}

fn flush(collector: &mut Collector) -> Vec<v2::Envelope> {
    let mut told = Vec::new();
    collector.flush(NOW + 10, |(batch, refused)| {
        assert_eq!(refused.total(), 0);
        told.extend(batch.entries().iter().map(|entry| v2::Envelope::decode(batch.envelope(entry)).unwrap()));
    });
    told.sort_by_key(name);
    told
}

fn name(envelope: &v2::Envelope) -> String {
    match envelope.message.as_ref().unwrap() {
        Message::Counter(counter) => counter.name.clone(),
        Message::Gauge(gauge) => gauge.metrics.keys().min().unwrap().clone(),
        other => panic!("{other:?}"),
    }
}

fn delta(envelope: &v2::Envelope) -> (&str, u64) {
    let Some(Message::Counter(counter)) = &envelope.message else { panic!("no counter: {envelope:?}") };
    assert_eq!(counter.total, 0, "the agent's own totals are added later");
    (&counter.name, counter.delta)
}

#[test]
fn counters_are_told_with_what_was_added() {
    let mut collector = collector(native());
    let (now, told) = tell(&mut collector, "shop.orders:1|c\nshop.orders:2|c|@0.5\nshop.visits:1:2:3|c\nshop.none:0|c");
    assert!(now.is_empty(), "nothing before the flush");
    assert_eq!(told.iter().map(delta).collect::<Vec<_>>(), [("orders", 5), ("visits", 6)]);
    assert_eq!(
        (told[0].source_id.as_str(), told[0].tags["origin"].as_str(), told[0].timestamp),
        ("shop", "shop", NOW + 10)
    );
    assert!(flush(&mut collector).is_empty(), "nothing came");
    let (_, told) = tell(&mut collector, "shop.orders:1|c");
    assert_eq!(delta(&told[0]), ("orders", 1));
}

#[test]
fn less_than_one_and_below_zero_stay_for_later() {
    let mut collector = collector(native());
    assert!(tell(&mut collector, "a.part:0.4|c\na.less:-2|c").1.is_empty());
    let (_, told) = tell(&mut collector, "a.part:0.4|c\na.part:0.4|c\na.less:5|c");
    assert_eq!(told.iter().map(delta).collect::<Vec<_>>(), [("less", 3), ("part", 1)]);
    // A third, three times, is one: what rounding took is given back.
    let (_, told) = tell(&mut collector, &"a.third:1|c|@3\n".repeat(3));
    assert_eq!(delta(&told[0]), ("third", 1));
}

#[test]
fn gauges_keep_their_level_and_take_steps() {
    let mut collector = collector(native());
    let (_, told) = tell(&mut collector, "a.depth:10|g\na.depth:+5|g\na.depth:-2.5|g\na.other:3|g|@0.1");
    assert_eq!(told.iter().map(reading).collect::<Vec<_>>(), [("depth", "", 12.5), ("other", "", 3.0)]);
    let (_, told) = tell(&mut collector, "a.depth:-20|g");
    assert_eq!(reading(&told[0]), ("depth", "", -7.5), "levels are remembered");

    let settings = Settings { negative_gauges: NegativeGauges::Set, ..native() };
    let (_, told) = tell(&mut super::collector(settings), "a.t:10|g\na.t:-5|g");
    assert_eq!(reading(&told[0]), ("t", "", -5.0));
}

#[test]
fn sets_count_what_is_distinct() {
    let mut collector = collector(native());
    let (_, told) =
        tell(&mut collector, "a.users:anna|s\na.users:bob|s\na.users:anna|s\na.users:2001:db8::1|s\na.users:2001|s");
    assert_eq!(reading(&told[0]), ("users", "", 4.0));
    let (_, told) = tell(&mut collector, "a.users:bob|s");
    assert_eq!(reading(&told[0]), ("users", "", 1.0), "each flush starts again");
    let mut few = super::collector(Settings { max_values: NonZeroUsize::new(2).unwrap(), ..native() });
    let (_, told) = tell(&mut few, "a.users:1|s\na.users:2|s\na.users:3|s\na.users:3|s\na.users:1|s");
    assert_eq!(reading(&told[0]), ("users", "", 2.0));
    assert_eq!(few.state().take_losses(), (0, 2), "3, twice");
}

#[test]
fn timers_histograms_and_distributions_are_summed_up() {
    let mut collector = collector(native());
    let (_, told) = tell(&mut collector, "a.took:1:2:3|ms|@0.5\na.size:7|h\na.spread:9|d");
    assert_eq!(told.len(), 3);
    for (envelope, unit) in told.iter().zip(["", "", "ms"]) {
        let Some(Message::Gauge(gauge)) = &envelope.message else { panic!("no gauge: {envelope:?}") };
        assert_eq!(gauge.metrics.len(), 14);
        let mean = gauge.metrics.iter().find(|(name, _)| name.ends_with(".mean")).unwrap();
        assert_eq!(mean.1.unit, unit);
    }
    let Some(Message::Gauge(gauge)) = &told[2].message else { unreachable!("looked at above") };
    for (name, value) in [("took.count", 6.0), ("took.count_ps", 0.6), ("took.mean", 2.0), ("took.upper_90", 3.0)] {
        assert_eq!(gauge.metrics[name].value, value, "{name}");
    }
}

#[test]
fn tags_make_series_of_their_own_and_are_kept() {
    let mut collector = collector(native());
    let text = "a.n:1|c|#env:prod-eu,bare,url:http://x/y\na.n:2|c|#env:dev|c:ci-1f2e\na.n:4|c";
    let (_, mut told) = tell(&mut collector, text);
    told.sort_by_key(|envelope| delta(envelope).1);
    let tags: Vec<BTreeMap<_, _>> = told.into_iter().map(|envelope| envelope.tags.into_iter().collect()).collect();
    let expect = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(tags[0], expect(&[("origin", "a"), ("env", "prod-eu"), ("bare", ""), ("url", "http://x/y")]));
    assert_eq!(tags[1], expect(&[("origin", "a"), ("env", "dev"), ("container_id", "1f2e")]));
    assert_eq!(tags[2], expect(&[("origin", "a")]));
}

#[test]
fn sources_are_a_tag_or_configured_or_what_stands_before_the_dot() {
    let (_, told) = tell(&mut collector(native()), "http.hits:1|c|#source_id:shop,instance_id:3");
    assert_eq!(
        (told[0].source_id.as_str(), told[0].instance_id.as_str(), delta(&told[0])),
        ("shop", "3", ("http.hits", 1))
    );
    assert_eq!(told[0].tags.len(), 1, "{:?}", told[0].tags);

    let settings = Settings { source_id: Some("web".into()), ..native() };
    let (_, told) = tell(&mut collector(settings), "hits:1|c\nhttp.hits:1|c\nb:1|c|#source_id:shop");
    let sources: Vec<_> = told.iter().map(|envelope| (envelope.source_id.as_str(), delta(envelope).0)).collect();
    assert_eq!(sources, [("shop", "b"), ("web", "hits"), ("web", "http.hits")]);

    let (_, _, bad) = collect(&mut collector(native()), b"hits:1|c");
    assert_eq!(bad[0].1, LineError::NoOrigin);
}

#[test]
fn values_with_a_time_of_their_own_are_not_summed_up() {
    let (now, told) = tell(&mut collector(native()), "a.n:3|c|T1656581400\na.g:2.5|g|T1656581401");
    assert!(told.is_empty());
    assert_eq!((delta(&now[0]), now[0].timestamp), (("n", 3), 1_656_581_400_000_000_000));
    assert_eq!((reading(&now[1]), now[1].timestamp), (("g", "", 2.5), 1_656_581_401_000_000_000));
}

#[test]
fn the_classic_mapping_reads_types_that_the_original_refuses_as_the_native_one() {
    let (now, told) = tell(&mut collector(Settings::default()), "a.c:1|c\na.h:1|h|#k:v-1\na.s:x|s\na.d:1|d");
    assert_eq!(reading(&now[0]), ("c", "counter", 1.0));
    assert_eq!((now.len(), told.len()), (1, 3));
}

#[test]
fn events_and_service_checks_are_told_at_once() {
    let text = "_e{5,12}:title|text\\nof|two|d:1656581400|h:web-1|k:key|p:low|s:nagios|t:error|#env:prod,source_id:shop\n\
                _sc|shop.db.up|2|d:1656581401|h:web-1|#env:prod|m:no answer|from:db\n\
                _e{3,2}:a b|ok\n_sc|up|0";
    let (now, told) = tell(&mut collector(Settings::default()), text);
    assert_eq!((now.len(), told.len()), (4, 0));
    let event = v2::Event { title: "title".into(), body: "text\nof|two".into() };
    assert_eq!(now[0].message, Some(Message::Event(event)));
    assert_eq!((now[0].source_id.as_str(), now[0].timestamp), ("shop", 1_656_581_400_000_000_000));
    for (key, value) in [
        ("host", "web-1"),
        ("aggregation_key", "key"),
        ("priority", "low"),
        ("alert_type", "error"),
        ("source_type_name", "nagios"),
        ("env", "prod"),
        ("origin", "shop"),
    ] {
        assert_eq!(now[0].tags[key], value, "{key}");
    }
    assert_eq!((reading(&now[1]), now[1].source_id.as_str()), (("db.up", "", 2.0), "shop"));
    assert_eq!(now[1].tags["message"], "no answer|from:db");
    assert_eq!((now[2].source_id.as_str(), now[2].timestamp), ("statsd", NOW));
    assert_eq!((reading(&now[3]), now[3].source_id.as_str()), (("up", "", 0.0), "statsd"));
}

#[test]
fn a_refused_line_says_what_would_be_right() {
    let long = format!("a.n:1|c|#k:{}", "v".repeat(MAX_TAG));
    let many = format!("a.n:1|c|#{}", vec!["k"; MAX_TAGS + 1].join(","));
    for (line, error) in [
        (&b"a.n"[..], LineError::Form),
        (b"a.n:|c", LineError::Form),
        (b":1|c", LineError::Form),
        (b"a.n:1", LineError::Form),
        (b"a.n:x|c", LineError::Form),
        (b"a.n:1:x|c", LineError::Form),
        (b"a.n:inf|g", LineError::Form),
        (b"a.n:1e999|g", LineError::Form),
        (b"a.n:1|q", LineError::Type),
        (b"a.n:1|c|@0", LineError::Rate),
        (b"a.n:1|c|@-1", LineError::Rate),
        (b"a.n:1|c|@x", LineError::Rate),
        (b"a.n:1|c|Tx", LineError::Time),
        (b"a.n:1|c|T9223372036854775807", LineError::Time),
        (b"a.n:1|c|T0", LineError::Time),
        (b"_e{5,4}:title|text|d:-656581400", LineError::Time),
        (b"n:1|c", LineError::NoOrigin),
        (b"a.\xff:1|c", LineError::NotText),
        (b"_e{5,4}:titl|text", LineError::Event),
        (b"_e{1,1}:\xc3\xa4|x", LineError::Event),
        (b"_e{99999999999999999999,4}:t|text", LineError::Event),
        (b"_e{0,4}:|text", LineError::Event),
        (b"_e{5}:title|text", LineError::Event),
        (b"_sc|a.b|4", LineError::Check),
        (b"_sc|a.b", LineError::Check),
        (b"_sc||0", LineError::Check),
        (long.as_bytes(), LineError::LongTag),
        (many.as_bytes(), LineError::ManyTags),
    ] {
        let (now, refused, bad) = collect(&mut collector(native()), line);
        assert_eq!((now.len(), refused.total(), bad.len()), (0, 1, 1), "{}", line.escape_ascii());
        assert_eq!(bad[0].1, error, "{}", line.escape_ascii());
    }
}

#[test]
fn a_line_that_is_refused_leaves_nothing_behind() {
    let mut collector = collector(Settings { max_series: NonZeroUsize::new(2).unwrap(), ..native() });
    for i in 0..1_000 {
        let text = format!("a.n{i}:x|c\na.n{i}:NaN|g\na.n{i}:|ms\na.n{i}:1:x|h\na.n{i}:1e300|c\na.n{i}:1e18|c|@0.01");
        let (now, _, bad) = collect(&mut collector, text.as_bytes());
        assert_eq!((now.len(), bad.len()), (0, 6), "{bad:?}");
    }
    assert_eq!(bad_of(&mut collector, "a.n:9.3e18|c"), LineError::Large);
    let (now, told) = tell(&mut collector, "a.a:1|c\na.b:2|c");
    assert_eq!((now.len(), told.len()), (0, 2), "both had room");
}

fn bad_of(collector: &mut Collector, line: &str) -> LineError {
    collect(collector, line.as_bytes()).2[0].1
}

#[test]
fn a_counter_recovers_from_the_largest_steps() {
    let mut collector = collector(native());
    let text = "a.n:9e18|c\n".repeat(100);
    let (_, told) = tell(&mut collector, &text);
    assert_eq!(delta(&told[0]), ("n", 1 << 63));
    let (_, told) = tell(&mut collector, "a.n:3|c");
    assert_eq!(delta(&told[0]), ("n", 3));
}

#[test]
fn memory_is_bounded_by_names_and_values_together_too() {
    let some = |value| NonZeroUsize::new(value).unwrap();
    let mut collector = collector(Settings { max_series: some(100), ..native() });
    // A hundred series of 60 KiB of tags are 6 MiB; 100 KiB are kept.
    for i in 0..100 {
        let tags: Vec<String> = (0..60).map(|t| format!("{i}t{t}:{}", "v".repeat(1_000))).collect();
        collector.add(format!("a.n:1|c|#{}", tags.join(",")).as_bytes(), NOW, |_, _| ());
        collector.take();
    }
    assert_eq!(collector.state().take_losses().0, 99);
    // Packed values with a time are one envelope.
    let (now, told) = tell(&mut collector, &format!("a.packed:{}|g|T1", vec!["1"; 10_000].join(":")));
    assert_eq!((now.len(), told.len()), (1, 1));
    let (now, _) = tell(&mut collector, "a.sum:1:2:3|c|T1");
    assert_eq!(delta(&now[0]), ("sum", 6));
}

#[test]
fn a_series_that_has_to_go_is_told_first() {
    let mut collector = collector(Settings { max_series: NonZeroUsize::new(2).unwrap(), ..native() });
    let (now, told) = tell(&mut collector, "a.a:1|c\na.b:2|c\na.c:4|c");
    assert_eq!(now.iter().map(delta).collect::<Vec<_>>(), [("a", 1)]);
    assert_eq!(told.iter().map(delta).collect::<Vec<_>>(), [("b", 2), ("c", 4)]);
    assert_eq!(collector.state().take_losses(), (1, 0));
}

#[test]
fn a_flush_of_many_series_leaves_in_batches_that_every_hop_takes() {
    let settings = Settings { max_series: NonZeroUsize::new(25_000).unwrap(), ..native() };
    let mut collector = collector(settings);
    for i in 0..25_000 {
        collector.add(format!("a.n{i}:1|c").as_bytes(), NOW, |_, _| ());
    }
    let mut sizes = Vec::new();
    collector.flush(NOW, |(batch, _)| sizes.push(batch.len()));
    assert!(sizes.iter().all(|size| *size <= 10_000) && sizes.iter().sum::<usize>() == 25_000, "{sizes:?}");
}

#[test]
fn sockets_share_their_series() {
    let state = State::new(native(), NonZeroUsize::new(3).unwrap());
    let mut collectors: Vec<_> = (0..3).map(|_| Collector::new(state.clone())).collect();
    for (i, collector) in collectors.iter_mut().enumerate() {
        for n in 0..100 {
            collector.add(format!("a.n{n}:{}|c\na.g:{i}|g\na.took:{i}|ms", i + 1).as_bytes(), NOW, |_, _| ());
        }
    }
    let told = flush(&mut collectors[1]);
    assert_eq!(told.len(), 102);
    assert!(
        told.iter()
            .filter_map(|envelope| match &envelope.message {
                Some(Message::Counter(counter)) => Some(counter.delta),
                _ => None,
            })
            .all(|delta| delta == 6)
    );
    assert!(flush(&mut collectors[0]).is_empty());
}

proptest! {
    /// What is added is what is told, whatever the order, the tags and the flushes.
    #[test]
    fn no_count_is_lost(adds in prop::collection::vec((0..5_u64, 0..4_usize, any::<bool>()), 0..200), few in 1..4_usize) {
        let settings = Settings { max_series: NonZeroUsize::new(few).unwrap(), ..native() };
        let mut collector = collector(settings);
        let mut told = 0;
        let mut count = |envelopes: Vec<v2::Envelope>| told += envelopes.iter().map(|envelope| delta(envelope).1).sum::<u64>();
        for (add, series, flushes) in &adds {
            let (now, _, bad) = collect(&mut collector, format!("a.n:{add}|c|#k:{series}").as_bytes());
            prop_assert!(bad.is_empty());
            count(now);
            if *flushes {
                count(flush(&mut collector));
            }
        }
        count(flush(&mut collector));
        prop_assert_eq!(told, adds.iter().map(|(add, ..)| add).sum::<u64>());
    }

    /// Whatever looks like DogStatsD is taken or counted.
    #[test]
    fn any_near_lines_of_dogstatsd_are_taken_or_counted(
        text in r"((_e\{[0-9]{1,2},[0-9]{1,2}\}:|_sc\||[a-z.]{0,4}:)([0-9+.:-]{0,4}|ä)(\|(c|g|ms|h|d|s|[0-3]))(\|(@0.5|#[a-z:,]{0,9}|T[0-9]{1,3}|c:x|d:1|m:y))*\n?){0,9}"
    ) {
        fuzz(text.as_bytes());
    }
}
