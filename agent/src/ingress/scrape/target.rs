//! One target: scraped at its interval by a task of its own, so that one that hangs holds up no other. A scrape begins when the last has
//! ended.

use std::sync::Arc;
use std::time::Duration;

use proto::raw::{Batch, Refused};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transport::Backoff;

use super::super::Intake;
use super::fetch::{Ask, Fetched};
use super::metrics::ScrapeMetrics;
use crate::gather::Gather;
use crate::ingress::now_ns;
use crate::scrape::{Labels, Page, PageError, map};

/// Bytes of a page that are read without giving others a thread of their own.
const SMALL: usize = 128 * 1024;

/// The source of what scraping says of itself, as the original has it.
const SELF: &str = "prom_scraper";

/// A target, ready to be scraped.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) request: Ask,
    pub(super) labels: Arc<Labels>,
    pub(super) interval: Duration,
    pub(super) max_series: usize,
    /// Whether gauges `up` and `scrape_duration_seconds` are told of it.
    pub(super) tells_up: bool,
}

/// Why a scrape gave nothing.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Fetch(#[from] super::fetch::FetchError),
    #[error("{0}")]
    Page(#[from] PageError),
}

impl Target {
    /// Scrapes until `stop`. The first time is somewhere in the first interval, so that not all come at once.
    pub(super) async fn serve(mut self, intake: Intake, metrics: ScrapeMetrics, stop: CancellationToken) {
        let millis = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let first = Duration::from_millis(Backoff::random_seed() % millis);
        let mut tick = interval_at(Instant::now() + first, self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut well = true;
        metrics.targets.increment(1.0);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let began = Instant::now();
            let Some(outcome) = stop.run_until_cancelled(self.scrape()).await else { break };
            let took = began.elapsed();
            metrics.seconds.record(took.as_secs_f64());
            self.tell(outcome, took, &mut well, &intake, &metrics);
        }
        metrics.targets.decrement(1.0);
    }

    async fn scrape(&mut self) -> Result<Vec<(Batch, Refused)>, ScrapeError> {
        let fetched = self.request.get().await?;
        let (labels, max_series, now) = (Arc::clone(&self.labels), self.max_series, now_ns());
        if fetched.body.len() <= SMALL {
            return Ok(read(&fetched, &labels, max_series, now)?);
        }
        let reading = tokio::task::spawn_blocking(move || read(&fetched, &labels, max_series, now));
        Ok(reading.await.expect("reading a page does not panic, and nobody aborts it")?)
    }

    fn tell(
        &self,
        outcome: Result<Vec<(Batch, Refused)>, ScrapeError>,
        took: Duration,
        well: &mut bool,
        intake: &Intake,
        metrics: &ScrapeMetrics,
    ) {
        let url = &self.request.url;
        let up = outcome.is_ok();
        match outcome {
            Ok(batches) => {
                metrics.ok.increment(1);
                batches.into_iter().for_each(|batch| intake.take(batch));
                if !std::mem::replace(well, true) {
                    info!(%url, "Target has recovered");
                }
            }
            Err(error) => {
                match &error {
                    ScrapeError::Fetch(error) => metrics.failed(error),
                    ScrapeError::Page(_) => metrics.malformed.increment(1),
                }
                // Once, until it has recovered.
                if std::mem::replace(well, false) {
                    warn!(%url, %error, "Target cannot be scraped");
                }
            }
        }
        let mut gather = Gather::default();
        let source =
            if self.labels.source_id.is_empty() { &self.labels.default_source_id } else { &self.labels.source_id };
        if !up {
            let mut draft = gather.envelope(SELF, "", now_ns());
            draft.tag("origin", SELF).tag("scrape_target_source_id", source);
            draft.counter("failed_scrapes_total", 1, 0);
        }
        if self.tells_up {
            let mut draft = gather.envelope(source, &self.labels.instance_id, now_ns());
            for (key, value) in &self.labels.labels {
                draft.tag(key, value);
            }
            draft.gauge([("up", "", f64::from(u8::from(up))), ("scrape_duration_seconds", "s", took.as_secs_f64())]);
        }
        gather.take().into_iter().for_each(|batch| intake.take(batch));
    }
}

fn read(fetched: &Fetched, labels: &Labels, max_series: usize, now: i64) -> Result<Vec<(Batch, Refused)>, PageError> {
    let page = Page::parse(&fetched.body, fetched.format, max_series)?;
    let (mut gather, mut batches) = (Gather::default(), Vec::new());
    map(&page, labels, now, &mut gather, |gather| batches.extend(gather.take()));
    batches.extend(gather.take());
    Ok(batches)
}
