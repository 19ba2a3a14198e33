//! What a request means, and what it is answered.

use prost::Message;
use proto::raw::{Batch, Limits};
use proto::v2::{self, Envelope};

use super::*;
use crate::config::Config;

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
    assert!(!read.looks_inside());
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
