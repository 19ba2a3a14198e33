//! Who may read what: one question, asked by every endpoint before it does anything else.
//!
//! What enters: a request's headers and what it wants to read. What leaves: yes, or why not, as each protocol says it. Never
//! looks at an envelope.

use axum::response::{IntoResponse, Response};
use http::HeaderMap;

/// Decides who may read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authorizer {
    /// Everybody who reaches the port may read everything: for loopback addresses, where [`transport::LocalOnly`] keeps web pages
    /// away.
    None,
}

/// The `authorizer` of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthorizerConfig {
    /// Everybody who reaches the port may read everything. Refused on other addresses than loopback.
    #[default]
    None,
}

/// What a request wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    /// The envelopes of every source.
    Firehose,
    /// Those of one source, by its decoded id.
    Source(&'a str),
}

/// Why a request may not read what it wants. [`Authorizer::None`] denies nothing, so there is no reason yet.
#[derive(Debug)]
pub(crate) enum Denied {}

impl From<AuthorizerConfig> for Authorizer {
    fn from(config: AuthorizerConfig) -> Self {
        match config {
            AuthorizerConfig::None => Self::None,
        }
    }
}

impl Authorizer {
    /// Whether a request with `headers` may read `access`.
    ///
    /// # Errors
    /// Why it may not; answered as it stands.
    pub(crate) async fn authorize(&self, headers: &HeaderMap, access: Access<'_>) -> Result<(), Denied> {
        match (self, headers, access) {
            (Self::None, _, Access::Firehose | Access::Source(_)) => Ok(()),
        }
    }

    /// True when requests are let through without asking who sends them.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {}
    }
}
