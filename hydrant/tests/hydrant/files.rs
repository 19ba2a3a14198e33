//! An agent that is killed while it reads files: nothing is lost, and what is repeated is bounded and counted.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use proto::codec::Wire;
use proto::v2::envelope::Message;
use tokio::time::timeout;
use tonic::Streaming;

use crate::harness::{Process, logs, metrics, next, pipeline, subscribe, sum, until};

/// Written at once.
const LINES: usize = 15_000;
const KILLS: usize = 4;

/// Up to where the checkpoint says that all has left; nothing before the first one is written.
fn claimed(state: &Path) -> u64 {
    let Ok(kept) = std::fs::read_to_string(state.join("agent-files.json")) else { return 0 };
    let (_, body) = kept.split_once('\n').expect("a checkpoint takes its place at once");
    let kept: serde_json::Value = serde_json::from_str(body).unwrap();
    kept["files"][0]["from"][0].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_loses_no_line_of_a_file() {
    // What a subscriber is too slow for is lost to it, and no fault of the agent: room for all.
    let up = pipeline("[doppler.egress]\nring_envelopes = 1000000\nring_bytes = 536870912\n").await;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let log = dir.path().join("pods/shop_web-1_uid/nginx/0.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let config = format!(
        "[[agent.dopplers]]\naddresses = [\"{}\"]\n[agent.file_reading]\nstate_dir = {:?}\ncheckpoint_interval = \"50ms\"\n\
         [[agent.files]]\npaths = [\"{}/pods/*/*/*.log\"]\nformat = \"cri\"\n",
        up.doppler().grpc,
        state.display().to_string(),
        dir.path().display(),
    );
    let mut arrived = Arrived { stream: subscribe(up.doppler().grpc, &[logs()]).await, times: BTreeMap::new() };
    let mut file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let (mut written, mut counted) = (0, 0);
    let mut write = |count: usize| {
        let line = |i: usize| format!("2024-04-05T19:34:38.{i:09}Z stdout F line {i} {}\n", "x".repeat(100));
        let more: String = (written..written + count).map(line).collect();
        file.write_all(more.as_bytes()).unwrap();
        written += count;
        (written, file.metadata().unwrap().len())
    };
    for _ in 0..KILLS {
        let agent = Process::start("agent", &config).await;
        let (all, bytes) = write(LINES);
        arrived.until(all).await;
        let kept = |_: &BTreeMap<String, f64>| claimed(&state) == bytes;
        counted += sum(&until(agent.addr("admin"), kept).await, "hydrant_files_repeated_total", "");
        // It is killed in the middle of these.
        write(LINES);
        arrived.until(all + LINES / 4).await;
        agent.kill().await;
    }
    let agent = Process::start("agent", &config).await;
    let (all, _) = write(LINES);
    arrived.until(all).await;
    counted += sum(&metrics(agent.addr("admin")).await, "hydrant_files_repeated_total", "");
    agent.terminate();
    assert!(agent.ended().await.success());
    assert!(arrived.times.keys().copied().eq(0..all), "each line arrived");
    let repeated: u64 = arrived.times.values().map(|times| times - 1).sum();
    // What was handed on since the last checkpoint is read again, not what was before that.
    assert!(repeated <= (KILLS * LINES) as u64, "{repeated} lines came again, {counted} of them counted");
    assert!(counted <= (KILLS * LINES) as u64, "{counted} were counted");
    up.shutdown().await.unwrap();
}

/// What a subscriber has got.
struct Arrived {
    stream: Streaming<Wire>,
    /// By number of the line.
    times: BTreeMap<usize, u64>,
}

impl Arrived {
    /// Awaits that many different lines.
    async fn until(&mut self, lines: usize) {
        let reading = async {
            while self.times.len() < lines {
                for envelope in next(&mut self.stream).await.expect("the doppler goes on") {
                    let Some(Message::Log(log)) = &envelope.message else { continue };
                    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop/nginx", "web-1"));
                    let text = String::from_utf8_lossy(&log.payload);
                    let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
                    *self.times.entry(number.unwrap_or_else(|| panic!("{text:?} was never written"))).or_default() += 1;
                }
            }
        };
        timeout(Duration::from_secs(120), reading)
            .await
            .unwrap_or_else(|_| panic!("{} of {lines} lines came", self.times.len()));
    }
}
