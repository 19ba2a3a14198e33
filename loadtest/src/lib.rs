//! Drives the pipeline over the wire and accounts for every envelope sent.
//!
//! ```text
//! schedule ► generator ──► servers under test ──► subscriber ► ledger ► report
//!            (payload)     (procs, or `relay`)    (payload)    scrape: drops the servers admit
//! ```
//!
//! A load is open loop: what is sent when follows a [`Schedule`], never a reply, and latency counts from the scheduled moment.
//! Every envelope carries run, sender, sequence and that moment ([`payload`]), so that the [`Ledger`] can say of each one whether
//! it arrived, how often and in which order. [`relay`] is the yardstick: a server that moves the same bytes and looks at none.
//!
//! *Invariant*: what is reported was counted, envelope by envelope, at both ends; a loss nobody admits shows as a residual and
//! fails the run. Every load ends by itself: each has a bound in time and in envelopes.

pub mod clock;
pub mod generator;
pub mod ledger;
pub mod payload;
pub mod procs;
pub mod relay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod scrape;
pub mod socket;
pub mod subscriber;

pub use clock::Clock;
pub use ledger::{Account, Ledger};
pub use run::{Plan, Target, run};
pub use schedule::Schedule;
