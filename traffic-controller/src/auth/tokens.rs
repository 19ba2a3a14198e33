//! The tokens in force: read from the file, read again when it has changed, and without those whose time is over.
//!
//! What enters: the file, every few seconds. What leaves: grants, and the word to those whose token is no longer in it. A file that
//! cannot be used changes nothing but the log and a gauge.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::secret::Digest;
use super::table::{self, Table, TokensError};
use super::{Denied, Grant};
use crate::metrics::AuthMetrics;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(5);

/// The tokens of one file.
pub(crate) struct Tokens {
    path: PathBuf,
    table: watch::Sender<Arc<Table>>,
    /// What the last look at the file gave; held while looking, by the one who looks.
    seen: Mutex<Seen>,
    metrics: AuthMetrics,
}

/// The outcome of a look.
struct Seen {
    /// Of the file's content; `None` when it could not be read.
    content: Option<Digest>,
    /// What was wrong with it.
    problem: Option<String>,
}

impl Tokens {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn load(path: &Path, metrics: AuthMetrics, now: SystemTime) -> Result<Self, TokensError> {
        let bytes = table::read(path)?;
        let table = in_force(&Table::parse(path, &bytes)?, now);
        metrics.tokens(table.len());
        metrics.reload_failed(false);
        let seen = Seen { content: Some(Digest::of(&bytes)), problem: None };
        Ok(Self { path: path.to_owned(), table: watch::Sender::new(Arc::new(table)), seen: Mutex::new(seen), metrics })
    }

    /// What the token of `digest` may read.
    pub(super) fn grant(&self, digest: Digest, now: SystemTime) -> Result<Grant, Denied> {
        let table = self.table.subscribe();
        if table.borrow().find(&digest).is_none_or(|entry| entry.expired(now)) {
            return Err(Denied::Invalid);
        }
        Ok(Grant::token(digest, table, self.metrics.clone()))
    }

    pub(super) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    /// Looks at the file until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let tokens = Arc::clone(&self);
            // A panic in there has been reported where it happened, and leaves the table as it was.
            let _looked = tokio::task::spawn_blocking(move || tokens.refresh(SystemTime::now())).await;
        }
    }

    /// Takes a file that has changed, and drops tokens whose time is over. Blocks while it reads.
    fn refresh(&self, now: SystemTime) {
        let mut seen = self.seen.lock();
        let (content, outcome) = self.look(seen.content, now);
        match outcome {
            Ok(None) => {}
            Ok(Some(table)) => {
                info!(path = %self.path.display(), tokens = table.len(), "Tokens read again");
                self.table.send_replace(Arc::new(table));
                *seen = Seen { content, problem: None };
            }
            Err(error) => {
                let problem = error.to_string();
                if seen.problem.as_deref() != Some(&problem) {
                    warn!(error = problem, "Tokens could not be read again, those in force stay");
                }
                *seen = Seen { content, problem: Some(problem) };
            }
        }
        self.metrics.reload_failed(seen.problem.is_some());
        drop(seen);
        self.table.send_if_modified(|table| {
            for entry in table.expired(now) {
                info!(token = entry.name, "Token expired");
            }
            let some = table.expired(now).next().is_some();
            if some {
                *table = Arc::new(table.without_expired(now));
            }
            some
        });
        self.metrics.tokens(self.table.borrow().len());
    }

    /// What is in the file, and its table if that is something else than `last`.
    fn look(&self, last: Option<Digest>, now: SystemTime) -> (Option<Digest>, Result<Option<Table>, TokensError>) {
        let bytes = match table::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) => return (None, Err(error)),
        };
        let content = Digest::of(&bytes);
        if last.is_some_and(|last| last.matches(&content)) {
            return (Some(content), Ok(None));
        }
        (Some(content), Table::parse(&self.path, &bytes).map(|table| Some(in_force(&table, now))))
    }
}

/// The table without those whose time was over when it was written or has passed since. They are no error: the others in the file, and
/// those that are no longer in it, must not depend on somebody's tidying up.
fn in_force(table: &Table, now: SystemTime) -> Table {
    for entry in table.expired(now) {
        warn!(token = entry.name, "Token has expired and is not in force; renew it or remove its entry");
    }
    table.without_expired(now)
}

#[cfg(test)]
mod tests;
