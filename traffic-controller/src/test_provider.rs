//! An OpenID provider for tests: a discovery document and a key set (OpenID Connect Discovery 1.0 §4, RFC 7517 §5), which are all that is
//! asked of one, over TLS or on loopback.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::Request;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use transport::{Security, TestCerts, bind, serve_http};

use crate::auth::{AuthorizerConfig, JwksConfig};
use crate::config::Config;
use crate::test_issuer::TestIssuer;

/// A provider: what it answers under each path, until it is dropped.
///
/// # Panics
/// Every method panics when it cannot do what it is for.
pub struct Provider {
    /// The issuer, as its tokens name it.
    pub url: String,
    /// Signs the tokens.
    pub issuer: TestIssuer,
    /// Bodies by path with its query.
    pub answers: Arc<Mutex<Vec<(&'static str, String)>>>,
    certs: TestCerts,
    _stop: DropGuard,
}

/// Where its discovery document is.
pub const DISCOVERY: &str = "/realms/a/.well-known/openid-configuration";

impl Provider {
    /// Starts one on any free port, over TLS or not. Must be called within a tokio runtime.
    pub fn start(tls: bool) -> Self {
        let (certs, issuer) = (TestCerts::new(), TestIssuer::new("key-1"));
        let answers: Arc<Mutex<Vec<(&'static str, String)>>> = Arc::default();
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let listener = bind("test.provider", "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.addr();
        let security = if tls { Security::Https(certs.server_identity("provider")) } else { Security::Plain };
        let incoming = listener.incoming(security, &tracker, stop.clone());
        let known = Arc::clone(&answers);
        let router = Router::new().fallback(move |request: Request| {
            let path = request.uri().path_and_query().unwrap().to_string();
            let found = known.lock().iter().find(|(known, _)| *known == path).map(|(_, body)| body.clone());
            async move { found.ok_or(StatusCode::NOT_FOUND) }
        });
        let (tasks, ends) = (tracker.clone(), stop.clone());
        tracker.spawn(async move { serve_http(incoming, router, &tasks, &ends).await });
        let url = format!("{}://{addr}/realms/a", if tls { "https" } else { "http" });
        let provider = Self { url, issuer, answers, certs, _stop: stop.drop_guard() };
        provider.answer("/keys?of=a", &json!({ "keys": [provider.issuer.published()] }));
        let origin = provider.url.strip_suffix("/realms/a").unwrap();
        let document = json!({ "issuer": provider.url, "jwks_uri": format!("{origin}/keys?of=a"), "more": 1 });
        provider.answer(DISCOVERY, &document);
        provider
    }

    /// Answers `body` under `path` from now on.
    pub fn answer(&self, path: &'static str, body: &Value) {
        let mut answers = self.answers.lock();
        answers.retain(|(known, _)| *known != path);
        answers.push((path, body.to_string()));
    }

    /// The table of a configuration, with `more` of its keys.
    pub fn table(&self, more: &str) -> JwksConfig {
        let tls = match self.url.starts_with("https") {
            true => format!("tls = {{ ca = '{}' }}\n", self.certs.files("x").ca.display()),
            false => String::new(),
        };
        let text = format!("issuer = \"{}\"\naudience = \"hydrant\"\n{tls}{more}", self.url);
        toml::from_str(&text).unwrap()
    }

    /// The configuration of a traffic controller that takes its tokens, with `more` keys of the table.
    pub fn config(&self, more: &str) -> Config {
        Config { authorizer: AuthorizerConfig::Jwks, jwks: Some(self.table(more)), ..Config::for_test() }
    }

    /// What each token must say, and `more`.
    pub fn claims(&self, more: &Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut claims =
            json!({ "iss": self.url, "aud": "hydrant", "exp": (now + Duration::from_secs(600)).as_secs() });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    }

    /// A token that says `more` beside what each must.
    pub fn token(&self, more: &Value) -> String {
        self.issuer.sign(&self.claims(more))
    }
}
