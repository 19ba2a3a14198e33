//! Tokens of an OpenID provider, which is made for the tests.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use proto::v2::Envelope;
use proto::v2::egress_client::EgressClient;
use serde_json::{Value, json};
use telemetry::Telemetry;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use traffic_controller::test_provider::{DISCOVERY, Provider};
use traffic_controller::{Config, Handle, TestIssuer};
use transport::{ChannelOptions, channel};

use crate::auth::{batched, outcome, request, rest};
use crate::cache::Cache;
use crate::firehose::open;

struct Bed {
    controller: Handle,
    telemetry: Telemetry,
    _cache: Cache,
}

impl Bed {
    async fn new(config: Config) -> Self {
        let (cache, telemetry) = (Cache::start(), Telemetry::default());
        cache.put(["my-app", "shop-1", "foreign"].map(|source| Envelope::log(source, "a line").at(1)));
        let controller = config.dopplers([cache.addr]).bind(&telemetry).await.unwrap().spawn();
        Self { controller, telemetry, _cache: cache }
    }

    fn http(&self) -> SocketAddr {
        self.controller.addrs().http
    }

    async fn subscribe(&self, sources: &[&str], token: &str) -> String {
        let grpc = channel(&self.controller.addrs().grpc.into(), &ChannelOptions::default());
        outcome(EgressClient::new(grpc).batched_receiver(request(batched(sources), Some(token))).await)
    }

    async fn read(&self, target: &str, token: &str) -> String {
        rest(self.controller.addrs().rest, target, &[("Authorization", &format!("Bearer {token}"))]).await
    }
}

#[tokio::test]
async fn a_token_reads_what_its_claims_say_at_every_endpoint() {
    for tls in [false, true] {
        let provider = Provider::start(tls);
        let bed = Bed::new(provider.config("")).await;
        let own = provider.token(&json!({ "sources": ["my-app", "shop-*"] }));
        for (sources, expected) in [
            (&["my-app"][..], "OK"),
            (&["my-app", "shop-9"], "OK"),
            (&["foreign"], "PermissionDenied"),
            (&["my-app", "foreign"], "PermissionDenied"),
            (&[""], "PermissionDenied"),
        ] {
            assert_eq!(bed.subscribe(sources, &own).await, expected, "{sources:?}");
        }
        let header = [("authorization", own.as_str())];
        open(bed.http(), "/apps/my-app/stream", &header).await.unwrap();
        assert_eq!(open(bed.http(), "/apps/foreign/stream", &header).await.unwrap_err(), 404);
        assert_eq!(open(bed.http(), "/firehose/x", &header).await.unwrap_err(), 401);
        assert!(bed.read("/api/v1/read/shop-1", &own).await.starts_with("HTTP/1.1 200 "));
        assert!(bed.read("/api/v1/read/foreign", &own).await.starts_with("HTTP/1.1 404 "));
        let meta = bed.read("/api/v1/meta", &own).await;
        assert!(meta.contains("my-app") && meta.contains("shop-1") && !meta.contains("foreign"), "{meta}");

        for scope in [json!("openid firehose"), json!(["openid", "firehose"])] {
            let admin = provider.token(&json!({ "scope": scope }));
            assert_eq!(bed.subscribe(&[""], &admin).await, "OK");
            open(bed.http(), "/firehose/x", &[("authorization", admin.as_str())]).await.unwrap();
            assert!(bed.read("/api/v1/meta", &admin).await.contains("foreign"));
        }
        let idle = provider.token(&json!({ "scope": "openid", "sources": "my-app2" }));
        assert_eq!(bed.subscribe(&["my-app"], &idle).await, "PermissionDenied");
        let ready = crate::http::ask(bed.controller.addrs().admin, "GET", "/ready", &[]).await;
        assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    }
}

#[tokio::test]
async fn a_token_for_somebody_else_or_another_time_is_none() {
    let provider = Provider::start(false);
    let bed = Bed::new(provider.config("leeway = \"5s\"")).await;
    let with = |more: Value| {
        let mut all = json!({ "sources": ["*"], "scope": "firehose" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        provider.token(&all)
    };
    let seconds = |distance: i64| {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + distance
    };
    for right in
        [json!({}), json!({ "aud": ["x", "hydrant"] }), json!({ "nbf": seconds(3) }), json!({ "exp": seconds(-1) })]
    {
        assert_eq!(bed.subscribe(&[""], &with(right.clone())).await, "OK", "{right}");
    }
    let many: Vec<String> = (0..1001).map(|i| format!("app-{i}")).collect();
    for wrong in [
        json!({ "iss": format!("{}/", provider.url) }),
        json!({ "iss": "https://evil.example" }),
        json!({ "iss": null }),
        json!({ "aud": "hydrant2" }),
        json!({ "aud": ["x"] }),
        json!({ "aud": null }),
        json!({ "exp": seconds(-6) }),
        json!({ "exp": null }),
        json!({ "exp": "9999999999" }),
        json!({ "nbf": seconds(60) }),
        json!({ "sources": many }),
    ] {
        assert_eq!(bed.subscribe(&["my-app"], &with(wrong.clone())).await, "Unauthenticated", "{wrong}");
    }
    let stranger = TestIssuer::new("key-1").sign(&provider.claims(&json!({ "scope": "firehose" })));
    for token in [stranger.as_str(), "opaque", "a.b.c"] {
        assert_eq!(bed.subscribe(&["my-app"], token).await, "Unauthenticated", "{token}");
    }
}

#[tokio::test]
async fn names_of_claims_and_scopes_are_configured() {
    let provider = Provider::start(false);
    let more = "scopes_claim = \"roles\"\nfirehose_scopes = [\"log-reader\", \"admin\"]\nsources_claim = \"apps\"";
    let bed = Bed::new(provider.config(more)).await;
    let token = |more: Value| provider.token(&more);
    assert_eq!(bed.subscribe(&[""], &token(json!({ "roles": ["admin"] }))).await, "OK");
    assert_eq!(
        bed.subscribe(&[""], &token(json!({ "roles": ["firehose"], "scope": "admin" }))).await,
        "PermissionDenied"
    );
    assert_eq!(bed.subscribe(&["a"], &token(json!({ "apps": "a b" }))).await, "OK");
    assert_eq!(bed.subscribe(&["a"], &token(json!({ "sources": "a b" }))).await, "PermissionDenied");
}

#[tokio::test]
async fn open_streams_end_with_their_token_and_not_with_the_provider() {
    let provider = Provider::start(false);
    let bed = Bed::new(provider.config("leeway = \"1s\"")).await;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(2);
    let token = provider.token(&json!({ "exp": end.as_secs(), "sources": ["my-app"] }));
    let mut socket = open(bed.http(), "/apps/my-app/stream", &[("authorization", &token)]).await.unwrap();
    provider.answers.lock().clear();
    assert_eq!(bed.subscribe(&["my-app"], &token).await, "OK", "its key is known");
    let frame = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => break frame,
            _ping => {}
        }
    };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Policy, "authorization expired"));
    assert_eq!(bed.subscribe(&["my-app"], &token).await, "Unauthenticated");
}

#[tokio::test]
async fn keys_come_from_where_the_issuer_or_the_configuration_says_and_from_nowhere_else() {
    let provider = Provider::start(true);
    let token = provider.token(&json!({ "scope": "firehose" }));
    let keys = provider.url.replace("/realms/a", "/direct");
    provider.answer("/direct", &json!({ "keys": [provider.issuer.published()] }));
    let origin = provider.url.strip_suffix("/realms/a").unwrap().to_owned();
    for document in [
        json!({ "issuer": "https://evil.example", "jwks_uri": format!("{origin}/keys?of=a") }),
        json!({ "issuer": provider.url, "jwks_uri": "http://192.0.2.1/keys" }),
        json!({ "issuer": provider.url, "jwks_uri": "ftp://127.0.0.1/keys" }),
        json!({ "issuer": provider.url, "jwks_uri": format!("{origin}/nothing") }),
        json!({ "issuer": provider.url }),
        json!("<html>"),
    ] {
        provider.answer(DISCOVERY, &document);
        let bed = Bed::new(provider.config("")).await;
        assert_eq!(bed.subscribe(&[""], &token).await, "Unavailable", "{document}");
        assert!(bed.telemetry.render().contains("hydrant_auth_key_fetches_total{outcome=\"failed\"} 1\n"));
        let bed = Bed::new(provider.config(&format!("jwks_url = \"{keys}\""))).await;
        assert_eq!(bed.subscribe(&[""], &token).await, "OK", "it is not asked where they are");
    }
}
