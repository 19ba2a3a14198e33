//! `hydrant query` against a pipeline: each form of an answer, partial answers, and errors.

use std::net::SocketAddr;

use proto::v2;
use serde_json::Value;

use crate::commands::run;
use crate::harness::{Process, Producer, get, pipeline};

/// Whole seconds, some time ago: what is asked about lies before it.
const NOW: i64 = 1_764_500_000;

/// Counters of two instances of `app`, told every 10 s for 5 minutes, the last time a second ago: the first grows by 1 a second, the second by 2. A gauge of the first.
async fn metrics(agent: SocketAddr) {
    let mut producer = Producer::connect(agent).await;
    let mut envelopes = Vec::new();
    for told in 0..=30 {
        let at = (NOW - 301 + told * 10) * 1_000_000_000;
        for (instance, growth) in [("0", 10), ("1", 20)] {
            let mut counter = v2::Envelope::counter("app", "requests", growth).instance(instance).at(at);
            if let Some(v2::envelope::Message::Counter(counter)) = &mut counter.message {
                counter.total = growth * u64::try_from(told).unwrap();
            }
            envelopes.push(counter);
        }
        if told != 15 {
            let gauge = v2::Envelope::gauge("app", "cpu", 10.0 + told as f64, "percentage").instance("0").at(at);
            envelopes.push(gauge.tag("odd", "\u{202e}\u{1b}[2J<b>"));
        }
    }
    assert!(producer.send(envelopes).await);
    producer.settled().await;
}

async fn query(server: SocketAddr, args: &[&str]) -> (String, String, i32) {
    run(&[&["query", "--server", &server.to_string()], args].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_a_moment_is_a_table_a_number_json_or_csv() {
    let up = pipeline("").await;
    metrics(up.agent().grpc).await;
    let server = up.traffic_controller().grpc;
    let at = NOW.to_string();
    let rate = r#"sum by (instance_id) (rate(requests{source_id="app"}[1m]))"#;
    let (shown, errors, code) = query(server, &[rate, "--time", &at]).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let expected = "SERIES             VALUE\n{instance_id=\"0\"}      1\n{instance_id=\"1\"}      2\n";
    assert_eq!(shown, expected);

    let short = ["sum(rate(requests[1m]))", "--source", "app", "--time", &at];
    assert_eq!(query(server, &short).await, ("SERIES  VALUE\n{}          3\n".to_owned(), String::new(), 0));
    assert_eq!(query(server, &["scalar(sum(requests{source_id='app'})) / 9", "--time", &at]).await.0, "100\n");

    // What the server gives over HTTP, to the letter.
    let (shown, _, _) = query(server, &[rate, "--time", &at, "-o", "json"]).await;
    let http = get(up.traffic_controller().http, &format!("/api/v1/query?time={at}&query={}", escaped(rate))).await;
    assert_eq!((&shown, http.status), (&http.body, 200));
    assert_eq!(query(server, &[rate, "--time", &at, "--json"]).await.0, shown);
    let (shown, _, _) = query(server, &[rate, "--time", &at, "-o", "csv"]).await;
    let rows = "time,instance_id,value\r\n2025-11-30T10:53:20.000Z,0,1\r\n2025-11-30T10:53:20.000Z,1,2\r\n";
    assert_eq!(shown, rows);

    // What others write is shown, not obeyed.
    let (shown, _, _) = query(server, &["cpu", "--source", "app", "--time", &at]).await;
    assert!(shown.contains("[2J<b>") && !shown.contains(['\u{202e}', '\u{1b}']), "{shown}");
    let window = ["cpu[25s]", "--source", "app", "--time", &at];
    let (shown, _, _) = query(server, &window).await;
    assert_eq!(shown.lines().count(), 4, "{shown}");
    let (shown, errors, code) = query(server, &["nothing", "--source", "app"]).await;
    assert_eq!((shown.as_str(), errors.as_str(), code), ("", "hydrant: nothing matches at that time\n", 0));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_sparklines_rows_or_a_picture() {
    let up = pipeline("").await;
    metrics(up.agent().grpc).await;
    let server = up.traffic_controller().grpc;
    let end = NOW.to_string();
    let last = ["last_over_time(cpu[9s])", "--source", "app", "--range", "5m", "--end", &end];
    let (shown, errors, code) = query(server, &[&last[..], &["--step", "10s"]].concat()).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let lines: Vec<&str> = shown.lines().collect();
    let figures: Vec<&str> = lines[1].split_whitespace().rev().take(3).collect();
    assert_eq!(figures, ["40", "10", "40"], "{shown}");
    let blocks: Vec<char> = lines[2].chars().collect();
    assert_eq!((blocks.len(), blocks[0], blocks[15], blocks[30]), (31, '▁', '·', '█'), "{shown}");
    assert!(lines[3].contains('└') && lines[4].ends_with(", every 10s"), "{shown}");

    // Without a step the points fit: no line is longer than 80 characters.
    let (shown, _, _) =
        query(server, &["sum(rate(requests[1m]))", "--source", "app", "--range", "1h", "--end", &end]).await;
    assert!(shown.lines().all(|line| line.chars().count() <= 80) && shown.contains("every 1m"), "{shown}");

    let start = (NOW - 20).to_string();
    let span = ["requests", "--source", "app", "--start", &start, "--end", &end, "--step", "10", "-o", "csv"];
    let (shown, _, _) = query(server, &span).await;
    assert_eq!(shown.lines().count(), 1 + 2 * 3, "{shown}");
    assert!(shown.ends_with("2025-11-30T10:53:20.000Z,1,app,600\r\n"), "{shown}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cpu.svg");
    let (_, errors, code) = query(server, &[&last[..], &["--plot", file.to_str().unwrap()]].concat()).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let picture = std::fs::read_to_string(&file).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("&lt;b&gt;") && !picture.contains("<b>"), "{picture}");
    let (_, errors, code) = query(server, &[&last[..], &["--plot", "/nowhere/cpu.svg"]].concat()).await;
    assert_eq!((errors.as_str(), code), ("hydrant: /nowhere/cpu.svg: No such file or directory (os error 2)\n", 1));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_doppler_is_partial_and_says_so() {
    let up = pipeline("").await;
    metrics(up.agent().grpc).await;
    let (doppler, nobody) = (up.doppler().grpc, "127.0.0.1:9");
    let config = format!("traffic_controller.dopplers = [{{ addresses = [\"{doppler}\", \"{nobody}\"] }}]\n");
    let controller = Process::start("traffic-controller", &config).await;
    let server = controller.addr("grpc");
    let at = NOW.to_string();
    let args = ["sum(requests)", "--source", "app", "--time", &at];
    let (shown, errors, code) = query(server, &args).await;
    let warning = format!("the cache of doppler {nobody} could not be asked");
    assert_eq!((errors.as_str(), code), (format!("hydrant: incomplete: {warning}\n").as_str(), 0));
    assert_eq!(shown, "SERIES  VALUE\n{}        900\n");
    let (shown, _, _) = query(server, &[&args[..], &["--json"]].concat()).await;
    let answer: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&answer["warnings"][0], &answer["data"]["resultType"]), (&warning.into(), &"vector".into()));
    controller.terminate();
    assert!(controller.ended().await.success());
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_the_words_of_the_server_and_bad_usage_is_told_apart() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc;
    let (shown, errors, code) = query(server, &["sum(requests"]).await;
    assert_eq!((shown.as_str(), code), ("", 1));
    assert!(errors.starts_with("hydrant: 1:5: parse error: "), "{errors}");
    let (_, with_source, code) = query(server, &["sum(requests", "--source", "app"]).await;
    assert_eq!((with_source, code), (errors, 1));
    let (_, errors, code) = query(server, &["requests"]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("metric 'requests' does not have a 'source_id' label"), "{errors}");
    for (args, word) in [
        (&["1", "--time", "soon"][..], "such as"),
        (&["1", "--step", "1m"], "--range"),
        (&["1", "--plot", "a.svg"], "--range"),
        (&["1", "--time", "5m", "--range", "1h"], "cannot be used with"),
        (&["1", "--start", "now", "--end", "5m ago"], "ends before it begins"),
        (&["1", "--range", "1h", "--step", "1ms"], "11000 steps"),
        (&["1", "-o", "xml"], "possible values"),
        (&[], "PROMQL"),
    ] {
        let (_, errors, code) = query(server, args).await;
        assert_eq!(code, 2, "{args:?}: {errors}");
        assert!(errors.contains(word), "{args:?}: {errors}");
    }
    up.shutdown().await.unwrap();
}

/// A query in a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
