//! Where a service that the authorizer asks is. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};
use transport::{Address, AddressError};

/// Where a service is: `https://host:port` or `http://host:port`, with a path before its own if need be. Ports 443 and 80 may be left
/// out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceUrl {
    pub(super) is_tls: bool,
    pub(super) address: Address,
    /// Without a `/` at its end.
    pub(super) path: String,
}

/// Why a text is no [`ServiceUrl`]. No variant shows the text: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceUrlError {
    /// Neither of the two.
    #[error("the URL does not begin with https:// or http://")]
    Scheme,
    /// It would be shown.
    #[error("the URL has a user name, options or a fragment; write https://host:port or https://host:port/path")]
    More,
    /// Host and port cannot be read.
    #[error("the URL's host and port: {0}")]
    Address(#[from] AddressError),
}

impl ServiceUrl {
    /// Whether what is sent there can be read on the way, on another machine's wire.
    pub(in crate::auth) fn is_exposed(&self) -> bool {
        let host = self.address.host();
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        !self.is_tls && !is_here
    }

    /// Whether it begins with `https://`.
    pub(in crate::auth) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host, without brackets.
    pub(in crate::auth) fn host(&self) -> &str {
        self.address.host()
    }
}

impl FromStr for ServiceUrl {
    type Err = ServiceUrlError;

    fn from_str(text: &str) -> Result<Self, ServiceUrlError> {
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(ServiceUrlError::Scheme),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if rest.contains(['@', '?', '#']) || (!path.is_empty() && PathAndQuery::from_str(path).is_err()) {
            return Err(ServiceUrlError::More);
        }
        let address = match host.parse() {
            Err(AddressError::NoPort(_)) => format!("{host}:{}", if is_tls { 443 } else { 80 }).parse()?,
            other => other?,
        };
        Ok(Self { is_tls, address, path: path.trim_end_matches('/').to_owned() })
    }
}

impl TryFrom<String> for ServiceUrl {
    type Error = ServiceUrlError;

    fn try_from(text: String) -> Result<Self, ServiceUrlError> {
        text.parse()
    }
}

impl From<ServiceUrl> for String {
    fn from(url: ServiceUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_back() {
        for (text, shown) in [
            ("https://uaa.internal:8443", "https://uaa.internal:8443"),
            ("https://login.example/uaa/", "https://login.example:443/uaa"),
            ("http://[::1]/base", "http://[::1]:80/base"),
        ] {
            assert_eq!(text.parse::<ServiceUrl>().unwrap().to_string(), shown);
        }
        let error = |text: &str| text.parse::<ServiceUrl>().unwrap_err().to_string();
        for text in ["uaa:8443", "ftp://uaa", "HTTPS://uaa"] {
            assert!(error(text).contains("https://"), "{text}");
        }
        for text in ["https://me:canary@uaa", "https://uaa/?token=canary", "https://uaa#canary"] {
            assert!(error(text).contains("has a user name") && !error(text).contains("canary"), "{text}");
        }
    }

    #[test]
    fn only_loopback_may_be_plain() {
        let exposed = |text: &str| text.parse::<ServiceUrl>().unwrap().is_exposed();
        for text in ["http://10.0.0.1:9000", "http://uaa", "http://localhost.example", "http://127.0.0.1.example:1"] {
            assert!(exposed(text), "{text}");
        }
        for text in ["https://uaa", "http://localhost:1", "http://127.9.9.9:1", "http://[::1]:1"] {
            assert!(!exposed(text), "{text}");
        }
    }
}
