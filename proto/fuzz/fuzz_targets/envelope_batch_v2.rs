//! Arbitrary bytes as an `EnvelopeBatch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_proto::raw::fuzz::batch(bytes));
