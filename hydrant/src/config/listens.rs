//! The addresses that a configuration listens on, as far as two of them are one.
//!
//! What enters: the configuration as a table. What leaves: the first two keys that ask for the same port. It opens nothing.

use std::fmt;
use std::net::SocketAddr;

use super::Config;

/// Tables whose `listen` is a UDP address; entries of a list say `protocol = "udp"` instead.
const UDP: [&str; 2] = ["agent.statsd", "agent.dropsonde"];

/// Two keys that cannot both have what they ask for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} both listen on port {} over {transport}; give one of them another port", .port)]
pub struct ListenTwice {
    first: String,
    second: String,
    port: u16,
    transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

struct Listen {
    key: String,
    transport: Transport,
    addr: SocketAddr,
}

impl Config {
    /// Looks at the addresses of roles that run in one process, each named by its table.
    ///
    /// # Errors
    /// Two keys ask for the same port of the same address.
    pub fn check_listens(&self, roles: &[&str]) -> Result<(), ListenTwice> {
        let table = toml::Table::try_from(self).expect("a configuration that was read can be written");
        let mut listens = Vec::new();
        for role in roles {
            if let Some(value) = table.get(*role) {
                gather(role, value, &mut listens);
            }
        }
        for (i, second) in listens.iter().enumerate() {
            if let Some(first) = listens[..i].iter().find(|first| first.clashes(second)) {
                return Err(ListenTwice {
                    first: first.key.clone(),
                    second: second.key.clone(),
                    port: second.addr.port(),
                    transport: second.transport,
                });
            }
        }
        Ok(())
    }
}

impl Listen {
    fn clashes(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.addr.ip(), other.addr.ip());
        self.transport == other.transport
            && self.addr.port() == other.addr.port()
            && self.addr.port() != 0
            && (ours == theirs || ours.is_unspecified() || theirs.is_unspecified())
    }
}

fn gather(path: &str, value: &toml::Value, into: &mut Vec<Listen>) {
    match value {
        toml::Value::Array(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                gather(&format!("{path}[{i}]"), entry, into);
            }
        }
        toml::Value::Table(table) if table.get("enabled") != Some(&toml::Value::Boolean(false)) => {
            if let Some(addr) = table.get("listen").and_then(toml::Value::as_str).and_then(|text| text.parse().ok()) {
                let udp = UDP.contains(&path) || table.get("protocol").and_then(toml::Value::as_str) == Some("udp");
                let transport = if udp { Transport::Udp } else { Transport::Tcp };
                into.push(Listen { key: format!("{path}.listen"), transport, addr });
            }
            for (key, value) in table {
                gather(&format!("{path}.{key}"), value, into);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: [&str; 4] = ["agent", "doppler", "traffic_controller", "adapters"];

    fn check(text: &str, roles: &[&str]) -> Result<(), String> {
        let config: Config = toml::from_str(text).expect("valid");
        config.check_listens(roles).map_err(|twice| twice.to_string())
    }

    #[test]
    fn the_defaults_do_not_meet() {
        assert_eq!(check("", &UP), Ok(()));
        assert_eq!(check("", &["log_cache"]), Ok(()));
    }

    #[test]
    fn two_keys_with_one_port_are_named() {
        let twice = check("agent.grpc.listen = \"127.0.0.1:14824\"", &["agent"]).expect_err("as the admin port");
        assert_eq!(
            twice,
            "agent.admin.listen and agent.grpc.listen both listen on port 14824 over TCP; give one of them another port"
        );
        let text = "agent.grpc.listen = \"127.0.0.1:8082\"";
        assert_eq!(check(text, &["agent"]), Ok(()));
        assert!(check(text, &UP).expect_err("as the doppler's").contains("agent.grpc.listen and doppler.grpc.listen"));
        assert!(check("doppler.grpc.listen = \"0.0.0.0:3458\"", &UP).is_err(), "every address is 127.0.0.1 too");
    }

    #[test]
    fn what_does_not_meet_is_no_error() {
        assert_eq!(check("agent.statsd.listen = \"127.0.0.1:3458\"", &["agent"]), Ok(()), "UDP beside TCP");
        assert_eq!(check("agent.grpc.listen = \"127.0.0.2:14824\"", &["agent"]), Ok(()), "another address");
        let any = "agent.grpc.listen = \"127.0.0.1:0\"\nagent.admin.listen = \"127.0.0.1:0\"";
        assert_eq!(check(any, &["agent"]), Ok(()), "any ports");
        let off = "[agent.statsd]\nenabled = false\nlisten = \"127.0.0.1:3457\"";
        assert_eq!(check(off, &["agent"]), Ok(()), "statsd is off");
    }
}
