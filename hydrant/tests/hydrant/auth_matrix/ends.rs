//! That a place in a stream is no permission, and that a stream ends with what it was opened on the strength of.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use proto::hydrant::v1;
use proto::v2::Envelope;
use serde_json::json;
use tonic::Code;
use traffic_controller::test_platform::{FOREIGN, claims};

use super::ask::{Open, batched, follow, http, receiver};
use super::bed::{ALL, Bed, By, Caller, Headers, NOBODY, OWN, foreign, leaked};
use crate::harness::channel;

/// `sentinel-lin` in base64, as JSON has a line that the tests wait for.
const SENTINEL: &[u8] = b"c2VudGluZWwtbGlu";

fn shows(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// What stands between `before` and the next byte that no cursor has.
fn cursor(bytes: &[u8], before: &str) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '-' && char != '_')?;
    Some(rest[..end].to_owned())
}

/// A place that nobody was given.
fn forged(of: &str, change: impl Fn(&mut v1::Cursor)) -> String {
    let mut request = v1::FollowRequest::decode(&*URL_SAFE_NO_PAD.decode(of).unwrap()).unwrap();
    request.after.iter_mut().for_each(change);
    URL_SAFE_NO_PAD.encode(request.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_a_cursor_of_somebody_else_opens_nothing() {
    for by in ALL {
        let mut bed = Bed::new(by).await;
        let addrs = bed.up.traffic_controller();
        let (admin, reader) = (bed.headers(Caller::Admin), bed.headers(Caller::Reader));
        let theirs = format!("source_id={FOREIGN}&start_time=0");
        let mut events = Open::new(addrs.gateway, "GET", &format!("/v2/read?log&{theirs}"), &admin, false).await;
        assert!(events.until(|bytes| cursor(bytes, "\nid: ").is_some()).await);
        let mut stream = Open::new(addrs.http, "GET", &format!("/v2/stream?log&{theirs}"), &admin, true).await;
        assert!(stream.until(|bytes| cursor(bytes, "\"cursor\":\"").is_some()).await);
        let places = [(&events, "\nid: "), (&stream, "\"cursor\":\"")]
            .map(|(open, before)| cursor(&open.bytes, before).unwrap());
        let mut frames =
            follow(channel(addrs.grpc).await, (&[FOREIGN], Vec::new()), &admin).await.unwrap().into_inner();
        let after = frames.message().await.unwrap().unwrap().cursor.unwrap();
        for place in &places {
            for place in
                [place.clone(), forged(place, |at| at.sequence = 0), forged(place, |at| at.sequence = u64::MAX)]
            {
                let resumed = [&reader[..], &[("last-event-id", place.clone())]].concat();
                for (addr, target, headers, upgrade) in [
                    (addrs.http, format!("/v2/read?log&source_id={{}}&after={place}"), &reader, false),
                    (addrs.gateway, "/v2/read?log&source_id={}".to_owned(), &resumed, false),
                    (
                        addrs.gateway,
                        format!("/v2/read?log&source_id={OWN}&source_id={{}}&after={place}"),
                        &reader,
                        false,
                    ),
                    (addrs.http, format!("/v2/stream?log&source_id={{}}&after={place}"), &reader, true),
                    (addrs.gateway, "/v2/stream?log&source_id={}".to_owned(), &resumed, true),
                ] {
                    let ask = async |source: &str| {
                        let open = http(addr, "GET", &target.replace("{}", source), headers, upgrade).await;
                        (open.status(), open.body())
                    };
                    let refused = ask(FOREIGN).await;
                    assert_eq!(refused.0, 404, "{by:?} {target}");
                    assert_eq!(refused, ask(NOBODY).await, "{by:?} {target}");
                }
                for (addr, target, headers, upgrade) in [
                    (addrs.http, format!("/v2/read?log&gap_markers&source_id={OWN}&after={place}"), &reader, false),
                    (addrs.gateway, format!("/v2/read?log&gap_markers&source_id={OWN}"), &resumed, false),
                    (addrs.http, format!("/v2/stream?log&source_id={OWN}&after={place}"), &reader, true),
                ] {
                    let mut open = Open::new(addr, "GET", &target, headers, upgrade).await;
                    // A place that was never given out is now: what comes before it is known there is not for this stream.
                    let mut often = tokio::time::interval(Duration::from_millis(5));
                    loop {
                        tokio::select! {
                            seen = open.until(|bytes| shows(bytes, SENTINEL)) => break assert!(seen, "{by:?} {target}"),
                            _ = often.tick() => {}
                        }
                        let lines = [foreign(), vec![Envelope::log(OWN, "sentinel-line")]].concat();
                        assert!(bed.producer.send(lines).await);
                    }
                    assert_eq!(leaked(&open.bytes), None, "{by:?} {target}");
                    assert!(!String::from_utf8_lossy(&open.bytes).contains("gap"), "{by:?} {target}");
                }
            }
        }
        for sources in [&[FOREIGN][..], &[NOBODY], &[OWN, FOREIGN]] {
            let refused = follow(channel(addrs.grpc).await, (sources, vec![after.clone()]), &reader).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "{by:?} {sources:?}");
        }
        bed.up.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_cursors_do_not_count_what_others_send() {
    let mut bed = Bed::new(By::Tokens).await;
    let grpc = channel(bed.up.traffic_controller().grpc).await;
    let mut frames = follow(grpc, (&[OWN], Vec::new()), &bed.headers(Caller::Reader)).await.unwrap().into_inner();
    let mut places = Vec::new();
    for _ in 0..8 {
        assert!(bed.producer.send([foreign(), vec![Envelope::log(OWN, "sentinel-line")]].concat()).await);
        let place = loop {
            let frame = frames.message().await.unwrap().unwrap();
            if let Some(cursor) = frame.cursor.filter(|_| !frame.batch.is_empty()) {
                break cursor.sequence;
            }
        };
        places.push(place);
    }
    let near = places.windows(2).filter(|two| two[0].abs_diff(two[1]) < 1 << 32).count();
    assert_eq!(near, 0, "{places:?}");
    bed.up.shutdown().await.unwrap();
}

/// Awaits the end of every way to read `OWN`, after `end` has taken the caller's permission away.
async fn every_stream_ends(bed: &Bed, headers: &Headers, end: impl FnOnce(&Bed)) {
    let addrs = bed.up.traffic_controller();
    let mut open = Vec::new();
    for (addr, target, upgrade) in [
        (addrs.http, format!("/apps/{OWN}/stream"), true),
        (addrs.http, format!("/v2/read?log&source_id={OWN}"), false),
        (addrs.gateway, format!("/v2/read?log&source_id={OWN}&start_time=0"), false),
        (addrs.gateway, format!("/v2/stream?log&source_id={OWN}"), true),
        (addrs.http, format!("/v2/stream?log&source_id={OWN}&start_time=0"), true),
    ] {
        let stream = Open::new(addr, "GET", &target, headers, upgrade).await;
        assert_eq!(stream.status(), if upgrade { 101 } else { 200 }, "{target}");
        open.push((target, upgrade, stream));
    }
    let grpc = channel(addrs.grpc).await;
    let mut batches = batched(grpc.clone(), (&[OWN], None), headers).await.unwrap().into_inner();
    let mut single = receiver(grpc.clone(), (&[OWN], None), headers).await.unwrap().into_inner();
    let mut frames = follow(grpc, (&[OWN], Vec::new()), headers).await.unwrap().into_inner();
    end(bed);
    for (target, upgrade, mut stream) in open {
        if upgrade {
            let close = [&[0x88, 23, 0x03, 0xf0][..], b"authorization expired"].concat();
            assert!(stream.until(|bytes| bytes.ends_with(&close)).await, "{target}: {:?}", stream.bytes);
        } else {
            assert!(stream.until(|bytes| bytes.ends_with(b"\r\n0\r\n\r\n")).await, "{target}");
        }
    }
    let frames = async {
        loop {
            if let Err(status) = frames.message().await {
                return status;
            }
        }
    };
    for status in [batches.message().await.unwrap_err(), single.message().await.unwrap_err(), frames.await] {
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "authorization expired"));
    }
    let again = http(addrs.gateway, "GET", &format!("/v2/read?log&source_id={OWN}"), headers, false).await;
    assert_eq!(again.status(), 404);
}

/// A stream of somebody whose permission stands.
async fn kept(bed: &Bed) -> Open {
    let target = format!("/v2/read?log&source_id={OWN}");
    Open::new(bed.up.traffic_controller().gateway, "GET", &target, &bed.headers(Caller::Pattern), false).await
}

async fn still_reads(mut bed: Bed, mut kept: Open) {
    assert!(bed.producer.send(vec![Envelope::log(OWN, "sentinel-line")]).await);
    assert!(kept.until(|bytes| shows(bytes, SENTINEL)).await);
    bed.up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_streams_end_when_the_token_is_removed() {
    let bed = Bed::new(By::Tokens).await;
    let kept = kept(&bed).await;
    every_stream_ends(&bed, &bed.headers(Caller::Reader), |bed| bed.authority.write_tokens(false)).await;
    still_reads(bed, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_streams_end_when_the_token_does() {
    let bed = Bed::new(By::Uaa).await;
    let kept_open = kept(&bed).await;
    let platform = &bed.authority.platform;
    let authorization = format!("bearer {}", platform.issuer.sign(&claims(&[], Duration::from_secs(4))));
    platform.allow(&authorization, OWN);
    every_stream_ends(&bed, &vec![("authorization", authorization)], |_| {}).await;
    still_reads(bed, kept_open).await;

    let bed = Bed::with(By::Jwks, "leeway = \"1s\"", "").await;
    let kept_open = kept(&bed).await;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3);
    let token = bed.authority.provider.token(&json!({ "exp": end.as_secs(), "sources": [OWN] }));
    every_stream_ends(&bed, &vec![("authorization", format!("bearer {token}"))], |_| {}).await;
    still_reads(bed, kept_open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_streams_end_when_cloud_controller_takes_the_app_back() {
    let bed = Bed::with(By::Uaa, "cache_ttl = \"1s\"", "").await;
    let kept = kept(&bed).await;
    every_stream_ends(&bed, &bed.headers(Caller::Reader), |bed| {
        bed.authority.platform.forbid(&format!("bearer {}", bed.authority.shown.reader), OWN);
    })
    .await;
    still_reads(bed, kept).await;
}
