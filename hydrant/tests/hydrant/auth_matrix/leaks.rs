//! That what others may read shows in nothing: not in lists, not in refusals, not under crooked names, and not in streams that run.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::hydrant::v1;
use proto::hydrant::v1::overview_client::OverviewClient;
use proto::v2::Envelope;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use traffic_controller::test_platform::{FOREIGN, OTHER_APP};

use super::ask::{Open, batched, follow, http, receiver, request};
use super::bed::{ALL, Bed, Caller, OWN, foreign, leaked};
use crate::harness::channel;

const NOT_PROVIDED: &str = "You are not authorized. authorization not provided";
const INVALID: &str = "You are not authorized. invalid authorization";
const NOT_FOUND: &str = "{\"message\":\"resource not found\",\"error\":\"not_found\"}\n\n";

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_refusals_are_in_the_words_of_each_contract() {
    for by in ALL {
        let bed = Bed::new(by).await;
        let addrs = bed.up.traffic_controller();
        let read = "/v2/read?log&source_id=e6015d69-09cd-476d-aace-ad2d824d5ab7";
        let app = "/apps/e6015d69-09cd-476d-aace-ad2d824d5ab7/recentlogs";
        for (addr, target, caller, challenge, body) in [
            (addrs.http, "/firehose/x", Caller::Nobody, true, NOT_PROVIDED),
            (addrs.http, "/firehose/x", Caller::Unknown, true, INVALID),
            (addrs.http, "/firehose/x", Caller::Expired, true, INVALID),
            (addrs.http, "/firehose/x", Caller::Elsewhere, true, INVALID),
            (addrs.http, "/firehose/x", Caller::Reader, true, INVALID),
            (addrs.http, app, Caller::Nobody, true, ""),
            (addrs.http, app, Caller::Elsewhere, true, ""),
            (addrs.http, app, Caller::Reader, false, ""),
            (addrs.http, read, Caller::Nobody, false, NOT_FOUND),
            (addrs.gateway, read, Caller::Reader, false, NOT_FOUND),
            (addrs.gateway, read, Caller::Elsewhere, false, NOT_FOUND),
            (addrs.http, read, Caller::CrossSite, false, NOT_FOUND),
            (addrs.rest, "/api/v1/read/x", Caller::Nobody, false, ""),
            (addrs.rest, "/api/v1/meta", Caller::Expired, false, ""),
            (addrs.rest, "/api/v1/read/x", Caller::Reader, false, ""),
            (addrs.http, "/v1/overview", Caller::Nobody, false, "authorization not provided\n"),
            (addrs.http, "/v1/overview", Caller::Elsewhere, false, "invalid authorization\n"),
        ] {
            let open = http(addr, "GET", target, &bed.headers(caller), false).await;
            assert_eq!(open.body(), body, "{by:?} {target} {caller:?}");
            let head = open.head();
            assert_eq!(
                head.contains("\r\nwww-authenticate: basic\r\n"),
                challenge,
                "{by:?} {target} {caller:?}: {head}"
            );
            assert!(!head.contains("access-control-"), "{head}");
        }
        bed.up.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_lists_are_those_of_a_pipeline_without_the_others() {
    for by in ALL {
        let bed = Bed::new(by).await;
        let addrs = bed.up.traffic_controller();
        let overview = OverviewClient::new(channel(addrs.grpc).await);
        for (caller, sources) in
            [(Caller::Reader, &[OWN][..]), (Caller::Pattern, &[OWN, OTHER_APP]), (Caller::Cookie, &[OWN])]
        {
            let headers = bed.headers(caller);
            let asked = async |target| http(addrs.http, "GET", target, &headers, false).await;
            let meta: Value = serde_json::from_str(&asked("/api/v1/meta").await.body()).unwrap();
            let ids: Vec<&String> = meta["meta"].as_object().unwrap().keys().collect();
            assert_eq!(ids, sources, "{by:?} {caller:?}");
            let named = asked("/api/v1/label/source_id/values").await.body();
            let named: Value = serde_json::from_str(&named).unwrap();
            assert_eq!(named["data"], serde_json::json!(sources), "{by:?} {caller:?}");
            let page: Value = serde_json::from_str(&asked("/v1/overview").await.body()).unwrap();
            let ids: Vec<&str> =
                page["sources"].as_array().unwrap().iter().map(|one| one["source_id"].as_str().unwrap()).collect();
            assert_eq!(
                (ids.as_slice(), &page["source_count"]),
                (sources, &sources.len().to_string().into()),
                "{by:?} {caller:?}"
            );
            for of_everybody in ["stages", "consumers", "drains", "missing"] {
                assert_eq!(page[of_everybody], Value::Array(Vec::new()), "{by:?} {caller:?} {of_everybody}");
            }
            if caller != Caller::Cookie {
                let reply = overview.clone().get(request(v1::OverviewRequest {}, &headers)).await.unwrap().into_inner();
                let ids: Vec<&str> = reply.sources.iter().map(|source| source.source_id.as_str()).collect();
                assert_eq!((ids.as_slice(), reply.source_count), (sources, sources.len() as u64));
                assert_eq!(leaked(&reply.encode_to_vec()), None);
            }
        }
        let all = http(addrs.http, "GET", "/v1/overview", &bed.headers(Caller::Admin), false).await.body();
        assert!(all.contains(FOREIGN) && all.contains("\"stage\":\"doppler\""), "{all}");
        bed.up.shutdown().await.unwrap();
    }
}

/// Names that are none of `OWN`, and from some of which a careless server would make it, or the foreign one.
fn crooked() -> Vec<String> {
    let mut all: Vec<String> = [
        "../..",
        "..%2F..",
        "%2e%2e%2f%2e%2e%2f",
        "{own}%2F..%2F{foreign}",
        "{foreign}%2F..%2F{own}",
        "{own}%2f%2e%2e%2f{foreign}",
        "{own}/../{foreign}",
        "{own}%00",
        "%00{own}",
        "{own}%00{foreign}",
        "{foreign}%00",
        "{own}%20",
        "{own}%0a",
        "{own}%2C{foreign}",
        "{own}*",
        "*",
        "%2A",
        "{foreign}%3Fx",
        "%2565%25",
    ]
    .map(|name| name.replace("{own}", OWN).replace("{foreign}", FOREIGN))
    .into();
    all.extend([
        OWN.to_uppercase(),
        FOREIGN.to_uppercase(),
        "a".repeat(10 * 1024),
        format!("{OWN}{}", "a".repeat(10 * 1024)),
    ]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_crooked_names_lead_nowhere() {
    for by in ALL {
        let bed = Bed::new(by).await;
        let addrs = bed.up.traffic_controller();
        let mut wrong = Vec::new();
        for name in crooked() {
            for (addr, target, upgrade) in [
                (addrs.http, format!("/apps/{name}/stream"), true),
                (addrs.http, format!("/apps/{name}/recentlogs"), false),
                (addrs.http, format!("/apps/{name}/containermetrics"), false),
                (addrs.http, format!("/v2/read?log&source_id={name}"), false),
                (addrs.gateway, format!("/v2/read?log&source_id={name}&start_time=0"), false),
                (addrs.http, format!("/v2/stream?log&source_id={name}"), true),
                (addrs.gateway, format!("/v2/stream?log&source_id={name}&start_time=0"), true),
                (addrs.rest, format!("/api/v1/read/{name}"), false),
                (addrs.http, format!("/api/v1/read/{name}"), false),
            ] {
                for caller in [Caller::Reader, Caller::Nobody, Caller::Elsewhere, Caller::CrossSite] {
                    let open = http(addr, "GET", &target, &bed.headers(caller), upgrade).await;
                    let refused = [400, 401, 403, 404, 414, 431].contains(&open.status());
                    if !refused || leaked(&open.bytes).is_some() {
                        wrong.push(format!("{:.90} by {caller:?}: {}", target, open.status()));
                    }
                }
            }
            let channel = channel(addrs.grpc).await;
            let name: String = name.replace("%00", "\0").replace("%2F", "/");
            for (call, outcome) in [
                ("batched", batched(channel.clone(), (&[&name], None), &bed.headers(Caller::Reader)).await.err()),
                ("receiver", receiver(channel.clone(), (&[&name], None), &bed.headers(Caller::Reader)).await.err()),
                ("follow", follow(channel, (&[&name], Vec::new()), &bed.headers(Caller::Reader)).await.err()),
            ] {
                if outcome.as_ref().is_none_or(|status| status.code() != tonic::Code::PermissionDenied) {
                    wrong.push(format!("{call} {name:.90}: {outcome:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{by:?}: {wrong:#?}");
        bed.up.shutdown().await.unwrap();
    }
}

/// Own lines that are seen before a stream is believed to show no foreign ones.
const SEEN: usize = 3;

fn sentinels(bytes: &[u8]) -> usize {
    let of = |what: &[u8]| bytes.windows(what.len()).filter(|window| *window == what).count();
    of(b"sentinel-lin") + of(STANDARD.encode("sentinel-lin").as_bytes())
}

async fn socket_shows_nothing(mut open: Open, what: &str) {
    assert!(
        open.until(|bytes| sentinels(bytes) >= SEEN).await,
        "{what} ended: {}",
        String::from_utf8_lossy(&open.bytes)
    );
    assert_eq!(leaked(&open.bytes), None, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_streams_show_nothing_of_others() {
    for by in ALL {
        let Bed { up, authority, mut producer } = Bed::new(by).await;
        let addrs = up.traffic_controller();
        let headers = authority.headers(Caller::Reader, addrs.http);
        let kinds = format!("log&counter&gauge&timer&event&gap_markers&source_id={OWN}");
        let mut streams = Vec::new();
        for (addr, target, upgrade) in [
            (addrs.http, format!("/apps/{OWN}/stream"), true),
            (addrs.http, format!("/v2/read?{kinds}"), false),
            (addrs.gateway, format!("/v2/read?{kinds}&start_time=0"), false),
            (addrs.gateway, format!("/v2/read?{kinds}&shard_id=shared"), false),
            (addrs.gateway, format!("/v2/stream?{kinds}"), true),
            (addrs.http, format!("/v2/stream?{kinds}&resume"), true),
            (addrs.http, format!("/v2/stream?{kinds}&start_time=0"), true),
        ] {
            streams.push((target.clone(), Open::new(addr, "GET", &target, &headers, upgrade).await));
        }
        let grpc = channel(addrs.grpc).await;
        let mut batches = batched(grpc.clone(), (&[OWN], Some(FOREIGN)), &headers).await.unwrap().into_inner();
        let mut single = receiver(grpc.clone(), (&[OWN], Some(FOREIGN)), &headers).await.unwrap().into_inner();
        let mut frames = follow(grpc, (&[OWN], Vec::new()), &headers).await.unwrap().into_inner();

        let done = CancellationToken::new();
        let sending = async {
            let mut often = tokio::time::interval(Duration::from_millis(5));
            while !done.is_cancelled() {
                often.tick().await;
                let own = vec![Envelope::log(OWN, "sentinel-line").at(7)];
                assert!(producer.send([foreign(), own, foreign()].concat()).await);
            }
        };
        let reading = async {
            let _done = done.clone().drop_guard();
            for (target, open) in streams {
                socket_shows_nothing(open, &format!("{by:?} {target}")).await;
            }
            let mut bytes = Vec::new();
            while sentinels(&bytes) < SEEN {
                bytes.extend(batches.message().await.unwrap().unwrap().0);
            }
            for _ in 0..SEEN {
                bytes.extend(single.message().await.unwrap().unwrap().0);
            }
            while sentinels(&bytes) < 3 * SEEN {
                bytes.extend(frames.message().await.unwrap().unwrap().encode_to_vec());
            }
            assert_eq!(leaked(&bytes), None, "{by:?}");
        };
        tokio::join!(sending, reading);
        up.shutdown().await.unwrap();
    }
}

#[test]
fn a_leak_would_be_found() {
    let envelope = foreign().remove(0);
    assert_eq!(leaked(&envelope.encode_to_vec()), Some("canary"));
    let text = format!("{{\"payload\":\"{}\"}}", STANDARD.encode("canary-payloads of a line"));
    assert_eq!(leaked(text.as_bytes()), Some("the payload in base64"));
    let cursor = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("..{FOREIGN}"));
    assert_eq!(leaked(format!("{{\"cursor\":\"{cursor}\"}}").as_bytes()), Some(FOREIGN));
    assert_eq!(leaked(OWN.as_bytes()), None);
}
