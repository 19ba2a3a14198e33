//! The commands, as people and scripts run them, against a pipeline.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::{Process, pipeline};

pub(crate) fn hydrant(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydrant"));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Output, errors and exit code of a command that ends by itself.
pub(crate) async fn run(args: &[&str]) -> (String, String, i32) {
    let output = hydrant(args).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

pub(crate) async fn emit(agent: SocketAddr, source: &str, more: &[&str], input: &str) -> (String, i32) {
    let agent = agent.to_string();
    let mut args = vec!["emit", source, "--agent", &agent];
    args.extend(more);
    let mut child = hydrant(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

fn lines(count: usize) -> String {
    (0..count).map(|i| format!("/some/path/of/a/file/{i}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_lines_are_shown_in_order_once_each() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let input = lines(5_000);
    let (said, code) = emit(up.agent().grpc, "my-app", &[], &input).await;
    assert_eq!((said.as_str(), code), ("hydrant: 5000 lines for my-app: 5000 delivered\n", 0));

    let (shown, errors, code) = run(&["tail", "my-app", "--no-follow", "-o", "raw", "--server", &server]).await;
    assert_eq!((errors.as_str(), code), ("", 0));
    assert_eq!(shown, input);

    let (shown, _, _) = run(&["tail", "my-app", "--no-follow", "--server", &server]).await;
    assert_eq!(shown.lines().count(), 5_000);
    assert!(shown.lines().next().unwrap().ends_with(" my-app/0 /some/path/of/a/file/0"), "{:?}", shown.lines().next());

    let (shown, _, _) = run(&["tail", "my-app", "--no-follow", "--json", "--server", &server]).await;
    let last: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    assert_eq!((&last["source_id"], &last["instance_id"]), (&"my-app".into(), &"0".into()));

    let (shown, errors, code) = run(&["tail", "nobody", "--no-follow", "--server", &server]).await;
    assert_eq!((shown.as_str(), errors.as_str(), code), ("", "", 0));
    let (shown, _, _) =
        run(&["tail", "my-app", "--no-follow", "--since", "2100-01-01T00:00:00Z", "--server", &server]).await;
    assert_eq!(shown, "");
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_exist_yet_is_waited_for_and_followed() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut tail = hydrant(&["tail", "late", "-o", "raw", "--server", &server]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(tail.stdout.take().unwrap()).lines();
    for round in 0..3 {
        let input: String = (0..100).map(|i| format!("{round}-{i}\n")).collect();
        emit(up.agent().grpc, "late", &["--tag", "a=b"], &input).await;
        for expected in input.lines() {
            assert_eq!(shown.next_line().await.unwrap().unwrap(), expected);
        }
    }
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_refused_are_named_at_the_end() {
    let up = pipeline("").await;
    let source = "s".repeat(300);
    let (said, code) = emit(up.agent().grpc, &source, &[], "one\ntwo\n").await;
    assert!(said.contains("2 lines") && said.contains("0 delivered, 2 lost (2 oversize)"), "{said}");
    assert_eq!(code, 1);
    let (said, code) = emit(up.agent().grpc, "app", &["--no-wait"], "one\ntwo\n").await;
    assert_eq!((said.as_str(), code), ("hydrant: 2 lines for app: 2 delivered\n", 0));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_firehose_shows_everything_live() {
    let up = pipeline("").await;
    let server = up.traffic_controller().grpc.to_string();
    let mut firehose = hydrant(&["firehose", "--server", &server]).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = BufReader::new(firehose.stdout.take().unwrap()).lines();
    crate::harness::until(up.doppler().admin, |metrics| crate::harness::sum(metrics, "hydrant_subscriptions", "") == 1)
        .await;
    emit(up.agent().grpc, "one", &["--instance", "7"], "hello\n").await;
    assert!(shown.next_line().await.unwrap().unwrap().ends_with(" one/7 hello"));
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn up_greets_logs_itself_and_stops_with_0() {
    let mut up = Process::start("up", "").await;
    let server = up.addr("traffic_controller.grpc").to_string();
    let mut tail = hydrant(&["tail", "hydrant", "--type", "all", "--json", "--server", &server])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(tail.stdout.take().unwrap()).lines();
    let (mut logs, mut counters) = (0, 0);
    while logs == 0 || counters == 0 {
        let line: serde_json::Value = serde_json::from_str(&shown.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(line["source_id"], "hydrant");
        logs += usize::from(line["log"].is_object());
        counters += usize::from(line["counter"].is_object());
    }
    drop(tail);
    up.terminate();
    assert_eq!(up.stdout.next_line().await.unwrap(), None);
    assert_eq!(up.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named_with_the_key_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let output = hydrant(&["doppler"])
        .env("HYDRANT_DOPPLER__GRPC__LISTEN", addr.to_string())
        .env("HYDRANT_DOPPLER__CACHE_GRPC__LISTEN", "127.0.0.1:0")
        .env("HYDRANT_DOPPLER__ADMIN__LISTEN", "127.0.0.1:0")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains(&format!("doppler.grpc.listen: {addr} is already in use")) && said.contains("port 0"),
        "{said}"
    );
}

#[tokio::test]
async fn plain_text_outside_loopback_is_refused_unless_named() {
    for (role, key) in [("agent", "AGENT__GRPC"), ("doppler", "DOPPLER__GRPC"), ("doppler", "DOPPLER__CACHE_GRPC")] {
        let output = hydrant(&[role]).env(format!("HYDRANT_{key}__LISTEN"), "0.0.0.0:0").output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("0.0.0.0:0 can be reached from outside") && said.contains("insecure_plaintext = true"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_explained() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (_, said, code) = run(&["tail", "app", "--server", &unused]).await;
    assert_eq!(code, 1);
    assert!(said.contains(&format!("cannot reach a traffic controller at {unused}")), "{said}");
    assert!(said.contains("`hydrant up`") && said.contains("--server HOST:PORT"), "{said}");
}

#[tokio::test]
async fn check_config_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hydrant.toml");
    std::fs::write(&file, "[agent.grpc]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let (said, _, code) = run(&["check-config", file.to_str().unwrap()]).await;
    assert_eq!((said, code), (format!("{}: ok\n", file.display()), 0));
    std::fs::write(&file, "[agent.grpc]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    let (_, said, code) = run(&["check-config", file.to_str().unwrap()]).await;
    assert_eq!(code, 2);
    assert!(said.contains("line 2, column 1") && said.contains("unknown field `lisen`"), "{said}");
    let (_, said, code) = run(&["check-config", "/nowhere.toml"]).await;
    assert_eq!(code, 2);
    assert!(said.contains("cannot read /nowhere.toml"), "{said}");
}
