//! Arbitrary bytes as a part of a log: see `files::fuzz_docker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::files::fuzz_docker(bytes));
