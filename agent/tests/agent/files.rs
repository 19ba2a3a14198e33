//! Files of lines, to the envelopes that a doppler gets: formats, rotation, restarts (contract of container runtimes and of Docker).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_agent::{Config, Handle, Local};
use proto::v2;
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::doppler;

mod again;
mod torture;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const TIME: &str = "2024-04-05T19:34:38.123456789Z";
const NANOS: i64 = 1_712_345_678_123_456_789;

/// A directory for files and one for what is kept of them.
struct Machine {
    dir: TempDir,
    doppler: SocketAddr,
    received: Receiver<v2::Envelope>,
    /// Of the agent that was started last.
    telemetry: Telemetry,
    /// Another source of it.
    local: Option<Local>,
    _tasks: TaskTracker,
}

impl Machine {
    async fn new() -> Self {
        let tasks = TaskTracker::new();
        let (doppler, received) = doppler(&tasks).await;
        let dir = tempfile::tempdir().unwrap();
        Self { dir, doppler, received, telemetry: Telemetry::default(), local: None, _tasks: tasks }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Starts an agent with these entries; `DIR` in them is the directory.
    async fn agent(&mut self, entries: &str) -> Handle {
        self.agent_with(entries, |_| ()).await
    }

    async fn agent_with(&mut self, entries: &str, change: impl FnOnce(&mut Config)) -> Handle {
        let dir = self.dir.path().display().to_string();
        let text = entries.replace("DIR", &dir);
        let mut config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        config.file_reading.poll_interval = Duration::from_millis(20);
        config.file_reading.scan_interval = Duration::from_millis(20);
        config.file_reading.checkpoint_interval = Duration::from_millis(50);
        config.file_reading.state_dir = Some(self.dir.path().join("state"));
        let mut config =
            Config { files: config.files, file_reading: config.file_reading, ..Config::for_test(self.doppler) };
        change(&mut config);
        self.telemetry = Telemetry::default();
        let agent = config.bind(&self.telemetry).await.unwrap();
        self.local = Some(agent.local());
        agent.spawn()
    }

    async fn next(&mut self) -> v2::Envelope {
        timeout(Duration::from_secs(60), self.received.recv()).await.expect("an envelope comes").unwrap()
    }

    /// The texts of the next log lines.
    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            texts.push(text(&self.next().await).1);
        }
        texts
    }

    fn metric(&self, series: &str) -> u64 {
        let page = self.telemetry.render();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series} is missing from\n{page}")).parse().unwrap()
    }

    /// Awaits a value.
    async fn until(&self, series: &str, value: u64) {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let reached = async {
            while self.metric(series) != value {
                look.tick().await;
            }
        };
        timeout(Duration::from_secs(60), reached)
            .await
            .unwrap_or_else(|_| panic!("{series} is {}, not {value}", self.metric(series)));
    }

    async fn stop(&mut self, agent: Handle) {
        assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
    }
}

/// Type and text of a log line.
fn text(envelope: &v2::Envelope) -> (i32, String) {
    let Some(Message::Log(log)) = &envelope.message else { panic!("no log line: {envelope:?}") };
    (log.r#type, String::from_utf8(log.payload.to_vec()).unwrap())
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn sorted(envelope: &v2::Envelope) -> BTreeMap<String, String> {
    envelope.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_log_becomes_envelopes_with_its_names() {
    let mut machine = Machine::new().await;
    let log = machine.path("pods/shop_web-6f7d-x2x_0a1b-2c/nginx/3.log");
    append(
        &log,
        &format!("{TIME} stdout F hello\n{TIME} stderr P no\n{TIME} stdout F other\njunk\n{TIME} stderr F t good\n"),
    );
    let link = machine.path(&format!("containers/web-6f7d-x2x_shop_nginx-{ID}.log"));
    std::os::unix::fs::symlink(&log, link).unwrap();
    let entries = "[[files]]\npaths = [\"DIR/containers/*.log\", \"DIR/pods/*/*/*.log\"]\nformat = \"cri\"";
    let agent = machine.agent(entries).await;
    let expected = [
        ("container", "nginx"),
        ("namespace", "shop"),
        ("origin", "shop/nginx"),
        ("pod", "web-6f7d-x2x"),
        ("pod_uid", "0a1b-2c"),
        ("restart", "3"),
        ("source_type", "CONTAINER"),
    ];
    for (kind, line) in [(0, "hello"), (0, "other"), (1, "not good")] {
        let envelope = machine.next().await;
        assert_eq!(text(&envelope), (kind, line.to_owned()));
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop/nginx", "web-6f7d-x2x"));
        assert_eq!(envelope.timestamp, NANOS);
        let mut found = sorted(&envelope);
        found.entry("origin".to_owned()).or_insert_with(|| "shop/nginx".to_owned());
        assert_eq!(found, tags(expected));
    }
    machine.until("hydrant_source_refused_total{source=\"files\",reason=\"decode_error\"}", 1).await;
    machine.stop(agent).await;
    assert_eq!(machine.metric("hydrant_source_envelopes_total{source=\"files\"}"), 3, "a link is no further file");
    assert!(machine.received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_log_has_the_containers_name_and_what_it_was_started_with() {
    let mut machine = Machine::new().await;
    let log = machine.path(&format!("{ID}/{ID}-json.log"));
    fs::write(log.with_file_name("config.v2.json"), "{\"Name\":\"/shop-web-1\"}").unwrap();
    append(
        &log,
        &format!(
            "{{\"log\":\"one \",\"stream\":\"stdout\",\"attrs\":{{\"team\":\"a\"}},\"time\":\"{TIME}\"}}\n\
             {{\"log\":\"two\\n\",\"stream\":\"stdout\",\"attrs\":{{\"team\":\"a\"}},\"time\":\"{TIME}\"}}\n"
        ),
    );
    let agent = machine.agent("[[files]]\npaths = [\"DIR/*/*-json.log\"]\nformat = \"docker\"").await;
    let envelope = machine.next().await;
    assert_eq!(text(&envelope), (0, "one two".to_owned()));
    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop-web-1", "0123456789ab"));
    let found = sorted(&envelope);
    assert_eq!(
        (found["team"].as_str(), found["container"].as_str(), found["container_id"].as_str()),
        ("a", "shop-web-1", ID)
    );
    machine.stop(agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_files_begin_at_their_end_and_later_ones_at_their_beginning() {
    let mut machine = Machine::new().await;
    let old = machine.path("logs/old.log");
    append(&old, "before\nbeing writ");
    append(&machine.path("logs/left.out.log"), "left out\n");
    append(&machine.path("logs/old.log.1.gz"), "compressed\n");
    let entries =
        "[[files]]\npaths = [\"DIR/logs/*\"]\nexclude = [\"DIR/logs/left*\"]\nformat = \"plain\"\ninstance_id = \"7\"";
    let agent = machine.agent(entries).await;
    machine.until("hydrant_files_open", 1).await;
    append(&old, "ten\r\nafter\n");
    assert_eq!(machine.texts(2).await, ["being written", "after"]);
    append(&machine.path("logs/new.log"), "first\n");
    let envelope = machine.next().await;
    assert_eq!(text(&envelope), (0, "first".to_owned()));
    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("new", "7"));
    assert_eq!(sorted(&envelope)["path"], machine.path("logs/new.log").display().to_string());
    machine.stop(agent).await;
    append(&old, "while away\n");
    append(&machine.path("logs/newer.log"), "came while away\n");
    let agent = machine.agent(entries).await;
    let mut texts = machine.texts(2).await;
    texts.sort();
    assert_eq!(texts, ["came while away", "while away"]);
    machine.stop(agent).await;
    assert_eq!(machine.metric("hydrant_files_repeated_total"), 0);
    assert!(machine.received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_one_envelope_also_when_nothing_follows() {
    let mut machine = Machine::new().await;
    let log = machine.path("app.log");
    append(&log, "start\njava.lang.Error: x\n\tat a.b(C.java:1)\nCaused by: y\n\tat d\n");
    let entries =
        "[[files]]\npaths = [\"DIR/app.log\"]\nformat = \"plain\"\nstart = \"beginning\"\nmultiline = \"java\"";
    let agent = machine.agent(entries).await;
    assert_eq!(machine.texts(2).await, ["start", "java.lang.Error: x\n\tat a.b(C.java:1)\nCaused by: y\n\tat d"]);
    machine.stop(agent).await;
}

/// A file that was renamed is read to its end, and so is one that nobody can find any more; what took its place is read from its
/// beginning; what was copied aside before it was cut is read on in the copy.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_loses_nothing_and_repeats_nothing() {
    let mut machine = Machine::new().await;
    let log = machine.path("logs/app.log");
    let entries = "[[files]]\npaths = [\"DIR/logs/*.log\"]\nformat = \"plain\"\nstart = \"beginning\"";
    append(&log, "a1\n");
    let agent = machine.agent(entries).await;
    assert_eq!(machine.texts(1).await, ["a1"]);

    let mut held = OpenOptions::new().append(true).open(&log).unwrap();
    fs::rename(&log, machine.path("logs/app.log.1")).unwrap();
    append(&log, "b1\n");
    assert_eq!(machine.texts(1).await, ["b1"]);
    held.write_all(b"a2\n").unwrap();
    assert_eq!(machine.texts(1).await, ["a2"], "who has the old one open may write to it");

    fs::remove_file(&log).unwrap();
    append(&log, "c1\nc2 which makes it longer than what comes next\n");
    assert_eq!(machine.texts(2).await[0], "c1");

    fs::copy(&log, machine.path("logs/app.log.2")).unwrap();
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, "d1\n");
    assert_eq!(machine.texts(1).await, ["d1"]);
    machine.until("hydrant_files_truncated_total", 1).await;
    machine.stop(agent).await;

    // Twice while nobody looks, once by each means.
    append(&log, "d2\n");
    fs::rename(&log, machine.path("logs/app.log.3")).unwrap();
    append(&log, "e1\n");
    fs::rename(&log, machine.path("logs/app.log.4")).unwrap();
    append(&log, "f1\n");
    let agent = machine.agent(entries).await;
    let mut texts = machine.texts(3).await;
    texts.sort();
    assert_eq!(texts, ["d2", "e1", "f1"]);
    machine.stop(agent).await;

    append(&log, "f2\n");
    fs::copy(&log, machine.path("logs/app.log.5")).unwrap();
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, "g1 which is longer than all that was there before\n");
    let agent = machine.agent(entries).await;
    let mut texts = machine.texts(2).await;
    texts.sort();
    assert_eq!(texts, ["f2", "g1 which is longer than all that was there before"]);
    machine.stop(agent).await;
    assert!(machine.received.try_recv().is_err());
    for series in ["hydrant_files_lost_bytes_total", "hydrant_files_vanished_total", "hydrant_files_repeated_total"] {
        assert_eq!(machine.metric(series), 0, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_than_may_be_open_take_turns() {
    let mut machine = Machine::new().await;
    for i in 0..10 {
        append(&machine.path(&format!("logs/{i}.log")), &format!("{i}\n"));
    }
    let entries = "[[files]]\npaths = [\"DIR/logs/*\"]\nformat = \"plain\"\nstart = \"beginning\"";
    let agent = machine.agent_with(entries, |config| config.file_reading.max_files = 3.try_into().unwrap()).await;
    machine.until("hydrant_files_open", 3).await;
    assert!(machine.metric("hydrant_files_waiting") >= 4, "they wait while others were just read");
    let mut texts = machine.texts(10).await;
    texts.sort();
    assert_eq!(texts, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    append(&machine.path("logs/0.log"), "again\n");
    assert_eq!(machine.texts(1).await, ["again"], "one that was closed is looked at");
    assert_eq!(machine.metric("hydrant_files_open"), 3);
    machine.stop(agent).await;
}

/// While no doppler takes anything, files wait on disk: the ring is not filled with what can be read later.
#[tokio::test(flavor = "multi_thread")]
async fn files_wait_while_the_doppler_is_away() {
    let mut machine = Machine::new().await;
    let log = machine.path("app.log");
    let line = "x".repeat(99);
    append(&log, &format!("{line}\n").repeat(50_000));
    let entries = "[[files]]\npaths = [\"DIR/app.log\"]\nformat = \"plain\"\nstart = \"beginning\"";
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let doppler = std::mem::replace(&mut machine.doppler, nobody);
    let change = |config: &mut Config| {
        config.egress.ring_envelopes = 8_000.try_into().unwrap();
        config.flush_timeout = Duration::from_millis(1);
    };
    let agent = machine.agent_with(entries, change).await;
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let half_full = async {
        while machine.metric("hydrant_source_envelopes_total{source=\"files\"}") < 4_000 {
            look.tick().await;
        }
    };
    timeout(Duration::from_secs(60), half_full).await.expect("it reads until the ring is half full");
    assert_eq!(machine.metric("hydrant_files_behind_max_bytes"), 5_000_000);
    assert!(agent.shutdown().await.unwrap().dropped > 0);
    let read = machine.metric("hydrant_source_envelopes_total{source=\"files\"}");
    assert!((4_000..16_000).contains(&read), "{read} lines were read");
    assert_eq!(machine.metric("hydrant_dropped_envelopes_total{stage=\"agent\",reason=\"queue_full\"}"), 0);

    machine.doppler = doppler;
    let agent = machine.agent_with(entries, |config| config.egress.ring_envelopes = 8_000.try_into().unwrap()).await;
    assert_eq!(machine.texts(50_000).await.len(), 50_000, "what the deadline left behind is read again");
    machine.until("hydrant_files_behind_bytes", 0).await;
    assert_eq!(machine.metric("hydrant_files_repeated_total"), read, "it may have been sent, as far as files know");
    machine.stop(agent).await;
    assert!(machine.received.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_what_is_kept_is_set_aside_and_two_agents_do_not_share_it() {
    let mut machine = Machine::new().await;
    append(&machine.path("app.log"), "one\n");
    fs::create_dir(machine.dir.path().join("state")).unwrap();
    fs::write(machine.dir.path().join("state/agent-files.json"), "{}").unwrap();
    let entries = "[[files]]\npaths = [\"DIR/app.log\"]\nformat = \"plain\"\nstart = \"beginning\"";
    let agent = machine.agent(entries).await;
    assert_eq!(machine.texts(1).await, ["one"]);
    assert_eq!(fs::read(machine.dir.path().join("state/agent-files.damaged")).unwrap(), b"{}");
    let text = format!(
        "[[files]]\npaths = [\"/a\"]\nformat = \"plain\"\n[file_reading]\nstate_dir = {:?}",
        machine.dir.path().join("state")
    );
    let parsed: Config = toml::from_str(&text).unwrap();
    let config = || Config {
        files: parsed.files.clone(),
        file_reading: parsed.file_reading.clone(),
        ..Config::for_test(machine.doppler)
    };
    let error = config().bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.contains("is used by another agent"), "{error}");
    let mut none = config();
    none.file_reading.state_dir = None;
    let error = none.bind(&Telemetry::default()).await.unwrap_err().to_string();
    assert!(error.starts_with("agent.file_reading.state_dir is not set"), "{error}");
    machine.stop(agent).await;
}
