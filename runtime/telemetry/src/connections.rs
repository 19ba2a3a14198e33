//! The numbers of listeners and certificates: what `transport` knows, shown as metric families.
//!
//! What enters: a listener's counts, an identity. What leaves: families whose values are read at each rendering.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use transport::{Access, Identity, ListenStats, Refused};

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

    /// Shows when a certificate ends and what became of new files, under `certificate="…"`: the role's name for it, such
    /// as `doppler_grpc`.
    pub fn watch_certificate(&self, certificate: &'static str, identity: Identity) {
        let label = ("certificate", certificate);
        let ends = self.gauge(
            "hydrant_certificate_not_after_timestamp_seconds",
            "Unix time at which the certificate in use ends.",
            &[label],
        );
        let reloads = self.counter(
            "hydrant_certificate_reloads_total",
            "How often new certificate files have taken the place of old ones.",
            &[label],
        );
        let failed = self.gauge(
            "hydrant_certificate_reload_failed",
            "1 while the certificate files cannot be used and older ones are in use.",
            &[label],
        );
        self.before_render(move || {
            if let Ok(after) = identity.not_after().duration_since(UNIX_EPOCH) {
                ends.set(after.as_secs_f64());
            }
            reloads.absolute(identity.reloads());
            failed.set(if identity.reload_failed() { 1.0 } else { 0.0 });
        });
    }

    /// Shows the calls that a listener's rule of access refused, under `listener="…"`.
    pub fn watch_access(&self, listener: &'static str, access: Access) {
        let denied = self.counter(
            "hydrant_access_denied_total",
            "Calls refused because the certificate has none of the roles that the method asks for.",
            &[("listener", listener)],
        );
        self.before_render(move || denied.absolute(access.denied()));
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

    #[test]
    fn new_files_and_unusable_ones_show() {
        let certs = transport::TestCerts::new();
        let files = certs.files("doppler");
        let (identity, telemetry) = (Identity::load(&files).unwrap(), Telemetry::default());
        telemetry.watch_certificate("grpc", identity.clone());
        let shows = |reloads: u64, failed: u64| {
            let text = telemetry.render();
            let reloads = format!("hydrant_certificate_reloads_total{{certificate=\"grpc\"}} {reloads}\n");
            let failed = format!("hydrant_certificate_reload_failed{{certificate=\"grpc\"}} {failed}\n");
            assert!(text.contains(&reloads) && text.contains(&failed), "{text}");
        };
        shows(0, 0);
        certs.files("doppler");
        identity.reload().unwrap();
        shows(1, 0);
        std::fs::write(&files.key, "torn").unwrap();
        identity.reload().unwrap_err();
        shows(1, 1);
    }
}
