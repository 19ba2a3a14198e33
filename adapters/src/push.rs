//! Drains without lines: requests to a store of metrics, to Datadog or to a collector ([`drain`]), and a page for whoever scrapes ([`page`]).
//!
//! Envelopes enter from the drain's [`Inlet`](crate::inlet::Inlet); each is delivered, passed over as filtered, or dropped for a reason.
//! Losing a value of a metric is less than losing a line, as the next value comes: still each envelope is counted.

pub(crate) mod attempt;
pub(crate) mod drain;
pub(crate) mod maker;
pub(crate) mod page;
