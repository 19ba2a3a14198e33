//! The crate against its contract: vectors captured on the wire (`tests/fixtures`), and properties over generated input.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod proto {
    mod envelopes;
    mod json;
    mod round_trips;
    mod tags;
    mod v1;
    mod vectors;
}
