//! What a process says about itself: metric registry, admin endpoint, log set-up.
//!
//! What enters: numbers from metric handles, latches that parts release as they come up, `tracing` events. What leaves:
//! `/metrics`, `/live` and `/ready` on the role's admin port, and log lines on standard error and, for `hydrant up`, into
//! the pipeline itself.
//!
//! *Invariants.* Nothing here is global but the log subscriber, which a process sets once: two roles or two tests in
//! one process never share a number. No label value comes from a tenant. Telling never blocks what is told about.

mod admin;
mod connections;
mod dopplers;
mod logging;
mod queue;
mod readiness;
mod registry;

pub use admin::{Admin, AdminConfig};
pub use logging::{LogConfig, LogFormat, LogLine, LogSink, LoggingError, SinkLayer, init, subscriber};
pub use queue::{QueueMetrics, QueueNumbers, StageMetrics, StageNumbers};
pub use readiness::{Latch, Readiness};
pub use registry::{Family, Kind, Telemetry};
pub use transport::Throttle;
