//! The machine's own numbers against a second, independent reading of them (contract: agents §8.4).

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use hydrant_agent::{Config, HostConfig};
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::{doppler, python};

const ORACLE: &str = "
import json, os, psutil
memory, swap, load = psutil.virtual_memory(), psutil.swap_memory(), os.getloadavg()
disk, inodes = psutil.disk_usage('/'), os.statvfs('/')
print(json.dumps({
    'cpus': psutil.cpu_count(),
    'cores': psutil.cpu_count(logical=False),
    'used_kb': (memory.total - memory.available) / 1024,
    'total_kb': memory.total / 1024,
    'swap_kb': swap.used / 1024,
    'load_15m': load[2],
    'disk_percent': disk.percent,
    'inode_percent': (inodes.f_files - inodes.f_ffree) / inodes.f_files * 100 if inodes.f_files else None,
    'net': {name: c._asdict() for name, c in psutil.net_io_counters(pernic=True, nowrap=False).items()},
}))
";

fn oracle() -> serde_json::Value {
    let output = Command::new(python()).args(["-c", ORACLE]).output().unwrap();
    assert!(output.status.success(), "{}: run scripts/tools", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn numbers_are_those_that_psutil_reads() {
    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let ask = || tokio::task::spawn_blocking(oracle);
    let before = ask().await.unwrap();
    let host = HostConfig {
        enabled: true,
        interval: Duration::from_secs(1),
        interfaces: vec![String::new()],
        ..HostConfig::default()
    };
    let telemetry = Telemetry::default();
    let agent = Config { host, ..Config::for_test(doppler) }.bind(&telemetry).await.unwrap().spawn();
    // Shares of processor time come with the second reading.
    let mut readings: BTreeMap<(String, String), (String, f64)> = BTreeMap::new();
    let mut cores = 0;
    while cores < 4 * before["cpus"].as_u64().unwrap() {
        let envelope = timeout(Duration::from_secs(60), received.recv()).await.expect("readings go on").unwrap();
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("system_metrics_agent", ""));
        assert_eq!(envelope.tags["origin"], "system_metrics_agent");
        let label = envelope.tags.iter().find(|(key, _)| *key != "origin");
        let label = label.map(|(key, value)| format!("{key}={value}")).unwrap_or_default();
        let Some(Message::Gauge(gauge)) = envelope.message else { panic!("not a gauge") };
        let (name, metric) = gauge.metrics.into_iter().next().unwrap();
        cores += u64::from(name.starts_with("system_cpu_core_"));
        // The first of each, so that all of them lie between the two looks of the oracle.
        readings.entry((name, label)).or_insert((metric.unit, metric.value));
    }
    let after = ask().await.unwrap();
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);

    let get = |name: &str| &readings[&(name.to_owned(), String::new())];
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let near = |name: &str, unit: &str, key: &str, slack: f64| {
        let (found, value) = get(name);
        let (low, high) =
            (number(&before[key]).min(number(&after[key])), number(&before[key]).max(number(&after[key])));
        assert_eq!(found, unit, "{name}");
        assert!(
            (low - slack..=high + slack).contains(value),
            "{name} is {value}, not within {low} and {high} by {slack}"
        );
    };
    let memory = number(&before["total_kb"]);
    near("system_mem_kb", "KiB", "used_kb", memory * 0.1);
    near("system_swap_kb", "KiB", "swap_kb", memory * 0.1);
    let share = get("system_mem_kb").1 / memory * 100.0;
    assert!((get("system_mem_percent").1 - share).abs() < 0.01);
    near("system_load_15m", "Load", "load_15m", 0.5);
    near("system_disk_system_percent", "Percent", "disk_percent", 3.0);
    if !before["inode_percent"].is_null() {
        near("system_disk_system_inode_percent", "Percent", "inode_percent", 3.0);
    }
    if let Some(cores) = before["cores"].as_f64() {
        assert_eq!(get("system_cpu_physical_core_count").1.to_bits(), cores.to_bits());
    }
    let all: f64 = ["user", "sys", "wait", "idle"].iter().map(|part| get(&format!("system_cpu_{part}")).1).sum();
    assert!(all > 0.0 && all < 100.1, "{all} percent");
    let names: Vec<&String> =
        readings.keys().filter(|(name, _)| name == "system_cpu_core_idle").map(|(_, label)| label).collect();
    assert_eq!(names.len() as u64, before["cpus"].as_u64().unwrap(), "{names:?}");

    let interfaces = before["net"].as_object().unwrap();
    assert!(!interfaces.is_empty(), "at least the loopback");
    for (interface, counts) in interfaces {
        for (name, unit, key) in [
            ("system_network_bytes_sent", "Bytes", "bytes_sent"),
            ("system_network_bytes_received", "Bytes", "bytes_recv"),
            ("system_network_packets_sent", "Packets", "packets_sent"),
            ("system_network_packets_received", "Packets", "packets_recv"),
            ("system_network_error_in", "Frames", "errin"),
            ("system_network_error_out", "Frames", "errout"),
            ("system_network_drop_in", "Packets", "dropin"),
            ("system_network_drop_out", "Packets", "dropout"),
        ] {
            let (found, value) = &readings[&(name.to_owned(), format!("network_interface={interface}"))];
            let (low, high) = (number(&counts[key]), number(&after["net"][interface][key]));
            assert_eq!(found, unit);
            assert!((low..=high).contains(value), "{name} of {interface} is {value}, not within {low} and {high}");
        }
    }
    for name in
        ["ip_forwarding", "udp_no_ports", "udp_in_errors", "tcp_active_opens", "tcp_curr_estab", "tcp_retrans_segs"]
    {
        assert_eq!(get(&format!("system_network_{name}")).0, "");
    }
}
