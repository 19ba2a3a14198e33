//! A pipeline for each authorizer, those who call it, and lines of sources that some of them may not read.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hydrant::Up;
use proto::v2::Envelope;
use serde_json::json;
use tempfile::TempDir;
use traffic_controller::test_platform::{APP, FOREIGN, OTHER_APP, Platform, claims};
use traffic_controller::test_provider::Provider;
use traffic_controller::{TestIssuer, token_sha256};

use crate::harness::{Producer, get, pipeline};

/// What the reader reads, and a source that is not there.
pub(crate) const OWN: &str = APP;
pub(crate) const NOBODY: &str = "f7015d69-09cd-476d-aace-ad2d824d5ab7";

/// Stands in everything that a foreign envelope holds beside its source.
const CANARY: &str = "canary-payloads";

/// Who may read what, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Tokens,
    Uaa,
    Jwks,
}

pub(crate) const ALL: [By; 3] = [By::Tokens, By::Uaa, By::Jwks];

/// The tokens of the callers.
pub(crate) struct Shown {
    pub(crate) unknown: String,
    pub(crate) expired: String,
    pub(crate) elsewhere: String,
    pub(crate) reader: String,
    pub(crate) pattern: String,
    pub(crate) admin: String,
}

/// Who says what tokens read.
pub(crate) struct Authority {
    pub(crate) by: By,
    pub(crate) shown: Shown,
    pub(crate) platform: Platform,
    pub(crate) provider: Provider,
    dir: TempDir,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Nobody,
    Unknown,
    Expired,
    Elsewhere,
    Reader,
    Pattern,
    Admin,
    /// The reader's browser, from a page of this server.
    Cookie,
    /// The reader's browser, from a page of somebody else.
    CrossSite,
}

pub(crate) const CALLERS: [Caller; 9] = [
    Caller::Nobody,
    Caller::Unknown,
    Caller::Expired,
    Caller::Elsewhere,
    Caller::Reader,
    Caller::Pattern,
    Caller::Admin,
    Caller::Cookie,
    Caller::CrossSite,
];

pub(crate) type Headers = Vec<(&'static str, String)>;

/// A token in the file of `authorizer = "tokens"`.
fn entry(name: &str, token: &str, more: &str) -> String {
    format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", token_sha256(token.as_bytes()))
}

impl Authority {
    /// Makes everything that has to be asked.
    pub(crate) fn new(by: By) -> Self {
        transport::install_crypto_provider();
        let (platform, provider) = (Platform::start(), Provider::start(false));
        let signed = |more| provider.token(&more);
        let everything = &["doppler.firehose"][..];
        let shown = match by {
            By::Tokens => Shown {
                unknown: "hyUnknownTokenOfThisTest".to_owned(),
                expired: "hyExpiredTokenOfThisTest".to_owned(),
                elsewhere: TestIssuer::new("key-1").sign(&claims(everything, Duration::from_secs(600))),
                reader: "hyReaderTokenOfThisTest".to_owned(),
                pattern: "hyPatternTokenOfThisTest".to_owned(),
                admin: "hyAdminTokenOfThisTest".to_owned(),
            },
            By::Uaa => Shown {
                unknown: "hyUnknownTokenOfThisTest".to_owned(),
                expired: platform.issuer.sign(&claims(everything, Duration::ZERO)),
                elsewhere: TestIssuer::new("key-1").sign(&claims(everything, Duration::from_secs(600))),
                reader: platform.token(&["cloud_controller.read"]),
                pattern: platform.token(&["cloud_controller.read"]),
                admin: platform.token(everything),
            },
            By::Jwks => Shown {
                unknown: "hyUnknownTokenOfThisTest".to_owned(),
                expired: signed(json!({ "exp": 1, "scope": "firehose" })),
                elsewhere: signed(json!({ "aud": "another", "scope": "firehose" })),
                reader: signed(json!({ "sources": [OWN] })),
                pattern: signed(json!({ "sources": ["b3015d69-*", "c4*d5ab7"] })),
                admin: signed(json!({ "scope": "firehose" })),
            },
        };
        for (token, app) in [(&shown.reader, OWN), (&shown.pattern, OWN), (&shown.pattern, OTHER_APP)] {
            platform.allow(&format!("bearer {token}"), app);
        }
        let authority = Self { by, shown, platform, provider, dir: tempfile::tempdir().unwrap() };
        authority.write_tokens(true);
        authority
    }

    /// Writes the file of tokens, with the reader's or without it.
    pub(crate) fn write_tokens(&self, reader: bool) {
        let Shown { expired, pattern, admin, .. } = &self.shown;
        let mut text = entry("pattern", pattern, "sources = [\"b3015d69-*\", \"c4*d5ab7\"]");
        text += &entry("admin", admin, "scopes = [\"firehose\"]");
        text += &entry("expired", expired, "scopes = [\"firehose\"]\nexpires = 2001-01-01T00:00:00Z");
        if reader {
            text += &entry("reader", &self.shown.reader, &format!("sources = [\"{OWN}\"]"));
        }
        std::fs::write(self.tokens(), text).unwrap();
    }

    fn tokens(&self) -> PathBuf {
        self.dir.path().join("tokens.toml")
    }

    /// For files that a test makes beside.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The keys of the pipeline's configuration, with `more` of the authorizer's own.
    pub(crate) fn config(&self, more: &str) -> String {
        let (name, key, value) = match self.by {
            By::Tokens => ("tokens", "tokens", toml::Value::from(self.tokens().to_str().unwrap())),
            By::Uaa => {
                let often = "caller_lookups_per_second = 100000\n";
                let often = if more.contains("lookups") { "" } else { often };
                ("uaa", "uaa", toml::Value::try_from(self.platform.table(&format!("{often}{more}"))).unwrap())
            }
            By::Jwks => ("jwks", "jwks", toml::Value::try_from(self.provider.table(more)).unwrap()),
        };
        format!("traffic_controller.authorizer = \"{name}\"\ntraffic_controller.{key} = {value}\n")
    }

    /// What `caller` sends to the server at `addr`.
    pub(crate) fn headers(&self, caller: Caller, addr: SocketAddr) -> Headers {
        let Shown { unknown, expired, elsewhere, reader, pattern, admin } = &self.shown;
        let token = match caller {
            Caller::Nobody => return Vec::new(),
            Caller::Unknown => unknown,
            Caller::Expired => expired,
            Caller::Elsewhere => elsewhere,
            Caller::Reader => reader,
            Caller::Pattern => pattern,
            Caller::Admin => admin,
            Caller::Cookie | Caller::CrossSite => {
                let origin =
                    if caller == Caller::Cookie { format!("http://{addr}") } else { "https://evil.example".to_owned() };
                return vec![("cookie", format!("a=b; authorization=bearer%20{reader}")), ("origin", origin)];
            }
        };
        vec![("authorization", format!("bearer {token}"))]
    }
}

/// A pipeline that asks its callers, with lines of four sources in its cache.
pub(crate) struct Bed {
    pub(crate) up: Up,
    pub(crate) authority: Authority,
    pub(crate) producer: Producer,
}

impl Bed {
    pub(crate) async fn new(by: By) -> Self {
        Self::with(by, "", "").await
    }

    /// With `more` keys of the authorizer, and of the pipeline.
    pub(crate) async fn with(by: By, more: &str, pipeline_more: &str) -> Self {
        let authority = Authority::new(by);
        let up = pipeline(&format!("{}{pipeline_more}", authority.config(more))).await;
        ready(up.traffic_controller().admin).await;
        let mut producer = Producer::connect(up.agent().grpc).await;
        let mut lines: Vec<Envelope> = [OWN, OTHER_APP].map(|source| Envelope::log(source, "a line").at(5)).into();
        lines.extend(foreign());
        assert!(producer.send(lines).await);
        producer.settled().await;
        Self { up, authority, producer }
    }

    pub(crate) fn headers(&self, caller: Caller) -> Headers {
        self.authority.headers(caller, self.up.traffic_controller().http)
    }
}

/// Awaits that a role can tell who somebody is.
pub(crate) async fn ready(admin: SocketAddr) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    while get(admin, "/ready").await.status != 200 {
        look.tick().await;
    }
}

/// What somebody else's app says, in every form.
pub(crate) fn foreign() -> Vec<Envelope> {
    let mut all = vec![
        Envelope::log(FOREIGN, format!("{CANARY} of a line")),
        Envelope::event(FOREIGN, CANARY, CANARY),
        Envelope::counter(FOREIGN, CANARY, 1),
        Envelope::gauge(FOREIGN, CANARY, 1.0, CANARY),
        Envelope::timer(FOREIGN, CANARY, 1, 2),
    ];
    all = all.into_iter().map(|envelope| envelope.at(6).instance(CANARY).tag(CANARY, CANARY)).collect();
    all
}

/// What of a foreign source is in `bytes`, as it is or in base64.
pub(crate) fn leaked(bytes: &[u8]) -> Option<&'static str> {
    let has = |bytes: &[u8], what: &str| bytes.windows(what.len()).any(|window| window == what.as_bytes());
    let plain = |bytes: &[u8]| ["canary", FOREIGN].into_iter().find(|what| has(bytes, what));
    if let Some(what) = plain(bytes) {
        return Some(what);
    }
    if has(bytes, &STANDARD.encode(CANARY)) {
        return Some("the payload in base64");
    }
    let words = bytes.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-' && *byte != b'_');
    words
        .filter(|word| word.len() >= 16)
        .filter_map(|word| URL_SAFE_NO_PAD.decode(word).ok())
        .find_map(|word| plain(&word))
}
