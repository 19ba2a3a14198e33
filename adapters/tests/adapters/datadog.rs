//! Bodies for Datadog's metrics intake, judged by VictoriaMetrics, which takes its first form.

use std::time::SystemTime;

use http::{Request, StatusCode};
use hydrant_adapters::Outcome;
use hydrant_adapters::datadog::{Api, Encoder, Options};
use prost::Message;
use proto::v2;

use crate::judges::{Judge, get, request};

const SECOND: i64 = 1_000_000_000;

/// Takes envelopes as of `seconds`, flushes then, and sends; the judge must take all of it.
async fn send(encoder: &mut Encoder, to: &Judge, seconds: i64, envelopes: Vec<v2::Envelope>) {
    let (now, kept) = (seconds * SECOND, envelopes.len() as u64);
    for envelope in envelopes {
        assert_eq!(encoder.put(&envelope.encode_to_vec(), now), Outcome::Kept);
    }
    let requests = encoder.flush(now);
    assert_eq!(requests.iter().map(|request| request.envelopes).sum::<u64>(), kept);
    for next in requests {
        let head = Request::post(format!("/datadog{}", next.path));
        let head = next.headers.iter().fold(head, |head, (name, value)| head.header(*name, value));
        let (status, answer) = request(to.addr, head.header("dd-api-key", "none"), next.body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    }
}

async fn check(victoria: &Judge, at: i64, expected: &[(&str, &str)]) {
    assert_eq!(get(victoria.addr, "/internal/force_flush").await.0, StatusCode::OK);
    for (query, value) in expected {
        let result = victoria.query(query, Some(at * 1000)).await;
        assert_eq!(result.len(), 1, "{query}: {result:?}");
        assert_eq!(result[0]["value"][1], *value, "{query}");
    }
}

/// In seconds, a minute ago: the judge wants times of about now.
fn start() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap() - 60
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_7_1_victoria_metrics_takes_every_point() {
    let victoria = Judge::victoria_metrics().await;
    let options = Options { api: Api::V1, host: Some("vm \"1\"".to_owned()), ..Options::default() };
    let (mut encoder, start) = (Encoder::new(&options), start());
    for (flush, delta) in [(0, 3), (10, 4)] {
        let at = (start + flush) * SECOND;
        let envelopes = vec![
            v2::Envelope::counter("app", "requests", delta).at(at),
            v2::Envelope::counter("app", "requests", delta).at(at),
            v2::Envelope::gauge("app", "load", 1.5 * delta as f64, "").tag("zone", "z é \"1\"").at(at),
            v2::Envelope::gauge("app", "large", 1e300, "").at(at),
            v2::Envelope::timer("app", "sql", 0, SECOND / 4).at(at),
            v2::Envelope::timer("app", "sql", 0, SECOND / 2).at(at),
        ];
        send(&mut encoder, &victoria, start + flush, envelopes).await;
    }
    let expected = [
        (r#"requests{host="vm \"1\"",source_id="app"}"#, "8"),
        ("sum_over_time(requests[1m])", "14"),
        (r#"load{zone="z é \"1\""}"#, "6"),
        ("sum_over_time(load[1m])", "10.5"),
        (r#"{__name__="sql.duration.count"}"#, "2"),
        (r#"{__name__="sql.duration.sum"}"#, "0.75"),
        (r#"{__name__="sql.duration.avg"}"#, "0.375"),
        (r#"{__name__="sql.duration.max"}"#, "0.5"),
        ("count({__name__=~\".+\"})", "7"),
    ];
    check(&victoria, start + 10, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_7_4_victoria_metrics_takes_what_the_nozzle_sends() {
    let victoria = Judge::victoria_metrics().await;
    let (mut encoder, start) = (Encoder::new(&Options::nozzle()), start());
    let gauge = v2::Envelope::gauge("src", "cpu", 0.25, "").at(start * SECOND);
    send(&mut encoder, &victoria, start, vec![gauge.tag("origin", "rep").tag("index", "vm-1")]).await;
    let expected = [
        (r#"{__name__="cloudfoundry.nozzle.cpu",host="vm-1",name="rep"}"#, "0.25"),
        (r#"{__name__="cloudfoundry.nozzle.rep.cpu",host="vm-1",origin="rep",source_id="src"}"#, "0.25"),
    ];
    check(&victoria, start, &expected).await;
}
