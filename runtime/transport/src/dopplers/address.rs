//! A peer's `host:port`. Pure: a text enters, an [`Address`] leaves, or an error that says what would be right.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// A peer as `host:port`: a name that is looked up at every connect, or a literal address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Without the brackets of an IPv6 literal.
    host: Arc<str>,
    port: u16,
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon, or nothing that separates host and port.
    #[error("\"{0}\" has no port; write host:port, as in \"{0}:8082\"")]
    NoPort(String),
    /// An IPv6 literal without brackets.
    #[error("\"{0}\" is ambiguous; write an IPv6 address in brackets, as in \"[::1]:8082\"")]
    Brackets(String),
    /// The part after the last colon is no port.
    #[error("\"{0}\" does not end in a port from 1 to 65535; write host:port, as in \"127.0.0.1:8082\"")]
    BadPort(String),
    /// The part before the port is neither a host name nor an address.
    #[error("\"{0}\" has no usable host; write a name or an address, as in \"127.0.0.1:8082\", without scheme or path")]
    BadHost(String),
}

impl Address {
    /// The name or literal address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let owned = || text.to_owned();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| AddressError::BadHost(owned()))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::BadHost(owned()))?;
                (host, port.strip_prefix(':').ok_or_else(|| AddressError::NoPort(owned()))?)
            }
            None => {
                if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                    return Err(AddressError::Brackets(owned()));
                }
                text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(owned()))?
            }
        };
        if !host_is_usable(host) {
            return Err(AddressError::BadHost(owned()));
        }
        // `u16::from_str` takes a sign; a port has none.
        match port.parse::<u16>() {
            Ok(number) if number > 0 && !port.starts_with('+') => Ok(Self { host: host.into(), port: number }),
            _ => Err(AddressError::BadPort(owned())),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string().into(), port: addr.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A name of letters, digits, `-`, `_` and `.`, at most 253 bytes, or an IPv6 literal (checked by the caller).
fn host_is_usable(host: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let literal = host.parse::<std::net::Ipv6Addr>().is_ok();
    literal || (!host.is_empty() && host.len() <= 253 && host.bytes().all(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_and_written_back() {
        for text in ["127.0.0.1:8082", "doppler-0.internal:1", "localhost:65535", "[::1]:8082", "a_b.c:80"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let literal: Address = "[fe80::1]:9".parse().unwrap();
        assert_eq!((literal.host(), literal.port()), ("fe80::1", 9));
        assert_eq!(Address::from("[::1]:3458".parse::<SocketAddr>().unwrap()).to_string(), "[::1]:3458");
    }

    #[test]
    fn each_mistake_has_its_own_advice() {
        let error = |text: &str| text.parse::<Address>().unwrap_err().to_string();
        assert_eq!(error("doppler"), "\"doppler\" has no port; write host:port, as in \"doppler:8082\"");
        assert!(error("::1").contains("in brackets"));
        assert!(error("[::1]").contains("has no port"));
        for text in ["a:", "a:0", "a:65536", "a:+80", "a:http", "a: 80"] {
            assert!(error(text).contains("from 1 to 65535"), "{text}: {}", error(text));
        }
        for text in [":80", "http://a:80", "a/b:80", "a b:80", "[a]:80", "[::1:80", "user@a:80", "ä:80"] {
            assert!(error(text).contains("no usable host"), "{text}: {}", error(text));
        }
    }
}
