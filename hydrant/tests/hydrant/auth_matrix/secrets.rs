//! That what callers show is shown nowhere else: not in a log of everything, not in the access log, not in metrics, not in an answer.

use std::net::SocketAddr;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use traffic_controller::test_platform::{FOREIGN, SECRET};

use super::ask::{grpc, http};
use super::bed::{ALL, Authority, By, CALLERS, OWN, ready};
use crate::harness::{ANY_PORTS, channel, get};

/// The parts of a token that stand in no other text, also when it is escaped.
fn fragments(token: &str) -> Vec<String> {
    let words = token.split(|char: char| !char.is_ascii_alphanumeric());
    let mut long: Vec<&str> = words.filter(|word| word.len() >= 16).collect();
    if token.contains('.') {
        // Tokens of one issuer begin alike; their signatures differ.
        let signature = token.rsplit('.').next().unwrap_or_default();
        long.retain(|word| signature.contains(*word));
    }
    assert!(!long.is_empty(), "{token}");
    long.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_matrix_nothing_shows_a_token_a_cookie_or_the_clients_secret() {
    for by in ALL {
        let authority = Authority::new(by);
        let (file, access) = (authority.dir().join("hydrant.toml"), authority.dir().join("access.log"));
        let config = authority.config("");
        let config = format!("{ANY_PORTS}log.filter = \"trace\"\ntraffic_controller.access_log = {access:?}\n{config}");
        std::fs::write(&file, config).unwrap();
        let mut up = Command::new(env!("CARGO_BIN_EXE_hydrant"))
            .args(["up", "--print-addrs", "--config"])
            .arg(&file)
            .env("XDG_STATE_HOME", authority.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = up.stderr.take().unwrap();
        let log = async {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.unwrap();
            text
        };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(up.id().unwrap()).unwrap());
        let mut stdout = BufReader::new(up.stdout.take().unwrap()).lines();
        let work = async {
            let addrs: serde_json::Value = serde_json::from_str(&stdout.next_line().await.unwrap().unwrap()).unwrap();
            let at = |role: &str, port: &str| addrs[role][port].as_str().unwrap().parse::<SocketAddr>().unwrap();
            let controller = |port: &str| at("traffic_controller", port);
            ready(controller("admin")).await;
            let answers = ask_everything(&authority, controller).await;
            let mut shown = answers;
            for role in ["agent", "doppler", "traffic_controller", "adapters"] {
                shown.push_str(&get(at(role, "admin"), "/metrics").await.body);
            }
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            shown
        };
        let (shown, log) = tokio::join!(work, log);
        assert!(up.wait().await.unwrap().success());
        let access = std::fs::read_to_string(access).unwrap();
        assert!(
            log.contains("TRACE") && access.contains("|GET /firehose/x|") && shown.contains("hydrant_"),
            "{access}"
        );
        assert!(access.contains("|GET /set-cookie|"), "{access}");

        let tokens = &authority.shown;
        let all = [&tokens.unknown, &tokens.expired, &tokens.elsewhere, &tokens.reader, &tokens.pattern, &tokens.admin];
        let mut secrets: Vec<String> = all.into_iter().flat_map(|token| fragments(token)).collect();
        if by == By::Uaa {
            secrets.extend([SECRET.to_owned(), "secret/of".to_owned(), "secret%2Fof".to_owned()]);
            secrets.push(STANDARD.encode(format!("doppler:{SECRET}")).trim_end_matches('=').to_owned());
        }
        for (what, text) in [("log", &log), ("access log", &access), ("answers and metrics", &shown)] {
            let found = text.lines().find(|line| secrets.iter().any(|secret| line.contains(secret.as_str())));
            assert_eq!(found, None, "{by:?}: a secret is in the {what}");
        }
    }
}

/// Every endpoint, by every caller, and tokens where they do not belong. All that comes back, but for cookies that were asked for.
async fn ask_everything(authority: &Authority, controller: impl Fn(&str) -> SocketAddr) -> String {
    let mut shown = String::new();
    let to_grpc = channel(controller("grpc")).await;
    for caller in CALLERS {
        let headers = authority.headers(caller, controller("http"));
        for (port, target, upgrade) in [
            ("http", "/firehose/x".to_owned(), true),
            ("http", format!("/apps/{OWN}/stream"), true),
            ("http", format!("/apps/{FOREIGN}/recentlogs"), false),
            ("http", format!("/v2/read?log&source_id={OWN}"), false),
            ("gateway", format!("/v2/stream?log&source_id={OWN}&start_time=0"), true),
            ("rest", format!("/api/v1/read/{OWN}"), false),
            ("http", "/api/v1/meta".to_owned(), false),
            ("http", "/v1/overview".to_owned(), false),
            ("http", "/".to_owned(), false),
        ] {
            let open = http(controller(port), "GET", &target, &headers, upgrade).await;
            shown.push_str(&String::from_utf8_lossy(&open.bytes));
        }
        for call in ["batched", "receiver", "follow"] {
            let (_, bytes) = grpc(to_grpc.clone(), call, FOREIGN, &headers).await;
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        // Its answer is the cookie.
        for method in ["POST", "DELETE"] {
            http(controller("http"), method, "/v1/session", &headers, false).await;
        }
    }
    for token in [&authority.shown.reader, &authority.shown.admin] {
        let made = format!("/set-cookie?CookieName=authorization&CookieValue=bearer%20{token}");
        assert_eq!(http(controller("http"), "GET", &made, &Vec::new(), false).await.status(), 200);
        let twice = vec![("authorization", format!("bearer {token}")), ("authorization", token.clone())];
        let basic = vec![("authorization", format!("Basic {token}"))];
        for headers in [twice, basic] {
            let open = http(controller("http"), "GET", "/v1/overview", &headers, false).await;
            assert_eq!(open.status(), 401);
            shown.push_str(&String::from_utf8_lossy(&open.bytes));
        }
    }
    shown
}
