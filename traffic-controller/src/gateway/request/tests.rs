//! Queries by the sections of the contract (loggregator v2 §12.1, §12.3), and what we add to them.

use super::*;

const NOW: i64 = 1_790_000_000_000_000_000;

fn wanted(query: &str) -> Result<Wanted, BadQuery> {
    parse(Some(query), None, NOW)
}

/// Selectors as `source:type=names`.
fn selectors(query: &str) -> Vec<String> {
    let selector = |selector: v2::Selector| {
        let what = match selector.message.unwrap() {
            Select::Log(_) => "log".to_owned(),
            Select::Counter(counter) => format!("counter={}", counter.name),
            Select::Gauge(gauge) => format!("gauge={}", gauge.names.join("+")),
            Select::Timer(_) => "timer".to_owned(),
            Select::Event(_) => "event".to_owned(),
        };
        format!("{}:{what}", selector.source_id)
    };
    wanted(query).unwrap().egress.selectors.into_iter().map(selector).collect()
}

#[test]
fn section_12_1_presence_selects_and_names_take_the_place_of_their_type() {
    assert_eq!(selectors("log"), [":log"]);
    assert_eq!(selectors("event&timer&gauge&counter&log=false"), [":log", ":counter=", ":gauge=", ":timer", ":event"]);
    assert_eq!(selectors("counter&counter.name=a&counter.name=b"), [":counter=a", ":counter=b"]);
    assert_eq!(selectors("gauge.name=cpu,memory&gauge&gauge.name=x"), [":gauge=cpu+memory", ":gauge=x"]);
    assert_eq!(selectors("counter.name="), [":counter="]);
    assert_eq!(selectors("gauge.name="), [":gauge="]);
}

#[test]
fn section_12_1_sources_and_types_are_a_cross_product_in_order() {
    assert_eq!(selectors("source_id=b&log&source_id=a&timer"), ["b:log", "b:timer", "a:log", "a:timer"]);
    let wanted = wanted("log&shard_id=s&shard_id=t&deterministic_name=n&other=1").unwrap();
    assert_eq!((wanted.egress.shard_id.as_str(), wanted.egress.deterministic_name.as_str()), ("s", "n"));
    assert!(wanted.egress.use_preferred_tags && wanted.start.is_none());
}

#[test]
fn section_12_3_a_query_that_asks_for_nothing_is_told_so() {
    assert_eq!(parse(None, None, NOW), Err(BadQuery::Empty));
    assert_eq!(wanted(""), Err(BadQuery::Empty));
    assert_eq!(wanted("source_id=a"), Err(BadQuery::NoType));
    assert_eq!((BadQuery::Empty.name(), BadQuery::NoType.name()), ("empty_query", "missing_envelope_type"));
}

#[test]
fn what_cannot_be_unescaped_is_skipped_and_the_rest_counts() {
    assert_eq!(selectors("log&source_id=%zz&source_id=a%2Fb+c&%"), ["a/b c:log"]);
    assert_eq!(selectors("log&source_id=a;b"), [":log"]);
    assert_eq!(selectors("log&source_id=%ff"), [":log"]);
    assert_eq!(sources(Some("log&source_id=..%2f..&source_id=%00")), ["../..", "\0"]);
}

#[test]
fn a_stream_begins_at_a_time_after_a_cursor_or_now() {
    let start = |more: &str| wanted(&format!("log&source_id=a&{more}")).map(|wanted| wanted.start);
    assert_eq!(start("start_time=5"), Ok(Some(Start::At(5))));
    assert_eq!(start("start_time=-1"), Ok(Some(Start::At(-1))), "as the log cache takes it");
    assert_eq!(start("start_time=-10m"), Ok(Some(Start::At(NOW - 600_000_000_000))));
    assert_eq!(start("start_time=2026-09-21T14:13:20Z"), Ok(Some(Start::At(NOW))));
    assert_eq!(start("resume"), Ok(Some(Start::At(NOW))));
    assert_eq!(start("x"), Ok(None));
    assert_eq!(start("start_time=soon"), Err(BadQuery::StartTime));
    assert_eq!(start("after=nothing"), Err(BadQuery::Cursor));
    let mut place = Place::default();
    place.advance(proto::hydrant::v1::Cursor { doppler: "a".to_owned(), epoch: 1, sequence: 2 });
    assert_eq!(start(&format!("after={}", place.text())), Ok(Some(Start::After(place.clone()))));
    let header = parse(Some("log&source_id=a&resume"), Some(&place.text()), NOW).unwrap();
    assert_eq!(header.start, Some(Start::After(place)));
}

#[test]
fn history_is_for_named_sources_alone() {
    for query in ["log&resume", "log&source_id=&resume", "log&source_id=a&shard_id=s&start_time=1"] {
        assert_eq!(wanted(query), Err(BadQuery::NoHistory), "{query}");
    }
}

#[test]
fn a_query_is_bounded() {
    let sources = |count: usize| (0..count).map(|i| format!("&source_id={i}")).collect::<String>();
    assert!(wanted(&format!("log&timer{}", sources(5_000))).is_ok());
    assert_eq!(wanted(&format!("log&timer{}", sources(5_001))), Err(BadQuery::TooMany));
    assert_eq!(wanted(&format!("log&source_id={}", "x".repeat(257))), Err(BadQuery::LongSource));
}
