//! Keeps web pages and rebound names away from an HTTP port that asks for no authentication.
//!
//! A loopback port is not private from a browser: any page may send requests to it, and a page whose name resolves to
//! 127.0.0.1 may even read the answers. So every request must name a loopback host and come from no origin but that
//! host. What enters: a request's head. What leaves: the request, or 403 with one constant line. No header of
//! cross-origin sharing is ever sent, so that a browser keeps what slips through from the page that asked.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

/// The rule for one port. Use it on every port that serves without authentication, the admin port included.
#[derive(Clone, Debug)]
pub struct LocalOnly {
    scheme: &'static str,
    /// Paths that take any `Host`.
    open: Vec<&'static str>,
}

/// Why a request is refused. Its text is the body of the answer; it repeats nothing that the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No `Host`, several, or one that cannot be read.
    #[error("the request must carry exactly one Host header, such as localhost:8081")]
    NoHost,
    /// A `Host` that is no loopback name.
    #[error("without authentication this port answers only to localhost, 127.0.0.1 or [::1] in the Host header")]
    NotLoopback,
    /// An `Origin` other than the host itself.
    #[error("without authentication this port does not answer pages of another origin")]
    OtherOrigin,
}

impl LocalOnly {
    /// The rule for a plain HTTP port bound to `bound`.
    ///
    /// On a loopback address it holds for every path. On another address `/live` and `/ready` take any `Host`, as an
    /// orchestrator asks for them by the machine's name.
    pub fn on(bound: SocketAddr) -> Self {
        let open = if bound.ip().to_canonical().is_loopback() { Vec::new() } else { vec!["/live", "/ready"] };
        Self { scheme: "http", open }
    }

    /// The same for a port that speaks TLS: the page's own origin then begins with `https`.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { scheme: "https", ..self }
    }

    /// Lets `path` (exactly) take any `Host`, because the configuration says so.
    #[must_use]
    pub fn opening(mut self, path: &'static str) -> Self {
        self.open.push(path);
        self
    }

    /// Puts the rule before every route of `router`, its fallback included.
    pub fn protect(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, refuse_or_pass))
    }

    /// Judges one request by its target and headers.
    ///
    /// # Errors
    ///
    /// Why the request must not be answered.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = requested_host(uri, headers)?;
        if !self.open.contains(&uri.path()) && !host.is_loopback() {
            return Err(Refusal::NotLoopback);
        }
        if self.own_origin(headers, &host) { Ok(()) } else { Err(Refusal::OtherOrigin) }
    }

    /// No `Origin`, or one that is the host's.
    fn own_origin(&self, headers: &HeaderMap, host: &Host) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => origin.to_str().is_ok_and(|origin| self.same_origin(origin, host)),
            _ => false,
        }
    }

    /// RFC 6454 §5: same scheme, host and port, where an absent port is the scheme's own.
    fn same_origin(&self, origin: &str, host: &Host) -> bool {
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let default_port = if self.scheme == "https" { 443 } else { 80 };
        // Nozzles name their WebSocket URL as their origin, as browsers never do.
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" => "http",
            "wss" => "https",
            _ => scheme,
        };
        scheme.eq_ignore_ascii_case(self.scheme)
            && Host::parse(rest).is_some_and(|origin| {
                origin.name == host.name && origin.port.unwrap_or(default_port) == host.port.unwrap_or(default_port)
            })
    }
}

/// True when a request comes from no page, or from a page of the very host that it asks: what a port that takes cookies must see
/// before it believes one. `tls` says whether the connection is encrypted.
pub fn own_origin(uri: &Uri, headers: &HeaderMap, tls: bool) -> bool {
    let rule = LocalOnly { scheme: if tls { "https" } else { "http" }, open: Vec::new() };
    requested_host(uri, headers).is_ok_and(|host| rule.own_origin(headers, &host))
}

async fn refuse_or_pass(State(rule): State<LocalOnly>, request: Request, next: Next) -> Response {
    match rule.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => (StatusCode::FORBIDDEN, format!("{refusal}\n")).into_response(),
    }
}

/// The host of a request: its `Host` header (HTTP/1.1) or the authority of its target (HTTP/2, absolute form). When
/// both are there they must agree, as servers differ in which they believe.
fn requested_host(uri: &Uri, headers: &HeaderMap) -> Result<Host, Refusal> {
    let mut values = headers.get_all(HOST).iter();
    let header = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(value.to_str().ok().and_then(Host::parse).ok_or(Refusal::NoHost)?),
        (Some(_), Some(_)) => return Err(Refusal::NoHost),
    };
    let target = match uri.authority() {
        None => None,
        Some(authority) => Some(Host::parse(authority.as_str()).ok_or(Refusal::NoHost)?),
    };
    match (header, target) {
        (Some(header), Some(target)) if header != target => Err(Refusal::NoHost),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::NoHost),
    }
}

/// A `host[:port]`, comparable.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: Name,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Name {
    Ip(IpAddr),
    /// In lower case.
    Dns(String),
}

impl Host {
    /// `None` for anything but a host and at most a port: no user, no path, no list.
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        // `Authority` takes a user and an empty port, and cuts nothing off: compare what it found with the whole.
        let rest = text.strip_prefix(authority.host())?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { name: Name::parse(authority.host())?, port })
    }

    fn is_loopback(&self) -> bool {
        match &self.name {
            Name::Ip(ip) => ip.is_loopback(),
            // Nobody but this machine resolves the bare name. Names below it and with a final dot are refused: some
            // resolvers ask the network for them.
            Name::Dns(name) => name == "localhost",
        }
    }
}

impl Name {
    fn parse(host: &str) -> Option<Self> {
        if let Some(literal) = host.strip_prefix('[') {
            let ip: std::net::Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Ip(IpAddr::V6(ip).to_canonical()));
        }
        if host.is_empty() {
            return None;
        }
        Some(match host.parse::<std::net::Ipv4Addr>() {
            Ok(ip) => Self::Ip(ip.into()),
            Err(_) => Self::Dns(host.to_ascii_lowercase()),
        })
    }
}

#[cfg(test)]
mod tests;
