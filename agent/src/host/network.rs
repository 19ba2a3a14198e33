//! Interfaces from `/proc/net/dev` and protocols from `/proc/net/snmp` (proc_pid_net(5)). Pure.

/// What one interface has counted since it came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) received: Direction,
    pub(crate) sent: Direction,
}

/// One direction of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

/// The interfaces, in the kernel's order. Heads of columns and broken lines are none.
pub(crate) fn interfaces(dev: &str) -> impl Iterator<Item = Interface<'_>> {
    dev.lines().filter_map(interface)
}

fn interface(line: &str) -> Option<Interface<'_>> {
    let (name, numbers) = line.rsplit_once(':')?;
    let name = name.trim();
    let mut columns = [0_u64; 12];
    let mut words = numbers.split_ascii_whitespace();
    for column in &mut columns {
        *column = words.next()?.parse().ok()?;
    }
    let direction = |at: usize| Direction {
        bytes: columns[at],
        packets: columns[at + 1],
        errors: columns[at + 2],
        dropped: columns[at + 3],
    };
    (!name.is_empty()).then_some(Interface { name, received: direction(0), sent: direction(8) })
}

/// The number called `name` of `protocol`. Each protocol has a line of names and below it a line of numbers.
pub(crate) fn protocol(snmp: &str, protocol: &str, name: &str) -> Option<i64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
    pairs.find(|(known, _)| *known == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0:18446744073709551615 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
eth0:1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
  eth1: 1 2 3
";

    #[test]
    fn interfaces_are_read_by_column() {
        let found: Vec<_> = interfaces(DEV).collect();
        let names: Vec<_> = found.iter().map(|interface| interface.name).collect();
        assert_eq!(names, ["lo", "eth0", "eth0:1"]);
        assert_eq!(found[1].received, Direction { bytes: u64::MAX, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(found[1].sent, Direction { bytes: 9, packets: 10, errors: 11, dropped: 12 });
    }

    const SNMP: &str = "\
Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens CurrEstab RetransSegs
Tcp: 1 200 120000 -1 2603443 7 3631
Udp: InDatagrams NoPorts InErrors
Udp: 36665 5507 6534
UdpLite: InDatagrams NoPorts InErrors
UdpLite: 0 0 9
";

    #[test]
    fn numbers_stand_under_their_names() {
        let of = |name, number| protocol(SNMP, name, number);
        assert_eq!(
            (of("Ip", "Forwarding"), of("Udp", "InErrors"), of("UdpLite", "InErrors")),
            (Some(2), Some(6534), Some(9))
        );
        assert_eq!((of("Tcp", "MaxConn"), of("Tcp", "RetransSegs")), (Some(-1), Some(3631)));
        assert_eq!((of("Tcp", "None"), of("Icmp", "InMsgs")), (None, None));
        assert_eq!(protocol("Ip: Forwarding\n", "Ip", "Forwarding"), None);
    }
}
