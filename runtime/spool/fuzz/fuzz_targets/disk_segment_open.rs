//! Arbitrary bytes as the files of a spool.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_spool::fuzz::segments(bytes));
