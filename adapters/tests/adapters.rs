//! Drains over real sockets: a fake doppler on one side, receivers of every temper on the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "adapters/binding_cache.rs"]
mod binding_cache;
#[path = "adapters/bindings.rs"]
mod bindings;
#[path = "adapters/datadog.rs"]
mod datadog;
#[path = "adapters/datagrams.rs"]
mod datagrams;
#[path = "adapters/disk.rs"]
mod disk;
#[path = "adapters/drains.rs"]
mod drains;
#[path = "adapters/expiry.rs"]
mod expiry;
#[path = "adapters/exposition.rs"]
mod exposition;
#[path = "adapters/faults.rs"]
mod faults;
#[path = "adapters/golden.rs"]
mod golden;
#[path = "adapters/healthy.rs"]
mod healthy;
#[path = "adapters/https.rs"]
mod https;
#[path = "adapters/judges.rs"]
mod judges;
#[path = "adapters/metrics_drains.rs"]
mod metrics_drains;
#[cfg(feature = "nats")]
#[path = "adapters/nats.rs"]
mod nats;
#[path = "adapters/otlp.rs"]
mod otlp;
#[path = "adapters/otlp_answers.rs"]
mod otlp_answers;
#[path = "adapters/outages.rs"]
mod outages;
#[path = "adapters/remote_write.rs"]
mod remote_write;
#[path = "adapters/resets.rs"]
mod resets;
#[path = "adapters/rsyslog.rs"]
mod rsyslog;
#[path = "adapters/support.rs"]
mod support;
#[path = "adapters/syslog_ng.rs"]
mod syslog_ng;
#[path = "adapters/tls.rs"]
mod tls;
