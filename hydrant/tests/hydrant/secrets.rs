//! What must not be shown, and everything that is shown: canaries are planted where secrets stand, and every output is searched.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::harness::{ANY_PORTS, get};

/// Drains of every kind to `port`, each with a canary wherever one can stand. Their rings are too small, so that owners are told.
fn drains(port: u16) -> String {
    let urls = [
        ("syslog://user:canary@", "?token=canary"),
        ("syslog-tls://user:canary@", "?token=canary"),
        ("https://user:canary@", "/in/canary?token=canary"),
        ("https-batch://canary:x@", "/bulk/canary/tag?canary=canary"),
    ];
    let mut text = String::new();
    let mut drain = |url: String, more: &str| {
        let name = text.matches("[[adapters.drains]]").count();
        text.push_str(&format!(
            "[[adapters.drains]]\nname = \"d{name}\"\nurl = \"{url}\"\nsources = [\"app\"]\nring.envelopes = 2\n{more}\n"
        ));
    };
    for (before, after) in urls {
        drain(format!("{before}127.0.0.1:{port}{after}"), "");
    }
    drain(format!("syslog://127.0.0.1:{port}"), "preset = \"loggly\"\ntoken = \"canary\"");
    drain(format!("syslog://127.0.0.1:{port}"), "preset = \"logz\"\ntoken = \"canary\"");
    drain(format!("syslog://127.0.0.1:{port}"), "line.element = \"canary@1\"");
    let datadog = "token = \"canary\"\nannounce = true\ndatadog.interval = \"10ms\"";
    drain(format!("datadog+http://canary:canary@127.0.0.1:{port}/canary?drain-data=all&key=canary"), datadog);
    let headers = "announce = true\notlp.max_age = \"10ms\"\notlp.headers = { x-key = \"canary\" }";
    drain(format!("otlp+grpc://canary:canary@127.0.0.1:{port}?key=canary"), headers);
    drain(format!("otlp+http://127.0.0.1:{port}/canary"), &format!("token = \"canary\"\n{headers}"));
    if cfg!(feature = "nats") {
        // Where nobody listens: a server of NATS would have to speak first.
        drain("nats://user:canary@127.0.0.1:1/LOGS?token=canary".to_owned(), "");
        drain("nats://127.0.0.1:1/LOGS".to_owned(), "token = \"canary\"");
        text.push_str("[[agent.nats]]\nurl = \"nats://canary:canary@127.0.0.1:1/LOGS\"\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_drain_is_in_any_log_metric_page_or_stream() {
    // Takes connections, and closes each after it has been written to.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let receiver = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
            let _ = stream.set_zero_linger();
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hydrant.toml");
    std::fs::write(&file, format!("{ANY_PORTS}log.filter = \"trace\"\n{}", drains(port))).unwrap();
    let mut shown = String::new();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hydrant"));
        command.args(args).env("XDG_STATE_HOME", dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let path = file.to_str().unwrap();
    let planted = drains(port).matches("[[adapters.drains]]").count();
    let checked = command(&["check-config", path]).output().await.unwrap();
    assert!(checked.status.success(), "{checked:?}");
    shown.push_str(&format!("{checked:?}"));

    let mut up = command(&["up", "--print-addrs", "--config", path]).spawn().unwrap();
    let mut log = up.stderr.take().unwrap();
    let log = async move {
        let mut text = String::new();
        log.read_to_string(&mut text).await.unwrap();
        text
    };
    let mut stdout = BufReader::new(up.stdout.take().unwrap());
    let work = async {
        let mut addrs = String::new();
        stdout.read_line(&mut addrs).await.unwrap();
        let addrs: serde_json::Value = serde_json::from_str(&addrs).unwrap();
        let at = |role: &str, port: &str| addrs[role][port].as_str().unwrap().to_owned();
        let mut emit = command(&["emit", "app", "--agent", &at("agent", "grpc")]);
        let mut emit = emit.stdin(Stdio::piped()).spawn().unwrap();
        let mut lines = emit.stdin.take().unwrap();
        let mut all = String::new();
        let mut i = 0;
        // Until every drain has failed, and an owner was told of a loss.
        loop {
            lines.write_all(format!("line {i}\n").as_bytes()).await.unwrap();
            i += 1;
            let page = get(at("adapters", "admin").parse().unwrap(), "/metrics").await.body;
            let failed = page
                .lines()
                .filter(|line| line.starts_with("hydrant_drain_dropped_envelopes_total{") && !line.ends_with(" 0"));
            if failed.count() == planted && !page.contains("hydrant_drain_notices_total{outcome=\"sent\"} 0") {
                all.push_str(&page);
                all.push_str(&get(at("adapters", "admin").parse().unwrap(), "/v1/drains").await.body);
                break;
            }
        }
        drop(lines);
        all.push_str(&format!("{:?}", emit.wait_with_output().await.unwrap()));
        let server = at("traffic_controller", "grpc");
        let told = command(&["tail", "app", "--no-follow", "--server", &server]).output().await.unwrap();
        all.push_str(&String::from_utf8(told.stdout).unwrap());
        all.push_str(&get(at("traffic_controller", "http").parse().unwrap(), "/").await.body);
        let pid = i32::try_from(up.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        all
    };
    let (said, log) = tokio::select! {
        both = async { tokio::join!(work, log) } => both,
        () = receiver => unreachable!("it takes connections for ever"),
    };
    shown.push_str(&said);
    assert!(shown.contains("\"last_error\":{"), "the drains were listed");
    assert!(shown.contains("messages lost for application app"), "owners were told: {shown}");
    assert!(log.contains("Drain starts") && log.contains("does not deliver"), "the log was read");
    for (what, text) in [("outputs", &shown), ("log", &log)] {
        let found: Vec<&str> = text.lines().filter(|line| line.contains("canary")).take(3).collect();
        assert!(found.is_empty(), "a canary is in the {what}: {found:?}");
    }
}
