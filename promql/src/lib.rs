//! PromQL over samples that the caller has fetched.
//!
//! A query is read once ([`Query::parse`]). It tells whose samples it needs ([`Query::sources`]), which may be exchanged for others
//! ([`Query::with_sources`]), and for given times which windows of them ([`Query::selects`]). With the samples it gives an answer
//! ([`Query::evaluate`]), which [`json`] writes as clients of log-cache read it. Semantics are those of Prometheus 2.42, with what
//! log-cache adds: every selector names its sources, several samples of a series may have the same time, no answer has `__name__`.
//!
//! *Invariants.* Pure: no I/O, no clock, no task; envelopes are unknown here. Nothing panics, and nothing takes more memory or more
//! samples than [`Limits`] allow, whatever the query and whatever the samples. Being cancelled takes effect within milliseconds.

mod display;
mod duration;
mod eval;
mod function;
pub mod fuzz;
pub mod json;
mod labels;
mod limits;
mod matcher;
mod name;
mod operator;
mod parse;
mod pattern;
mod select;
mod span;
mod time;
mod tree;
mod value;

pub use eval::EvalError;
pub use labels::{Labels, NAME};
pub use limits::Limits;
pub use matcher::{MatchOp, Matcher};
pub use name::metric_name;
pub use parse::{ParseError, SyntaxError};
pub use select::{Select, SeriesSelector};
pub use span::{Span, SpanError};
pub use time::{TimeError, parse_step, parse_time};
pub use tree::Query;
pub use value::{Element, Sample, Series, Value};
