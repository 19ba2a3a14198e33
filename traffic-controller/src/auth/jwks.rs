//! Tokens of any OpenID provider (OpenID Connect Discovery 1.0; RFC 7519).
//!
//! What enters: a token. What leaves: what its claims say that it reads. The provider is asked for its keys and for nothing else: while
//! it is away, tokens whose key is known are taken as before.

use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde::Deserialize;
use telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

use super::caller::Proof;
use super::claims::Claims;
use super::config::{AuthorizerError, JwksConfig};
use super::keys::{self, KeySet, Keys, KeysError};
use super::pattern::Pattern;
use super::service::{Ask, Service, ServiceUrl};
use super::{Access, Denied, Grant, clock};
use crate::metrics::AuthMetrics;

/// Sources of one token.
const MAX_SOURCES: usize = 1_000;

/// The largest discovery document, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// Where it is, behind the issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// The authorizer of `authorizer = "jwks"`.
pub(crate) struct Jwks {
    config: JwksConfig,
    /// The key set's, where one is configured, else the issuer's.
    service: Service,
    /// Where the issuer said last that its keys are.
    found: Mutex<Option<Arc<Service>>>,
    keys: Keys,
    metrics: AuthMetrics,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

/// What a token reads.
pub(super) struct Reads {
    firehose: bool,
    sources: Vec<Pattern>,
}

/// The grant of a token: what it reads never changes, and it ends.
pub(super) struct Held {
    pub(super) reads: Arc<Reads>,
    ends: SystemTime,
    metrics: AuthMetrics,
}

impl Reads {
    /// True when `access` is among it.
    pub(super) fn allows(&self, access: Access<'_>) -> bool {
        self.firehose || access.source_id().is_some_and(|id| self.sources.iter().any(|source| source.matches(id)))
    }
}

impl Held {
    pub(super) fn admit(&self, access: Access<'_>) -> Result<(), Denied> {
        if self.reads.allows(access) {
            return Ok(());
        }
        self.metrics.denied(Denied::Forbidden);
        Err(Denied::Forbidden)
    }

    /// Waits until the token has ended.
    pub(super) async fn revoked(&self) {
        clock::reached(self.ends).await;
    }
}

impl Jwks {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) fn new(
        config: &JwksConfig,
        telemetry: &Telemetry,
        metrics: AuthMetrics,
    ) -> Result<Self, AuthorizerError> {
        let allowed = vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
        let (service, keys) = (config.service(telemetry)?, Keys::new(allowed, metrics.clone()));
        Ok(Self { config: config.clone(), service, found: Mutex::new(None), keys, metrics })
    }

    /// Who shows `proof`, as a grant that admits nothing yet.
    ///
    /// # Errors
    /// Why it may read nothing at all.
    pub(super) async fn grant(&self, proof: &Proof) -> Result<Grant, Denied> {
        let claims = self.keys.verify(proof.token()).await?;
        let (reads, ends) = self.read(&claims, SystemTime::now()).ok_or(Denied::Invalid)?;
        Ok(Grant::claims(Held { reads: Arc::new(reads), ends, metrics: self.metrics.clone() }))
    }

    /// What a verified token reads, and until when; `None` when it is not for us, or not now.
    fn read(&self, claims: &Claims, now: SystemTime) -> Option<(Reads, SystemTime)> {
        let config = &self.config;
        let ours = claims.text("iss") == Some(&config.issuer) && claims.is_for(&config.audience);
        let ends = claims.expires().filter(|_| ours && claims.holds(now, config.leeway))? + config.leeway;
        let firehose = config.firehose_scopes.iter().any(|scope| claims.has_word(&config.scopes_claim, scope));
        let sources = claims.words(&config.sources_claim).unwrap_or_default();
        if sources.len() > MAX_SOURCES {
            return None;
        }
        let sources = sources.into_iter().filter_map(|source| Pattern::new(source.to_owned())).collect();
        Some((Reads { firehose, sources }, ends))
    }

    /// Keeps the keys fresh until `stop`; `first` is called once tokens can be verified.
    pub(super) async fn keep(&self, first: impl FnOnce(), stop: &CancellationToken) {
        self.keys.keep(|| self.fetch(), first, stop).await;
    }

    /// Looks at the certificate files again. Blocks.
    pub(super) fn renew(&self) {
        self.service.renew();
    }

    pub(super) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    async fn fetch(&self) -> Result<KeySet, KeysError> {
        if self.config.jwks_url.is_some() {
            return self.keys.parse(&get(&self.service, "", keys::MAX_BODY).await?);
        }
        let document = get(&self.service, DISCOVERY, MAX_DOCUMENT).await?;
        let (url, query) = self.config.keys_of(&document).map_err(KeysError::Answer)?;
        self.keys.parse(&get(&*self.at(url)?, &query, keys::MAX_BODY).await?)
    }

    /// The service at `url`: the one of the last time, if it is still there.
    fn at(&self, url: ServiceUrl) -> Result<Arc<Service>, KeysError> {
        let mut found = self.found.lock();
        if let Some(same) = found.as_ref().filter(|service| *service.url() == url) {
            return Ok(Arc::clone(same));
        }
        let service = self.service.elsewhere(url).map_err(|error| KeysError::Answer(error.to_string()))?;
        Ok(Arc::clone(found.insert(Arc::new(service))))
    }
}

impl JwksConfig {
    /// Where the keys are, by the discovery document of the issuer: a URL, and its query with the `?`.
    fn keys_of(&self, document: &[u8]) -> Result<(ServiceUrl, String), String> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|_| "the issuer's openid-configuration has no issuer and jwks_uri".to_owned())?;
        if document.issuer != self.issuer {
            let text = "the issuer's openid-configuration names another issuer; set traffic_controller.jwks.issuer as it is there";
            return Err(text.to_owned());
        }
        let (url, query) = document.jwks_uri.split_at(document.jwks_uri.find('?').unwrap_or(document.jwks_uri.len()));
        let url: ServiceUrl = url.parse().map_err(|error| format!("jwks_uri: {error}"))?;
        if url.is_exposed() && !self.insecure_plaintext {
            return Err("jwks_uri is plain text on another machine, where keys could be changed on the way".to_owned());
        }
        Ok((url, query.to_owned()))
    }
}

async fn get(service: &Service, path: &str, most: usize) -> Result<bytes::Bytes, KeysError> {
    let answer = service.ask(Ask { path, authorization: None, form: None, most }).await?;
    if answer.status != StatusCode::OK {
        return Err(KeysError::Answer(format!("{}{path} answers {}", service.url(), answer.status)));
    }
    Ok(answer.body)
}
