//! Which addresses drains of apps may be sent to.
//!
//! Rules and an address enter, a verdict leaves. Pure. Tenants choose where their drains go, and hydrant connects from within the
//! operator's network: an address is judged each time before it is dialled, whatever name it came from. An IPv4 address that stands
//! within an IPv6 one is judged too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The `addresses` table: what is allowed and denied besides the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AddressRules {
    /// Ranges that are denied besides loopback, link-local, multicast, unspecified and metadata addresses: `"10.1.0.0/16"`, one
    /// address, or `"10.1.0.1-10.1.0.9"`, both ends included. None.
    pub deny: Vec<AddressRange>,
    /// Ranges that are allowed whatever else denies them. None.
    pub allow: Vec<AddressRange>,
    /// Whether private addresses are denied: those of RFC 1918, 100.64.0.0/10 and IPv6's fc00::/7. False.
    pub deny_private: bool,
}

/// Addresses from one to another, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither of the three forms.
    #[error("\"{0}\" is no range of addresses; write 10.0.0.0/8, 10.0.0.1 or 10.0.0.1-10.0.0.9")]
    NoRange(String),
    /// Two ends that do not belong together.
    #[error("the range \"{0}\" does not begin before its end, within one family of addresses")]
    Order(String),
}

/// Judges addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    rules: AddressRules,
    /// Where the rules stand in the configuration.
    table: &'static str,
}

/// An address that drains of apps may not be sent to. The text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address {addr} is not allowed for drains of apps: {why}; {table}.allow can allow it")]
pub struct Denied {
    addr: IpAddr,
    why: Why,
    table: &'static str,
}

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Loopback,
    LinkLocal,
    Multicast,
    Unspecified,
    Metadata,
    Private,
    Listed,
}

/// Where clouds tell machines their secrets, outside of the link-local ranges: AWS and Google over IPv6, Alibaba.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

impl AddressPolicy {
    /// Judges by `rules`, which stand in the configuration at `table`.
    pub fn new(rules: AddressRules, table: &'static str) -> Self {
        Self { rules, table }
    }

    /// Whether a drain of an app may be sent to this address.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, addr: IpAddr) -> Result<(), Denied> {
        // The same host, by another name.
        let plain = addr.to_canonical();
        let is_in = |ranges: &[AddressRange], addr| ranges.iter().any(|range| range.contains(addr));
        if is_in(&self.rules.allow, plain) {
            return Ok(());
        }
        let within = if let IpAddr::V6(v6) = plain { within(v6) } else { [None; 3] };
        for face in std::iter::once(plain).chain(within.into_iter().flatten().map(IpAddr::V4)) {
            let listed = || is_in(&self.rules.deny, face).then_some(Why::Listed);
            let private = || (self.rules.deny_private && is_private(face)).then_some(Why::Private);
            if let Some(why) = never(face).or_else(listed).or_else(private) {
                return Err(Denied { addr, why, table: self.table });
            }
        }
        Ok(())
    }
}

/// What is denied unless a range allows it.
fn never(addr: IpAddr) -> Option<Why> {
    let link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let nowhere = match addr {
        // "This network", of which Linux takes the first address for loopback, and the broadcast address.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    match () {
        () if addr.is_loopback() => Some(Why::Loopback),
        () if addr == IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)) || METADATA.contains(&addr) => Some(Why::Metadata),
        () if link_local => Some(Why::LinkLocal),
        () if addr.is_multicast() => Some(Why::Multicast),
        () if nowhere => Some(Why::Unspecified),
        () => None,
    }
}

fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        // The last: site-local, the forerunner of fc00::/7 (RFC 3879).
        IpAddr::V6(v6) => v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0,
    }
}

/// The IPv4 addresses that an IPv6 one may lead to: an IPv4-compatible one (RFC 4291), 6to4 (RFC 3056), or through NAT64 with the
/// well-known prefix (RFC 6052) or one of those for local use (RFC 8215). The latter does not say how long its prefix is, so that there may
/// be several; one that ends in zeros can have its IPv4 address in the middle.
fn within(addr: Ipv6Addr) -> [Option<Ipv4Addr>; 3] {
    let bytes = addr.octets();
    let pick = |places: [usize; 4]| Some(Ipv4Addr::from(places.map(|place| bytes[place])));
    let last = pick([12, 13, 14, 15]);
    match addr.segments() {
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, None, None],
        [0x2002, ..] => [pick([2, 3, 4, 5]), None, None],
        [0x64, 0xff9b, 1, ..] if bytes[13..] == [0; 3] => {
            [pick([6, 7, 9, 10]), pick([7, 9, 10, 11]), pick([9, 10, 11, 12])]
        }
        [0x64, 0xff9b, 1, ..] => [last, None, None],
        _ => [None; 3],
    }
}

impl AddressRange {
    fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.first.is_ipv4() && self.first <= addr && addr <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let no_range = || RangeError::NoRange(text.to_owned());
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| no_range());
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (address(first)?, address(last)?)
        } else if text.contains('/') {
            let net: IpNet = text.trim().parse().map_err(|_| no_range())?;
            (net.network(), net.broadcast())
        } else {
            (address(text)?, address(text)?)
        };
        // Addresses are judged in their plain form.
        let (first, last) = (first.to_canonical(), last.to_canonical());
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(RangeError::Order(text.to_owned()));
        }
        Ok(Self { first, last })
    }
}

impl TryFrom<String> for AddressRange {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        format!("{}-{}", range.first, range.last)
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loopback => "it is a loopback address",
            Self::LinkLocal => "it is a link-local address",
            Self::Multicast => "it is a multicast address",
            Self::Unspecified => "it is the address of no host",
            Self::Metadata => "a cloud tells machines their secrets there",
            Self::Private => "it is a private address, and deny_private is set",
            Self::Listed => "it is in a range that is denied",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(deny: &[&str], allow: &[&str], deny_private: bool) -> AddressPolicy {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let rules = AddressRules { deny: ranges(deny), allow: ranges(allow), deny_private };
        AddressPolicy::new(rules, "adapters.bindings.addresses")
    }

    fn verdict(policy: &AddressPolicy, addr: &str) -> Option<Why> {
        policy.check(addr.parse().unwrap()).err().map(|denied| denied.why)
    }

    #[test]
    fn what_is_denied_by_default_is_seen_in_every_form() {
        let default = policy(&[], &[], false);
        for (addr, why) in [
            ("127.0.0.1", Why::Loopback),
            ("127.255.255.254", Why::Loopback),
            ("::1", Why::Loopback),
            ("::ffff:127.0.0.1", Why::Loopback),
            ("::127.0.0.1", Why::Loopback),
            ("64:ff9b::127.0.0.1", Why::Loopback),
            ("64:ff9b:1::127.0.0.1", Why::Loopback),
            ("64:ff9b:1:fffe::127.0.0.1", Why::Loopback),
            ("2002:7f00:1::1", Why::Loopback),
            ("169.254.0.1", Why::LinkLocal),
            ("fe80::1", Why::LinkLocal),
            ("febf::1", Why::LinkLocal),
            ("2002:a9fe:1::", Why::LinkLocal),
            ("169.254.169.254", Why::Metadata),
            ("::ffff:169.254.169.254", Why::Metadata),
            ("64:ff9b::a9fe:a9fe", Why::Metadata),
            ("2002:a9fe:a9fe::", Why::Metadata),
            ("fd00:ec2::254", Why::Metadata),
            ("fd20:ce::254", Why::Metadata),
            ("100.100.100.200", Why::Metadata),
            ("224.0.0.1", Why::Multicast),
            ("239.255.255.255", Why::Multicast),
            ("ff02::1", Why::Multicast),
            ("0.0.0.0", Why::Unspecified),
            ("0.1.2.3", Why::Unspecified),
            ("255.255.255.255", Why::Unspecified),
            ("::", Why::Unspecified),
            ("::ffff:0.0.0.0", Why::Unspecified),
            ("64:ff9b::", Why::Unspecified),
        ] {
            assert_eq!(verdict(&default, addr), Some(why), "{addr}");
        }
        // 127.0.0.1 behind prefixes of 48, 56 and 64 bits.
        for addr in ["64:ff9b:1:7f00:0:100::", "64:ff9b:1:7f:0:1::", "64:ff9b:1:1:7f:0:100:0"] {
            assert!(verdict(&default, addr).is_some(), "{addr}");
        }
        for addr in [
            "10.0.0.1",
            "192.168.0.1",
            "172.16.0.1",
            "fd00::1",
            "8.8.8.8",
            "128.0.0.1",
            "126.255.255.255",
            "169.253.255.255",
            "223.255.255.255",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::8.8.8.8",
            "2002:808:808::1",
            "fd00:ec2::253",
            "fec0::1",
        ] {
            assert_eq!(verdict(&default, addr), None, "{addr}");
        }
    }

    #[test]
    fn private_addresses_are_denied_on_request() {
        let strict = policy(&[], &[], true);
        for addr in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
        ] {
            assert_eq!(verdict(&strict, addr), Some(Why::Private), "{addr}");
        }
        for addr in
            ["11.0.0.1", "172.15.255.255", "172.32.0.0", "192.169.0.0", "100.63.255.255", "100.128.0.0", "fbff::1"]
        {
            assert_eq!(verdict(&strict, addr), None, "{addr}");
        }
    }

    #[test]
    fn ranges_are_read_in_three_forms_and_hold_their_ends() {
        let listed = policy(
            &["10.1.0.0/16", "10.9.0.5 - 10.9.0.7", "192.0.2.1", "2001:db8::/32", "::ffff:10.8.0.1"],
            &[],
            false,
        );
        for addr in ["10.1.0.0", "10.1.255.255", "10.9.0.5", "10.9.0.7", "192.0.2.1", "2001:db8::", "2001:db8:ffff::1"]
        {
            assert_eq!(verdict(&listed, addr), Some(Why::Listed), "{addr}");
        }
        assert_eq!(verdict(&listed, "::ffff:10.1.2.3"), Some(Why::Listed));
        assert_eq!(verdict(&listed, "10.8.0.1"), Some(Why::Listed), "a range in the mapped form means the plain one");
        for addr in ["10.0.255.255", "10.2.0.0", "10.9.0.4", "10.9.0.8", "192.0.2.2", "2001:db9::"] {
            assert_eq!(verdict(&listed, addr), None, "{addr}");
        }
        let error = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        for text in ["", "a", "10.0.0.0/33", "10.0.0", "10.0.0.1-", "-", "10.0.0.1-b", "10.0.0.1/8-10.0.0.2"] {
            assert!(error(text).contains("is no range of addresses"), "{text}");
        }
        for text in ["10.0.0.2-10.0.0.1", "10.0.0.1-::1"] {
            assert!(error(text).contains("does not begin before its end"), "{text}");
        }
        let range: AddressRange = "10.0.0.0/8".parse().unwrap();
        assert_eq!(String::from(range), "10.0.0.0-10.255.255.255");
        assert_eq!(String::from(range).parse(), Ok(range));
    }

    #[test]
    fn what_is_allowed_wins_but_not_for_another_way_there() {
        let open = policy(&["10.0.0.0/8"], &["127.0.0.1", "10.0.0.7"], true);
        for addr in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.7"] {
            assert_eq!(verdict(&open, addr), None, "{addr}");
        }
        for addr in ["127.0.0.2", "10.0.0.8", "::1", "64:ff9b::127.0.0.1", "2002:7f00:1::"] {
            assert!(verdict(&open, addr).is_some(), "{addr}: a translator's own loopback is not ours");
        }
        assert_eq!(verdict(&policy(&[], &["64:ff9b::/96"], false), "64:ff9b::127.0.0.1"), None);
    }

    #[test]
    fn the_operator_reads_why_and_what_to_change() {
        let denied = policy(&[], &[], false).check("127.0.0.1".parse().unwrap()).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "the address 127.0.0.1 is not allowed for drains of apps: it is a loopback address; adapters.bindings.addresses.allow can allow it"
        );
    }
}
