//! Arbitrary bytes as a dropsonde datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::dropsonde::fuzz(bytes));
