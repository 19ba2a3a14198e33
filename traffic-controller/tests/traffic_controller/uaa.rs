//! Tokens of a UAA at every endpoint: who reads what, in the statuses of each contract. What nobody but Cloud Controller knows comes
//! from the one that is made for tests.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use proto::hydrant::v1::follow_client::FollowClient;
use proto::v2::Envelope;
use proto::v2::egress_client::EgressClient;
use telemetry::Telemetry;
use tonic::transport::Channel;
use traffic_controller::test_platform::{APP, FOREIGN, OTHER_APP, Platform, SECRET, SERVICE, claims};
use traffic_controller::{Handle, TestIssuer};
use transport::{ChannelOptions, channel};

use crate::auth::{batched, follow, outcome, request, rest, without_certificate};
use crate::cache::Cache;
use crate::doppler::Doppler;
use crate::firehose::open;
use crate::http::ask;

/// A traffic controller that asks the platform, with lines of four sources.
pub(crate) struct Bed {
    pub(crate) platform: Platform,
    pub(crate) controller: Handle,
    pub(crate) telemetry: Telemetry,
    _doppler: Doppler,
    _cache: Cache,
}

impl Bed {
    pub(crate) async fn new(more: &str) -> Self {
        Self::on(Platform::start(), more).await
    }

    pub(crate) async fn on(platform: Platform, more: &str) -> Self {
        let cache = Cache::start();
        cache.put([APP, OTHER_APP, SERVICE, FOREIGN, "my-app"].map(|source| Envelope::log(source, "a line").at(1)));
        Self::over(cache, platform, more).await
    }

    /// The same with what a cache holds already.
    pub(crate) async fn over(cache: Cache, platform: Platform, more: &str) -> Self {
        let (doppler, telemetry) = (Doppler::start(), Telemetry::default());
        let config = platform.config(more).dopplers([doppler.addr, cache.addr]);
        let controller = config.bind(&telemetry).await.unwrap().spawn();
        Self { platform, controller, telemetry, _doppler: doppler, _cache: cache }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.controller.addrs().http
    }

    pub(crate) fn grpc(&self) -> Channel {
        channel(&self.controller.addrs().grpc.into(), &ChannelOptions::default())
    }

    /// The status, whether there is a challenge, and the body of what is no WebSocket: authorized, it is 400.
    pub(crate) async fn v1(&self, path: &str, token: Option<&str>) -> (u16, bool, String) {
        let header = token.map(|token| format!("bearer {token}"));
        let headers: Vec<(&str, &str)> = header.iter().map(|header| ("Authorization", header.as_str())).collect();
        let answer = rest(self.http(), path, &headers).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase().contains("www-authenticate: basic\r\n"), body.to_owned())
    }

    pub(crate) async fn stream(&self, guid: &str, token: &str) -> u16 {
        self.v1(&format!("/apps/{guid}/stream"), Some(token)).await.0
    }

    pub(crate) async fn read(&self, target: &str, token: &str) -> String {
        rest(self.controller.addrs().rest, target, &[("Authorization", &format!("bearer {token}"))]).await
    }

    pub(crate) async fn subscribe(&self, sources: &[&str], token: &str) -> String {
        outcome(EgressClient::new(self.grpc()).batched_receiver(request(batched(sources), Some(token))).await)
    }

    pub(crate) fn count(&self, sample: &str) -> u64 {
        let text = self.telemetry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{sample} in {text}")).parse().unwrap()
    }
}

const NOT_PROVIDED: &str = "You are not authorized. authorization not provided";
const INVALID: &str = "You are not authorized. invalid authorization";

#[tokio::test]
async fn v1_2_1_firehose() {
    let bed = Bed::new("").await;
    let platform = &bed.platform;
    let refused = (401, true, INVALID.to_owned());
    let firehose = async |token: &str| bed.v1("/firehose/x", Some(token)).await;
    assert_eq!(bed.v1("/firehose/x", None).await, (401, true, NOT_PROVIDED.to_owned()));
    assert_eq!(firehose(&platform.token(&["doppler.firehose"])).await.0, 400);
    for scopes in [&[][..], &["logs.admin"], &["doppler.firehose.x"], &["doppler.firehose doppler.firehose"]] {
        assert_eq!(firehose(&platform.token(scopes)).await, refused, "{scopes:?}");
    }
    let ended = platform.issuer.sign(&claims(&["doppler.firehose"], Duration::ZERO));
    let strange = TestIssuer::new("key-1").sign(&claims(&["doppler.firehose"], Duration::from_secs(60)));
    let mut refresh = claims(&["doppler.firehose"], Duration::from_secs(60));
    refresh["jti"] = "0123-r".into();
    let refresh = platform.issuer.sign(&refresh);
    for token in [ended.as_str(), &strange, &refresh, "unknown", "a.b.c"] {
        assert_eq!(firehose(token).await, refused, "{token}");
    }
    // Asked about, a token is as good as a signed one.
    let lasts = Duration::from_secs(60);
    assert_eq!(firehose(&platform.opaque("named", &["doppler.firehose"], lasts)).await.0, 400);
    assert_eq!(firehose(&platform.opaque("admin", &["logs.admin"], lasts)).await, refused);
    for status in [401, 404, 500, 503].map(|status| StatusCode::from_u16(status).unwrap()) {
        platform.state.said.lock().uaa = Some(status);
        assert_eq!(firehose("another").await, refused, "{status}");
    }
    assert!(platform.asked("internal").is_empty() && platform.asked("api").is_empty());
    let header = format!("BEARER {}", platform.token(&["doppler.firehose"]));
    open(bed.http(), "/firehose/x", &[("authorization", &header)]).await.unwrap();
}

#[tokio::test]
async fn v1_2_2_app_stream() {
    let bed = Bed::new("").await;
    let platform = &bed.platform;
    let token = platform.token(&["cloud_controller.read"]);
    let authorization = format!("bearer {token}");
    platform.allow(&authorization, APP);
    platform.allow_service(&format!("Bearer {token}"), SERVICE);
    let stream = async |guid: &str, token: Option<&str>| bed.v1(&format!("/apps/{guid}/stream"), token).await;
    let answer = |status, challenge| (status, challenge, String::new());
    let no_guids =
        ["my-app", "b3015d69-09cd-476d-aace-ad2d824d5ab", "..%2F..%2Finfo", "b3015d69-09cd-476d-aace-ad2d824d5ab7%2Fx"];
    for id in no_guids {
        for token in [None, Some(token.as_str()), Some("unknown")] {
            assert_eq!(stream(id, token).await, answer(401, false), "{id}");
        }
    }
    assert!(platform.asked("internal").is_empty(), "what is no GUID is not asked about");
    assert_eq!(stream(APP, None).await, answer(401, true));
    assert_eq!(stream(APP, Some(&token)).await.0, 400);
    assert_eq!(platform.shown().into_iter().collect::<Vec<_>>(), [authorization.as_str()]);
    assert_eq!(platform.asked("internal"), [format!("/internal/v4/log_access/{APP}")]);
    let cloud_controller = |status: u16| {
        platform.state.said.lock().cloud_controller = Some(StatusCode::from_u16(status).unwrap());
    };
    for (status, expected) in [
        (401, answer(401, true)),
        (403, answer(404, false)),
        (404, answer(404, false)),
        (500, answer(500, false)),
        (503, answer(500, false)),
        (302, answer(500, false)),
        (204, answer(500, false)),
    ] {
        cloud_controller(status);
        assert_eq!(stream(OTHER_APP, Some(&token)).await, expected, "{status}");
    }
    assert_eq!(platform.asked("internal").len(), 7, "no redirect is followed");
    assert!(platform.asked("api").is_empty(), "a service instance has no app stream");
    platform.state.said.lock().cloud_controller = None;
    assert_eq!(bed.subscribe(&[SERVICE], &token).await, "OK");
    assert_eq!(stream(SERVICE, Some(&token)).await, answer(404, false), "also when it is known to be readable");
    let admin = platform.token(&["logs.admin"]);
    platform.asked("internal");
    assert_eq!(stream(FOREIGN, Some(&admin)).await.0, 400);
    assert!(platform.asked("internal").is_empty(), "nobody is asked about whoever reads everything");
    // As it was sent, whatever its form; a cookie in a browser's.
    platform.allow(&format!("BeArEr  {token}"), APP);
    let upper = APP.to_ascii_uppercase();
    let path = format!("/apps/{upper}/stream");
    let header = [("authorization", format!("BeArEr  {token}"))];
    let header: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(open(bed.http(), &path, &header).await.unwrap_err(), 404, "Cloud Controller decides on the id as it is");
    assert!(platform.shown().contains(&format!("BeArEr  {token}")));
    let cookie = format!("authorization=bearer+{token}");
    open(bed.http(), &format!("/apps/{APP}/stream"), &[("cookie", &cookie)]).await.unwrap();
}

/// The gateway's rules, as every endpoint has them that is neither a v1 stream nor the log cache.
#[tokio::test]
async fn gateway_12_2() {
    let bed = Bed::new("").await;
    let platform = &bed.platform;
    for scope in ["doppler.firehose", "logs.admin"] {
        let token = platform.token(&[scope]);
        for sources in [&[""][..], &["my-app"], &[FOREIGN, ""]] {
            assert_eq!(bed.subscribe(sources, &token).await, "OK", "{scope} {sources:?}");
        }
        let followed = FollowClient::new(bed.grpc()).follow(request(follow(&[FOREIGN]), Some(&token))).await;
        assert_eq!(outcome(followed), "OK");
    }
    assert!(platform.asked("internal").is_empty(), "nobody is asked about an admin");

    let token = platform.token(&["cloud_controller.read"]);
    let authorization = format!("Bearer {token}");
    platform.allow(&authorization, APP);
    platform.allow_service(&authorization, SERVICE);
    for (sources, expected) in [
        (&[APP][..], "OK"),
        (&[SERVICE], "OK"),
        (&[APP, SERVICE], "OK"),
        (&[""], "PermissionDenied"),
        (&[APP, ""], "PermissionDenied"),
        (&[FOREIGN], "PermissionDenied"),
        (&[APP, FOREIGN], "PermissionDenied"),
        (&["my-app"], "PermissionDenied"),
        (&["../v3/info"], "PermissionDenied"),
    ] {
        assert_eq!(bed.subscribe(sources, &token).await, expected, "{sources:?}");
        if sources != [""] && !sources.contains(&"") {
            let followed = FollowClient::new(bed.grpc()).follow(request(follow(sources), Some(&token))).await;
            assert_eq!(outcome(followed), expected, "{sources:?}");
        }
    }
    let asked = platform.asked("internal");
    assert!(asked.iter().all(|path| path.ends_with("ab7")), "{asked:?}");
    let service = format!("/v3/service_instances/{SERVICE}");
    assert!(asked.contains(&format!("/internal/v4/log_access/{SERVICE}")) && platform.asked("api").contains(&service));
    assert_eq!(bed.subscribe(&[APP], "unknown").await, "Unauthenticated");
    let strange = platform.token(&["cloud_controller.read"]);
    assert_eq!(bed.subscribe(&[APP], &strange).await, "Unauthenticated", "Cloud Controller does not take it");
    platform.state.said.lock().cloud_controller = Some(StatusCode::BAD_GATEWAY);
    assert_eq!(bed.subscribe(&[OTHER_APP], &token).await, "Unavailable");
    platform.state.said.lock().uaa = Some(StatusCode::BAD_GATEWAY);
    assert_eq!(bed.subscribe(&[APP], "another").await, "Unavailable");
}

#[tokio::test]
async fn log_cache_6() {
    let bed = Bed::new("").await;
    let platform = &bed.platform;
    let status = |answer: &str| answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
    let read = async |source: &str, token: &str| status(&bed.read(&format!("/api/v1/read/{source}"), token).await);
    for scope in ["doppler.firehose", "logs.admin"] {
        let token = platform.token(&[scope]);
        assert_eq!((read(FOREIGN, &token).await, read("my-app", &token).await), (200, 200));
        let meta = bed.read("/api/v1/meta", &token).await;
        assert!([APP, FOREIGN, "my-app"].iter().all(|source| meta.contains(source)), "{meta}");
    }
    let token = platform.token(&["cloud_controller.read"]);
    let authorization = format!("bearer {token}");
    platform.allow(&authorization, APP);
    platform.allow(&authorization, OTHER_APP);
    platform.allow_service(&authorization, SERVICE);
    for (source, expected) in
        [(APP, 200), (SERVICE, 200), (FOREIGN, 404), ("my-app", 404), ("..%2F..%2Fv3%2Finfo", 404)]
    {
        assert_eq!(read(source, &token).await, expected, "{source}");
    }
    for token in ["unknown", "a.b.c", &platform.issuer.sign(&claims(&["logs.admin"], Duration::ZERO))] {
        let answer = bed.read(&format!("/api/v1/read/{APP}"), token).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert!(ask(bed.controller.addrs().rest, "GET", "/api/v1/meta", &[]).await.starts_with("HTTP/1.1 404 "));
    platform.asked("api");

    // One app a page: the second leads to another host by its name, and is asked for here all the same.
    platform.state.said.lock().page = 1;
    let meta = bed.read("/api/v1/meta", &token).await;
    assert!([APP, OTHER_APP, SERVICE].iter().all(|source| meta.contains(source)), "{meta}");
    assert!(!meta.contains(FOREIGN) && !meta.contains("my-app"), "{meta}");
    let pages = ["/v3/apps?per_page=5000", "/v3/apps?page=2&per_page=5000", "/v3/service_instances?per_page=5000"];
    assert_eq!(platform.asked("api"), pages);
    let empty = async || {
        let meta = bed.read("/api/v1/meta", &token).await;
        assert!(meta.starts_with("HTTP/1.1 200 ") && meta.contains("\"meta\":{}"), "{meta}");
    };
    for list in
        ["", "[]", "{}", "<html>", r#"{"pagination":{"next":{"href":"https://x/v3/users?page=2"}},"resources":[]}"#]
    {
        platform.state.said.lock().list = Some(list);
        empty().await;
    }
    // A list without an end.
    let again = r#"{"pagination":{"next":{"href":"https://x/v3/apps?page=2"}},"resources":[]}"#;
    platform.state.said.lock().list = Some(again);
    platform.asked("api");
    empty().await;
    assert!(platform.asked("api").len() <= 100);
    platform.state.said.lock().list = None;
    platform.state.said.lock().cloud_controller = Some(StatusCode::INTERNAL_SERVER_ERROR);
    empty().await;
}

#[tokio::test]
async fn on_grpc_a_certificate_is_enough_and_who_has_none_needs_a_token() {
    let platform = Platform::start();
    let mut config = platform.config("");
    config.grpc.tls = Some(platform.certs.files("reverselogproxy"));
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let addr = controller.addrs().grpc;
    let known = channel(&addr.into(), &ChannelOptions::tls(platform.certs.identity("nozzle"), "reverselogproxy"));
    let unknown = without_certificate(addr, &platform.certs.files("x")).await;
    let ask = async |channel: &Channel, token| {
        outcome(EgressClient::new(channel.clone()).batched_receiver(request(batched(&[""]), token)).await)
    };
    let (admin, other) = (platform.token(&["logs.admin"]), platform.token(&[]));
    assert_eq!(ask(&known, None).await, "OK");
    assert_eq!(ask(&known, Some(other.as_str())).await, "PermissionDenied");
    assert_eq!(ask(&unknown, None).await, "Unauthenticated");
    assert_eq!(ask(&unknown, Some(other.as_str())).await, "PermissionDenied");
    assert_eq!(ask(&unknown, Some(admin.as_str())).await, "OK");
}

#[tokio::test]
async fn what_is_secret_is_shown_nowhere() {
    let bed = Bed::new("").await;
    let token = bed.platform.token(&["logs.admin"]);
    assert_eq!(bed.subscribe(&[""], &token).await, "OK");
    let table = bed.platform.table("");
    let config = bed.platform.config("");
    for text in [bed.telemetry.render(), format!("{table:?}"), format!("{config:?}"), toml::to_string(&table).unwrap()]
    {
        assert!(!text.contains(SECRET) && !text.contains(&token), "{text}");
    }
    let given = r#"url = "https://uaa"
        client_id = "doppler"
        client_secret = "canary"
        cloud_controller = { url = "https://cc:9023" }
        api = { url = "https://api" }"#;
    let given: traffic_controller::UaaConfig = toml::from_str(given).unwrap();
    assert!(!format!("{given:?}").contains("canary") && !toml::to_string(&given).unwrap().contains("canary"));
}
