//! A drain that is wanted, checked, with its files read. Nothing runs yet.

use std::sync::Arc;

use telemetry::Telemetry;
use transport::ClientTlsError;

use crate::config::{ConfigError, DrainConfig, DrainTls};
use crate::select::Select;
use crate::syslog::encode::Style;
use crate::syslog::trust::Trust;

/// A drain that can run.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) config: Arc<DrainConfig>,
    pub(crate) select: Arc<Select>,
    pub(crate) style: Style,
    pub(crate) trust: Option<Trust>,
}

/// Why a drain cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("tls of the drain \"{drain}\": {source}")]
    Tls { drain: String, source: Box<ClientTlsError> },
}

impl Prepared {
    /// Checks a drain and reads its files: blocks for as long as that takes.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) fn new(config: DrainConfig, telemetry: &Telemetry) -> Result<Self, PrepareError> {
        config.check()?;
        let (select, style, trust) = (Arc::new(config.select()?), config.style()?, trust_of(&config)?);
        if config.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            telemetry.insecure_mode("adapters.drains.tls.insecure_skip_verify");
        }
        Ok(Self { config: Arc::new(config), select, style, trust })
    }
}

/// Reads what a drain over TLS needs, from its own files.
fn trust_of(config: &DrainConfig) -> Result<Option<Trust>, PrepareError> {
    if !config.url.scheme.is_tls() {
        return Ok(None);
    }
    let name = config.server_name()?;
    let loaded = match &config.tls {
        Some(tls) => Trust::load(tls, name),
        None => Trust::load(&DrainTls::default(), name),
    };
    loaded.map(Some).map_err(|source| PrepareError::Tls { drain: config.name.clone(), source: Box::new(source) })
}
