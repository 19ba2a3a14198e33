//! Drains to NATS JetStream: each envelope becomes a message of a stream, byte for byte.
//!
//! ```text
//! inlet ──► window ──► session ──► the stream
//!              ▲           │ acknowledged, or refused
//!              └───────────┘
//! ```
//!
//! [`config`] is always there, so that a configuration says what is missing where the feature is not. [`drain`] is the loop, [`window`]
//! what is under way, [`session`] one connection with its stream, [`ids`] what a stream knows repeats by.

#[cfg(feature = "nats")]
mod choice;
pub(crate) mod config;
#[cfg(feature = "nats")]
pub(crate) mod drain;
#[cfg(feature = "nats")]
mod ids;
#[cfg(feature = "nats")]
pub(crate) mod place;
#[cfg(feature = "nats")]
pub(crate) mod session;
#[cfg(feature = "nats")]
mod window;
