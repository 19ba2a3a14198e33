//! Arbitrary bytes as any of the kernel's files that the host's metrics are read from.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydrant_agent::host::fuzz(bytes));
