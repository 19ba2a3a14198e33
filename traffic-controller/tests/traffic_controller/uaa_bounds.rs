//! What holds when much is asked for, when answers grow old, and when nobody answers.

use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use proto::v2::egress_client::EgressClient;
use telemetry::Telemetry;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tonic::Code;
use traffic_controller::TestIssuer;
use traffic_controller::test_platform::{APP, FOREIGN, OTHER_APP, Platform, claims};

use crate::auth::{batched, request};
use crate::firehose::{Client, open};
use crate::uaa::Bed;

const HOUR: Duration = Duration::from_secs(3600);

/// Why the server closes the stream.
async fn close(client: &mut Client) -> (CloseCode, String) {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Close(Some(frame)) => return (frame.code, frame.reason.to_string()),
            _ping => {}
        }
    }
}

fn expired() -> (CloseCode, String) {
    (CloseCode::Policy, "authorization expired".to_owned())
}

#[tokio::test]
async fn open_streams_end_with_their_token() {
    let bed = Bed::new("").await;
    let token = bed.platform.issuer.sign(&claims(&["doppler.firehose"], Duration::from_secs(3)));
    let authorization = format!("bearer {token}");
    let mut socket = open(bed.http(), "/firehose/x", &[("authorization", &authorization)]).await.unwrap();
    let lasting = format!("bearer {}", bed.platform.token(&["doppler.firehose"]));
    let mut kept = open(bed.http(), "/firehose/y", &[("authorization", &lasting)]).await.unwrap();
    let mut egress = EgressClient::new(bed.grpc());
    let mut stream = egress.batched_receiver(request(batched(&[""]), Some(&token))).await.unwrap().into_inner();
    assert_eq!(close(&mut socket).await, expired());
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "authorization expired"));
    assert_eq!(bed.v1("/firehose/x", Some(&token)).await.0, 401);
    kept.close(None).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_asked_about_lives_as_long_as_uaa_says() {
    let bed = Bed::new("check_token = true").await;
    let platform = &bed.platform;
    platform.opaque("short", &["doppler.firehose"], Duration::from_secs(2));
    let mut socket = open(bed.http(), "/firehose/x", &[("authorization", "short")]).await.unwrap();
    platform.asked("uaa");
    // It is longer when it is asked about again.
    platform.opaque("short", &["doppler.firehose"], Duration::from_secs(4));
    assert_eq!(close(&mut socket).await, expired());
    assert_eq!(platform.asked("uaa"), ["/check_token", "/check_token"]);
    // A signature alone is not enough here.
    assert_eq!(bed.v1("/firehose/x", Some(&platform.token(&["doppler.firehose"]))).await.0, 401);
}

#[tokio::test]
async fn open_streams_are_asked_about_again_and_end_when_they_may_no_longer() {
    let bed = Bed::new("cache_ttl = \"100ms\"").await;
    let platform = &bed.platform;
    let token = platform.token(&[]);
    let authorization = format!("bearer {token}");
    platform.allow(&authorization, APP);
    platform.allow(&authorization, OTHER_APP);
    let stream = async |guid| {
        open(bed.http(), &format!("/apps/{guid}/stream"), &[("authorization", &authorization)]).await.unwrap()
    };
    let (mut one, mut other) = (stream(APP).await, stream(OTHER_APP).await);
    // That nobody answers ends nothing …
    platform.state.said.lock().cloud_controller = Some(StatusCode::SERVICE_UNAVAILABLE);
    platform.until_asked("internal", 6).await;
    // … and a refusal ends what is refused.
    platform.forbid(&authorization, APP);
    platform.state.said.lock().cloud_controller = None;
    assert_eq!(close(&mut one).await, expired());
    other.close(None).await.unwrap();
    assert!(matches!(other.next().await.unwrap().unwrap(), Message::Ping(_) | Message::Close(_)));
}

#[tokio::test]
async fn good_answers_are_kept_and_refusals_are_not() {
    let bed = Bed::new("").await;
    let platform = &bed.platform;
    let token = platform.token(&[]);
    let authorization = format!("bearer {token}");
    platform.allow(&authorization, APP);
    for _request in 0..5 {
        assert_eq!(bed.stream(APP, &token).await, 400);
        assert!(bed.read(&format!("/api/v1/read/{APP}"), &token).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(platform.asked("internal").len(), 1);
    assert_eq!(bed.count("hydrant_auth_cache_hits_total"), 9);
    assert_eq!(bed.count("hydrant_auth_cached_answers"), 1);
    let end = "hydrant_certificate_not_after_timestamp_seconds{certificate=\"traffic_controller_cloud_controller\"}";
    assert!(bed.count(end) > 1_700_000_000);
    for _request in 0..3 {
        assert_eq!(bed.stream(FOREIGN, &token).await, 404);
    }
    assert_eq!(platform.asked("internal").len(), 3);
    platform.allow(&authorization, FOREIGN);
    assert_eq!(bed.stream(FOREIGN, &token).await, 400, "at once");
    // What one token reads says nothing about another.
    let other = platform.token(&[]);
    platform.allow(&format!("bearer {other}"), OTHER_APP);
    assert_eq!(bed.stream(APP, &other).await, 404);
}

#[tokio::test]
async fn a_good_answer_grows_old() {
    let bed = Bed::new("cache_ttl = \"1ms\"").await;
    let token = bed.platform.token(&[]);
    let authorization = format!("bearer {token}");
    bed.platform.allow(&authorization, APP);
    assert_eq!(bed.stream(APP, &token).await, 400);
    bed.platform.forbid(&authorization, APP);
    while bed.stream(APP, &token).await != 404 {}
}

#[tokio::test]
async fn one_caller_has_so_many_look_ups_under_way() {
    let bed = Bed::new("max_caller_lookups = 1\nmax_lookups = 2").await;
    let platform = &bed.platform;
    let tokens = [(); 3].map(|()| platform.token(&[]));
    for token in &tokens {
        platform.allow(&format!("bearer {token}"), APP);
        platform.allow(&format!("Bearer {token}"), APP);
    }
    platform.state.open.send_replace(false);
    let (first, second) = (bed.stream(APP, &tokens[0]), bed.stream(APP, &tokens[1]));
    let others = async {
        platform.until_asked("internal", 2).await;
        assert_eq!(bed.stream(OTHER_APP, &tokens[0]).await, 429);
        assert_eq!(bed.subscribe(&[APP], &tokens[0]).await, "ResourceExhausted", "as an app or something else");
        let answer = bed.read(&format!("/api/v1/read/{APP}"), &tokens[0]).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let meta = bed.read("/api/v1/meta", &tokens[0]).await;
        assert!(meta.contains("\"meta\":{}"), "{meta}");
        assert_eq!(bed.stream(APP, &tokens[2]).await, 429, "two of all are under way");
        platform.state.open.send_replace(true);
    };
    let (first, second, ()) = tokio::join!(first, second, others);
    assert_eq!((first, second), (400, 400));
    assert!(bed.count("hydrant_unauthorised_requests_total{reason=\"limited\"}") >= 5);
    assert_eq!(bed.stream(APP, &tokens[2]).await, 400);
}

#[tokio::test]
async fn the_same_question_is_asked_once_however_many_ask_it() {
    let bed = Bed::new("max_caller_lookups = 1").await;
    let platform = &bed.platform;
    let token = platform.token(&[]);
    platform.allow(&format!("bearer {token}"), APP);
    platform.state.open.send_replace(false);
    let target = format!("/api/v1/read/{APP}");
    let reads = futures_util::future::join_all((0..20).map(|_| bed.read(&target, &token)));
    let asked = async {
        platform.until_asked("internal", 1).await;
        platform.state.open.send_replace(true);
    };
    let (answers, ()) = tokio::join!(reads, asked);
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ")), "{answers:?}");
    assert_eq!(platform.asked("internal").len(), 1);
}

#[tokio::test]
async fn one_caller_has_so_many_look_ups_in_a_second() {
    let bed = Bed::new("caller_lookups_per_second = 1").await;
    let platform = &bed.platform;
    let (token, other) = (platform.token(&[]), platform.token(&[]));
    for token in [&token, &other] {
        platform.allow(&format!("bearer {token}"), APP);
    }
    let mut statuses = Vec::new();
    for _request in 0..20 {
        statuses.push(bed.stream(FOREIGN, &token).await);
    }
    assert!(statuses[..11].iter().all(|status| *status == 404), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let asked = platform.asked("internal").len();
    assert!((11..20).contains(&asked), "{asked}");
    assert_eq!(bed.stream(APP, &other).await, 400);
}

#[tokio::test]
async fn a_uaa_that_is_away_refuses_whom_it_would_have_to_be_asked_about_and_nobody_else() {
    let platform = Platform::start();
    platform.state.said.lock().uaa = Some(StatusCode::SERVICE_UNAVAILABLE);
    let token = platform.token(&["logs.admin", "doppler.firehose"]);
    platform.allow(&format!("bearer {token}"), APP);
    let bed = Bed::on(platform, "").await;
    assert_eq!(bed.stream(APP, &token).await, 500, "no key is known");
    assert_eq!(bed.v1("/firehose/x", Some(&token)).await.0, 401);
    assert_eq!(bed.subscribe(&[""], &token).await, "Unavailable");
    assert_eq!(bed.stream(APP, "opaque").await, 500);
    let ready = bed.ready().await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("authorizer"), "{ready}");

    let bed = Bed::new("").await;
    let token = bed.platform.token(&["logs.admin"]);
    assert_eq!(bed.subscribe(&[""], &token).await, "OK");
    assert!(bed.ready().await.starts_with("HTTP/1.1 200 "));
    bed.platform.state.said.lock().uaa = Some(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bed.subscribe(&[""], &token).await, "OK", "its key is known");
}

impl Bed {
    async fn ready(&self) -> String {
        crate::http::ask(self.controller.addrs().admin, "GET", "/ready", &[]).await
    }
}

#[tokio::test]
async fn keys_and_tokens_too_large_are_none() {
    let platform = Platform::start();
    let filler = "x".repeat(1024 * 1024);
    platform.state.said.lock().keys.push(serde_json::json!({ "kty": "none", "value": filler }));
    let token = platform.token(&["logs.admin"]);
    let bed = Bed::on(platform, "").await;
    assert_eq!(bed.subscribe(&[""], &token).await, "Unavailable");

    let bed = Bed::new("").await;
    let mut large = claims(&["logs.admin", "doppler.firehose"], HOUR);
    large["more"] = "x".repeat(9 * 1024).into();
    let fits = bed.platform.issuer.sign(&large);
    assert!(fits.len() < 16 * 1024);
    assert_eq!(bed.v1("/firehose/x", Some(&fits)).await.0, 400);
    large["more"] = "x".repeat(12 * 1024).into();
    let exceeds = bed.platform.issuer.sign(&large);
    assert!(exceeds.len() > 16 * 1024);
    assert_eq!(bed.v1("/firehose/x", Some(&exceeds)).await.0, 401);
}

#[tokio::test]
async fn a_cloud_controller_of_another_authority_is_told_no_token() {
    let (platform, other) = (Platform::start(), transport::TestCerts::new());
    let token = platform.token(&[]);
    let mut config = platform.config("");
    let table = config.uaa.as_mut().unwrap();
    let strange = Some(traffic_controller::ServiceTls { ca: Some(other.files("x").ca), ..Default::default() });
    table.cloud_controller.tls.clone_from(&strange);
    table.api.tls = strange;
    let controller = config.bind(&Telemetry::default()).await.unwrap().spawn();
    let path = format!("/apps/{APP}/stream");
    let authorization = format!("bearer {token}");
    let refused = open(controller.addrs().http, &path, &[("authorization", &authorization)]).await.unwrap_err();
    assert_eq!(refused, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(platform.shown().is_empty());
    // A key that is unknown at UAA too.
    let unknown = TestIssuer::new("other").sign(&claims(&[], HOUR));
    let authorization = format!("bearer {unknown}");
    let refused = open(controller.addrs().http, &path, &[("authorization", &authorization)]).await.unwrap_err();
    assert_eq!(refused, StatusCode::UNAUTHORIZED);
}
