//! Numbers to gauges, one envelope each, with the names and units of the original's page (contract: agents §8.4). Pure.

use crate::gather::Gather;
use crate::host::cpu::{Shares, Topology};
use crate::host::disk::Activity;
use crate::host::memory::{Memory, percent};
use crate::host::network::{Interface, protocol};

/// What one reading says.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    gather: &'a mut Gather,
    source_id: &'a str,
    /// Nanoseconds since the Unix epoch.
    now_ns: i64,
}

/// Which mount a disk's numbers are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    System,
    Ephemeral,
    Persistent,
}

/// How full a file system is, in percent. A file system that does not count inodes has no number of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fill {
    /// Of what programs without special rights may use, as `df` tells it.
    pub(crate) bytes: f64,
    pub(crate) inodes: Option<f64>,
}

/// Name and unit of a gauge.
type Gauge = (&'static str, &'static str);

/// Of each disk, in the order of [`Report::disk`].
const DISKS: [[Gauge; 7]; 3] = [
    [
        ("system_disk_system_percent", "Percent"),
        ("system_disk_system_inode_percent", "Percent"),
        ("system_disk_system_read_bytes", "Bytes"),
        ("system_disk_system_write_bytes", "Bytes"),
        ("system_disk_system_read_time", "ms"),
        ("system_disk_system_write_time", "ms"),
        ("system_disk_system_io_time", "ms"),
    ],
    [
        ("system_disk_ephemeral_percent", "Percent"),
        ("system_disk_ephemeral_inode_percent", "Percent"),
        ("system_disk_ephemeral_read_bytes", "Bytes"),
        ("system_disk_ephemeral_write_bytes", "Bytes"),
        ("system_disk_ephemeral_read_time", "ms"),
        ("system_disk_ephemeral_write_time", "ms"),
        ("system_disk_ephemeral_io_time", "ms"),
    ],
    [
        ("system_disk_persistent_percent", "Percent"),
        ("system_disk_persistent_inode_percent", "Percent"),
        ("system_disk_persistent_read_bytes", "Bytes"),
        ("system_disk_persistent_write_bytes", "Bytes"),
        ("system_disk_persistent_read_time", "ms"),
        ("system_disk_persistent_write_time", "ms"),
        ("system_disk_persistent_io_time", "ms"),
    ],
];

/// Gauges of `/proc/net/snmp`: which protocol, what the kernel calls it there, what it is called here.
const PROTOCOLS: [(&str, &str, &str); 7] = [
    ("Ip", "Forwarding", "system_network_ip_forwarding"),
    ("Udp", "NoPorts", "system_network_udp_no_ports"),
    ("Udp", "InErrors", "system_network_udp_in_errors"),
    ("UdpLite", "InErrors", "system_network_udp_lite_in_errors"),
    ("Tcp", "ActiveOpens", "system_network_tcp_active_opens"),
    ("Tcp", "CurrEstab", "system_network_tcp_curr_estab"),
    ("Tcp", "RetransSegs", "system_network_tcp_retrans_segs"),
];

impl<'a> Report<'a> {
    pub(crate) fn new(gather: &'a mut Gather, source_id: &'a str, now_ns: i64) -> Self {
        Self { gather, source_id, now_ns }
    }

    /// All processors together, or the one called `core`.
    pub(crate) fn cpu(&mut self, core: Option<&str>, shares: &Shares) {
        let names = match core {
            None => ["system_cpu_user", "system_cpu_sys", "system_cpu_wait", "system_cpu_idle"],
            Some(_) => ["system_cpu_core_user", "system_cpu_core_sys", "system_cpu_core_wait", "system_cpu_core_idle"],
        };
        for (name, share) in names.into_iter().zip([shares.user, shares.system, shares.wait, shares.idle]) {
            self.gauge((name, "Percent"), share, core.map(|core| ("cpu_name", core)));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "there are far fewer than 2^52 processors")]
    pub(crate) fn topology(&mut self, topology: Topology) {
        self.gauge(("system_cpu_physical_core_count", "Cores"), topology.cores as f64, None);
        self.gauge(("system_cpu_threads_per_core", "Threads"), topology.threads_per_core as f64, None);
    }

    pub(crate) fn memory(&mut self, memory: &Memory) {
        self.gauge(("system_mem_kb", "KiB"), number(memory.used()), None);
        self.gauge(("system_mem_percent", "Percent"), percent(memory.used(), memory.total), None);
        self.gauge(("system_swap_kb", "KiB"), number(memory.swap_used()), None);
        self.gauge(("system_swap_percent", "Percent"), percent(memory.swap_used(), memory.swap_total), None);
    }

    pub(crate) fn load(&mut self, [one, five, fifteen]: [f64; 3]) {
        self.gauge(("system_load_1m", "Load"), one, None);
        self.gauge(("system_load_5m", "Load"), five, None);
        self.gauge(("system_load_15m", "Load"), fifteen, None);
    }

    pub(crate) fn interface(&mut self, interface: &Interface<'_>) {
        let (received, sent) = (interface.received, interface.sent);
        let numbers = [
            (("system_network_bytes_sent", "Bytes"), sent.bytes),
            (("system_network_bytes_received", "Bytes"), received.bytes),
            (("system_network_packets_sent", "Packets"), sent.packets),
            (("system_network_packets_received", "Packets"), received.packets),
            (("system_network_error_in", "Frames"), received.errors),
            (("system_network_error_out", "Frames"), sent.errors),
            (("system_network_drop_in", "Packets"), received.dropped),
            (("system_network_drop_out", "Packets"), sent.dropped),
        ];
        for (gauge, value) in numbers {
            self.gauge(gauge, number(value), Some(("network_interface", interface.name)));
        }
    }

    /// The protocols that `snmp`, the text of `/proc/net/snmp`, knows. False if it knows none.
    #[expect(clippy::cast_precision_loss, reason = "counters of packets, whose last digits nobody reads past 2^53")]
    pub(crate) fn protocols(&mut self, snmp: &str) -> bool {
        let mut known = false;
        for (of, kernel, name) in PROTOCOLS {
            if let Some(value) = protocol(snmp, of, kernel) {
                known = true;
                self.gauge((name, ""), value as f64, None);
            }
        }
        known
    }

    /// A disk that is mounted. A device without counts of its own has none here.
    pub(crate) fn disk(&mut self, disk: Disk, fill: Fill, activity: Option<Activity>) {
        let [bytes, inodes, read, written, read_ms, write_ms, busy_ms] = DISKS[disk as usize];
        self.gauge(bytes, fill.bytes, None);
        if let Some(share) = fill.inodes {
            self.gauge(inodes, share, None);
        }
        if let Some(activity) = activity {
            self.gauge(read, number(activity.read_bytes), None);
            self.gauge(written, number(activity.written_bytes), None);
            self.gauge(read_ms, number(activity.read_ms), None);
            self.gauge(write_ms, number(activity.write_ms), None);
            self.gauge(busy_ms, number(activity.busy_ms), None);
        }
    }

    pub(crate) fn healthy(&mut self, healthy: bool) {
        self.gauge(("system_healthy", ""), f64::from(u8::from(healthy)), None);
    }

    fn gauge(&mut self, (name, unit): Gauge, value: f64, label: Option<(&str, &str)>) {
        let mut draft = self.gather.envelope(self.source_id, "", self.now_ns);
        draft.tag("origin", self.source_id);
        if let Some((key, text)) = label {
            draft.tag(key, text);
        }
        draft.gauge([(name, unit, value)]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of bytes, whose last digits nobody reads past 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}
