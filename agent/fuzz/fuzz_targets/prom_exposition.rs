//! Arbitrary bytes as a page of metrics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::scrape::fuzz(bytes));
