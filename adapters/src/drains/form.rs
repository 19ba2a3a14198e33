//! What a drain runs as: lines, requests, a page, or messages of a stream.

use std::sync::Arc;

use tracing::warn;
use transport::Backoff;

use super::prepared::{Form, Headers, Prepared};
use crate::config::DrainConfig;
use crate::inlet::Inlet;
use crate::metrics::DrainMetrics;
use crate::notice::Losses;
use crate::policy::AddressPolicy;
use crate::push;
use crate::push::drain::Push;
use crate::push::page::Page;
use crate::retry::Retry;
use crate::syslog::config::DrainUrl;
use crate::syslog::drain::{Drain, Ended, Parts, Until};
use crate::syslog::encode::{Encoder, Style};
use crate::syslog::trust::Trust;

impl Prepared {
    /// Runs the drain in this form.
    pub(super) async fn run(self, inlet: Inlet, life: &LifeParts<'_>, until: Until) -> Ended {
        match self.form {
            Form::Lines(style) => {
                let to = (self.trust, self.policy);
                lines(&self.config, style, to, inlet, life, until).run().await
            }
            // In boxes: they take more than lines do, and there are fewer of them.
            Form::Requests(headers, lanes) => {
                Box::pin(requests(&self.config, headers, lanes, inlet, life, until).run()).await
            }
            Form::Page(bound) => {
                let (name, metrics) = (self.config.name.clone(), life.metrics.clone());
                Box::pin(Page { name, bound, inlet, metrics, until }.run()).await
            }
            #[cfg(feature = "nats")]
            Form::Nats(place) => Box::pin(nats(&self.config, *place, self.trust, inlet, life, until).run()).await,
        }
    }

    /// Says what of a drain's options is likely not meant.
    pub(super) fn remark(&self) {
        for remark in self.config.url.remarks() {
            warn!(drain = %self.config.name, url = %self.config.url, remark, "Drain option has no effect");
        }
    }
}

/// A drain of lines.
fn lines(
    config: &DrainConfig,
    style: Style,
    (trust, policy): (Option<Trust>, Option<Arc<AddressPolicy>>),
    inlet: Inlet,
    life: &LifeParts<'_>,
    until: Until,
) -> Drain {
    let parts = Parts {
        name: config.name.clone(),
        url: config.url.anonymised(),
        destination: config.url.clone(),
        trust,
        policy,
        inlet,
        encoder: Encoder::new(&config.url.options, &config.hostname, config.metadata, style),
        resend: config.resend,
        retry: Retry::new(config.retry, Backoff::random_seed()),
        losses: Arc::clone(life.losses),
        metrics: life.metrics.clone(),
    };
    Drain::new(parts, until)
}

/// A drain of requests.
fn requests(
    config: &DrainConfig,
    headers: Headers,
    lanes: Vec<(DrainUrl, Option<Trust>)>,
    inlet: Inlet,
    life: &LifeParts<'_>,
    until: Until,
) -> Push {
    let parts = push::drain::Parts {
        name: config.name.clone(),
        url: config.url.anonymised(),
        lanes,
        headers,
        inlet,
        maker: config.maker(),
        gather: config.gather(),
        retry: config.schedule(),
        metrics: life.metrics.clone(),
    };
    Push::new(parts, until)
}

/// A drain to a stream.
#[cfg(feature = "nats")]
fn nats(
    config: &DrainConfig,
    place: crate::nats::place::Place,
    trust: Option<Trust>,
    inlet: Inlet,
    life: &LifeParts<'_>,
    until: Until,
) -> crate::nats::drain::Nats {
    let parts = crate::nats::drain::Parts {
        name: config.name.clone(),
        url: config.url.anonymised(),
        place,
        trust,
        log_types: config.url.options.log_types.clone(),
        inlet,
        retry: config.retry,
        losses: Arc::clone(life.losses),
        metrics: life.metrics.clone(),
    };
    crate::nats::drain::Nats::new(parts, until)
}

/// What all forms of a drain have in common.
pub(super) struct LifeParts<'a> {
    pub(super) losses: &'a Arc<Losses>,
    pub(super) metrics: &'a DrainMetrics,
}
