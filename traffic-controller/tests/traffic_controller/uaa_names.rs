//! Queries that name apps as people do, under tokens of a UAA: Cloud Controller knows which app has which name, and what a name is made of
//! changes nothing of what it is asked (contract `log-cache.md` §6).

use http::StatusCode;
use percent_encoding::percent_decode_str;
use proto::v2::Envelope;
use serde_json::Value;
use traffic_controller::test_platform::{APP, FOREIGN, OTHER_APP, Platform};

use crate::cache::Cache;
use crate::recent::{Answer, VECTORS, compare, filled, send};
use crate::uaa::Bed;

/// A traffic controller with a gauge of four sources.
async fn bed() -> Bed {
    let cache = Cache::start();
    cache.put(
        [APP, OTHER_APP, FOREIGN, "my-app"].map(|source| Envelope::gauge(source, "cpu", 7.0, "u").at(1_000_000_000)),
    );
    Bed::over(cache, Platform::start(), "").await
}

/// What `query` gives at second 2.
async fn ask(bed: &Bed, query: &str, token: &str) -> Answer {
    let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let headers = [("Authorization".to_owned(), format!("bearer {token}"))];
    send(bed.controller.addrs().rest, "GET", &format!("/api/v1/query?query={query}&time=2"), &headers, "").await
}

/// The sources of the gauge that are found under `name`, in order.
async fn found(bed: &Bed, name: &str, token: &str) -> Result<Vec<String>, (u16, String)> {
    let name = name.replace('\\', r"\\").replace('"', r#"\""#).replace('\r', r"\r").replace('\n', r"\n");
    outcome(&ask(bed, &format!("cpu{{source_id=\"{name}\"}}"), token).await)
}

fn outcome(answer: &Answer) -> Result<Vec<String>, (u16, String)> {
    if answer.status != 200 {
        return Err((answer.status, answer.body.clone()));
    }
    let json = answer.json();
    let source = |series: &Value| series["metric"]["source_id"].as_str().unwrap().to_owned();
    let mut sources: Vec<String> = json["data"]["result"].as_array().unwrap().iter().map(source).collect();
    sources.sort();
    Ok(sources)
}

fn these<const N: usize>(sources: [&str; N]) -> Result<Vec<String>, (u16, String)> {
    Ok(sources.map(str::to_owned).to_vec())
}

fn not_there() -> Result<Vec<String>, (u16, String)> {
    Err((404, String::new()))
}

/// A token that reads two of the apps.
fn developer(platform: &Platform) -> String {
    let token = platform.token(&["cloud_controller.read"]);
    for app in [APP, OTHER_APP] {
        platform.allow(&format!("bearer {token}"), app);
    }
    token
}

#[tokio::test]
async fn a_name_stands_for_every_app_that_has_it_and_that_the_caller_reads() {
    let bed = bed().await;
    let platform = &bed.platform;
    let token = developer(platform);
    for (app, name) in [(APP, "crane"), (OTHER_APP, "buoy"), (FOREIGN, "theirs")] {
        platform.name(app, name);
    }
    assert_eq!(found(&bed, "crane", &token).await, these([APP]));
    assert_eq!(platform.asked("api"), ["/v3/apps?names=crane&per_page=5000"]);
    assert_eq!(found(&bed, APP, &token).await, these([APP]));
    assert!(platform.asked("api").is_empty(), "a GUID is no name");
    // Nobody's, and somebody else's, are alike; and one of several is enough.
    for name in ["nobody", "theirs", FOREIGN, "my-app", "Crane", ""] {
        assert_eq!(found(&bed, name, &token).await, not_there(), "{name}");
    }
    let both = |sources: &str| format!("cpu{{source_id=~\"{sources}\"}}");
    for sources in ["crane|theirs", "crane|nobody", &format!("{APP}|{FOREIGN}")] {
        assert_eq!(outcome(&ask(&bed, &both(sources), &token).await), not_there(), "{sources}");
    }
    for sources in ["crane|buoy", &format!("crane|{OTHER_APP}"), &format!("buoy|{APP}|crane")] {
        assert_eq!(outcome(&ask(&bed, &both(sources), &token).await), these([APP, OTHER_APP]), "{sources}");
    }
    // In every selector of a query.
    let sum = ask(&bed, r#"sum(cpu{source_id="crane"}) + sum(cpu{source_id="buoy"})"#, &token).await;
    assert_eq!(sum.json()["data"]["result"][0]["value"][1], "14");
    let partly = ask(&bed, r#"sum(cpu{source_id="crane"}) + sum(cpu{source_id="theirs"})"#, &token).await;
    assert_eq!(outcome(&partly), not_there());

    // Spaces have names of their own: two apps may have one name, and one of them may be somebody else's.
    for app in [APP, OTHER_APP, FOREIGN] {
        platform.name(app, "twins");
    }
    assert_eq!(found(&bed, "twins", &token).await, these([APP, OTHER_APP]));
    assert_eq!(found(&bed, "crane", &token).await, not_there(), "names are not kept");
}

#[tokio::test]
async fn whoever_reads_everything_asks_by_name_too() {
    let bed = bed().await;
    let platform = &bed.platform;
    for scope in ["logs.admin", "doppler.firehose"] {
        let token = platform.token(&[scope]);
        for app in [APP, OTHER_APP, FOREIGN] {
            platform.allow(&format!("bearer {token}"), app);
            platform.name(app, "twins");
        }
        platform.name(FOREIGN, "theirs");
        assert_eq!(found(&bed, "twins", &token).await, these([APP, OTHER_APP]));
        assert_eq!(found(&bed, "theirs", &token).await, these([FOREIGN]));
        assert_eq!(found(&bed, FOREIGN, &token).await, these([FOREIGN]));
        // What is no app's name is a source's.
        assert_eq!(found(&bed, "my-app", &token).await, these(["my-app"]));
        assert_eq!(found(&bed, "nobody", &token).await, these([]));
    }
}

#[tokio::test]
async fn what_a_name_is_made_of_does_not_change_the_request() {
    let bed = bed().await;
    let platform = &bed.platform;
    let token = developer(platform);
    let strange = [
        "a,b",
        ",",
        "a, b",
        "50%",
        "a%2Cb",
        "%252C",
        "%00",
        "a&per_page=1",
        "x&names=theirs",
        "x&page=2",
        "a=b",
        "a\"b",
        "it's",
        "a`b",
        "../../v2/info",
        "a/b?c#d",
        "a;b",
        "a b",
        "a+b",
        "a\\b",
        "a\r\nX-Evil: 1",
        "größe \u{1f980}",
    ];
    for name in strange {
        // Such an app is found, and its like are not: those whose names are parts of it, or what becomes of it.
        platform.name(OTHER_APP, "theirs");
        platform.name(APP, name);
        assert_eq!(found(&bed, name, &token).await, these([APP]), "{name}");
        let asked = platform.asked("api");
        let [path] = &asked[..] else { panic!("{name}: {asked:?}") };
        let names = path.strip_prefix("/v3/apps?names=").and_then(|rest| rest.strip_suffix("&per_page=5000"));
        let names = names.unwrap_or_else(|| panic!("{name}: {path}"));
        assert!(names.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%-".contains(&byte)), "{name}: {path}");
        let in_list = percent_decode_str(names).decode_utf8().unwrap().into_owned();
        assert!(!in_list.contains(','), "{name}: {path}");
        assert_eq!(percent_decode_str(&in_list).decode_utf8().unwrap(), name, "{path}");
    }
    for (asked, app) in [("a,b", "a"), ("a,b", "b"), ("a%2Cb", "a,b"), ("x&names=theirs", "theirs"), ("%", "a")] {
        platform.name(APP, app);
        assert_eq!(found(&bed, asked, &token).await, not_there(), "{asked} is not {app}");
    }
    // Several at once keep apart.
    platform.name(APP, "a,b");
    platform.name(OTHER_APP, "50%");
    let sources = outcome(&ask(&bed, r#"cpu{source_id=~"a,b|50%"}"#, &token).await);
    assert_eq!(sources, these([APP, OTHER_APP]));
}

#[tokio::test]
async fn names_that_nobody_can_look_up_are_not_there() {
    let bed = bed().await;
    let platform = &bed.platform;
    let token = developer(platform);
    platform.name(APP, "crane");
    for status in [400, 401, 403, 404, 500, 503] {
        platform.state.said.lock().cloud_controller = Some(StatusCode::from_u16(status).unwrap());
        assert_eq!(found(&bed, "crane", &token).await, not_there(), "{status}");
    }
    platform.state.said.lock().cloud_controller = None;
    // What is answered is held against what was asked: another app is none, nor is what has no GUID.
    for list in [
        "",
        "{}",
        r#"{"pagination":{"next":null},"resources":[{"guid":"e6015d69-09cd-476d-aace-ad2d824d5ab7","name":"other"}]}"#,
        r#"{"pagination":{"next":null},"resources":[{"guid":"my-app","name":"crane"}]}"#,
        r#"{"pagination":{"next":null},"resources":[{"guid":"e6015d69-09cd-476d-aace-ad2d824d5ab7","name":"crane"}]}"#,
    ] {
        platform.state.said.lock().list = Some(list);
        assert_eq!(found(&bed, "crane", &token).await, not_there(), "{list}");
    }
    platform.state.said.lock().list = None;
    assert_eq!(found(&bed, "crane", "unknown").await, not_there());
    assert_eq!(found(&bed, "crane", &token).await, these([APP]));
}

/// Every vector of queries through the original's proxy: same status, same headers of note, same JSON.
#[tokio::test]
async fn answers_are_those_of_the_original() {
    const CRANE: &str = "5b7d1c9e-0a44-4c1b-9f3e-6d2a8e4b7c10";
    const INSTANCE: &str = "77aa88bb-99cc-4ddd-8eee-ff0011223344";
    let mut lines = VECTORS.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cache = filled(&lines.next().unwrap()).await;
    let bed = Bed::over(cache, Platform::start(), "").await;
    let platform = &bed.platform;
    platform.name(CRANE, "crane");
    let (developer, admin) = (platform.token(&["cloud_controller.read"]), platform.token(&["doppler.firehose"]));
    platform.allow(&format!("bearer {developer}"), CRANE);
    platform.allow_service(&format!("bearer {developer}"), INSTANCE);
    platform.allow(&format!("bearer {admin}"), CRANE);
    let mut run = 0;
    for vector in lines.filter(|vector| vector["id"].as_str().unwrap().starts_with("proxy-query-")) {
        let (id, request) = (vector["id"].as_str().unwrap(), &vector["request"]);
        if id == "proxy-query-scalar" {
            // A query without sources reads nothing of anybody: here it is answered, which is how Grafana tries a data source.
            run += 1;
            continue;
        }
        let headers: Vec<(String, String)> = match request["auth"].as_str().unwrap() {
            "developer" => vec![("Authorization".to_owned(), format!("bearer {developer}"))],
            "firehose-reader" => vec![("Authorization".to_owned(), format!("bearer {admin}"))],
            _ => Vec::new(),
        };
        let target = request["target"].as_str().unwrap();
        let answer = send(bed.controller.addrs().rest, "GET", target, &headers, "").await;
        run += 1;
        if vector["body"] == "" {
            assert_eq!((&Value::from(answer.status), answer.body.as_str()), (&vector["status"], ""), "{id}");
        } else {
            compare(id, &vector, &answer);
        }
    }
    assert_eq!(run, 8);
}
