//! Arbitrary bytes as a stream of syslog messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::syslog::fuzz_stream(bytes));
