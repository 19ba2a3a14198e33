//! Envelopes as requests to an OpenTelemetry collector: OTLP over gRPC and HTTP (contract: agents §3.3).
//!
//! ```text
//! envelopes ──► encode::Encoder ─┬─ logs, events ─────────────► record ─┐
//!                                ├─ counters, gauges, timers ─► series ─┼─► batch::Batch, one a signal ──► requests
//!                                └─ timers with trace ids ────► record ─┘
//!                 answers ──► answer: taken, taken in part, to be sent again, or never
//! ```
//!
//! Encoded envelopes enter, bodies of requests leave with their headers; who sends them adds the rest. All of it is pure: no clock, no
//! socket, no log line; `now` is an argument, in nanoseconds since the Unix epoch as in `Envelope.timestamp`. Messages are written as
//! bytes, straight from the envelope's: that takes a third of the time of filling message types first, and needs no others' crates (`benches/otlp.rs`).
//!
//! # What becomes of an envelope
//! - Log: a log record, INFO or ERROR. Event: a log record whose body is a list of its title and body.
//! - Counter: a cumulative monotonic sum. Its start is where this drain first saw it, or saw it fall.
//! - Gauge: one point for each of its metrics, with its unit.
//! - Timer: with tags `trace_id` and `span_id` a span, otherwise as [`Timers`] says. Of the two timers for one HTTP request the one that
//!   the router made as a client of the app is ignored.
//!
//! Attributes of each are `instance_id`, `source_id` and the tags. Points of a histogram or gauge of durations lack tags that differ with
//! each request.
//!
//! [`OtlpPreset::Otelcol`] does as the original agents do: no resource, no scope and no start times; each log in a resource of its own.

pub(crate) mod answer;
mod batch;
mod config;
mod encode;
mod record;
mod series;
#[cfg(test)]
mod tests;
mod wire;

pub use self::batch::Request;
pub use self::config::{Compression, OtlpConfig, OtlpError, OtlpPreset, Signal, Timers};
pub use self::encode::{Counts, Encoder};
