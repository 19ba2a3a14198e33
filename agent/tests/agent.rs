//! The agent on its public surface: real sockets, a doppler made of tonic alone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agent {
    mod containers;
    mod dropsonde;
    mod files;
    mod forward;
    mod harness;
    mod host;
    mod limits;
    mod scrape;
    mod statsd;
    mod statsd_senders;
    mod syslog;
}
