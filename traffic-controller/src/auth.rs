//! Who may read what: one question, asked by every endpoint before it does anything else.
//!
//! What enters: who calls ([`Caller`]) and what it wants to read ([`Access`]). What leaves: a [`Grant`], which a stream holds for as
//! long as it runs and which tells when it no longer stands; or [`Denied`], which each protocol answers in its own words. Never looks
//! at an envelope, and never keeps, logs or shows a token: only its digest is passed on.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use self::caller::Caller;
use self::caller::Credential;
pub(crate) use self::grant::Grant;
pub use self::secret::{MAX_TOKEN_BYTES, new_token, token_sha256};
pub use self::table::TokensError;
pub(crate) use self::tokens::Tokens;
use crate::metrics::AuthMetrics;

mod caller;
mod grant;
mod pattern;
mod secret;
mod table;
mod tokens;

/// Decides who may read what. Cloning shares it.
#[derive(Clone)]
pub(crate) enum Authorizer {
    /// Everybody who reaches the port may read everything: for loopback addresses, where [`transport::LocalOnly`] keeps web pages
    /// away.
    None,
    /// Whoever shows a token of the file, what the file says of it; on gRPC, whoever shows a client certificate, everything.
    Tokens(Arc<Tokens>),
}

/// The `authorizer` of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthorizerConfig {
    /// Everybody who reaches the port may read everything. Refused on other addresses than loopback.
    #[default]
    None,
    /// Each token reads what the file `tokens` says.
    Tokens,
}

/// What a request wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// The envelopes of every source.
    Firehose,
    /// Those of one source, by its decoded id.
    Source(&'a str),
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
}

/// What a consumer is told when its stream ends because its [`Grant`] no longer stands.
pub(crate) const EXPIRED: &str = "authorization expired";

impl Authorizer {
    /// Reads the tokens in `path`.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub(crate) fn tokens(path: &Path, metrics: AuthMetrics) -> Result<Self, TokensError> {
        Ok(Self::Tokens(Arc::new(Tokens::load(path, metrics, SystemTime::now())?)))
    }

    /// Who `caller` is, as a grant that admits nothing yet.
    ///
    /// # Errors
    /// Why it may read nothing at all.
    pub(crate) fn authenticate(&self, caller: &Caller<'_>) -> Result<Grant, Denied> {
        let tokens = match self {
            Self::None => return Ok(Grant::all()),
            Self::Tokens(tokens) => tokens,
        };
        let grant = match caller.credential() {
            Ok(Credential::Certificate) => Ok(Grant::all()),
            Ok(Credential::Token(digest)) => tokens.grant(digest, SystemTime::now()),
            Err(denied) => Err(denied),
        };
        grant.inspect_err(|denied| tokens.metrics().denied(*denied))
    }

    /// True when requests are let through without asking who sends them.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}
