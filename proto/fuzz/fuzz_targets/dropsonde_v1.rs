//! Arbitrary bytes as a v1 payload.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_proto::v1::fuzz::payload(bytes));
