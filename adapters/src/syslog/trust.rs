//! What one drain needs for TLS: whom it trusts, what it shows, and the name that the receiver must have.
//!
//! A drain's configuration enters; connections that have yet to shake hands leave. Each drain has a trust of its own: authorities that
//! one drain names are no other's. The files are looked at every 5 s and read again when they change; files that cannot be used are
//! told of, and the old ones stay in force. Never connects.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use metrics::Gauge;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use transport::{Authorities, CertAndKey, ClientTls, ClientTlsError, ClientTlsFiles, ClientTlsTexts};

use crate::config::DrainTls;

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(5);

/// Whom a drain trusts, what it shows, and the name that it asks for. Clones change together.
#[derive(Clone, Debug)]
pub struct Trust {
    tls: ClientTls,
    server_name: ServerName<'static>,
}

impl Trust {
    /// Reads and checks the files of a drain's `tls` table.
    ///
    /// # Errors
    /// A file that cannot be used; no authorities at all.
    pub fn load(config: &DrainTls, server_name: ServerName<'static>) -> Result<Self, ClientTlsError> {
        let shown = config.cert.clone().zip(config.key.clone());
        let tls = ClientTls::load(ClientTlsFiles {
            ca: config.ca.clone(),
            shown: shown.map(|(cert, key)| CertAndKey { cert, key }),
            skip_verify: config.insecure_skip_verify,
        })?;
        Ok(Self { tls, server_name })
    }

    /// The same for a receiver of another name.
    #[must_use]
    pub(crate) fn named(&self, server_name: ServerName<'static>) -> Self {
        Self { tls: self.tls.clone(), server_name }
    }

    /// The same from what a binding carries. It trusts `base` and its own authorities, and changes no more.
    ///
    /// # Errors
    /// A text that cannot be used; no authorities at all.
    pub fn of_binding(
        texts: ClientTlsTexts<'_>,
        base: &Authorities,
        server_name: ServerName<'static>,
    ) -> Result<Self, ClientTlsError> {
        Ok(Self { tls: ClientTls::from_texts(texts, "of the binding", base)?, server_name })
    }

    /// The configuration, with its files.
    pub fn tls(&self) -> &ClientTls {
        &self.tls
    }

    /// Whether there are files that may change.
    pub(crate) fn has_files(&self) -> bool {
        self.tls.has_files()
    }

    /// Our side of a new connection, with the newest files.
    pub(super) fn connection(&mut self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(self.tls.config(), self.server_name.clone())
    }

    /// The same for a client that makes its connections itself.
    pub(super) fn client(&mut self) -> (Arc<ClientConfig>, ServerName<'static>) {
        (self.tls.config(), self.server_name.clone())
    }

    /// Waits until the next connection would use newer files than the last one; without trust, for ever.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is missed.
    pub(crate) async fn renewed(trust: Option<&mut Self>) {
        match trust {
            Some(trust) => trust.tls.changed().await,
            None => std::future::pending().await,
        }
    }
}

/// The files of one drain, as [`watch`] looks at them.
pub(crate) struct Watched {
    drain: String,
    tls: ClientTls,
    told: Told,
    /// Shows when the certificate ends.
    ends: Option<Gauge>,
    /// The drain ends.
    gone: CancellationToken,
}

/// What was said about files that cannot be used.
#[derive(Debug, Default)]
struct Told {
    error: Option<String>,
    said: bool,
}

impl Watched {
    pub(crate) fn new(drain: String, trust: &Trust, ends: Option<Gauge>, gone: CancellationToken) -> Self {
        let watched = Self { drain, tls: trust.tls.clone(), told: Told::default(), ends, gone };
        watched.show_end();
        watched
    }

    pub(crate) fn is_of(&self, drain: &str) -> bool {
        self.drain == drain
    }

    fn show_end(&self) {
        let after = self.tls.not_after().and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        if let (Some(gauge), Some(after)) = (&self.ends, after) {
            gauge.set(after.as_secs_f64());
        }
    }

    /// Looks at the files, and reads them again if they are others.
    async fn look(&mut self, tracker: &TaskTracker) {
        let Self { drain, tls, told, .. } = self;
        let looked = tls.clone();
        match tracker.spawn_blocking(move || looked.reload()).await {
            Ok(Ok(changed)) => {
                *told = Told::default();
                if changed {
                    info!(%drain, "Drain uses new certificate files");
                    self.show_end();
                }
            }
            Ok(Err(error)) => {
                if let Some(error) = told.failed(error.to_string()) {
                    warn!(%drain, error, "Drain keeps its old certificates: the new files cannot be used");
                }
            }
            Err(error) => warn!(%drain, %error, "Certificate files could not be looked at"),
        }
    }
}

impl Told {
    /// Whether `error` is to be said: once, and only if it is still there at the second look. Files that are replaced one after the
    /// other do not belong together for a moment.
    fn failed(&mut self, error: String) -> Option<&str> {
        if self.error.as_ref() != Some(&error) {
            *self = Self { error: Some(error), said: false };
            return None;
        }
        if std::mem::replace(&mut self.said, true) { None } else { self.error.as_deref() }
    }
}

/// Looks at the files of all drains until `stop`. Those that come meanwhile are looked at in the next round.
pub(crate) async fn watch(drains: &Mutex<Vec<Watched>>, tracker: &TaskTracker, stop: CancellationToken) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let mut round = std::mem::take(&mut *drains.lock());
        for drain in &mut round {
            drain.look(tracker).await;
        }
        let mut drains = drains.lock();
        round.retain(|drain| !drain.gone.is_cancelled() && !drains.iter().any(|newer| newer.is_of(&drain.drain)));
        drains.append(&mut round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_said_once_when_it_stays() {
        let mut told = Told::default();
        assert_eq!(told.failed("a".to_owned()), None);
        assert_eq!(told.failed("b".to_owned()), None, "another one");
        assert_eq!(told.failed("b".to_owned()), Some("b"));
        assert_eq!(told.failed("b".to_owned()), None);
        assert_eq!(told.failed("a".to_owned()), None);
        assert_eq!(told.failed("a".to_owned()), Some("a"));
    }
}
