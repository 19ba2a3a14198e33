//! Syslog drains: envelopes leave as RFC 5424 lines (contract: syslog drains §1 to §4).
//!
//! [`config`] reads what a drain URL says, [`preset`] how lines look to a receiver, [`encode`] makes them (pure), [`window`] remembers what was written and may have to be
//! written again (pure), [`client`] holds the connection, [`trust`] what TLS needs for it, [`drain`] is the loop over all of them.

pub mod client;
pub mod config;
pub mod drain;
pub mod encode;
pub mod preset;
pub mod trust;
pub mod window;
