//! What a request means, and what it is answered.

use prost::Message;
use proto::raw::{Batch, Limits};
use proto::v2::{self, Envelope};

use super::*;
use crate::config::Config;
use crate::noise::noise;

fn parse(request: v1::ReadRequest) -> Result<Read, String> {
    Read::parse(request, 1000).map_err(|error| error.to_string())
}

fn store(envelopes: Vec<Envelope>) -> Store {
    let store = Store::new(&Config::with_budget(256 << 20));
    let encoded = v2::EnvelopeBatch { batch: envelopes }.encode_to_vec();
    store.put(&Batch::check(encoded.into(), &Limits::default()).0.into());
    store
}

#[test]
fn defaults_are_those_of_the_contract() {
    let read = parse(v1::ReadRequest::default()).unwrap();
    assert_eq!((read.start, read.end, read.limit, read.descending), (0, 1000, 100, false));
    assert_eq!(read.kinds, ANY_KIND);
}

#[test]
fn wrong_requests_are_told_in_known_words() {
    let with = |change: fn(&mut v1::ReadRequest)| {
        let mut request = v1::ReadRequest::default();
        change(&mut request);
        parse(request).unwrap_err()
    };
    let range = with(|request| (request.start_time, request.end_time) = (20, 10));
    assert_eq!(range, "StartTime (20) must be before EndTime (10)");
    assert_eq!(with(|request| request.limit = 1001), "limit (1001) must be 1000 or less");
    assert_eq!(with(|request| request.limit = -1), "limit (-1) must be greater than zero");
    assert_eq!(with(|request| request.limit = i64::MIN), format!("limit ({}) must be greater than zero", i64::MIN));
    assert_eq!(
        with(|request| request.name_filter = "[".to_owned()),
        "name filter must be a valid regular expression: error parsing regexp: missing closing ]: `[`"
    );
    for error in [ReadError::LimitNegative(-1), ReadError::Range { start: 1, end: 0 }] {
        assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unknown);
    }
}

#[test]
fn limits_and_ranges_at_the_edge_are_fine() {
    for limit in [1, 1000] {
        assert_eq!(parse(v1::ReadRequest { limit, ..v1::ReadRequest::default() }).unwrap().limit as i64, limit);
    }
    // An end of 0 is now, so a start after it is no error; and a range may be empty.
    assert!(parse(v1::ReadRequest { start_time: 5000, ..v1::ReadRequest::default() }).is_ok());
    assert!(parse(v1::ReadRequest { start_time: 7, end_time: 7, ..v1::ReadRequest::default() }).is_ok());
}

#[test]
fn any_and_unknown_types_are_left_out_of_the_list() {
    let of = |types: &[i32]| kinds(types);
    assert_eq!(of(&[]), ANY_KIND);
    assert_eq!(of(&[0, 0]), ANY_KIND);
    assert_eq!(of(&[0, 1]), Kind::Log.bit());
    assert_eq!(of(&[3, 5, 99]), Kind::Gauge.bit() | Kind::Event.bit());
}

#[test]
fn a_name_filter_comes_before_the_limit() {
    let mut envelopes: Vec<Envelope> =
        (0..500).map(|i| Envelope::counter("a", format!("c{}", i % 10), 1).at(i)).collect();
    envelopes.push(Envelope::log("a", "c3").at(3));
    let store = store(envelopes);
    let request = v1::ReadRequest {
        source_id: "a".to_owned(),
        limit: 7,
        name_filter: "^c3$".to_owned(),
        ..v1::ReadRequest::default()
    };
    let page = store.read(&parse(request.clone()).unwrap()).unwrap();
    let found = v2::EnvelopeBatch::decode(page.batch).unwrap().batch;
    let times: Vec<i64> = found.iter().map(|envelope| envelope.timestamp).collect();
    assert_eq!(times, [3, 13, 23, 33, 43, 53, 63]);
    let logs = v1::ReadRequest { envelope_types: vec![1], ..request };
    assert_eq!(store.read(&parse(logs).unwrap()).unwrap(), Page::default());
}

#[test]
fn an_answer_over_the_limit_of_every_reader_is_refused_and_a_smaller_one_is_not() {
    let store = Store::new(&Config::with_budget(256 << 20));
    for i in 0..60 {
        let encoded =
            v2::EnvelopeBatch { batch: vec![Envelope::log("a", vec![b'x'; 1_000_000]).at(i)] }.encode_to_vec();
        store.put(&Batch::check(encoded.into(), &Limits::default()).0.into());
    }
    let request = |limit| v1::ReadRequest { source_id: "a".to_owned(), limit, ..v1::ReadRequest::default() };
    let read = |limit| store.read(&parse(request(limit)).unwrap());
    let error = read(1000).unwrap_err();
    assert!(matches!(error, ReadError::TooLarge(_)));
    assert!(error.to_string().starts_with("grpc: received message larger than max ("), "{error}");
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::ResourceExhausted);
    assert_eq!(read(50).unwrap().envelopes, 50);
}

/// The texts of a page of logs.
fn texts(page: &Page) -> Vec<String> {
    let found = v2::EnvelopeBatch::decode(page.batch.clone()).unwrap().batch;
    found.iter().map(|envelope| String::from_utf8(envelope.payload().to_vec()).unwrap()).collect()
}

#[test]
fn a_text_filter_finds_payloads_in_open_and_packed_segments() {
    let line = |i: i64| Envelope::log("a", format!("request {i} {}", noise(100))).at(i).tag("request 7 ", "x");
    let store = store((0..2000).map(line).collect());
    let request = |text: &str, text_regex: &str| v1::ReadRequest {
        source_id: "a".to_owned(),
        end_time: 5000,
        text: text.to_owned(),
        text_regex: text_regex.to_owned(),
        ..v1::ReadRequest::default()
    };
    let found = |request: v1::ReadRequest| {
        let page = store.read(&parse(request).unwrap()).unwrap();
        assert_eq!(page.partial, None);
        texts(&page).iter().map(|text| text.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(request("request 7 ", "")), ["7"]);
    assert_eq!(found(request("", "^request 1?99[89] ")), ["998", "999", "1998", "1999"]);
    let newest = v1::ReadRequest { descending: true, limit: 2, ..request("request 19", "") };
    assert_eq!(found(newest), ["1999", "1998"]);
    assert!(found(v1::ReadRequest { envelope_types: vec![2], ..request("request", "") }).is_empty());
    assert!(parse(request("a", "b")).unwrap_err().contains("exclude each other"));
    assert!(parse(request("", "(")).unwrap_err().starts_with("text_regex must be a valid regular expression: "));
}

/// Page by page, from where each gave up, everything is found once.
#[test]
fn a_search_that_gives_up_says_where_and_the_next_goes_on_there() {
    for descending in [false, true] {
        let line = |i: i64| Envelope::log("a", format!("{} {i}", noise(200))).at((i * 7919) % 1000);
        let store = store((0..1000).map(line).collect());
        let (mut start, mut end, mut all, mut pages) = (0, 1000, Vec::new(), 0);
        loop {
            let request = v1::ReadRequest {
                source_id: "a".to_owned(),
                start_time: start,
                end_time: end,
                limit: 1000,
                descending,
                text_regex: "7$".to_owned(),
                ..v1::ReadRequest::default()
            };
            let mut read = parse(request).unwrap();
            // Less each time until it comes to something: in this order every segment spans nearly all times.
            read.scan = 100_000 + pages * 20_000;
            let page = store.read(&read).unwrap();
            all.extend(texts(&page));
            pages += 1;
            match page.partial {
                None => break,
                Some(reached) if descending => end = reached + 1,
                Some(reached) => start = reached,
            }
            assert!(pages < 100);
        }
        all.sort_unstable();
        all.dedup();
        assert!(pages > 1 && all.len() == 100, "{pages} pages, {} lines", all.len());
    }
}

/// However a source's times jump about, a read gives the first ones, and holds few segments open.
#[test]
fn times_that_jump_about_are_read_in_order() {
    let line = |i: i64| Envelope::log("a", noise(300)).at((i * 7919) % 5000);
    let store = store((0..5000).map(line).collect());
    for descending in [false, true] {
        let request = v1::ReadRequest {
            source_id: "a".to_owned(),
            end_time: 4000,
            limit: 700,
            descending,
            ..v1::ReadRequest::default()
        };
        let page = store.read(&parse(request).unwrap()).unwrap();
        let batch = v2::EnvelopeBatch::decode(page.batch).unwrap().batch;
        let times: Vec<i64> = batch.iter().map(|envelope| envelope.timestamp).collect();
        let expected: Vec<i64> = if descending { (3300..4000).rev().collect() } else { (0..700).collect() };
        assert_eq!(times, expected);
    }
}
