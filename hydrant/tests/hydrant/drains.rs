//! `hydrant drain`, against a pipeline, to a receiver.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::Process;

/// Output, errors and exit code of `hydrant drain`.
async fn drain(args: &[&str], admin: &str, input: &str) -> (String, String, i32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hydrant"))
        .arg("drain")
        .args(args)
        .args(["--adapters", admin])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read it has gone.
    let _unread = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

async fn emit(agent: &str, line: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hydrant"))
        .args(["emit", "my-app", "--agent", agent])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).await.unwrap();
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_added_tested_listed_survives_a_restart_and_is_taken_away() {
    let state = tempfile::tempdir().unwrap();
    let variables = [("XDG_STATE_HOME", state.path().display().to_string())];
    let up = Process::start_with("up", "", &variables).await;
    let admin = up.addrs["adapters"]["admin"].as_str().unwrap().to_owned();
    let agent = up.addrs["agent"]["grpc"].as_str().unwrap().to_owned();
    assert_eq!(drain(&["ls"], &admin, "").await.0, "no drains; add one with `hydrant drain add NAME URL`\n");

    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("syslog://{}", receiver.local_addr().unwrap());
    // The password comes where nobody else of the machine sees it, and goes nowhere.
    let secret = url.replace("://", "://me:canary@");
    let (said, errors, code) = drain(&["add", "mine", "-", "--source", "my-app"], &admin, &secret).await;
    assert_eq!((said, errors.as_str(), code), (format!("mine drains what comes of my-app to {url}\n"), "", 0));

    let heard = async {
        let (stream, _) = receiver.accept().await.unwrap();
        BufReader::new(stream).lines().next_line().await.unwrap().unwrap()
    };
    let (line, (said, errors, code)) = tokio::join!(heard, drain(&["test", "mine"], &admin, ""));
    let rest = " my-app [LGR/0] - [tags@47450 source_type=\"LGR\"] hydrant drain test: this line was sent to see whether it arrives";
    assert!(line.ends_with(rest), "{line}");
    assert_eq!((errors.as_str(), code), ("", 0), "{said}");
    assert!(said.contains("the line was written, and "), "{said}");

    emit(&agent, "hello\n").await;
    let (stream, _) = receiver.accept().await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.ends_with(" hello"), "{line}");
    let (listed, _, _) = drain(&["ls"], &admin, "").await;
    let row: Vec<_> = listed.lines().nth(1).unwrap_or_else(|| panic!("{listed}")).split_whitespace().collect();
    assert_eq!(row, ["mine", "ok", "1", "0", "0", url.as_str()]);
    let (json, _, _) = drain(&["ls", "--json"], &admin, "").await;
    assert!(json.contains("\"delivered\":1") && !json.contains("canary"), "{json}");
    up.terminate();
    assert!(up.ended().await.success());

    let up = Process::start_with("up", "", &variables).await;
    let admin = up.addrs["adapters"]["admin"].as_str().unwrap().to_owned();
    let (listed, _, _) = drain(&["ls"], &admin, "").await;
    assert!(listed.lines().nth(1).is_some_and(|row| row.starts_with("mine  ok")), "{listed}");
    let (said, _, code) = drain(&["rm", "mine"], &admin, "").await;
    assert_eq!((said.as_str(), code), ("mine is taken away; what it has received it still delivers\n", 0));
    let (_, errors, code) = drain(&["rm", "mine"], &admin, "").await;
    assert_eq!((errors.as_str(), code), ("hydrant: there is no drain of this name\n", 2));
    let (_, errors, code) = drain(&["add", "x", "http://h:1"], &admin, "").await;
    assert!(code == 2 && errors.contains("write syslog://host:port"), "{errors}");
    drop(receiver);
    let (_, errors, code) = drain(&["test", &url], &admin, "").await;
    assert!(code == 1 && errors.contains("connect failed after") && errors.contains("refused"), "{errors}");
    up.terminate();
    assert!(up.ended().await.success());
    let (_, errors, code) = drain(&["ls"], &admin, "").await;
    assert!(code == 1 && errors.contains("start them with `hydrant up`"), "{errors}");
}
