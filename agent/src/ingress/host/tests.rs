//! Readings of a made-up machine in a directory.

use std::collections::BTreeMap;

use prost::Message as _;
use proto::v2;
use proto::v2::envelope::Message;

use super::*;

const STAT: &str = "cpu  100 10 50 800 20 5 5 10 0 0\ncpu0 60 10 20 400 20 0 0 0\ncpu1 40 0 30 400 0 5 5 10\nintr 1\n";
const LATER: &str =
    "cpu  150 10 75 900 40 5 10 10 0 0\ncpu0 110 10 20 400 20 0 0 40\ncpu1 40 0 30 500 0 5 5 10\nintr 2\n";

struct Machine {
    root: tempfile::TempDir,
    telemetry: Telemetry,
    reader: Reader,
}

fn machine() -> Machine {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let disks = crate::HostDisks { system: "/".into(), ephemeral: path("data"), persistent: path("store") };
    let config = HostConfig {
        proc_root: path("proc"),
        sys_root: path("sys"),
        health_file: path("health.json"),
        source_id: "vm".into(),
        disks,
        ..HostConfig::default()
    };
    let telemetry = Telemetry::default();
    let reader = Reader::new(config, HostMetrics::register(&telemetry));
    let machine = Machine { root, telemetry, reader };
    machine.write("proc/stat", STAT);
    machine.write("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
    machine.write("proc/loadavg", "0.50 1.25 2.00 1/2 3\n");
    machine.write(
        "proc/net/dev",
        "x |y\n a |b\n  lo: 1 1 1 1 0 0 0 0 1 1 1 1 0 0 0 0\neth0: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0\n",
    );
    machine.write("proc/net/snmp", "Ip: Forwarding\nIp: 1\nTcp: ActiveOpens CurrEstab RetransSegs\nTcp: 5 6 7\n");
    machine.write("proc/self/mountinfo", "27 1 254:0 / / rw - ext4 /dev/vda rw\n");
    machine.write("proc/diskstats", " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n");
    for cpu in ["cpu0", "cpu1"] {
        machine.write(&format!("sys/devices/system/cpu/{cpu}/topology/physical_package_id"), "0\n");
        machine.write(&format!("sys/devices/system/cpu/{cpu}/topology/core_id"), "0\n");
    }
    machine.write("sys/devices/system/cpu/cpufreq/x", "");
    machine
}

impl Machine {
    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A reading: values and units by name, with the value of a label behind it.
    fn read(&mut self) -> BTreeMap<String, (f64, String)> {
        let Some((batch, refused)) = self.reader.read(5) else { return BTreeMap::new() };
        assert_eq!(refused.total(), 0);
        let mut readings = BTreeMap::new();
        for entry in batch.entries() {
            let envelope = v2::Envelope::decode(batch.envelope(entry)).unwrap();
            assert_eq!((envelope.source_id.as_str(), envelope.timestamp), ("vm", 5));
            assert_eq!(envelope.tags["origin"], "vm");
            let Some(Message::Gauge(gauge)) = envelope.message else { panic!("no gauge") };
            assert_eq!(gauge.metrics.len(), 1, "as a scraper makes them");
            let (mut name, value) = gauge.metrics.into_iter().next().unwrap();
            for (_, label) in envelope.tags.iter().filter(|(key, _)| *key != "origin") {
                name = format!("{name} {label}");
            }
            readings.insert(name, (value.value, value.unit));
        }
        readings
    }
}

#[test]
fn every_number_has_its_name_and_unit() {
    let mut machine = machine();
    let first = machine.read();
    assert!(!first.keys().any(|name| name.starts_with("system_cpu_user")), "shares need two readings");
    machine.write("proc/stat", LATER);
    machine.write("health.json", "{\"state\": \"running\", \"job\": \"x\"}");
    let readings = machine.read();
    let shown: Vec<String> = readings.iter().map(|(name, (value, unit))| format!("{name} {value} {unit}")).collect();
    let expected = "\
system_cpu_core_idle cpu0 0 Percent
system_cpu_core_idle cpu1 100 Percent
system_cpu_core_sys cpu0 0 Percent
system_cpu_core_sys cpu1 0 Percent
system_cpu_core_user cpu0 55.55555555555556 Percent
system_cpu_core_user cpu1 0 Percent
system_cpu_core_wait cpu0 0 Percent
system_cpu_core_wait cpu1 0 Percent
system_cpu_idle 50 Percent
system_cpu_physical_core_count 1 Cores
system_cpu_sys 12.5 Percent
system_cpu_threads_per_core 2 Threads
system_cpu_user 25 Percent
system_cpu_wait 10 Percent
system_disk_system_inode_percent * Percent
system_disk_system_io_time 10 ms
system_disk_system_percent * Percent
system_disk_system_read_bytes 1536 Bytes
system_disk_system_read_time 4 ms
system_disk_system_write_bytes 3584 Bytes
system_disk_system_write_time 8 ms
system_healthy 1 
system_load_15m 2 Load
system_load_1m 0.5 Load
system_load_5m 1.25 Load
system_mem_kb 750 KiB
system_mem_percent 75 Percent
system_network_bytes_received eth0 10 Bytes
system_network_bytes_sent eth0 20 Bytes
system_network_drop_in eth0 13 Packets
system_network_drop_out eth0 23 Packets
system_network_error_in eth0 12 Frames
system_network_error_out eth0 22 Frames
system_network_ip_forwarding 1 
system_network_packets_received eth0 11 Packets
system_network_packets_sent eth0 21 Packets
system_network_tcp_active_opens 5 
system_network_tcp_curr_estab 6 
system_network_tcp_retrans_segs 7 
system_swap_kb 0 KiB
system_swap_percent 0 Percent";
    let expected: Vec<&str> = expected.lines().collect();
    // The file system is this machine's own.
    let shares = |line: &&&str| line.contains('*');
    for line in expected.iter().filter(shares) {
        let (value, unit) = &readings[line.split(' ').next().unwrap()];
        assert!((0.0..=100.0).contains(value) && unit == "Percent", "{line}: {value}");
    }
    let plain = |line: &str| {
        if line.starts_with("system_disk_system_percent") || line.contains("inode_percent") {
            format!("{} * Percent", line.split(' ').next().unwrap())
        } else {
            line.to_owned()
        }
    };
    assert_eq!(shown.iter().map(|line| plain(line)).collect::<Vec<_>>(), expected);
}

#[test]
fn what_cannot_be_read_is_left_out_and_counted() {
    let mut machine = machine();
    let whole = machine.read().len();
    for file in ["proc/loadavg", "proc/net/snmp"] {
        fs::remove_file(machine.root.path().join(file)).unwrap();
    }
    machine.write("proc/meminfo", "MemTotal: 1 kB\n");
    machine.write("health.json", "{\"state\": 5}");
    let before = machine.reader.named;
    let readings = machine.read();
    assert_eq!(readings.len(), whole - 4 - 3 - 4, "memory, load and protocols are missing");
    assert_eq!(before, 0);
    let bit = |part: Part| 1 << part as u8;
    assert_eq!(machine.reader.named, bit(Part::Memory) | bit(Part::Load) | bit(Part::Protocols) | bit(Part::Health));
    machine.read();
    machine.write("proc/loadavg", "1 2 3\n");
    machine.write("health.json", "{\"state\": \"failing\"}");
    assert_eq!(machine.read()["system_healthy"].0.to_bits(), 0.0_f64.to_bits());
    assert_eq!(machine.reader.named, bit(Part::Memory) | bit(Part::Protocols));
    let page = machine.telemetry.render();
    for line in [
        "hydrant_host_readings_total 4",
        "hydrant_host_unreadable_total{part=\"memory\"} 3",
        "hydrant_host_unreadable_total{part=\"load\"} 2",
        "hydrant_host_unreadable_total{part=\"health\"} 2",
        "hydrant_host_unreadable_total{part=\"disk\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing from\n{page}");
    }
}

#[test]
fn a_mount_that_is_gone_or_not_to_be_seen_is_no_disk() {
    let mut machine = machine();
    let store = machine.root.path().join("store");
    let mounts = format!("27 1 254:0 / / rw - ext4 /dev/vda rw\n28 1 0:50 / {} rw - tmpfs tmpfs rw\n", store.display());
    machine.write("proc/self/mountinfo", &mounts);
    let readings = machine.read();
    assert!(readings.contains_key("system_disk_system_percent"));
    assert!(!readings.keys().any(|name| name.contains("ephemeral") || name.contains("persistent")), "{readings:?}");
    assert_eq!(machine.reader.named, 1 << Part::Disk as u8, "it is in the list and cannot be looked at");
    fs::create_dir(&store).unwrap();
    let readings = machine.read();
    assert!(readings.contains_key("system_disk_persistent_percent"));
    assert!(!readings.contains_key("system_disk_persistent_read_bytes"), "no device");
    assert_eq!(machine.reader.named, 0);
}
