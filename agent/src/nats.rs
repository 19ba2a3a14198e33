//! Streams of NATS JetStream as sources.
//!
//! [`config`] is always there, so that a configuration says what is missing where the feature is not. The front itself is
//! `ingress::nats`, as every front's.

pub(crate) mod config;
