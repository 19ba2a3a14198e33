//! Envelopes as requests to Datadog's intakes (contract: syslog drains §7).
//!
//! ```text
//! envelopes ──► encode::Encoder ─┬─ counters, gauges, timers ──► series::Store ──► body::Bodies ──► the metrics intake
//!                                └─ logs, events ──► logs::Logs ─────────────────► body::Bodies ──► the logs intake
//! ```
//!
//! Encoded envelopes enter, bodies of requests leave with their headers; who sends them adds the key. All of it is pure: no clock, no
//! socket, no log line; `now` is an argument, in nanoseconds since the Unix epoch as in `Envelope.timestamp`.
//!
//! # What becomes of an envelope
//! - Counter: its delta, added up from flush to flush, as a count. One with nothing but a total counts by how much it exceeds the total
//!   before it; the first of a series only says from where to count and is ignored, a total that falls counts from zero, one that is
//!   older than the last adds nothing.
//! - Gauge: of each metric the newest value of a flush, at its own time.
//! - Timer: `<name>.duration.count`, a count, and `<name>.duration.sum`, `.avg` and `.max`, gauges of the seconds in a flush. Tags that
//!   differ with each request (`uri`, `request_id` and the like) are left out, and of the two timers for one HTTP request the one that the
//!   router made as a client of the app is ignored.
//! - Log: an entry. Event: an entry whose message is its title, a line feed and its body.
//!
//! [`Preset::Nozzle`] does as datadog-firehose-nozzle does (§7.4): counters are gauges of their totals, each metric has the names and
//! tags that its dashboards know, timers and events are ignored. Not made are the metrics for which it asks the Cloud Controller
//! (`app.*.configured`, `app.*.provisioned`, `app.instances`); a container's app, space and organization are those of its tags.
//!
//! # Times
//! A metric older than an hour and a log older than 18 hours would not be taken: they are dropped as `convert_error`. What has no time,
//! or one more than ten minutes ahead, is of now. A count is of the second of its flush, or of the one after the last that was sent of
//! its series: a second point for one second would replace the first.

mod body;
mod config;
mod encode;
mod logs;
mod nozzle;
mod options;
mod series;
#[cfg(test)]
mod tests;
mod text;
mod wanted;

pub use self::body::{Request, Target};
pub use self::config::{DatadogApi, DatadogConfig, DatadogPreset};
pub use self::encode::{Counts, Encoder};
pub use self::options::{Api, Limits, Options, Preset};
pub use self::series::OFFENDERS;
pub use crate::prometheus::series::Offender;
