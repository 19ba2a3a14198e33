//! Who may read what: one question, asked by every endpoint before it does anything else.
//!
//! What enters: who calls ([`Caller`]) and what it wants to read ([`Access`]). What leaves: a [`Grant`], which a stream holds for as
//! long as it runs and which tells when it no longer stands; or [`Denied`], which each protocol answers in its own words. Never looks
//! at an envelope, and never logs or shows a token. Tables and caches know it by its digest; only a grant that has to ask others in the
//! caller's name holds the token itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use telemetry::{Latch, Telemetry};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::caller::Caller;
use self::caller::Credential;
pub use self::config::{AuthorizerConfig, AuthorizerError, JwksConfig, UaaConfig};
pub(crate) use self::grant::{Grant, Visible};
use self::jwks::Jwks;
pub use self::secret::{MAX_TOKEN_BYTES, Secret, new_token, token_sha256};
pub use self::service::{ServiceConfig, ServiceError, ServiceTls, ServiceUrl, ServiceUrlError};
pub use self::table::TokensError;
use self::tokens::Tokens;
use self::uaa::Uaa;
use crate::config::Config;
use crate::metrics::AuthMetrics;

mod caller;
mod claims;
mod clock;
mod config;
mod grant;
mod jwks;
mod keys;
mod pattern;
mod secret;
mod service;
mod table;
mod tokens;
mod uaa;

/// How often the files of certificates for those who are asked are looked at.
const POLL: Duration = Duration::from_secs(5);

/// Decides who may read what. Cloning shares it.
#[derive(Clone)]
pub(crate) enum Authorizer {
    /// Everybody who reaches the port may read everything: for loopback addresses, where [`transport::LocalOnly`] keeps web pages
    /// away.
    None,
    /// Whoever shows a token of the file, what the file says of it; on gRPC, whoever shows a client certificate, everything.
    Tokens(Arc<Tokens>),
    /// Whoever shows a token of a UAA, what its scopes and Cloud Controller say; on gRPC, certificates as above.
    Uaa(Arc<Uaa>),
    /// Whoever shows a token of an OpenID provider, what its claims say; on gRPC, certificates as above.
    Jwks(Arc<Jwks>),
}

/// What a request wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// The envelopes of every source.
    Firehose,
    /// The same as a v1 firehose, which not everybody has who may read every source.
    V1Firehose,
    /// Those of one source, by its decoded id.
    Source(&'a str),
    /// The same as a v1 app stream, which there is of apps alone.
    AppStream(&'a str),
}

/// An [`Access`] to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Firehose,
    V1Firehose,
    Source(Box<str>),
    AppStream(Box<str>),
}

impl<'a> Access<'a> {
    /// The one source that is read.
    fn source_id(self) -> Option<&'a str> {
        match self {
            Self::Firehose | Self::V1Firehose => None,
            Self::Source(id) | Self::AppStream(id) => Some(id),
        }
    }
}

impl From<Access<'_>> for Wanted {
    fn from(access: Access<'_>) -> Self {
        match access {
            Access::Firehose => Self::Firehose,
            Access::V1Firehose => Self::V1Firehose,
            Access::Source(id) => Self::Source(id.into()),
            Access::AppStream(id) => Self::AppStream(id.into()),
        }
    }
}

impl Wanted {
    fn access(&self) -> Access<'_> {
        match self {
            Self::Firehose => Access::Firehose,
            Self::V1Firehose => Access::V1Firehose,
            Self::Source(id) => Access::Source(id),
            Self::AppStream(id) => Access::AppStream(id),
        }
    }
}

/// Why a request may not read what it wants. The texts repeat nothing of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// It shows neither a token nor a certificate.
    #[error("authorization not provided")]
    Missing,
    /// Its token is not known, or no longer.
    #[error("invalid authorization")]
    Invalid,
    /// The token reads something else.
    #[error("the authorization does not cover what was asked for")]
    Forbidden,
    /// A page of another origin makes a browser send its cookie.
    #[error("a cookie is taken only from a page of this origin")]
    CrossSite,
    /// What it asks for could not be the id of an app.
    #[error("the id is not that of an app")]
    NoApp,
    /// It has asked for too much that others must be asked about.
    #[error("too many look-ups for this authorization; try again later")]
    Limited,
    /// Those who know could not be asked.
    #[error("the authorization could not be checked; try again later")]
    Unavailable,
}

/// What a consumer is told when its stream ends because its [`Grant`] no longer stands.
pub(crate) const EXPIRED: &str = "authorization expired";

impl Authorizer {
    /// Reads the tokens in `path`.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    fn tokens(path: &Path, metrics: AuthMetrics) -> Result<Self, TokensError> {
        Ok(Self::Tokens(Arc::new(Tokens::load(path, metrics, SystemTime::now())?)))
    }

    /// The authorizer of a `config` that was checked. Asks nobody yet.
    ///
    /// # Errors
    /// A file that it names cannot be used.
    pub(crate) fn of(config: &Config, telemetry: &Telemetry, metrics: AuthMetrics) -> Result<Self, AuthorizerError> {
        match (config.authorizer, &config.tokens, &config.uaa, &config.jwks) {
            (AuthorizerConfig::Tokens, Some(file), ..) => Ok(Self::tokens(file, metrics)?),
            (AuthorizerConfig::Uaa, _, Some(uaa), _) => {
                uaa.insecure_choices().for_each(|choice| telemetry.insecure_mode(choice));
                Ok(Self::Uaa(Arc::new(Uaa::new(uaa, telemetry, metrics)?)))
            }
            (AuthorizerConfig::Jwks, .., Some(jwks)) => {
                jwks.insecure_choices().for_each(|choice| telemetry.insecure_mode(choice));
                Ok(Self::Jwks(Arc::new(Jwks::new(jwks, telemetry, metrics)?)))
            }
            _ => Ok(Self::None),
        }
    }

    /// Keeps what it knows fresh until `stop`, in tasks on `tracker`. `usable` is released once it can tell who somebody is.
    pub(crate) fn keep(&self, usable: Latch, tracker: &TaskTracker, stop: &CancellationToken) {
        let stop = stop.clone();
        match self {
            Self::None => usable.ready(),
            Self::Tokens(tokens) => {
                usable.ready();
                tracker.spawn(Arc::clone(tokens).watch(stop));
            }
            Self::Uaa(uaa) => {
                tracker.spawn(renew(Arc::clone(uaa), Uaa::renew, stop.clone()));
                let uaa = Arc::clone(uaa);
                tracker.spawn(async move { uaa.keep(|| usable.ready(), &stop).await });
            }
            Self::Jwks(jwks) => {
                tracker.spawn(renew(Arc::clone(jwks), Jwks::renew, stop.clone()));
                let jwks = Arc::clone(jwks);
                tracker.spawn(async move { jwks.keep(|| usable.ready(), &stop).await });
            }
        }
    }

    /// Who `caller` is, as a grant that admits nothing yet.
    ///
    /// # Errors
    /// Why it may read nothing at all.
    pub(crate) async fn authenticate(&self, caller: &Caller<'_>) -> Result<Grant, Denied> {
        if self.is_none() {
            return Ok(Grant::all());
        }
        let grant = match (self, caller.credential()) {
            (_, Err(denied)) => Err(denied),
            (Self::None, _) | (_, Ok(Credential::Certificate)) => Ok(Grant::all()),
            (Self::Tokens(tokens), Ok(Credential::Token(proof))) => tokens.grant(proof.digest(), SystemTime::now()),
            (Self::Uaa(uaa), Ok(Credential::Token(proof))) => Box::pin(uaa.grant(proof)).await,
            (Self::Jwks(jwks), Ok(Credential::Token(proof))) => Box::pin(jwks.grant(&proof)).await,
        };
        grant.inspect_err(|denied| self.denied(*denied))
    }

    /// Who `caller` is, as a grant that admits `access`.
    ///
    /// # Errors
    /// Why it may not be read. That an app's id is none is found before the caller is looked at (contract: traffic controller v1 §2.2).
    pub(crate) async fn authorize(&self, caller: &Caller<'_>, access: Access<'_>) -> Result<Grant, Denied> {
        if let (Self::Uaa(_), Access::AppStream(id)) = (self, access)
            && !uaa::is_guid(id)
        {
            self.denied(Denied::NoApp);
            return Err(Denied::NoApp);
        }
        let mut grant = self.authenticate(caller).await?;
        grant.admit(access).await?;
        Ok(grant)
    }

    /// True when requests are let through without asking who sends them.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    fn denied(&self, denied: Denied) {
        match self {
            Self::None => {}
            Self::Tokens(tokens) => tokens.metrics().denied(denied),
            Self::Uaa(uaa) => uaa.metrics().denied(denied),
            Self::Jwks(jwks) => jwks.metrics().denied(denied),
        }
    }
}

/// Looks at certificate files until `stop`.
async fn renew<T: Send + Sync + 'static>(owner: Arc<T>, look: fn(&T), stop: CancellationToken) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let owner = Arc::clone(&owner);
        // A panic in there has been reported where it happened, and leaves the files as they were.
        let _looked = tokio::task::spawn_blocking(move || look(&owner)).await;
    }
}
