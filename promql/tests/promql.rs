//! The crate as its users see it: compared with Prometheus itself, and under arbitrary input.

#[path = "promql/arbitrary.rs"]
mod arbitrary;
#[path = "promql/generate.rs"]
mod generate;
#[path = "promql/prometheus.rs"]
mod prometheus;
#[path = "promql/queries.rs"]
mod queries;
#[path = "promql/samples.rs"]
mod samples;
#[path = "promql/server.rs"]
mod server;
