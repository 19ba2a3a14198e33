//! An agent that is killed while it reads files: nothing is lost, and what is repeated is bounded and counted.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use proto::v2::envelope::Message;
use tokio::time::timeout;

use crate::harness::{Process, logs, next, pipeline, subscribe, sum, until};

const LINES: usize = 15_000;
const KILLS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_loses_no_line_of_a_file() {
    // What a subscriber is too slow for is lost to it, and no fault of the agent: room for all.
    let up = pipeline("[doppler.egress]\nring_envelopes = 1000000\nring_bytes = 536870912\n").await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("pods/shop_web-1_uid/nginx/0.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    let config = format!(
        "[[agent.dopplers]]\naddresses = [\"{}\"]\n[agent.file_reading]\nstate_dir = {:?}\ncheckpoint_interval = \"50ms\"\n\
         [[agent.files]]\npaths = [\"{}/pods/*/*/*.log\"]\nformat = \"cri\"\n",
        up.doppler().grpc,
        dir.path().join("state").display().to_string(),
        dir.path().display(),
    );
    let mut stream = subscribe(up.doppler().grpc, &[logs()]).await;
    let mut arrived: BTreeMap<usize, u64> = BTreeMap::new();
    let mut file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let (mut written, mut counted) = (0, 0);
    for kill in 0..=KILLS {
        let agent = Process::start("agent", &config).await;
        let more: String = (written..written + LINES)
            .map(|i| format!("2024-04-05T19:34:38.{i:09}Z stdout F line {i} {}\n", "x".repeat(100)))
            .collect();
        file.write_all(more.as_bytes()).unwrap();
        written += LINES;
        // Killed with most of it on its way; the last one reads to the end.
        let enough = if kill < KILLS { written - LINES / 2 } else { written };
        let reading = async {
            while arrived.len() < enough {
                for envelope in next(&mut stream).await.expect("the doppler goes on") {
                    let Some(Message::Log(log)) = &envelope.message else { continue };
                    assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop/nginx", "web-1"));
                    let text = String::from_utf8_lossy(&log.payload);
                    let number = text.split(' ').nth(1).and_then(|number| number.parse().ok());
                    *arrived.entry(number.unwrap_or_else(|| panic!("{text:?} was never written"))).or_default() += 1;
                }
            }
        };
        timeout(Duration::from_secs(120), reading)
            .await
            .unwrap_or_else(|_| panic!("lines are missing after {kill} kills"));
        let kept = |page: &BTreeMap<String, f64>| sum(page, "hydrant_files_checkpoints_total", "written") > 1;
        counted += sum(&until(agent.addr("admin"), kept).await, "hydrant_files_repeated_total", "");
        if kill < KILLS {
            agent.kill().await;
        } else {
            agent.terminate();
            assert!(agent.ended().await.success());
        }
    }
    assert!(arrived.keys().copied().eq(0..written), "each line arrived");
    let repeated: u64 = arrived.values().map(|times| times - 1).sum();
    // What was handed on since the last checkpoint is read again, not what was before that.
    assert!(repeated <= (KILLS * 2 * LINES) as u64, "{repeated} lines came again, {counted} of them counted");
    assert!(counted <= (KILLS * 2 * LINES) as u64, "{counted} were counted");
    up.shutdown().await.unwrap();
}
