//! Looking at the files of an identity from time to time, so that new ones are used without a restart.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Identity, ServerIdentity};
use crate::cert::date;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(5);

impl Identity {
    /// Starts to look at the files every 5 s, on `tracker`, until `stop`. `key` is their configuration key, for the log.
    ///
    /// Three files are not replaced in one step: an error is told when it is still there at the next look, once.
    pub fn watch(&self, key: &'static str, tracker: &TaskTracker, stop: CancellationToken) {
        let identity = self.clone();
        tracker.spawn(async move {
            let mut doubt = Doubt::default();
            while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
                let reading = identity.clone();
                // A file may stand on a disk that does not answer.
                let look = tokio::task::spawn_blocking(move || reading.reload());
                let Some(outcome) = stop.run_until_cancelled(look).await else { return };
                match outcome {
                    Ok(Ok(changed)) => {
                        doubt = Doubt::default();
                        if changed {
                            let cert = identity.certificate();
                            let (file, ends) = (identity.files().cert.display(), date(cert.not_after()));
                            info!(key, %file, subject = cert.subject(), ends, "New certificate files are in use");
                        }
                    }
                    Ok(Err(error)) => {
                        if doubt.is_worth_telling(error.to_string()) {
                            warn!(key, %error, "New certificate files cannot be used; the old ones stay in use");
                        }
                    }
                    // Only at the end of the runtime.
                    Err(_) => return,
                }
            }
        });
    }
}

impl ServerIdentity {
    /// The same for the certificate of an HTTPS port, or of any that asks for none.
    pub async fn watch(self, key: &'static str, stop: CancellationToken) {
        let mut doubt = Doubt::default();
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let reading = self.clone();
            let look = tokio::task::spawn_blocking(move || reading.reload());
            match stop.run_until_cancelled(look).await {
                Some(Ok(Ok(changed))) => {
                    doubt = Doubt::default();
                    if changed {
                        info!(key, "New certificate files are in use");
                    }
                }
                Some(Ok(Err(error))) => {
                    if doubt.is_worth_telling(error.to_string()) {
                        warn!(key, %error, "New certificate files cannot be used; the old ones stay in use");
                    }
                }
                Some(Err(_)) | None => return,
            }
        }
    }
}

/// The last error seen, and whether it was told.
#[derive(Debug, Default)]
struct Doubt {
    error: String,
    told: bool,
}

impl Doubt {
    /// True when `error` was there at the last look too and was not told yet.
    fn is_worth_telling(&mut self, error: String) -> bool {
        if self.error != error {
            *self = Self { error, told: false };
            return false;
        }
        !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_once_and_only_if_it_stays() {
        let mut doubt = Doubt::default();
        let mut tell = |error: &str| doubt.is_worth_telling(error.to_owned());
        assert!(!tell("key mismatch"), "a copy may be under way");
        assert!(!tell("no certificate"));
        assert!(tell("no certificate"));
        assert!(!tell("no certificate"));
        assert!(!tell("expired"));
        assert!(tell("expired"));
    }
}
