//! Arbitrary bytes as a statsd datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::statsd::fuzz(bytes));
