//! A UAA and a Cloud Controller for tests, over TLS. Neither can be installed from a package, so both are made here, with the paths,
//! statuses and bodies that the contracts have (traffic controller v1 §2, loggregator v2 §12.2, log cache §6); Cloud Controller's
//! internal port asks for a client certificate. They answer what the test has set, and remember what they were asked.

#![expect(clippy::unwrap_used, reason = "what a test needs and does not get fails it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use transport::{Security, TestCerts, bind, serve_http};

use crate::auth::{AuthorizerConfig, UaaConfig};
use crate::config::Config;
use crate::test_issuer::TestIssuer;

/// An app.
pub const APP: &str = "b3015d69-09cd-476d-aace-ad2d824d5ab7";
/// One more.
pub const OTHER_APP: &str = "c4015d69-09cd-476d-aace-ad2d824d5ab7";
/// A service instance.
pub const SERVICE: &str = "d5015d69-09cd-476d-aace-ad2d824d5ab7";
/// An app of somebody else.
pub const FOREIGN: &str = "e6015d69-09cd-476d-aace-ad2d824d5ab7";

/// The secret of the client `doppler`.
pub const SECRET: &str = "client:secret/of+doppler";

/// Both, until it is dropped.
///
/// # Panics
/// Every method panics when it cannot do what it is for.
pub struct Platform {
    /// Of both services and of whoever asks them.
    pub certs: TestCerts,
    /// Signs the tokens.
    pub issuer: TestIssuer,
    /// What the services look at.
    pub state: Arc<Shared>,
    addrs: Addrs,
    _stop: DropGuard,
}

struct Addrs {
    uaa: SocketAddr,
    internal: SocketAddr,
    api: SocketAddr,
}

/// What the services look at.
pub struct Shared {
    /// What they say.
    pub said: Mutex<Said>,
    /// What was asked, in order: service, path with its query, authorization.
    asked: Mutex<Vec<(&'static str, String, String)>>,
    /// How much each service was asked in all.
    noted: watch::Sender<BTreeMap<&'static str, usize>>,
    /// Cloud Controller answers while this is true.
    pub open: watch::Sender<bool>,
}

/// What they say.
#[derive(Default)]
pub struct Said {
    /// The keys that UAA publishes.
    pub keys: Vec<Value>,
    /// What UAA knows of tokens that it is asked about.
    pub tokens: BTreeMap<String, Value>,
    /// What each token reads, by its authorization as it is sent.
    pub apps: BTreeMap<String, BTreeSet<&'static str>>,
    /// The same of service instances.
    pub services: BTreeMap<String, BTreeSet<&'static str>>,
    /// The names of apps; one that is not here is called `a`.
    pub names: BTreeMap<&'static str, String>,
    /// A status instead of an answer of UAA.
    pub uaa: Option<StatusCode>,
    /// The same of Cloud Controller.
    pub cloud_controller: Option<StatusCode>,
    /// Resources on one page of a list; 0 is all.
    pub page: usize,
    /// A body instead of a list.
    pub list: Option<&'static str>,
}

impl Platform {
    /// Starts them on any free ports. Must be called within a tokio runtime.
    pub fn start() -> Self {
        let (certs, issuer) = (TestCerts::new(), TestIssuer::new("key-1"));
        let said = Mutex::new(Said { keys: vec![issuer.published()], ..Said::default() });
        let state = Arc::new(Shared {
            said,
            asked: Mutex::default(),
            noted: watch::Sender::default(),
            open: watch::Sender::new(true),
        });
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let serve = |security: Security, router: Router| {
            let listener = bind("test.platform", "127.0.0.1:0".parse().unwrap()).unwrap();
            let addr = listener.addr();
            let (tracker, stop) = (tracker.clone(), stop.clone());
            let incoming = listener.incoming(security, &tracker, stop.clone());
            tracker.clone().spawn(async move { serve_http(incoming, router, &tracker, &stop).await });
            addr
        };
        let with = |router: Router<Arc<Shared>>| router.with_state(Arc::clone(&state));
        let addrs = Addrs {
            uaa: serve(Security::Https(certs.server_identity("uaa")), with(Router::new().fallback(uaa))),
            internal: serve(
                Security::MutualTls(certs.identity("cloud-controller")),
                with(Router::new().fallback(internal)),
            ),
            api: serve(Security::Https(certs.server_identity("api")), with(Router::new().fallback(api))),
        };
        Self { certs, issuer, state, addrs, _stop: stop.drop_guard() }
    }

    /// The table of a configuration, with `more` of its keys.
    pub fn table(&self, more: &str) -> UaaConfig {
        let ours = self.certs.files("trafficcontroller");
        let secret = self.certs.dir().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let Addrs { uaa, internal, api } = &self.addrs;
        let (ca, cert, key) = (ours.ca.display(), ours.cert.display(), ours.key.display());
        let text = format!(
            "url = \"https://{uaa}\"\ntls = {{ ca = '{ca}' }}\nclient_id = \"doppler\"\n\
             client_secret_file = '{}'\n{more}\n\
             [cloud_controller]\nurl = \"https://{internal}\"\n\
             tls = {{ ca = '{ca}', cert = '{cert}', key = '{key}', server_name = \"cloud-controller\" }}\n\
             [api]\nurl = \"https://{api}\"\ntls = {{ ca = '{ca}' }}\n",
            secret.display()
        );
        toml::from_str(&text).unwrap()
    }

    /// The configuration of a traffic controller that asks them, with `more` keys of the table.
    pub fn config(&self, more: &str) -> Config {
        Config { authorizer: AuthorizerConfig::Uaa, uaa: Some(self.table(more)), ..Config::for_test() }
    }

    /// A signed token with `scopes` that lasts an hour. Two are never alike.
    pub fn token(&self, scopes: &[&str]) -> String {
        self.issuer.sign(&claims(scopes, Duration::from_secs(3600)))
    }

    /// A token that is only a name, with `scopes`.
    pub fn opaque(&self, name: &str, scopes: &[&str], lasts: Duration) -> String {
        self.state.said.lock().tokens.insert(name.to_owned(), claims(scopes, lasts));
        name.to_owned()
    }

    /// Lets whoever sends `authorization` read the app.
    pub fn allow(&self, authorization: &str, app: &'static str) {
        self.state.said.lock().apps.entry(authorization.to_owned()).or_default().insert(app);
    }

    /// The same with a service instance.
    pub fn allow_service(&self, authorization: &str, service: &'static str) {
        self.state.said.lock().services.entry(authorization.to_owned()).or_default().insert(service);
    }

    /// Gives the app a name.
    pub fn name(&self, app: &'static str, name: &str) {
        self.state.said.lock().names.insert(app, name.to_owned());
    }

    /// Takes back what [`allow`](Self::allow) gave.
    pub fn forbid(&self, authorization: &str, app: &'static str) {
        self.state.said.lock().apps.entry(authorization.to_owned()).or_default().remove(app);
    }

    /// The paths that `service` was asked for since the last time.
    pub fn asked(&self, service: &str) -> Vec<String> {
        let (taken, left) =
            std::mem::take(&mut *self.state.asked.lock()).into_iter().partition(|asked| asked.0 == service);
        *self.state.asked.lock() = left;
        let taken: Vec<(&str, String, String)> = taken;
        taken.into_iter().map(|(_, path, _)| path).collect()
    }

    /// Waits until `service` was asked `count` times more.
    pub async fn until_asked(&self, service: &str, count: usize) {
        let mut noted = self.state.noted.subscribe();
        let so_far = |noted: &BTreeMap<&str, usize>| noted.get(service).copied().unwrap_or_default();
        let goal = so_far(&noted.borrow()) + count;
        noted.wait_for(|noted| so_far(noted) >= goal).await.unwrap();
    }

    /// Every authorization that Cloud Controller saw.
    pub fn shown(&self) -> BTreeSet<String> {
        let asked = self.state.asked.lock();
        asked.iter().filter(|asked| asked.0 != "uaa").map(|(.., authorization)| authorization.clone()).collect()
    }
}

/// What a token says that ends after `lasts`.
pub fn claims(scopes: &[&str], lasts: Duration) -> Value {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lasts;
    json!({ "jti": format!("{id:032x}"), "scope": scopes, "exp": end.as_secs(), "client_id": "cf", "user_name": "me" })
}

impl Shared {
    fn note(&self, service: &'static str, request: &Request) -> String {
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let path = request.uri().path_and_query().unwrap().to_string();
        self.asked.lock().push((service, path, authorization.clone()));
        self.noted.send_modify(|noted| *noted.entry(service).or_default() += 1);
        authorization
    }
}

async fn uaa(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let basic = format!("Basic {}", STANDARD.encode(format!("doppler:{SECRET}")));
    let is_client = shared.note("uaa", &request) == basic;
    if let Some(status) = shared.said.lock().uaa {
        return (status, "<html>").into_response();
    }
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/token_keys") if is_client => {
            let keys = &shared.said.lock().keys;
            axum_json(StatusCode::OK, &json!({ "keys": keys }))
        }
        ("POST", "/check_token") if is_client => {
            let body = axum::body::to_bytes(request.into_body(), 64 * 1024).await.unwrap();
            let form = String::from_utf8(body.to_vec()).unwrap();
            let token = percent_encoding::percent_decode_str(form.strip_prefix("token=").unwrap());
            match shared.said.lock().tokens.get(&*token.decode_utf8().unwrap()) {
                Some(claims) => axum_json(StatusCode::OK, claims),
                None => axum_json(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_token" })),
            }
        }
        ("GET", "/token_keys") | ("POST", "/check_token") => {
            axum_json(StatusCode::UNAUTHORIZED, &json!({ "error": "unauthorized" }))
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn internal(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let authorization = shared.note("internal", &request);
    shared.open.subscribe().wait_for(|open| *open).await.unwrap();
    let said = shared.said.lock();
    let Some(guid) = request.uri().path().strip_prefix("/internal/v4/log_access/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if let Some(status) = said.cloud_controller {
        return (status, [(header::LOCATION, "/internal/v4/log_access/elsewhere")]).into_response();
    }
    match (said.apps.get(&authorization), said.services.get(&authorization)) {
        (None, None) => StatusCode::UNAUTHORIZED.into_response(),
        (Some(apps), _) if apps.contains(guid) => axum_json(StatusCode::OK, &json!({})),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn api(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let authorization = shared.note("api", &request);
    shared.open.subscribe().wait_for(|open| *open).await.unwrap();
    let said = shared.said.lock();
    if let Some(status) = said.cloud_controller {
        return status.into_response();
    }
    let (apps, services) = (said.apps.get(&authorization), said.services.get(&authorization));
    if apps.is_none() && services.is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let (list, of) = match path.strip_prefix("/v3/").unwrap_or_default() {
        "apps" => ("apps", apps),
        "service_instances" => ("service_instances", services),
        one => {
            let guid = one.strip_prefix("service_instances/").unwrap_or_default();
            let is_there = services.is_some_and(|services| services.contains(guid));
            return if is_there {
                axum_json(StatusCode::OK, &json!({}))
            } else {
                StatusCode::NOT_FOUND.into_response()
            };
        }
    };
    if let Some(body) = said.list {
        return body.into_response();
    }
    let Some(filter) = Filter::of(query) else { return StatusCode::BAD_REQUEST.into_response() };
    let name = |guid: &str| said.names.get(guid).map_or("a", String::as_str);
    let wanted = |guid: &&str| filter.names.as_ref().is_none_or(|names| names.iter().any(|one| one == name(guid)));
    let all: Vec<&str> = of.into_iter().flatten().copied().filter(wanted).collect();
    let page = filter.page;
    let size = if said.page == 0 { 5000 } else { said.page };
    let resources: Vec<Value> =
        all.iter().skip((page - 1) * size).take(size).map(|guid| json!({ "guid": guid, "name": name(guid) })).collect();
    let more = page * size < all.len();
    // Under the name that clients outside know, which leads nowhere.
    let href = format!("https://api.example.invalid/v3/{list}?page={}&per_page=5000", page + 1);
    let next = if more { json!({ "href": href }) } else { Value::Null };
    axum_json(StatusCode::OK, &json!({ "pagination": { "next": next }, "resources": resources }))
}

/// What a list is asked for.
struct Filter {
    page: usize,
    names: Option<Vec<String>>,
}

impl Filter {
    /// `None` for what Cloud Controller refuses: a parameter that it does not know, or one that comes twice.
    fn of(query: &str) -> Option<Self> {
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
        let (mut filter, mut seen) = (Self { page: 1, names: None }, BTreeSet::new());
        for (key, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match key {
                _ if !seen.insert(key) => return None,
                "page" => filter.page = value.parse().ok()?,
                "per_page" => {}
                // A list of names, each of which may be escaped in it once more.
                "names" => filter.names = Some(decoded(value).split(',').map(decoded).collect()),
                _ => return None,
            }
        }
        Some(filter)
    }
}

fn axum_json(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
