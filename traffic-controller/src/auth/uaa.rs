//! Tokens of a Cloud Foundry UAA (contracts: traffic controller v1 §2, loggregator v2 §12.2, log cache §6).
//!
//! What enters: a token. What leaves: whether it reads everything, by its scopes, which UAA has signed or is asked for; or one source,
//! which Cloud Controller is asked for with the caller's own authorization. Good answers are kept for a while, refusals never, and how
//! much a caller may ask for is bounded. When a service does not answer, nothing new is granted.
//!
//! One order serves all endpoints: an app, by `log_access`, then a service instance. A v1 app stream is of an app.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use jsonwebtoken::Algorithm;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use telemetry::Telemetry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use transport::Throttle;

use self::cache::Cache;
use self::cloud_controller::CloudController;
pub(super) use self::cloud_controller::is_guid;
use self::flights::Flights;
pub(super) use self::held::Held;
use self::limits::{Bounds, Limits};
use super::caller::Proof;
use super::claims::Claims;
use super::config::{AuthorizerError, UaaConfig};
use super::keys::{self, KeySet, Keys, KeysError};
use super::secret::Digest;
use super::service::{Ask, Service};
use super::{Access, Denied, Grant, Visible};
use crate::metrics::{Asked, AuthMetrics, Backend};

mod cache;
mod cloud_controller;
mod flights;
mod held;
mod limits;

/// The largest answer of `check_token`, in bytes.
const MAX_CHECKED: usize = 1024 * 1024;

/// What `jti` of a refresh token ends with. Such a token is signed like any other, and is not for reading.
const REFRESH: &str = "-r";

/// The authorizer of `authorizer = "uaa"`.
pub(crate) struct Uaa {
    service: Service,
    /// What we show to UAA.
    client: Option<HeaderValue>,
    check_token: bool,
    keys: Keys,
    cloud_controller: CloudController,
    /// Bounds what is asked of Cloud Controller, by those whom UAA knows.
    limits: Arc<Limits>,
    /// Bounds what is asked of UAA. Strangers can use it up; what others have found out already, and look up, they cannot.
    checks: Arc<Limits>,
    /// What UAA said of tokens that it was asked about, and is asked about now.
    checked: Cache<Digest, Who>,
    checking: Flights<Digest, Who>,
    /// What of its sources a caller was found to read, and is looked up now: as an app alone, or as either.
    found: Cache<(Digest, Box<str>), Kind>,
    finding: Flights<(Digest, Box<str>, bool), Kind>,
    metrics: AuthMetrics,
}

/// What a token says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Who {
    /// It has the one scope that a v1 firehose takes.
    firehose: bool,
    /// It has one of those that everything else takes.
    everything: bool,
    expires: SystemTime,
}

/// As what a source was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    App,
    ServiceInstance,
}

impl Who {
    /// `None` when the token has no end, or it has come.
    fn of(claims: &Claims, now: SystemTime) -> Option<Self> {
        let expires = claims.expires().filter(|_| claims.holds(now, Duration::ZERO))?;
        if claims.text("jti").is_some_and(|jti| jti.ends_with(REFRESH)) {
            return None;
        }
        let firehose = claims.has_word("scope", "doppler.firehose");
        Some(Self { firehose, everything: firehose || claims.has_word("scope", "logs.admin"), expires })
    }
}

impl Uaa {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) fn new(
        config: &UaaConfig,
        telemetry: &Telemetry,
        metrics: AuthMetrics,
    ) -> Result<Self, AuthorizerError> {
        let [uaa, internal, api] = config.services(telemetry)?;
        let client = config.client()?.map(|(id, secret)| basic(id, &secret));
        let mut allowed = vec![Algorithm::RS256];
        if config.insecure_allow_hs256 {
            allowed.push(Algorithm::HS256);
        }
        let bounds = Bounds {
            all: config.max_lookups,
            caller: config.max_caller_lookups,
            rate: config.caller_lookups_per_second,
        };
        Ok(Self {
            service: uaa,
            client,
            check_token: config.check_token,
            keys: Keys::new(allowed, metrics.clone()),
            cloud_controller: CloudController::new(internal, api, metrics.clone()),
            limits: Limits::new(bounds),
            checks: Limits::new(bounds),
            checked: Cache::new(config.cache_ttl, config.cache_entries),
            checking: Flights::new(),
            found: Cache::new(config.cache_ttl, config.cache_entries),
            finding: Flights::new(),
            metrics,
        })
    }

    /// Who shows `proof`, as a grant that admits nothing yet.
    ///
    /// # Errors
    /// Why it may read nothing at all.
    pub(super) async fn grant(self: &Arc<Self>, proof: Proof) -> Result<Grant, Denied> {
        let who = self.who(&proof).await?;
        Ok(Grant::uaa(Held::new(Arc::clone(self), proof, who)))
    }

    /// Keeps the keys and files fresh until `stop`; `first` is called once tokens can be verified.
    pub(super) async fn keep(&self, first: impl FnOnce(), stop: &CancellationToken) {
        if self.check_token {
            first();
            return stop.cancelled().await;
        }
        self.keys.keep(|| self.fetch(), first, stop).await;
    }

    /// Looks at the certificate files again. Blocks.
    pub(super) fn renew(&self) {
        self.service.renew();
        self.cloud_controller.renew();
    }

    pub(super) fn metrics(&self) -> &AuthMetrics {
        &self.metrics
    }

    fn ttl(&self) -> Duration {
        self.found.ttl()
    }

    async fn who(&self, proof: &Proof) -> Result<Who, Denied> {
        if self.is_asked_about(proof) {
            return self.check(proof).await;
        }
        let claims = self.keys.verify(proof.token()).await?;
        Who::of(&claims, SystemTime::now()).ok_or(Denied::Invalid)
    }

    /// Who shows `proof`, asked again; `None` where UAA is not asked about it.
    async fn again(&self, proof: &Proof) -> Result<Option<Who>, Denied> {
        if !self.is_asked_about(proof) {
            return Ok(None);
        }
        self.check(proof).await.map(Some)
    }

    /// Who shows `proof` after its end, if UAA says that there is a later one.
    async fn after_end(&self, proof: &Proof) -> Option<Who> {
        self.again(proof).await.ok().flatten()
    }

    /// True where UAA is asked rather than its signature looked at: a token of three parts is signed, any other only has a name.
    fn is_asked_about(&self, proof: &Proof) -> bool {
        self.check_token || proof.token().iter().filter(|byte| **byte == b'.').count() != 2
    }

    /// What UAA says of a token.
    async fn check(&self, proof: &Proof) -> Result<Who, Denied> {
        let asked_at = Instant::now();
        if let Some(who) = self.checked.get(&proof.digest(), asked_at)
            && SystemTime::now() < who.expires
        {
            self.metrics.cache_hit();
            return Ok(who);
        }
        let ask = || async {
            let _turn = self.checks.enter(proof.digest(), asked_at)?;
            let who = self.check_token(proof).await?;
            self.checked.put(proof.digest(), who, asked_at);
            self.show_cached();
            Ok(who)
        };
        self.checking.join(proof.digest(), ask).await
    }

    /// Asks UAA (contract: traffic controller v1 §2.1).
    async fn check_token(&self, proof: &Proof) -> Result<Who, Denied> {
        let Some(client) = &self.client else { return Err(Denied::Invalid) };
        let form = format!("token={}", percent_encode(proof.token(), NON_ALPHANUMERIC));
        let ask = Ask { path: "/check_token", authorization: Some(client), form: Some(form), most: MAX_CHECKED };
        let outcome = match self.service.ask(ask).await {
            Ok(answer) if answer.status == StatusCode::OK => match serde_json::from_slice(&answer.body) {
                Ok(claims) => Who::of(&Claims(claims), SystemTime::now()).ok_or(Denied::Invalid),
                Err(_) => Err(self.failed(&"the answer to check_token is no JSON object")),
            },
            Ok(answer) if answer.status == StatusCode::BAD_REQUEST => Err(Denied::Invalid),
            Ok(answer) => Err(self.failed(&format_args!("check_token answers {}", answer.status))),
            Err(error) => Err(self.failed(&error)),
        };
        self.metrics.asked(Backend::Uaa, Asked::of(outcome.map(|_| ())));
        outcome
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Denied {
        static FAILED: Throttle = Throttle::every(Duration::from_secs(10));
        if let Some(suppressed) = FAILED.pass() {
            warn!(%error, url = %self.service.url(), suppressed, "UAA could not be asked about a token");
        }
        Denied::Unavailable
    }

    /// Whether `access` may be read.
    async fn allows(&self, proof: &Proof, who: &Who, access: Access<'_>) -> Result<(), Denied> {
        let (source_id, must_be_app) = match access {
            Access::V1Firehose if who.firehose => return Ok(()),
            Access::Firehose if who.everything => return Ok(()),
            Access::V1Firehose | Access::Firehose => return Err(Denied::Forbidden),
            _ if who.everything => return Ok(()),
            Access::AppStream(guid) => (guid, true),
            Access::Source(source_id) => (source_id, false),
        };
        if !is_guid(source_id) {
            return Err(Denied::Forbidden);
        }
        let asked = (proof.digest(), Box::from(source_id));
        let asked_at = Instant::now();
        if let Some(kind) = self.found.get(&asked, asked_at)
            && (kind == Kind::App || !must_be_app)
        {
            self.metrics.cache_hit();
            return Ok(());
        }
        let ask = || async {
            let _turn = self.limits.enter(proof.digest(), asked_at)?;
            let kind = self.find(proof.authorization(), source_id, must_be_app).await?;
            self.found.put(asked, kind, asked_at);
            self.show_cached();
            Ok(kind)
        };
        let key = (proof.digest(), Box::from(source_id), must_be_app);
        self.finding.join(key, ask).await.map(|_kind| ())
    }

    /// As what `guid` may be read.
    async fn find(&self, authorization: &HeaderValue, guid: &str, must_be_app: bool) -> Result<Kind, Denied> {
        let of_app = match self.cloud_controller.log_access(authorization, guid).await {
            Ok(()) => return Ok(Kind::App),
            Err(denied) if must_be_app => return Err(denied),
            Err(denied) => denied,
        };
        match self.cloud_controller.service_instance(authorization, guid).await {
            Ok(()) => Ok(Kind::ServiceInstance),
            // It might have been an app.
            Err(Denied::Forbidden) => Err(of_app),
            Err(denied) => Err(denied),
        }
    }

    /// The GUIDs of apps by their names; what could be a GUID itself is no name.
    async fn named(&self, proof: &Proof, names: &[String]) -> Result<HashMap<String, Vec<String>>, Denied> {
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| !is_guid(name)).collect();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let _turn = self.limits.enter(proof.digest(), Instant::now())?;
        self.cloud_controller.apps_named(proof.authorization(), &names).await
    }

    /// What of a list may be shown; nothing when Cloud Controller does not say it whole.
    async fn visible(&self, proof: &Proof, who: &Who) -> Visible {
        if who.everything {
            return Visible::all();
        }
        let guids = async {
            let _turn = self.limits.enter(proof.digest(), Instant::now())?;
            self.cloud_controller.guids(proof.authorization()).await
        };
        guids.await.map_or_else(
            |denied| {
                self.metrics.denied(denied);
                debug!(error = %denied, "Sources that a caller reads are not known");
                Visible::nothing()
            },
            Visible::these,
        )
    }

    fn show_cached(&self) {
        self.metrics.cached(self.checked.len() + self.found.len());
    }

    async fn fetch(&self) -> Result<KeySet, KeysError> {
        let ask = Ask { path: "/token_keys", authorization: self.client.as_ref(), form: None, most: keys::MAX_BODY };
        let answer = self.service.ask(ask).await?;
        if answer.status != StatusCode::OK {
            return Err(KeysError::Answer(format!("{}/token_keys answers {}", self.service.url(), answer.status)));
        }
        self.keys.parse(&answer.body)
    }
}

/// `Authorization: Basic`, never shown.
fn basic(id: &str, secret: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let mut value = HeaderValue::from_str(&text).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}
