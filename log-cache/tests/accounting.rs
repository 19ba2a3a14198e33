//! What the store says that it holds, against what the allocator has given out for it.
//!
//! The budget is kept by the store's own account, so the account has to be true: for every shape of traffic the bytes that live because
//! of the store are between three quarters of it and a tenth above it. It may well be above them, as it counts what allocators round up. A
//! binary of its own, with one test: the allocator counts for the whole process.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

// Under the name that the rest of the workspace uses.
extern crate hydrant_log_cache as log_cache;

use log_cache::{Config, Store};
use prost::Message;
use proto::raw::{Batch, Limits, Selection};
use proto::v2::{Envelope, EnvelopeBatch};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Envelopes of one batch.
const BATCH: u64 = 100;

/// Room for all that a shape brings.
const AMPLE: u64 = 1 << 30;

/// Traffic of one kind.
struct Shape {
    name: &'static str,
    budget: u64,
    envelopes: u64,
    make: fn(u64) -> Envelope,
}

const SHAPES: &[Shape] = &[
    Shape { name: "one source", budget: AMPLE, envelopes: 20_000, make: |i| log(0, i, text(i)) },
    Shape { name: "a hundred sources", budget: AMPLE, envelopes: 20_000, make: |i| log(i % 100, i, text(i)) },
    Shape { name: "many sources", budget: AMPLE, envelopes: 20_000, make: |i| log(i % 2000, i, text(i)) },
    Shape { name: "a line of each source", budget: AMPLE, envelopes: 20_000, make: |i| log(i, i, text(i)) },
    Shape { name: "compressible", budget: AMPLE, envelopes: 20_000, make: |i| log(i % 10, i, "again ".repeat(50)) },
    Shape { name: "noise", budget: AMPLE, envelopes: 10_000, make: |i| log(i % 10, i, noise(i, 300)) },
    Shape { name: "tiny lines", budget: AMPLE, envelopes: 40_000, make: |i| log(i % 10, i, "x".to_owned()) },
    Shape { name: "tiny lines of many", budget: AMPLE, envelopes: 20_000, make: |i| log(i % 5000, i, "x".to_owned()) },
    Shape { name: "large lines", budget: AMPLE, envelopes: 200, make: |i| log(i % 3, i, noise(i, 100_000)) },
    Shape {
        name: "sizes of all kinds",
        budget: AMPLE,
        envelopes: 5_000,
        make: |i| log(i % 7, i, noise(i, i * i % 9001)),
    },
    Shape { name: "late data", budget: AMPLE, envelopes: 20_000, make: |i| log(i % 10, i * 7919 % 20_000, text(i)) },
    Shape { name: "tags of many values", budget: AMPLE, envelopes: 10_000, make: tagged },
    Shape { name: "metrics", budget: AMPLE, envelopes: 20_000, make: metric },
    Shape { name: "eviction, few sources", budget: 1 << 20, envelopes: 20_000, make: |i| log(i % 5, i, noise(i, 300)) },
    Shape {
        name: "eviction, many sources",
        budget: 2 << 20,
        envelopes: 30_000,
        make: |i| log(i % 1500, i, noise(i, 300)),
    },
    Shape { name: "eviction of whole sources", budget: 1 << 20, envelopes: 20_000, make: |i| log(i, i, text(i)) },
    Shape {
        name: "eviction, large lines",
        budget: 4 << 20,
        envelopes: 200,
        make: |i| log(i % 3, i, noise(i, 100_000)),
    },
];

fn log(source: u64, time: u64, text: String) -> Envelope {
    let time = 1_700_000_000_000_000_000 + i64::try_from(time).unwrap() * 1_000_003;
    Envelope::log(format!("6a2c7f10-95d1-4f0e-b1a5-{source:012}"), text).at(time).instance("0").tag("origin", "rep")
}

fn tagged(i: u64) -> Envelope {
    (0..8).fold(log(i % 10, i, text(i)), |log, tag| log.tag(format!("tag-{tag}"), format!("value {}", i * tag % 97)))
}

fn metric(i: u64) -> Envelope {
    let source = format!("6a2c7f10-95d1-4f0e-b1a5-{:012}", i % 10);
    let metric = match i % 3 {
        0 => Envelope::counter(source, format!("requests.{}", i % 30), i),
        1 => Envelope::gauge(source, "cpu", i as f64 / 7.0, "percentage"),
        _ => Envelope::timer(source, "http", i as i64, 2 * i as i64),
    };
    metric.at(i as i64 * 1_000_003).tag("status_code", ["200", "404", "500"][i as usize % 3])
}

/// As a web service logs.
fn text(i: u64) -> String {
    let (took, trace) = (mixed(i) % 1000, mixed(i + 1));
    format!(
        "INFO request completed method=GET path=/api/v1/orders/{} status=200 duration_ms={took} trace_id={trace:016x}",
        i % 977
    )
}

/// Characters that do not compress.
fn noise(seed: u64, len: u64) -> String {
    (0..len).map(|i| char::from(b'!' + (mixed(seed << 32 | i) % 90) as u8)).collect()
}

/// A number that tells nothing of `number`: the finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn batch(envelopes: Vec<Envelope>) -> Selection {
    let encoded = EnvelopeBatch { batch: envelopes }.encode_to_vec();
    let (batch, refused) = Batch::check(encoded.into(), &Limits::default());
    assert_eq!(refused.total(), 0);
    batch.into()
}

/// Bytes that are given out now.
fn live() -> usize {
    dhat::HeapStats::get().curr_bytes
}

/// The account and the bytes, each time a tenth of the traffic has come.
fn measure(shape: &Shape) -> Vec<(usize, usize)> {
    let store = Store::new(&Config::with_budget(shape.budget));
    let before = live();
    let step = shape.envelopes / 10;
    let mut looks = Vec::new();
    for tenth in 0..10 {
        let end = (tenth + 1) * step;
        for begin in (tenth * step..end).step_by(BATCH as usize) {
            store.put(&batch((begin..end.min(begin + BATCH)).map(shape.make).collect()));
        }
        looks.push((store.numbers().bytes, live() - before));
    }
    let numbers = store.numbers();
    assert_eq!(numbers.evicted > 0, shape.budget < AMPLE, "{}: {numbers:?}", shape.name);
    looks
}

#[test]
fn the_store_holds_what_it_says() {
    let _counting = dhat::Profiler::builder().testing().build();
    // What is made once for the process is not the store's.
    measure(&Shape {
        budget: 1 << 16,
        envelopes: 1_000,
        ..Shape { name: "warm", budget: 0, envelopes: 0, make: tagged }
    });
    let mut off = Vec::new();
    for shape in SHAPES {
        let looks = measure(shape);
        let percent = |(says, lives): &(usize, usize)| lives * 100 / says;
        let (least, most) = (looks.iter().map(percent).min().unwrap(), looks.iter().map(percent).max().unwrap());
        let (says, lives) = looks[looks.len() - 1];
        println!("{}: {says} B said, {lives} B live, {least} % to {most} % on the way", shape.name);
        if least < 75 || most > 110 {
            off.push((shape.name, looks));
        }
    }
    assert!(off.is_empty(), "said and live: {off:#?}");
}
