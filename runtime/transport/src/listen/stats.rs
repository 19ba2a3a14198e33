//! What a listener has seen: plain counters that a registry reads when it renders.
//!
//! What enters: one call per connection event. What leaves: numbers. Never per message.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::budget::Full;

/// Why a connection was closed before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The budget's total was held.
    Connections,
    /// The peer's address held its share of connections without a client certificate.
    Source,
}

/// What a listener has seen since it was bound. Counts only grow; `open` is their balance.
#[derive(Debug, Default)]
pub struct ListenStats {
    accepted: AtomicU64,
    refused_connections: AtomicU64,
    refused_source: AtomicU64,
    handshake_failed: AtomicU64,
    accept_errors: AtomicU64,
    closed: AtomicU64,
    panicked: AtomicU64,
}

impl ListenStats {
    /// Connections that got a slot.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once, by reason.
    pub fn refused(&self, reason: Refused) -> u64 {
        match reason {
            Refused::Connections => self.refused_connections.load(Ordering::Relaxed),
            Refused::Source => self.refused_source.load(Ordering::Relaxed),
        }
    }

    /// Accepted connections whose TLS handshake failed or took longer than 10 s.
    pub fn handshake_failed(&self) -> u64 {
        self.handshake_failed.load(Ordering::Relaxed)
    }

    /// Errors of `accept` itself, such as too many open files.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Connections that ended while their task panicked. Must stay 0.
    pub fn panicked(&self) -> u64 {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Connections that hold a slot now, handshakes included.
    pub fn open(&self) -> u64 {
        // `closed` first: what closes in between then counts as open, never as less than none.
        let closed = self.closed.load(Ordering::Acquire);
        self.accepted().saturating_sub(closed)
    }

    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_handshake_failed(&self) {
        self.handshake_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, panicking: bool) {
        if panicking {
            self.panicked.fetch_add(1, Ordering::Relaxed);
        }
        self.closed.fetch_add(1, Ordering::Release);
    }

    pub(super) fn count_refused(&self, full: Full) {
        let counter = match full {
            Full::Total => &self.refused_connections,
            Full::Source => &self.refused_source,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
