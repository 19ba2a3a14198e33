//! The numbers of the authorizer.

use metrics::{Counter, Gauge};
use telemetry::Telemetry;

use crate::auth::Denied;

/// The numbers of the authorizer. Cloning shares them.
#[derive(Clone)]
pub(crate) struct AuthMetrics {
    tokens: Gauge,
    reload_failed: Gauge,
    missing: Counter,
    invalid: Counter,
    forbidden: Counter,
    cross_site: Counter,
    limited: Counter,
    unavailable: Counter,
    keys: Gauge,
    fetched: Counter,
    not_fetched: Counter,
    asked: [[Counter; 3]; 2],
    cached: Gauge,
    cache_hits: Counter,
}

/// For the end of a certificate that is shown to those who are asked.
pub(crate) fn certificate_end(telemetry: &Telemetry, certificate: &'static str) -> Gauge {
    telemetry.gauge(
        "hydrant_certificate_not_after_timestamp_seconds",
        "Unix time at which the certificate in use ends.",
        &[("certificate", certificate)],
    )
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    Uaa,
    CloudController,
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Ok,
    /// It was an answer, and no.
    Refused,
    /// It was none, or none that could be used.
    Failed,
}

impl Asked {
    /// What an outcome is.
    pub(crate) fn of(outcome: Result<(), Denied>) -> Self {
        match outcome {
            Ok(()) => Self::Ok,
            Err(Denied::Unavailable) => Self::Failed,
            Err(_) => Self::Refused,
        }
    }
}

impl AuthMetrics {
    pub(crate) fn register(telemetry: &Telemetry) -> Self {
        let denied = |reason| {
            let help = "Requests that were refused because of what they showed, or did not show, as authorization.";
            telemetry.counter("hydrant_unauthorised_requests_total", help, &[("reason", reason)])
        };
        let fetched = |outcome| {
            let help = "How often the keys of the issuer of tokens were fetched, and what came of it.";
            telemetry.counter("hydrant_auth_key_fetches_total", help, &[("outcome", outcome)])
        };
        let asked = |service| {
            ["ok", "refused", "failed"].map(|outcome| {
                let help = "Requests to those who know who may read what, and what came of them.";
                let labels = [("service", service), ("outcome", outcome)];
                telemetry.counter("hydrant_auth_lookups_total", help, &labels)
            })
        };
        Self {
            tokens: telemetry.gauge("hydrant_tokens", "Tokens of the tokens file that are in force.", &[]),
            reload_failed: telemetry.gauge(
                "hydrant_tokens_reload_failed",
                "1 while the tokens file cannot be used as it stands and what it said before is in force.",
                &[],
            ),
            missing: denied("missing"),
            invalid: denied("invalid"),
            forbidden: denied("forbidden"),
            cross_site: denied("cross_site"),
            limited: denied("limited"),
            unavailable: denied("unavailable"),
            keys: telemetry.gauge("hydrant_auth_keys", "Keys of the issuer of tokens that are in use.", &[]),
            fetched: fetched("ok"),
            not_fetched: fetched("failed"),
            asked: ["uaa", "cloud_controller"].map(asked),
            cached: telemetry.gauge(
                "hydrant_auth_cached_answers",
                "Answers about who may read what that are kept.",
                &[],
            ),
            cache_hits: telemetry.counter(
                "hydrant_auth_cache_hits_total",
                "Questions about who may read what that a kept answer was enough for.",
                &[],
            ),
        }
    }

    /// Shows how many tokens are in force.
    pub(crate) fn tokens(&self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "there are 10 000 at most")]
        self.tokens.set(count as f64);
    }

    /// Shows whether the file as it stands is not the one in force.
    pub(crate) fn reload_failed(&self, failed: bool) {
        self.reload_failed.set(f64::from(u8::from(failed)));
    }

    /// Counts a request that was refused.
    pub(crate) fn denied(&self, denied: Denied) {
        let counter = match denied {
            Denied::Missing => &self.missing,
            Denied::Invalid => &self.invalid,
            Denied::Forbidden | Denied::NoApp => &self.forbidden,
            Denied::CrossSite => &self.cross_site,
            Denied::Limited => &self.limited,
            Denied::Unavailable => &self.unavailable,
        };
        counter.increment(1);
    }

    /// Shows how many keys are in use.
    pub(crate) fn keys(&self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        self.keys.set(count as f64);
    }

    /// Counts a fetch of keys.
    pub(crate) fn keys_fetched(&self, brought: bool) {
        if brought { &self.fetched } else { &self.not_fetched }.increment(1);
    }

    /// Counts a request to `backend`.
    pub(crate) fn asked(&self, backend: Backend, asked: Asked) {
        let service = match backend {
            Backend::Uaa => 0,
            Backend::CloudController => 1,
        };
        let outcome = match asked {
            Asked::Ok => 0,
            Asked::Refused => 1,
            Asked::Failed => 2,
        };
        self.asked[service][outcome].increment(1);
    }

    /// Shows how many answers are kept.
    pub(crate) fn cached(&self, count: usize) {
        #[expect(clippy::cast_precision_loss, reason = "as many as there is memory for")]
        self.cached.set(count as f64);
    }

    /// Counts a question that nobody had to be asked.
    pub(crate) fn cache_hit(&self) {
        self.cache_hits.increment(1);
    }
}
