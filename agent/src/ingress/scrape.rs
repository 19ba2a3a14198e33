//! Scraping: pages of metrics of this machine's programs and of others, at their intervals (contract: agents §8).
//!
//! What enters: targets of the configuration, and files that name one each, looked at again as time goes by: what comes, changes or goes is
//! followed. What leaves: batches, one or more for each page.

mod fetch;
mod metrics;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use telemetry::Telemetry;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info, info_span, warn};
use transport::{CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles};

use super::Intake;
use crate::scrape::{Labels, ScrapeConfig, ScrapeTarget, ScrapeTls, TargetFile, TargetFileError, TargetUrl};
use fetch::{Ask, headers};
pub(crate) use metrics::ScrapeMetrics;
use target::Target;

/// Bytes of a file that names a target.
const MAX_FILE: u64 = 64 * 1024;

/// Why targets cannot be scraped, whatever they would answer.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// A pattern that is none.
    #[error("agent.scrape.config_globs: {0:?} is no pattern: {1}")]
    Glob(String, glob::PatternError),
    /// An entry that cannot be.
    #[error("agent.scrape.targets: {url}: {error}")]
    Target {
        /// The entry's URL.
        url: Box<TargetUrl>,
        /// What is wrong.
        error: TargetError,
    },
    /// More than may be.
    #[error("agent.scrape.targets: more than agent.scrape.max_targets = {0}")]
    TooMany(usize),
}

/// Why a target cannot be scraped.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// TLS without `https://`.
    #[error("there is a tls table, and the URL does not begin with https://")]
    TlsOnPlain,
    /// Half a pair.
    #[error("tls has one of cert and key; name both, or none")]
    HalfPair,
    /// What its certificate must carry could stand in none.
    #[error("{0:?} is no DNS name or address; set tls.server_name to one")]
    ServerName(String),
    /// A header that is none.
    #[error("{0:?} is no header, or its value has characters that none has")]
    Header(String),
    /// A file cannot be used.
    #[error("tls: {0}")]
    Tls(#[from] ClientTlsError),
}

/// Targets, ready to be scraped.
#[derive(Debug)]
pub(crate) struct Scraper {
    config: Arc<ScrapeConfig>,
    own: Vec<Target>,
    intake: Intake,
    metrics: ScrapeMetrics,
}

/// A file's target that runs.
struct Running {
    file: TargetFile,
    stop: CancellationToken,
}

impl ScrapeConfig {
    fn labels(&self, source_id: &str, instance_id: &str, labels: &BTreeMap<String, String>) -> Arc<Labels> {
        Arc::new(Labels {
            source_id: source_id.to_owned(),
            default_source_id: self.default_source_id.clone(),
            instance_id: instance_id.to_owned(),
            labels: labels.clone(),
        })
    }

    fn of_entry(&self, entry: &ScrapeTarget) -> Result<Target, TargetError> {
        let tls = tls(&entry.url, entry.tls.as_ref(), false)?;
        let interval = entry.interval.unwrap_or(self.interval);
        let request = Ask {
            url: entry.url.clone(),
            headers: headers(&entry.headers, true).map_err(TargetError::Header)?,
            tls,
            timeout: entry.timeout.unwrap_or(self.timeout).min(interval),
            max_bytes: self.max_body_bytes.get(),
        };
        Ok(Target {
            request,
            labels: self.labels(&entry.source_id, &entry.instance_id, &entry.labels),
            interval,
            max_series: self.max_series.get(),
            tells_up: true,
        })
    }

    fn of_file(&self, file: &TargetFile) -> Result<Target, TargetError> {
        // Its own files stand in place of the table's, each for itself.
        let table = self.tls.clone().unwrap_or_default();
        let own = ScrapeTls {
            ca: file.tls.ca.clone().or(table.ca),
            cert: file.tls.cert.clone().or(table.cert),
            key: file.tls.key.clone().or(table.key),
            server_name: file.tls.server_name.clone().or(table.server_name),
        };
        let tls = tls(&file.url, file.url.is_tls.then_some(&own), self.insecure_skip_verify)?;
        let interval = file.interval.unwrap_or(self.interval);
        let request = Ask {
            url: file.url.clone(),
            headers: headers(&file.headers, false).map_err(TargetError::Header)?,
            tls,
            timeout: self.timeout.min(interval),
            max_bytes: self.max_body_bytes.get(),
        };
        Ok(Target {
            request,
            labels: self.labels(&file.source_id, &file.instance_id, &file.labels),
            interval,
            max_series: self.max_series.get(),
            tells_up: false,
        })
    }
}

fn tls(
    url: &TargetUrl,
    tls: Option<&ScrapeTls>,
    skip_verify: bool,
) -> Result<Option<(ClientTls, ServerName<'static>)>, TargetError> {
    let tls = match (url.is_tls, tls) {
        (false, Some(_)) => return Err(TargetError::TlsOnPlain),
        (false, None) => return Ok(None),
        (true, tls) => tls.cloned().unwrap_or_default(),
    };
    let shown = match (tls.cert, tls.key) {
        (Some(cert), Some(key)) => Some(CertAndKey { cert, key }),
        (None, None) => None,
        _ => return Err(TargetError::HalfPair),
    };
    let name = tls.server_name.unwrap_or_else(|| url.address.host().to_owned());
    let server_name = ServerName::try_from(name.clone()).map_err(|_| TargetError::ServerName(name))?;
    Ok(Some((ClientTls::load(ClientTlsFiles { ca: tls.ca, shown, skip_verify })?, server_name)))
}

impl Scraper {
    /// Reads the certificates of the configuration's targets; nothing if there is nothing to scrape. Blocks on the disk.
    ///
    /// # Errors
    /// See [`ScrapeError`].
    pub(crate) fn new(
        config: &ScrapeConfig,
        telemetry: &Telemetry,
        intake: &Intake,
    ) -> Result<Option<Self>, ScrapeError> {
        let (metrics, intake) = (ScrapeMetrics::register(telemetry), intake.of(telemetry, "scrape"));
        for pattern in &config.config_globs {
            glob::Pattern::new(pattern).map_err(|error| ScrapeError::Glob(pattern.clone(), error))?;
        }
        if config.insecure_skip_verify {
            telemetry.insecure_mode("agent.scrape.insecure_skip_verify");
        }
        if config.targets.len() > config.max_targets.get() {
            return Err(ScrapeError::TooMany(config.max_targets.get()));
        }
        let target = |entry: &ScrapeTarget| {
            config.of_entry(entry).map_err(|error| ScrapeError::Target { url: Box::new(entry.url.clone()), error })
        };
        let own = config.targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let scrapes = !own.is_empty() || !config.config_globs.is_empty();
        Ok(scrapes.then(|| Self { config: Arc::new(config.clone()), own, intake, metrics }))
    }

    /// Scrapes until `stop`.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let Self { config, own, intake, metrics } = self;
        let tracker = TaskTracker::new();
        let start = |target: Target, stop: CancellationToken| {
            let span = info_span!("scrape", url = %target.request.url);
            tracker.spawn(target.serve(intake.clone(), metrics.clone(), stop).instrument(span));
        };
        let room = config.max_targets.get() - own.len().min(config.max_targets.get());
        own.into_iter().for_each(|target| start(target, stop.clone()));
        let mut running: HashMap<PathBuf, Running> = HashMap::new();
        let mut told: HashMap<PathBuf, String> = HashMap::new();
        let mut tick = interval(look_again(&config));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !config.config_globs.is_empty() && stop.run_until_cancelled(tick.tick()).await.is_some() {
            let patterns = Arc::clone(&config);
            let found = tokio::task::spawn_blocking(move || files(&patterns.config_globs, room));
            let Some(found) = stop.run_until_cancelled(found).await else { break };
            // A panic has been told.
            let Ok((files, bad)) = found else { continue };
            running.retain(|path, target| {
                let stays = files.get(path) == Some(&target.file);
                if !stays {
                    info!(path = %path.display(), "Target's file has changed or gone");
                    target.stop.cancel();
                }
                stays
            });
            let mut wrong: HashMap<PathBuf, String> = bad;
            for (path, file) in files {
                if running.contains_key(&path) {
                    continue;
                }
                match config.of_file(&file) {
                    Ok(target) => {
                        info!(path = %path.display(), url = %file.url, "Target found");
                        let stop = stop.child_token();
                        start(target, stop.clone());
                        running.insert(path, Running { file, stop });
                    }
                    Err(error) => drop(wrong.insert(path, error.to_string())),
                }
            }
            for (path, error) in &wrong {
                if told.get(path) != Some(error) {
                    warn!(path = %path.display(), %error, "File names no target");
                }
            }
            metrics.bad_files.set(f64::from(u32::try_from(wrong.len()).unwrap_or(u32::MAX)));
            told = wrong;
        }
        stop.cancelled().await;
        tracker.close();
        tracker.wait().await;
    }
}

/// How often files are looked for: as often as targets are scraped, within reason.
fn look_again(config: &ScrapeConfig) -> Duration {
    config.interval.clamp(Duration::from_millis(100), Duration::from_secs(60))
}

/// The targets that files name, and what is wrong with the others. At most `room` targets.
fn files(patterns: &[String], room: usize) -> (BTreeMap<PathBuf, TargetFile>, HashMap<PathBuf, String>) {
    let (mut files, mut bad) = (BTreeMap::new(), HashMap::new());
    let paths = patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten();
    for path in paths.filter_map(Result::ok) {
        if files.contains_key(&path) || bad.contains_key(&path) {
            continue;
        }
        match read(&path) {
            Ok(_) if files.len() >= room => {
                bad.insert(path, "there are more targets than agent.scrape.max_targets".to_owned());
            }
            Ok(file) => drop(files.insert(path, file)),
            Err(error) => drop(bad.insert(path, error)),
        }
    }
    (files, bad)
}

fn read(path: &Path) -> Result<TargetFile, String> {
    use std::io::Read as _;
    let mut text = String::new();
    // Opening something else, such as a pipe, may never end.
    if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Err("it is no file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| error.to_string())?;
    TargetFile::parse(&text).map_err(|error: TargetFileError| error.to_string())
}
