//! A drain that is wanted, checked, with its files read. Nothing runs yet.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use telemetry::Telemetry;
use transport::{Authorities, ClientTlsError, ClientTlsTexts};

use crate::config::{ConfigError, DrainConfig, DrainTls};
use crate::policy::AddressPolicy;
use crate::push::page::{self, Bound};
use crate::select::Select;
use crate::syslog::config::{DrainUrl, Scheme};
use crate::syslog::encode::Style;
use crate::syslog::trust::Trust;

/// A drain that can run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) config: Arc<DrainConfig>,
    pub(crate) select: Arc<Select>,
    pub(crate) trust: Option<Trust>,
    pub(crate) form: Form,
    /// For a drain that an app's owner chose.
    pub(crate) policy: Option<Arc<AddressPolicy>>,
}

/// How envelopes leave.
#[derive(Debug)]
pub(crate) enum Form {
    /// As lines.
    Lines(Style),
    /// As requests, with these headers, each lane to a place of its own.
    Requests(Headers, Vec<(DrainUrl, Option<Trust>)>),
    /// On a page.
    Page(Bound),
    /// As messages of a stream.
    #[cfg(feature = "nats")]
    Nats(Box<crate::nats::place::Place>),
}

pub(crate) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Why a drain cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("tls of the drain \"{drain}\": {source}")]
    Tls { drain: String, source: Box<ClientTlsError> },
    #[error(transparent)]
    Page(#[from] transport::BindError),
}

impl Prepared {
    /// Checks a drain, reads its files and binds its page: blocks for as long as that takes. Must be called within a runtime.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) fn new(config: DrainConfig, telemetry: &Telemetry) -> Result<Self, PrepareError> {
        config.check()?;
        let (select, trust) = (Arc::new(config.select()?), trust_of(&config)?);
        let form = if config.url.scheme.has_lines() {
            Form::Lines(config.style()?)
        } else if let Some(listen) = config.page()? {
            Form::Page(page::bind(listen, &config.metrics)?)
        } else {
            other(&config, trust.as_ref())?
        };
        if config.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify) {
            telemetry.insecure_mode("adapters.drains.tls.insecure_skip_verify");
        }
        if config.metrics.insecure_any_host {
            telemetry.insecure_mode("adapters.drains.metrics.insecure_any_host");
        }
        Ok(Self { config: Arc::new(config), select, trust, form, policy: None })
    }

    /// Checks a drain that a binding asks for: one of lines.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(crate) fn of_binding(
        config: DrainConfig,
        texts: ClientTlsTexts<'_>,
        base: &Authorities,
        policy: Option<Arc<AddressPolicy>>,
    ) -> Result<Self, PrepareError> {
        config.check()?;
        let (select, form) = (Arc::new(config.select()?), Form::Lines(config.style()?));
        let trust = match config.url.scheme.is_tls() {
            true => {
                let name = config.server_name(&config.url)?;
                Some(Trust::of_binding(texts, base, name).map_err(|error| tls(&config, error))?)
            }
            false => None,
        };
        Ok(Self { config: Arc::new(config), select, trust, form, policy })
    }
}

impl Prepared {
    /// The same once more, unless it has a page: of that there is one.
    pub(crate) fn again(&self) -> Option<Self> {
        let form = match &self.form {
            Form::Lines(style) => Form::Lines(style.clone()),
            Form::Requests(headers, lanes) => Form::Requests(headers.clone(), lanes.clone()),
            Form::Page(_) => return None,
            #[cfg(feature = "nats")]
            Form::Nats(place) => Form::Nats(place.clone()),
        };
        Some(Self {
            config: Arc::clone(&self.config),
            select: Arc::clone(&self.select),
            trust: self.trust.clone(),
            form,
            policy: self.policy.clone(),
        })
    }
}

/// The form of a drain that has neither lines nor a page.
fn other(config: &DrainConfig, trust: Option<&Trust>) -> Result<Form, PrepareError> {
    #[cfg(feature = "nats")]
    if config.url.scheme.is_nats() {
        return Ok(Form::Nats(Box::new(crate::nats::place::Place::new(config, trust)?)));
    }
    Ok(Form::Requests(key(config)?, lanes(config, trust)?))
}

/// The token of the drain, as it is shown to the receiver, and its own headers.
fn key(config: &DrainConfig) -> Result<Headers, ConfigError> {
    let mut headers = config.headers()?;
    let Some(token) = config.bearer()? else { return Ok(headers) };
    let (name, text) = if config.url.scheme.is_datadog() {
        (HeaderName::from_static("dd-api-key"), token)
    } else {
        (AUTHORIZATION, format!("Bearer {token}"))
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| ConfigError::Token(config.name.clone(), "it may hold visible ASCII characters only".to_owned()))?;
    value.set_sensitive(true);
    headers.push((name, value));
    Ok(headers)
}

/// Where the requests of each lane go.
fn lanes(config: &DrainConfig, trust: Option<&Trust>) -> Result<Vec<(DrainUrl, Option<Trust>)>, PrepareError> {
    let url = &config.url;
    if url.scheme == Scheme::Datadog {
        let at = |intake: &str| {
            let url = url.at_host(&format!("{intake}.{}", url.address.host()));
            let url = url.map_err(|_| ConfigError::Site(config.name.clone(), config.url.anonymised()))?;
            // The same files, which are looked at once.
            let name = config.server_name(&url)?;
            Ok((url, trust.map(|trust| trust.named(name))))
        };
        return ["api", "http-intake.logs"].map(at).into_iter().collect();
    }
    let lanes = match url.scheme {
        scheme if scheme.is_datadog() => 2,
        // One for each signal.
        scheme if scheme.is_otlp() => 3,
        _ => config.metrics.requests().shards.get(),
    };
    Ok(vec![(url.clone(), trust.cloned()); lanes])
}

/// Reads what a drain over TLS needs, from its own files.
fn trust_of(config: &DrainConfig) -> Result<Option<Trust>, PrepareError> {
    if !config.url.scheme.is_tls() {
        return Ok(None);
    }
    let name = config.server_name(&config.url)?;
    let loaded = match &config.tls {
        Some(tls) => Trust::load(tls, name),
        None => Trust::load(&DrainTls::default(), name),
    };
    loaded.map(Some).map_err(|source| tls(config, source))
}

fn tls(config: &DrainConfig, source: ClientTlsError) -> PrepareError {
    PrepareError::Tls { drain: config.name.clone(), source: Box::new(source) }
}
