//! Arbitrary bytes as a syslog message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::syslog::fuzz_message(bytes));
