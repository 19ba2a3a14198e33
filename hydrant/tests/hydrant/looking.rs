//! `hydrant sources`, `explain-loss` and `status` against a pipeline; and sources that are found by a regular expression.

use std::process::Stdio;

use proto::v2;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::commands::{hydrant, run};
use crate::harness::{Producer, logs, metrics, next, pipeline, subscribe, sum, until};

async fn send(producer: &mut Producer, source: &str, texts: &[&str]) {
    producer.send(texts.iter().map(|text| v2::Envelope::log(source, (*text).to_owned())).collect()).await;
    producer.settled().await;
}

async fn json(args: &[&str]) -> Value {
    let (shown, errors, _) = run(&[args, &["--json"]].concat()).await;
    serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}{errors}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_counted_sorted_and_chosen() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    send(&mut producer, "shop-1", &["a", "b", "c"]).await;
    send(&mut producer, "app", &["x"]).await;
    let (shown, errors, code) = run(&["sources", "--once", "--server", &server]).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["SOURCE", "LINES", "BYTES", "HELD", "OLDEST", "NEWEST", "LOST"]);
    assert_eq!((rows[1][..2].to_vec(), rows[2][..2].to_vec()), (vec!["shop-1", "3"], vec!["app", "1"]));

    let all = json(&["sources", "^a", "--server", &server]).await;
    assert_eq!((all["sources"].as_array().unwrap().len(), &all["sources"][0]["source_id"]), (1, &"app".into()));
    assert_eq!((&all["sources"][0]["envelopes_per_second"], &all["sources"][0]["lost"]), (&0.0.into(), &0.into()));

    let line = format!("hydrant tail --server {server} sh");
    let (shown, errors, code) = run(&["complete-sources", "--line", &line, "--", "sh"]).await;
    assert_eq!((shown.as_str(), errors.as_str(), code), ("shop-1\n", "", 0));
    let (script, _, _) = run(&["completions", "bash"]).await;
    let typed = format!(
        "PATH=\"$(dirname '{}'):$PATH\"\n{script}\nCOMP_LINE='{line}' COMP_WORDS=(hydrant tail sh) COMP_CWORD=2\n\
         _hydrant_with_sources hydrant sh tail\necho \"${{COMPREPLY[@]}}\"",
        env!("CARGO_BIN_EXE_hydrant")
    );
    let output = tokio::process::Command::new("bash").args(["-c", &typed]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "shop-1\n", "{}", String::from_utf8_lossy(&output.stderr));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_match_are_followed_as_they_come() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    send(&mut producer, "shop-1", &["first"]).await;
    send(&mut producer, "other", &["nothing"]).await;
    let args = ["tail", "/^shop-/", "-o", "template={source} {message}", "--server", &server];
    let mut child = hydrant(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(shown.next_line().await.unwrap().unwrap(), "shop-1 first");
    send(&mut producer, "shop-2", &["second"]).await;
    assert_eq!(shown.next_line().await.unwrap().unwrap(), "shop-2 second");
    let (shown, errors, code) = run(&["tail", "/nobody/", "--no-follow", "--server", &server]).await;
    assert_eq!((shown.as_str(), errors.as_str(), code), ("", "", 0));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_envelope_that_was_lost_is_explained() {
    let up = pipeline("doppler.egress.tell_losses = \"100ms\"\ndoppler.egress.ring_envelopes = 100\n").await;
    let server = up.traffic_controller().grpc.to_string();
    let (shown, _, code) = run(&["explain-loss", "--server", &server]).await;
    assert_eq!(code, 0);
    assert!(shown.starts_with("No loss has been told of.\n") && shown.contains("say the same"), "{shown}");

    // It asks for all and reads nothing.
    let mut idle = subscribe(up.doppler().grpc, &[logs()]).await;
    let mut sent = 0;
    let mut producer = Producer::connect(up.agent().grpc).await;
    let lost = |metrics: &std::collections::BTreeMap<String, f64>| {
        sum(metrics, "hydrant_dropped_envelopes_total", "stage=\"doppler\",reason=\"queue_full\"")
    };
    let text = "x".repeat(1_000);
    while lost(&metrics(up.doppler().admin).await) == 0 {
        producer.send((0..500).map(|_| v2::Envelope::log("loud", text.clone())).collect()).await;
        producer.settled().await;
        sent += 500;
    }
    let counted = lost(&until(up.doppler().admin, |metrics| lost(metrics) > 0).await);
    let mut report = json(&["explain-loss", "--server", &server]).await;
    while report["total"] != counted {
        report = json(&["explain-loss", "--server", &server]).await;
    }
    assert_eq!((&report["not_told_apart"], &report["compared"]), (&0.into(), &true.into()));
    let loss = &report["losses"][0];
    let of = ["stage", "source_id", "reason"].map(|key| loss[key].as_str().unwrap());
    assert_eq!((of, &loss["consumer"]), (["doppler", "loud", "queue_full"], &"#1".into()));
    let (shown, _, _) = run(&["explain-loss", "--source", "loud", "--since", "1h", "--server", &server]).await;
    assert!(shown.contains("queue_full at the doppler: a consumer is slower"), "{shown}");
    let all = json(&["sources", "--once", "--sort", "lost", "--server", &server]).await;
    assert_eq!((&all["sources"][0]["source_id"], &all["sources"][0]["lost"]), (&"loud".into(), &counted.into()));

    // To the envelope: what its consumer gets now, and what is explained, is what was sent. A quiet source's line comes last.
    send(&mut producer, "quiet", &["the last one"]).await;
    let mut got = 0;
    'reading: loop {
        for envelope in next(&mut idle).await.expect("the stream is open") {
            if envelope.source_id == "quiet" {
                break 'reading;
            }
            got += 1;
        }
    }
    assert_eq!(got + counted, sent);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_whether_all_is_well() {
    let drain = "[[adapters.drains]]\nname = \"nowhere\"\nurl = \"syslog://127.0.0.1:9\"\n";
    let up = pipeline(drain).await;
    let server = up.traffic_controller().grpc.to_string();
    let (shown, errors, code) = run(&["status", "--server", &server]).await;
    assert_eq!((errors.as_str(), code), ("", 0), "{shown}");
    assert!(shown.contains("is healthy") && shown.contains("doppler") && shown.contains("nowhere"), "{shown}");
    assert_eq!(json(&["status", "--server", &server]).await["healthy"], true);
    up.shutdown().await.unwrap();
    let (_, errors, code) = run(&["status", "--server", &server]).await;
    assert_eq!(code, 1);
    assert!(errors.contains("cannot reach a traffic controller"), "{errors}");
}
