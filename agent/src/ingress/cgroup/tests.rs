//! Readings of a made-up tree in a directory.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use prost::Message as _;
use proto::v2;
use proto::v2::envelope::Message;

use super::*;

const CART: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SANDBOX: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const ALONE: &str = "3333333333333333333333333333333333333333333333333333333333333333";
const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

struct Tree {
    root: tempfile::TempDir,
    telemetry: Telemetry,
    reader: Reader,
    at: Instant,
}

fn tree(max_containers: usize) -> Tree {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let config = ContainersConfig {
        root: path("cgroup"),
        logs_root: path("pods"),
        links_root: path("links"),
        proc_root: path("proc"),
        max_containers: NonZeroUsize::new(max_containers).unwrap(),
        ..ContainersConfig::default()
    };
    let telemetry = Telemetry::default();
    let reader = Reader::new(config, ContainersMetrics::register(&telemetry));
    let tree = Tree { root, telemetry, reader, at: Instant::now() };
    tree.write("cgroup/cgroup.controllers", "cpu memory\n");
    tree.write("cgroup/init.scope/cpu.stat", "usage_usec 1\n");
    tree.write("proc/meminfo", "MemTotal: 2048 kB\nMemAvailable: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
    tree.write("proc/uptime", "1000.50 1.00\n");
    tree.write(
        "proc/42/stat",
        &format!("42 (a) {}\n", (3..=52).map(|field| (field * 100).to_string()).collect::<Vec<_>>().join(" ")),
    );
    tree
}

impl Tree {
    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn container(&self, path: &str, usage_usec: u64, max: &str) {
        self.write(&format!("cgroup/{path}/cpu.stat"), &format!("usage_usec {usage_usec}\nuser_usec 0\n"));
        self.write(&format!("cgroup/{path}/memory.current"), "5000\n");
        self.write(&format!("cgroup/{path}/memory.stat"), "anon 1\ninactive_file 1000\n");
        self.write(&format!("cgroup/{path}/memory.max"), &format!("{max}\n"));
        self.write(&format!("cgroup/{path}/cgroup.procs"), "42\n");
    }

    /// A reading this long after the last one.
    fn read(&mut self, later: Duration) -> Vec<v2::Envelope> {
        self.at += later;
        let batches = self.reader.read(self.at, 5);
        let mut envelopes: Vec<v2::Envelope> = Vec::new();
        for (batch, refused) in batches {
            assert_eq!(refused.total(), 0);
            let decode = |entry| v2::Envelope::decode(batch.envelope(entry)).unwrap();
            envelopes.extend(batch.entries().iter().map(decode));
        }
        envelopes.sort_by_key(|envelope| (envelope.source_id.clone(), !values(envelope).contains_key("cpu")));
        envelopes
    }

    fn page_has(&self, line: &str) {
        let page = self.telemetry.render();
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
}

/// Values of a gauge with their units, by name.
fn values(envelope: &v2::Envelope) -> BTreeMap<&str, (f64, &str)> {
    let Some(Message::Gauge(gauge)) = &envelope.message else { panic!("no gauge: {envelope:?}") };
    gauge.metrics.iter().map(|(name, metric)| (name.as_str(), (metric.value, metric.unit.as_str()))).collect()
}

#[test]
fn a_container_is_told_of_in_two_gauges() {
    let mut tree = tree(10);
    tree.container(&format!("docker/{ALONE}"), 1_000_000, "max");
    let first = tree.read(Duration::ZERO);
    let second_gauge = |usage, age| {
        BTreeMap::from([("absolute_usage", (usage, "nanoseconds")), ("container_age", (age, "nanoseconds"))])
    };
    assert_eq!(first.len(), 1, "a share of a processor needs two readings");
    // Begun 2 200 ticks after the machine did, which is up for 100 050 of them.
    assert_eq!(values(&first[0]), second_gauge(1e9, 978_500_000_000.0));
    tree.container(&format!("docker/{ALONE}"), 16_000_000, "3000");
    fs::remove_dir_all(tree.root.path().join("proc/42")).unwrap();
    let second = tree.read(Duration::from_secs(10));
    assert_eq!(second.len(), 2);
    let expected = BTreeMap::from([
        ("cpu", (150.0, "percentage")),
        ("memory", (4_000.0, "bytes")),
        ("disk", (0.0, "bytes")),
        ("memory_quota", (3_000.0, "bytes")),
        ("disk_quota", (0.0, "bytes")),
    ]);
    assert_eq!(values(&second[0]), expected);
    assert_eq!(values(&second[1]), second_gauge(16e9, 978_500_000_000.0), "the process that was oldest may be gone");
    for envelope in &second {
        assert_eq!((envelope.source_id.as_str(), envelope.instance_id.as_str()), (&ALONE[..12], &ALONE[..12]));
        assert_eq!(envelope.tags.iter().collect::<Vec<_>>(), [(&"container_id".to_owned(), &ALONE.to_owned())]);
    }
    tree.container(&format!("docker/{ALONE}"), 500, "max");
    let third = tree.read(Duration::from_secs(10));
    assert_eq!(third.len(), 1, "its account began anew: no share is known");
    let fourth = tree.read(Duration::from_secs(10));
    assert_eq!(values(&fourth[0])["memory_quota"].0.to_bits(), 2_097_152.0_f64.to_bits(), "the machine's memory");
    assert_eq!(values(&fourth[0])["cpu"].0.to_bits(), 0.0_f64.to_bits());
}

#[test]
fn a_container_of_a_pod_has_the_names_of_its_logs() {
    let mut tree = tree(10);
    let slice =
        format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    tree.container(&format!("{slice}/cri-containerd-{CART}.scope"), 5, "max");
    tree.container(&format!("{slice}/cri-containerd-{SANDBOX}.scope"), 5, "max");
    tree.container("kubepods/besteffort/podaaaa/4444444444444444", 5, "max");
    let bare = tree.read(Duration::ZERO);
    let sources = |envelopes: &[v2::Envelope]| -> Vec<String> {
        envelopes.iter().map(|envelope| format!("{} {}", envelope.source_id, envelope.instance_id)).collect()
    };
    assert_eq!(
        sources(&bare),
        ["111111111111 111111111111", "222222222222 222222222222", "444444444444 444444444444"],
        "without logs the ids are all there is"
    );
    tree.write(&format!("pods/shop_cart-7d9f-x2x_{UID}/cart/0.log"), "");
    tree.write("pods/shop_idle-1_aaaa/idle/0.log", "");
    tree.write(&format!("links/cart-7d9f-x2x_shop_cart-{CART}.log"), "");
    let named = tree.read(Duration::ZERO);
    assert_eq!(sources(&named), ["444444444444 idle-1", "shop/cart cart-7d9f-x2x"], "the sandbox is left out");
    let tags: BTreeMap<&str, &str> = named[1].tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expected = [
        ("namespace", "shop"),
        ("pod", "cart-7d9f-x2x"),
        ("pod_uid", UID),
        ("container", "cart"),
        ("container_id", CART),
    ];
    assert_eq!(tags, BTreeMap::from(expected));
    tree.page_has("hydrant_containers 2");
}

#[test]
fn what_ends_costs_nothing_and_what_is_broken_costs_itself() {
    let mut tree = tree(10);
    tree.container(&format!("docker/{CART}"), 5, "max");
    tree.container(&format!("docker/{ALONE}"), 5, "max");
    tree.write(&format!("cgroup/docker/{CART}/memory.max"), "much\n");
    assert_eq!(tree.read(Duration::ZERO).len(), 1);
    tree.page_has("hydrant_containers_unreadable_total 1");
    // Between being found and being read.
    let path = format!("docker/{CART}");
    fs::remove_dir_all(tree.root.path().join("cgroup").join(&path)).unwrap();
    let machine = Machine { memory: 0, uptime: None, at: tree.at };
    let error = tree.reader.used(&path, &machine).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(tree.read(Duration::from_secs(1)).len(), 2);
    tree.page_has("hydrant_containers_unreadable_total 1");
    assert_eq!(tree.reader.last.len(), 1, "only those that are there are remembered");
    // A controller that is not turned on.
    fs::remove_file(tree.root.path().join(format!("cgroup/docker/{ALONE}/memory.current"))).unwrap();
    assert!(tree.read(Duration::from_secs(1)).is_empty());
    fs::remove_file(tree.root.path().join("cgroup/cgroup.controllers")).unwrap();
    assert!(tree.read(Duration::from_secs(1)).is_empty());
    tree.page_has("hydrant_containers_unreadable_total 3");
    tree.page_has("hydrant_containers 0");
}

#[test]
fn depth_and_number_are_bounded() {
    let mut tree = tree(2);
    for i in 0..5 {
        tree.container(&format!("docker/{i}{}", &ALONE[1..]), 5, "max");
    }
    tree.container(&format!("a/b/c/d/e/f/g/docker-{CART}.scope"), 5, "max");
    tree.container(&format!("a/b/c/d/e/f/g/h/docker-{CART}.scope"), 5, "max");
    assert_eq!(tree.read(Duration::ZERO).len(), 2);
    tree.page_has("hydrant_containers_over_total 4");
    tree.reader.config.max_containers = NonZeroUsize::new(100).unwrap();
    assert_eq!(tree.read(Duration::ZERO).len(), 6, "the eighth level is the last");
    tree.reader.config.max_containers = NonZeroUsize::new(1).unwrap();
    for i in 0..2 * LOOKS {
        tree.write(&format!("cgroup/wide/{i}/cpu.stat"), "");
    }
    assert!(tree.read(Duration::ZERO).len() <= 1, "no more cgroups are looked at than there may be");
}
