//! What a configuration says about who may read what: `authorizer`, and the tables `[traffic_controller.uaa]` and
//! `[traffic_controller.jwks]`. Plain data, and what of it cannot be.

use std::io::Read;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics::Gauge;
use serde::{Deserialize, Serialize};
use telemetry::Telemetry;
use transport::duration_text;

use super::secret::Secret;
use super::service::{Service, ServiceConfig, ServiceError, ServiceTls, ServiceUrl, ServiceUrlError};
use super::table::TokensError;
use crate::config::Config;
use crate::metrics::certificate_end;

/// The longest secret of a client, in bytes.
const MAX_SECRET: u64 = 4096;

const UAA: &str = "traffic_controller.uaa.url";
const CLOUD_CONTROLLER: &str = "traffic_controller.uaa.cloud_controller.url";
const API: &str = "traffic_controller.uaa.api.url";
const UAA_PLAINTEXT: &str = "traffic_controller.uaa.insecure_plaintext";
const HS256: &str = "traffic_controller.uaa.insecure_allow_hs256";
const ISSUER: &str = "traffic_controller.jwks.issuer";
const JWKS: &str = "traffic_controller.jwks.jwks_url";
const JWKS_PLAINTEXT: &str = "traffic_controller.jwks.insecure_plaintext";

/// The `authorizer` of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthorizerConfig {
    /// Everybody who reaches the port may read everything. Refused on other addresses than loopback.
    #[default]
    None,
    /// Each token reads what the file `tokens` says.
    Tokens,
    /// Tokens of a Cloud Foundry UAA read what their scopes and Cloud Controller say.
    Uaa,
    /// Tokens of an OpenID provider read what their claims say.
    Jwks,
}

/// The `[traffic_controller.uaa]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UaaConfig {
    /// UAA, as `https://uaa.service.cf.internal:8443`.
    pub url: ServiceUrl,
    /// Whom to trust as UAA. Absent: the system's authorities.
    #[serde(default)]
    pub tls: Option<ServiceTls>,
    /// What we are called at UAA, for `check_token` and `token_keys`. Absent: tokens that are not signed are refused.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Its secret. Meant for the environment; it is never shown.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// A file that holds the secret. Read at the start.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Ask UAA about every token, instead of verifying those that are signed; false.
    #[serde(default)]
    pub check_token: bool,
    /// Take tokens signed with a secret that we and UAA share, as old UAAs have it; false. Whoever may read `token_keys` can then make
    /// tokens.
    #[serde(default)]
    pub insecure_allow_hs256: bool,
    /// Ask services of other machines in plain text, where tokens can be read on the way; false.
    #[serde(default)]
    pub insecure_plaintext: bool,
    /// Cloud Controller's internal API, as `https://cloud-controller-ng.service.cf.internal:9023`.
    pub cloud_controller: ServiceConfig,
    /// Cloud Controller's public API, as `https://api.example.com`.
    pub api: ServiceConfig,
    /// How long an answer that allows something holds; `"60s"`. Open streams are asked about again as often.
    #[serde(with = "duration_text", default = "minute")]
    pub cache_ttl: Duration,
    /// Such answers that are kept; 10 000.
    #[serde(default = "ten_thousand")]
    pub cache_entries: NonZeroUsize,
    /// Look-ups under way at once; 64.
    #[serde(default = "sixty_four")]
    pub max_lookups: NonZeroU32,
    /// Those of one token; 16.
    #[serde(default = "sixteen")]
    pub max_caller_lookups: NonZeroU32,
    /// Look-ups of one token in a second, ten seconds' worth at once; 20.
    #[serde(default = "twenty")]
    pub caller_lookups_per_second: NonZeroU32,
}

/// The `[traffic_controller.jwks]` table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JwksConfig {
    /// The provider, as its tokens name it in `iss`: a URL, compared letter by letter.
    pub issuer: String,
    /// What tokens must name in `aud`.
    pub audience: String,
    /// Where the provider's keys are. Absent: where its `/.well-known/openid-configuration` says.
    #[serde(default)]
    pub jwks_url: Option<ServiceUrl>,
    /// Whom to trust as the provider. Absent: the system's authorities.
    #[serde(default)]
    pub tls: Option<ServiceTls>,
    /// The claim with a token's scopes: a text with spaces between them, or a list; `"scope"`.
    #[serde(default = "scope")]
    pub scopes_claim: String,
    /// Those that read every source; `["firehose"]`.
    #[serde(default = "firehose")]
    pub firehose_scopes: Vec<String>,
    /// The claim with the sources that a token reads, as in a tokens file; `"sources"`.
    #[serde(default = "sources")]
    pub sources_claim: String,
    /// How far clocks may be apart; `"30s"`.
    #[serde(with = "duration_text", default = "half_a_minute")]
    pub leeway: Duration,
    /// Fetch keys from another machine in plain text, where they can be changed on the way; false.
    #[serde(default)]
    pub insecure_plaintext: bool,
}

/// Why an authorizer cannot be what a configuration says. No variant shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizerError {
    /// Tokens without a file.
    #[error(
        "traffic_controller.authorizer: \"tokens\" needs their file; \
         set traffic_controller.tokens = \"/path/of/tokens.toml\""
    )]
    NoTokens,
    /// A file that nobody looks at.
    #[error(
        "traffic_controller.tokens: the file would not be used; \
         set traffic_controller.authorizer = \"tokens\", or leave tokens out"
    )]
    TokensUnused,
    /// The tokens file cannot be used.
    #[error("traffic_controller.tokens: {0}")]
    Tokens(#[from] TokensError),
    /// An authorizer without its table.
    #[error("traffic_controller.authorizer: \"{0}\" needs the table [traffic_controller.{0}]")]
    NoTable(&'static str),
    /// A table that nobody looks at.
    #[error(
        "traffic_controller.{0}: the table would not be used; \
         set traffic_controller.authorizer = \"{0}\", or leave the table out"
    )]
    TableUnused(&'static str),
    /// What is sent could be read, or what is fetched be changed.
    #[error(
        "{key}: {url} is plain text on another machine, where it can be read and changed on the way; write https://, \
         or set {plaintext} = true"
    )]
    Plain {
        /// The configuration key of the URL.
        key: &'static str,
        /// The URL.
        url: ServiceUrl,
        /// The key that names the choice.
        plaintext: &'static str,
    },
    /// The issuer is no URL.
    #[error("traffic_controller.jwks.issuer: {0}")]
    Issuer(ServiceUrlError),
    /// A service cannot be asked.
    #[error("{key}: {source}")]
    Service {
        /// The configuration key of its URL.
        key: &'static str,
        /// What is wrong.
        source: ServiceError,
    },
    /// Something that must not be empty is.
    #[error("{0} is empty; {1}")]
    Empty(&'static str, &'static str),
    /// A client without a secret, or the other way round.
    #[error("traffic_controller.uaa: {0}")]
    Client(&'static str),
    /// The secret cannot be read.
    #[error("traffic_controller.uaa.client_secret_file {}: {source}; it must be a file of 1 to {MAX_SECRET} bytes that this process may read", path.display())]
    Secret {
        /// The path as configured.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Config {
    /// Whether the authorizer has what it needs, and nothing is there for another one. Opens no file.
    pub(crate) fn check_authorizer(&self) -> Result<(), AuthorizerError> {
        let of = self.authorizer;
        match (of, &self.tokens) {
            (AuthorizerConfig::Tokens, None) => return Err(AuthorizerError::NoTokens),
            (AuthorizerConfig::Tokens, Some(_)) | (_, None) => {}
            (_, Some(_)) => return Err(AuthorizerError::TokensUnused),
        }
        let tables =
            [("uaa", AuthorizerConfig::Uaa, self.uaa.is_some()), ("jwks", AuthorizerConfig::Jwks, self.jwks.is_some())];
        for (name, whose, is_there) in tables {
            match (of == whose, is_there) {
                (true, false) => return Err(AuthorizerError::NoTable(name)),
                (false, true) => return Err(AuthorizerError::TableUnused(name)),
                _ => {}
            }
        }
        self.uaa.as_ref().map_or(Ok(()), UaaConfig::check)?;
        self.jwks.as_ref().map_or(Ok(()), JwksConfig::check)
    }
}

impl UaaConfig {
    fn check(&self) -> Result<(), AuthorizerError> {
        for (key, url, tls) in self.places() {
            check_service(key, url, tls, (UAA_PLAINTEXT, self.insecure_plaintext))?;
        }
        let secrets = usize::from(self.client_secret.is_some()) + usize::from(self.client_secret_file.is_some());
        match (&self.client_id, secrets) {
            (_, 2) => Err(AuthorizerError::Client("there are client_secret and client_secret_file; keep one")),
            (Some(_), 0) => Err(AuthorizerError::Client("client_id needs its secret; set client_secret_file")),
            (None, 1) => Err(AuthorizerError::Client("the secret needs its client_id")),
            (Some(id), _) if id.is_empty() || id.contains(':') || id.chars().any(char::is_control) => {
                Err(AuthorizerError::Client("client_id must be text without `:` and control characters"))
            }
            (None, _) if self.check_token => {
                Err(AuthorizerError::Client("check_token needs client_id and client_secret_file"))
            }
            _ => Ok(()),
        }
    }

    fn places(&self) -> [(&'static str, &ServiceUrl, Option<&ServiceTls>); 3] {
        [
            (UAA, &self.url, self.tls.as_ref()),
            (CLOUD_CONTROLLER, &self.cloud_controller.url, self.cloud_controller.tls.as_ref()),
            (API, &self.api.url, self.api.tls.as_ref()),
        ]
    }

    /// UAA, and Cloud Controller's internal and public API. Reads their files.
    pub(super) fn services(&self, telemetry: &Telemetry) -> Result<[Service; 3], AuthorizerError> {
        let names = ["traffic_controller_uaa", "traffic_controller_cloud_controller", "traffic_controller_api"];
        let [uaa, internal, api] = self.places();
        let [uaa, internal, api] = [(uaa, names[0]), (internal, names[1]), (api, names[2])]
            .map(|((key, url, tls), name)| service(key, url, tls, || certificate_end(telemetry, name)));
        Ok([uaa?, internal?, api?])
    }

    /// The client and its secret. Reads the file.
    pub(super) fn client(&self) -> Result<Option<(&str, String)>, AuthorizerError> {
        let Some(id) = &self.client_id else { return Ok(None) };
        let secret = match (&self.client_secret, &self.client_secret_file) {
            (Some(secret), _) => secret.reveal().to_owned(),
            (None, Some(path)) => read_secret(path)?,
            (None, None) => return Err(AuthorizerError::Client("client_id needs its secret; set client_secret_file")),
        };
        Ok(Some((id, secret)))
    }

    /// The keys of the insecure choices that it makes.
    pub(super) fn insecure_choices(&self) -> impl Iterator<Item = &'static str> {
        let exposed = self.places().iter().any(|(_, url, _)| url.is_exposed());
        [(UAA_PLAINTEXT, exposed), (HS256, self.insecure_allow_hs256)]
            .into_iter()
            .filter_map(|(key, chosen)| chosen.then_some(key))
    }
}

impl JwksConfig {
    fn check(&self) -> Result<(), AuthorizerError> {
        for (key, text, what) in [
            (ISSUER, &self.issuer, "write the URL that tokens have as `iss`"),
            ("traffic_controller.jwks.audience", &self.audience, "write what tokens for hydrant have as `aud`"),
            ("traffic_controller.jwks.scopes_claim", &self.scopes_claim, "name a claim, such as \"scope\""),
            ("traffic_controller.jwks.sources_claim", &self.sources_claim, "name a claim, such as \"sources\""),
        ] {
            if text.is_empty() {
                return Err(AuthorizerError::Empty(key, what));
            }
        }
        let (key, url) = self.place()?;
        check_service(key, &url, self.tls.as_ref(), (JWKS_PLAINTEXT, self.insecure_plaintext))
    }

    /// Where to ask first.
    fn place(&self) -> Result<(&'static str, ServiceUrl), AuthorizerError> {
        match &self.jwks_url {
            Some(url) => Ok((JWKS, url.clone())),
            None => Ok((ISSUER, self.issuer.parse().map_err(AuthorizerError::Issuer)?)),
        }
    }

    /// The service that has the keys, or says where they are. Reads its files.
    pub(super) fn service(&self, telemetry: &Telemetry) -> Result<Service, AuthorizerError> {
        let (key, url) = self.place()?;
        service(key, &url, self.tls.as_ref(), || certificate_end(telemetry, "traffic_controller_jwks"))
    }

    /// The keys of the insecure choices that it makes.
    pub(super) fn insecure_choices(&self) -> impl Iterator<Item = &'static str> {
        let exposed = self.place().is_ok_and(|(_, url)| url.is_exposed());
        (exposed || self.insecure_plaintext).then_some(JWKS_PLAINTEXT).into_iter()
    }
}

fn check_service(
    key: &'static str,
    url: &ServiceUrl,
    tls: Option<&ServiceTls>,
    (plaintext, chosen): (&'static str, bool),
) -> Result<(), AuthorizerError> {
    if url.is_exposed() && !chosen {
        return Err(AuthorizerError::Plain { key, url: url.clone(), plaintext });
    }
    ServiceTls::check(tls, url).map(|_name| ()).map_err(|source| AuthorizerError::Service { key, source })
}

fn service(
    key: &'static str,
    url: &ServiceUrl,
    tls: Option<&ServiceTls>,
    ends: impl FnOnce() -> Gauge,
) -> Result<Service, AuthorizerError> {
    Service::new(url.clone(), tls, ends).map_err(|source| AuthorizerError::Service { key, source })
}

/// The text of the file without the line feed at its end.
fn read_secret(path: &Path) -> Result<String, AuthorizerError> {
    let failed = |source| AuthorizerError::Secret { path: path.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_string(&mut text)).map_err(failed)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || text.len() as u64 > MAX_SECRET {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is empty or too long")));
    }
    Ok(secret.to_owned())
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn ten_thousand() -> NonZeroUsize {
    NonZeroUsize::new(10_000).expect("a default is not zero")
}

fn sixty_four() -> NonZeroU32 {
    NonZeroU32::new(64).expect("a default is not zero")
}

fn sixteen() -> NonZeroU32 {
    NonZeroU32::new(16).expect("a default is not zero")
}

fn twenty() -> NonZeroU32 {
    NonZeroU32::new(20).expect("a default is not zero")
}

fn scope() -> String {
    "scope".to_owned()
}

fn sources() -> String {
    "sources".to_owned()
}

fn firehose() -> Vec<String> {
    vec!["firehose".to_owned()]
}

#[cfg(test)]
mod tests;
