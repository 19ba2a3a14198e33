//! What is drawn for eyes, on a terminal of somebody else's making: tmux.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use proto::v2;
use tokio::process::Command;
use tokio::time::interval;

use crate::commands::run;
use crate::harness::{Producer, pipeline, tool};

/// A terminal of its own, which a command runs in.
struct Screen {
    tmux: PathBuf,
    dir: tempfile::TempDir,
}

impl Screen {
    /// Runs `hydrant` with `args`; says at its end how it ended.
    async fn start(width: u16, height: u16, args: &str) -> Self {
        let screen = Self { tmux: tool("bin/tmux"), dir: tempfile::tempdir().unwrap() };
        let script = format!("trap : INT; '{}' {args}; echo \"ended with $?\"; cat", env!("CARGO_BIN_EXE_hydrant"));
        let (width, height) = (width.to_string(), height.to_string());
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, &script]).await;
        screen
    }

    async fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.tmux);
        command.arg("-u").arg("-S").arg(self.dir.path().join("socket")).args(args).env("TERM", "xterm-256color");
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat()).await;
    }

    async fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]).await;
    }

    /// Looks until what is seen is as it should be; for a minute at most.
    async fn until(&self, done: impl Fn(&str) -> bool) -> String {
        let mut look = interval(Duration::from_millis(20));
        let mut seen = String::new();
        for _ in 0..3_000 {
            look.tick().await;
            seen = self.tmux(&["capture-pane", "-p"]).await;
            if done(&seen) {
                return seen;
            }
        }
        panic!("a minute has passed, and what is seen is\n{seen}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let socket = self.dir.path().join("socket");
        let _gone = std::process::Command::new(&self.tmux).arg("-S").arg(socket).arg("kill-server").output();
    }
}

fn logs(source: &str, texts: &[&str]) -> Vec<v2::Envelope> {
    texts.iter().map(|text| v2::Envelope::log(source, (*text).to_owned()).instance("0")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_sorts_filters_tails_and_gives_the_terminal_back() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(logs("shop", &["one", "two", "three"])).await;
    producer.send(logs("other", &["x"])).await;
    producer.settled().await;
    let screen = Screen::start(80, 24, &format!("top --server {}", up.traffic_controller().grpc)).await;
    let row = |seen: &str, source: &str| seen.lines().any(|line| line.trim_start().starts_with(source));
    let seen = screen.until(|seen| row(seen, "shop") && row(seen, "other") && seen.contains("/s in")).await;
    assert!(seen.contains("Sources 2") && seen.contains("LINES/S▾") && seen.contains("? help"), "{seen}");
    screen.press(&["s"]).await;
    screen.until(|seen| seen.contains("BYTES/S▾")).await;
    screen.press(&["/", "s", "h", "o", "Enter"]).await;
    screen.until(|seen| seen.contains("filter: sho") && row(seen, "shop") && !row(seen, "other")).await;
    for (width, height) in [(10, 3), (1, 1), (200, 50)] {
        screen.resize(width, height).await;
    }
    screen.until(|seen| row(seen, "shop")).await;
    screen.press(&["Enter"]).await;
    screen.until(|seen| seen.contains("q goes back") && seen.contains("shop/0   three")).await;
    producer.send(logs("shop", &["four"])).await;
    screen.until(|seen| seen.contains("shop/0   four")).await;
    screen.press(&["q"]).await;
    screen.until(|seen| seen.contains("Sources 2")).await;
    screen.press(&["Tab"]).await;
    screen.until(|seen| seen.contains("CONSUMER")).await;
    screen.press(&["?"]).await;
    screen.until(|seen| seen.contains("the next pane")).await;
    screen.press(&["q", "q"]).await;
    screen.until(|seen| seen.contains("ended with 0") && !seen.contains("Sources 2")).await;
    up.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_is_set_in_columns_and_ends_with_ctrl_c() {
    let up = pipeline("").await;
    let mut producer = Producer::connect(up.agent().grpc).await;
    producer.send(logs("longer", &[r#"{"level":"warn","msg":"slow","ms":5}"#])).await;
    producer.send(vec![v2::Envelope::log("app", "\u{1b}[2Joh").err()]).await;
    producer.settled().await;
    let screen = Screen::start(80, 24, &format!("tail longer app --server {}", up.traffic_controller().grpc)).await;
    let seen = screen.until(|seen| seen.contains("oh")).await;
    let ends = |end: &str| seen.lines().any(|line| line.ends_with(end));
    assert!(ends(" longer/0   WARN  slow ms=5") && ends(" app      ! \\x1b[2Joh"), "{seen}");
    screen.press(&["C-c"]).await;
    screen.until(|seen| seen.contains("ended with 130")).await;
    up.shutdown().await.unwrap();
}

#[tokio::test]
async fn top_refuses_what_is_no_terminal() {
    let (_, errors, code) = run(&["top"]).await;
    assert_eq!(code, 2);
    assert!(errors.contains("draws on a terminal") && errors.contains("hydrant status"), "{errors}");
}
