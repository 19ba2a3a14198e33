//! The router. Envelopes enter from agents and other producers, batch by batch; every accepted batch goes to the cache and to every
//! subscription that matches; consumers read their subscriptions at their own pace.
//!
//! ```text
//! ingress ─► router ─┬─► cache (log_cache::Store)
//!                    └─► subscriptions ─► a fair ring each ─► egress
//! ```
//!
//! *Invariant*: no subscription can slow down ingress, the cache or another subscription; routing takes no lock.

mod config;
mod egress;
mod history;
mod ingress;
mod metrics;
mod overview;
mod router;
mod server;
mod subscribe;
mod subscriptions;

pub use config::{Config, EgressConfig, GrpcConfig};
pub use history::{History, Past};
pub use router::{Publisher, Router};
pub use server::{Addrs, BindError, Drained, Handle, ServeError, Server};
pub use subscriptions::{Request, Subscribed};
