//! The numbers of listeners and certificates: what `transport` knows, shown as metric families.
//!
//! What enters: a listener's counts, an identity. What leaves: families whose values are read at each rendering.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use transport::{Identity, ListenStats, Refused};

use crate::registry::Telemetry;

impl Telemetry {
    /// Shows the connections of one listener, under `listener="…"`: the role's name for it, such as `grpc`.
    pub fn watch_listener(&self, listener: &'static str, stats: Arc<ListenStats>) {
        let label = ("listener", listener);
        let open = self.gauge("hydrant_connections_open", "Connections open now, handshakes included.", &[label]);
        let accepted = self.counter("hydrant_connections_accepted_total", "Connections accepted.", &[label]);
        let refused = |reason| {
            self.counter(
                "hydrant_connections_refused_total",
                "Connections closed at once because a limit was reached.",
                &[label, ("reason", reason)],
            )
        };
        let (refused_total, refused_source) = (refused("connections"), refused("source_address"));
        let failed = self.counter(
            "hydrant_tls_handshakes_failed_total",
            "TLS handshakes that failed or were not finished within 10 s.",
            &[label],
        );
        let errors = self.counter(
            "hydrant_accept_errors_total",
            "Errors of accept, such as too many open files; accepting goes on.",
            &[label],
        );
        let panicked = self.counter(
            "hydrant_connections_panicked_total",
            "Connections that ended because their task panicked. Must stay 0.",
            &[label],
        );
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 connections")]
        self.before_render(move || {
            open.set(stats.open() as f64);
            accepted.absolute(stats.accepted());
            refused_total.absolute(stats.refused(Refused::Connections));
            refused_source.absolute(stats.refused(Refused::Source));
            failed.absolute(stats.handshake_failed());
            errors.absolute(stats.accept_errors());
            panicked.absolute(stats.panicked());
        });
    }

    /// Shows when a certificate ends, under `certificate="…"`: the role's name for it, such as `grpc`.
    pub fn watch_certificate(&self, certificate: &'static str, identity: Identity) {
        let ends = self.gauge(
            "hydrant_certificate_not_after_timestamp_seconds",
            "Unix time at which the certificate ends.",
            &[("certificate", certificate)],
        );
        self.before_render(move || {
            if let Some(after) = identity.not_after().and_then(|end| end.duration_since(UNIX_EPOCH).ok()) {
                ends.set(after.as_secs_f64());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_shows() {
        let certs = transport::TestCerts::new();
        let end = UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        let files = certs.files_valid("doppler", UNIX_EPOCH, end);
        let telemetry = Telemetry::default();
        telemetry.watch_certificate("grpc", Identity::load(&files).unwrap());
        let line = "hydrant_certificate_not_after_timestamp_seconds{certificate=\"grpc\"} 4000000000\n";
        assert!(telemetry.render().contains(line), "{}", telemetry.render());
    }
}
