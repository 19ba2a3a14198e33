//! Arbitrary bytes as a v2 envelope, to v1 and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_proto::v1::fuzz::convert(bytes));
