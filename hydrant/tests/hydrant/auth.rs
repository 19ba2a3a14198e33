//! Tokens, from the one who makes them to the one who loses hers; and that they show up nowhere else.

use std::process::Stdio;

use prost::Message;
use proto::{events, v2};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{ANY_PORTS, Producer, get, request, sum, tool, until};

/// A client that nobody here wrote: prints `open`, each frame in hexadecimal, and at the end why it was closed.
const CLIENT: &str = "
import asyncio, os, sys, websockets
async def main():
    headers = {'Authorization': 'bearer ' + os.environ['TOKEN']}
    try:
        async with websockets.connect(sys.argv[1], additional_headers=headers) as ws:
            print('open', flush=True)
            async for message in ws:
                print(message.hex(), flush=True)
        print(ws.close_code, ws.close_reason, flush=True)
    except websockets.exceptions.InvalidStatus as refused:
        print(refused.response.status_code, flush=True)
    except websockets.exceptions.ConnectionClosed as closed:
        print(closed.rcvd.code, closed.rcvd.reason, flush=True)
asyncio.run(main())
";

fn hydrant(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hydrant"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_remove("HYDRANT_TOKEN");
    command
}

struct Client {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn connect(url: &str, ca: &std::path::Path, token: &str) -> Self {
        let mut child = Command::new(tool("venv/bin/python"))
            .args(["-c", CLIENT, url])
            .env("SSL_CERT_FILE", ca)
            .env("TOKEN", token)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, lines }
    }

    async fn line(&mut self) -> String {
        self.lines.next_line().await.unwrap().expect("a line of the client")
    }
}

/// Makes a token: itself, and its entry.
async fn made(args: &[&str]) -> (String, String) {
    let output = hydrant(&[&["token", "new"], args].concat()).output().await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (token, entry) = text.split_once("\n\n").unwrap();
    (token.to_owned(), entry.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_its_making_to_its_end() {
    let (own, own_entry) = made(&["--name", "ci", "--source", "my-app"]).await;
    let (admin, admin_entry) = made(&["--name", "ops"]).await;
    let admin_entry = format!("{admin_entry}scopes = [\"firehose\"]\n");
    let stranger = made(&[]).await.0;
    let certs = transport::TestCerts::new();
    let files = certs.server_files("web");
    let grpc = certs.files("reverselogproxy");
    let file = |name: &str| certs.dir().join(name);
    std::fs::write(file("tokens.toml"), format!("{own_entry}{admin_entry}")).unwrap();
    std::fs::write(file("own"), format!("{own}\n")).unwrap();
    let config = format!(
        "{ANY_PORTS}\nlog.filter = \"trace\"\ntraffic_controller.authorizer = \"tokens\"\n\
         traffic_controller.tokens = {:?}\ntraffic_controller.http.tls = {{ cert = {:?}, key = {:?} }}\n\
         traffic_controller.grpc.tls = {{ cert = {:?}, key = {:?}, ca = {:?} }}\n",
        file("tokens.toml"),
        files.cert,
        files.key,
        grpc.cert,
        grpc.key,
        grpc.ca
    );
    std::fs::write(file("hydrant.toml"), config).unwrap();
    let config = file("hydrant.toml").display().to_string();
    let mut up = hydrant(&["up", "--print-addrs", "--config", &config]).spawn().unwrap();
    let mut log = up.stderr.take().unwrap();
    let log = async {
        let mut text = String::new();
        log.read_to_string(&mut text).await.unwrap();
        text
    };
    let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id().unwrap()).unwrap());
    let mut addrs = BufReader::new(up.stdout.take().unwrap()).lines();
    let story = async {
        let addrs: serde_json::Value = serde_json::from_str(&addrs.next_line().await.unwrap().unwrap()).unwrap();
        let addr =
            |role: &str, port: &str| addrs[role][port].as_str().unwrap().parse::<std::net::SocketAddr>().unwrap();
        let (admin_port, rest) = (addr("traffic_controller", "admin"), addr("traffic_controller", "rest"));
        let server = addr("traffic_controller", "grpc").to_string();

        let mut producer = Producer::connect(addr("agent", "grpc")).await;
        producer.send(vec![v2::Envelope::log("my-app", "mine"), v2::Envelope::log("other", "not mine")]).await;
        producer.settled().await;

        let url = |path: &str| format!("wss://localhost:{}{path}", addr("traffic_controller", "http").port());
        let ca = certs.dir().join("ca.pem");
        assert_eq!(Client::connect(&url("/firehose/x"), &ca, &own).line().await, "401");
        assert_eq!(Client::connect(&url("/apps/other/stream"), &ca, &own).line().await, "404");
        assert_eq!(Client::connect(&url("/apps/my-app/stream"), &ca, &stranger).line().await, "401");
        let mut stream = Client::connect(&url("/apps/my-app/stream"), &ca, &own);
        assert_eq!(stream.line().await, "open");
        until(addr("doppler", "admin"), |metrics| sum(metrics, "hydrant_subscriptions", "") == 1).await;
        producer.send(vec![v2::Envelope::log("my-app", "live")]).await;
        let frame = stream.line().await;
        let bytes: Vec<u8> =
            (0..frame.len()).step_by(2).map(|i| u8::from_str_radix(&frame[i..i + 2], 16).unwrap()).collect();
        let envelope = events::Envelope::decode(&*bytes).unwrap();
        assert_eq!(envelope.log_message.unwrap().message, b"live".as_slice());

        let host = rest.to_string();
        let read = async |target: &str, token: &str| {
            request(rest, "GET", target, &[("Host", &host), ("Authorization", token)]).await.status
        };
        assert_eq!(read("/api/v1/read/my-app", &own).await, 200);
        assert_eq!(read("/api/v1/read/other", &own).await, 404);
        assert_eq!(read("/api/v1/read/other", &admin).await, 200);
        assert_eq!(read("/api/v1/meta", &stranger).await, 404);

        // A token is enough: no certificate is shown.
        let authority = ca.display().to_string();
        let tail = ["tail", "my-app", "--no-follow", "-o", "raw", "--server", &server, "--ca", &authority];
        let refused = hydrant(&tail).output().await.unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(said, "hydrant: the traffic controller refused: authorization not provided\n");
        assert_eq!(refused.status.code(), Some(1));
        let token_file = file("own").display().to_string();
        let shown = hydrant(&[&tail[..], &["--token-file", &token_file]].concat()).output().await.unwrap();
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), "mine\nlive\n");
        let shown = hydrant(&tail).env("HYDRANT_TOKEN", &own).output().await.unwrap();
        assert_eq!(String::from_utf8(shown.stdout).unwrap(), "mine\nlive\n");
        let firehose = ["firehose", "--server", &server, "--ca", &authority];
        let refused = hydrant(&firehose).env("HYDRANT_TOKEN", &own).output().await.unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("the authorization does not cover what was asked for"), "{said}");
        // Of the pipeline's state it sees its own sources.
        let look = async |command: &[&str]| {
            let args = [command, &["--server", &server, "--ca", &authority]].concat();
            let output = hydrant(&args).env("HYDRANT_TOKEN", &own).output().await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (text(output.stdout), text(output.stderr), output.status.code())
        };
        let (shown, _, code) = look(&["sources", "--once"]).await;
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((row[0], row[row.len() - 1], shown.lines().count(), code), ("my-app", "?", 2, Some(0)));
        let (_, said, code) = look(&["explain-loss"]).await;
        assert!(said.contains("which this token may not read") && code == Some(1), "{said}");
        let (shown, _, code) = look(&["status"]).await;
        assert!(shown.contains("own sources only") && code == Some(0), "{shown}");
        let (shown, _, _) = look(&["tail", "/./", "--no-follow", "-o", "raw"]).await;
        assert_eq!(shown, "mine\nlive\n");
        let follow = ["tail", "my-app", "-o", "raw", "--server", &server, "--ca", &authority];
        let mut follower = hydrant(&follow).env("HYDRANT_TOKEN", &own).spawn().unwrap();
        let mut shown = BufReader::new(follower.stdout.take().unwrap()).lines();
        assert_eq!(shown.next_line().await.unwrap().as_deref(), Some("mine"));

        std::fs::write(file("tokens.toml"), &admin_entry).unwrap();
        assert_eq!(stream.line().await, "1008 authorization expired");
        let ended = follower.wait_with_output().await.unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("authorization expired") && ended.status.code() == Some(1), "{said}");
        assert_eq!(read("/api/v1/read/my-app", &own).await, 404);

        let metrics = get(admin_port, "/metrics").await.body;
        assert!(metrics.contains("\nhydrant_tokens 1\n"), "{metrics}");
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        metrics
    };
    let (metrics, log) = tokio::join!(story, log);
    assert!(up.wait().await.unwrap().success());
    assert!(log.contains("Tokens read again"), "the log was captured");
    for token in [&own, &admin, &stranger] {
        let secret = token.strip_prefix("hy_").unwrap();
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a token is in the log");
        assert!(!metrics.contains(secret));
    }
}

#[tokio::test]
async fn what_the_token_commands_say_fits_together() {
    let (token, entry) = made(&["--name", "a"]).await;
    assert!(token.starts_with("hy_"), "{token}");
    assert!(entry.contains("name = \"a\"") && !entry.contains(&token[3..]), "{entry}");
    let mut child = hydrant(&["token", "hash"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{token}\n").as_bytes()).await.unwrap();
    drop(stdin);
    let hash = String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap();
    assert!(entry.contains(&format!("sha256 = \"{}\"", hash.trim_end())), "{entry}");

    let nothing = hydrant(&["token", "hash"]).output().await.unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("hydrant token new"));

    let tail = ["tail", "a", "--server", "203.0.113.1:1"];
    let refused = hydrant(&tail).env("HYDRANT_TOKEN", &token).output().await.unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said.starts_with("hydrant: HYDRANT_TOKEN: the token would travel to 203.0.113.1:1 in plain text"),
        "{said}"
    );
    assert!(!said.contains(&token), "{said}");
    let missing = hydrant(&[&tail[..], &["--token-file", "/nowhere/token"]].concat()).output().await.unwrap();
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.starts_with("hydrant: --token-file /nowhere/token: No such file"), "{said}");
}

#[tokio::test]
async fn check_config_finds_an_authorizer_that_cannot_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hydrant.toml");
    let check = async |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = hydrant(&["check-config", &path.display().to_string()]).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = check("traffic_controller.authorizer = \"tokens\"\n").await;
    assert!(code == Some(2) && said.contains("set traffic_controller.tokens = "), "{said}");
    let (code, said) = check("traffic_controller.rest.listen = \"0.0.0.0:8083\"\n").await;
    assert!(code == Some(2) && said.contains("traffic_controller.rest.listen"), "{said}");
    let good = "traffic_controller.authorizer = \"tokens\"\ntraffic_controller.tokens = \"/not/looked/at.toml\"\n";
    assert_eq!(check(good).await, (Some(0), String::new()));
}
