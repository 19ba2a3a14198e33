//! Where envelopes leave for other systems: a drain is a subscription, an encoder and a client with retry.
//!
//! ```text
//! dopplers ──► subscribe ──► fair ring ──► encode ──► window ──► client ──► the destination
//!                 │ evicted                  │ no form    │ expired
//!                 └──────────► notice ◄──────┴────────────┘
//!                                └──► the agent, as lines of the app that lost
//! ```
//!
//! *Invariants.* A drain that stalls delays no other drain and no doppler: its ring drops. Each envelope that a drain receives is
//! delivered, filtered, dropped for a reason or uncertain, and counted as that. No log, metric or notice shows more of a drain's URL
//! than scheme, host and path, and of an HTTPS one not the path.

mod api;
mod binding_cache;
mod bindings;
mod config;
pub mod datadog;
mod disk;
mod drains;
mod fetch;
mod health;
mod inlet;
mod metrics;
mod nats;
mod notice;
pub mod otlp;
mod outcome;
mod policy;
mod probe;
pub mod prometheus;
mod push;
mod read;
pub mod retry;
mod select;
mod server;
mod status;
mod store;
mod subscribe;
pub mod syslog;

pub use binding_cache::{BindingCacheConfig, BindingCacheError, CloudControllerConfig};
pub use bindings::{BindingsConfig, BindingsError};
pub use config::{ADMIN_PORT, Buffer, Config, ConfigError, DiskConfig, DrainConfig, DrainTls, RingConfig};
pub use fetch::{ServiceError, ServiceTls, ServiceUrl, ServiceUrlError};
pub use nats::config::{Discard, NatsConfig, Storage};
pub use outcome::Outcome;
pub use policy::{AddressPolicy, AddressRange, AddressRules, Denied, RangeError};
pub use select::SelectError;
pub use server::{Addrs, BindError, Drained, Handle, ServeError, Server};
pub use status::State;
pub use store::{StoreError, can_keep_drains};
