//! `hydrant tail` and `hydrant firehose`, as people read with them.

use std::process::Stdio;

use proto::v2;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::commands::{hydrant, run};
use crate::harness::{Producer, pipeline, sum, until};

const SECOND: i64 = 1_000_000_000;
/// 21 September 2026, a quarter past two in the afternoon.
const AT: i64 = 1_790_000_000 * SECOND;

fn line(source: &str, text: &str, second: i64) -> v2::Envelope {
    v2::Envelope::log(source, text.to_owned()).at(AT + second * SECOND).instance("0")
}

/// What `hydrant tail` prints of `args`.
async fn tail(server: &str, args: &[&str]) -> String {
    let args = [&["tail"], args, &["--no-follow", "--server", server]].concat();
    let (shown, errors, code) = run(&args).await;
    assert_eq!((errors.as_str(), code), ("", 0), "{args:?}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_can_be_chosen() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    let lines = [
        line("shop", "INFO served /a", 1),
        line("shop", "ERROR no room", 2),
        line("shop", "  at cart.rs:5", 3),
        line("shop", r#"{"level":"warn","msg":"slow","ms":900}"#, 4).instance("1"),
        line("shop", "panicked", 5).err().tag("zone", "z1"),
    ];
    producer.send(lines.into()).await;
    producer.settled().await;

    let raw = |more: &'static [&'static str]| {
        let args = [&["shop", "-o", "raw"], more].concat();
        let server = server.clone();
        async move { tail(&server, &args).await }
    };
    assert_eq!(raw(&["--include", "^INFO", "--include", "^ERR"]).await, "INFO served /a\nERROR no room\n");
    assert_eq!(raw(&["--exclude", "[a-z]+e"]).await, "ERROR no room\n  at cart.rs:5\n");
    assert_eq!(raw(&["--level", "error"]).await, "ERROR no room\n  at cart.rs:5\npanicked\n");
    assert_eq!(raw(&["--instance", "1"]).await, "{\"level\":\"warn\",\"msg\":\"slow\",\"ms\":900}\n");
    assert_eq!(raw(&["--tail", "2"]).await, "{\"level\":\"warn\",\"msg\":\"slow\",\"ms\":900}\npanicked\n");
    assert_eq!(raw(&["--tail", "1", "--include", "ERROR"]).await, "ERROR no room\n");
    assert_eq!(raw(&["--tail", "0"]).await, "");

    let template = "template={type} {level} {source}/{instance} {message} [{tag.zone}]";
    let shown = tail(&server, &["shop", "-n", "1", "-o", template]).await;
    assert_eq!(shown, "err  shop/0 panicked [z1]\n");
    let shown = tail(&server, &["shop", "--tail", "2"]).await;
    let (slow, panicked) = shown.trim_end().split_once('\n').unwrap();
    assert!(slow.ends_with(" shop/1 WARN slow ms=900") && panicked.ends_with(" shop/0 ! panicked"), "{shown}");

    for (args, said) in [
        (["-o", "template={nam}"], "{tag.NAME}"),
        (["--include", "("], "unclosed"),
        (["--level", "loud"], "warn"),
        (["--order", "1h"], "a minute"),
    ] {
        let (_, errors, code) = run(&[&["tail", "shop"], &args[..]].concat()).await;
        assert_eq!(code, 2);
        assert!(errors.contains(said), "{errors}");
    }
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_several_sources_are_in_the_order_of_their_times() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(vec![line("b", "2", 2), line("a", "1", 1), line("a", "3", 3)]).await;
    producer.settled().await;
    let args = ["tail", "a", "b", "-o", "raw", "--order", "2s", "--server", &server];
    let mut child = hydrant(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || shown.next_line().await.unwrap().unwrap();
    assert_eq!([next().await, next().await, next().await], ["1", "2", "3"]);
    // Live: as they come, the later ones first.
    for (text, source, second) in [("7", "b", 7), ("5", "a", 5), ("6", "b", 6), ("4", "a", 4)] {
        producer.send(vec![line(source, text, second)]).await;
        producer.settled().await;
    }
    assert_eq!([next().await, next().await, next().await, next().await], ["4", "5", "6", "7"]);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sources_than_a_stream_takes_are_merged() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    let ids: Vec<String> = (0..150).map(|i| format!("app-{i}")).collect();
    // Each source twice, so that every stream has something between that of the others.
    for i in 0..300 {
        producer.send(vec![line(&ids[i * 7 % 150], &i.to_string(), i as i64)]).await;
    }
    producer.settled().await;
    let args: Vec<&str> = ids.iter().map(String::as_str).chain(["-o", "raw"]).collect();
    let shown = tail(&server, &args).await;
    let expected: String = (0..300).map(|i| format!("{i}\n")).collect();
    assert_eq!(shown, expected);
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_ends_it_without_a_word() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut producer = Producer::connect(up.agent().grpc).await;
    let args = ["tail", "app", "--server", &server];
    let mut child = hydrant(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    producer.send(vec![line("app", "first", 0)]).await;
    assert!(shown.next_line().await.unwrap().unwrap().ends_with("first"));
    drop(shown);
    producer.send(vec![line("app", "second", 1)]).await;
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_firehose_can_be_filtered_and_measured() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let args = ["firehose", "--rate", "--type", "log", "--exclude", "noise", "--server", &server];
    let mut child = hydrant(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    until(up.doppler().admin, |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(vec![v2::Envelope::counter("app", "c", 1), line("app", "noise", 0), line("app", "signal", 0)]).await;
    assert!(shown.next_line().await.unwrap().unwrap().ends_with("app/0 signal"));
    loop {
        let line = said.next_line().await.unwrap().unwrap();
        assert!(line.starts_with("hydrant: ") && line.contains("envelopes/s"), "{line}");
        if line.contains("lag p50 ") && line.contains(", max ") {
            break;
        }
    }
    up.shutdown().await.unwrap();
}
