//! What containers use, from a cgroup tree to what a doppler gets (contract: agents §10.2).

use std::fs;
use std::path::Path;
use std::time::Duration;

use hydrant_agent::{Config, ContainersConfig};
use proto::v2::envelope::Message;
use telemetry::Telemetry;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::harness::doppler;

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn a_container_metric_and_the_logs_of_a_container_have_one_source() {
    let root = tempfile::tempdir().unwrap();
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let uid = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
    let cgroup = format!("cgroup/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope", uid.replace('-', "_"));
    write(root.path(), "cgroup/cgroup.controllers", "cpu memory\n");
    write(root.path(), &format!("{cgroup}/cpu.stat"), "usage_usec 7000000\n");
    write(root.path(), &format!("{cgroup}/memory.current"), "5000\n");
    write(root.path(), &format!("{cgroup}/memory.stat"), "inactive_file 1000\n");
    write(root.path(), &format!("{cgroup}/memory.max"), "8000\n");
    // Of this process, which runs.
    write(root.path(), &format!("{cgroup}/cgroup.procs"), &format!("{}\n", std::process::id()));
    write(root.path(), &format!("pods/shop_cart-7d9f-x2x_{uid}/cart/0.log"), "");
    write(root.path(), &format!("links/cart-7d9f-x2x_shop_cart-{id}.log"), "");

    let tasks = TaskTracker::new();
    let (doppler, mut received) = doppler(&tasks).await;
    let telemetry = Telemetry::default();
    let containers = ContainersConfig {
        enabled: true,
        interval: Duration::from_secs(1),
        root: root.path().join("cgroup"),
        logs_root: root.path().join("pods"),
        links_root: root.path().join("links"),
        ..ContainersConfig::default()
    };
    let agent = Config { containers, ..Config::for_test(doppler) }.bind(&telemetry).await.unwrap().spawn();
    let mut ages = Vec::new();
    loop {
        let envelope = timeout(Duration::from_secs(60), received.recv()).await.expect("readings go on").unwrap();
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), ("shop/cart", "cart-7d9f-x2x"));
        assert_eq!((envelope.tags["pod_uid"].as_str(), envelope.tags["container_id"].as_str()), (uid, id));
        let Some(Message::Gauge(gauge)) = envelope.message else { panic!("not a gauge") };
        let value = |name: &str| gauge.metrics.get(name).map(|metric| metric.value);
        if let Some(age) = value("container_age") {
            assert_eq!(value("absolute_usage"), Some(7e9));
            ages.push(age);
            continue;
        }
        assert_eq!(gauge.metrics.len(), 5);
        assert_eq!((value("cpu"), value("memory"), value("memory_quota")), (Some(0.0), Some(4_000.0), Some(8_000.0)));
        break;
    }
    let day = 86_400e9;
    assert!(!ages.is_empty() && ages.is_sorted() && ages.iter().all(|age| (0.0..day).contains(age)), "{ages:?}");
    assert_eq!(agent.shutdown().await.unwrap().dropped, 0);
}
