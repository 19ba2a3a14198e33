//! Arbitrary bytes as a query, evaluated over a few samples.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_promql::fuzz::query(bytes));
